"""Keras model -> SavedModel -> ONNX, and the proof that both are the same function of the rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from numpy.typing import NDArray
from tqdm.auto import tqdm

from service.bundle import Bundle
from service.bundle.manifest import Graph, Tensor
from service.runtimes import RUNTIMES, Runtime, RuntimeOptions, load_runtime
from training.errors import ExportDiffers

OPSET = 18
OUTPUTS = ("logits", "novelty_scores")
INPUT = "rows"
TOLERANCE = 1e-4
"""Largest difference between runtimes, and between batch sizes, that a bundle may have."""

COMPARED_ROWS = 1000
BATCH_ROWS = (64, 1, 8)
"""The first is the reference."""


def save_model(model: Any, folder: Path) -> None:
    """Write a Keras model as SavedModel, with `serve` as its only function.

    What `model.export` does, but for `track`: tracking the model as well would store each variable
    a second time (Keras 3.15).
    """
    shape, dtype = model.inputs[0].shape, model.inputs[0].dtype
    signature = [tf.TensorSpec((None, *shape[1:]), dtype, name=INPUT)]
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", lambda rows: model(rows, training=False), signature)
    archive.write_out(folder, verbose=False)


def to_onnx(saved_model: Path) -> bytes:
    """Return the ONNX graph of a SavedModel, its outputs named as in the manifest.

    `tf2onnx.convert.from_keras` fails with Keras 3.15; the SavedModel's own function does not.
    """
    loaded = tf.saved_model.load(str(saved_model))
    signature = [_signature(loaded)]
    names = sorted(loaded.serve(_zero_row(signature[0])), key=OUTPUTS.index)

    def serve(rows: tf.Tensor) -> list[tf.Tensor]:
        outputs = loaded.serve(rows)
        return [tf.identity(outputs[name]) for name in names]

    traced = tf.function(serve, input_signature=signature)
    graph, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=OPSET)
    _bind_captures(graph.graph, traced.get_concrete_function())
    _rename(graph.graph, dict(zip([out.name for out in graph.graph.output], names, strict=True)))
    graph.doc_string = ""
    onnx.checker.check_model(graph, full_check=True)
    content: bytes = graph.SerializeToString()
    return content


def _bind_captures(graph: onnx.GraphProto, traced: Any) -> None:
    """Leave the rows as the only input.

    Constants that a function captured, such as the mean of a Normalization layer, are no variables:
    tf2onnx leaves them open as further inputs, in the order of the captures; most of them unused,
    because their value has been folded into the nodes.
    """
    used = {name for node in graph.node for name in node.input}
    captured = [value for value, _ in traced.graph.captures if value.dtype != tf.resource]
    for given, value in zip(list(graph.input)[1:], captured, strict=True):
        if given.name in used:
            graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), given.name))
        graph.input.remove(given)


def _signature(loaded: Any) -> tf.TensorSpec:
    spec = loaded.signatures["serving_default"].structured_input_signature[1]
    return tf.TensorSpec(spec[INPUT].shape, spec[INPUT].dtype, name=INPUT)


def _zero_row(signature: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros((1, *signature.shape[1:]), signature.dtype)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names wherever they occur."""
    mapping = {**names, graph.input[0].name: INPUT}
    for tensor in (*graph.input, *graph.output):
        tensor.name = mapping.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [mapping.get(name, name) for name in node.input]
        node.output[:] = [mapping.get(name, name) for name in node.output]


def describe_graph(content: bytes) -> Graph:
    """Return what an ONNX graph takes and returns, as the manifest says it."""
    graph = onnx.load_model_from_string(content).graph
    outputs = sorted(
        (_tensor(value) for value in graph.output), key=lambda t: OUTPUTS.index(t.name)
    )
    return Graph(input=_tensor(graph.input[0]), outputs=tuple(outputs))


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    declared = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type)
    shape = tuple(axis.dim_value for axis in declared.shape.dim)[1:]
    return Tensor(name=value.name, dtype=dtype.name, shape=shape)


def folder_contents(folder: Path, prefix: str) -> dict[str, bytes]:
    """Return the content of every file below `folder`, by its name below `prefix`."""
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run_rows(runtime: Runtime, rows: NDArray[np.generic], batch_rows: int) -> dict[str, Any]:
    """Return the outputs of all `rows`, run in batches of `batch_rows`, by name."""
    parts = [
        runtime.run(np.ascontiguousarray(rows[start : start + batch_rows]))
        for start in tqdm(range(0, len(rows), batch_rows), unit=" batches", leave=False)
    ]
    return {
        name: np.concatenate([getattr(part, name) for part in parts]).astype(np.float32)
        for name in OUTPUTS
    }


def verify(bundle: Bundle, rows: NDArray[np.generic]) -> float:
    """Return the largest difference between runtimes and batch sizes on real rows.

    Raises:
        ExportDiffers: if it is above `TOLERANCE`; names runtime, batch size and output.
    """
    reference: dict[str, Any] | None = None
    largest = 0.0
    for name in RUNTIMES:
        runtime = load_runtime(name, bundle, RuntimeOptions(threads=2, device="cpu"))
        for batch_rows in BATCH_ROWS:
            outputs = run_rows(runtime, rows, batch_rows)
            reference = reference or outputs
            for output, values in outputs.items():
                difference = float(np.abs(values - reference[output]).max(initial=0.0))
                if not difference <= TOLERANCE:
                    raise ExportDiffers(
                        f"{name}, batches of {batch_rows}: {output} differs by {difference:.2g} "
                        f"from {next(iter(RUNTIMES))}, batches of {BATCH_ROWS[0]}; "
                        f"allowed is {TOLERANCE}"
                    )
                largest = max(largest, difference)
    return largest
