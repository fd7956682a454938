from collections import Counter

import pytest

from service.prediction.turns import Turns


def shares(turns: Turns, requests: int = 1000, every: int = 1) -> Counter[str]:
    """Return how often each version is taken by one caller in `every`."""
    taken = [turns.take() for _ in range(requests * every)]
    return Counter(taken[::every])


def test_each_version_is_taken_as_often_as_its_weight_says() -> None:
    counts = shares(Turns({"1": 0.9, "2": 0.1}))

    assert counts["1"] == pytest.approx(900, abs=3)
    assert counts["2"] == pytest.approx(100, abs=3)


def test_weights_need_not_add_up_to_one() -> None:
    assert shares(Turns({"1": 30, "2": 10}))["2"] == pytest.approx(250, abs=3)


@pytest.mark.parametrize("every", [2, 3, 10])
def test_caller_in_any_rhythm_gets_the_same_shares(every: int) -> None:
    assert shares(Turns({"1": 0.9, "2": 0.1}), every=every)["2"] == pytest.approx(100, abs=60)


def test_any_hundred_requests_have_the_share_of_a_canary() -> None:
    turns = Turns({"1": 0.9, "2": 0.1})

    for _ in range(100):
        taken = Counter(turns.take() for _ in range(100))
        assert taken["2"] == pytest.approx(10, abs=4)


def test_nobody_knows_whose_turn_comes_after_those_that_were_seen() -> None:
    turns = Turns({"1": 0.5, "2": 0.5})
    after: dict[tuple[str, ...], Counter[str]] = {}
    seen = tuple(turns.take() for _ in range(4))
    for _ in range(16_000):
        version = turns.take()
        after.setdefault(seen, Counter())[version] += 1
        seen = (*seen[1:], version)

    assert all(min(each["1"], each["2"]) > 0.2 * each.total() for each in after.values())


def test_version_without_weight_has_no_turn() -> None:
    assert shares(Turns({"1": 0, "2": 1, "3": 0})) == {"2": 1000}


def test_dropped_version_leaves_its_weight_to_the_others() -> None:
    turns = Turns({"1": 0.6, "2": 0.1, "3": 0.3})

    turns.drop("2")

    assert shares(turns)["2"] == 0
    assert turns.share("1") == pytest.approx(2 / 3)
    assert turns.share("2") == 0
