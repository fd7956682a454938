"""Requests of every kind, many of them: a million where there is time (DUNNO_CHECK_LONG)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUESTS, WARM = (1_000_000, 50_000) if "DUNNO_CHECK_LONG" in os.environ else (40_000, 20_000)


@pytest.mark.slow
@pytest.mark.skipif(
    not {"DUNNO_CHECK_DEPLOYMENT", "DUNNO_CHECK_LONG"} & os.environ.keys(),
    reason="takes half a minute; CI runs it",
)
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_many_requests_leave_no_memory_file_descriptor_or_thread_behind() -> None:
    counts = ("--requests", str(REQUESTS), "--warm", str(WARM))
    done = subprocess.run(  # noqa: S603  our own command
        [sys.executable, "load_tests/soak.py", *counts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=7200,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"{REQUESTS:,} requests in" in done.stdout
