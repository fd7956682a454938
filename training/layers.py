"""Keras layers that put into the graph what a model does to its rows."""

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

LEAST_CONTRAST = 16.0
"""Grey levels; a flatter picture is not stretched further, or noise would look like ink."""


class DarkGround(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Turns pictures on a bright ground over and stretches them from black to white.

    Takes (rows, height, width), any dtype, values 0-255; returns float32 in [0, 1]. The same for
    x, 255 - x and any a * x + b that leaves enough contrast; a picture that has both black and
    white keeps its grey levels.
    """

    def call(self, pictures: keras.KerasTensor) -> keras.KerasTensor:
        """Return (x - darkest) / contrast, or (brightest - x) / contrast on a bright ground."""
        flat, ground, _ = _with_ground(pictures)
        darkest, brightest = (end(flat, axis=1, keepdims=True) for end in (ops.min, ops.max))
        is_bright = ops.cast(ground * 2 > darkest + brightest, "float32")
        start = darkest + is_bright * (brightest - darkest)
        scale = (1 - 2 * is_bright) / ops.maximum(brightest - darkest, LEAST_CONTRAST)
        return ops.reshape((flat - start) * scale, (-1, *pictures.shape[1:]))


class InkOnGround(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Measures pictures from their ground towards their ink, whatever polarity and contrast.

    Takes (rows, height, width), any dtype, values 0-255; returns float32, 0 on the ground and at
    most 1 in size. The same for x, 255 - x and any a * x + b that leaves enough contrast.
    """

    def call(self, pictures: keras.KerasTensor) -> keras.KerasTensor:
        """Return (x - ground) / contrast, turned over where the ink is darker."""
        flat, ground, mean = _with_ground(pictures)
        ink = flat - ground
        contrast = ops.max(ops.absolute(ink), axis=1, keepdims=True)
        scale = ops.sign(mean - ground) / ops.maximum(contrast, LEAST_CONTRAST)
        return ops.reshape(ink * scale, (-1, *pictures.shape[1:]))


def _with_ground(
    pictures: keras.KerasTensor,
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Return pictures (rows, pixels) as float32, and of each its ground and mean, (rows, 1).

    The ground is the mean of the two middle edges by brightness: robust to ink that touches one or
    two of them, and cheaper than a median of the border. One product sums up all edges: in a small
    network every operation counts.
    """
    height, width = pictures.shape[1:]
    flat = ops.reshape(ops.cast(pictures, "float32"), (-1, height * width))
    sums = ops.matmul(flat, _edges_and_mean(height, width))
    edges, mean = sums[:, :4], sums[:, 4:]
    outer = ops.max(edges, axis=1, keepdims=True) + ops.min(edges, axis=1, keepdims=True)
    return flat, (ops.sum(edges, axis=1, keepdims=True) - outer) / 2, mean


def _edges_and_mean(height: int, width: int) -> NDArray[np.float32]:
    """Return what a flat picture is multiplied with, shape (pixels, 5)."""
    parts = np.zeros((5, height, width), np.float32)
    parts[0, 0, :] = parts[1, -1, :] = 1 / width
    parts[2, :, 0] = parts[3, :, -1] = 1 / height
    parts[4] = 1 / (height * width)
    return parts.reshape(5, -1).T


class Standardise(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Subtracts the mean and divides by the standard deviation, column by column."""

    def __init__(self, mean: NDArray[np.floating], scale: NDArray[np.floating]) -> None:
        super().__init__()
        self._mean = self.add_weight(shape=mean.shape, trainable=False, name="mean")
        self._scale = self.add_weight(shape=scale.shape, trainable=False, name="scale")
        self._mean.assign(mean)
        self._scale.assign(scale)

    def call(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        """Return the standard scores of `rows`, shape (rows, columns)."""
        return (rows - self._mean) / self._scale


class SupportVectors(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The decision function of a support vector machine with a Gaussian kernel.

    Takes (rows, columns), returns (rows, 1): sum_i w_i exp(-gamma |x - v_i|^2) + b. In double
    precision: the weights are large and cancel, so that single precision would leave 6e-5 of
    difference between runtimes, and the contract is 1e-4.
    """

    def __init__(
        self,
        vectors: NDArray[np.floating],
        weights: NDArray[np.floating],
        intercept: float,
        gamma: float,
    ) -> None:
        super().__init__(dtype="float64")
        self._vectors = self.add_weight(shape=vectors.shape, trainable=False, name="vectors")
        self._weights = self.add_weight(shape=(len(weights), 1), trainable=False, name="weights")
        self._vectors.assign(vectors)
        self._weights.assign(weights.reshape(-1, 1))
        self._intercept = intercept
        self._gamma = gamma

    def call(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        """Return the signed distance to the border, positive for the second label, float32."""
        differences = ops.expand_dims(ops.cast(rows, "float64"), 1) - self._vectors
        distances = ops.sum(ops.square(differences), axis=2)
        kernel = ops.exp(-self._gamma * distances)
        return ops.cast(ops.matmul(kernel, self._weights) + self._intercept, "float32")


def two_logits(margin: keras.KerasTensor) -> keras.KerasTensor:
    """Return logits (rows, 2) whose difference is `margin`, shape (rows, 1)."""
    return ops.concatenate([-margin / 2, margin / 2], axis=1)


def serving_model(rows: keras.KerasTensor, logits: keras.KerasTensor) -> keras.Model:
    """Return the model that is exported: logits, and the negative energy as novelty score.

    Energy: Liu et al. 2020, section 3.1, at temperature 1.
    """
    energy = -ops.logsumexp(logits, axis=1, keepdims=True)
    return keras.Model(rows, {"logits": logits, "novelty_scores": energy})
