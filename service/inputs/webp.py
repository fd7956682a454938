"""WebP files -> the first frame, decoded at a reduced size by libwebp.

Pillow decodes WebP at full size only, into four copies of the canvas: 16 bytes a pixel. The library
below it can scale while it decodes. This module calls libwebp for that, in the copy that Pillow
loads. The structures are those of `decode.h` of libwebp, which checks their version.
"""

import ctypes
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, _webp

from service.errors import PayloadTooLarge

MOST_FRAMES = 1024
"""Most frames of an animated WebP; only the first is read."""

MOST_CHUNKS = 4096
"""Most chunks of a WebP."""

_ABI_VERSION = 0x0209  # libwebp refuses structures of another major version
_RGB, _RGBA = 0, 1
_LOSSY, _LOSSLESS = b"VP8 ", b"VP8L"
_EXTENDED = struct.Struct("<B3xHBHB")
_FRAME_HEAD_BYTES = 16

_Chunks = Iterator[tuple[bytes, int, int]]


class _Features(ctypes.Structure):
    _fields_ = (
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("has_alpha", ctypes.c_int),
        ("has_animation", ctypes.c_int),
        ("format", ctypes.c_int),
        ("pad", ctypes.c_uint32 * 5),
    )


class _Rgba(ctypes.Structure):
    _fields_ = (
        ("rgba", ctypes.c_void_p),
        ("stride", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


class _Yuva(ctypes.Structure):
    _fields_ = (
        ("planes", ctypes.c_void_p * 4),
        ("strides", ctypes.c_int * 4),
        ("sizes", ctypes.c_size_t * 4),
    )


class _Pixels(ctypes.Union):
    _fields_ = (("rgba", _Rgba), ("yuva", _Yuva))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("colorspace", ctypes.c_int),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("is_external_memory", ctypes.c_int),
        ("u", _Pixels),
        ("pad", ctypes.c_uint32 * 4),
        ("private_memory", ctypes.c_void_p),
    )


class _Options(ctypes.Structure):
    _fields_ = (
        ("bypass_filtering", ctypes.c_int),
        ("no_fancy_upsampling", ctypes.c_int),
        ("use_cropping", ctypes.c_int),
        ("crop", ctypes.c_int * 4),
        ("use_scaling", ctypes.c_int),
        ("scaled_width", ctypes.c_int),
        ("scaled_height", ctypes.c_int),
        ("use_threads", ctypes.c_int),
        ("dithering_strength", ctypes.c_int),
        ("flip", ctypes.c_int),
        ("alpha_dithering_strength", ctypes.c_int),
        ("pad", ctypes.c_uint32 * 5),
    )


class _Config(ctypes.Structure):
    _fields_ = (("input", _Features), ("output", _Buffer), ("options", _Options))


_library = ctypes.CDLL(_webp.__file__)


class Webp(NamedTuple):
    """What the chunks of a WebP say."""

    size: tuple[int, int]
    """Width and height of the canvas."""

    frame: bytes
    """The first frame, as a WebP of its own."""

    frame_size: tuple[int, int]
    at: tuple[int, int]
    """Where the frame lies on the canvas: left, top."""

    exif: bytes
    """The EXIF block, or nothing."""

    @property
    def decoding_bytes(self) -> int:
        """Memory that libwebp needs beside the pixels that it returns."""
        width, height = self.frame_size
        is_lossless = self.frame.startswith(_LOSSLESS, 12) or self.frame.startswith(b"ALPH", 30)
        return 5 * width * height if is_lossless else 64 * width


def read_webp(content: bytes) -> Webp:
    """Return what a WebP's chunks say; no pixel is decoded.

    Raises:
        PayloadTooLarge: if it has more chunks or frames than any picture needs.
        Exception: a struct.error, ValueError or IndexError, if it is damaged.
    """
    chunks = _chunks(content, 12)
    name, start, _ = next(chunks)
    if name != b"VP8X":
        size = _size_of(name, content, start)
        return Webp(size, content, size, (0, 0), b"")
    _, low, high, lower, higher = _EXTENDED.unpack_from(content, start + 8)
    size = (low + (high << 16) + 1, lower + (higher << 16) + 1)
    return _read_extended(content, size, chunks)


def decode(webp: Webp, factor: int) -> Image.Image:
    """Return the first frame on its canvas, both sides divided by `factor`, RGB or RGBA.

    Raises:
        ValueError: if the frame does not decode.
    """
    width, height = (-(-side // factor) for side in webp.frame_size)
    frame = Image.fromarray(_scaled(webp.frame, width, height))
    if webp.frame_size == webp.size:
        return frame
    canvas = Image.new("RGBA", (-(-webp.size[0] // factor), -(-webp.size[1] // factor)))
    canvas.paste(frame, (webp.at[0] // factor, webp.at[1] // factor))
    return canvas


def _read_extended(content: bytes, size: tuple[int, int], chunks: _Chunks) -> Webp:
    frames = 0
    exif = alpha = still = b""
    first: Webp | None = None
    for name, start, end in chunks:
        if name == b"ANMF":
            frames += 1
            if frames > MOST_FRAMES:
                raise PayloadTooLarge("the WebP", MOST_FRAMES, "frames")
            first = first or _frame(content, start + 8, end, size)
        elif name == b"ALPH":
            alpha = alpha or content[start:end]
        elif name in (_LOSSY, _LOSSLESS):
            still = still or content[start:end]
        elif name == b"EXIF":
            exif = exif or content[start + 8 : end]
    if first is not None:
        return first._replace(exif=exif)
    return Webp(size, _still(alpha, still, size), size, (0, 0), exif)


def _frame(content: bytes, start: int, end: int, canvas: tuple[int, int]) -> Webp:
    left, top, width, height = (
        int.from_bytes(content[at : at + 3], "little") for at in range(start, start + 12, 3)
    )
    alpha = still = b""
    for name, first, last in _chunks(content[:end], start + _FRAME_HEAD_BYTES):
        if name == b"ALPH":
            alpha = alpha or content[first:last]
        elif name in (_LOSSY, _LOSSLESS):
            still = still or content[first:last]
    size = (width + 1, height + 1)
    at = (2 * left, 2 * top)
    if at[0] + size[0] > canvas[0] or at[1] + size[1] > canvas[1]:
        raise ValueError("the first frame does not lie on the canvas")
    return Webp(canvas, _still(alpha, still, size), size, at, b"")


def _still(alpha: bytes, still: bytes, size: tuple[int, int]) -> bytes:
    """Return a WebP of one frame, without metadata."""
    if _size_of(still[:4], still, 0) != size:
        raise ValueError("the frame has another size than its picture")
    chunks = still
    if alpha and still.startswith(_LOSSY):
        width, height = size[0] - 1, size[1] - 1
        flags = 0x10  # alpha
        head = _EXTENDED.pack(flags, width & 0xFFFF, width >> 16, height & 0xFFFF, height >> 16)
        chunks = b"VP8X" + struct.pack("<I", len(head)) + head + alpha + still
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _size_of(name: bytes, content: bytes, start: int) -> tuple[int, int]:
    """Return width and height by the head of a frame's own chunk, which begins at `start`."""
    if name == _LOSSY:
        width, height = struct.unpack_from("<HH", content, start + 14)
        return width & 0x3FFF, height & 0x3FFF
    if name == _LOSSLESS:
        (bits,) = struct.unpack_from("<I", content, start + 9)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    raise ValueError(f"a WebP without a picture, but {name!r}")


def _chunks(content: bytes, at: int) -> _Chunks:
    """Yield name, start and end of each chunk; of the last one what is there."""
    for _ in range(MOST_CHUNKS):
        if at + 8 > len(content):
            return
        name, size_bytes = struct.unpack_from("<4sI", content, at)
        end = at + 8 + size_bytes + (size_bytes & 1)
        yield name, at, end
        at = end
    raise PayloadTooLarge("the WebP", MOST_CHUNKS, "chunks")


def _scaled(content: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """Return the pixels of a still WebP, scaled, shape (height, width, 3 or 4)."""
    config = _Config()
    if not _library.WebPInitDecoderConfigInternal(ctypes.byref(config), _ABI_VERSION):
        raise ValueError("this libwebp has another interface")
    size = ctypes.c_size_t(len(content))
    features = ctypes.byref(config.input)
    if _library.WebPGetFeaturesInternal(content, size, features, _ABI_VERSION):
        raise ValueError("no WebP")
    channels = 4 if config.input.has_alpha else 3
    pixels = np.empty((height, width, channels), np.uint8)
    config.output.colorspace = _RGBA if channels == 4 else _RGB
    config.output.is_external_memory = 1
    config.output.u.rgba = _Rgba(pixels.ctypes.data, pixels.strides[0], pixels.nbytes)
    if (config.input.width, config.input.height) != (width, height):
        config.options.use_scaling = 1
        config.options.scaled_width, config.options.scaled_height = width, height
    if _library.WebPDecode(content, size, ctypes.byref(config)):
        raise ValueError("a WebP that does not decode")
    return pixels
