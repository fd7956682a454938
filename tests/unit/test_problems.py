import pytest

from service import errors
from service.api.problems import STATUS
from service.errors import CapacityError, ClientError, DunnoError, code_of


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
