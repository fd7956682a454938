"""A tiny real graph of three convolutions becomes int8."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import convolution_bundle, halves
from onnx import TensorProto

from training.quantize import convolutions, multiplications, prepare, quantized

ROWS = halves(200, seed=1)


@pytest.fixture
def graph(tmp_path: Path) -> bytes:
    return prepare(convolution_bundle(tmp_path).read("model.onnx"))


def int8_weights(content: bytes) -> int:
    """Return how many weights with more than one axis are int8."""
    tensors = onnx.load_model_from_string(content).graph.initializer
    return sum(each.data_type == TensorProto.INT8 and len(each.dims) > 1 for each in tensors)


def test_convolutions_are_named_in_their_order(graph: bytes) -> None:
    assert convolutions(graph) == ("conv_1", "conv_2", "conv_3")


def test_products_of_each_convolution_are_counted_for_one_row(graph: bytes) -> None:
    counted = multiplications(graph, ROWS[:1])

    assert counted == {
        "conv_1": 4 * 6 * 6 * 9,
        "conv_2": 4 * 4 * 4 * 4 * 9,
        "conv_3": 4 * 2 * 2 * 4 * 9,
    }


def test_named_convolutions_are_int8_and_all_else_stays_float32(graph: bytes) -> None:
    assert int8_weights(graph) == 0
    assert int8_weights(quantized(graph, ["conv_1", "conv_2", "conv_3"], ROWS)) == 3

    some = onnx.load_model_from_string(quantized(graph, ["conv_2"], ROWS)).graph
    types = {each.name: each.data_type for each in some.initializer}
    assert types["filters_1"] == types["filters_3"] == types["sides"] == TensorProto.FLOAT
    assert "filters_2" not in types


def test_quantised_graph_takes_and_returns_the_same(graph: bytes) -> None:
    before, after = (
        onnx.load_model_from_string(each).graph
        for each in (graph, quantized(graph, ["conv_2"], ROWS))
    )

    assert [value.name for value in after.input] == [value.name for value in before.input]
    assert [value.name for value in after.output] == [value.name for value in before.output]


def test_graph_depends_on_nothing_but_rows_and_names(graph: bytes) -> None:
    first, second = (quantized(graph, ["conv_1"], ROWS) for _ in range(2))

    assert first == second
    assert np.array_equal(ROWS, halves(200, seed=1))
