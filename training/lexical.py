"""How foreign is a text: the distance of its shares of unknown words and pairs from the usual.

The shares of a short text scatter more than those of a long one. A distance that did not know would
call every short review foreign; ours divides by what is usual at that length.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Profile:
    """What is usual: squared distance |(shares - centre) @ scale|^2 is `base` + `scatter` / n.

    n is the number of tokens.
    """

    centre: NDArray[np.float64]
    """Shape (shares,)."""

    scale: NDArray[np.float64]
    """Shape (shares, shares), the inverse covariance's Cholesky factor."""

    base: float
    scatter: float


def fit_profile(
    shares: NDArray[np.floating],
    cut_shares: NDArray[np.floating],
    cut_lengths: NDArray[np.floating],
) -> Profile:
    """Return the profile of whole texts and of texts cut to various lengths.

    Args:
        shares: shape (rows, shares), of whole texts.
        cut_shares: shape (cuts, shares), of texts of every length that may come.
        cut_lengths: shape (cuts,), tokens of each.
    """
    centre = shares.mean(axis=0, dtype=np.float64)
    scale = np.linalg.cholesky(np.linalg.inv(np.cov(shares.T))).astype(np.float64)
    squares = (((cut_shares - centre) @ scale) ** 2).sum(axis=1)
    features = np.stack([np.ones_like(cut_lengths), 1 / np.maximum(cut_lengths, 1)], axis=1)
    # Relative errors count alike, or the shortest texts alone would decide.
    weights = 1 / (features @ [1.0, 50.0])
    (base, scatter), *_ = np.linalg.lstsq(features * weights[:, None], squares * weights)
    return Profile(centre, scale, max(float(base), 1.0), max(float(scatter), 0.0))


class LexicalDistance(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Takes shares (rows, shares) and lengths (rows,), returns (rows, 1); 1 is usual."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self._centre = profile.centre.astype(np.float32)
        self._scale = profile.scale.astype(np.float32)
        self._base = profile.base
        self._scatter = profile.scatter

    def call(self, shares: keras.KerasTensor, lengths: keras.KerasTensor) -> keras.KerasTensor:
        """Return the squared distance in units of the usual one at that length."""
        # Sums row by row instead of a product of matrices: a batch must not change a bit.
        difference = ops.expand_dims(shares - self._centre, 2)
        scaled = ops.sum(difference * self._scale, axis=1)
        usual = self._base + self._scatter / ops.maximum(lengths, 1.0)
        return ops.expand_dims(ops.sum(ops.square(scaled), axis=1) / usual, 1)
