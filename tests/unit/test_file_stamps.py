import os
import time
from pathlib import Path

import pytest

from service.prediction.file_stamps import stamps_of

CLOCK_S = 0.02
"""More than a tick of the clock that file systems tell times by."""


@pytest.mark.parametrize("content", [b"other", b"longer than before"], ids=["size kept", "longer"])
def test_file_that_is_written_in_place_with_its_time_kept_is_seen(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(b"first")
    status, before = path.stat(), stamps_of([path])
    time.sleep(CLOCK_S)

    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (status.st_mtime_ns, status.st_ino)
    assert stamps_of([path]) != before


def test_file_that_nobody_touched_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(b"first")

    assert stamps_of([path, tmp_path / "absent"]) == stamps_of([path])
