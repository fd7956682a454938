"""A candidate sees a copy of the traffic, and nobody has to wait for it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import fruit_bundle, review_bundle
from fakes import GatedRuntime
from numpy.typing import NDArray
from services import until

from service.batching import Delivery
from service.decision import Row
from service.errors import CatalogueInvalid
from service.inputs import Decoded
from service.prediction import Reloader, load_catalogue
from service.prediction.shadow import Shadow
from service.runtimes import Outputs
from service.settings import Settings
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

PATIENCE_S = 5.0
SURE = [9.0, 0.0, 0.0]
UNSURE = [1.0, 1.0, 1.0]
CATALOGUE = '[models.fruit]\nversions = ["1"]\nshadow = "2"\n'


def swapped(rows: NDArray[np.generic]) -> Outputs:
    """Find the second fruit wherever the live version finds the first."""
    logits = rows.astype(np.float32)[:, [1, 0, 2]]
    return Outputs(logits, logits[:, 2:])


def sure(rows: NDArray[np.generic]) -> Outputs:
    """Find the first fruit in everything."""
    logits = np.tile(np.array(SURE, np.float32), (len(rows), 1))
    return Outputs(logits, logits[:, 2:])


def broken(_: NDArray[np.generic]) -> Outputs:
    raise ValueError("broken")


class Shadowed:
    """Version 1 of `fruit` answers, and version 2 looks on."""

    def __init__(self, models: Path, run: Any = None) -> None:
        for version in ("1", "2"):
            fruit_bundle(models, version=version)
        (models / "catalogue.toml").write_text(CATALOGUE)
        self.metrics = Metrics()
        self.settings = Settings(models=models, max_batch_rows=4)
        self.catalogue = load_catalogue(self.settings, self.metrics)
        self.live = self.catalogue.find("fruit")
        found = self.catalogue.served["fruit"].shadow
        assert found is not None
        self.shadow: Shadow = found
        self.runtime = GatedRuntime(run)
        self.shadow.candidate._instances = (self.runtime,)  # noqa: SLF001  as nobody else may
        self.runtime.gate.set()
        self.catalogue.start()

    async def answer(self, *rows: list[float]) -> None:
        """Let the live version answer rows, by the way of common requests."""
        future: asyncio.Future[Delivery[list[Row]]] = asyncio.get_running_loop().create_future()
        until_s = time.monotonic() + PATIENCE_S
        self.live.submit(np.array(rows, np.float32), until_s, future)
        await asyncio.wait_for(future, PATIENCE_S)
        await asyncio.sleep(0)

    def counted(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "dunno_shadow_comparisons_total",
            {"model": "fruit", "candidate": "2", "outcome": outcome},
        )

    def disagreements(self, label: str, verdict: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "dunno_shadow_disagreements_total",
            {"model": "fruit", "candidate": "2", "label": label, "verdict": verdict},
        )

    async def close(self) -> None:
        await self.catalogue.close(PATIENCE_S)


async def test_candidate_that_says_the_same_agrees(tmp_path: Path) -> None:
    service = Shadowed(tmp_path)

    await service.answer(SURE, UNSURE)
    await service.close()

    assert service.counted("agreed") == 2
    assert service.counted("disagreed") == 0


@pytest.mark.parametrize(
    ("run", "row", "label", "verdict"),
    [
        pytest.param(swapped, SURE, "apple", "answer/answer", id="another label"),
        pytest.param(sure, [0.0, 1.0, 0.9], "pear", "dont_know/answer", id="surer"),
    ],
)
async def test_disagreements_are_counted_by_label_and_verdict(
    tmp_path: Path, run: Any, row: list[float], label: str, verdict: str
) -> None:
    service = Shadowed(tmp_path, run)

    await service.answer(row)
    await service.close()

    assert service.counted("disagreed") == 1
    assert service.disagreements(label, verdict) == 1


async def test_rows_of_other_ways_are_copied_as_well(tmp_path: Path) -> None:
    service = Shadowed(tmp_path)
    decoded = Decoded(np.array([SURE, UNSURE], np.float32), {}, ())
    terms = service.live.judge.default_terms

    await service.live.predict_rows(decoded, terms, time.monotonic() + PATIENCE_S)
    await asyncio.sleep(0)
    await service.close()

    assert service.counted("agreed") == 2


async def test_live_answer_does_not_wait_for_the_candidate(tmp_path: Path) -> None:
    service = Shadowed(tmp_path)
    service.runtime.gate.clear()

    await service.answer(SURE)
    await asyncio.to_thread(service.runtime.has_begun.wait, PATIENCE_S)
    await service.answer(SURE)

    assert service.counted("agreed") == 0
    service.runtime.gate.set()
    await service.close()


async def test_rows_are_dropped_while_the_candidate_is_busy(tmp_path: Path) -> None:
    service = Shadowed(tmp_path)
    service.runtime.gate.clear()
    await service.answer(SURE)

    for _ in range(10):  # four rows may wait
        await service.answer(SURE)

    assert service.counted("dropped") == 6
    service.runtime.gate.set()
    await service.close()


async def test_rows_that_wait_are_run_together(tmp_path: Path) -> None:
    service = Shadowed(tmp_path)
    service.runtime.gate.clear()
    for _ in range(4):
        await service.answer(SURE)
    service.runtime.gate.set()

    await until(lambda: service.counted("agreed") == 4)

    assert service.runtime.batches == [1, 3]
    await service.close()


async def test_candidate_that_fails_harms_nobody_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Shadowed(tmp_path, broken)

    await service.answer(SURE)
    await until(lambda: service.counted("failed") == 1)
    await service.answer(SURE)
    await until(lambda: service.counted("failed") == 2)

    assert caplog.messages.count("shadow failed") == 1
    await service.close()


async def test_candidate_answers_nobody(tmp_path: Path) -> None:
    service = Shadowed(tmp_path)

    await service.answer(SURE)

    assert list(service.catalogue.served["fruit"].predictors) == ["1"]
    assert [predictor.manifest.version for predictor in service.catalogue] == ["1"]
    labels = {"model": "fruit", "version": "2", "state": "shadow"}
    assert service.metrics.registry.get_sample_value("dunno_model_state", labels) == 1
    await service.close()


async def test_candidate_is_kept_or_let_go_with_the_catalogue(tmp_path: Path) -> None:
    service = Shadowed(tmp_path)
    reloader = Reloader(service.catalogue, service.settings, service.metrics)

    (tmp_path / "catalogue.toml").write_text(CATALOGUE + 'aliases = { stable = "1" }\n')
    await reloader.reload()
    assert service.catalogue.served["fruit"].shadow is service.shadow
    await service.answer(SURE)
    (tmp_path / "catalogue.toml").write_text('[models.fruit]\nversions = ["1"]\n')
    await reloader.reload()
    await service.answer(SURE)
    await reloader.close(PATIENCE_S)

    assert service.counted("agreed") == 1
    assert service.live.copy is None
    assert service.shadow.candidate.runtime is not service.runtime


async def test_answer_that_comes_after_the_candidate_has_gone_is_given_all_the_same(
    tmp_path: Path,
) -> None:
    service = Shadowed(tmp_path)
    waiting = asyncio.create_task(service.answer(SURE))
    await asyncio.sleep(0)

    await service.shadow.close(PATIENCE_S)
    await waiting

    assert service.counted("dropped") == 1


async def test_candidate_that_is_promoted_is_loaded_anew(tmp_path: Path) -> None:
    service = Shadowed(tmp_path)
    reloader = Reloader(service.catalogue, service.settings, service.metrics)

    (tmp_path / "catalogue.toml").write_text('[models.fruit]\nversions = ["2"]\n')
    await reloader.reload()
    await reloader.close(PATIENCE_S)

    assert service.catalogue.find("fruit") is not service.shadow.candidate
    assert service.catalogue.find("fruit").is_ready


async def test_candidate_that_takes_other_rows_is_refused(tmp_path: Path) -> None:
    fruit_bundle(tmp_path)
    review = review_bundle(tmp_path)
    review.path.rename(tmp_path / "fruit" / "2")
    manifest = tmp_path / "fruit" / "2" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": "1"', '"version": "2"'))
    (tmp_path / "catalogue.toml").write_text(CATALOGUE)

    with pytest.raises(CatalogueInvalid, match="takes other rows"):
        load_catalogue(Settings(models=tmp_path), Metrics())


async def test_copies_are_made_only_of_the_default_version(tmp_path: Path) -> None:
    service = Shadowed(tmp_path)
    fruit_bundle(tmp_path, version="3")
    (tmp_path / "catalogue.toml").write_text(CATALOGUE.replace('["1"]', '["1", "3"]'))

    await Reloader(service.catalogue, service.settings, service.metrics).reload()

    copies = {each.manifest.version: each.copy is not None for each in service.catalogue}
    assert copies == {"1": True, "3": False}
    await service.close()
