"""Which connections are closed when answers that clients do not read exceed their budget."""

from service.api.unsent import UnsentAnswers

BUDGET = 100


class Client:
    """A connection whose client reads when the test says so."""

    def __init__(self, peer: str, size_bytes: int) -> None:
        self.peer: str | None = peer
        self.size_bytes = size_bytes
        self.is_closed = False

    def unsent_bytes(self) -> int:
        return self.size_bytes

    def abort(self) -> None:
        self.is_closed = True


def closed(*clients: Client) -> list[bool]:
    return [client.is_closed for client in clients]


def budget() -> UnsentAnswers:
    return UnsentAnswers(BUDGET, lambda: None)


def test_client_that_reads_slowly_stays_and_one_that_never_reads_is_closed() -> None:
    unsent = budget()
    slow, idle, late = (Client("a", 40) for _ in range(3))
    unsent.add(slow)
    unsent.add(idle)
    slow.size_bytes = 30

    unsent.add(late)

    assert closed(slow, idle, late) == [False, True, False]


def test_of_clients_that_do_not_read_the_one_without_progress_for_longest_is_closed() -> None:
    unsent = budget()
    first, second, third = (Client("a", 40) for _ in range(3))
    for client in (first, second, third):
        unsent.add(client)

    assert closed(first, second, third) == [True, False, False]


def test_peer_that_holds_most_is_closed_first() -> None:
    unsent = budget()
    modest, *greedy = Client("modest", 30), *(Client("greedy", 30) for _ in range(3))
    for client in (modest, *greedy):
        unsent.add(client)

    assert not modest.is_closed
    assert closed(*greedy) == [True, False, False]


def test_of_clients_that_all_read_the_one_without_progress_for_longest_is_closed() -> None:
    unsent = budget()
    first, second, third = (Client("a", 50) for _ in range(3))
    unsent.add(first)
    unsent.add(second)
    first.size_bytes = second.size_bytes = 40

    unsent.add(third)

    assert closed(first, second, third) == [True, False, False]


def test_large_answer_is_not_closed_for_many_clients_that_do_not_read() -> None:
    unsent = budget()
    idle = [Client(f"idle {n}", 9) for n in range(10)]
    for client in idle:
        unsent.add(client)

    large = Client("good", 91)
    unsent.add(large)

    assert not large.is_closed
    assert all(client.is_closed for client in idle)


def test_client_of_a_full_peer_that_reads_stays_before_others_that_do_not() -> None:
    unsent = budget()
    reading, idle, newest = Client("full", 60), Client("other", 30), Client("third", 20)
    unsent.add(reading)
    unsent.add(idle)
    reading.size_bytes = 55

    unsent.add(newest)

    assert closed(reading, idle, newest) == [False, True, False]


def test_single_answer_may_be_larger_than_the_budget() -> None:
    unsent = budget()
    large = Client("a", 10 * BUDGET)
    unsent.add(large)

    assert not large.is_closed


def test_answers_that_were_read_do_not_count() -> None:
    unsent = budget()
    clients = [Client("a", 60) for _ in range(3)]
    for client in clients:
        unsent.add(client)
        unsent.remove(client)

    assert closed(*clients) == [False] * 3


def test_each_closed_connection_is_counted() -> None:
    counted: list[None] = []
    unsent = UnsentAnswers(BUDGET, lambda: counted.append(None))
    for _ in range(5):
        unsent.add(Client("a", 40))

    assert len(counted) == 3
