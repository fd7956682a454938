"""Batches of pictures, changed at random in ways that do not change their label.

Pictures are uint8, shape (rows, height, width), values 0-255.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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

    thickness: float = 0
    """Largest share of the way to strokes that are a pixel thicker or thinner on each side."""

    least_span: float = 1
    """Least contrast; 1 keeps it."""

    blur: float = 0
    """Largest share of the way to a blurred picture; half as far to the other side, to halos."""

    shade: float = 0
    """Largest slope of the light across the picture, as a share of the contrast."""

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

    def batch(draw: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return augment(tf.gather(rows, chosen), augmentation, draw), tf.gather(targets, chosen)

    return lambda epoch: shuffled_batches(len(split.targets), batch_rows, (seed, epoch), batch)


def shuffled_batches(
    n: int, batch_rows: int, seed: tuple[int, int], batch: Callable[..., Any]
) -> tf.data.Dataset:
    """Return what `batch` makes of whole batches of `n` shuffled rows.

    Args:
        n: how many rows there are; less than a batch of them is left out.
        batch_rows: how many rows make a batch.
        seed: of the order, and of a draw for each batch.
        batch: draw, shape (2,), and numbers of rows, shape (batch_rows,) -> a batch.
    """
    order = np.random.default_rng(seed).permutation(n)
    steps = order[: n // batch_rows * batch_rows].reshape(-1, batch_rows)
    draws = np.stack([np.full(len(steps), seed[0] + seed[1] * 1_000_003), np.arange(len(steps))], 1)
    numbered = tf.data.Dataset.from_tensor_slices((draws, steps))
    return numbered.map(batch, num_parallel_calls=_PARALLEL_BATCHES).prefetch(2)


def plain_batches(split: Split, batch_rows: int, seed: int) -> Callable[[int], tf.data.Dataset]:
    """Return epoch -> shuffled batches of the pictures as they are."""
    return augmented_batches(split, Augmentation(untouched_share=1), batch_rows, seed)


class Augmented(NamedTuple):
    """Pictures before and after the light fell on them."""

    shape: tf.Tensor
    """float32, 0-255, (rows, height, width): turned, moved, thickened, in full contrast."""

    seen: tf.Tensor
    """uint8, the same shape: with blur, shade, contrast and noise."""


def augment(pictures: tf.Tensor, by: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Return changed pictures, uint8; see `augmented`."""
    return augmented(pictures, by, seed).seen


def augmented(pictures: tf.Tensor, by: Augmentation, seed: tf.Tensor) -> Augmented:
    """Return changed pictures, before and after the light fell on them.

    Args:
        pictures: uint8, shape (rows, height, width).
        by: which changes, and how strong.
        seed: shape (2,), integers, as TensorFlow's stateless draws take it.
    """
    original = tf.cast(pictures, tf.float32)
    if by.untouched_share == 1:
        return Augmented(original, pictures)
    first, second, third = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    shape = _deform(original, by, first)
    seen = _expose(shape, by, second)
    if by.untouched_share:
        is_kept = _draw(original, third) < by.untouched_share
        shape, seen = (tf.where(is_kept, original, changed) for changed in (shape, seen))
    return Augmented(shape, tf.cast(tf.clip_by_value(tf.round(seen), 0, 255), tf.uint8))


def _deform(pictures: tf.Tensor, by: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Return the pictures with what is in them changed."""
    first, second, third = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    pictures = _warp(pictures, by, first)
    if by.thickness:
        pictures = _thicken(pictures, by.thickness, second)
    if by.erased_share:
        pictures = _erase(pictures, by.erased_share, third)
    return pictures


def _expose(pictures: tf.Tensor, by: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Return the pictures as a camera might have taken them."""
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    if by.blur:
        pictures = _blur(pictures, by.blur, seeds[0])
    if by.shade:
        pictures = _shade(pictures, by.shade, seeds[1])
    if by.least_span < 1:
        pictures = _flatten(pictures, by.least_span, seeds[2])
    if by.noise:
        pictures = _add_noise(pictures, by.noise, seeds[3])
    return pictures


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
        # Without dark corners: they would give away outliers that fill the frame.
        fill_mode="NEAREST",
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


def _thicken(pictures: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    """Return the pictures on their way to the brightest or darkest of each pixel's neighbours."""
    amount = _draw(pictures, seed, -largest, largest)
    sign = tf.sign(amount)
    extreme = sign * tf.nn.max_pool2d((sign * pictures)[..., tf.newaxis], 3, 1, "SAME")[..., 0]
    return pictures + tf.abs(amount) * (extreme - pictures)


def _blur(pictures: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    """Return the pictures on their way to the mean of 3 x 3 pixels, or away from it."""
    blurred = tf.nn.avg_pool2d(pictures[..., tf.newaxis], 3, 1, "SAME")[..., 0]
    return pictures + _draw(pictures, seed, -largest / 2, largest) * (blurred - pictures)


def _shade(pictures: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    """Return the pictures with a slope of light over them."""
    first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    line = tf.linspace(-0.5, 0.5, pictures.shape[1]) * 255
    across = _draw(pictures, first, -largest, largest) * tf.reshape(line, (1, 1, -1))
    return pictures + across + _draw(pictures, second, -largest, largest) * line[:, tf.newaxis]


def _flatten(pictures: tf.Tensor, least_span: float, seed: tf.Tensor) -> tf.Tensor:
    """Return the pictures with less contrast, somewhere between black and white."""
    first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    span = _draw(pictures, first, least_span, 1)
    return span * pictures + _draw(pictures, second) * (1 - span) * 255


def _add_noise(pictures: tf.Tensor, largest: float, seed: tf.Tensor) -> tf.Tensor:
    first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    noise = tf.random.stateless_normal(tf.shape(pictures), second)
    return pictures + noise * _draw(pictures, first, 0, largest)
