import re
from pathlib import Path

import pytest

from service import errors
from service.api.problems import STATUS
from service.errors import CapacityError, ClientError, DunnoError, code_of, reason_of
from service.telemetry.metrics import INPUT_REASONS

SERVICE = Path(__file__).parents[2] / "service"


def descendants(base: type[DunnoError]) -> list[type[DunnoError]]:
    return [base, *(each for child in base.__subclasses__() for each in descendants(child))]


# Training has failures of its own, which no request ever meets.
FAILURES = [each for each in descendants(DunnoError) if each.__module__ == errors.__name__]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_every_failure_has_a_status(failure: type[DunnoError]) -> None:
    assert failure in STATUS


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_status_tells_who_must_act(failure: type[DunnoError]) -> None:
    is_callers_fault = issubclass(failure, ClientError)
    is_capacity = issubclass(failure, CapacityError)

    assert is_callers_fault == (400 <= STATUS[failure] < 500 and STATUS[failure] != 429)
    assert is_capacity == (STATUS[failure] in (429, 503, 504))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_every_failure_is_drawn_in_the_tree(failure: type[DunnoError]) -> None:
    assert failure.__name__ in (errors.__doc__ or "")


def test_name_on_the_wire_is_in_snake_case() -> None:
    assert code_of(errors.RiskNotCertifiable("max_error", "x", "y")) == "risk_not_certifiable"


def test_refusals_by_a_cap_are_counted_by_what_there_was_too_much_of() -> None:
    assert reason_of(errors.PayloadTooLarge("x", 1, "times its size")) == "too_many_times_its_size"
    assert reason_of(errors.BodyTooLarge("x", 1, "bytes")) == "too_many_bytes"
    assert reason_of(errors.PictureUnreadable("x", "y", "z")) == "picture_unreadable"


def test_every_reason_of_a_cap_is_there_before_the_first_refusal() -> None:
    source = "".join(path.read_text() for path in SERVICE.rglob("*.py"))
    units = re.findall(r'TooLarge\((?:[^()]|\([^()]*\))*, "([a-z ]+)"\)', source)

    assert len(units) > 10
    assert {f"too_many_{unit.replace(' ', '_')}" for unit in units} <= set(INPUT_REASONS)
