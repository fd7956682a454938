"""Whether a PNG holds all the lines that its header says: Pillow leaves those that miss black.

And the other way: pixels -> a plain PNG, for examples.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIECE_BYTES = 262_144

_HEADER = struct.Struct(">IIBBBBB")
_HEADER_AT = len(PNG_SIGNATURE) + 8
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = (  # passes of an interlaced picture: first column and line, steps to the next
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def write_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG of pixels, shape (height, width) or (height, width, 3)."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim > 2 else 0
    lines = pixels.reshape(height, -1)
    unfiltered = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1).tobytes()
    header = _HEADER.pack(width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered, 9)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def check_all_lines(content: bytes) -> None:
    """Decompress the lines of a PNG, a piece at a time, and count their bytes.

    Raises:
        EOFError: if there are fewer than the header says.
        Exception: zlib's, struct's or a KeyError, if it is damaged.
    """
    missing_bytes = _bytes_of_lines(content)
    stream = zlib.decompressobj()
    for packed in _packed_lines(content):
        waiting = packed
        while waiting and missing_bytes > 0 and not stream.eof:
            missing_bytes -= len(stream.decompress(waiting, PIECE_BYTES))
            waiting = stream.unconsumed_tail
        if missing_bytes <= 0 or stream.eof:
            break
    if missing_bytes > 0:
        raise EOFError(f"{missing_bytes} bytes of lines miss")


def _bytes_of_lines(content: bytes) -> int:
    width, height, depth, colour, _, _, interlace = _HEADER.unpack_from(content, _HEADER_AT)
    pixel_bits = depth * _CHANNELS[colour]
    size_bytes = 0
    for left, top, right, down in _ADAM7 if interlace else _WHOLE:
        columns, lines = _steps(width - left, right), _steps(height - top, down)
        if columns > 0 and lines > 0:
            size_bytes += lines * (1 + (columns * pixel_bits + 7) // 8)
    return size_bytes


def _steps(length: int, step: int) -> int:
    return -(-length // step)


def _packed_lines(content: bytes) -> Iterator[bytes]:
    """Yield the contents of the chunks of lines, which follow each other."""
    at, has_begun = len(PNG_SIGNATURE), False
    while at + 8 <= len(content):
        size_bytes, name = struct.unpack_from(">I4s", content, at)
        if name == b"IDAT":
            has_begun = True
            yield content[at + 8 : at + 8 + size_bytes]
        elif has_begun:
            return
        at += 12 + size_bytes
