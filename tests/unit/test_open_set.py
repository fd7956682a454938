"""Fitting on known pictures and outliers at once."""

from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle.manifest import ImageInput
from training import novelty, open_set, outliers
from training.augmentation import Augmentation
from training.fitting import fit_epochs
from training.recipe import Data, Split, Splits, Workbench
from training.recipes import mnist

# Keras 3.15 writes weights by an `__array__` that numpy 2 finds old.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

LABELS = 3


def tiny_network() -> keras.Model:
    keras.utils.set_random_seed(0)
    rows = keras.Input((28, 28), dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(rows))
    features = keras.layers.Dense(16, activation="relu")(flat)
    return novelty.with_novelty(rows, features, LABELS, code=4, hidden=8)


def truth(**changes: object) -> dict[str, object]:
    """Two known rows of label 0 and 1, two outliers."""
    guesses = np.vstack([np.eye(LABELS)[:2], np.full((2, LABELS), 1 / LABELS)])
    is_none = np.array([0, 0, 1, 1.0])
    return {
        "guesses": guesses.astype(np.float32),
        "is_none": is_none.astype(np.float32),
        "is_known": (1 - is_none).astype(np.float32),
        "canonical": np.zeros((4, 784), np.float32),
        **changes,
    }


def outputs(joint: object) -> dict[str, NDArray[np.float32]]:
    return {"joint": np.array(joint, np.float32), "redrawn": np.zeros((4, 784), np.float32)}


RIGHT = [[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 0, 9], [0, 0, 0, 9]]


def test_loss_is_least_when_known_rows_and_outliers_are_told_apart() -> None:
    right = float(open_set.open_set_loss(truth(), outputs(RIGHT)))

    wrong_label = float(open_set.open_set_loss(truth(), outputs([RIGHT[1], *RIGHT[1:]])))
    answered = float(open_set.open_set_loss(truth(), outputs([*RIGHT[:3], RIGHT[0]])))
    refused = float(open_set.open_set_loss(truth(), outputs([RIGHT[2], *RIGHT[1:]])))

    # What is left of a right batch is the pull of the outliers towards even probabilities.
    assert right == pytest.approx(0.15 * np.log(LABELS), abs=0.01)
    assert min(wrong_label, answered, refused) > right + 1


def test_decoder_learns_from_known_rows_only() -> None:
    canonical = np.zeros((4, 784), np.float32)
    known, outlier = canonical.copy(), canonical.copy()
    known[0] = outlier[3] = 1  # a flat outlier, which teaches nothing either

    losses = [
        float(open_set.open_set_loss(truth(canonical=target), outputs(RIGHT)))
        for target in (canonical, known, outlier)
    ]

    # One of two known rows is off by 1 in every pixel.
    assert losses[1] - losses[0] == pytest.approx(open_set.DECODER_WEIGHT / 2, rel=1e-4)
    assert losses[2] == losses[0]


def test_decoder_is_pushed_away_from_outliers() -> None:
    shapes = np.random.default_rng(0).random((4, 784)).astype(np.float32)
    of_known, of_outlier = (outputs(RIGHT) for _ in range(2))
    of_known["redrawn"][0] = shapes[0]
    of_outlier["redrawn"][3] = shapes[3]

    before, known, outlier = (
        float(open_set.open_set_loss(truth(canonical=shapes), drawn))
        for drawn in (outputs(RIGHT), of_known, of_outlier)
    )

    # All of one outlier is redrawn, over two known rows.
    assert outlier - before == pytest.approx(open_set.REDRAWN_WEIGHT / 2, rel=1e-3)
    assert known < before


def test_two_labels_at_once_pull_towards_both() -> None:
    both = truth(
        guesses=np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]], np.float32),
        is_none=np.zeros(4, np.float32),
        is_known=np.array([1, 1, 0, 0], np.float32),
    )
    torn = [*RIGHT[:2], [9, 9, 0, 0], [9, 9, 0, 0]]

    losses = [float(open_set.open_set_loss(both, outputs(joint))) for joint in (torn, RIGHT)]

    assert losses[0] < losses[1]


@pytest.mark.slow
def test_batches_hold_known_pictures_first_and_outliers_behind() -> None:
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (60, 28, 28)).astype(np.uint8), np.arange(60) % LABELS)
    mix = outliers.Mix(shares={"noise": 1}, labels=LABELS, turns={})
    pool = outliers.pool(split, mix, 30, seed=1)

    batches = open_set.open_set_batches(split, pool, mnist.AUGMENTATION, (20, 10), seed=1)
    rows, truths = next(iter(batches(0)))
    again, _ = next(iter(batches(0)))

    assert rows.shape == (30, 28, 28)
    assert np.array_equal(rows, again)
    assert truths["is_known"].numpy().tolist() == [1] * 20 + [0] * 10
    assert truths["is_none"].numpy().tolist() == [0] * 20 + [1] * 10
    assert truths["canonical"].shape == (30, 784)
    assert len(list(batches(1))) == 3


@pytest.mark.slow
def test_what_is_served_tells_noise_from_known_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_set, "WARM_UP_STEPS", 5)
    rows = np.zeros((300, 28, 28), np.uint8)
    targets = np.arange(300) % LABELS
    for label in range(LABELS):
        rows[targets == label, 4:24, 4 + 8 * label : 8 + 8 * label] = 255
    split = Split(rows, targets)
    course = open_set.Course(
        epochs=8,
        batch_rows=(50, 50),
        peak_rate=0.01,
        weight_decay=0.0,
        augmentation=Augmentation(noise=5),
        mix=outliers.Mix(shares={"noise": 1}, labels=LABELS, turns={}),
        pool_rows=300,
    )
    data = Data(
        splits=Splits(train=split, validation=split),
        input=ImageInput(height=28, width=28, channels=1),
        sha256={},
        mixture="shapes",
    )

    fitted = open_set.fit(tiny_network, course, 1, data, Workbench(tmp_path))

    noise = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    known = {name: np.asarray(values) for name, values in fitted.model(rows).items()}
    strange = np.asarray(fitted.model(noise)["novelty_scores"])
    assert (known["logits"].argmax(axis=1) == targets).all()
    assert known["logits"].dtype == np.float32  # whatever it was fitted in
    assert (known["novelty_scores"].max(axis=0) < strange.min(axis=0)).all()
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
def test_interrupted_fit_carries_on_with_the_same_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (60, 28, 28)).astype(np.uint8), np.arange(60) % LABELS)
    mix = outliers.Mix(shares={"noise": 1}, labels=LABELS, turns={})
    pool = outliers.pool(split, mix, 60, seed=1)
    batches = open_set.open_set_batches(split, pool, Augmentation(noise=5), (20, 20), seed=1)

    def fit(folder: Path, *stops: int) -> NDArray[np.float32]:
        for epochs in stops:
            fitted = open_set.OpenSetFit(tiny_network())
            fitted.compile(keras.optimizers.Adam(0.01), jit_compile=False)
            fit_epochs(fitted, batches, split, epochs, Workbench(folder))
        weights: NDArray[np.float32] = fitted.network.get_weights()[0]
        return weights

    # Sums in another order, three steps long.
    assert np.allclose(fit(tmp_path / "a", 2), fit(tmp_path / "b", 1, 2), atol=1e-5)
