"""A toy recipe: three blobs in the plane, fitted in a second; and scores whose truth is known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from service.bundle.manifest import FeatureField, FeatureInput, TemperatureScaling
from service.decision import calibrated
from training.recipe import Data, Fitted, Recipe, Scores, Split, Splits, Workbench

LABELS = ("left", "right", "top")
CENTRES = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]])


def blobs(n: int, seed: int) -> Split:
    """Rows around three centres, close enough to be mistaken now and then."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, len(LABELS), n)
    rows = CENTRES[targets] + rng.normal(0, 1, (n, 2))
    return Split(rows.astype(np.float32), targets)


def moved(split: Split, by: float) -> Split:
    """The same targets, every row a little elsewhere."""
    return Split((split.rows.astype(np.float64) + by).astype(np.float32), split.targets)


def load(_folder: Path) -> Data:
    test = blobs(1_200, seed=4)
    return Data(
        splits=Splits(
            train=blobs(1_000, seed=1),
            validation=blobs(1_000, seed=2),
            calibration=blobs(2_000, seed=3),
            test=test,
            conditions={"moved": moved(test, 0.5)},
        ),
        input=FeatureInput(fields=(FeatureField(name="x"), FeatureField(name="y"))),
        sha256={"blobs": "0" * 64},
        mixture="blobs",
        outliers={"far away": blobs(100, seed=6).rows.astype(np.float32) + np.float32(50)},
        files={"words.txt": b"travels along\n"},
    )


def fit(data: Data, workbench: Workbench) -> Fitted:
    import keras  # noqa: PLC0415  # slow; only the tests that fit need it

    from training.fitting import fit_epochs  # noqa: PLC0415
    from training.images import compile_classifier  # noqa: PLC0415
    from training.layers import serving_model  # noqa: PLC0415

    keras.utils.set_random_seed(1)
    rows = keras.Input((2,))
    hidden = keras.layers.Dense(8, activation="relu")(rows)
    classifier = keras.Model(rows, keras.layers.Dense(len(LABELS))(hidden))
    compile_classifier(classifier, keras.optimizers.Adam(0.02))
    curves = fit_epochs(classifier, batches_of(data), data.splits.validation, 3, workbench)
    return Fitted(model=serving_model(rows, classifier.output), curves=curves)


def batches_of(data: Data) -> Callable[[int], Any]:
    import tensorflow as tf  # noqa: PLC0415

    train = data.splits.train

    def batches(epoch: int) -> Any:
        order = np.random.default_rng(epoch).permutation(len(train.targets))
        return tf.data.Dataset.from_tensor_slices((train.rows[order], train.targets[order])).batch(
            50
        )

    return batches


def drawn_scores(n: int, *, temperature: float = 1.0, seed: int = 0) -> Scores:
    """Logits whose targets follow softmax(logits / temperature) exactly."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 8, (n, len(LABELS))).astype(np.float32)
    known = TemperatureScaling(temperature=temperature, split="known", n=n)
    cumulative = calibrated(logits, known).cumsum(axis=1)
    targets = (rng.random((n, 1)) > cumulative).sum(axis=1)
    energy = -np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return Scores(logits, energy.astype(np.float32), targets.astype(np.int64))


def toy_recipe(**changes: Any) -> Recipe:
    recipe = Recipe(
        name="toy",
        network="dense 8",
        description="Tells three blobs apart.",
        labels=LABELS,
        seed=5,
        load=load,
        fit=fit,
        max_error=0.05,
        limits=("It is a toy.",),
    )
    return replace(recipe, **changes)
