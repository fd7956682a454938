"""Rows -> what a caller would send to get them, for those who want to see an example."""

import math

import numpy as np
from numpy.typing import NDArray

from service.inputs.payload import Decoder
from service.inputs.texts import TextDecoder

MOST_NUMBERS = 65_536
"""Examples hold so many numbers together: half a megabyte of JSON tells enough."""


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


def _plain(values: NDArray[np.generic]) -> object:
    """Return numbers as JSON has them: floats by their shortest text, null for what is missing."""
    if values.ndim:
        return [_plain(value) for value in values]
    number = values.item()
    if isinstance(number, float):
        return None if math.isnan(number) else float(str(values))
    return number
