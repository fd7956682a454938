"""The start of `dunno serve`: addresses, signals, what is said of them."""

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from many_callers import serving
from waiting import PATIENCE_S, wait_for

from service.api import listener
from service.settings import SettingsInvalid

SERVE = [sys.executable, "-m", "service.cli", "serve"]
BOTH = pytest.mark.parametrize("workers", ["1", "2"])
HAS_IPV6 = pytest.mark.skipif(
    not (socket.has_ipv6 and Path("/proc/net/if_inet6").is_file()), reason="needs IPv6"
)


def refused(**variables: str) -> str:
    """Start a server that must not start, and return what it says."""
    settings = os.environ | {"DUNNO_PORT": "0"} | variables
    done = subprocess.run(  # noqa: S603  our own command
        SERVE, capture_output=True, check=False, env=settings, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 2
    assert '"ready"' not in done.stderr
    return done.stderr.splitlines()[-1]


@contextlib.contextmanager
def started(models: Path, **variables: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Start a server; return it with the port that its log tells."""
    settings = os.environ | {"DUNNO_PORT": "0", "DUNNO_MODELS": str(models)} | variables
    with subprocess.Popen(SERVE, stderr=subprocess.PIPE, env=settings, text=True) as process:  # noqa: S603
        assert process.stderr is not None
        lines = (re.search(r"running on http://\S+:(\d+)", line) for line in process.stderr)
        found = next(match for match in lines if match)
        try:
            yield process, int(found[1])
        finally:
            process.terminate()
            process.stderr.read()


def is_answered(host: str, port: int, path: str = "/livez") -> bool:
    try:
        return httpx.get(f"http://{host}:{port}{path}").status_code == 200
    except httpx.HTTPError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


# --- Signals -----------------------------------------------------------------------------------


def ignores_hangup(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^SigIgn:\t([0-9a-f]+)$", status, re.MULTILINE)
    assert found is not None
    return bool(int(found[1], 16) >> (signal.SIGHUP - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@BOTH
def test_hangup_before_the_server_is_ready_does_not_end_it(models: Path, workers: str) -> None:
    variables = os.environ | {"DUNNO_PORT": "0", "DUNNO_WORKERS": workers}
    command = [*SERVE, "--models", str(models)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=variables) as process:  # noqa: S603  our own
        wait_for(lambda: ignores_hangup(process.pid))
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        is_running = any(b"running on" in line for line in process.stderr)
        process.terminate()

        assert is_running
        process.stderr.read()
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the group of processes is asked")
def test_hangup_of_all_processes_while_they_start_ends_no_worker(models: Path) -> None:
    """A terminal that closes, or `kill -HUP` of the group, reaches workers as well."""
    variables = os.environ | {"DUNNO_PORT": "0", "DUNNO_WORKERS": "2"}
    command = [*SERVE, "--models", str(models)]
    with subprocess.Popen(  # noqa: S603  our own
        command, stderr=subprocess.PIPE, env=variables, start_new_session=True, text=True
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "running on" in line)
        said = []
        for line in process.stderr:
            said.append(line)
            if "Started parent" in line:
                wait_for(lambda: len(children(process.pid)) >= 2)
                os.killpg(process.pid, signal.SIGHUP)
            if sum('"ready"' in each for each in said) == 2:
                break
        process.terminate()
        said += process.stderr

        assert not any("worker died" in line for line in said)
        assert process.wait(PATIENCE_S) == 0


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(each) for each in found if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]


# --- Addresses that cannot be had --------------------------------------------------------------


@BOTH
def test_port_of_another_program_is_refused_before_models_are_loaded(
    tmp_path: Path, workers: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        # There is no catalogue either, and nobody has looked for it.
        said = refused(DUNNO_PORT=port, DUNNO_WORKERS=workers, DUNNO_MODELS=str(tmp_path))

    assert said == (
        f"dunno: DUNNO_HOST, DUNNO_PORT: cannot listen on 127.0.0.1:{port}: "
        "Address already in use; stop the other server or set another port"
    )


@pytest.mark.slow
@BOTH
def test_port_of_a_server_that_is_loading_its_models_is_refused(models: Path, workers: str) -> None:
    port = str(free_port())
    variables = os.environ | {"DUNNO_PORT": port, "DUNNO_WORKERS": workers, "DUNNO_HOST": "0.0.0.0"}  # noqa: S104
    command = [*SERVE, "--models", str(models)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=variables, text=True) as first:  # noqa: S603
        assert first.stderr is not None
        assert "UNSAFE" in first.stderr.readline()  # it has its address and has not begun to load

        for many in ("1", "2"):
            assert "Address already in use" in refused(DUNNO_PORT=port, DUNNO_WORKERS=many)
        first.terminate()
        first.stderr.read()


@pytest.mark.slow
@BOTH
def test_port_of_a_server_that_has_just_stopped_is_free(models: Path, workers: str) -> None:
    with started(models, DUNNO_WORKERS=workers) as (first, port):
        wait_for(lambda: is_answered("127.0.0.1", port))
        with socket.create_connection(("127.0.0.1", port)) as left:
            left.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while left.recv(4096):  # the server closes first, so that its side lingers
                pass
        first.terminate()
        assert first.stderr is not None
        first.stderr.read()
        assert first.wait(PATIENCE_S) == 0

    with started(models, DUNNO_WORKERS=workers, DUNNO_PORT=str(port)) as (_, again):
        wait_for(lambda: is_answered("127.0.0.1", again))
        assert again == port


@BOTH
@pytest.mark.parametrize(
    ("host", "reason"),
    [
        pytest.param("[::1]", "[::1]:0: write an IPv6 address without brackets", id="brackets"),
        pytest.param("nowhere.invalid", "nowhere.invalid:0: ", id="unknown name"),
        pytest.param("a..b", "a..b:0: not a host name", id="no name"),
        pytest.param("", ":0: ", id="empty"),
        pytest.param("192.0.2.1", "Cannot assign requested address; set an address of", id="other"),
        pytest.param("127.0.0.1:8000", "127.0.0.1:8000", id="with a port"),
    ],
)
def test_host_that_cannot_be_had_is_one_sentence(host: str, reason: str, workers: str) -> None:
    said = refused(DUNNO_HOST=host, DUNNO_WORKERS=workers)

    assert said.startswith("dunno: DUNNO_HOST, DUNNO_PORT: cannot listen on ")
    assert reason in said


@pytest.mark.parametrize(("side", "workers"), [("METRICS", "1"), ("METRICS", "2"), ("ADMIN", "1")])
def test_side_address_that_cannot_be_had_is_refused_before_models_are_loaded(
    tmp_path: Path, side: str, workers: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        variables = {f"DUNNO_{side}_PORT": port, "DUNNO_WORKERS": workers}
        said = refused(DUNNO_MODELS=str(tmp_path), **variables)

    where = f"DUNNO_{side}_HOST, DUNNO_{side}_PORT: cannot listen on 127.0.0.1:{port}"
    assert said.startswith(f"dunno: {where}: Address already in use")


@pytest.mark.slow
@BOTH
def test_queue_of_new_connections_is_as_long_as_those_that_are_allowed(
    models: Path, workers: str
) -> None:
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with started(models, DUNNO_WORKERS=workers) as (_, port):
        wait_for(lambda: queues(port) == [min(4096, limit)] * int(workers))


def queues(port: int) -> list[int]:
    """Return the length of the queue of new connections of each socket that listens on a port."""
    command = ["ss", "-Hltn", f"sport = :{port}"]
    told = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603
    return [int(line.split()[2]) for line in told.stdout.splitlines()]


# --- IPv6 --------------------------------------------------------------------------------------


@pytest.mark.slow
@HAS_IPV6
@BOTH
def test_server_on_all_addresses_of_ipv6_takes_connections_of_ipv4(
    models: Path, workers: str
) -> None:
    metrics = free_port()
    variables = {"DUNNO_METRICS_HOST": "::", "DUNNO_METRICS_PORT": str(metrics)}
    with started(models, DUNNO_HOST="::", DUNNO_WORKERS=workers, **variables) as (_, port):
        for host in ("127.0.0.1", "[::1]"):
            wait_for(lambda host=host: is_answered(host, port))  # type: ignore[misc]
            wait_for(lambda host=host: is_answered(host, metrics, "/metrics"))  # type: ignore[misc]


@pytest.mark.slow
@HAS_IPV6
@BOTH
def test_server_on_one_address_of_ipv6_answers_there_alone(models: Path, workers: str) -> None:
    with started(models, DUNNO_HOST="::1", DUNNO_WORKERS=workers) as (_, port):
        wait_for(lambda: is_answered("[::1]", port))
        assert not is_answered("127.0.0.1", port)


def test_machine_without_ipv6_refuses_it_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(_: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", no_socket)

    with pytest.raises(
        SettingsInvalid, match=r"\[::\]:80: .*; this machine has no IPv6: set an IPv4"
    ):
        listener.take("DUNNO", "::", 80)


@pytest.mark.slow
@HAS_IPV6
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "0", "::", "0::0", "::1", "localhost"])  # noqa: S104
def test_health_check_of_the_image_asks_the_address_that_is_served(models: Path, host: str) -> None:
    text = (Path(__file__).parents[2] / "Dockerfile").read_text().replace("\\\n", "")
    found = re.search(r'^HEALTHCHECK .*CMD \["python", (.*)\]$', text, re.MULTILINE)
    assert found is not None
    check = [sys.executable, *json.loads(f"[{found[1]}]")]
    with started(models, DUNNO_HOST=host) as (_, port):
        settings = {"DUNNO_HOST": host, "DUNNO_PORT": str(port)}

        done = subprocess.run(check, env=settings, capture_output=True, check=False)  # noqa: S603

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
@BOTH
def test_log_tells_the_address_with_its_port(
    models: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", workers)
    with serving(models) as (_, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", address)
