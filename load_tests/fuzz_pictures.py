"""Small sound pictures of every kind that a decoder tells apart, to be damaged."""

import io
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from fuzz_mutations import chunks_of, mangled, png_mangled, png_of
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

MEDIA_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "bmp": "image/bmp",
}
_ROTATED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


@cache
def pictures(kind: str) -> tuple[bytes, ...]:
    """Return sound pictures of one format; the first is what callers send most."""
    return tuple(_KINDS[kind]())


def damaged(rng: random.Random, kind: str) -> bytes:
    """Return a picture of one format, sound once in a while, damaged mostly."""
    picture = rng.choice(pictures(kind))
    dice = rng.random()
    if dice < 0.05:
        return picture
    if kind == "png" and dice < 0.6:
        return png_mangled(rng, picture)
    if dice < 0.1:
        return picture + rng.choice(pictures(rng.choice(list(MEDIA_TYPES))))
    return mangled(rng, picture)


def _drawn(mode: str, size: tuple[int, int] = (28, 28)) -> Image.Image:
    values = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 4), np.uint8)
    picture = (
        Image.fromarray(values, "RGBA") if mode == "RGBA" else Image.fromarray(values[..., :3])
    )
    return picture if mode in ("RGB", "RGBA") else picture.convert(mode)


def _saved(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, file_format, **options)
    return stream.getvalue()


def _pngs() -> list[bytes]:
    texts = PngInfo()
    texts.add_text("k", "v" * 500, zip=True)
    texts.add_itxt("k", "v" * 500, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28) * 80
    grey = _saved(_drawn("L"), "PNG")
    return [
        grey,
        *(_saved(_drawn(mode), "PNG") for mode in ("RGB", "RGBA", "LA", "P", "1")),
        _saved(_drawn("P"), "PNG", transparency=3),
        _saved(_drawn("P"), "PNG", transparency=bytes(range(200))),
        _saved(_drawn("L"), "PNG", transparency=9),
        _saved(_drawn("RGB"), "PNG", transparency=(1, 2, 3)),
        _saved(_drawn("P").quantize(4), "PNG", bits=2),
        _saved(Image.fromarray(wide), "PNG"),
        _saved(_drawn("L"), "PNG", pnginfo=texts),
        _saved(_drawn("RGB"), "PNG", icc_profile=profile, exif=_ROTATED),
        _saved(_drawn("L"), "PNG", save_all=True, append_images=[Image.new("L", (28, 28), 9)] * 2),
        _saved(_drawn("L", (1, 1)), "PNG"),
        _saved(_drawn("L", (400, 4)), "PNG"),
        _saved(_drawn("L", (200, 150)), "PNG"),
        _interlaced(_drawn("L")),
        _with_header(grey, {12: 1}),  # interlaced, by its own word
        _with_header(grey, {8: 16}),
        _saved(Image.new("L", (3000, 3000)), "PNG"),
    ]


def _with_header(picture: bytes, changes: dict[int, int]) -> bytes:
    (name, header), *others = chunks_of(picture)
    changed = bytearray(header)
    for at, value in changes.items():
        changed[at] = value
    return png_of([(name, bytes(changed)), *others])


def _interlaced(picture: Image.Image) -> bytes:
    """Return a grey PNG in Adam7's seven passes, which Pillow reads but does not write."""
    pixels = np.asarray(picture)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    lines = [
        b"\0" + line.tobytes()
        for top, left, down, right in (*passes, (1, 0, 2, 1))
        for line in pixels[top::down, left::right]
    ]
    header = struct.pack(">IIBBBBB", *picture.size, 8, 0, 0, 0, 1)
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")])


def _jpegs() -> list[bytes]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return [
        *(_saved(_drawn(mode), "JPEG") for mode in ("L", "RGB", "CMYK")),
        _saved(_drawn("RGB"), "JPEG", progressive=True),
        _saved(_drawn("RGB"), "JPEG", exif=_ROTATED, icc_profile=profile),
        _saved(_drawn("L"), "JPEG", exif=_ROTATED, quality=100),
        _saved(_drawn("RGB", (120, 90)), "JPEG", subsampling=2, restart_marker_blocks=2),
        _saved(_drawn("L", (1, 1)), "JPEG"),
        _saved(_drawn("L", (400, 4)), "JPEG", optimize=True),
        _saved(_drawn("RGB"), "JPEG", comment=b"c" * 300),
    ]


def _webps() -> list[bytes]:
    frames = [_drawn("RGB"), _drawn("RGBA").convert("RGB"), Image.new("RGB", (28, 28), "red")]
    return [
        _saved(_drawn("RGB"), "WEBP"),
        _saved(_drawn("RGB"), "WEBP", lossless=True),
        _saved(_drawn("RGBA"), "WEBP"),
        _saved(_drawn("RGBA"), "WEBP", lossless=True, exif=_ROTATED),
        _saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=20),
        _saved(_drawn("RGB", (1, 1)), "WEBP"),
        _saved(_drawn("RGB", (100, 70)), "WEBP", quality=10, method=0),
    ]


def _bmps() -> list[bytes]:
    colour = _saved(_drawn("RGB"), "BMP")
    upside_down = colour[:22] + struct.pack("<i", -28) + colour[26:]
    packed = _saved(_drawn("P"), "BMP")
    runs = packed[:30] + struct.pack("<I", 1) + packed[34:]
    return [
        *(_saved(_drawn(mode), "BMP") for mode in ("L", "RGB", "RGBA", "P", "1")),
        upside_down,
        runs,
        _saved(_drawn("RGB"), "DIB"),
        _saved(_drawn("L", (1, 1)), "BMP"),
    ]


_KINDS = {"png": _pngs, "jpeg": _jpegs, "webp": _webps, "bmp": _bmps}
