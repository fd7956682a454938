"""A server of its own process on a machine with something wrong, and ways to make it wrong."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

PATIENCE_S = 120.0
ROW = {"instances": [[9, 0, 0]]}
CGROUP = Path("/sys/fs/cgroup")
SERVE = (sys.executable, "-m", "service.cli", "serve")


def need(is_there: bool, reason: str) -> None:  # noqa: FBT001  reads as a sentence
    """Skip a test that lacks something; where everything has to be there, fail."""
    if not is_there and "DUNNO_CHECK_DEPLOYMENT" not in os.environ:
        pytest.skip(reason)
    assert is_there, reason


def need_mounts() -> None:
    """Skip a test that cannot have mounts of its own."""
    can = shutil.which("unshare") and subprocess.run(["unshare", "--mount", "true"]).returncode == 0  # noqa: PLW1510, S607
    need(bool(can), "only root may have mounts of its own")


def with_mounts(script: str) -> tuple[str, ...]:
    """Return what stands before a command that is to have mounts of its own."""
    return ("unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh")


def free_port() -> int:
    """Return a port that nobody has, for a server that cannot say which it took."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what has no event of its own."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def is_ready(address: str) -> bool:
    """Whether a server answers there."""
    try:
        return httpx.get(f"{address}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def server(
    models: Path,
    *before: str,
    stderr: int | IO[Any] = subprocess.DEVNULL,
    settings: Mapping[str, str] | None = None,
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Start a server, wait until it is ready, and end it; it has to end well."""
    port = free_port()
    command = [*before, *SERVE, "--port", str(port), "--models", str(models)]
    variables = os.environ | {"DUNNO_STOP_DELAY_MS": "0"} | dict(settings or {})
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(  # noqa: S603  our own command
        command, stderr=stderr, env=variables | {"PYTHONPATH": path}
    ) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: process.poll() is not None or is_ready(address))
            assert process.poll() is None, f"ended with {process.returncode}"
            yield process, address
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()


def is_answered(client: httpx.Client) -> bool:
    """Whether a row gets its right answer."""
    response = client.post("/predict/fruit", json=ROW)
    return response.status_code == 200 and response.json()["predictions"][0]["label"] == "apple"


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_numbers = itertools.count()


@contextmanager
def control_group(controller: str, **limits: int) -> Iterator[Path]:
    """A control group of version 1 below that of this process.

    Args:
        controller: `cpu` or `memory`.
        limits: file of the group without the controller's name -> what is written to it.
    """
    above = CGROUP / controller
    need(os.access(above / "cgroup.procs", os.W_OK), f"no control group {controller} to write to")
    group = above / f"dunno-test-{os.getpid()}-{next(_numbers)}"
    group.mkdir()
    try:
        for name, value in limits.items():
            (group / f"{controller}.{name}").write_text(str(value))
        yield group
    finally:
        wait_for(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
