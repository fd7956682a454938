"""Rows -> what a caller would send to get them, for those who want to see an example."""

import base64
import csv
import io
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.bundle.manifest import FeatureInput, ImageInput, Input
from service.errors import ClientError
from service.inputs.images import PICTURE_FIELD
from service.inputs.payload import Decoded, Decoder, Payload
from service.inputs.pictures import FORMATS, MIN_SIDE
from service.inputs.png import write_png
from service.inputs.texts import TextDecoder

MOST_NUMBERS = 65_536
"""Examples hold so many numbers together: half a megabyte of JSON tells enough."""

MOST_PIXELS = 256
"""Larger pictures are told in base64 only."""

MOST_PICTURE_BYTES = 8192
"""A picture that takes more is told with half as many lines and columns."""

MOST_RAW_BYTES = 128 * MOST_PICTURE_BYTES
"""A picture with more is halved without a look at what it takes: PNGs are hardly ever so small."""

MOST_BODY_BYTES = 65_536
JSON = "application/json"


class BodyExample(NamedTuple):
    """The body of a request for one row."""

    form: str
    """What tells it from others of its model, such as `json-in-order`."""

    media_type: str
    text: str
    """What it is, in words."""

    value: object = None
    """JSON, or a text; None: bytes, which only words can tell."""

    is_exact: bool = False
    """Whether it is read as the row it was made of."""


def instances_of(rows: NDArray[np.generic], decoder: Decoder) -> list[object]:
    """Return an element of `{"instances": [...]}` for each of the first rows; None if none is it.

    Args:
        rows: shape (rows, *input), of the model that `decoder` reads for; as many are told as
            have `MOST_NUMBERS` numbers together.
        decoder: of the same model.
    """
    if isinstance(decoder, TextDecoder):
        return [decoder.text(row) for row in rows]
    most_rows = MOST_NUMBERS // max(1, math.prod(rows.shape[1:]))
    return [_plain(row) for row in rows[:most_rows]]


def bodies_of(row: NDArray[np.generic], declared: Input, decoder: Decoder) -> list[BodyExample]:
    """Return a body of each kind that a model takes; what `decoder` does not read is left out.

    Args:
        row: shape (*input), of the model that `decoder` reads for.
        declared: what the model's manifest says of its input.
        decoder: of the same model.
    """
    if isinstance(declared, FeatureInput):
        made = list(_of_features(row, declared))
    elif isinstance(declared, ImageInput):
        made = list(_of_picture(row, declared))
    else:
        made = list(_of_text(row, decoder))
    checked = (_checked(example, row, decoder) for example in made)
    return [example for example in checked if example is not None]


def body_of(example: BodyExample) -> bytes:
    """Return the bytes of an example that has a value."""
    if isinstance(example.value, str):
        return example.value.encode()
    return orjson.dumps(example.value)


def _of_features(row: NDArray[np.generic], declared: FeatureInput) -> Iterator[BodyExample]:
    values = [_plain(value) for value in row]
    names = [field.name for field in declared.fields]
    by_name = {"instances": [dict(zip(names, values, strict=True))]}
    yield BodyExample("json", JSON, "One row, by the names of its features", by_name)
    yield BodyExample(
        "json-in-order", JSON, "One row, in the order of the features", {"instances": [values]}
    )
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([names, values])
    yield BodyExample("csv", "text/csv", "A header and one row", table.getvalue())
    yield _array(row)


def _of_picture(row: NDArray[np.generic], declared: ImageInput) -> Iterator[BodyExample]:
    size = f"{declared.height} x {declared.width}"
    pixels = row.astype(np.uint8)
    if np.array_equal(pixels, row):
        encoded = {"b64": base64.b64encode(_small_png(pixels)).decode()}
        yield BodyExample("json-b64", JSON, "One picture, in base64", {"instances": [encoded]})
    if row.size <= MOST_PIXELS:
        text = f"One picture, as {size} pixels"
        yield BodyExample("json-pixels", JSON, text, {"instances": [_plain(row)]})
    for media_type, name in FORMATS.items():
        text = f"The bytes of one {name}, of any size; the model sees {size} pixels"
        yield BodyExample(name.lower(), media_type, text)
    form = f"Files of such pictures, each a part named `{PICTURE_FIELD}`"
    yield BodyExample("form", "multipart/form-data", form)
    yield _array(row)


def _of_text(row: NDArray[np.generic], decoder: Decoder) -> Iterator[BodyExample]:
    text = decoder.text(row) if isinstance(decoder, TextDecoder) else None
    if text is not None:
        yield BodyExample("json", JSON, "One text", {"instances": [text]})
        yield BodyExample("text", "text/plain", "One text, in UTF-8", text)


def _array(row: NDArray[np.generic]) -> BodyExample:
    shape = ", ".join(("rows", *map(str, row.shape)))
    text = f"What `numpy.save` writes of an array of shape ({shape}), such as {row.dtype}"
    return BodyExample("npy", "application/x-npy", text)


def _checked(
    example: BodyExample, row: NDArray[np.generic], decoder: Decoder
) -> BodyExample | None:
    """Return an example with whether it is exact; None if a caller had nothing from it."""
    if example.value is None:
        return example
    content = body_of(example)
    decoded = _read(Payload(content, example.media_type), decoder)
    if decoded is None or decoded.errors or len(content) > MOST_BODY_BYTES:
        return None
    is_exact = np.array_equal(decoded.rows[0], row, equal_nan=row.dtype.kind == "f")
    return example._replace(is_exact=is_exact)


def _read(payload: Payload, decoder: Decoder) -> Decoded | None:
    try:
        return decoder.decode(payload)
    except ClientError:
        return None


def _small_png(pixels: NDArray[np.uint8]) -> bytes:
    while True:
        is_least = min(pixels.shape[:2]) < 2 * MIN_SIDE
        if is_least or pixels.nbytes <= MOST_RAW_BYTES:
            content = write_png(pixels)
            if is_least or len(content) <= MOST_PICTURE_BYTES:
                return content
        pixels = pixels[::2, ::2]


def _plain(values: NDArray[np.generic]) -> object:
    """Return numbers as JSON has them: floats by their shortest text, null for what is missing."""
    if values.ndim:
        return [_plain(value) for value in values]
    number = values.item()
    if isinstance(number, float):
        return None if math.isnan(number) else float(str(values))
    return number
