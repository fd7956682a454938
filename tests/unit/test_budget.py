import threading
from collections.abc import Iterator

import pytest
from fakes import PATIENCE_S

from service.errors import DeadlineExceeded
from service.inputs.budget import MOST_OBJECT_BYTES, ByteBudget, Lease, decoding_bytes

MOMENT_S = 0.02


class Client:
    """A request in a thread of its own, that takes memory and holds it until it is told."""

    def __init__(self, budget: ByteBudget) -> None:
        self.is_abandoned = False
        self.lease: Lease = budget.lease(lambda: self.is_abandoned)
        self.has_taken = threading.Event()
        self.failure: Exception | None = None
        self._thread: threading.Thread | None = None

    def take(self, need_bytes: int) -> None:
        self.has_taken.clear()
        self._thread = threading.Thread(target=self._take, args=(need_bytes,), daemon=True)
        self._thread.start()

    def _take(self, need_bytes: int) -> None:
        try:
            self.lease.take(need_bytes)
        except DeadlineExceeded as error:
            self.failure = error
        self.has_taken.set()

    def waits(self) -> bool:
        return not self.has_taken.wait(MOMENT_S)

    def has(self) -> bool:
        return self.has_taken.wait(PATIENCE_S) and self.failure is None


@pytest.fixture
def clients() -> Iterator[tuple[Client, Client, Client]]:
    budget = ByteBudget(100)
    first, second, third = Client(budget), Client(budget), Client(budget)
    yield first, second, third
    for client in (first, second, third):
        client.is_abandoned = True


Clients = tuple[Client, Client, Client]


def test_what_fits_is_taken_at_once(clients: Clients) -> None:
    first, second, _ = clients
    first.take(40)
    second.take(60)

    assert first.has()
    assert second.has()


def test_one_request_may_need_more_than_the_budget(clients: Clients) -> None:
    first, _, _ = clients
    first.take(1000)

    assert first.has()


def test_only_one_request_at_a_time_goes_beyond_the_budget(clients: Clients) -> None:
    first, second, third = clients
    first.take(1000)
    assert first.has()
    second.take(1000)
    assert second.waits()
    third.take(1)

    assert third.waits()
    assert second.waits()
    for client in (first, second, third):
        client.lease.close()
    assert second.has()


def test_request_that_waits_goes_on_once_others_have_given_enough_back(clients: Clients) -> None:
    first, second, third = clients
    first.take(1000)
    assert first.has()
    second.take(100)
    assert second.waits()

    first.lease.close()

    assert second.has()
    third.take(1000)
    assert third.has()


def test_two_requests_that_need_more_do_not_wait_for_each_other(clients: Clients) -> None:
    first, second, _ = clients
    first.take(50)
    second.take(50)
    assert first.has()
    assert second.has()

    first.take(50)
    second.take(50)

    assert first.has()
    assert second.waits()
    first.lease.close()
    assert second.has()


def test_request_that_was_abandoned_stops_waiting(clients: Clients) -> None:
    first, second, _ = clients
    first.take(1000)
    assert first.has()
    second.take(1000)
    assert second.waits()

    second.is_abandoned = True

    assert second.has_taken.wait(PATIENCE_S)
    assert isinstance(second.failure, DeadlineExceeded)
    assert second.lease.held_bytes == 0


def test_memory_of_a_block_is_given_back_at_its_end(clients: Clients) -> None:
    first, second, _ = clients
    with pytest.raises(ValueError, match="damaged"), first.lease.taking(1000):
        raise ValueError("damaged")

    second.take(1000)

    assert second.has()


def test_decoding_a_body_needs_what_its_values_may_take_at_most() -> None:
    assert decoding_bytes(1000) == 48_000
    assert decoding_bytes(8 * 1024 * 1024) == MOST_OBJECT_BYTES
