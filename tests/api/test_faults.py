"""What the server does when something of its machine is missing, full, slow or broken."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from counting import value
from faults import (
    PATIENCE_S,
    ROW,
    control_group,
    cpu_s,
    is_answered,
    need,
    need_mounts,
    server,
    wait_for,
    with_mounts,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="faults are made by Linux"),
]

takes_a_minute = pytest.mark.skipif(
    "DUNNO_CHECK_DEPLOYMENT" not in os.environ, reason="takes a minute; CI runs it"
)

READ_ONLY = """
grep -v ' /proc\\| /sys\\| /dev ' /proc/self/mounts | while read _ folder _; do
    mount -o remount,bind,ro "$folder" 2>/dev/null || true
done
! touch /tmp/dunno-test 2>/dev/null
"""


def caller(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=PATIENCE_S)


def process_ids(address: str) -> dict[str, int]:
    """Return the process of each worker that can be asked, by its number."""
    try:
        text = httpx.get(f"{address}/metrics", timeout=5).text
    except httpx.HTTPError:
        return {}
    lines = (line.split() for line in text.splitlines() if line.startswith("dunno_process_id{"))
    return {name.split('"')[1]: int(float(number)) for name, number in lines}


def values(exposition: str, name: str) -> set[float]:
    """Return the value of a metric in each worker."""
    lines = (line for line in exposition.splitlines() if line.startswith(name))
    return {float(line.split()[-1]) for line in lines}


# --- File descriptors --------------------------------------------------------------------------


def test_server_without_file_descriptors_answers_those_it_has_and_later_all(models: Path) -> None:
    with server(models) as (process, address), caller(address) as client:
        assert is_answered(client)
        taken = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (taken + 4, taken + 4))
        where = urlsplit(address)
        crowd = [socket.create_connection((where.hostname, where.port)) for _ in range(40)]

        before_s = cpu_s(process.pid)
        for _ in range(20):
            assert is_answered(client)
            time.sleep(0.1)
        spent_s = cpu_s(process.pid) - before_s

        for connection in crowd:
            connection.close()
        with caller(address) as another:
            wait_for(lambda: is_answered_at_last(another))
    assert spent_s < 1  # of two


def is_answered_at_last(client: httpx.Client) -> bool:
    try:
        return is_answered(client)
    except httpx.TransportError:
        return False


# --- Disks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "then"),
    [
        pytest.param("1", "", id="from the start"),
        pytest.param("2", "true", id="before a worker is replaced"),
        pytest.param("2", "mount -o remount,ro {}", id="and read-only as well"),
    ],
)
def test_server_whose_disks_are_full_answers_as_before(
    models: Path, tmp_path: Path, workers: str, then: str
) -> None:
    need_mounts()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    (tmp_path / "models").mkdir()
    shutil.copytree(models, tmp_path / "kept")
    script = f"""
        cd {tmp_path}
        mount -t tmpfs -o size=4m tmpfs models
        cp -r kept/* models
        mount -t tmpfs -o size=64k tmpfs tmp
        """
    fill = [f"! cat /dev/zero > {tmp_path}/{name}/filler" for name in ("models", "tmp")]
    if workers == "1":  # full from the start
        script += "\n".join(fill) + f"\ncd {temporary}"
    folder = tmp_path / "models"
    settings = {"TMPDIR": str(temporary), "DUNNO_WORKERS": workers}
    with server(folder, *with_mounts(script), settings=settings) as (process, address):
        if workers == "2":
            wait_for(lambda: len(process_ids(address)) == 2)
            for each in (*fill, then.format(temporary)):
                inside = ["nsenter", "--mount", "--target", str(process.pid), "sh", "-c", each]
                subprocess.run(inside, capture_output=True, check=True)  # noqa: S603  our own
            before = process_ids(address)
            os.kill(before["0"], signal.SIGKILL)
            wait_for(lambda: len({*process_ids(address).values(), *before.values()}) == 3)
        with caller(address) as client:
            for _ in range(20):
                assert is_answered(client)


def test_server_that_may_write_nowhere_answers(models: Path) -> None:
    need_mounts()
    with server(models, *with_mounts(READ_ONLY)) as (_, address), caller(address) as client:
        assert is_answered(client)
        assert "process_resident_memory_bytes" in client.get("/metrics").text


def test_workers_that_may_write_nowhere_answer_and_tell_the_metrics_of_all(models: Path) -> None:
    need_mounts()
    settings = {"DUNNO_WORKERS": "2"}
    with server(models, *with_mounts(READ_ONLY), settings=settings) as (_, address):
        wait_for(lambda: len(process_ids(address)) == 2)
        with caller(address) as client:
            assert is_answered(client)


# --- Clocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", ["+6h", "-6h"])
def test_clock_that_jumps_changes_no_answer_deadline_or_connection(
    models: Path, tmp_path: Path, jump: str
) -> None:
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    need(bool(found), "libfaketime is not installed; Debian package faketime")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DUNNO_MAX_WAIT_MS": "20",
        "DUNNO_WATCH_MODELS_S": "1",
    }
    with server(models, settings=environment) as (process, address), caller(address) as client:
        assert is_answered(client)
        last_s = value(client, "dunno_model_last_success_timestamp_seconds", model="fruit")
        connection = client.get("/livez").extensions["network_stream"]

        clock.write_text(jump)
        for _ in range(100):
            response = client.post("/predict/fruit?deadline_ms=5000", json=ROW)
            assert response.status_code == 200
            assert response.json()["predictions"][0]["label"] == "apple"
        time.sleep(2)  # so long nothing but timers happens
        response = client.get("/livez")

        assert response.status_code == 200
        assert response.extensions["network_stream"] is connection
        assert process.poll() is None
        jumped_s = value(client, "dunno_model_last_success_timestamp_seconds", model="fruit")
        assert abs(jumped_s - last_s) > 5 * 3600  # it was the server's clock that jumped


# --- Processors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "workers", "quota_cores", "mount"),
    [
        pytest.param("auto", 1, 0.2, "mount --bind {group} {group.parent}", id="in a container"),
        pytest.param("2", 2, 0.1, "", id="as a unit, of two workers", marks=takes_a_minute),
    ],
)
def test_server_with_a_fifth_or_a_tenth_of_a_processor_loses_no_answer(
    models: Path, tmp_path: Path, wanted: str, workers: int, quota_cores: float, mount: str
) -> None:
    need_mounts()
    quota_us = round(quota_cores * 100_000)
    with control_group("cpu", cfs_period_us=100_000, cfs_quota_us=quota_us) as group:
        before = with_mounts(f"echo $$ > {group}/cgroup.procs\n{mount.format(group=group)}")
        settings = {"DUNNO_WORKERS": wanted}
        log = (tmp_path / "log").open("wb")
        with log, server(models, *before, stderr=log, settings=settings) as (process, address):
            with caller(address) as client, ThreadPoolExecutor(8) as callers:
                answers = list(callers.map(lambda _: is_answered(client), range(100)))
                exposition = client.get("/metrics").text
            assert process.poll() is None
            held_back = (group / "cpu.stat").read_text().split("nr_throttled ")[1].split()[0]
    assert int(held_back) > 10
    assert answers == [True] * 100
    assert values(exposition, "dunno_cpu_quota_cores") == {quota_cores}
    assert values(exposition, "dunno_runtime_threads") == {1.0}
    told = (tmp_path / "log").read_text()
    assert told.count('"ready"') == workers  # none was given up while it started
    assert "stands still" not in told


def test_server_that_is_stopped_and_continued_answers_what_was_asked_meanwhile(
    models: Path,
) -> None:
    with server(models, settings={"DUNNO_MAX_STALL_MS": "1000"}) as (process, address):
        with caller(address) as client, ThreadPoolExecutor(8) as callers:
            assert is_answered(client)
            process.send_signal(signal.SIGSTOP)
            asked = [callers.submit(is_answered, client) for _ in range(8)]
            time.sleep(3)
            process.send_signal(signal.SIGCONT)

            assert all(each.result(PATIENCE_S) for each in asked)
        assert process.poll() is None


def test_worker_without_memory_is_replaced_and_the_other_goes_on(models: Path) -> None:
    settings = {"DUNNO_WORKERS": "2", "DUNNO_MAX_BODY_BYTES": "60000000"}
    with server(models, settings=settings) as (_, address):
        wait_for(lambda: len(process_ids(address)) == 2)
        before = process_ids(address)
        with control_group("memory", limit_in_bytes=16 * 1024 * 1024) as group:
            (group / "cgroup.procs").write_text(str(before["0"]))
            body = b"[" + b"1," * 25_000_000 + b"1]"

            def is_replaced() -> bool:
                # One of them is killed by it.
                with suppress(httpx.TransportError), caller(address) as client:
                    client.post("/predict/fruit", content=body)
                return before["0"] not in process_ids(address).values()

            wait_for(is_replaced)
            wait_for(lambda: len(process_ids(address)) == 2)

        assert process_ids(address)["1"] == before["1"]
        for _ in range(20):
            with caller(address) as client:
                assert is_answered(client)


@takes_a_minute
def test_worker_that_is_silent_is_replaced_and_the_other_goes_on(models: Path) -> None:
    settings = {"DUNNO_WORKERS": "2", "DUNNO_MAX_STALL_MS": "15000"}
    with server(models, settings=settings) as (_, address):
        wait_for(lambda: len(process_ids(address)) == 2)
        before = process_ids(address)
        os.kill(before["0"], signal.SIGSTOP)
        wait_for(lambda: not Path(f"/proc/{before['0']}").exists())
        wait_for(lambda: len(process_ids(address)) == 2)

        assert process_ids(address)["1"] == before["1"]


# --- Logs --------------------------------------------------------------------------------------

LOGGED = {"DUNNO_ACCESS_LOG": "true"}


def dropped(client: httpx.Client) -> float:
    return value(client, "dunno_log_lines_dropped_total")


def test_log_that_nobody_takes_any_more_costs_no_answer(models: Path) -> None:
    reader, writer = os.pipe()
    with server(models, stderr=writer, settings=LOGGED) as (_, address), caller(address) as client:
        os.close(reader)
        os.close(writer)
        for _ in range(20):
            assert is_answered(client)
        wait_for(lambda: dropped(client) >= 20)


def test_log_on_a_full_disk_costs_no_answer(models: Path) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        server(models, stderr=full, settings=LOGGED) as (_, address),
        caller(address) as client,
    ):
        for _ in range(20):
            assert is_answered(client)
        wait_for(lambda: dropped(client) >= 20)


def test_log_that_nobody_reads_stops_nobody(models: Path) -> None:
    reader, writer = os.pipe()
    with server(models, stderr=writer, settings=LOGGED) as (_, address), caller(address) as client:
        os.close(writer)
        for _ in range(6000):
            assert is_answered(client)
        assert dropped(client) > 0
    os.close(reader)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_server_without_standard_error_answers_and_ends_well(models: Path, workers: str) -> None:
    closed = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    settings = {**LOGGED, "DUNNO_WORKERS": workers}
    with server(models, *closed, settings=settings) as (_, address), caller(address) as client:
        for _ in range(20):
            assert is_answered(client)


# --- What the kernel tells ---------------------------------------------------------------------


def test_server_that_sees_neither_proc_nor_sys_answers_and_is_measured(models: Path) -> None:
    need_mounts()
    script = "mount -t tmpfs tmpfs /sys\nmount -t tmpfs tmpfs /proc"
    with server(models, *with_mounts(script)) as (_, address), caller(address) as client:
        assert is_answered(client)
        assert value(client, "dunno_runtime_threads") >= 1
        assert value(client, "dunno_cpu_quota_cores") >= 1
