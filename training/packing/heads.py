"""What stands in front of a user's model and behind it, written once for Keras and for ONNX."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from training.errors import PackRefused
from training.packing.ops import Ops, Value

Returns = Literal["logits", "probabilities"]
"""What a model returns."""

LEAST_PROBABILITY = 1e-30
"""Smaller ones count as this: float32 ends soon below."""

LEAST_ROUNDED = 1e-4
"""The same of probabilities that are made as 1 - p or as a sum, which float32 knows to 1e-7: the
logarithm is then good to the tolerance of golden rows, wherever the graph runs."""

_ROUNDING = 2.0**-25
"""Numbers of float32 just below 1 are multiples of it, and so is what is left of 1."""

MAX_FEATURES = 1024
"""A covariance of more columns would outgrow the model it belongs to."""

PROBABILITY_TOLERANCE = 1e-5
"""How far beyond 0 and 1: a forest adds up its trees' shares in float32."""

SUM_TOLERANCE = 1e-3
"""How far from 1 probabilities may sum: float16 models do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """From rows as the service hands them over to the tensor that the model takes."""

    row_shape: tuple[int, ...]
    row_dtype: str
    model_shape: tuple[int, ...]
    model_dtype: str
    scale: float = 1.0
    """Values are multiplied by this, 1/255 for a model of pictures between 0 and 1."""

    @property
    def is_channels_first(self) -> bool:
        """Whether the model takes (3, height, width) where rows are (height, width, 3)."""
        return len(self.row_shape) == 3 and self.model_shape == _channels_first(self.row_shape)

    def apply(self, ops: Ops, rows: Value) -> Value:
        """Return what the model takes."""
        values, dtype = rows, self.row_dtype
        if self.scale != 1:
            values, dtype = ops.multiply(ops.cast(values, "float32"), self.scale), "float32"
        if dtype != self.model_dtype:
            values = ops.cast(values, self.model_dtype)
        if self.is_channels_first:
            return ops.transpose(values, (0, 3, 1, 2))
        if self.model_shape != self.row_shape:
            return ops.reshape(values, (-1, *self.model_shape))
        return values


def fit_entry(entry: Entry, declared: tuple[int | None, ...]) -> Entry:
    """Return the entry with the shape that a model declares, `None` where it takes any length.

    Raises:
        PackRefused: if rows of the calibration file cannot be brought into that shape.
    """
    shape = entry.row_shape
    if len(declared) == len(shape) + 1 and len(shape) != 3:
        # A grey picture in a model that has an axis of channels, first or last.
        shape = (*shape, 1) if declared[-1] in {1, None} else (1, *shape)
    for candidate in (shape, _channels_first(shape)):
        if len(declared) == len(candidate) and all(
            wanted in {None, given} for wanted, given in zip(declared, candidate, strict=True)
        ):
            return _with_model_shape(entry, candidate)
    known = tuple(axis for axis in declared if axis is not None)
    if len(known) == len(declared) and math.prod(known) == math.prod(shape):
        return _with_model_shape(entry, known)
    raise PackRefused(
        f"the model takes rows of shape {_shown(declared)}, the calibration file has rows of shape "
        f"{_shown(entry.row_shape)}; give it the columns or the size that the model was trained on"
    )


def _with_model_shape(entry: Entry, shape: tuple[int, ...]) -> Entry:
    return Entry(entry.row_shape, entry.row_dtype, shape, entry.model_dtype, entry.scale)


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[-1], *shape[:-1])


def _shown(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if axis is None else str(axis) for axis in shape) or "one number"


class NoveltyHead(Protocol):
    """Measures how little a row is like the calibration rows."""

    @property
    def name(self) -> str:
        """What is measured."""
        ...

    def scores(self, ops: Ops, logits: Value, features: Value) -> Value:
        """Return shape (rows, 1), higher = less like them."""
        ...


@dataclass(frozen=True, slots=True)
class Energy:
    """Negative energy of the logits. Liu et al. 2020, section 3.1, at temperature 1."""

    name: str = "energy"

    def scores(self, ops: Ops, logits: Value, features: Value) -> Value:  # noqa: ARG002  # protocol
        """Return -logsumexp of the logits."""
        return ops.negative(ops.logsumexp(logits, axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class LowProbability:
    """Lack of a probable label, for models that return probabilities: their energy is always 0.

    Hendrycks and Gimpel 2017, section 3.
    """

    name: str = "low_probability"

    def scores(self, ops: Ops, logits: Value, features: Value) -> Value:  # noqa: ARG002  # protocol
        """Return minus the largest logit."""
        return ops.negative(ops.max(logits, axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Mahalanobis:
    """Distance from the nearest label's mean, in units of the spread within labels.

    Returned as log(1 + distance**2): the order is that of the distance, and rows far out cost no
    precision. Lee et al. 2018, section 2.1; covariance shrunk as in Ledoit and Wolf 2004.
    """

    centre: NDArray[np.float32]
    """Shape (columns,)."""

    whitening: NDArray[np.float32]
    """Shape (columns, columns): (x - centre) @ whitening has unit covariance within labels."""

    means: NDArray[np.float32]
    """Shape (labels, columns), whitened."""

    name: str = "mahalanobis"

    def scores(self, ops: Ops, logits: Value, features: Value) -> Value:  # noqa: ARG002  # protocol
        """Return log(1 + squared distance) from the nearest mean."""
        columns = len(self.centre)
        values = ops.cast(ops.reshape(features, (-1, columns)), "float32")
        white = ops.matmul(ops.subtract(values, self.centre), self.whitening)
        lengths = ops.matmul(ops.multiply(white, white), np.ones((columns, 1), np.float32))
        # |x - m|**2 = |x|**2 - 2 x.m + |m|**2: no tensor of shape (rows, labels, columns).
        products = ops.matmul(white, -2 * self.means.T)
        offsets = np.square(self.means).sum(axis=1)
        squares = ops.add(ops.add(products, offsets), lengths)
        nearest = ops.maximum(ops.min(squares, axis=1, keepdims=True), 0.0)
        return ops.log(ops.add(nearest, 1.0))


def fit_mahalanobis(features: NDArray[np.floating], targets: NDArray[np.int64]) -> Mahalanobis:
    """Return the distance that these rows define.

    Args:
        features: shape (rows, columns), finite.
        targets: shape (rows,); a label without rows has no mean.
    """
    values = features.astype(np.float64)
    centre = values.mean(axis=0)
    seen, members = np.unique(targets, return_inverse=True)
    means = np.stack([values[targets == label].mean(axis=0) for label in seen])
    within = values - means[members]
    # Units of the spread within labels, so that shrinkage touches correlations alone; a column that
    # hardly varies there is measured by its whole spread, one that never does as it is.
    least = 1e-6 * np.maximum(np.abs(centre), 1)
    whole, inside = values.std(axis=0), within.std(axis=0)
    scale = np.where(inside > least, inside, np.where(whole > least, whole, 1.0))
    covariance, _ = ledoit_wolf(within / scale, assume_centered=True)
    root = np.linalg.cholesky(np.linalg.inv(covariance + 1e-6 * np.eye(len(scale))))
    whitening = root / scale[:, None]
    white_means = (means - centre) @ whitening
    return Mahalanobis(
        centre.astype(np.float32), whitening.astype(np.float32), white_means.astype(np.float32)
    )


@dataclass(frozen=True, slots=True)
class Exit:
    """From what the model returns to the outputs of a bundle."""

    returns: Returns
    columns: int
    """Numbers the model returns for a row; one column speaks for the second of two labels."""

    novelty: NoveltyHead
    least_probability: float = LEAST_PROBABILITY
    """Smaller ones count as this."""

    @property
    def widths(self) -> dict[str, int]:
        """Columns of each output."""
        return {"logits": max(self.columns, 2), "novelty_scores": 1}

    def apply(self, ops: Ops, scores: Value, features: Value) -> dict[str, Value]:
        """Return `logits` (rows, labels) and `novelty_scores` (rows, 1)."""
        logits = self.logits(ops, scores)
        return {"logits": logits, "novelty_scores": self.novelty.scores(ops, logits, features)}

    def logits(self, ops: Ops, scores: Value) -> Value:
        """Return logits, shape (rows, labels), float32."""
        values = ops.cast(ops.reshape(scores, (-1, self.columns)), "float32")
        if self.returns == "logits":
            return values if self.columns > 1 else two_logits(ops, values)
        if self.columns > 1:
            return ops.log(ops.maximum(values, self.least_probability))
        second = ops.minimum(ops.maximum(values, LEAST_ROUNDED), 1 - LEAST_ROUNDED)
        first = ops.subtract(1.0, second)
        return two_logits(ops, ops.subtract(ops.log(second), ops.log(first)))


def least_probability(scores: NDArray[np.floating]) -> float:
    """Return the least probability that is no rounding, as far as a model's numbers tell.

    Args:
        scores: probabilities, shape (rows, columns).
    """
    small = scores[(scores > _ROUNDING) & (scores < LEAST_ROUNDED)]
    rounded = np.mod(small / _ROUNDING, 1) == 0
    # Of numbers with all their digits hardly one in thirty thousand looks so.
    are_known = small.size > 0 and rounded.mean() < 0.01
    return LEAST_PROBABILITY if are_known else LEAST_ROUNDED


def two_logits(ops: Ops, margin: Value) -> Value:
    """Return logits (rows, 2) whose difference is `margin`, shape (rows, 1)."""
    return ops.concatenate([ops.multiply(margin, -0.5), ops.multiply(margin, 0.5)], axis=1)


class Around(Protocol):
    """What stands behind a model."""

    @property
    def widths(self) -> dict[str, int]:
        """Columns of each output, as far as they are known."""
        ...

    def apply(self, ops: Ops, scores: Value, features: Value) -> dict[str, Value]:
        """Return the outputs by name; `features` is None if the user named none."""
        ...


class Untouched:
    """Scores and features as they are, to have a look at them."""

    widths: dict[str, int] = {}  # noqa: RUF012  # nobody writes to it

    def apply(self, ops: Ops, scores: Value, features: Value) -> dict[str, Value]:
        """Return both as float32, under the names that a bundle's outputs have."""
        outputs = {"logits": ops.cast(scores, "float32")}
        if features is not None:
            outputs["novelty_scores"] = ops.cast(features, "float32")
        return outputs


