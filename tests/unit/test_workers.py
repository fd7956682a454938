"""Several processes behind one port."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest
from bundles import fruit_bundle, write_catalogue
from collector import collecting, open_metrics
from connections import Connection, request
from many_callers import serving
from waiting import PATIENCE_S, wait_for

from service.telemetry.metrics import Metrics
from service.telemetry.workers import Workers, merged, new_run

ROW = {"instances": [[9, 0, 0]]}


def pids_by_worker(address: str) -> dict[str, int]:
    """Return what the scrape says of each worker, whichever is asked."""
    try:
        text = httpx.get(f"{address}/metrics", timeout=5).text
    except httpx.HTTPError:
        return {}
    found = re.findall(r'^dunno_process_id\{worker="(\d)"\} ([\d.e+]+)$', text, re.MULTILINE)
    return {worker: int(float(pid)) for worker, pid in found}


def requests_by_worker(address: str) -> Counter[str]:
    """Return how many requests for a verdict each worker has answered."""
    text = httpx.get(f"{address}/metrics", timeout=5).text
    pattern = r'^dunno_requests_total\{.*model="fruit".*worker="(\d)".*\} ([\d.e+]+)$'
    counts: Counter[str] = Counter()
    for worker, number in re.findall(pattern, text, re.MULTILINE):
        counts[worker] += int(float(number))
    return counts


@pytest.mark.slow
def test_workers_share_a_port_and_one_that_dies_is_replaced(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    with serving(models) as (process, address):
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        for _ in range(20):  # each on a connection of its own, which any worker may take
            assert httpx.post(f"{address}/predict/fruit", json=ROW).status_code == 200
        assert requests_by_worker(address).total() == 20

        before = pids_by_worker(address)
        os.kill(before["0"], signal.SIGKILL)
        wait_for(lambda: len({*pids_by_worker(address).values(), *before.values()}) == 3)
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        assert httpx.post(f"{address}/predict/fruit", json=ROW).status_code == 200

        process.terminate()
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_examples_of_all_workers_are_told_by_whichever_is_asked(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    accepted = {"Accept": "application/openmetrics-text"}

    def workers_with_examples() -> set[str]:
        text = httpx.get(f"{address}/metrics", headers=accepted).text
        assert open_metrics(text)
        return set(re.findall(r'worker="(\d)"} \S+ # {trace_id="\w{32}"}', text))

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        with serving(models) as (_, address):
            wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
            for _ in range(20):
                httpx.post(f"{address}/predict/fruit", json=ROW)
            wait_for(lambda: workers_with_examples() == {"0", "1"})

    assert len(collector.named("run")) == 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel has to deal them out")
def test_connections_are_dealt_out_evenly(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    with serving(models) as (_, address):
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        connections = [Connection(address) for _ in range(64)]
        for connection in connections:
            connection.send(request())
        for connection in connections:
            assert connection.response()[0] == 200
            connection.close()

        counts = requests_by_worker(address)

    assert counts.total() == 64
    # Each goes to either by a hash: less than once in a million times one of them gets fewer.
    assert min(counts.values()) >= 12


def versions_of(address: str, requests: int = 20) -> set[str]:
    """Return the versions that answer, each request on a connection that any worker may take."""
    found = (httpx.post(f"{address}/predict/fruit", json=ROW).json() for _ in range(requests))
    return {str(each["version"]) for each in found}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_hangup_makes_every_worker_reload_and_none_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", workers)
    for version in ("1", "2"):
        fruit_bundle(tmp_path, version=version)
    write_catalogue(tmp_path, "fruit", more='versions = ["1"]\n')
    with serving(tmp_path) as (process, address):
        wait_for(lambda: len(process_ids(address)) == int(workers))
        before = process_ids(address)
        assert versions_of(address) == {"1"}

        write_catalogue(tmp_path, "fruit", more='versions = ["2"]\n')
        process.send_signal(signal.SIGHUP)

        wait_for(lambda: versions_of(address) == {"2"})
        assert process_ids(address) == before
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def process_ids(address: str) -> set[int]:
    """Return the ids of the processes that serve, as the scrape tells them."""
    try:
        text = httpx.get(f"{address}/metrics", timeout=5).text
    except httpx.HTTPError:
        return set()
    found = re.findall(r"^dunno_process_id(?:\{.*\})? ([\d.e+]+)$", text, re.MULTILINE)
    return {int(float(each)) for each in found}


@pytest.mark.slow
def test_address_that_another_server_has_is_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    with serving(models) as (_, address):
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        port = address.rpartition(":")[2]
        command = [sys.executable, "-m", "service.cli", "serve", "--port", port]

        second = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False)  # noqa: S603

    assert second.returncode == 2
    assert b"Address already in use" in second.stderr


@pytest.mark.slow
def test_bundle_that_cannot_be_served_stops_the_parent_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    with serving(write_catalogue(tmp_path, "nothing")) as (process, _):
        assert process.wait(PATIENCE_S) == 2


@pytest.mark.slow
def test_replacement_that_cannot_start_does_not_stop_other_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fruit_bundle(tmp_path)
    write_catalogue(tmp_path, "fruit")
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    with serving(tmp_path) as (process, address):
        assert process.stderr is not None
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        before = pids_by_worker(address)
        write_catalogue(tmp_path, "nothing")

        os.kill(before["0"], signal.SIGKILL)
        next(line for line in process.stderr if "worker cannot start; next try in 10 s" in line)

        assert process.poll() is None
        assert set(pids_by_worker(address)) == {"1"}
        assert httpx.post(f"{address}/predict/fruit", json=ROW).status_code == 200

        write_catalogue(tmp_path, "fruit")
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        assert pids_by_worker(address)["1"] == before["1"]
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


@pytest.fixture
def run() -> str:
    return new_run()


@pytest.mark.anyio
async def test_worker_that_does_not_answer_is_left_out(
    run: str, caplog: pytest.LogCaptureFixture
) -> None:
    workers = Workers(run, 2, Metrics())
    await workers.start()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"\0dunno-{run}-1")
        silent.listen()

        told = await workers.exposition()

    assert b'worker="0"' in told
    assert "a worker does not tell its metrics" in caplog.text
    await workers.close()


@pytest.mark.anyio
async def test_all_workers_are_told_and_one_more_than_planned(run: str) -> None:
    all_of_them = [Workers(run, 2, Metrics()) for _ in range(3)]
    for each in all_of_them:
        await each.start()

    for each in all_of_them:
        told = set(re.findall(r'worker="(\d+)"', (await each.exposition()).decode()))
        assert told == {"0", "1", "2"}
    for each in all_of_them:
        await each.close()


@pytest.mark.anyio
async def test_another_user_is_told_nothing(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Workers(run, 2, Metrics()), Workers(run, 2, Metrics())
    await first.start()
    await second.start()
    monkeypatch.setattr("os.geteuid", lambda: 4711)

    told = await first.exposition()

    assert b'worker="0"' in told
    assert b'worker="1"' not in told
    await first.close()
    await second.close()


def test_number_of_a_worker_that_is_gone_is_taken_again(run: str) -> None:
    first, second = Workers(run, 2, Metrics()), Workers(run, 2, Metrics())
    assert (first.number, second.number) == (0, 1)

    first.release()

    third = Workers(run, 2, Metrics())
    assert third.number == 0
    second.release()
    third.release()


@pytest.mark.slow
@pytest.mark.parametrize("temporary", ["removed", "long", "missing"])
def test_workers_need_no_folder_for_temporary_files(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: str
) -> None:
    folder = tmp_path / ("x" * 150 if temporary == "long" else "tmp")
    if temporary != "missing":
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    with serving(models) as (_, address):
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        if temporary == "removed":
            shutil.rmtree(folder)
        before = pids_by_worker(address)
        assert set(before) == {"0", "1"}

        os.kill(before["1"], signal.SIGKILL)

        wait_for(lambda: len({*pids_by_worker(address).values(), *before.values()}) == 3)
        wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})


@pytest.mark.slow
@pytest.mark.parametrize("is_ready", [True, False])
def test_workers_stop_when_their_parent_is_killed(
    models: Path, monkeypatch: pytest.MonkeyPatch, *, is_ready: bool
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    monkeypatch.setenv("DUNNO_STOP_DELAY_MS", "60000")
    with serving(models) as (process, address):
        port = int(address.rpartition(":")[2])
        if is_ready:
            wait_for(lambda: set(pids_by_worker(address)) == {"0", "1"})
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(lambda: len(children.read_text().split()) >= 2)
        workers = [Path("/proc") / each for each in children.read_text().split()]

        process.kill()
        process.wait()

        wait_for(lambda: not any(each.exists() for each in workers))
        with socket.create_server(("127.0.0.1", port)):  # nobody has it
            pass


def test_merged_exposition_names_each_family_once() -> None:
    one = b'# HELP a_total A.\n# TYPE a_total counter\na_total{worker="0"} 1.0\n'
    other = one.replace(b'"0"', b'"1"')

    assert merged([one, other]) == one + b'a_total{worker="1"} 1.0\n'
