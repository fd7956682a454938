"""Several processes behind one port."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from bundles import write_catalogue
from many_callers import serving

from service.telemetry.metrics import Metrics
from service.telemetry.workers import Workers, merged

PATIENCE_S = 20.0
ROW = {"instances": [[9, 0, 0]]}


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def pids_by_worker(address: str) -> dict[str, int]:
    """Return what the scrape says of each worker, whichever is asked."""
    try:
        text = httpx.get(f"{address}/metrics", timeout=5).text
    except httpx.HTTPError:
        return {}
    found = re.findall(r'^dunno_process_id\{worker="(\d)"\} ([\d.e+]+)$', text, re.MULTILINE)
    return {worker: int(float(pid)) for worker, pid in found}


def requests_counted(address: str) -> float:
    text = httpx.get(f"{address}/metrics", timeout=5).text
    pattern = r'^dunno_requests_total\{.*model="fruit".*outcome="answered".*\} ([\d.e+]+)$'
    return sum(map(float, re.findall(pattern, text, re.MULTILINE)))


def test_workers_share_a_port_and_one_that_dies_is_replaced(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    with serving(models) as (process, address):
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        for _ in range(20):  # each on a connection of its own, which any worker may take
            assert httpx.post(f"{address}/predict/fruit", json=ROW).status_code == 200
        assert requests_counted(address) == 20

        before = pids_by_worker(address)
        os.kill(before["0"], signal.SIGKILL)
        wait_for(lambda: len({*pids_by_worker(address).values(), *before.values()}) == 3)
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        assert httpx.post(f"{address}/predict/fruit", json=ROW).status_code == 200

        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_bundle_that_cannot_be_served_stops_the_parent_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    with serving(write_catalogue(tmp_path, "nothing")) as (process, _):
        assert process.wait(PATIENCE_S) == 2


@pytest.mark.anyio
async def test_worker_that_does_not_answer_is_left_out(tmp_path: Path) -> None:
    workers = Workers(tmp_path, Metrics())
    await workers.start()
    (tmp_path / "7.socket").touch()

    told = await workers.exposition()

    assert b'worker="0"' in told
    await workers.close()


def test_number_of_a_worker_that_is_gone_is_taken_again(tmp_path: Path) -> None:
    first, second = Workers(tmp_path, Metrics()), Workers(tmp_path, Metrics())
    assert (first.number, second.number) == (0, 1)

    first.release()

    assert Workers(tmp_path, Metrics()).number == 0


def test_merged_exposition_names_each_family_once() -> None:
    one = b'# HELP a_total A.\n# TYPE a_total counter\na_total{worker="0"} 1.0\n'
    other = one.replace(b'"0"', b'"1"')

    assert merged([one, other]) == one + b'a_total{worker="1"} 1.0\n'
