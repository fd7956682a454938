"""The whole service around a runtime that does as a test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bundles import fruit_bundle
from fakes import PATIENCE_S, GatedRuntime
from numpy.typing import NDArray

from service.app import compose
from service.batching import BatchLimits
from service.decision import Floor
from service.inputs import InputLimits, create_decoder
from service.prediction import Catalogue, Predictor
from service.prediction.catalogue import Served
from service.settings import Settings
from service.telemetry.metrics import Metrics


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what has no event of its own."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  states and metrics tell nobody when they change
            await asyncio.sleep(0.005)


class Service:
    """The whole service around a runtime that waits for its gate."""

    def __init__(
        self,
        models: Path,
        run: Callable[[NDArray[np.generic]], Any] | None = None,
        *,
        access_log: bool = True,
        keys: Path | None = None,
    ) -> None:
        self.runtime = GatedRuntime(run)
        self.metrics = Metrics()
        bundle = fruit_bundle(models)
        self.predictor = Predictor(
            "fruit",
            bundle,
            runtime=self.runtime,
            runtime_name="gated",
            decoder=create_decoder(bundle, InputLimits(100, 100, 100)),
            floor=Floor(),
            limits=BatchLimits(max_rows=8, max_queue_rows=8),
            metrics=self.metrics.of_model("fruit", "1", bundle.manifest.labels),
        )
        self.catalogue = Catalogue({"fruit": Served({"1": self.predictor}, {})})
        self.app = compose(self.catalogue, Settings(access_log=access_log, keys=keys), self.metrics)

    def counted(self, outcome: str, protocol: str = "native") -> float:
        self.metrics.exposition()  # counts what is noted down
        labels = {"model": "fruit", "version": "1", "protocol": protocol, "outcome": outcome}
        return self.metrics.registry.get_sample_value("dunno_requests_total", labels) or 0.0


@asynccontextmanager
async def running(
    models: Path, run: Callable[[NDArray[np.generic]], Any] | None = None
) -> AsyncIterator[Service]:
    service = Service(models, run)
    service.predictor.start()
    yield service
    service.runtime.gate.set()
    await service.predictor.close(PATIENCE_S)


async def begun(service: Service) -> None:
    """Wait until a run waits at the gate."""
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, service.runtime.has_begun.wait, PATIENCE_S)
