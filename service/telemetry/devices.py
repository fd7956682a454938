"""How full the memory of GPUs is, as NVIDIA's own library tells it."""

import importlib
import logging
import math
from functools import partial
from typing import Any

from service.telemetry.series import Gauge

KINDS = ("used", "total")

log = logging.getLogger(__name__)


def watch_devices(gauge: Gauge, library: str = "pynvml") -> None:
    """Let a gauge with the labels (device, kind) tell the memory of every GPU, bytes.

    Where that cannot be told, the log says so and the gauge stays empty.

    Args:
        gauge: read when it is scraped.
        library: the module `pynvml` of nvidia-ml-py, which the extra `gpu` installs.
    """
    try:
        nvml = importlib.import_module(library)
        nvml.nvmlInit()
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())
        ]
    except Exception as error:  # noqa: BLE001  the library's errors need the library
        log.warning("the memory of GPUs cannot be told", extra={"detail": str(error)})
        return
    for number, handle in enumerate(handles):
        for kind in KINDS:
            gauge.labels(str(number), kind).set_function(partial(_bytes, nvml, handle, kind))


def _bytes(nvml: Any, handle: object, kind: str) -> float:
    try:
        return float(getattr(nvml.nvmlDeviceGetMemoryInfo(handle), kind))
    except Exception:  # noqa: BLE001  a GPU that is lost must not take the other metrics with it
        return math.nan
