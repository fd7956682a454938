"""Binary arrays -> rows; the header is checked against the bytes that are there."""

import io
import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import InputInvalid

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_KINDS = "uifb"
_MAX_HEADER_BYTES = 1024


def read_npy(body: bytes, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Return the array of an .npy file as rows, shape (rows, *shape); one bare row is one row.

    Nothing is ever unpickled, and nothing is allocated on the word of the header.

    Raises:
        InputInvalid: if it is no .npy file, or of another dtype or shape.
    """
    header = _read_header(body[: min(_header_bytes(body), _MAX_HEADER_BYTES)])
    found, dtype = header.shape, header.dtype
    content = memoryview(body)[header.size :]
    declared_bytes = math.prod(found) * dtype.itemsize
    if declared_bytes != len(content):
        raise InputInvalid("body", f"{declared_bytes} bytes of data", f"{len(content)}")
    rows = _as_rows(found, shape)
    flat = numbers_of(content, dtype)
    return flat.reshape(found, order="F" if header.is_fortran else "C").reshape(rows, *shape)


def numbers_of(content: memoryview, dtype: np.dtype[Any]) -> NDArray[np.generic]:
    """Return the numbers in memory, without a copy; a truth is any byte but 0."""
    if dtype.kind == "b":
        return np.not_equal(np.frombuffer(content, np.uint8), 0)
    return np.frombuffer(content, dtype)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    size: int
    """Bytes of the file before its data."""


def _header_bytes(body: bytes) -> int:
    """Return where the header ends, by its own word."""
    if body[6:7] == b"\x01":
        return 10 + int.from_bytes(body[8:10], "little")
    return 12 + int.from_bytes(body[8:12], "little")


@lru_cache(maxsize=256)
def _read_header(content: bytes) -> _Header:
    """Return what a header says; most requests for a model have the same.

    Raises:
        InputInvalid: if it is none, or not of numbers.
    """
    stream = io.BytesIO(content)
    try:
        read_header = _HEADER_READERS[np.lib.format.read_magic(stream)]
        shape, is_fortran, dtype = read_header(stream, max_header_size=_MAX_HEADER_BYTES)
    except Exception:  # noqa: BLE001  the header is Python text, and hostile text fails anyhow
        raise InputInvalid("body", "an .npy file of version 1 or 2", "something else") from None
    if any(type(length) is not int or length < 0 for length in shape):
        raise InputInvalid("body", "a shape of whole numbers", f"shape {shape}")
    if dtype.kind not in _KINDS:
        raise InputInvalid("body", "an array of numbers", f"dtype {dtype}")
    return _Header(shape, is_fortran, dtype, stream.tell())


def _as_rows(found: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Return how many rows an array of that shape holds; an axis of one channel may be there."""
    if found in (shape, (*shape, 1)):
        return 1
    if found[1:] in (shape, (*shape, 1)) and found[0] > 0:
        return found[0]
    expected = f"shape (rows, {', '.join(str(length) for length in shape)})"
    raise InputInvalid("body", expected, f"shape {found}")
