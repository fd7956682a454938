"""Picture files that no encoder writes: odd metadata, too many parts, missing ends."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

ORIENTATION, X_RESOLUTION = 0x0112, 0x011A
ASCII, SHORT = 2, 3


def encoded(picture: Image.Image, file_format: str, **options: object) -> bytes:
    """Return a picture as a file."""
    stream = io.BytesIO()
    picture.save(stream, file_format, **options)
    return stream.getvalue()


def png_chunk(name: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    """Return a chunk of a PNG."""
    right = zlib.crc32(name + content)
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", right if checksum is None else checksum)
    )


def png_with(picture: Image.Image, chunks: bytes) -> bytes:
    """Return a PNG with more chunks behind its header."""
    content = encoded(picture, "PNG")
    return content[:33] + chunks + content[33:]


def exif_block(*entries: tuple[int, int, int, int], order: str = "<") -> bytes:
    """Return an EXIF block of entries: tag, type, count, value."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    body = struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        packed = struct.pack(order + ("HH" if kind == SHORT else "I"), *_values(kind, value))
        body += struct.pack(order + "HHI", tag, kind, count) + packed
    return head + body + struct.pack(order + "I", 0)


def _values(kind: int, value: int) -> tuple[int, ...]:
    return (value, 0) if kind == SHORT else (value,)


def jpeg_with_exif(picture: Image.Image, block: bytes, **options: object) -> bytes:
    """Return a JPEG with an EXIF block as it is, right or not."""
    content = encoded(picture, "JPEG", quality=95, **options)
    body = b"Exif\0\0" + block
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]


def jpeg_of_scans(scans: int, side: int = 64) -> bytes:
    """Return a progressive JPEG whose last scan is repeated until there are so many."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    missing = scans - content.count(b"\xff\xda")
    return content[:-2] + content[last:-2] * missing + content[-2:]


def jpeg_of_segments(segments: int) -> bytes:
    """Return a JPEG with so many comments."""
    content = encoded(Image.new("L", (8, 8)), "JPEG")
    return content[:2] + b"\xff\xfe\x00\x02" * segments + content[2:]


def webp_of_frames(frames: int) -> bytes:
    """Return an animated WebP that says one frame again and again."""
    pictures = [Image.new("L", (8, 8), value) for value in (200, 10)]
    content = encoded(pictures[0], "WEBP", save_all=True, append_images=pictures[1:], lossless=True)
    first = content.index(b"ANMF")
    (size,) = struct.unpack_from("<I", content, first + 4)
    frame = content[first : first + 8 + size + (size & 1)]
    body = content[8:first] + frame * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_with_empty_alpha(picture: Image.Image) -> bytes:
    """Return a BMP as the clipboard of Windows has it: 32 bits, and a fourth byte that is 0."""
    pixels = np.asarray(picture.convert("RGB"))[::-1, :, ::-1]
    rows = np.concatenate([pixels, np.zeros((*pixels.shape[:2], 1), np.uint8)], axis=2).tobytes()
    header = struct.pack(
        "<IiiHHIIiiII", 124, picture.width, picture.height, 1, 32, 3, len(rows), 2835, 2835, 0, 0
    )
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"sRGB"
    header += bytes(124 - len(header))
    return b"BM" + struct.pack("<IHHI", 14 + 124 + len(rows), 0, 0, 14 + 124) + header + rows
