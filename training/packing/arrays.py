"""Calibration rows from an .npz with the arrays `rows` and `targets`."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import FeatureField, FeatureInput, ImageInput, TextInput
from training.errors import PackRefused
from training.packing.declared import (
    VOCABULARY,
    Content,
    InputOptions,
    read_fields,
    read_text_input,
    with_typical,
)


def read_arrays(path: Path, content: bytes, options: InputOptions) -> Content:
    """Return what an .npz holds.

    Raises:
        PackRefused: naming the array that is wrong.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            rows, targets = arrays["rows"], arrays["targets"]
    except KeyError as error:
        raise PackRefused(f"{path}: {error.args[0]}; expected `rows` and `targets`") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise PackRefused(f"{path}: no .npz of plain arrays ({error})") from None
    if rows.ndim < 2 or targets.shape != (len(rows),) or not len(rows):
        raise PackRefused(
            f"{path}: expected `rows` of shape (rows, ...) and as many `targets`, got "
            f"{rows.shape} and {targets.shape}"
        )
    files: dict[str, bytes] = {}
    declared: FeatureInput | ImageInput | TextInput
    if options.kind == "features":
        rows, declared = _features(path, rows, options)
    elif options.kind == "image":
        rows, declared = _pictures(path, rows)
    else:
        rows, declared, files[VOCABULARY] = _token_ids(path, rows, options)
    names = [str(value) for value in targets.tolist()]
    return Content(rows=np.ascontiguousarray(rows), names=names, input=declared, files=files)


def _features(
    path: Path, rows: NDArray[Any], options: InputOptions
) -> tuple[NDArray[Any], FeatureInput]:
    if rows.ndim != 2:
        raise PackRefused(
            f"{path}: rows of shape {rows.shape[1:]} are no features; pictures need --input image"
        )
    if options.fields is None:
        columns = rows.astype(np.float64).T
        fields = tuple(
            FeatureField(name=f"x{number}", nullable=bool(np.isnan(column).any()))
            for number, column in enumerate(columns)
        )
    else:
        fields = read_fields((), options.fields)
        if len(fields) != rows.shape[1]:
            raise PackRefused(
                f"{options.fields}: names {len(fields)} fields, the rows of {path} have "
                f"{rows.shape[1]} columns"
            )
    values = rows.astype(np.float32)
    return values, FeatureInput(fields=with_typical(fields, values))


def _pictures(path: Path, rows: NDArray[Any]) -> tuple[NDArray[Any], ImageInput]:
    if rows.ndim == 4 and rows.shape[3] == 1:
        rows = rows[..., 0]
    if rows.dtype == np.bool_:
        rows = rows * np.uint8(255)  # as the server takes a mask
    if rows.ndim not in {3, 4} or (rows.ndim == 4 and rows.shape[3] != 3):
        raise PackRefused(
            f"{path}: expected pictures of shape (rows, height, width) or (rows, height, width, 3),"
            f" got {rows.shape}"
        )
    if rows.min() < 0 or rows.max() > 255 or rows.max() <= 1:
        raise PackRefused(
            f"{path}: expected pixels from 0 to 255, as pictures have them at serving, got "
            f"{rows.min():g} to {rows.max():g}; what the model wants is said by --scale"
        )
    height, width = rows.shape[1:3]
    declared = ImageInput(height=height, width=width, channels=3 if rows.ndim == 4 else 1)
    return rows.round().astype(np.uint8), declared


def _token_ids(
    path: Path, rows: NDArray[Any], options: InputOptions
) -> tuple[NDArray[Any], TextInput, bytes]:
    if rows.ndim != 2 or rows.dtype.kind not in "iu":
        raise PackRefused(f"{path}: expected token ids of shape (rows, tokens), got {rows.shape}")
    declared, words = read_text_input(replace(options, max_tokens=rows.shape[1]))
    return rows.astype(np.int32), declared, words
