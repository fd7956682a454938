"""Pictures of any size and mode -> rows of the model's shape, values 0-255.

Only four formats are ever opened, the header's size is checked before a pixel is decoded, and every
failure of the decoder becomes one client error: pictures are the most hostile input there is.
"""

import io
import struct
import warnings
from typing import Any

import numpy as np
from kornia_rs.io import decode_image_png_u8
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.bundle.manifest import ImageInput, row_shape
from service.errors import ClientError, InputInvalid, PayloadTooLarge, PictureUnreadable
from service.inputs.multipart import read_parts
from service.inputs.numbers import quick_rows, read_base64, read_instances, read_numbers
from service.inputs.payload import (
    LIGHT_BYTES,
    LIGHT_NPY_BYTES,
    Decoded,
    InputLimits,
    Payload,
    collect,
    refuse_too_many,
    unsupported,
)
from service.inputs.png import PNG_SIGNATURE, check_all_lines
from service.inputs.tensors import read_npy

FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
}
PICTURE_FIELD = "image"
MIN_SIDE = 4
MAX_ASPECT = 100
LIGHT_PIXELS = 65_536
LARGEST_PIXEL = 255
LONGEST_KEY = 32  # bytes; no string begins behind them: numbers only, no picture in base64
# Nobody reads what Pillow has to say of a picture, and Python would remember each sentence.
warnings.filterwarnings("ignore", module=r"PIL\.")
SPARE = 4  # a picture is shrunk to no less than so many times the model's size before it is fitted

_PACKED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")  # few bytes that unpack to many
_TELLING_CHUNKS = (b"tRNS", b"eXIf", b"acTL")  # transparent, turned, or one of several


