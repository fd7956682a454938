"""Where equal measurements were found with different labels, nobody can answer.

A machine fitted on such rows takes one side, as the rows around them do, and may be certain of it.
"""

from dataclasses import dataclass
from typing import Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

WIDTHS_TO_THE_NEXT = 5.0
"""At the nearest other row exp(-5^2 / 2) = 4e-6 of the trust is gone: no other row is touched."""


@dataclass(frozen=True, slots=True)
class Contradictions:
    """The points that occur with several labels; trust is 0 there and 1 a few widths away."""

    points: NDArray[np.float64]
    """Shape (points, columns), standard scores; none if no rows contradict each other."""

    width: float
    """Standard deviation of the Gaussian around a point, in the same units."""

    @classmethod
    def find(cls, rows: NDArray[np.floating], targets: NDArray[np.int64]) -> Self:
        """Return the contradictions among `rows`, standard scores of shape (rows, columns).

        The width is a fixed part of the way to the nearest row that is no contradiction.
        """
        distinct, members = np.unique(rows, axis=0, return_inverse=True)
        labels_seen = np.zeros((len(distinct), int(targets.max()) + 1), np.bool_)
        labels_seen[members, targets] = True
        is_point = labels_seen.sum(axis=1) > 1
        points = distinct[is_point].astype(np.float64)
        if not is_point.any():
            return cls(points, 1.0)
        others = NearestNeighbors(n_neighbors=1).fit(distinct[~is_point])
        nearest = float(others.kneighbors(points)[0].min())
        return cls(points, nearest / WIDTHS_TO_THE_NEXT)

    def trust(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return by how much to multiply the margin of `rows`, shape (rows,), from 0 to 1.

        Args:
            rows: standard scores, shape (rows, columns).
        """
        differences = rows.astype(np.float64)[:, None] - self.points
        squares = (differences**2).sum(axis=2)
        kept = 1 - np.exp(-squares / (2 * self.width**2))
        trust: NDArray[np.float64] = kept.prod(axis=1)
        return trust


class Trust(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Takes standard scores (rows, columns), returns `Contradictions.trust`, (rows, 1), float32."""

    def __init__(self, contradictions: Contradictions) -> None:
        super().__init__(dtype="float64")
        points = contradictions.points
        self._points = self.add_weight(shape=points.shape, trainable=False, name="points")
        self._points.assign(points)
        self._scale = 2 * contradictions.width**2

    def call(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        """Return the product over all contradictions of 1 - exp(-|x - c|^2 / (2 width^2))."""
        differences = ops.expand_dims(ops.cast(rows, "float64"), 1) - self._points
        squares = ops.sum(ops.square(differences), axis=2)
        kept = 1 - ops.exp(-squares / self._scale)
        return ops.cast(ops.prod(kept, axis=1, keepdims=True), "float32")
