"""The server calls nobody: it serves where the network is cut."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cut_off import CALLED_SOMEBODY
from signing_keys import key_pair

from training.signing import sign_bundle

TESTS = Path(__file__).parents[1]
IN_AN_EMPTY_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


def run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  our own commands
        command,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
    )


def can_be_cut_off() -> bool:
    tools = ("unshare", "ip")
    return all(map(shutil.which, tools)) and run(*IN_AN_EMPTY_NETWORK, "true").returncode == 0


@pytest.mark.parametrize(
    "before",
    [
        pytest.param((), id="whoever calls is ended"),
        pytest.param(
            IN_AN_EMPTY_NETWORK,
            id="nobody could be called",
            marks=pytest.mark.skipif(
                not can_be_cut_off(), reason="only root may make a network of its own"
            ),
        ),
    ],
)
def test_server_serves_where_the_network_is_cut(
    models: Path, tmp_path: Path, before: tuple[str, ...]
) -> None:
    signed = shutil.copytree(models, tmp_path / "models")
    keys = key_pair(tmp_path)
    for manifest in signed.glob("*/*/manifest.json"):
        sign_bundle(manifest.parent, keys.private)

    done = run(
        *before,
        sys.executable,
        str(TESTS / "cut_off_answer.py"),
        DUNNO_MODELS=str(signed),
        DUNNO_TRUSTED_KEYS=str(keys.public),
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["label"] == "apple"


@pytest.mark.parametrize(
    "call",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.gethostbyname('localhost')",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
    ],
)
def test_call_of_anybody_would_be_found_out(call: str) -> None:
    before = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import cut_off"

    done = run(sys.executable, "-c", f"{before}; sys.addaudithook(cut_off.refuse_calls); {call}")

    assert done.returncode == CALLED_SOMEBODY
    assert "called somebody: socket." in done.stderr
