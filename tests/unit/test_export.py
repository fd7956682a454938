"""A Keras model becomes an ONNX graph whose only input is the rows."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from training import export
from training.layers import serving_model

# Keras 3.15 writes weights by an `__array__` that numpy 2 finds old.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


def test_captured_constants_are_no_inputs(tmp_path: Path) -> None:
    examples = np.random.default_rng(0).normal(3, 2, (50, 2)).astype(np.float32)
    standardise = keras.layers.Normalization()
    standardise.adapt(examples)
    rows = keras.Input((2,))
    model = serving_model(rows, keras.layers.Dense(3)(standardise(rows)))
    export.save_model(model, tmp_path / "saved_model")

    graph = onnx.load_model_from_string(export.to_onnx(tmp_path / "saved_model"))

    (logits,) = ReferenceEvaluator(graph).run(["logits"], {"rows": examples})
    used = {name for node in graph.graph.node for name in node.input}
    assert [value.name for value in graph.graph.input] == ["rows"]
    assert {tensor.name for tensor in graph.graph.initializer} <= used
    # 1e-5: both are float32.
    np.testing.assert_allclose(logits, model.predict(examples, verbose=0)["logits"], atol=1e-5)
