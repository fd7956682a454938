import sys
from types import ModuleType, SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from service.telemetry.devices import watch_devices
from service.telemetry.series import Gauge


class TwoGpus(ModuleType):
    """NVIDIA's library on a machine with two GPUs, the second of which can be lost."""

    def __init__(self) -> None:
        super().__init__("two_gpus")
        self.is_lost = False
        self.used = 1_000

    def nvmlInit(self) -> None:  # noqa: N802  its name
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802  its name
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802  its name
        return number

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802  its name
        if handle == 1 and self.is_lost:
            raise OSError("GPU is lost")
        return SimpleNamespace(used=self.used, total=8_000)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def gauge(registry: CollectorRegistry) -> Gauge:
    return Gauge("memory_bytes", "Of GPUs.", ("device", "kind"), registry=registry)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> TwoGpus:
    found = TwoGpus()
    monkeypatch.setitem(sys.modules, "two_gpus", found)
    return found


def told(registry: CollectorRegistry, device: str, kind: str) -> float | None:
    return registry.get_sample_value("memory_bytes", {"device": device, "kind": kind})


def test_memory_of_every_gpu_is_told_when_it_is_asked_for(
    registry: CollectorRegistry, gauge: Gauge, library: TwoGpus
) -> None:
    watch_devices(gauge, "two_gpus")
    library.used = 2_000

    assert [told(registry, device, "used") for device in "01"] == [2_000, 2_000]
    assert [told(registry, device, "total") for device in "01"] == [8_000, 8_000]


def test_gpu_that_is_lost_does_not_take_the_scrape_with_it(
    registry: CollectorRegistry, gauge: Gauge, library: TwoGpus
) -> None:
    watch_devices(gauge, "two_gpus")
    library.is_lost = True

    lost = told(registry, "1", "used")
    assert lost is not None
    assert lost != lost  # noqa: PLR0124  not a number
    assert told(registry, "0", "used") == 1_000


def test_memory_that_cannot_be_told_is_left_out(
    registry: CollectorRegistry, gauge: Gauge, caplog: pytest.LogCaptureFixture
) -> None:
    watch_devices(gauge, "no_such_library")

    assert told(registry, "0", "used") is None
    assert "cannot be told" in caplog.text
