"""Bodies of pictures or pixels -> rows of the model's shape, values 0-255."""

import struct
from typing import Any

import numpy as np
from kornia_rs.io import decode_image_png_u8
from numpy.typing import NDArray

from service.bundle.manifest import ImageInput, row_shape
from service.errors import InputInvalid
from service.inputs.multipart import read_parts
from service.inputs.numbers import quick_rows, read_base64, read_instances, read_numbers
from service.inputs.payload import (
    LIGHT_BYTES,
    LIGHT_NPY_BYTES,
    Decoded,
    InputLimits,
    Payload,
    collect,
    has_few_values,
    refuse_too_many,
    select_valid,
    unsupported,
)
from service.inputs.pictures import FORMATS, PictureBudget, read_picture
from service.inputs.png import PNG_SIGNATURE
from service.inputs.tensors import read_npy

PICTURE_FIELD = "image"
LIGHT_PNG_BYTES = 16_384
"""A PNG of so many bytes has few enough chunks for the event loop."""

LIGHT_PIXELS = 65_536
LARGEST_PIXEL = 255
LONGEST_KEY = 32  # bytes; no string begins behind them: numbers only, no picture in base64

# Transparent, turned, one of several frames, or with metadata that unpacks to many bytes.
_TELLING_CHUNKS = (b"tRNS", b"eXIf", b"acTL", b"zTXt", b"iTXt", b"iCCP")


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
            return (
                len(payload.body) <= LIGHT_PNG_BYTES and _png_pixels(payload.body) <= LIGHT_PIXELS
            )
        if payload.media_type == "application/json":
            body = payload.body
            return body.find(b'"', LONGEST_KEY) < 0 and has_few_values(body)
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
                row = self._row_of_picture(
                    payload.body, "body", PictureBudget(self._limits, payload.lease)
                )
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
        budget = PictureBudget(self._limits, payload.lease)
        return collect(
            instances,
            lambda instance, position: self._row_of_json(instance, f"{place}[{position}]", budget),
            self._empty,
            self._limits,
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
        pixels = self._are_pixels_each(values).reshape(len(values), -1)
        found = select_valid(
            values,
            np.asarray(pixels.all(axis=1)),
            lambda row, position: self._error_of(row, f"rows[{position}]"),
            self._limits,
        )
        return Decoded(found.rows.astype(self._dtype), found.errors)

    def decode_contents(self, contents: list[bytes], place: str, payload: Payload) -> Decoded:
        """Return the rows of encoded pictures; see `Decoder.decode_contents`."""
        refuse_too_many(len(contents), self._limits, place)
        budget = PictureBudget(self._limits, payload.lease)
        return collect(
            contents,
            lambda picture, position: self._row_of_picture(picture, f"{place}[{position}]", budget),
            self._empty,
            self._limits,
            payload,
        )

    def _from_json(self, payload: Payload) -> Decoded:
        decoded = self.decode_numbers(payload.body)
        if decoded is not None:
            return decoded
        return self.decode_instances(read_instances(payload.in_utf8()), "instances", payload)

    def _row_of_json(
        self, instance: object, place: str, budget: PictureBudget
    ) -> NDArray[np.generic]:
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
        raise self._error_of(values, place)

    def _error_of(self, values: NDArray[np.generic], place: str) -> InputInvalid:
        """Return what is wrong with a row that is not all pixels."""
        wrong = ~self._are_pixels_each(values)
        first = tuple(int(axis[0]) for axis in np.nonzero(wrong))
        where = place + "".join(f"[{position}]" for position in first)
        expected = "a whole number 0-255" if self._is_whole else "a number 0-255"
        got = f"{values[first]:g}" if values.dtype.kind == "f" else str(values[first])
        if self._is_whole and values.min() >= 0 and values.max() <= 1:
            got += " (a picture scaled to 0-1? multiply it by 255)"
        return InputInvalid(where, expected, got)

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

    def _row_of_picture(
        self, content: bytes, place: str, budget: PictureBudget
    ) -> NDArray[np.generic]:
        if self._png.is_of(content):
            budget.spend(self._png.size, place)
            pixels = self._png.read(content)
            if pixels is not None:
                return pixels.astype(self._dtype, copy=False)
        pixels = read_picture(content, self._declared, budget, place)
        return pixels.astype(self._dtype, copy=False)


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
