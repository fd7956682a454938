"""Versions come and go while requests are answered."""

import asyncio
import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import fruit_bundle
from services import Service, until

from service.batching import Delivery
from service.decision import Row
from service.errors import BundleCorrupt, CatalogueInvalid, KeysInvalid, LoadTimedOut, ModelNotFound
from service.prediction import Catalogue, Predictor, Reloader, load_catalogue
from service.prediction.catalogue import ModelEntry
from service.prediction.file_stamps import Stamps, stamps_of
from service.settings import Settings
from service.telemetry.metrics import UNKNOWN_MODEL, Metrics
from service.telemetry.recent import Recent

pytestmark = pytest.mark.anyio

PATIENCE_S = 5.0
ROWS = np.array([[9, 0, 0]], np.float32)


class Serving:
    """A started catalogue of versions of `fruit`, and what reloads it."""

    def __init__(self, models: Path, text: str, **settings: float) -> None:
        self.models = models
        self.write(text)
        self.metrics = Metrics()
        chosen = Settings.model_validate({"models": models, "max_batch_rows": 4, **settings})
        self.catalogue = load_catalogue(chosen, self.metrics)
        self.reloader = Reloader(self.catalogue, chosen, self.metrics)
        self.catalogue.start()

    def write(self, text: str) -> None:
        (self.models / "catalogue.toml").write_text(text)

    async def become(self, text: str) -> None:
        self.write(text)
        assert await self.reloader.reload() == {}

    def find(self, version: str | None = None) -> Predictor:
        return self.catalogue.find("fruit", version)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "fruit", **labels})

    def state(self, version: str, state: str) -> float | None:
        return self.sample("dunno_model_state", version=version, state=state)


def versions(*names: str, more: str = "") -> str:
    named = ", ".join(f'"{name}"' for name in names)
    return f"[models.fruit]\nversions = [{named}]\n{more}\n"


CANARY = versions("1", "2", more='weights = { "1" = 0.9, "2" = 0.1 }')


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in ("1", "2", "3"):
        fruit_bundle(tmp_path, version=version)
    return tmp_path


def corrupt(models: Path, version: str) -> None:
    (models / "fruit" / version / "model.onnx").write_bytes(b"rubbish")


async def answer(predictor: Predictor) -> list[Row]:
    """Submit a row and return what is found of it."""
    future: asyncio.Future[Delivery[list[Row]]] = asyncio.get_running_loop().create_future()
    predictor.submit(ROWS, time.monotonic() + PATIENCE_S, future)
    return (await asyncio.wait_for(future, PATIENCE_S)).outputs


async def until_closed(predictor: Predictor) -> None:
    await until(lambda: not predictor.is_ready)


async def test_reload_serves_what_the_catalogue_says_now(models: Path) -> None:
    serving = Serving(models, versions("1"))

    await serving.become(versions("2", more='aliases = { stable = "2" }'))

    assert serving.find().manifest.version == "2"
    assert serving.catalogue.find("fruit", alias="stable").manifest.version == "2"
    assert serving.catalogue.is_ready
    assert len(await answer(serving.find())) == 1


async def test_newest_version_is_found_when_its_folder_appears(models: Path) -> None:
    serving = Serving(models, "[models.fruit]\n")
    fruit_bundle(models, version="10")

    await serving.reloader.reload()

    assert serving.find().manifest.version == "10"


async def test_version_that_did_not_change_keeps_its_predictor(models: Path) -> None:
    serving = Serving(models, versions("1"))
    before = serving.find("1")

    await serving.become(versions("2", "1"))

    assert serving.find("1") is before
    assert before.is_ready


async def test_reload_of_the_same_changes_nothing(models: Path) -> None:
    serving = Serving(models, CANARY)
    before = serving.catalogue.served["fruit"]

    await serving.become(CANARY)

    assert serving.catalogue.served["fruit"] is before
    assert serving.sample("dunno_model_reloads_total", outcome="unchanged") == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("max_error = 0.05", id="another risk"),
        pytest.param("allow_looser = true", id="another floor"),
    ],
)
async def test_version_whose_entry_changed_is_loaded_anew(models: Path, change: str) -> None:
    serving = Serving(models, versions("1"))
    before = serving.find("1")

    await serving.become(versions("1", more=change))

    assert serving.find("1") is not before


