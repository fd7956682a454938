"""The documented memory limit, by the kernel: a server that needs more is killed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_CONTROL_GROUPS = 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="control groups are those of Linux")
def test_worst_legal_requests_stay_within_the_documented_memory_limit() -> None:
    done = subprocess.run(
        [sys.executable, "load_tests/memory.py", "--limit", "512", "--seconds", "10"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode == NO_CONTROL_GROUPS:
        pytest.skip(done.stdout.strip())

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
