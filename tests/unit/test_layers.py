"""Layers that put into the graph what a model does to its rows."""

import keras
import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from training.layers import (
    DarkGround,
    InkOnGround,
    Standardise,
    SupportVectors,
    serving_model,
    two_logits,
)


@pytest.fixture
def pictures() -> np.ndarray:
    """Bright strokes on black, one of them touching an edge."""
    rng = np.random.default_rng(0)
    drawn = np.zeros((20, 28, 28), np.uint8)
    drawn[:, 8:20, 10:16] = rng.integers(100, 256, (20, 12, 6))
    drawn[0, 0, :] = 200
    return drawn


def apply(layer: keras.layers.Layer, pictures: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(layer(pictures)))


@pytest.mark.parametrize("layer", [InkOnGround, DarkGround])
def test_negative_looks_the_same(layer: type[keras.layers.Layer], pictures: np.ndarray) -> None:
    plain, negative = apply(layer(), pictures), apply(layer(), 255 - pictures)

    assert negative == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("layer", [InkOnGround, DarkGround])
@pytest.mark.parametrize(("span", "least"), [(0.15, 0), (0.3, 100), (-0.5, 200)])
def test_picture_looks_the_same_at_any_contrast(
    layer: type[keras.layers.Layer], span: float, least: float, pictures: np.ndarray
) -> None:
    served = np.float32(least) + np.float32(span) * pictures.astype(np.float32)

    assert apply(layer(), served) == pytest.approx(apply(layer(), pictures), abs=1e-4)


@pytest.mark.parametrize("layer", [InkOnGround, DarkGround])
def test_flat_picture_is_not_stretched_to_noise(layer: type[keras.layers.Layer]) -> None:
    faint = np.full((1, 28, 28), 100, np.uint8)
    faint[0, 5, 5] = 101

    assert np.abs(apply(layer(), faint)).max() < 0.1


def test_picture_from_black_to_white_keeps_its_values(pictures: np.ndarray) -> None:
    pictures[:, 10, 12] = 255

    assert apply(DarkGround(), pictures) == pytest.approx(pictures / 255, abs=1e-6)


def test_graph_is_the_support_vector_machine() -> None:
    rows, targets = make_moons(400, noise=0.3, random_state=0)
    scaler = StandardScaler().fit(rows)
    machine = SVC(C=10, gamma=0.7).fit(scaler.transform(rows), targets)

    layer = SupportVectors(
        machine.support_vectors_, machine.dual_coef_[0], float(machine.intercept_[0]), 0.7
    )
    margin = layer(Standardise(scaler.mean_, scaler.scale_)(rows.astype(np.float32)))

    expected = machine.decision_function(scaler.transform(rows))
    # The rows and their standard scores are float32.
    assert np.asarray(margin)[:, 0] == pytest.approx(expected, abs=1e-4)


def test_two_logits_differ_by_the_margin() -> None:
    logits = np.asarray(two_logits(keras.ops.convert_to_tensor([[3.0], [-1.0]])))

    assert (logits[:, 1] - logits[:, 0]).tolist() == [3, -1]


def test_novelty_score_is_higher_where_no_logit_is() -> None:
    rows = keras.Input((3,))
    served = serving_model(rows, rows)

    scores = served(np.array([[9, 0, 0], [0, 0, 0]], np.float32))["novelty_scores"]

    assert scores.shape == (2, 1)
    assert float(scores[0, 0]) < float(scores[1, 0]) == pytest.approx(-np.log(3))
