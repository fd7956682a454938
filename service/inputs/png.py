"""PNG files -> the same without metadata, and whether all lines of pixels are there.

Pillow leaves lines that miss black, and refuses a file for metadata that no viewer reads. And the
other way: pixels -> a plain PNG, for examples.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import PayloadTooLarge

MOST_CHUNKS = 10_000
"""Most chunks of a PNG: the largest body in pieces of 1 KiB has fewer."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIECE_BYTES = 262_144

_HEADER = struct.Struct(">IIBBBBB")
_HEADER_AT = len(PNG_SIGNATURE) + 8
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour
_ANCILLARY = 0x20  # bit of a chunk's first letter
_TRANSPARENCY_BYTES = {0: (2, 2), 2: (6, 6), 3: (1, 256)}  # by the type of colour
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


class Png(NamedTuple):
    """A PNG as it is handed to the decoder."""

    content: bytes
    """The file without chunks that say nothing of its pixels, and without further frames."""

    exif: bytes
    """The EXIF block, or nothing."""


def read_png(content: bytes) -> Png:
    """Return a PNG with the chunks that its pixels need, and its EXIF; no pixel is decoded.

    Chunks that a decoder may pass over (PNG, third edition, section 5.4) are left out, whatever is
    in them; of these, transparency is kept if it is sound.

    Raises:
        PayloadTooLarge: if it has more chunks than any picture needs.
        Exception: a struct.error, if there is no header.
    """
    colour = _HEADER.unpack_from(content, _HEADER_AT)[3]
    kept, exif = [PNG_SIGNATURE], b""
    has_lines = lines_ended = False
    for count, (name, start, end) in enumerate(_chunks(content)):
        if count >= MOST_CHUNKS:
            raise PayloadTooLarge("the PNG", MOST_CHUNKS, "chunks")
        lines_ended = lines_ended or (has_lines and name != b"IDAT")
        has_lines = has_lines or name == b"IDAT"
        if name == b"eXIf":
            exif = exif or content[start + 8 : end - 4]
        elif name == b"tRNS":
            if _is_sound_transparency(content, start, end, colour):
                kept.append(content[start:end])
        elif not (name[0] & _ANCILLARY or (name == b"IDAT" and lines_ended)):
            kept.append(content[start:end])
    return Png(b"".join(kept), exif)


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk up to the last."""
    at, name = len(PNG_SIGNATURE), b""
    while at + 8 <= len(content) and name != b"IEND":
        size_bytes, name = struct.unpack_from(">I4s", content, at)
        yield name, at, at + 12 + size_bytes
        at += 12 + size_bytes


def _is_sound_transparency(content: bytes, start: int, end: int, colour: int) -> bool:
    least, most = _TRANSPARENCY_BYTES.get(colour, (0, -1))
    name_and_value, checksum = content[start + 4 : end - 4], content[end - 4 : end]
    is_whole = checksum == struct.pack(">I", zlib.crc32(name_and_value))
    return is_whole and least <= end - start - 12 <= most


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
    has_begun = False
    for name, start, end in _chunks(content):
        if name == b"IDAT":
            has_begun = True
            yield content[start + 8 : end - 4]
        elif has_begun:
            return
