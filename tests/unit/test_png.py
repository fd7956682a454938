import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from service.inputs.png import PNG_SIGNATURE, check_all_lines, write_png

SIDE = 9
"""Odd, so that passes of interlaced pictures and bits of packed ones do not come out even."""


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(
    lines: bytes, depth: int = 8, colour: int = 0, interlace: int = 0, pieces: int = 1
) -> bytes:
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, interlace)
    packed = zlib.compress(lines)
    step = -(-len(packed) // pieces)
    parts = [packed[start : start + step] for start in range(0, len(packed), step)]
    palette = [chunk(b"PLTE", bytes(768))] if colour == 3 else []
    chunks = [chunk(b"IHDR", header), *palette, *(chunk(b"IDAT", part) for part in parts)]
    return PNG_SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def lines_of(depth: int, channels: int) -> bytes:
    return bytes((1 + (SIDE * depth * channels + 7) // 8) * SIDE)


def interlaced_lines() -> bytes:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    firsts: Sequence[tuple[int, int, int, int]] = (
        *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
        *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
    )
    passes = [pixels[top::down, left::right] for top, left, down, right in firsts]
    return b"".join(b"\0" + line.tobytes() for each in passes for line in each if line.size)


WHOLE = {
    "grey": (lines_of(8, 1), {}),
    "one bit": (lines_of(1, 1), {"depth": 1}),
    "palette of four": (lines_of(2, 1), {"depth": 2, "colour": 3}),
    "sixteen bits, colour, transparent": (lines_of(16, 4), {"depth": 16, "colour": 6}),
    "grey, transparent": (lines_of(8, 2), {"colour": 4}),
    "interlaced": (interlaced_lines(), {"interlace": 1}),
    "in pieces": (lines_of(8, 1), {"pieces": 5}),
}


@pytest.mark.parametrize(("lines", "options"), WHOLE.values(), ids=WHOLE)
def test_picture_with_all_its_lines_is_whole_and_one_byte_less_is_not(
    lines: bytes, options: dict[str, int]
) -> None:
    picture = png(lines, **options)
    Image.open(io.BytesIO(picture)).load()

    check_all_lines(picture)

    with pytest.raises(EOFError):
        check_all_lines(png(lines[:-1], **options))


def test_what_follows_the_lines_is_not_looked_at() -> None:
    check_all_lines(png(lines_of(8, 1) + bytes(10_000_000)))


def test_lines_behind_another_chunk_do_not_count() -> None:
    whole = png(lines_of(8, 1), pieces=2)
    second = whole.rindex(b"IDAT") - 4

    with pytest.raises(EOFError):
        check_all_lines(whole[:second] + chunk(b"tEXt", b"k\0v") + whole[second:])


@pytest.mark.parametrize("size", range(0, 40, 3))
def test_picture_that_ends_early_is_no_picture(size: int) -> None:
    with pytest.raises((EOFError, struct.error)):
        check_all_lines(png(lines_of(8, 1))[:size])


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)], ids=["grey", "colour"])
def test_written_pixels_are_read_back_by_another_decoder(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)

    content = write_png(pixels)

    check_all_lines(content)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
