"""ONNX graphs: wrapped node by node in their own opset, so that nothing has to be converted."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper

from service.bundle import Manifest, write_bundle
from service.errors import BundleCorrupt
from service.runtimes import RuntimeOptions, load_runtime
from training import export
from training.errors import PackRefused
from training.packing.classifiers import ROWS, Choice, Look, first_look, pick
from training.packing.drafts import draft_manifest
from training.packing.heads import Around, Entry, Untouched
from training.packing.ops import Nodes

OLDEST_OPSET = 9
"""From here on every operation that is put around a graph means what it means today."""

LEAST_IR = 8
"""Older layouts list every constant among the inputs."""

PREFIX = "model/"
"""Of the user's names, so that none of them collides with ours."""

_SOFTENING = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
_LOOK_ROWS = 64
_ONNX_DOMAIN = {"", "ai.onnx"}
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}


class OnnxClassifier:
    """An ONNX graph with one input, and the names of what is taken from it."""

    kind = "ONNX graph"

    def __init__(self, model: onnx.ModelProto, scores: str, softened: str, choice: Choice) -> None:
        given = _inputs(model.graph)[0]
        self.softened = softened
        self.shape = _row_shape(given)
        self.dtype = helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type).name
        self.producer: Mapping[str, str] = _producer(model)
        self._model = model
        self._input = given.name
        self._scores = scores
        self._features = choice.features

    def look(self, entry: Entry, rows: NDArray[np.generic]) -> Look:
        """Return what the graph says of `rows`; see `Classifier.look`."""
        content = self.wrap(entry, Untouched())["model.onnx"]
        manifest = draft_manifest(entry, has_scores=self._features is not None)
        try:
            with tempfile.TemporaryDirectory() as folder:
                draft = write_bundle(
                    Path(folder) / "1",
                    {"model.onnx": content},
                    lambda files: Manifest.model_validate(manifest | {"files": files}),
                )
                runtime = load_runtime("onnx", draft, RuntimeOptions(threads=1, device="cpu"))
                outputs = export.run_rows(runtime, rows, _LOOK_ROWS)
        except BundleCorrupt as error:
            raise PackRefused(
                f"ONNX Runtime cannot load the graph ({_cause(error)}); export it anew"
            ) from error
        except Exception as error:
            # ONNX Runtime's exceptions share no base class but Exception.
            raise PackRefused(
                f"the graph fails on batches of {min(_LOOK_ROWS, len(rows))} calibration rows "
                f"({_cause(error)}); export it with a dynamic first axis"
            ) from error
        return first_look(outputs if self._features else {"logits": outputs["logits"]})

    def wrap(self, entry: Entry, around: Around) -> dict[str, bytes]:
        """Return the ONNX graph; there is no SavedModel of it. See `Classifier.wrap`."""
        model = compose.add_prefix(self._model, PREFIX)
        graph = model.graph
        nodes = Nodes(_opset(model))
        entered = nodes.cast(entry.apply(nodes, export.INPUT), entry.model_dtype)
        # The user's input becomes an inner tensor: what `entry` makes of the rows.
        nodes.name(entered, PREFIX + self._input)
        before = len(nodes.nodes)
        features = export.INPUT if self._features == ROWS else self._prefixed_features()
        outputs = around.apply(nodes, PREFIX + self._scores, features)
        for name, value in outputs.items():
            nodes.name(value, name)
        graph.node.extend(nodes.nodes[before:])
        own = list(graph.node)
        del graph.node[:]
        graph.node.extend([*nodes.nodes[:before], *own])
        graph.initializer.extend(nodes.constants)
        _declare(graph, entry, outputs, around.widths)
        model.doc_string = ""
        model.ir_version = max(model.ir_version, LEAST_IR)
        try:
            # The checker wants shapes of outputs, which are not known at the first look.
            if around.widths:
                onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise PackRefused(f"the wrapped graph is not valid ONNX: {_cause(error)}") from error
        content: bytes = model.SerializeToString()
        return {"model.onnx": content}

    def _prefixed_features(self) -> str | None:
        return None if self._features is None else PREFIX + self._features


