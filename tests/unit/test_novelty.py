"""What makes a network of pictures know what it has never seen."""

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from training import novelty

LABELS = 3


@pytest.fixture
def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(60, 190, (20, 28, 28)).astype(np.uint8)


def residual(pictures: NDArray[np.generic], redrawn: NDArray[np.generic]) -> NDArray[np.float32]:
    flat = redrawn.reshape(len(redrawn), -1).astype(np.float32)
    values: NDArray[np.float32] = np.asarray(novelty.Residual()(pictures, flat))
    return values[:, 0]


def tiny_network() -> keras.Model:
    keras.utils.set_random_seed(0)
    rows = keras.Input((28, 28), dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(rows))
    features = keras.layers.Dense(16, activation="relu")(flat)
    return novelty.with_novelty(rows, features, LABELS, code=4, hidden=8)


def test_perfect_redrawing_leaves_no_residual(pictures: NDArray[np.uint8]) -> None:
    # Single precision over 784 pixels.
    assert np.abs(residual(pictures, pictures)).max() < 1e-5


@pytest.mark.parametrize(
    ("slope", "offset"),
    [
        pytest.param(-1, 255, id="inverted"),
        pytest.param(0.25, 0, id="dark and flat"),
        pytest.param(-0.5, 240, id="inverted and flat"),
    ],
)
def test_residual_does_not_see_polarity_or_contrast(
    slope: float, offset: float, pictures: NDArray[np.uint8]
) -> None:
    rng = np.random.default_rng(1)
    redrawn = pictures + rng.normal(0, 40, pictures.shape)

    changed = residual(slope * pictures.astype(np.float32) + offset, redrawn)

    # Of values around 0.5, in single precision.
    assert np.allclose(changed, residual(pictures, redrawn), atol=1e-4)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_picture_has_residual_one(level: int) -> None:
    blank = np.full((2, 28, 28), level, np.uint8)

    assert residual(blank, np.zeros((2, 784))).tolist() == [1, 1]
    assert residual(blank, np.random.default_rng(0).random((2, 784))).tolist() == [1, 1]


def test_redrawing_of_something_else_leaves_all(pictures: NDArray[np.uint8]) -> None:
    # Correlation of 784 independent pixels: its square is about 1 / 784.
    assert residual(pictures, pictures[::-1]).min() > 0.95


def test_graph_returns_real_labels_only_and_two_scores(pictures: NDArray[np.uint8]) -> None:
    network = tiny_network()

    outputs = novelty.serving_model(network)(pictures)

    joint = np.asarray(network(pictures)["joint"])
    odds = joint[:, -1] - np.logaddexp.reduce(joint[:, :-1], axis=1)
    assert np.array_equal(outputs["logits"], joint[:, :-1])
    assert outputs["novelty_scores"].shape == (20, len(novelty.NAMES))
    assert np.allclose(outputs["novelty_scores"][:, 0], odds, atol=1e-5)
