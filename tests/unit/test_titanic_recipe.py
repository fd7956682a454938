"""The Titanic's regression in ONNX says what scikit-learn says, missing values and all."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from training.recipes.titanic import DESCRIBED, FIELDS, RECIPE, build, convert

UNKNOWN = np.nan


def passengers(n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return made-up passengers, a tenth of their ages, fares and ports missing."""
    rng = np.random.default_rng(4)
    rows = np.column_stack(
        [
            rng.integers(1, 4, n),
            rng.integers(0, 2, n),
            rng.uniform(1, 70, n),
            rng.integers(0, 3, n),
            rng.integers(0, 3, n),
            rng.uniform(5, 100, n),
            rng.integers(1, 4, n),
        ]
    )
    missing = rng.random((n, 7)) < 0.1
    missing[:, [0, 1, 3, 4]] = False
    rows[missing] = UNKNOWN
    return rows.astype(np.float32), (rows[:, 1] + rng.random(n) > 1).astype(np.int64)


@pytest.fixture(scope="module")
def fitted() -> Any:
    return build().fit(*passengers(200))


def probabilities(content: bytes, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    evaluator = ReferenceEvaluator(onnx.load_model_from_string(content))
    (found,) = evaluator.run(["probabilities"], {"passengers": rows})
    return np.asarray(found)


def test_graph_says_what_scikit_learn_says(fitted: Any) -> None:
    rows, _ = passengers(50)

    found = probabilities(convert(fitted), rows)

    assert np.isnan(rows).any()
    # 1e-5: the graph is float32.
    np.testing.assert_allclose(found, fitted.predict_proba(rows), atol=1e-5)


def test_passenger_of_whom_nothing_optional_is_known_is_answered(fitted: Any) -> None:
    unknown = [UNKNOWN if field.nullable else 1 for field in FIELDS]

    found = probabilities(convert(fitted), np.array([unknown], np.float32))

    assert np.isfinite(found).all()


def test_port_that_nobody_knows_does_not_fail_the_batch(fitted: Any) -> None:
    rows = np.array([[1, 1, 30, 0, 0, 50, 9], [1, 1, 30, 0, 0, 50, 1.5]], np.float32)

    found = probabilities(convert(fitted), rows)

    assert np.isfinite(found).all()


def test_feature_output_is_in_the_graph(fitted: Any) -> None:
    graph = onnx.load_model_from_string(convert(fitted)).graph

    assert RECIPE.feature_output == DESCRIBED
    assert DESCRIBED in {name for node in graph.node for name in node.output}
