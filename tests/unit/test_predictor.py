import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from bundles import fruit_bundle, npz_bytes, picture_bundle, write_catalogue
from fakes import PATIENCE_S, POISON, NotANumberRuntime, ShortRuntime
from numpy.typing import NDArray

from service.batching import BatchLimits
from service.bundle import Bundle, read_bundle, write_bundle
from service.decision import Answered, Floor, Unknown
from service.errors import BundleCorrupt, DunnoError, InputInvalid, QueueFull, RunFailed
from service.inputs import InputLimits, Payload, create_decoder
from service.prediction import Answer, DecoderPool, Prediction, Predictor, load_catalogue
from service.prediction.offloading import Offloader
from service.runtimes import Outputs, Runtime, RuntimeOptions, load_runtime
from service.settings import Settings
from service.telemetry.metrics import Metrics

LIMITS = InputLimits(max_rows=1000, max_picture_pixels=10_000, max_picture_side=1000)


def predictor_of(bundle: Bundle, runtime: Runtime | None = None, max_rows: int = 4) -> Predictor:
    manifest = bundle.manifest
    return Predictor(
        manifest.name,
        bundle,
        runtime=runtime or load_runtime("onnx", bundle, RuntimeOptions(threads=1, device="cpu")),
        runtime_name="onnx",
        decoder=create_decoder(bundle, LIMITS),
        floor=Floor(),
        limits=BatchLimits(max_rows=max_rows, max_queue_rows=100),
        metrics=Metrics().of_model(manifest.name, manifest.version, manifest.labels),
    )


def as_json(*instances: object) -> Payload:
    return Payload(json.dumps({"instances": instances}).encode(), "application/json")


@asynccontextmanager
async def running(predictor: Predictor) -> AsyncIterator[Predictor]:
    predictor.start()
    yield predictor
    await predictor.close(PATIENCE_S)


async def predict(predictor: Predictor, payload: Payload) -> Prediction:
    decoders = DecoderPool(threads=1, max_requests=1)
    terms = predictor.judge.default_terms
    deadline_s = time.monotonic() + PATIENCE_S
    try:
        return await predictor.predict(payload, terms, deadline_s, decoders)
    finally:
        decoders.close()


@pytest.mark.anyio
async def test_heavy_body_that_finds_no_thread_is_refused_and_counted(tmp_path: Path) -> None:
    predictor = predictor_of(fruit_bundle(tmp_path))
    nowhere = DecoderPool(threads=1, max_requests=0)
    heavy = as_json(*[[9, 0, 0]] * 10_000)

    with pytest.raises(QueueFull, match="there is no room"):
        await predictor.predict(heavy, predictor.judge.default_terms, math.inf, nowhere)
    nowhere.close()

    assert predictor.metrics.rejections["decoding_full"].value == 1


@pytest.mark.anyio
async def test_large_request_is_refused_before_its_rows_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offloader = Offloader(most_rows=100)
    monkeypatch.setattr("service.prediction.predictor.offloader", offloader)
    async with running(predictor_of(fruit_bundle(tmp_path))) as predictor:
        wrong = [[9, 0]] * 60
        with (
            offloader.reserved(100),
            pytest.raises(QueueFull, match="large requests with 100 rows are in work"),
        ):
            await predict(predictor, as_json(*wrong, *[[9, 0, 0]] * 5))
        assert predictor.metrics.statistics().batches == 0
        assert predictor.metrics.rejections["queue_full"].value == 1

        assert len((await predict(predictor, as_json(*[[9, 0, 0]] * 100))).rows) == 100


def outcomes(rows: list[Answer | DunnoError]) -> list[object]:
    return [row.verdict if isinstance(row, Answer) else type(row) for row in rows]


@pytest.mark.anyio
async def test_each_row_gets_its_verdict_or_its_error_in_its_place(tmp_path: Path) -> None:
    async with running(predictor_of(fruit_bundle(tmp_path))) as predictor:
        prediction = await predict(predictor, as_json([9, 0, 0], [1, 2], [0, 9, 0], "x", [1, 1, 1]))

    assert outcomes(prediction.rows) == [
        Answered("apple"),
        InputInvalid,
        Answered("pear"),
        InputInvalid,
        Unknown("low_confidence"),
    ]


@pytest.mark.anyio
async def test_request_larger_than_a_batch_is_answered_in_order(tmp_path: Path) -> None:
    rows = [[9, 0, 0], [0, 9, 0], [0, 0, 9]] * 7
    async with running(predictor_of(fruit_bundle(tmp_path), max_rows=4)) as predictor:
        prediction = await predict(predictor, as_json(*rows))

    labels = [Answered("apple"), Answered("pear"), Answered("plum")] * 7
    assert outcomes(prediction.rows) == labels


@pytest.mark.anyio
async def test_small_request_gets_its_turn_between_the_parts_of_a_large_one(
    tmp_path: Path,
) -> None:
    async with running(predictor_of(fruit_bundle(tmp_path), max_rows=1)) as predictor:
        large = asyncio.create_task(predict(predictor, as_json(*[[9, 0, 0]] * 90)))
        await asyncio.sleep(0)
        small = await predict(predictor, as_json([0, 9, 0]))
        is_large_done = large.done()
        await large

    assert outcomes(small.rows) == [Answered("pear")]
    assert not is_large_done


@pytest.mark.anyio
async def test_request_without_a_readable_row_fails_with_its_first_error(tmp_path: Path) -> None:
    async with running(predictor_of(fruit_bundle(tmp_path))) as predictor:
        with pytest.raises(InputInvalid, match=r"instances\[0\]"):
            await predict(predictor, as_json([1, 2], "x"))


