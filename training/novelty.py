"""What makes a network of pictures know what it has never seen: two scores of novelty.

A last logit stands for "none of these", fitted on outliers made by code; a small decoder redraws
the picture from what the network has understood of it, and can do so only for what it was fitted
on. `training.open_set` fits both.
"""

import keras
from keras import ops

NAMES = ("none_of_these", "residual")
"""Of the columns of `novelty_scores`."""

LEAST_DEVIATION = 0.5
"""Grey levels; a picture that varies less is blank and has nothing to redraw."""


class Residual(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The share of a picture that its redrawing does not explain: 1 - squared correlation.

    Takes pictures (rows, height, width), any dtype, values 0-255, and redrawings (rows, pixels) in
    any unit; returns (rows, 1) in [0, 1]. The same for x and any a * x + b, a of either sign;
    1 for a blank picture.
    """

    def call(self, pictures: keras.KerasTensor, redrawn: keras.KerasTensor) -> keras.KerasTensor:
        """Return 1 - r^2, r Pearson's correlation over the pixels."""
        flat = ops.reshape(ops.cast(pictures, "float32"), (-1, redrawn.shape[1]))
        return ops.expand_dims(1 - explained(flat, redrawn, LEAST_DEVIATION), 1)


def explained(
    pictures: keras.KerasTensor, redrawn: keras.KerasTensor, least_deviation: float
) -> keras.KerasTensor:
    """Return the squared correlation of each picture with its redrawing, shape (rows,).

    Args:
        pictures: float32, shape (rows, pixels).
        redrawn: the same shape, any unit.
        least_deviation: of the pictures; where it is less, nothing is explained.
    """
    pictures -= ops.mean(pictures, axis=1, keepdims=True)
    redrawn -= ops.mean(redrawn, axis=1, keepdims=True)
    variance = ops.mean(ops.square(pictures), axis=1)
    product = variance * ops.mean(ops.square(redrawn), axis=1)
    share = ops.square(ops.mean(pictures * redrawn, axis=1)) / ops.maximum(product, 1e-9)
    return share * ops.cast(variance > least_deviation**2, "float32")


def with_novelty(
    pictures: keras.KerasTensor, features: keras.KerasTensor, labels: int, code: int, hidden: int
) -> keras.Model:
    """Return the network that is fitted: pictures -> joint logits and a redrawing.

    Args:
        pictures: input of the network, shape (rows, height, width).
        features: what the network has understood, shape (rows, features).
        labels: how many there are; `joint` has one logit more, for none of them.
        code: numbers that the decoder redraws a picture from.
        hidden: units of the decoder.
    """
    layers = keras.layers
    drawn = layers.Dense(hidden, activation="relu")(layers.Dense(code)(features))
    pixels = pictures.shape[1] * pictures.shape[2]
    # In single precision, whatever the rest is fitted in: losses are small differences.
    outputs = {
        "joint": layers.Dense(labels + 1, dtype="float32", name="joint")(features),
        "redrawn": layers.Dense(pixels, dtype="float32", name="redrawn")(drawn),
    }
    return keras.Model(pictures, outputs)


def serving_model(network: keras.Model) -> keras.Model:
    """Return the model that is exported: the labels' logits and the two novelty scores.

    The first score is the log-odds of "none of these" against all labels together.
    """
    joint = network.output["joint"]
    logits = joint[:, :-1]
    # log-sum-exp of the labels; by the softmax, which is one operation of a graph and not fifteen.
    together = logits[:, :1] - ops.log_softmax(logits, axis=1)[:, :1]
    none_of_these = joint[:, -1:] - together
    residual = Residual()(network.input, network.output["redrawn"])
    scores = ops.concatenate([none_of_these, residual], axis=1)
    return keras.Model(network.input, {"logits": logits, "novelty_scores": scores})
