"""Small classifiers as users have them, and labelled rows, for the tests of `dunno pack`."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from training_toys import CENTRES, LABELS, blobs

from service.bundle import Bundle
from service.runtimes import RuntimeOptions, load_runtime
from service.runtimes.protocol import Outputs
from training.packing.request import Request

WEIGHTS = CENTRES.T.astype(np.float32)
BIAS = (-np.square(CENTRES).sum(axis=1) / 2).astype(np.float32)
"""With these the logits of the three blobs are exactly right."""


def linear(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return what `blob_graph` computes before its end."""
    logits: NDArray[np.float32] = rows @ WEIGHTS + BIAS
    return logits


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def blob_graph(path: Path, end: str = "", *, opset: int = 18, filled: bool = False) -> Path:
    """Write the classifier of the three blobs.

    Args:
        path: of the file.
        end: nodes behind the logits: `softmax`, `hidden softmax`, `zip map`, or nothing.
        opset: of the file.
        filled: whether missing values count as 0.
    """
    nodes = [helper.make_node("Gemm", ["filled" if filled else "x", "w", "b"], ["linear"])]
    if filled:
        nodes[:0] = [
            helper.make_node("IsNaN", ["x"], ["missing"]),
            helper.make_node("Where", ["missing", "zero", "x"], ["filled"]),
        ]
    last = "linear"
    if end:
        nodes.append(helper.make_node("Softmax", ["linear"], ["soft"], axis=1))
        last = "soft"
    if end == "hidden softmax":
        nodes.append(helper.make_node("Mul", ["soft", "one"], ["logits"]))
        last = "logits"
    constants = {"w": WEIGHTS, "b": BIAS, "zero": np.float32(0), "one": np.float32(1)}
    output = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", 3])
    opsets = [helper.make_opsetid("", opset)]
    if end == "zip map":
        nodes.append(
            helper.make_node(
                "ZipMap", ["soft"], ["p"], domain="ai.onnx.ml", classlabels_strings=list(LABELS)
            )
        )
        kind = helper.make_map_type_proto(
            TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        )
        output = helper.make_value_info("p", helper.make_sequence_type_proto(kind))
        opsets.append(helper.make_opsetid("ai.onnx.ml", 1))
    return write_graph(path, nodes, {"x": (TensorProto.FLOAT, [2])}, [output], constants, opsets)


def column_graph(path: Path, end: str) -> Path:
    """Write a classifier of left and right with one number a row: `sigmoid` or `margin`."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["margin"])]
    if end == "sigmoid":
        nodes.append(helper.make_node("Sigmoid", ["margin"], ["sigmoid"]))
    constants = {"w": np.array([[4.0], [0.0]], np.float32)}
    output = helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", 1])
    return write_graph(path, nodes, {"x": (TensorProto.FLOAT, [2])}, [output], constants)


def write_graph(  # the parts of a graph
    path: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[int, list[int]]],
    outputs: list[Any],
    constants: dict[str, Any],
    opsets: list[Any] | None = None,
) -> Path:
    """Write an ONNX file; inputs are name -> (type, shape without rows)."""
    graph = helper.make_graph(
        nodes,
        "user",
        [
            helper.make_tensor_value_info(name, kind, ["n", *shape])
            for name, (kind, shape) in inputs.items()
        ],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=opsets or [helper.make_opsetid("", 18)], ir_version=8
    )
    onnx.save(model, path)
    return path


def blob_table(path: Path, n: int = 300, *, missing: bool = False, labels: int = 3) -> Path:
    """Write labelled blobs as CSV; `missing` leaves every tenth `y` empty."""
    split = blobs(n, seed=7)
    with path.open("w", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(["x", "y", "label"])
        for place, (row, target) in enumerate(zip(split.rows, split.targets, strict=True)):
            if target < labels:
                y = "" if missing and place % 10 == 0 else row[1]
                lines.writerow([row[0], y, LABELS[target]])
    return path


def request(folder: Path, **changes: Any) -> Request:
    """Return a request to pack the blobs; what is not given is made in `folder`."""
    facts: dict[str, Any] = {
        "name": "blobs",
        "labels": LABELS,
        "models": folder / "models",
        "max_errors": (0.1,),
        **changes,
    }
    if "model" not in facts:
        facts["model"] = blob_graph(folder / "blobs.onnx")
    if "calibration" not in facts:
        facts["calibration"] = blob_table(folder / "blobs.csv")
    return Request(**facts)


def run(bundle: Bundle, rows: Any, runtime: str = "onnx") -> Outputs:
    """Return what the bundle's graph says of rows."""
    loaded = load_runtime(runtime, bundle, RuntimeOptions(threads=1, device="cpu"))
    return loaded.run(np.asarray(rows, bundle.manifest.graph.input.dtype))
