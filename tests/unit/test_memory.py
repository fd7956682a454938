import io
import os
from pathlib import Path

import numpy as np
import pytest
from bundles import picture_bundle, write_catalogue

from service.errors import PayloadTooLarge
from service.inputs import Payload
from service.memory import fitting_rows, plan_memory, resident_bytes
from service.prediction import load_catalogue
from service.settings import MEBIBYTE, Settings, usable_memory_bytes
from service.telemetry.metrics import Metrics


def test_budgets_follow_what_the_limit_leaves() -> None:
    plan = plan_memory(Settings(), 512 * MEBIBYTE, 152 * MEBIBYTE)

    assert plan == (60 * MEBIBYTE, 45 * MEBIBYTE, 30 * MEBIBYTE)


def test_workers_share_the_limit() -> None:
    plan = plan_memory(Settings(workers=2), 1024 * MEBIBYTE, 152 * MEBIBYTE)

    assert plan == (60 * MEBIBYTE, 45 * MEBIBYTE, 30 * MEBIBYTE)


def test_setting_is_the_most_that_bodies_may_take() -> None:
    settings = Settings(max_arriving_bytes=MEBIBYTE)

    assert plan_memory(settings, 2**40, 0).arriving_bytes == MEBIBYTE


def test_budgets_have_a_least_size_although_nothing_is_left() -> None:
    assert plan_memory(Settings(), 64 * MEBIBYTE, 150 * MEBIBYTE) == (16 * MEBIBYTE,) * 3


@pytest.mark.parametrize(
    ("wanted", "row_bytes", "workers", "rows"),
    [
        pytest.param(4096, 784, 1, 4096, id="small rows"),
        pytest.param(4096, 602_112, 1, 111, id="pictures of 224 x 224 x 3 floats"),
        pytest.param(4096, 602_112, 2, 55, id="two workers"),
        pytest.param(10, 602_112, 1, 10, id="fewer are set"),
        pytest.param(4096, 100_000_000, 1, 32, id="a batch always fits"),
    ],
)
def test_rows_of_large_inputs_are_fewer(
    wanted: int, row_bytes: int, workers: int, rows: int
) -> None:
    settings = Settings(workers=workers)

    assert fitting_rows(wanted, row_bytes, settings, 512 * MEBIBYTE) == rows


def test_model_takes_and_queues_as_many_rows_as_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = picture_bundle(tmp_path)
    write_catalogue(tmp_path, "picture")
    row_bytes = 8 * 8
    monkeypatch.setattr("service.prediction.loading.usable_memory_bytes", lambda: row_bytes * 320)
    metrics = Metrics()
    settings = Settings(models=tmp_path, max_batch_rows=4)
    predictor = load_catalogue(settings, metrics).look("picture")

    def payload(rows: int) -> Payload:
        stream = io.BytesIO()
        np.save(stream, np.zeros((rows, 8, 8), np.uint8))
        return Payload(stream.getvalue(), "application/x-npy")

    assert len(predictor.decoder.decode(payload(40)).rows) == 40
    with pytest.raises(PayloadTooLarge, match="cap of 40 rows"):
        predictor.decoder.decode(payload(41))
    labels = {"model": bundle.manifest.name, "lane": "interactive"}
    found = metrics.registry.get_sample_value("dunno_queue_capacity_rows", labels)
    assert found == 40


def test_resident_memory_of_this_process_is_some_megabytes() -> None:
    assert 10 * MEBIBYTE < resident_bytes() < 8192 * MEBIBYTE


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        pytest.param({"memory.max": "1000"}, "0::/", 1000, id="version 2, as in a container"),
        pytest.param({"pod/memory.max": "1000"}, "0::/pod", 1000, id="version 2, own group"),
        pytest.param(
            {"pod/memory.max": "1000", "pod/app/memory.max": "max"}, "0::/pod/app", 1000, id="above"
        ),
        pytest.param(
            {"memory/pod/memory.limit_in_bytes": "1000"}, "7:memory:/pod", 1000, id="version 1"
        ),
        pytest.param(
            {"memory/memory.limit_in_bytes": "9223372036854771712"}, "7:memory:/", None, id="none"
        ),
        pytest.param({}, "0::/", None, id="no control groups"),
        pytest.param({"memory.max": "max"}, "0::/", None, id="no limit"),
    ],
)
def test_memory_limit_of_the_container_is_found(
    tmp_path: Path, files: dict[str, str], groups: str, expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(groups + "\n")
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    assert usable_memory_bytes(tmp_path, tmp_path / "own") == (expected or machine)
