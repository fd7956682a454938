"""Counters, gauges and histograms that cost the hot path next to nothing.

Plain numbers, counted on the event loop and read when scraped, behind the few methods of
prometheus_client that we use; its own take a lock for each increment. Exposition is its work.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

Child = TypeVar("Child")


class _Family(Collector, Generic[Child]):
    """The series of one metric by the values of its labels; a collector of prometheus_client."""

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
    ) -> None:
        self.name = name
        self._meaning = meaning
        self.label_names = tuple(labels)
        self._children: dict[tuple[str, ...], Child] = {}
        if not labels:
            self.labels()  # the only series is there from the start
        registry.register(self)

    def labels(self, *values: str, **named: str) -> Child:
        """Return the series of these label values, by position or by name, created if new."""
        key = values or tuple(named[name] for name in self.label_names)
        if len(key) != len(self.label_names):
            raise ValueError(f"{self.name}: expected a value for each of {self.label_names}")
        if key not in self._children:
            self._children[key] = self._new_child()
        return self._children[key]

    def values(self) -> list[tuple[str, ...]]:
        """Return the values of the labels of each series."""
        return list(self._children)

    def remove(self, *values: str) -> None:
        """Forget the series of these label values, if it is there."""
        self._children.pop(values, None)

    def _new_child(self) -> Child:
        raise NotImplementedError

    def _series(self) -> Iterator[tuple[tuple[str, ...], Child]]:
        yield from list(self._children.items())


class CounterSeries:
    """One number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        self.value += amount


class Counter(_Family[CounterSeries]):
    """Things that happened."""

    def _new_child(self) -> CounterSeries:
        return CounterSeries()

    def collect(self) -> Iterable[Metric]:
        """Yield all series; see prometheus_client."""
        family = CounterMetricFamily(self.name, self._meaning, labels=self.label_names)
        for values, child in self._series():
            family.add_metric(values, child.value)
        yield family


class GaugeSeries:
    """One number that goes up and down."""

    __slots__ = ("_function", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._function: Callable[[], float] | None = None

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        """Take from it."""
        self.value -= amount

    def set(self, value: float) -> None:
        """Replace it."""
        self.value = value

    def set_function(self, function: Callable[[], float]) -> None:
        """Let `function` tell the number when it is asked for."""
        self._function = function

    def read(self) -> float:
        """Return the number as it is now."""
        return self.value if self._function is None else self._function()


class Gauge(_Family[GaugeSeries]):
    """States; without label names it has one series, whose methods it shares."""

    def _new_child(self) -> GaugeSeries:
        return GaugeSeries()

    def set(self, value: float) -> None:
        """Replace the number of the only series."""
        self.labels().set(value)

    def collect(self) -> Iterable[Metric]:
        """Yield all series; see prometheus_client."""
        family = GaugeMetricFamily(self.name, self._meaning, labels=self.label_names)
        for values, child in self._series():
            family.add_metric(values, child.read())
        yield family


class HistogramSeries:
    """Counts of values by bucket."""

    __slots__ = ("_bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}
        """Number of a bucket -> the last value in it that had a trace."""

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def exemplify(self, value: float, trace_id: str) -> None:
        """Let a value that is counted elsewhere stand for its bucket."""
        bucket = bisect_left(self._bounds, value)
        self.exemplars[bucket] = Exemplar({"trace_id": trace_id}, value, time.time())

    def observe_all(self, values: ArrayLike) -> None:
        """Count many values at once, shape (values,)."""
        array = np.asarray(values, np.float64)
        found = np.bincount(np.searchsorted(self._bounds, array), minlength=len(self.counts))
        self.counts = (found + self.counts).tolist()
        self.sum += float(array.sum())


class Histogram(_Family[HistogramSeries]):
    """Distributions."""

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._bounds = tuple(buckets)
        super().__init__(name, meaning, labels, registry=registry)

    def _new_child(self) -> HistogramSeries:
        return HistogramSeries(self._bounds)

    def observe(self, value: float) -> None:
        """Count a value in the only series of a histogram without label names."""
        self.labels().observe(value)

    def collect(self) -> Iterable[Metric]:
        """Yield all series; see prometheus_client."""
        family = HistogramMetricFamily(self.name, self._meaning, labels=self.label_names)
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        for values, child in self._series():
            cumulative = np.cumsum(child.counts).tolist()
            buckets: list[Any] = list(zip(bounds, cumulative, strict=True))
            for number, exemplar in list(child.exemplars.items()):
                buckets[number] = (*buckets[number], exemplar)
            family.add_metric(values, buckets, child.sum)
        yield family