class ImageDecoder:
    """Rows of shape (height, width) or (height, width, 3), values 0-255 in the graph's dtype."""

    media_types = ("application/json", *FORMATS, "multipart/form-data", "application/x-npy")

    def __init__(self, declared: ImageInput, dtype: str, limits: InputLimits) -> None:
        self._declared = declared
        self._shape = row_shape(declared)
        self._dtype = np.dtype(dtype)
        self._is_whole = self._dtype.kind in "ui"
        self._limits = limits
        self._empty = np.empty((0, *self._shape), self._dtype)
        self._png = _PlainPng(declared)

    def is_light(self, payload: Payload) -> bool:
        """Tell whether decoding is quick enough for the event loop."""
        if payload.media_type == "application/x-npy":
            return len(payload.body) <= LIGHT_NPY_BYTES
        if len(payload.body) > LIGHT_BYTES:
            return False
        if payload.media_type == "image/png":
            is_plain = not any(chunk in payload.body for chunk in _PACKED_CHUNKS)
            return is_plain and _png_pixels(payload.body) <= LIGHT_PIXELS
        if payload.media_type == "application/json":
            return payload.body.find(b'"', LONGEST_KEY) < 0
        return False

    def decode(self, payload: Payload) -> Decoded:
        """Return the rows of a payload; see `Decoder.decode`."""
        match payload.media_type:
            case "application/json":
                return self._from_json(payload)
            case "application/x-npy":
                return self.decode_array(read_npy(payload.body, self._shape))
            case "multipart/form-data":
                pictures = read_parts(payload, PICTURE_FIELD, self._limits.max_rows)
                return self.decode_contents(pictures, PICTURE_FIELD, payload)
            case media_type if media_type in FORMATS:
                row = self._row_of_picture(payload.body, "body", _Budget(self._limits))
                return Decoded(row[None])
        raise unsupported(payload, self.media_types)

    def decode_numbers(self, body: bytes) -> Decoded | None:
        """Return the rows of a body of pixels; see `Decoder.decode_numbers`."""
        for shape in (self._shape, (*self._shape, 1)):
            values = quick_rows(body, shape, self._limits.max_rows)
            rows = None if values is None else self._as_pixels(values)
            if rows is not None:
                return Decoded(rows.reshape(-1, *self._shape))
        return None

    def decode_instances(self, instances: list[object], place: str, payload: Payload) -> Decoded:
        """Return rows of pixels or of pictures in base64; see `Decoder.decode_instances`."""
        refuse_too_many(len(instances), self._limits, place)
        budget = _Budget(self._limits)
        return collect(
            instances,
            lambda instance, position: self._row_of_json(instance, f"{place}[{position}]", budget),
            self._empty,
            payload,
        )

    def decode_array(self, values: NDArray[np.generic]) -> Decoded:
        """Return the rows of an array of pixels; see `Decoder.decode_array`."""
        refuse_too_many(len(values), self._limits, "rows")
        if values.dtype == np.bool_:
            values = values.astype(np.uint8) * LARGEST_PIXEL  # a mask is black and white
        rows = values.astype(self._dtype) if values.dtype == np.uint8 else self._as_pixels(values)
        if rows is not None:
            return Decoded(rows)
        return collect(
            values, lambda row, position: self._row(row, f"rows[{position}]"), self._empty
        )

    def decode_contents(self, contents: list[bytes], place: str, payload: Payload) -> Decoded:
        """Return the rows of encoded pictures; see `Decoder.decode_contents`."""
        refuse_too_many(len(contents), self._limits, place)
        budget = _Budget(self._limits)
        return collect(
            contents,
            lambda picture, position: self._row_of_picture(picture, f"{place}[{position}]", budget),
            self._empty,
            payload,
        )

    def _from_json(self, payload: Payload) -> Decoded:
        decoded = self.decode_numbers(payload.body)
        if decoded is not None:
            return decoded
        return self.decode_instances(read_instances(payload.in_utf8()), "instances", payload)

    def _row_of_json(self, instance: object, place: str, budget: "_Budget") -> NDArray[np.generic]:
        if isinstance(instance, dict):
            content = read_base64(instance, place, 'pixels or {"b64": "..."}')
            return self._row_of_picture(content, f"{place}.b64", budget)
        if _is_deep(instance, len(self._shape)):
            values = read_numbers(instance, (*self._shape, 1), place).reshape(self._shape)
        else:
            values = read_numbers(instance, self._shape, place)
        return self._row(values, place)

    def _row(self, values: NDArray[np.generic], place: str) -> NDArray[np.generic]:
        if self._are_pixels(values):
            return values.astype(self._dtype)
        wrong = ~self._are_pixels_each(values)
        first = tuple(int(axis[0]) for axis in np.nonzero(wrong))
        where = place + "".join(f"[{position}]" for position in first)
        expected = "a whole number 0-255" if self._is_whole else "a number 0-255"
        got = f"{values[first]:g}" if values.dtype.kind == "f" else str(values[first])
        if self._is_whole and values.min() >= 0 and values.max() <= 1:
            got += " (a picture scaled to 0-1? multiply it by 255)"
        raise InputInvalid(where, expected, got)

    def _as_pixels(self, values: NDArray[Any]) -> NDArray[np.generic] | None:
        """Return values as pixels, or None if one of them is none."""
        if not self._is_whole:
            flat = values.reshape(-1)  # where the extremes are is told faster than what they are
            is_sound = flat[flat.argmin()] >= 0 and flat[flat.argmax()] <= LARGEST_PIXEL
            return values.astype(self._dtype) if is_sound else None
        with np.errstate(invalid="ignore"):  # what does not fit comes out as another number
            pixels = values.astype(np.uint8)
        return pixels.astype(self._dtype, copy=False) if (pixels == values).all() else None

    def _are_pixels(self, values: NDArray[np.generic]) -> bool:
        return bool(self._are_pixels_each(values).all())

    def _are_pixels_each(self, values: NDArray[np.generic]) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):  # a signalling NaN is one like any other
            numbers = values.astype(np.float64, copy=False)
            valid: NDArray[np.bool_] = (numbers >= 0) & (numbers <= LARGEST_PIXEL)
            if self._is_whole:
                valid &= np.floor(numbers) == numbers
        return valid

    def _row_of_picture(self, content: bytes, place: str, budget: "_Budget") -> NDArray[np.generic]:
        if self._png.is_of(content):
            budget.spend(self._png.size, place)
            pixels = self._png.read(content)
            if pixels is not None:
                return pixels.astype(self._dtype, copy=False)
        picture = _read_picture(content, self._declared, budget, place)
        return fitted(picture, self._declared).astype(self._dtype, copy=False)


class _PlainPng:
    """PNGs that are, pixel for pixel, what the model takes: the most common picture of all.

    A decoder without a layer in Python reads them in a tenth of the time. Whatever is odd about one
    is left to Pillow, so that there is one place that decides what a picture may be.
    """

    def __init__(self, declared: ImageInput) -> None:
        self.size = (declared.width, declared.height)
        self._shape = row_shape(declared)
        self._is_grey = declared.channels == 1
        colour = 0 if self._is_grey else 2
        header = struct.pack(">IIBBBBB", *self.size, 8, colour, 0, 0, 0)
        self._start = PNG_SIGNATURE + struct.pack(">I", len(header)) + b"IHDR" + header

    def is_of(self, content: bytes) -> bool:
        """Tell whether a picture's header says that it is one, and nothing else changes it."""
        return content.startswith(self._start) and not any(
            map(content.__contains__, _TELLING_CHUNKS)
        )

    def read(self, content: bytes) -> NDArray[np.uint8] | None:
        """Return its pixels, in the shape of a row, or None if it is damaged."""
        try:
            pixels: NDArray[np.uint8] = decode_image_png_u8(
                content, self._shape[:2], "mono" if self._is_grey else "rgb"
            )
        except Exception:  # noqa: BLE001  it raises nothing more special
            return None
        return pixels.reshape(self._shape)


