import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as TheirHistogram

from service.telemetry.series import Counter, Gauge, Histogram

BUCKETS = (0.1, 0.5, 2.0)
VALUES = (0.05, 0.1, 0.3, 0.5, 1.9, 2.0, 2.1, 50.0)


def lines(registry: CollectorRegistry) -> set[str]:
    """What is exposed, but for the time of creation, which we do not tell."""
    text = generate_latest(registry).decode()
    return {line for line in text.splitlines() if "_created" not in line}


def histogram(registry: CollectorRegistry) -> Histogram:
    return Histogram("seconds", "Of something.", ("model",), buckets=BUCKETS, registry=registry)


def test_histogram_is_exposed_as_prometheus_clients_own() -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    other = TheirHistogram("seconds", "Of something.", ("model",), buckets=BUCKETS, registry=theirs)
    own = histogram(ours)

    for value in VALUES:
        other.labels("wine").observe(value)
        own.labels("wine").observe(value)

    assert lines(ours) == lines(theirs)


def test_many_values_count_as_one_by_one() -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    one_by_one, at_once = (histogram(registry).labels("wine") for registry in registries)

    for value in VALUES:
        one_by_one.observe(value)
    at_once.observe_all(VALUES)

    assert at_once.counts == one_by_one.counts
    assert at_once.sum == pytest.approx(one_by_one.sum)


def test_series_is_the_same_by_position_and_by_name() -> None:
    counter = Counter("things", "There are.", ("model", "cause"), registry=CollectorRegistry())

    counter.labels("wine", "full").inc()
    counter.labels(cause="full", model="wine").inc(2)

    assert counter.labels("wine", "full").value == 3


def test_label_that_is_missing_is_refused() -> None:
    counter = Counter("things", "There are.", ("model", "cause"), registry=CollectorRegistry())

    with pytest.raises(ValueError, match="things"):
        counter.labels("wine")


def test_gauge_can_be_told_or_asked() -> None:
    registry = CollectorRegistry()
    Gauge("told", "By us.", registry=registry).set(3)
    Gauge("asked", "Of a function.", ("model",), registry=registry).labels("wine").set_function(
        lambda: 7
    )

    assert registry.get_sample_value("told") == 3
    assert registry.get_sample_value("asked", {"model": "wine"}) == 7
