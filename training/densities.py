"""How unlike the training rows is a row of measurements: a mixture of Gaussians on logarithms.

Measurements have heavy right tails and errors of a factor (another unit, a slipped decimal point).
Both become plain in logarithms, where a factor is a shift.
"""

from dataclasses import dataclass
from typing import Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

WIDTH = 1e-3
"""Least variance of a component, in standard units: equal rows must not become one of no width."""


@dataclass(frozen=True, slots=True)
class Familiar:
    """What is familiar: log p(x) = logsumexp_k(offsets[k] - |z @ factors[k] - centres[k]|^2 / 2).

    z are the standard scores of log(x + shift).
    """

    shift: float
    """Below every step of the instruments, so that 0 has a logarithm."""

    mean: NDArray[np.float64]
    """Shape (columns,), of the logarithms."""

    deviation: NDArray[np.float64]
    """Shape (columns,), of the logarithms."""

    factors: NDArray[np.float64]
    """Shape (components, columns, columns), Cholesky factors of the precisions."""

    centres: NDArray[np.float64]
    """Shape (components, columns), means times factors."""

    offsets: NDArray[np.float64]
    """Shape (components,), logarithms of weight and normalisation."""

    @classmethod
    def fit(cls, rows: NDArray[np.generic], components: int, shift: float, seed: int) -> Self:
        """Return the mixture of greatest likelihood on `rows`, shape (rows, columns), from 0 on."""
        logs = np.log(np.maximum(rows.astype(np.float64), 0) + shift)
        mean, deviation = logs.mean(axis=0), logs.std(axis=0)
        mixture = GaussianMixture(components, reg_covar=WIDTH, random_state=seed)
        mixture.fit((logs - mean) / deviation)
        factors = mixture.precisions_cholesky_
        log_determinants = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        normal = rows.shape[1] * np.log(2 * np.pi) / 2
        centres = np.einsum("kc,kcd->kd", mixture.means_, factors)
        offsets = np.log(mixture.weights_) + log_determinants - normal
        return cls(shift, mean, deviation, factors, centres, offsets)

    def strangeness(self, rows: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return how strange `rows` are, shape (rows, columns), as `Strangeness` does in the graph.

        Minus the logarithm of the density, itself on a logarithmic scale: a row in another unit is
        thousands of units of log density away, where single precision ends.
        """
        logs = np.log(np.maximum(rows.astype(np.float64), 0) + self.shift)
        scores = (logs - self.mean) / self.deviation
        parts = np.einsum("nc,kcd->nkd", scores, self.factors) - self.centres
        terms = self.offsets - (parts**2).sum(axis=2) / 2
        unlikely = -np.logaddexp.reduce(terms, axis=1)
        compressed: NDArray[np.float64] = np.sign(unlikely) * np.log1p(np.abs(unlikely))
        return compressed


class Strangeness(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Takes measurements (rows, columns), returns how strange they are, (rows, 1), float32.

    In double precision: columns that almost determine each other leave small differences.
    """

    def __init__(self, familiar: Familiar) -> None:
        super().__init__(dtype="float64")
        self._shift = familiar.shift
        self._mean = self._constant(familiar.mean, "mean")
        self._deviation = self._constant(familiar.deviation, "deviation")
        self._factors = self._constant(familiar.factors, "factors")
        self._centres = self._constant(familiar.centres, "centres")
        self._offsets = self._constant(familiar.offsets, "offsets")

    def _constant(self, values: NDArray[np.float64], name: str) -> keras.Variable:
        variable = self.add_weight(shape=values.shape, trainable=False, name=name)
        variable.assign(values)
        return variable

    def call(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        """Return sign(x) log(1 + |x|) of the negative logarithm of the density."""
        logs = ops.log(ops.maximum(ops.cast(rows, "float64"), 0) + self._shift)
        scores = (logs - self._mean) / self._deviation
        # (rows, 1, columns, 1) x (components, columns, columns): a product for each component.
        scaled = ops.sum(scores[:, None, :, None] * self._factors, axis=2)
        terms = self._offsets - ops.sum(ops.square(scaled - self._centres), axis=2) / 2
        unlikely = -ops.logsumexp(terms, axis=1, keepdims=True)
        return ops.cast(ops.sign(unlikely) * ops.log(1 + ops.absolute(unlikely)), "float32")