@dataclass(frozen=True, slots=True)
class Reading:
    """What the numbers of a model were taken for, and why."""

    returns: Returns
    reason: str
    """One sentence for the user."""


def read_scores(
    scores: NDArray[np.floating], labels: tuple[str, ...], told: Returns | None, softened: str
) -> Reading:
    """Return whether the numbers are logits or probabilities.

    Args:
        scores: shape (rows, columns), of calibration rows.
        labels: of the model.
        told: what the user says; None to find out.
        softened: the function at the end of the graph that was left out, `softmax`; or nothing.

    Raises:
        PackRefused: if the numbers do not fit the labels, or could be read either way.
    """
    columns = scores.shape[1]
    if columns != len(labels) and not (columns == 1 and len(labels) == 2):
        raise PackRefused(
            f"the model returns {columns} numbers a row, but --labels names {len(labels)}: "
            f"{', '.join(labels)}"
        )
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores).all(axis=1)).sum())
        raise PackRefused(
            f"the model returns NaN or infinity on {bad} of {len(scores)} calibration rows; "
            "if these have missing values, put an imputation into the graph"
        )
    about = f"; the one column speaks for {labels[1]!r}" if columns == 1 else ""
    if told:
        return Reading(told, f"the model returns {told}, as --returns says{about}")
    if softened:
        reason = f"the model ends in {softened}: what goes into it is taken as logits{about}"
        return Reading("logits", reason)
    return _read_values(scores, about)


def _read_values(scores: NDArray[np.floating], about: str) -> Reading:
    least, most = -PROBABILITY_TOLERANCE, 1 + PROBABILITY_TOLERANCE
    is_within = bool(((scores >= least) & (scores <= most)).all())
    if not is_within:
        seen = f"from {scores.min():.3g} to {scores.max():.3g}"
        return Reading("logits", f"the numbers reach {seen}, so they are logits{about}")
    if scores.shape[1] == 1:
        reason = f"all numbers lie between 0 and 1, so they are probabilities{about}"
        return Reading("probabilities", reason)
    sums = scores.sum(axis=1)
    if np.abs(sums - 1).max() <= SUM_TOLERANCE:
        reason = "each row lies between 0 and 1 and sums to 1, so they are probabilities"
        return Reading("probabilities", reason)
    raise PackRefused(
        "the numbers lie between 0 and 1 but their rows do not sum to 1; say --returns logits, or "
        "--returns probabilities if each label has a sigmoid of its own"
    )
