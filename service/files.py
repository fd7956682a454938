"""Files of the operator, read without waiting: a FIFO or a device would never end."""

import errno
import os
import stat
from pathlib import Path

MEBIBYTE = 1024 * 1024
MOST_TEXT_BYTES = 16 * MEBIBYTE
"""Largest file of settings, keys or facts; a hundred times the largest that we know of."""


def read_regular(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """Return the content of a regular file, or of one that a link leads to.

    Raises:
        OSError: if it cannot be read, is no regular file, or is larger; `strerror` says which.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a NUL in the name
        raise OSError(errno.EINVAL, "no name of a file", str(path)) from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes", str(path))
    return content
