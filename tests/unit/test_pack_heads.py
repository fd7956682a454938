"""What stands around a user's model: the same in Keras and in every ONNX opset."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from training_toys import blobs

from training.errors import PackRefused
from training.packing.heads import (
    LEAST_PROBABILITY,
    LEAST_ROUNDED,
    Energy,
    Entry,
    Exit,
    LowProbability,
    fit_entry,
    fit_mahalanobis,
    least_probability,
    read_scores,
)
from training.packing.ops import Nodes

SPLIT = blobs(200, seed=3)
FEATURES = SPLIT.rows.astype(np.float32)
SCORES = np.random.default_rng(2).normal(0, 3, (20, 3)).astype(np.float32)
LABELS = ("a", "b", "c")


def with_keras(last: Exit, scores: NDArray[Any], features: NDArray[Any]) -> dict[str, Any]:
    import keras  # noqa: PLC0415  # slow; only these tests need it

    outputs = last.apply(keras.ops, keras.ops.array(scores), keras.ops.array(features))
    return {name: np.asarray(value) for name, value in outputs.items()}


def with_onnx(
    last: Exit, scores: NDArray[Any], features: NDArray[Any], opset: int
) -> dict[str, Any]:
    nodes = Nodes(opset)
    for name, value in last.apply(nodes, "scores", "features").items():
        nodes.name(value, name)
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", values.shape[1]])
        for name, values in (("scores", scores), ("features", features))
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in last.widths.items()
    ]
    graph = helper.make_graph(nodes.nodes, "heads", given, outputs, nodes.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    onnx.checker.check_model(model, full_check=True)
    found = ReferenceEvaluator(model).run(None, {"scores": scores, "features": features})
    return dict(zip(last.widths, found, strict=True))


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
@pytest.mark.parametrize(
    "last",
    [
        pytest.param(Exit("logits", 3, Energy()), id="energy"),
        pytest.param(Exit("logits", 3, LowProbability()), id="low probability"),
        pytest.param(Exit("logits", 3, fit_mahalanobis(FEATURES, SPLIT.targets)), id="mahalanobis"),
    ],
)
def test_keras_and_onnx_put_the_same_behind_a_model(last: Exit, opset: int) -> None:
    expected = with_keras(last, SCORES, SPLIT.rows[:20])

    found = with_onnx(last, SCORES, SPLIT.rows[:20], opset)

    assert found.keys() == expected.keys()
    for name in expected:
        # 1e-5: float32 in another order.
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, rtol=1e-5)


def test_mahalanobis_distance_is_that_of_the_nearest_label() -> None:
    rows = SPLIT.rows.astype(np.float64)
    means = np.stack([rows[SPLIT.targets == label].mean(axis=0) for label in range(3)])
    within = rows - means[SPLIT.targets]
    precision = np.linalg.inv(within.T @ within / len(rows))
    gaps = rows[:, None] - means
    expected = np.log1p(np.einsum("rli,ij,rlj->rl", gaps, precision, gaps).min(axis=1))

    head = fit_mahalanobis(FEATURES, SPLIT.targets)
    found = with_keras(Exit("logits", 3, head), SCORES[:1], SPLIT.rows)["novelty_scores"][:, 0]

    # 5 %: correlations are shrunk.
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)


def test_column_that_never_changes_measures_nothing_by_itself() -> None:
    rows = np.column_stack([FEATURES, np.full(200, 7.0)])

    head = fit_mahalanobis(rows, SPLIT.targets)

    assert np.isfinite(head.whitening).all()


def test_certain_probabilities_stay_finite() -> None:
    certain = np.array([[0, 1, 0], [1, 0, 0]], np.float32)
    one_column = np.array([[0], [1]], np.float32)

    logits = with_keras(Exit("probabilities", 3, LowProbability()), certain, certain)["logits"]
    two = with_keras(Exit("probabilities", 1, LowProbability()), one_column, certain)["logits"]

    assert np.isfinite(logits).all()
    assert logits.argmax(axis=1).tolist() == [1, 0]
    assert np.isfinite(two).all()
    assert two.argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("scores", "labels", "softened", "expected"),
    [
        pytest.param([[2.0, -1.0, 0.0]], LABELS, "", "logits", id="any numbers"),
        pytest.param([[0.2, 0.5, 0.3]], LABELS, "", "probabilities", id="sums to one"),
        pytest.param([[0.2, 0.9, 0.3]], LABELS, "softmax", "logits", id="in front of softmax"),
        pytest.param([[0.9]], LABELS[:2], "", "probabilities", id="column within 0 and 1"),
        pytest.param([[1.9]], LABELS[:2], "", "logits", id="column beyond 1"),
        pytest.param([[0.0, 1.0000001, 0.0]], LABELS, "", "probabilities", id="sum of rounded"),
    ],
)
def test_numbers_are_read_and_the_reason_is_told(
    scores: list[list[float]], labels: tuple[str, ...], softened: str, expected: str
) -> None:
    reading = read_scores(np.array(scores), labels, None, softened)

    assert reading.returns == expected
    assert expected in reading.reason
    assert ("speaks for 'b'" in reading.reason) == (len(scores[0]) == 1)


def test_numbers_that_could_be_either_are_refused() -> None:
    with pytest.raises(PackRefused, match="say --returns"):
        read_scores(np.array([[0.2, 0.9, 0.3]]), LABELS, None, "")


@pytest.mark.parametrize(
    ("row_shape", "declared", "expected"),
    [
        ((4,), (4,), (4,)),
        ((4,), (None,), (4,)),
        ((8, 6), (8, 6, 1), (8, 6, 1)),
        ((8, 6), (1, 8, 6), (1, 8, 6)),
        ((8, 6), (48,), (48,)),
        ((8, 6, 3), (None, None, 3), (8, 6, 3)),
        ((8, 6, 3), (3, 8, 6), (3, 8, 6)),
    ],
)
def test_rows_are_brought_into_the_shape_of_the_model(
    row_shape: tuple[int, ...], declared: tuple[int | None, ...], expected: tuple[int, ...]
) -> None:
    entry = Entry(row_shape, "float32", (), "float32")

    assert fit_entry(entry, declared).model_shape == expected


def test_rows_of_another_size_are_refused() -> None:
    with pytest.raises(PackRefused, match="shape 5, the calibration file has rows of shape 4"):
        fit_entry(Entry((4,), "float32", (), "float32"), (5,))


SMALL = np.exp(-np.linspace(5, 20, 60, dtype=np.float32))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        pytest.param(np.stack([SMALL, 1 - SMALL], axis=1), LEAST_PROBABILITY, id="of a softmax"),
        pytest.param(1 - np.stack([SMALL, 1 - SMALL], axis=1), LEAST_ROUNDED, id="what is left"),
        pytest.param(np.stack([SMALL, 1 - (1 - SMALL)], axis=1), LEAST_ROUNDED, id="both"),
        pytest.param(np.eye(3, dtype=np.float32), LEAST_ROUNDED, id="of a forest"),
    ],
)
def test_least_probability_is_above_what_is_rounding(
    scores: NDArray[np.float32], expected: float
) -> None:
    assert least_probability(scores) == expected
