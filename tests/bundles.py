"""Small real bundles, one for each kind of input, with graphs that can be checked by hand."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.bundle import Bundle, Manifest, write_bundle
from service.bundle.manifest import (
    Agreement,
    Calibration,
    CertifiedRow,
    Conformal,
    FeatureField,
    FeatureInput,
    Graph,
    ImageInput,
    Novelty,
    Policy,
    Provenance,
    TailTable,
    TemperatureScaling,
    Tensor,
    TextInput,
    Variant,
)

FRUIT = ("apple", "pear", "plum")
VOCABULARY = ("bad", "good", "film")
_ONNX_TYPES = {
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "float32": TensorProto.FLOAT,
}


def fruit_bundle(models: Path, version: str = "1", **changes: Any) -> Bundle:
    """Features `sweet`, `sour`, `firm` are the logits of the three fruits; novelty is `firm`."""
    declared = FeatureInput(
        fields=(
            FeatureField(name="sweet", minimum=-100, maximum=100, unit="g/l"),
            FeatureField(name="sour", minimum=-100),
            FeatureField(name="firm", nullable=False),
        )
    )
    nodes = [
        helper.make_node("Identity", ["rows"], ["logits"]),
        helper.make_node("Gather", ["rows", "firm"], ["novelty_scores"], axis=1),
    ]
    constants = [helper.make_tensor("firm", TensorProto.INT64, [1], [2])]
    graph = Graph(
        input=Tensor(name="rows", dtype="float32", shape=(3,)),
        outputs=(_tensor("logits", 3), _tensor("novelty_scores", 1)),
    )
    rows = np.arange(24, dtype=np.float32).reshape(8, 3) % 5
    golden = {"rows": rows, "logits": rows, "novelty_scores": rows[:, 2:]}
    content = onnx_bytes(graph, nodes, constants)
    facts = {"labels": FRUIT, "input": declared, "graph": graph, **changes}
    return _write(models / "fruit" / version, "fruit", version, content, golden, facts)


def picture_bundle(models: Path, channels: int = 1, fit: str = "contain") -> Bundle:
    """Pictures of 8 x 8: `light` wins over `dark` by the mean of the pixels."""
    colour = (3,) if channels == 3 else ()
    declared = ImageInput.model_validate(
        {"height": 8, "width": 8, "channels": channels, "fit": fit}
    )
    axes = list(range(1, 3 + len(colour)))
    nodes = [
        helper.make_node("Cast", ["rows"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["light_logit"]),
        helper.make_node("Sub", ["middle", "mean"], ["dark_logit"]),
        helper.make_node("Unsqueeze", ["light_logit", "last"], ["light"]),
        helper.make_node("Unsqueeze", ["dark_logit", "last"], ["dark"]),
        helper.make_node("Concat", ["dark", "light"], ["logits"], axis=1),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("middle", TensorProto.FLOAT, [], [127.5]),
    ]
    graph = Graph(
        input=Tensor(name="rows", dtype="uint8", shape=(8, 8, *colour)),
        outputs=(_tensor("logits", 2),),
    )
    rows = np.linspace(0, 255, 8).astype(np.uint8)
    rows = np.broadcast_to(rows.reshape(8, *([1] * (2 + len(colour)))), (8, 8, 8, *colour))
    light = rows.reshape(8, -1).astype(np.float32).mean(axis=1) - np.float32(127.5)
    golden = {
        "rows": np.ascontiguousarray(rows),
        "logits": np.stack([-light, light], axis=1),
        "novelty_scores": np.empty((8, 0), np.float32),
    }
    facts = {"labels": ("dark", "light"), "input": declared, "graph": graph, "novelty": None}
    content = onnx_bytes(graph, nodes, constants)
    return _write(models / "picture" / "1", "picture", "1", content, golden, facts)


def review_bundle(models: Path) -> Bundle:
    """Texts of at most 16 tokens: the logit of `positive` is the number of `good`."""
    declared = TextInput(max_tokens=16, token_pattern=r"[a-z]+|!")
    nodes = [
        helper.make_node("Equal", ["rows", "good"], ["is_good"]),
        helper.make_node("Cast", ["is_good"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ones", "last"], ["positive"], keepdims=1),
        helper.make_node("Neg", ["positive"], ["negative"]),
        helper.make_node("Concat", ["negative", "positive"], ["logits"], axis=1),
    ]
    constants = [
        helper.make_tensor("good", TensorProto.INT32, [], [3]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ]
    graph = Graph(
        input=Tensor(name="rows", dtype="int32", shape=(16,)),
        outputs=(_tensor("logits", 2),),
    )
    rows = np.zeros((8, 16), np.int32)
    rows[np.arange(8), np.arange(8)] = 3
    positive = np.ones((8, 1), np.float32)
    golden = {
        "rows": rows,
        "logits": np.concatenate([-positive, positive], axis=1),
        "novelty_scores": np.empty((8, 0), np.float32),
    }
    facts = {"labels": ("negative", "positive"), "input": declared, "graph": graph}
    facts |= {"novelty": None}
    content = onnx_bytes(graph, nodes, constants)
    files = {"vocabulary.txt": "\n".join(VOCABULARY).encode()}
    return _write(models / "review" / "1", "review", "1", content, golden, facts, files)


def convolution_bundle(models: Path, glare: float = 1, **changes: Any) -> Bundle:
    """Pictures of 8 x 8: `left` or `right`, whichever half is lighter, by three convolutions.

    What `glare` brightens comes out of the first one, and the second does not look at it.
    """
    rng = np.random.default_rng(0)
    first = rng.uniform(0.5, 1, (4, 1, 3, 3)) / 9 / 255
    second, third = (rng.uniform(0.5, 1, (4, 4, 3, 3)) / 36 for _ in range(2))
    first[3] *= glare
    second[:, 3] = 0
    sides = np.tile([[6.0, -6.0], [-6.0, 6.0]], (8, 1))
    nodes = [
        helper.make_node("Cast", ["rows"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "channel"], ["maps_0"]),
    ]
    for number in (1, 2, 3):
        names = [f"maps_{number - 1}", f"filters_{number}"]
        nodes += [
            helper.make_node("Conv", names, [f"sums_{number}"], name=f"conv_{number}"),
            helper.make_node("Relu", [f"sums_{number}"], [f"maps_{number}"]),
        ]
    nodes += [
        helper.make_node("Flatten", ["maps_3"], ["flat"]),
        helper.make_node("MatMul", ["flat", "sides"], ["logits"]),
    ]
    floats = {"filters_1": first, "filters_2": second, "filters_3": third, "sides": sides}
    constants = [
        helper.make_tensor("channel", TensorProto.INT64, [1], [1]),
        *(
            onnx.numpy_helper.from_array(values.astype(np.float32), name)
            for name, values in floats.items()
        ),
    ]
    graph = Graph(
        input=Tensor(name="rows", dtype="uint8", shape=(8, 8)), outputs=(_tensor("logits", 2),)
    )
    content = onnx_bytes(graph, nodes, constants)
    rows = halves(8, seed=9)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    golden = {
        "rows": rows,
        "logits": session.run(["logits"], {"rows": rows})[0],
        "novelty_scores": np.empty((8, 0), np.float32),
    }
    declared = ImageInput(height=8, width=8, channels=1)
    facts = {"labels": ("left", "right"), "input": declared, "graph": graph, "novelty": None}
    facts |= changes
    return _write(models / "halves" / "1", "halves", "1", content, golden, facts)


def halves(n: int, seed: int) -> NDArray[np.uint8]:
    """Return pictures of 8 x 8 with one light half: left, right, left, ..."""
    light = np.broadcast_to(np.arange(8) < 4, (n, 8, 8)).copy()
    light[1::2] = ~light[1::2]
    drawn = np.random.default_rng(seed).integers(0, 60, (n, 8, 8))
    return (drawn + 190 * light).astype(np.uint8)


def with_variant(bundle: Bundle, graph: bytes | None = None, tolerance: float = 0.1) -> Bundle:
    """Write a bundle anew with a variant `int8`; its graph is the bundle's own unless given."""
    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    contents["model.int8.onnx"] = graph or contents["model.onnx"]
    agreement = Agreement(rows="test split", n=1000, identical=0.9995)
    variant = Variant(
        file="model.int8.onnx", tolerance=tolerance, agreements=(agreement,), made="for tests"
    )
    return write_bundle(
        bundle.path,
        contents,
        lambda files: bundle.manifest.model_copy(
            update={"files": files, "variants": {"int8": variant}}
        ),
    )


