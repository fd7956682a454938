"""A user's classifier, whatever it was saved as: what it says of rows, and its graph wrapped.

Both kinds end in the same files: `model.onnx` and, unless the model came as ONNX, `saved_model/`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.errors import PackRefused
from training.packing.heads import Around, Entry

ROWS = "rows"
"""As `--feature-output`: the rows themselves."""

_SHOWN_NAMES = 12


@dataclass(frozen=True, slots=True)
class Look:
    """What a model says of rows, before anything is made of it."""

    scores: NDArray[np.float32]
    """Shape (rows, columns)."""

    features: NDArray[np.float32] | None
    """Shape (rows, columns); None if the user named no feature output."""


class Classifier(Protocol):
    """A user's classifier, opened."""

    kind: str
    """What it was saved as, for people."""

    shape: tuple[int | None, ...]
    """Of one row; None where any length will do."""

    dtype: str
    """Of its input."""

    softened: str
    """`softmax` or `sigmoid` if the graph ended in it and it was left out, else nothing."""

    producer: Mapping[str, str]
    """Library that wrote the graph -> its version; empty if the graph does not say."""

    def look(self, entry: Entry, rows: NDArray[np.generic]) -> Look:
        """Return what the model says of `rows`."""
        ...

    def wrap(self, entry: Entry, around: Around) -> dict[str, bytes]:
        """Return the files of the wrapped graph by their name in the bundle."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which parts of a model are meant."""

    scores: str | None = None
    """Output with one number for each label; None: the only one there is."""

    features: str | None = None
    """Layer, tensor or output that describes a row; `rows` for the row itself."""

    is_hardened: bool = True
    """Whether a softmax or sigmoid at the end is left out, so that nothing is rounded away."""


def open_classifier(path: Path, choice: Choice) -> Classifier:
    """Return the classifier saved at `path`.

    Raises:
        PackRefused: if there is none, or it is of a kind that cannot be packed.
    """
    # Each kind imports its own engine: a minute is saved, and a mistyped path is told at once.
    if path.suffix == ".onnx" and path.is_file():
        from training.packing.onnx_classifier import open_onnx  # noqa: PLC0415

        return open_onnx(path, choice)
    if path.suffix in {".keras", ".h5"} and path.is_file():
        from training.packing.keras_classifier import open_keras  # noqa: PLC0415

        return open_keras(path, choice)
    if (path / "saved_model.pb").is_file():
        from training.packing.keras_classifier import open_saved_model  # noqa: PLC0415

        return open_saved_model(path, choice)
    if not path.exists():
        raise PackRefused(f"{path}: there is no such file or folder")
    raise PackRefused(
        f"{path}: expected a Keras model (.keras), a SavedModel folder or an ONNX graph (.onnx)"
    )


def pick(names: Iterable[str], wanted: str | None, option: str, what: str) -> str:
    """Return the name that is wanted, or the only one there is.

    Raises:
        PackRefused: naming the option and what it can be.
    """
    there = list(names)
    if wanted is None and len(there) == 1:
        return there[0]
    listed = ", ".join(there[:_SHOWN_NAMES]) + (", ..." if len(there) > _SHOWN_NAMES else "")
    if wanted is None:
        raise PackRefused(f"the model has {len(there)} {what}; choose with {option}: {listed}")
    if wanted not in there:
        raise PackRefused(f"{option} {wanted}: the model has no such {what}; it has: {listed}")
    return wanted


def flat(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return an output as a table, shape (rows, columns)."""
    return np.asarray(values, np.float32).reshape(len(values), -1)


def first_look(outputs: dict[str, NDArray[Any]]) -> Look:
    """Return the look that outputs of `untouched` are."""
    features = outputs.get("novelty_scores")
    return Look(flat(outputs["logits"]), None if features is None else flat(features))
