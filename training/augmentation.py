"""Batches of pictures, changed at random in ways that do not change their label.

Pictures are uint8, shape (rows, height, width), values 0-255.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from training.recipe import Split

_PARALLEL_BATCHES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes of a picture that do not change its label; 0 turns one off."""

    rotation_degrees: float = 0
    log_scale: float = 0
    """Sizes between exp(-log_scale) and exp(log_scale)."""

    shear: float = 0
    shift_pixels: float = 0
    flip_share: float = 0
    """Share of pictures that are mirrored left to right."""

    least_span: float = 1
    """Least contrast; 1 keeps it."""

    noise: float = 0
    """Largest standard deviation of the noise, in grey levels."""

    erased_share: float = 0
    """Share of pictures that lose a rectangle."""

    untouched_share: float = 0
    """Share of pictures that stay as they are."""


def augmented_batches(
    split: Split, augmentation: Augmentation, batch_rows: int, seed: int
) -> Callable[[int], tf.data.Dataset]:
    """Return epoch -> shuffled, augmented batches (uint8), the same for the same epoch."""
    rows = tf.constant(split.rows)
    targets = tf.constant(split.targets)

    def batches(epoch: int) -> tf.data.Dataset:
        order = np.random.default_rng((seed, epoch)).permutation(len(split.targets))
        whole = len(order) // batch_rows * batch_rows
        steps = order[:whole].reshape(-1, batch_rows)

        def batch(step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            draw = tf.stack([tf.constant(seed + epoch * 1_000_003, tf.int64), step])
            return augment(tf.gather(rows, chosen), augmentation, draw), tf.gather(targets, chosen)

        numbered = tf.data.Dataset.from_tensor_slices((np.arange(len(steps)), steps))
        return numbered.map(batch, num_parallel_calls=_PARALLEL_BATCHES).prefetch(2)

    return batches


def plain_batches(split: Split, batch_rows: int, seed: int) -> Callable[[int], tf.data.Dataset]:
    """Return epoch -> shuffled batches of the pictures as they are."""
    return augmented_batches(split, Augmentation(untouched_share=1), batch_rows, seed)


def augment(pictures: tf.Tensor, by: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Return changed pictures, uint8.

    Args:
        pictures: uint8, shape (rows, height, width).
        by: which changes, and how strong.
        seed: shape (2,), integers, as TensorFlow's stateless draws take it.
    """
    if by.untouched_share == 1:
        return pictures
    seeds = iter(tf.unstack(tf.random.experimental.stateless_split(seed, 5)))
    original = tf.cast(pictures, tf.float32)
    changed = _warp(original, by, next(seeds))
    if by.erased_share:
        changed = _erase(changed, by.erased_share, next(seeds))
    if by.least_span < 1:
        changed = _flatten(changed, by.least_span, next(seeds))
    if by.noise:
        changed = _add_noise(changed, by.noise, next(seeds))
    if by.untouched_share:
        is_kept = _draw(original, next(seeds)) < by.untouched_share
        changed = tf.where(is_kept, original, changed)
    return tf.cast(tf.clip_by_value(tf.round(changed), 0, 255), tf.uint8)


def _draw(pictures: tf.Tensor, seed: tf.Tensor, low: float = 0, high: float = 1) -> tf.Tensor:
    """Return one uniform number a picture, shape (rows, 1, 1)."""
    return tf.random.stateless_uniform((tf.shape(pictures)[0], 1, 1), seed, low, high)


def _warp(pictures: tf.Tensor, by: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Return the pictures turned, scaled, sheared, moved and mirrored about their middle."""
    height, width = pictures.shape[1:]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))

    def drawn(number: int, size: float) -> tf.Tensor:
        return tf.reshape(_draw(pictures, seeds[number], -size, size), (-1,))

    angle = drawn(0, by.rotation_degrees * np.pi / 180)
    scale = tf.exp(drawn(1, by.log_scale))
    shear = drawn(2, by.shear)
    mirror = tf.where(drawn(3, 1) < 2 * by.flip_share - 1, -1.0, 1.0)
    # The matrix maps places of the result to places of the source.
    a, b = mirror * tf.cos(angle) / scale, (shear - tf.sin(angle)) / scale
    c, d = mirror * tf.sin(angle) / scale, tf.cos(angle) / scale
    x, y = (width - 1) / 2, (height - 1) / 2
    right = x - a * x - b * y + drawn(4, by.shift_pixels)
    down = y - c * x - d * y + drawn(5, by.shift_pixels)
    zero = tf.zeros_like(a)
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures[..., tf.newaxis],
        transforms=tf.stack([a, b, right, c, d, down, zero, zero], axis=1),
        output_shape=(height, width),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
    return warped[..., 0]


def _erase(pictures: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    """Return the pictures, a share of them with noise in a rectangle. Zhong et al. 2017."""
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    size = float(pictures.shape[1])
    is_inside = _draw(pictures, seeds[0]) < share
    for axis, number in ((1, 1), (2, 3)):
        middle = _draw(pictures, seeds[number], 0, size)
        half = _draw(pictures, seeds[number + 1], 2, size / 4)
        shape = (1, -1, 1) if axis == 1 else (1, 1, -1)
        place = tf.reshape(tf.range(size), shape)
        is_inside = is_inside & (tf.abs(place - middle) < half)
    noise = tf.random.stateless_uniform(tf.shape(pictures), seeds[5], 0, 255)
    return tf.where(is_inside, noise, pictures)


def _flatten(pictures: tf.Tensor, least_span: float, seed: tf.Tensor) -> tf.Tensor:
    """Return the pictures with less contrast, somewhere between black and white."""
    first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    span = _draw(pictures, first, least_span, 1)
    return span * pictures + _draw(pictures, second) * (1 - span) * 255


def _add_noise(pictures: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    noise = tf.random.stateless_normal(tf.shape(pictures), second)
    return pictures + noise * _draw(pictures, first, 0, largest)