def fruit_graph(bundle: Bundle, shift: float) -> bytes:
    """Return the graph of a fruit bundle with `shift` added to the first logit."""
    nodes = [
        helper.make_node("Add", ["rows", "shift"], ["logits"]),
        helper.make_node("Gather", ["rows", "firm"], ["novelty_scores"], axis=1),
    ]
    constants = [
        helper.make_tensor("firm", TensorProto.INT64, [1], [2]),
        helper.make_tensor("shift", TensorProto.FLOAT, [1, 3], [shift, 0, 0]),
    ]
    return onnx_bytes(bundle.manifest.graph, nodes, constants)


def write_catalogue(models: Path, *names: str, more: str = "") -> Path:
    """Write a catalogue of these names and return the folder."""
    text = "".join(f"[models.{name}]\n" for name in names) + more
    (models / "catalogue.toml").write_text(text)
    return models


def temperature(value: float = 1.0) -> Calibration:
    return TemperatureScaling(temperature=value, split="validation", n=100)


def certified_policy(**changes: Any) -> Policy:
    """Threshold 0.9 for at most 1 % of errors, 0.99 for 0.1 %, 0.6 for 5 %."""
    rows = ((0.001, 0.99, 0.5), (0.01, 0.9, 0.8), (0.05, 0.6, 0.95))
    facts = {
        "max_error": 0.01,
        "threshold": 0.9,
        "novelty_alpha": 0.0,
        "table": tuple(
            CertifiedRow(max_error=risk, threshold=least, coverage=share, n=1000, errors=0)
            for risk, least, share in rows
        ),
        "status": "certified",
        "split": "calibration",
        "n": 1000,
        "mixture": "as they come",
    }
    return Policy.model_validate({**facts, **changes})


