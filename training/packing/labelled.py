"""A labelled calibration file becomes rows and targets."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import FeatureInput, ImageInput, TextInput
from training.errors import PackRefused
from training.packing.arrays import read_arrays
from training.packing.declared import InputOptions
from training.packing.lookalikes import look_alike
from training.packing.tables import read_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Rows that the model has not seen, with the truth."""

    rows: NDArray[np.generic]
    """Shape (rows, *input), as the service hands them to a graph."""

    targets: NDArray[np.int64]
    """Shape (rows,), index into the labels."""

    input: FeatureInput | ImageInput | TextInput
    sha256: str
    files: Mapping[str, bytes]
    """Further files of the bundle, by name."""


def read_labelled(
    path: Path, labels: Sequence[str], target: str, options: InputOptions, width: int | None
) -> Labelled:
    """Return the rows of a calibration file, a CSV with a header or an .npz.

    Args:
        path: of the file.
        labels: of the model, in the order of its numbers.
        target: column of the labels in a CSV.
        options: about the input.
        width: how many tokens the model takes; None for any number.

    Raises:
        PackRefused: naming the line, column or array that is wrong.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PackRefused(f"{path}: cannot be read ({error.strerror})") from None
    options = replace(options, max_tokens=options.max_tokens or width)
    if path.suffix == ".npz":
        found = read_arrays(path, content, options)
    else:
        found = read_table(path, content, target, options)
    targets = _targets(path, found.names, labels)
    _refuse_unseen_labels(path, targets, labels)
    return Labelled(
        rows=found.rows,
        targets=targets,
        input=found.input,
        sha256=hashlib.sha256(content).hexdigest(),
        files=found.files,
    )


def _targets(path: Path, names: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    index = {label: number for number, label in enumerate(labels)}
    if not set(names) <= index.keys():
        # Numbers from 0 stand for the labels in their order, if they are not labels themselves.
        numbered = {str(number): number for number in range(len(labels))}
        strangers = [name for name in names if name not in index and name not in numbered]
        if strangers or not set(names) <= numbered.keys():
            stranger = (strangers or [name for name in names if name not in index])[0]
            raise PackRefused(
                f"{path}: row {names.index(stranger) + 1} has the label {stranger!r}, expected one "
                f"of: {', '.join(labels)}{look_alike(stranger, labels)}"
            )
        index = numbered
    return np.array([index[name] for name in names], np.int64)


def _refuse_unseen_labels(path: Path, targets: NDArray[np.int64], labels: Sequence[str]) -> None:
    unseen = [label for number, label in enumerate(labels) if number not in targets]
    if unseen:
        raise PackRefused(
            f"{path}: no row has the label {unseen[0]!r}; every label needs rows to be calibrated"
        )