def open_onnx(path: Path, choice: Choice) -> OnnxClassifier:
    """Return the classifier in an ONNX file.

    Raises:
        PackRefused: if it cannot be read, takes more than one tensor or is too old.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        # Protobuf, file system and checker raise what has no base class but Exception in common.
        raise PackRefused(f"{path}: no valid ONNX graph ({_cause(error)})") from error
    given = _inputs(model.graph)
    if len(given) != 1:
        names = ", ".join(value.name for value in given)
        raise PackRefused(
            f"{path}: the graph takes {len(given)} tensors ({names}); export it with one tensor of "
            "rows as its only input"
        )
    if given[0].type.tensor_type.elem_type == onnx.TensorProto.STRING:
        raise PackRefused(f"{path}: the graph takes strings; put numbers in their place")
    _ensure_opset(path, model)
    scores = _without_zip_map(model.graph)
    chosen = scores[pick(scores, choice.scores, "--model-output", "outputs with numbers")]
    if choice.features not in {None, ROWS}:
        values = [given[0].name, *(name for node in model.graph.node for name in node.output)]
        pick(values[::-1], choice.features, "--feature-output", "tensors")
    softened = ""
    if choice.is_hardened:
        chosen, softened = _before_softening(model.graph, chosen)
    return OnnxClassifier(model, chosen, softened, choice)


def _without_zip_map(graph: onnx.GraphProto) -> dict[str, str]:
    """Return, by name of each output that can hold scores, the tensor that does.

    scikit-learn's converter ends graphs in a list of dictionaries, unless told otherwise; what
    goes into it is the table of numbers.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    found = {}
    for output in graph.output:
        node = made_by.get(output.name)
        if node is not None and node.op_type == "ZipMap":
            found[output.name] = node.input[0]
            graph.node.remove(node)
        elif output.type.tensor_type.elem_type in _FLOATS:
            found[output.name] = output.name
    return found


def _before_softening(graph: onnx.GraphProto, scores: str) -> tuple[str, str]:
    """Return what goes into the softmax or sigmoid that ends a graph, and its name."""
    made_by = {name: node for node in graph.node for name in node.output}
    node = made_by.get(scores)
    while node is not None and node.op_type == "Identity":
        node = made_by.get(node.input[0])
    if node is None or node.op_type not in _SOFTENING:
        return scores, ""
    return node.input[0], _SOFTENING[node.op_type]


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def _producer(model: onnx.ModelProto) -> dict[str, str]:
    return {model.producer_name: model.producer_version} if model.producer_name else {}


def _row_shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    axes = list(value.type.tensor_type.shape.dim)[1:]
    return tuple(axis.dim_value or None for axis in axes)


def _opset(model: onnx.ModelProto) -> int:
    return max(int(each.version) for each in model.opset_import if each.domain in _ONNX_DOMAIN)


def _ensure_opset(path: Path, model: onnx.ModelProto) -> None:
    if not any(each.domain in _ONNX_DOMAIN for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", export.OPSET))
    if _opset(model) < OLDEST_OPSET:
        raise PackRefused(
            f"{path}: opset {_opset(model)} is older than {OLDEST_OPSET}; export the model anew"
        )


def _declare(
    graph: onnx.GraphProto, entry: Entry, outputs: Iterable[str], widths: Mapping[str, int]
) -> None:
    """Replace inputs and outputs by those of a bundle, and forget shapes of a fixed batch."""
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(entry.row_dtype))
    for declared in (graph.input, graph.output, graph.value_info):
        del declared[:]
    shape = ["rows", *entry.row_shape]
    graph.input.append(helper.make_tensor_value_info(export.INPUT, dtype, shape))
    for name in outputs:
        columns = ["rows", widths[name]] if name in widths else None
        graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, columns))


def _cause(error: BaseException) -> str:
    reason: Any = error.__cause__ or error
    return str(reason).strip().split("\n")[0][:200]
