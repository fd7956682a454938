import pytest

from service.prediction.rollback import Rollback, find_fault
from service.telemetry.recent import Recent

RULE = Rollback(errors=0.02, dont_know=0.2, p99_ms=100, rows=100)


def recent(
    *, answered: int = 100, failed: int = 0, unknown: int = 0, seconds: float = 0.01
) -> Recent:
    """Return what is remembered of requests of one row."""
    found = Recent(RULE.rows)
    for _ in range(failed):
        found.see_failure("error")
    found.see_answered([seconds] * answered)
    found.see_rows(["low_confidence"] * unknown + [None] * (answered - unknown))
    return found


USUAL = recent()


def test_canary_like_the_default_version_has_no_fault() -> None:
    assert find_fault(recent(unknown=20), USUAL, RULE) is None


@pytest.mark.parametrize(
    ("canary", "reason"),
    [
        pytest.param(recent(answered=97, failed=3), "errors", id="fails"),
        pytest.param(recent(unknown=21), "dont_know", id="does not know"),
        pytest.param(recent(seconds=0.2), "p99", id="slow"),
    ],
)
def test_canary_that_is_worse_than_allowed_is_found(canary: Recent, reason: str) -> None:
    finding = find_fault(canary, USUAL, RULE)

    assert finding is not None
    assert finding.reason == reason


def test_canary_that_only_fails_is_found_before_its_window_is_full() -> None:
    assert find_fault(recent(answered=0, failed=2), USUAL, RULE) is None
    finding = find_fault(recent(answered=0, failed=3), USUAL, RULE)

    assert finding is not None
    assert finding.reason == "errors"


def test_faults_that_the_default_version_has_as_well_are_no_reason() -> None:
    usual = recent(answered=80, failed=20, unknown=40, seconds=0.2)

    assert find_fault(recent(answered=79, failed=21, unknown=40, seconds=0.2), usual, RULE) is None


def test_nothing_is_said_before_the_default_version_is_known() -> None:
    assert find_fault(recent(answered=0, failed=50), recent(answered=50), RULE) is None


def test_what_is_not_in_the_rule_is_allowed() -> None:
    rule = Rollback(rows=100)

    assert find_fault(recent(failed=50, unknown=90, seconds=9), USUAL, rule) is None


def test_failures_of_the_caller_are_not_held_against_a_version() -> None:
    found = Recent(10)

    found.see_failure("invalid")
    found.see_failure("cancelled")

    assert (found.requests, found.failures) == (0, 0)


def test_only_the_last_rows_are_remembered() -> None:
    found = Recent(10)

    found.see_rows(["ambiguous"] * 10 + [None] * 9)

    assert (found.rows, found.unknown) == (10, 1)


def test_request_of_many_rows_counts_with_a_few_that_stand_for_all() -> None:
    found = Recent(100)

    found.see_request(0.01, ["ambiguous"] * 2000 + [None] * 2096)

    assert (found.requests, found.rows, found.unknown) == (1, 5, 3)


def test_request_of_one_row_counts_whatever_the_number_that_is_remembered() -> None:
    found = Recent(10)

    found.see_request(0.01, ["ambiguous"])

    assert (found.requests, found.rows, found.unknown) == (1, 1, 1)