def novelty_tables() -> Novelty:
    """One score `firm`: P(firm >= 0) is 1, P(firm >= 10) is 0.001."""
    table = TailTable(values=(0.0, 10.0), tails=(1.0, 0.001))
    fisher = TailTable(values=(0.0, float(-np.log(0.001))), tails=(1.0, 0.001))
    return Novelty(names=("firm",), tables=(table,), combined=fisher, split="validation", n=999)


def conformal_limits(labels: int, limit: float = 0.95) -> Conformal:
    return Conformal(level=0.95, limits=(limit,) * labels, split="validation", n=1000)


def onnx_bytes(graph: Graph, nodes: list[Any], constants: list[Any]) -> bytes:
    """Return a self-contained model with a dynamic axis of rows."""
    values = {tensor.name: tensor for tensor in (graph.input, *graph.outputs)}
    infos = {
        name: helper.make_tensor_value_info(
            name, _ONNX_TYPES[tensor.dtype], ["rows", *tensor.shape]
        )
        for name, tensor in values.items()
    }
    body = helper.make_graph(
        nodes,
        "test",
        [infos[graph.input.name]],
        [infos[tensor.name] for tensor in graph.outputs],
        constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _tensor(name: str, columns: int) -> Tensor:
    return Tensor(name=name, dtype="float32", shape=(columns,))


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **dict(arrays))
    return stream.getvalue()


def _write(
    path: Path,
    name: str,
    version: str,
    model: bytes,
    golden: Mapping[str, NDArray[Any]],
    facts: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> Bundle:
    labels = len(facts["labels"])
    defaults: dict[str, Any] = {
        "name": name,
        "version": version,
        "description": "made for tests",
        "calibration": temperature(),
        "novelty": novelty_tables(),
        "conformal": conformal_limits(labels),
        "policy": certified_policy(),
        "provenance": Provenance(
            recipe=name,
            network="none",
            seed=0,
            data_sha256={},
            libraries={},
            commit="unknown",
            created="2026-01-01T00:00:00Z",
            seconds=1.0,
            machine="any",
        ),
    }
    contents = {"model.onnx": model, "golden.npz": npz_bytes(golden), **(files or {})}
    return write_bundle(
        path,
        contents,
        lambda entries: Manifest.model_validate({**defaults, **facts, "files": entries}),
    )