class _Budget:
    """Pixels that one request may still have decoded."""

    def __init__(self, limits: InputLimits) -> None:
        self._limits = limits
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


def _read_picture(content: bytes, declared: ImageInput, budget: _Budget, place: str) -> Image.Image:
    """Return a picture upright, in mode L or RGB as the model declares.

    Raises:
        PictureUnreadable: naming `place`, whatever the decoder's own failure was.
        PayloadTooLarge: if it has too many pixels, by its header.
    """
    try:
        with Image.open(io.BytesIO(content), formats=tuple(FORMATS.values())) as picture:
            budget.spend(picture.size, place)
            if picture.format == "PNG":
                check_all_lines(content)
            if picture.format == "JPEG":
                mode = "L" if declared.channels == 1 else "RGB"
                picture.draft(mode, (declared.width * 2, declared.height * 2))
            picture.load()
            # Most have no EXIF, and looking is cheaper than turning by nothing.
            upright = ImageOps.exif_transpose(picture) if picture.getexif() else picture
            return _in_mode(_shrunk(upright, declared), declared.channels)
    except ClientError:
        raise
    except Image.DecompressionBombError:
        raise budget.excess(place) from None
    except Exception:  # noqa: BLE001  hostile bytes reach every branch of a decoder
        expected = f"a picture ({', '.join(FORMATS.values())})"
        got = f"{len(content)} bytes that do not decode"
        raise PictureUnreadable(place, expected, got) from None


def _shrunk(picture: Image.Image, declared: ImageInput) -> Image.Image:
    """Return a picture much larger than the model's with fewer pixels: what follows costs less."""
    if picture.mode in ("P", "PA", "1"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    side = max(declared.height, declared.width) * SPARE
    factor = min(picture.size) // side
    if factor < 2 or picture.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return picture
    return picture.reduce(factor)


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


def _check_size(size: tuple[int, int], limits: InputLimits, place: str) -> None:
    longest, shortest = max(size), min(size)
    if longest * shortest > limits.max_picture_pixels:
        raise PayloadTooLarge(f"{place}: the picture", limits.max_picture_pixels, "pixels")
    if longest > limits.max_picture_side:
        raise PayloadTooLarge(f"{place}: the picture's side", limits.max_picture_side, "pixels")
    if shortest < MIN_SIDE or longest > shortest * MAX_ASPECT:
        expected = f"sides of at least {MIN_SIDE} pixels, at most {MAX_ASPECT} times each other"
        raise InputInvalid(place, expected, f"{size[0]} x {size[1]}")


def _in_mode(picture: Image.Image, channels: int) -> Image.Image:
    wanted = "L" if channels == 1 else "RGB"
    if picture.mode == wanted and not picture.has_transparency_data:
        return picture
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _from_16_bit(picture)
    if picture.has_transparency_data:
        picture = _on_contrasting_ground(picture.convert("RGBA"))
    return picture.convert(wanted)


def _from_16_bit(picture: Image.Image) -> Image.Image:
    values = np.clip(np.asarray(picture), 0, 65_535).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _on_contrasting_ground(picture: Image.Image) -> Image.Image:
    """Lay what is drawn on white, or on black if it is light itself."""
    grey = np.asarray(picture.convert("RGB").convert("L"), np.float32)
    alpha = np.asarray(picture.getchannel("A"), np.float32)
    is_light = (grey * alpha).sum() > 127.5 * alpha.sum()
    ground = Image.new("RGBA", picture.size, "black" if is_light else "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def _median_of_border(picture: Image.Image) -> tuple[int, ...]:
    pixels = np.asarray(picture)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.atleast_1d(np.median(border, axis=0)))


def _png_pixels(body: bytes) -> int:
    """Return width x height from a PNG's header; without one, more than any limit."""
    header_bytes = 24
    if len(body) < header_bytes or not body.startswith(PNG_SIGNATURE):
        return 1 << 62
    width, height = struct.unpack_from(">II", body, 16)
    return int(width) * int(height)


def _is_deep(value: object, depth: int) -> bool:
    """Tell whether the first number of nested lists lies below an extra axis."""
    for _ in range(depth):
        if not isinstance(value, list) or not value:
            return False
        value = value[0]
    return isinstance(value, list)