async def test_version_whose_files_were_replaced_is_loaded_anew(models: Path) -> None:
    serving = Serving(models, versions("1"))
    fruit_bundle(models, version="1", labels=("fig", "kiwi", "lime"))

    await serving.reloader.reload()

    assert serving.find().manifest.labels == ("fig", "kiwi", "lime")
    assert serving.state("1", "available") == 1


async def test_version_that_fails_changes_nothing_and_says_so(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serving = Serving(models, versions("1"))
    before = serving.find()
    corrupt(models, "2")
    serving.write(versions("2"))

    failures = await serving.reloader.reload()

    assert isinstance(failures["fruit"], BundleCorrupt)
    assert serving.find() is before
    assert before.is_ready
    assert serving.catalogue.failures == failures
    assert "reload failed" in caplog.messages
    assert (serving.state("1", "available"), serving.state("2", "failed")) == (1, 1)
    assert serving.sample("dunno_model_reloads_total", outcome="failed") == 1


async def test_failure_is_forgotten_when_the_version_is_mended(models: Path) -> None:
    serving = Serving(models, versions("1"))
    corrupt(models, "2")
    serving.write(versions("2"))
    await serving.reloader.reload()
    fruit_bundle(models, version="2")

    await serving.reloader.reload()

    assert serving.catalogue.failures == {}
    assert (serving.state("2", "available"), serving.state("2", "failed")) == (1, 0)


async def test_failure_is_forgotten_when_the_catalogue_names_the_version_no_more(
    models: Path,
) -> None:
    serving = Serving(models, versions("1"))
    corrupt(models, "2")
    serving.write(versions("2"))
    await serving.reloader.reload()
    assert serving.state("2", "failed") == 1

    serving.write(versions("1"))
    await serving.reloader.reload()

    assert serving.state("2", "failed") == 0


async def test_name_that_fails_does_not_keep_the_others_from_switching(models: Path) -> None:
    serving = Serving(models, versions("1"))
    serving.write(versions("2") + '[models.nuts]\nbundle = "nowhere"\n')

    failures = await serving.reloader.reload()

    assert list(failures) == ["nuts"]
    assert serving.find().manifest.version == "2"
    assert serving.catalogue.names == ("fruit",)


async def test_catalogue_that_cannot_be_read_changes_nothing(models: Path) -> None:
    serving = Serving(models, versions("1"))
    before = serving.catalogue.served
    serving.write("[models")

    with pytest.raises(CatalogueInvalid):
        await serving.reloader.reload()

    assert serving.catalogue.served is before
    assert list(serving.catalogue.failures) == ["catalogue.toml"]


async def test_failure_of_a_kind_nobody_thought_of_is_one_of_the_bundle(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(models, versions("1"))
    serving.write(versions("2"))

    def fail(_: Predictor) -> None:
        raise MemoryError

    monkeypatch.setattr(Predictor, "warm", fail)
    failures = await serving.reloader.reload()

    assert "MemoryError" in str(failures["fruit"])
    assert serving.find().manifest.version == "1"


async def test_name_is_unloaded_and_loaded_again(models: Path) -> None:
    serving = Serving(models, versions("1"))

    await serving.reloader.unload("fruit")
    with pytest.raises(ModelNotFound):
        serving.find()
    assert serving.state("1", "unloaded") == 1
    assert not serving.catalogue.is_ready
    await serving.reloader.load("fruit")

    assert serving.find().is_ready
    assert serving.state("1", "available") == 1


async def test_name_that_is_not_there_is_neither_loaded_nor_unloaded(models: Path) -> None:
    serving = Serving(models, versions("1"))

    with pytest.raises(ModelNotFound):
        await serving.reloader.load("nuts")
    with pytest.raises(ModelNotFound):
        await serving.reloader.unload("nuts")


async def test_load_that_fails_leaves_the_old_version_serving(models: Path) -> None:
    serving = Serving(models, versions("1"))
    corrupt(models, "2")
    serving.write(versions("2"))

    with pytest.raises(BundleCorrupt):
        await serving.reloader.load("fruit")

    assert serving.find().manifest.version == "1"
    assert list(serving.catalogue.failures) == ["fruit"]


async def test_what_is_in_flight_finishes_on_the_old_version(models: Path) -> None:
    service = Service(models)
    (models / "catalogue.toml").write_text(versions("2"))
    catalogue = Catalogue(service.catalogue.served)
    reloader = Reloader(catalogue, Settings(models=models), service.metrics)
    catalogue.start()
    old = catalogue.find("fruit")
    in_flight = asyncio.create_task(answer(old))
    await asyncio.to_thread(service.runtime.has_begun.wait, PATIENCE_S)

    await reloader.reload()
    new = catalogue.find("fruit")
    assert new is not old
    assert len(await answer(new)) == 1
    assert not in_flight.done()
    service.runtime.gate.set()

    assert len(await in_flight) == 1
    await until_closed(old)


async def test_version_is_not_closed_while_a_request_holds_it(models: Path) -> None:
    serving = Serving(models, versions("1"))
    old = serving.find()
    old.hold()

    await serving.become(versions("2"))
    assert len(await answer(old)) == 1
    old.release()

    await until_closed(old)


async def test_version_that_is_held_too_long_is_closed_all_the_same(models: Path) -> None:
    serving = Serving(models, versions("1"))
    old = serving.find()
    old.hold()

    await old.retire(0.01)

    assert not old.is_ready


async def test_graph_of_the_old_version_is_freed(models: Path) -> None:
    serving = Serving(models, versions("1"))
    old = serving.find()
    runtime = old.runtime

    await serving.become(versions("2"))
    await serving.reloader.close(PATIENCE_S)

    assert not old.is_ready
    assert old.runtime is not runtime


async def test_requests_during_the_switch_are_all_answered(models: Path) -> None:
    serving = Serving(models, versions("1"))
    is_over = asyncio.Event()
    answered: Counter[str] = Counter()

    async def call() -> None:
        while not is_over.is_set():
            predictor = serving.find()
            assert len(await answer(predictor)) == 1
            answered[predictor.manifest.version] += 1

    callers = [asyncio.create_task(call()) for _ in range(8)]
    for turn in range(10):
        await serving.become(versions("12"[turn % 2 == 0]))
    is_over.set()
    await asyncio.gather(*callers)

    assert set(answered) == {"1", "2"}


async def test_many_who_ask_at_once_cause_one_reload(models: Path) -> None:
    serving = Serving(models, versions("1"))

    for _ in range(10):
        serving.reloader.reload_soon()
    await serving.reloader.close(PATIENCE_S)

    assert serving.sample("dunno_model_reloads_total", outcome="unchanged") == 1


async def test_changed_catalogue_is_noticed_if_told_to_watch(models: Path) -> None:
    serving = Serving(models, versions("1"), watch_models_s=0.01)
    serving.write(versions("2", "1"))  # after it was read, before the watch begins
    serving.reloader.start()

    await until(lambda: serving.find().manifest.version == "2")
    await serving.reloader.close(PATIENCE_S)


class HangingLoads:
    """Lets the loads of a reloader hang until it is told; of one version only if it is named."""

    def __init__(self, serving: Serving, version: str | None = None) -> None:
        self.is_let_go = threading.Event()
        self.begun = 0
        self._version = version
        loader = serving.reloader.loader
        self._load = loader.load
        loader.load = self.load  # type: ignore[method-assign, assignment]

    def load(self, name: str, entry: ModelEntry, *asked: Any) -> Any:
        if self._version is None or self._version in entry.versions:
            self.begun += 1
            assert self.is_let_go.wait(PATIENCE_S)
        return self._load(name, entry, *asked)


async def test_load_that_hangs_is_given_up_reported_and_not_begun_again(models: Path) -> None:
    serving = Serving(models, versions("1"), max_load_ms=100)
    hanging = HangingLoads(serving)
    serving.write(versions("2"))

    first = await serving.reloader.reload()
    second = await serving.reloader.reload()

    assert isinstance(first["fruit"], LoadTimedOut)
    assert "DUNNO_MAX_LOAD_MS" in str(first["fruit"])
    assert "still being loaded by an earlier reload" in str(second["fruit"])
    assert serving.catalogue.failures["fruit"] is second["fruit"]
    assert hanging.begun == 1
    assert serving.find().manifest.version == "1"
    assert serving.sample("dunno_model_reloads_total", outcome="failed") == 2

    hanging.is_let_go.set()
    await until(lambda: not serving.reloader.hung)
    await serving.become(versions("2"))
    assert serving.find().manifest.version == "2"


async def test_other_files_are_read_while_a_load_hangs(models: Path) -> None:
    serving = Serving(models, versions("1"), max_load_ms=PATIENCE_S * 1000)
    hanging = HangingLoads(serving)
    keys = models / "keys.toml"
    keys.write_text("a")
    in_force: list[str] = []

    def read() -> Callable[[], None]:
        text = keys.read_text()
        return lambda: in_force.append(text)

    serving.reloader.read_also(keys, read)
    serving.reloader.reload_soon()
    await until(lambda: hanging.begun == 1)
    keys.write_text("b")
    serving.reloader.reload_soon()

    await until(lambda: in_force[-1:] == ["b"])

    hanging.is_let_go.set()
    await serving.reloader.close(PATIENCE_S)


async def test_other_version_is_served_while_the_load_of_one_hangs(models: Path) -> None:
    serving = Serving(models, versions("1"), max_load_ms=100)
    hanging = HangingLoads(serving, "2")
    serving.write(versions("2"))
    assert isinstance((await serving.reloader.reload())["fruit"], LoadTimedOut)

    await serving.become(versions("3"))

    assert serving.find().manifest.version == "3"
    assert len(serving.reloader.hung) == 1
    hanging.is_let_go.set()
    await until(lambda: not serving.reloader.hung)
    assert serving.find().manifest.version == "3"


async def test_load_that_hangs_is_begun_again_once_a_file_of_it_is_written_to(
    models: Path,
) -> None:
    serving = Serving(models, versions("1"), max_load_ms=100)
    hanging = HangingLoads(serving)
    serving.write(versions("2"))
    await serving.reloader.reload()
    graph = models / "fruit" / "2" / "model.onnx"
    graph.write_bytes(graph.read_bytes())

    await serving.reloader.reload()

    assert hanging.begun == 2
    hanging.is_let_go.set()


async def test_version_whose_load_hangs_is_told_in_its_state(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(models, versions("1"), max_load_ms=100)
    is_let_go = threading.Event()
    monkeypatch.setattr(Predictor, "warm", lambda _: is_let_go.wait(PATIENCE_S))
    serving.write(versions("1", "2"))

    await serving.reloader.reload()

    assert (serving.state("1", "failed"), serving.state("2", "failed")) == (0, 1)
    is_let_go.set()


async def test_catalogue_that_hangs_is_reported_and_keeps_no_key_in_force(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(models, versions("1"), max_load_ms=100, watch_models_s=0.01)
    is_let_go = threading.Event()
    for slow in ("read_catalogue", "model_files"):
        name = f"service.prediction.reloader.{slow}"
        monkeypatch.setattr(name, lambda *_: is_let_go.wait(PATIENCE_S))
    keys, in_force = models / "keys.toml", list[str]()
    keys.write_text("a")

    def read() -> Callable[[], None]:
        text = keys.read_text()
        return lambda: in_force.append(text)

    serving.reloader.read_also(keys, read)
    serving.reloader.start()
    with pytest.raises(LoadTimedOut, match=r"catalogue\.toml"):
        await serving.reloader.reload()
    keys.write_text("changed")

    await until(lambda: in_force[-1:] == ["changed"])

    is_let_go.set()
    await serving.reloader.close(PATIENCE_S)


async def test_keys_that_cannot_be_read_are_reported_once_and_until_they_can(
    models: Path,
) -> None:
    serving = Serving(models, versions("1"))
    failing = [KeysInvalid("no keys")]

    def read() -> Callable[[], None]:
        for error in failing:
            raise error
        return lambda: None

    serving.reloader.read_also(models / "keys.toml", read)
    hanging = HangingLoads(serving)
    serving.reloader.reload_soon()
    await until(lambda: hanging.begun == 1)
    failed = {"model": UNKNOWN_MODEL, "outcome": "failed"}
    assert list(serving.catalogue.failures) == ["keys.toml"]
    assert serving.metrics.registry.get_sample_value("dunno_model_reloads_total", failed) == 1

    failing.clear()
    serving.reloader.reload_soon()
    await asyncio.sleep(0)
    serving.reloader.reload_soon()
    await until(lambda: not serving.catalogue.failures)

    hanging.is_let_go.set()
    await serving.reloader.close(PATIENCE_S)
    assert serving.catalogue.failures == {}


async def test_keys_whose_reading_fails_otherwise_are_reported_and_do_not_block_reloads(
    models: Path,
) -> None:
    serving = Serving(models, versions("1"))

    def read() -> Callable[[], None]:
        raise RecursionError

    serving.reloader.read_also(models / "keys.toml", read)
    serving.write(versions("2"))
    serving.reloader.reload_soon()
    await until(lambda: serving.find().manifest.version == "2")
    serving.write(versions("3"))
    serving.reloader.reload_soon()
    await until(lambda: serving.find().manifest.version == "3")

    assert list(serving.catalogue.failures) == ["keys.toml"]
    await serving.reloader.close(PATIENCE_S)


async def test_keys_that_hang_are_reported_and_do_not_block_reloads_or_newer_keys(
    models: Path,
) -> None:
    serving = Serving(models, versions("1"), max_load_ms=100)
    gate = threading.Event()
    in_force: list[str] = []
    hangs = [True]

    def read() -> Callable[[], None]:
        if hangs.pop():
            gate.wait(PATIENCE_S)
        return lambda: in_force.append("new keys")

    serving.reloader.read_also(models / "keys.toml", read)
    serving.write(versions("2"))
    serving.reloader.reload_soon()
    await until(lambda: serving.find().manifest.version == "2")
    assert list(serving.catalogue.failures) == ["keys.toml"]

    hangs.append(False)
    serving.reloader.reload_soon()
    await until(lambda: in_force == ["new keys"])

    assert serving.catalogue.failures == {}
    gate.set()
    await serving.reloader.close(PATIENCE_S)


@pytest.mark.parametrize("failure", ["hangs", "cannot be read"])
async def test_keys_that_could_not_be_read_for_a_while_are_read_once_they_can(
    models: Path, failure: str
) -> None:
    serving = Serving(models, versions("1"), watch_models_s=0.02, max_load_ms=100)
    keys = models / "keys.toml"
    keys.write_text("old")
    gate = threading.Event()
    in_force: list[str] = []

    def read() -> Callable[[], None]:
        text = keys.read_text()
        if text == "new" and not gate.is_set():
            if failure == "hangs":
                gate.wait(PATIENCE_S)
            else:
                raise KeysInvalid("stale") from OSError(errno.ESTALE, "stale")
        return lambda: in_force.append(text)

    serving.reloader.read_also(keys, read)
    serving.reloader.start()
    keys.write_text("new")
    await until(lambda: "keys.toml" in serving.catalogue.failures)
    for _ in range(6):
        serving.reloader.reload_soon()
    await asyncio.sleep(0.1)
    assert in_force == []

    gate.set()
    await until(lambda: in_force[-1:] == ["new"])
    await until(lambda: not serving.catalogue.failures)
    await serving.reloader.close(PATIENCE_S)


async def test_watching_goes_on_after_a_look_that_fails(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(models, "[models.fruit]\n", watch_models_s=0.01)
    failures = [OSError("the folder is being replaced"), ValueError("anything else")]

    def look(paths: Iterable[Path]) -> Stamps:
        if failures:
            raise failures.pop()
        return stamps_of(paths)

    monkeypatch.setattr("service.prediction.reloader.stamps_of", look)
    serving.reloader.start()
    await until(lambda: not failures)
    fruit_bundle(models, version="4")

    await until(lambda: serving.find().manifest.version == "4")
    await serving.reloader.close(PATIENCE_S)


async def test_watching_of_canaries_goes_on_after_a_comparison_that_fails(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.prediction.reloader.LOOK_AT_CANARIES_S", 0.01)
    serving = Serving(models, CANARY + RULE)
    judged(serving, "1")
    window_of(serving, "2").see_failure("error")
    failures = [ZeroDivisionError()]
    compare = serving.reloader.roll_back

    def fail_once() -> None:
        if failures:
            raise failures.pop()
        compare()

    monkeypatch.setattr(serving.reloader, "roll_back", fail_once)
    serving.reloader.start()

    await until(lambda: {serving.find().manifest.version for _ in range(100)} == {"1"})
    await serving.reloader.close(PATIENCE_S)


async def test_files_that_did_not_change_are_not_loaded_again(models: Path) -> None:
    serving = Serving(models, versions("1"), watch_models_s=0.01)
    serving.reloader.start()

    await asyncio.sleep(0.05)

    await serving.reloader.close(PATIENCE_S)
    assert not serving.sample("dunno_model_reloads_total", outcome="unchanged")


async def test_finished_manifest_is_noticed_if_told_to_watch(models: Path) -> None:
    serving = Serving(models, "[models.fruit]\n", watch_models_s=0.01)
    fruit_bundle(models, version="4")
    serving.reloader.start()

    await until(lambda: serving.find().manifest.version == "4")
    await serving.reloader.close(PATIENCE_S)


async def test_request_that_names_no_version_is_given_one_by_weight(models: Path) -> None:
    serving = Serving(models, CANARY)

    taken = Counter(serving.find().manifest.version for _ in range(1000))

    assert taken["2"] == pytest.approx(100, abs=3)
    assert serving.catalogue.served["fruit"].default.manifest.version == "1"
    assert serving.sample("dunno_version_weight_ratio", version="2") is None
    serving.reloader.start()
    assert serving.sample("dunno_version_weight_ratio", version="2") == pytest.approx(0.1)
    await serving.reloader.close(PATIENCE_S)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param('weights = { "9" = 1 }', "'9' is not in versions", id="unknown version"),
        pytest.param('weights = { "1" = -1, "2" = 2 }', "from 0 on", id="below 0"),
        pytest.param('weights = { "1" = 0 }', "above 0", id="all 0"),
        pytest.param('shadow = "2"', "beside those", id="shadow that answers"),
        pytest.param("rollback = { errors = 0.1 }", "needs weights", id="rollback of nobody"),
    ],
)
async def test_entry_that_makes_no_sense_is_refused(models: Path, more: str, expected: str) -> None:
    with pytest.raises(CatalogueInvalid, match=expected):
        Serving(models, versions("1", "2", more=more))


RULE = "rollback = { errors = 0.02, dont_know = 0.2, p99_ms = 100, rows = 10 }"


def judged(serving: Serving, version: str, seconds: float = 0.001) -> None:
    """Record ten answered requests of one row each."""
    for _ in range(10):
        window_of(serving, version).see_request(seconds, [None])


def window_of(serving: Serving, version: str) -> Recent:
    """Return where the result of the next request of a version is recorded."""
    while True:
        choice = serving.catalogue.choose("fruit")
        if choice.predictor is serving.find(version):
            (window,) = choice.windows
            return window


async def test_canary_that_fails_loses_its_weight_and_it_is_told_why(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serving = Serving(models, CANARY + RULE)
    judged(serving, "1")
    window_of(serving, "2").see_failure("error")

    serving.reloader.roll_back()

    assert {serving.find().manifest.version for _ in range(100)} == {"1"}
    assert serving.find("2").is_ready
    assert serving.sample("dunno_rollbacks_total", version="2", reason="errors") == 1
    assert serving.sample("dunno_version_weight_ratio", version="2") == 0
    assert "canary rolled back" in caplog.messages


async def test_canary_as_good_as_the_default_keeps_its_weight(models: Path) -> None:
    serving = Serving(models, CANARY + RULE)
    judged(serving, "1")
    judged(serving, "2", seconds=0.09)

    serving.reloader.roll_back()

    assert {serving.find().manifest.version for _ in range(100)} == {"1", "2"}


async def test_only_what_the_weights_assign_is_noted(models: Path) -> None:
    serving = Serving(models, CANARY + 'aliases = { next = "2" }\n' + RULE)

    assert serving.catalogue.choose("fruit", "2").windows == ()
    assert serving.catalogue.choose("fruit", alias="next").windows == ()


async def test_default_version_is_noted_as_often_as_the_canary_once_enough_is_known(
    models: Path,
) -> None:
    serving = Serving(models, CANARY + RULE)
    judged(serving, "1")
    noted: Counter[str] = Counter()
    for _ in range(10_000):
        choice = serving.catalogue.choose("fruit")
        noted[choice.predictor.manifest.version] += len(choice.windows)

    assert noted["2"] == pytest.approx(1000, abs=5)
    assert noted["1"] == pytest.approx(1000, abs=200)


async def test_burst_of_odd_requests_that_name_no_version_is_no_fault_of_the_canary(
    models: Path,
) -> None:
    serving = Serving(models, CANARY + "rollback = { dont_know = 0.1, rows = 200 }")
    for reasons, requests in ([None], 10_000), (["ambiguous"], 500), ([None], 500):
        for _ in range(requests):
            for window in serving.catalogue.choose("fruit").windows:
                window.see_request(0.001, reasons)

        serving.reloader.roll_back()
        assert {serving.find().manifest.version for _ in range(100)} == {"1", "2"}


async def test_fault_of_three_versions_alike_is_no_fault_of_a_canary(models: Path) -> None:
    weights = 'weights = { "1" = 0.90, "2" = 0.09, "3" = 0.01 }'
    rule = "rollback = { dont_know = 0.2, rows = 100 }"
    serving = Serving(models, versions("1", "2", "3", more=f"{weights}\n{rule}"))
    for reasons, requests in ([None], 20_000), (["ambiguous"], 5000), ([None], 20_000):
        for number in range(requests):
            for window in serving.catalogue.choose("fruit").windows:
                window.see_request(0.001, reasons)
            if number % 100 == 0:
                serving.reloader.roll_back()

    assert {serving.find().manifest.version for _ in range(1000)} == {"1", "2", "3"}


async def test_canary_stays_rolled_back_until_its_entry_changes(models: Path) -> None:
    serving = Serving(models, CANARY + RULE)
    judged(serving, "1")
    judged(serving, "2", seconds=1)
    serving.reloader.roll_back()

    await serving.become(CANARY + RULE)
    assert {serving.find().manifest.version for _ in range(100)} == {"1"}
    await serving.become(CANARY + RULE.replace("0.02", "0.03"))

    assert {serving.find().manifest.version for _ in range(100)} == {"1", "2"}


async def test_canaries_are_looked_at_while_the_server_runs(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.prediction.reloader.LOOK_AT_CANARIES_S", 0.01)
    serving = Serving(models, CANARY + RULE)
    serving.reloader.start()
    judged(serving, "1")
    judged(serving, "2", seconds=1)

    await until(lambda: serving.sample("dunno_version_weight_ratio", version="2") == 0)
    await serving.reloader.close(PATIENCE_S)