@pytest.mark.anyio
async def test_heavy_payload_is_decoded_off_the_event_loop(tmp_path: Path) -> None:
    async with running(predictor_of(picture_bundle(tmp_path))) as predictor:
        rows = [[[0] * 8] * 8] * 500
        prediction = await predict(predictor, as_json(*rows))

    assert outcomes(prediction.rows) == [Answered("dark")] * 500


def test_the_same_verdicts_come_without_a_queue(tmp_path: Path) -> None:
    predictor = predictor_of(fruit_bundle(tmp_path))

    rows = predictor.predict_now(as_json(*[[9, 0, 0]] * 5, "x"), predictor.judge.default_terms)

    assert outcomes(rows) == [Answered("apple")] * 5 + [InputInvalid]


def test_row_for_which_the_model_returns_nan_fails_alone(tmp_path: Path) -> None:
    predictor = predictor_of(fruit_bundle(tmp_path), NotANumberRuntime())

    rows = predictor.predict_now(as_json([9, 0, 0], [POISON, 0, 0]), predictor.judge.default_terms)

    assert outcomes(rows) == [Answered("apple"), RunFailed]


def test_only_row_for_which_the_model_returns_nan_fails_the_request(tmp_path: Path) -> None:
    predictor = predictor_of(fruit_bundle(tmp_path), NotANumberRuntime())

    with pytest.raises(RunFailed, match="NaN"):
        predictor.predict_now(as_json([POISON, 0, 0]), predictor.judge.default_terms)


def test_runtime_that_loses_a_row_is_caught(tmp_path: Path) -> None:
    predictor = predictor_of(fruit_bundle(tmp_path), ShortRuntime())

    with pytest.raises(RunFailed, match="shape"):
        predictor.assess(np.zeros((3, 3), np.float32))


def replaced(bundle: Bundle, golden: bytes) -> Bundle:
    contents = {"model.onnx": bundle.read("model.onnx"), "golden.npz": golden}
    return write_bundle(
        bundle.path,
        contents,
        lambda files: bundle.manifest.model_copy(update={"files": files}),
    )


def test_golden_rows_of_a_sound_bundle_pass(tmp_path: Path) -> None:
    predictor_of(fruit_bundle(tmp_path)).check_golden_rows()


@pytest.mark.parametrize("name", ["logits", "novelty_scores"])
def test_bundle_whose_graph_returns_other_outputs_is_refused(tmp_path: Path, name: str) -> None:
    bundle = fruit_bundle(tmp_path)
    with np.load(bundle.path / "golden.npz") as arrays:
        changed = {each: array + (0.1 if each == name else 0) for each, array in arrays.items()}

    with pytest.raises(BundleCorrupt, match="other outputs than in training"):
        predictor_of(replaced(bundle, npz_bytes(changed))).check_golden_rows()


def test_bundle_without_golden_rows_is_refused(tmp_path: Path) -> None:
    bundle = replaced(fruit_bundle(tmp_path), npz_bytes({"rows": np.zeros(3)}))

    with pytest.raises(BundleCorrupt, match="no golden rows"):
        predictor_of(bundle)


def test_golden_rows_are_never_unpickled(tmp_path: Path) -> None:
    stream = tmp_path / "evil.npz"
    evil = np.array([{"a": 1}], dtype=object)
    np.savez(stream, rows=evil, logits=evil, novelty_scores=evil)
    bundle = replaced(fruit_bundle(tmp_path), stream.read_bytes())

    with pytest.raises(BundleCorrupt, match="no golden rows"):
        predictor_of(bundle)


def test_every_batch_size_is_run_before_traffic_and_the_largest_is_timed(tmp_path: Path) -> None:
    sizes: list[int] = []
    bundle = fruit_bundle(tmp_path)
    onnx = load_runtime("onnx", bundle, RuntimeOptions(threads=1, device="cpu"))

    class Counting:
        device = "cpu"
        has_buckets = False

        def run(self, rows: NDArray[np.generic]) -> Outputs:
            sizes.append(len(rows))
            return onnx.run(rows)

    predictor = predictor_of(bundle, Counting(), max_rows=6)
    predictor.warm()

    assert sizes == [1, 2, 4, 6, 6]
    assert predictor.is_quick


def test_bundle_reads_back_as_the_same_predictor(tmp_path: Path) -> None:
    path = fruit_bundle(tmp_path).path

    predictor_of(read_bundle(path)).check_golden_rows()


@pytest.mark.anyio
async def test_runtime_that_has_broken_is_loaded_anew_from_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fruit_bundle(tmp_path)
    write_catalogue(tmp_path, "fruit")
    predictor = load_catalogue(Settings(models=tmp_path), Metrics()).find("fruit")
    broken = predictor.runtime

    def fail(_: object) -> Outputs:
        raise OSError("device lost")

    monkeypatch.setattr(broken, "run", fail)
    async with running(predictor):
        with pytest.raises(RunFailed):
            await predict(predictor, as_json([9, 0, 0]))
        async with asyncio.timeout(PATIENCE_S):
            while predictor.runtime is broken or not predictor.is_ready:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.005)
        prediction = await predict(predictor, as_json([9, 0, 0]))

    assert isinstance(prediction.rows[0], Answer)


def test_instance_is_checked_by_its_own_golden_outputs(tmp_path: Path) -> None:
    bundle = fruit_bundle(tmp_path)
    predictor = predictor_of(bundle)
    predictor.check_instance(0)

    wrong = predictor_of(bundle, ShortRuntime())
    with pytest.raises(BundleCorrupt, match="other outputs"):
        wrong.check_instance(0)
