import resource
from collections.abc import Iterator

import pytest

from service.api.doorway import RESERVED, SPARE_DESCRIPTORS, fitting_connections

OTHERS = RESERVED + SPARE_DESCRIPTORS


@pytest.fixture(autouse=True)
def _limit_is_left_as_it_was() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_limit_of_open_files_is_raised_as_far_as_connections_need(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OTHERS + 200, hard))

    assert fitting_connections(300) == 300
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == OTHERS + 300
    assert caplog.records == []


def test_limit_of_open_files_that_is_high_enough_is_left_alone() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OTHERS + 400, hard))

    assert fitting_connections(300) == 300
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == OTHERS + 400


def test_fewer_connections_are_taken_where_no_more_files_may_be_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard  # with all else, more than there may be

    assert fitting_connections(wanted) == hard - OTHERS
    assert f"there are at most {hard - OTHERS} connections" in caplog.text
