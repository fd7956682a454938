import resource
from collections.abc import Iterator

import pytest

from service.api.doorway import (
    RESERVED,
    SPARE_DESCRIPTORS,
    Doorway,
    fitting_connections,
    peer_of,
)
from service.settings import Settings
from service.telemetry.metrics import Metrics

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


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        pytest.param(("10.0.0.1", 4000), "10.0.0.1", id="IPv4"),
        pytest.param(("::ffff:10.0.0.1", 4000, 0, 0), "10.0.0.1", id="IPv4 in IPv6"),
        pytest.param(("2001:db8::1", 4000, 0, 0), "2001:db8::/64", id="IPv6"),
        pytest.param(("2001:db8::ffff:1", 4000, 0, 0), "2001:db8::/64", id="same network"),
        pytest.param(("fe80::1%eth0", 4000, 0, 2), "fe80::/64", id="with a zone"),
        pytest.param("", None, id="unix socket"),
        pytest.param(None, None, id="no address"),
    ],
)
def test_connections_are_counted_by_address_or_network(address: object, peer: str | None) -> None:
    assert peer_of(address) == peer


def test_connections_of_one_peer_have_a_limit_and_others_are_not_counted_with_it() -> None:
    doorway = Doorway(Settings(max_connections_per_peer=2), Metrics())

    above = [doorway.enter("a") for _ in range(3)]
    doorway.leave("a")

    assert above == [-1, 0, 1]
    assert doorway.enter("a") == 1
    assert doorway.enter("b") == -1
    assert doorway.enter(None) < 0


def test_limit_of_a_peer_can_be_switched_off() -> None:
    doorway = Doorway(Settings(max_connections_per_peer=0), Metrics())

    assert max(doorway.enter("a") for _ in range(5000)) < 0
