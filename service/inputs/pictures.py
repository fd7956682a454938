"""Encoded pictures of any size and mode -> pixels of the model's shape.

Only four formats are ever opened. The size in the header is checked before a pixel is decoded, and
so is the work that the file asks for: scans, chunks, frames. Large pictures are decoded at reduced
size or reduced strip by strip, so that memory follows the model's size where the format allows it.
Every failure of a decoder becomes one client error: pictures are the most hostile input there is.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.bundle.manifest import ImageInput
from service.errors import DunnoError, InputInvalid, PayloadTooLarge, PictureUnreadable
from service.inputs import webp
from service.inputs.budget import Lease
from service.inputs.exif import orientation
from service.inputs.jpeg import END, JPEG_SIGNATURE, Jpeg, read_jpeg
from service.inputs.payload import InputLimits
from service.inputs.png import PNG_SIGNATURE, check_all_lines, read_png

FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
}
MIN_SIDE = 4
MAX_ASPECT = 100

MOST_RUN_PIXELS = 4_194_304
"""Most pixels of a run-length encoded BMP: Pillow reads these one by one, in Python."""

MOST_RUN_BYTES = 2_097_152
"""Most bytes of one, for the same reason."""

# Pillow's warnings about a picture are of no use, and Python would remember each sentence.
warnings.filterwarnings("ignore", module=r"PIL\.")

_SPARE = 4  # a picture is shrunk to no less than so many times the model's size before it is fitted
_STRIP_PIXELS = 262_144
_RUN_LENGTHS = (1, 2)  # values of a BMP's field `compression`
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}  # Pillow's memory by pixel; else 4
_JUNK = bytes(range(1, 255)) * 8
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureBudget:
    """Pixels that one request may still have decoded, and the memory for it."""

    def __init__(self, limits: InputLimits, lease: Lease | None) -> None:
        self._limits = limits
        self._lease = lease
        self._left = limits.max_request_pixels

    def spend(self, size: tuple[int, int], place: str) -> None:
        """Take a picture's pixels, by its header, or refuse it before one is decoded."""
        _check_size(size, self._limits, place)
        self._left -= size[0] * size[1]
        if self._left < 0:
            cap = self._limits.max_request_pixels
            raise PayloadTooLarge(f"{place}: the pictures up to here", cap, "pixels")

    def excess(self, place: str) -> PayloadTooLarge:
        """Return the failure of a picture whose header the decoder itself finds too large."""
        return PayloadTooLarge(f"{place}: the picture", self._limits.max_picture_pixels, "pixels")

    def memory(self, need_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Count memory for the time of a `with` block, and wait for it if it must be."""
        return contextlib.nullcontext() if self._lease is None else self._lease.taking(need_bytes)


def read_picture(
    content: bytes, declared: ImageInput, budget: PictureBudget, place: str
) -> NDArray[np.uint8]:
    """Return the pixels of a picture, upright, in the size and channels that a model declares.

    Args:
        content: the file.
        declared: what the model takes.
        budget: of the request.
        place: what the picture is called in messages.

    Returns:
        Shape (height, width) or (height, width, 3).

    Raises:
        PictureUnreadable: naming `place`, whatever the decoder's own failure was.
        PayloadTooLarge: if it has too many pixels, or asks for too much work.
        DeadlineExceeded: if the request was abandoned before there was memory.
    """
    try:
        return _read(content, declared, budget, place)
    except PayloadTooLarge as error:
        if error.what.startswith(place):
            raise
        raise PayloadTooLarge(f"{place}: {error.what}", error.cap, error.unit) from None
    except DunnoError:
        raise
    except Image.DecompressionBombError:
        raise budget.excess(place) from None
    except Exception:  # noqa: BLE001  hostile bytes reach every branch of a decoder
        expected = f"a picture ({', '.join(FORMATS.values())})"
        got = f"{len(content)} bytes that do not decode"
        raise PictureUnreadable(place, expected, got) from None


def fitted(picture: Image.Image, declared: ImageInput) -> NDArray[np.uint8]:
    """Return the pixels of a picture of mode L or RGB in the declared height and width."""
    size = (declared.width, declared.height)
    if picture.size != size:
        bilinear = Image.Resampling.BILINEAR
        if declared.fit == "stretch":
            picture = picture.resize(size, bilinear)
        else:
            background = _median_of_border(picture)
            picture = ImageOps.pad(picture, size, bilinear, color=background)
    shape = (picture.height, picture.width, 3 if picture.mode == "RGB" else 1)
    pixels = np.frombuffer(picture.tobytes(), np.uint8).reshape(shape)
    return pixels if picture.mode == "RGB" else pixels[:, :, 0]


def _read(
    content: bytes, declared: ImageInput, budget: PictureBudget, place: str
) -> NDArray[np.uint8]:
    if content.startswith(PNG_SIGNATURE):
        return _read_png(content, declared, budget, place)
    if content.startswith(JPEG_SIGNATURE):
        return _read_jpeg(content, declared, budget, place)
    if content.startswith(b"RIFF"):
        return _read_webp(content, declared, budget, place)
    return _read_bmp(content, declared, budget, place)


def _read_png(
    content: bytes, declared: ImageInput, budget: PictureBudget, place: str
) -> NDArray[np.uint8]:
    png = read_png(content)
    with _opened(png.content, "PNG") as picture:
        budget.spend(picture.size, place)
        with budget.memory(_need_bytes(picture, declared)):
            check_all_lines(png.content)
            picture.load()
            return _finished(picture, declared, orientation(png.exif))


def _read_jpeg(
    content: bytes, declared: ImageInput, budget: PictureBudget, place: str
) -> NDArray[np.uint8]:
    jpeg = read_jpeg(content)
    with _opened(jpeg.content, "JPEG") as picture:
        budget.spend(picture.size, place)
        _draft(picture, declared)
        with budget.memory(jpeg.coefficient_bytes + 2 * _need_bytes(picture, declared)):
            loaded = picture if jpeg.has_end else _without_end(jpeg, declared)
            loaded.load()
            return _finished(loaded, declared, orientation(jpeg.exif))


def _read_webp(
    content: bytes, declared: ImageInput, budget: PictureBudget, place: str
) -> NDArray[np.uint8]:
    picture = webp.read_webp(content)
    budget.spend(picture.size, place)
    factor = _factor(picture.size, declared)
    width, height = picture.size
    need_bytes = picture.decoding_bytes + 16 * width * height // factor**2
    with budget.memory(need_bytes):
        return _finished(webp.decode(picture, factor), declared, orientation(picture.exif))


def _read_bmp(
    content: bytes, declared: ImageInput, budget: PictureBudget, place: str
) -> NDArray[np.uint8]:
    with _opened(content, "BMP") as picture:
        budget.spend(picture.size, place)
        if picture.info.get("compression") in _RUN_LENGTHS:
            _check_runs(content, picture.size)
        with budget.memory(_need_bytes(picture, declared)):
            picture.load()
            # Windows leaves the fourth byte 0 where there is no transparency.
            is_opaque = picture.mode == "RGBA" and not picture.getchannel("A").getbbox()
            return _finished(picture, declared, 1, is_opaque=is_opaque)


def _opened(content: bytes, file_format: str) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=(file_format,))


def _draft(picture: Image.Image, declared: ImageInput) -> None:
    """Let the decoder of JPEG leave out what the model is too small for."""
    mode = "L" if declared.channels == 1 else "RGB"
    picture.draft(mode, (declared.width * 2, declared.height * 2))


def _without_end(jpeg: Jpeg, declared: ImageInput) -> Image.Image:
    """Return a JPEG whose end marker misses, if nothing else does.

    The decoder fills in what misses with zeros and says nothing. So the file is decoded with two
    different ends: if the pixels are the same, none of them came from what was added.

    Raises:
        EOFError: if a part of the picture misses.
    """
    found = []
    for tail in (END, _JUNK + END):
        picture = _opened(jpeg.content + tail, "JPEG")
        _draft(picture, declared)
        picture.load()
        found.append(picture)
    if found[0].tobytes() != found[1].tobytes():
        raise EOFError("a part of the picture misses")
    return found[0]


def _check_runs(content: bytes, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MOST_RUN_PIXELS:
        raise PayloadTooLarge("the run-length encoded BMP", MOST_RUN_PIXELS, "pixels")
    if len(content) > MOST_RUN_BYTES:
        raise PayloadTooLarge("the run-length encoded BMP", MOST_RUN_BYTES, "bytes")


def _need_bytes(picture: Image.Image, declared: ImageInput) -> int:
    """Return the memory that a picture takes: as it is decoded, and what is made of it."""
    pixels = picture.width * picture.height
    factor = _factor(picture.size, declared)
    return pixels * _MODE_BYTES.get(picture.mode, 4) + 16 * pixels // factor**2


def _factor(size: tuple[int, int], declared: ImageInput) -> int:
    """Return by how much both sides of a picture are divided before it is fitted."""
    return max(1, min(size) // (max(declared.height, declared.width) * _SPARE))


def _finished(
    picture: Image.Image, declared: ImageInput, turn: int, *, is_opaque: bool = False
) -> NDArray[np.uint8]:
    """Return the pixels of a picture that is decoded."""
    convert = _opaque if is_opaque else _in_plain_mode
    shrunk = _in_strips(picture, _factor(picture.size, declared), convert)
    if turn in _TURNS:
        shrunk = shrunk.transpose(_TURNS[turn])
    if shrunk.has_transparency_data:
        shrunk = _on_contrasting_ground(shrunk)
    return fitted(shrunk.convert("L" if declared.channels == 1 else "RGB"), declared)


def _in_strips(
    picture: Image.Image, factor: int, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Return a picture converted, and its sides divided by `factor`, a few lines at a time."""
    whole: Image.Image | None = None
    size = (-(-picture.width // factor), -(-picture.height // factor))
    for top, bottom in _strips(picture.size, factor):
        part = convert(picture.crop((0, top, picture.width, bottom)))
        part = part.reduce(factor) if factor > 1 else part
        whole = whole or Image.new(part.mode, size)
        whole.paste(part, (0, top // factor))
    if whole is None:
        raise ValueError("a picture without lines")
    return whole


def _strips(size: tuple[int, int], factor: int = 1) -> Iterator[tuple[int, int]]:
    """Yield first line and end of each strip; all but the last have a multiple of `factor`."""
    width, height = size
    lines = max(1, _STRIP_PIXELS // (width * factor)) * factor
    for top in range(0, height, lines):
        yield top, min(height, top + lines)


def _in_plain_mode(picture: Image.Image) -> Image.Image:
    """Return a picture in mode L, RGB, RGBA or CMYK."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_16_bit(picture)
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture if picture.mode in ("L", "RGB", "CMYK") else picture.convert("RGB")


def _opaque(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB")


def _from_16_bit(picture: Image.Image) -> Image.Image:
    values = np.clip(np.asarray(picture), 0, 65_535).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _on_contrasting_ground(picture: Image.Image) -> Image.Image:
    """Lay what is drawn on white, or on black if it is light itself."""
    weighted = opacity = 0.0
    boxes = [(0, top, picture.width, bottom) for top, bottom in _strips(picture.size)]
    for box in boxes:
        part = picture.crop(box)
        alpha = np.asarray(part.getchannel("A"), np.float32)
        weighted += float((np.asarray(part.convert("RGB").convert("L"), np.float32) * alpha).sum())
        opacity += float(alpha.sum())
    colour = "black" if weighted > 127.5 * opacity else "white"
    whole = Image.new("RGB", picture.size)
    for box in boxes:
        part = picture.crop(box)
        ground = Image.new("RGBA", part.size, colour)
        whole.paste(Image.alpha_composite(ground, part).convert("RGB"), box[:2])
    return whole


def _median_of_border(picture: Image.Image) -> tuple[int, ...]:
    width, height = picture.size
    edges = ((0, 0, width, 1), (0, height - 1, width, height))
    sides = ((0, 0, 1, height), (width - 1, 0, width, height))
    lines = [np.asarray(picture.crop(box)) for box in (*edges, *sides)]
    channels = len(picture.getbands())
    border = np.concatenate([line.reshape(-1, channels) for line in lines])
    return tuple(int(value) for value in np.median(border, axis=0))


def _check_size(size: tuple[int, int], limits: InputLimits, place: str) -> None:
    longest, shortest = max(size), min(size)
    if longest * shortest > limits.max_picture_pixels:
        raise PayloadTooLarge(f"{place}: the picture", limits.max_picture_pixels, "pixels")
    if longest > limits.max_picture_side:
        raise PayloadTooLarge(f"{place}: the picture's side", limits.max_picture_side, "pixels")
    if shortest < MIN_SIDE or longest > shortest * MAX_ASPECT:
        expected = f"sides of at least {MIN_SIDE} pixels, at most {MAX_ASPECT} times each other"
        raise InputInvalid(place, expected, f"{size[0]} x {size[1]}")
