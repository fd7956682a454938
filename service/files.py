"""Files of the operator, read without waiting: a FIFO or a device would never end."""

import errno
import os
import stat
import tomllib
from io import BufferedReader
from pathlib import Path
from typing import Any

MEBIBYTE = 1024 * 1024
MOST_TEXT_BYTES = 16 * MEBIBYTE
"""Largest file of settings, keys or facts; a hundred times the largest that we know of."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file, or one that a link leads to, for reading.

    Raises:
        OSError: if it cannot be opened or is no regular file; `strerror` says which.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a NUL in the name, or half a character
        raise OSError(errno.EINVAL, "no name of a file", str(path)) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a file of TOML in UTF-8, with or without a byte order mark.

    Raises:
        OSError: as `read_regular` does.
        ValueError: if it is no TOML; says what is wrong.
    """
    try:
        return tomllib.loads(read_regular(path).decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def read_regular(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """Return the content of a regular file, or of one that a link leads to.

    Raises:
        OSError: if it cannot be read, is no regular file, or is larger; `strerror` says which.
    """
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes", str(path))
    return content
