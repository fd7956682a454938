"""Convolutions in int8: the same graph, several times quicker on processors with such products.

Static quantisation by ONNX Runtime: weights int8 with a scale for each filter, activations uint8
with a range from training rows. What else the graph holds, its heads above all, stays float32.
"""

import math
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

KIND = "Conv"
_BATCH_ROWS = 100


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    """Rows in the form in which ONNX Runtime asks for them, a batch at a time."""

    def __init__(self, name: str, rows: NDArray[np.generic]) -> None:
        parts = range(0, len(rows), _BATCH_ROWS)
        self._batches: Iterator[dict[str, Any]] = iter(
            [{name: rows[start : start + _BATCH_ROWS]} for start in parts]
        )

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, None behind the last."""
        return next(self._batches, None)


def prepare(content: bytes) -> bytes:
    """Return a graph whose normalisations are part of the convolutions, where they can be."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        before.write_bytes(content)
        # Symbolic shapes need a package of their own, and convolutions do not need the shapes.
        quant_pre_process(before, after, skip_symbolic_shape=True)
        return after.read_bytes()


def convolutions(content: bytes) -> tuple[str, ...]:
    """Return the names of a graph's convolutions, in its order."""
    graph = onnx.load_model_from_string(content).graph
    return tuple(node.name for node in graph.node if node.op_type == KIND)


def multiplications(content: bytes, row: NDArray[np.generic]) -> dict[str, int]:
    """Return how many products each convolution takes for one row, shape (1, *input)."""
    model = onnx.load_model_from_string(content)
    nodes = [node for node in model.graph.node if node.op_type == KIND]
    weights = {tensor.name: math.prod(tensor.dims[1:]) for tensor in model.graph.initializer}
    names = [node.output[0] for node in nodes]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(names, {model.graph.input[0].name: row})
    return {
        node.name: int(output.size) * weights[node.input[1]]
        for node, output in zip(nodes, outputs, strict=True)
    }


def quantized(content: bytes, nodes: Collection[str], rows: NDArray[np.generic]) -> bytes:
    """Return a graph whose named convolutions are int8.

    Args:
        content: from `prepare`.
        nodes: some of its `convolutions`.
        rows: give the ranges of what comes in and goes out.
    """
    name = onnx.load_model_from_string(content).graph.input[0].name
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        before.write_bytes(content)
        quantize_static(
            before,
            after,
            _Batches(name, rows),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[KIND],
            nodes_to_quantize=list(nodes),
        )
        return after.read_bytes()
