"""Fits a network on known pictures and on outliers that code has made, both at once.

Outlier exposure, Hendrycks et al. 2019, with a label of its own for "none" and without a single
real outlier; and a decoder that learns to redraw the known pictures only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from training import novelty, outliers
from training.augmentation import Augmentation, augmented, shuffled_batches
from training.fitting import fast_arithmetic, fit_epochs
from training.recipe import Data, Fitted, Split, Workbench

NONE_WEIGHT = 0.5  # of an outlier, beside a known row
EVEN_WEIGHT = 0.3  # of the pull towards even probabilities, beside "none"
TWO_LABELS_WEIGHT = 1.0
DECODER_WEIGHT = 3.0
REDRAWN_WEIGHT = 0.1  # of the share of an outlier that the decoder explains
LEAST_DEVIATION = 0.01  # of canonical pictures; flatter outliers teach the decoder nothing


WARM_UP_STEPS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a network is fitted on known pictures and outliers."""

    epochs: int
    """Passes over the known pictures; the learning rate falls to nothing like a cosine."""

    batch_rows: tuple[int, int]
    """Known pictures and outliers in a batch."""

    peak_rate: float
    """Largest learning rate, reached after `WARM_UP_STEPS`."""

    weight_decay: float
    augmentation: Augmentation
    mix: outliers.Mix
    pool_rows: int
    """How many outliers are made; batches draw from them."""


def fit(
    build: Callable[[], keras.Model], course: Course, seed: int, data: Data, workbench: Workbench
) -> Fitted:
    """Fit what `build` returns, a network of `novelty.with_novelty`, and return it for serving."""
    keras.utils.set_random_seed(seed)
    train = data.splits.train
    steps = course.epochs * (len(train.targets) // course.batch_rows[0])
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - WARM_UP_STEPS, warmup_target=course.peak_rate, warmup_steps=WARM_UP_STEPS
    )
    with fast_arithmetic():
        fitted = OpenSetFit(build())
    fitted.compile(keras.optimizers.AdamW(rate, course.weight_decay), jit_compile=False)
    pool = outliers.pool(train, course.mix, course.pool_rows, seed)
    batches = open_set_batches(train, pool, course.augmentation, course.batch_rows, seed)
    curves = fit_epochs(fitted, batches, data.splits.validation, course.epochs, workbench)
    exact = build()
    exact.set_weights(fitted.network.get_weights())
    return Fitted(model=novelty.serving_model(exact), curves=curves)


def open_set_batches(
    split: Split,
    pool: outliers.Outliers,
    augmentation: Augmentation,
    batch_rows: tuple[int, int],
    seed: int,
) -> Callable[[int], tf.data.Dataset]:
    """Return epoch -> batches of known pictures, then outliers, for `OpenSetFit`.

    Both go through the same augmentation, so that contrast, place and noise tell nothing.

    Args:
        split: known pictures; an epoch sees each of them once.
        pool: outliers, drawn from anew for each batch.
        augmentation: of both.
        batch_rows: known pictures and outliers in a batch.
        seed: of every draw.
    """
    labels = pool.guesses.shape[1]
    known_rows, outlier_rows = batch_rows
    is_known = tf.constant([1.0] * known_rows + [0.0] * outlier_rows)
    rows, targets = tf.constant(split.rows), tf.constant(split.targets)
    others = [tf.constant(part) for part in pool]

    def batch(draw: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        pick = tf.random.stateless_uniform((outlier_rows,), draw, 0, len(others[0]), tf.int64)
        pictures, guesses, is_none = (tf.gather(part, pick) for part in others)
        known = tf.one_hot(tf.gather(targets, chosen), labels)
        both = tf.concat([tf.gather(rows, chosen), pictures], axis=0)
        shape, seen = augmented(both, augmentation, draw)
        return seen, {
            "guesses": tf.concat([known, guesses], axis=0),
            "is_none": tf.concat([tf.zeros(known_rows), is_none], axis=0),
            "is_known": is_known,
            "canonical": tf.reshape(shape / 255, (known_rows + outlier_rows, -1)),
        }

    return lambda epoch: shuffled_batches(len(split.targets), known_rows, (seed, epoch), batch)


class OpenSetFit(keras.Model):  # type: ignore[misc]  # Keras has no types
    """Fits a network of `novelty.with_novelty` on known pictures and outliers.

    The truth of training rows is a mapping: `guesses` (rows, labels), `is_none` and `is_known`
    (rows,), `canonical` (rows, pixels) from 0 to 1; a row that is neither none nor known shows two
    labels at once. That of rows that are only measured is (rows,), the target.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.network = network
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.built = True  # as its network is; otherwise a checkpoint could not be loaded

    def call(self, pictures: keras.KerasTensor, *, training: bool = False) -> Any:
        """Return the outputs of the network."""
        return self.network(pictures, training=training)

    def compute_loss(self, _: Any, y: Any, y_pred: Any, *__: Any) -> keras.KerasTensor:
        """Return the mean loss of a known row, its share of the outliers' included."""
        if isinstance(y, dict):
            return open_set_loss(y, y_pred)
        logits = y_pred["joint"][:, :-1]
        return ops.mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))

    def compute_metrics(self, _: Any, y: Any, y_pred: Any, **__: Any) -> Any:
        """Return loss and accuracy; of training rows only the known ones count."""
        best = ops.argmax(y_pred["joint"][:, :-1], axis=1)
        if isinstance(y, dict):
            is_right = ops.equal(best, ops.argmax(y["guesses"], axis=1))
            self.accuracy.update_state(is_right, sample_weight=y["is_known"])
        else:
            self.accuracy.update_state(ops.equal(best, ops.cast(y, best.dtype)))
        return self.get_metrics_result()


def open_set_loss(truth: Any, outputs: Any) -> keras.KerasTensor:
    """Return the loss of a batch, divided by its known rows.

    Known rows: cross entropy over labels and none, and the decoder's squared error. Outliers: that
    of "none", a pull of the labels' probabilities towards even ones, and a push of the decoder
    away from the picture. Rows with two labels: cross entropy with half the probability to each.
    """
    joint = ops.log_softmax(outputs["joint"], axis=1)
    labels = ops.log_softmax(outputs["joint"][:, :-1], axis=1)
    canonical, redrawn = truth["canonical"], outputs["redrawn"]
    one_of_us = -ops.sum(truth["guesses"] * joint[:, :-1], axis=1)
    evenness = -ops.sum(truth["guesses"] * labels, axis=1)
    known = one_of_us + DECODER_WEIGHT * ops.mean(ops.square(redrawn - canonical), axis=1)
    none = NONE_WEIGHT * (EVEN_WEIGHT * evenness - joint[:, -1])
    none += REDRAWN_WEIGHT * novelty.explained(canonical, redrawn, LEAST_DEVIATION)
    is_none, is_known = truth["is_none"], truth["is_known"]
    has_two = 1 - is_known - is_none
    losses = is_known * known + is_none * none + has_two * TWO_LABELS_WEIGHT * one_of_us
    return ops.sum(losses) / ops.sum(is_known)
