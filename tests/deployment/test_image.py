"""The built image, run hardened: `DUNNO_IMAGE=dunno:0.1.0 pytest tests/deployment/test_image.py`.

`DUNNO_PODMAN` holds the command and its global options where they are not plain `podman`.
"""

import contextlib
import http.client
import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment.parts import ROOT, need

pytestmark = pytest.mark.slow

SEVEN = ROOT / "docs/examples/seven.png"
IMAGE = os.environ.get("DUNNO_IMAGE", "")
READY_WITHIN_S = 3.0
STARTS = 4
LARGEST_BYTES = 400_000_000
LARGEST_ADDITION_BYTES = 265_000_000
"""Base and ours: the official base is some 120 MB of it."""
LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=20000:20000")
HARDENED = (
    "--detach --pull=never --read-only --cap-drop ALL --security-opt no-new-privileges "
    "--memory 512m --cpus 1 --pids-limit 64 --network host"
)


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    """Skip all of these where there is no image."""
    need(IMAGE, "`make image`, then set DUNNO_IMAGE")


def podman(*arguments: str, folder: Path | None = None) -> str:
    command = [*shlex.split(os.environ.get("DUNNO_PODMAN", "podman")), *arguments]
    done = subprocess.run(  # noqa: S603  our own command
        command, capture_output=True, check=True, text=True, timeout=60, cwd=folder
    )
    return done.stdout.strip()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Container:
    """A running server, and how long it took to be ready."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        started_s = time.monotonic()
        options = [*shlex.split(HARDENED), *LIMITS, "--env", f"DUNNO_PORT={self.port}"]
        # podman leaves files of its own in the current folder.
        self.name = podman("run", *options, IMAGE, "serve", folder=folder)
        while not self.is_ready():
            assert time.monotonic() < started_s + 30, podman("logs", self.name)
            time.sleep(0.02)
        self.ready_after_s = time.monotonic() - started_s

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": "image/png"})
            response = connection.getresponse()
            return response.status, response.read()

    def facts(self) -> dict[str, str]:
        """Return what the kernel says of the server's process."""
        process = podman("inspect", "--format", "{{.State.Pid}}", self.name)
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    found = Container(tmp_path)
    yield found
    podman("rm", "--force", "--time", "0", found.name)


def test_first_verdict_comes_soon_after_the_start(tmp_path: Path) -> None:
    """At the best of some starts: the cores may have other work, and the disk too."""
    found = []
    for _ in range(STARTS):
        container = Container(tmp_path)
        status, content = container.ask("POST", "/predict/mnist", SEVEN.read_bytes())
        podman("rm", "--force", "--time", "0", container.name)
        assert status == 200
        assert json.loads(content)["predictions"][0]["label"] == "7"
        found.append(container.ready_after_s)
        if found[-1] < READY_WITHIN_S:
            break

    assert min(found) < READY_WITHIN_S


def test_server_has_no_privileges(container: Container) -> None:
    facts = container.facts()

    assert facts["Uid"].split() == ["10001"] * 4
    assert {facts[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"


def test_container_says_of_itself_that_it_is_healthy(container: Container) -> None:
    podman("healthcheck", "run", container.name)


def test_termination_answers_what_is_in_flight_and_exits_with_zero(container: Container) -> None:
    body = SEVEN.read_bytes()
    connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=30)
    connection.putrequest("POST", "/predict/mnist")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:100])

    with contextlib.closing(connection):
        podman("kill", "--signal", "TERM", container.name)
        connection.send(body[100:])
        response = connection.getresponse()
        response.read()

    assert response.status == 200
    assert podman("wait", container.name) == "0"


def test_image_is_no_larger_than_400_mb_unpacked() -> None:
    assert int(podman("image", "inspect", "--format", "{{.Size}}", IMAGE)) <= LARGEST_BYTES


def test_little_is_added_to_the_base() -> None:
    folders = ("/opt/dunno", "/app")
    options = ("--rm", "--pull=never", "--network", "host", "--entrypoint", "du")
    told = podman("run", *options, *LIMITS, IMAGE, "--bytes", "--summarize", *folders)

    added_bytes = sum(int(line.split()[0]) for line in told.splitlines())
    assert added_bytes < LARGEST_ADDITION_BYTES
