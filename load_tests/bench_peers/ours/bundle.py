"""Packs the network that every peer of a comparison serves, so that ours answers with verdicts.

    python bundle.py MODEL.onnx MODELS_FOLDER BODY

The graph takes pictures as ours do (no last axis; a PNG's grey levels are divided by 255, as the
peers do it in Python) and returns logits and one score of novelty. Calibration is the identity, the
novelty tables and the policy come from random rows: what they decide means nothing, what they cost
is real.
"""

import io
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from service.bundle import write_bundle
from service.bundle.manifest import (
    File,
    Graph,
    ImageInput,
    Manifest,
    Provenance,
    TemperatureScaling,
    Tensor,
)
from training.calibrate import (
    certified_table,
    conformal_limits,
    judge,
    make_policy,
    plan_tests_blindly,
    reference_profile,
    threshold_grid,
)
from training.recipe import Recipe, Scores
from training.tails import novelty_tables

LABELS = tuple("0123456789")
NOVELTY = ("energy",)
MIXTURE = "random pictures"
ROWS = 5_000
GOLDEN_ROWS = 8
CATALOGUE = "[models.mnist]\n"


def main(model: Path, models: Path, body: str) -> None:
    """Write a bundle of `model`, and its catalogue, to the folder `models`."""
    largest = 255 if body == "png" else 1
    graph = packed(onnx.load(model), 1 / largest)
    rows = (np.random.default_rng(7).random((ROWS, 28, 28)) * largest).astype(np.float32)
    logits, novelty_scores = run(graph, rows)
    golden = io.BytesIO()
    np.savez(
        golden,
        rows=rows[:GOLDEN_ROWS],
        logits=logits[:GOLDEN_ROWS],
        novelty_scores=novelty_scores[:GOLDEN_ROWS],
    )
    contents = {"model.onnx": graph, "golden.npz": golden.getvalue()}
    scores = Scores(logits, novelty_scores, logits.argmax(axis=1))
    write_bundle(models / "mnist" / "1", contents, lambda files: manifest_of(scores, files))
    (models / "catalogue.toml").write_text(CATALOGUE)
    if body == "f32":
        write_npy(model.parent)


def write_npy(assets: Path) -> None:
    """Write the raw arrays that the peers get as .npy files, which is how we take them."""
    for raw in assets.glob("f32.*"):
        row = np.frombuffer(raw.read_bytes(), np.float32).reshape(1, 28, 28)
        with raw.with_name(f"npy{raw.suffix}").open("wb") as stream:
            np.save(stream, row)


def packed(model: ModelProto, scale: float) -> bytes:
    """Return the network between a scaled input without its last axis and our two outputs."""
    graph = model.graph
    softmax = graph.node[-1]
    before = [
        helper.make_node("Mul", ["rows", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "with_channel"], [graph.input[0].name]),
    ]
    behind = [
        helper.make_node("Identity", [softmax.input[0]], ["logits"]),
        helper.make_node("ReduceLogSumExp", ["logits"], ["together"], axes=[1], keepdims=1),
        helper.make_node("Neg", ["together"], ["novelty_scores"]),
    ]
    inputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", 28, 28])]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(LABELS)]),
        helper.make_tensor_value_info("novelty_scores", TensorProto.FLOAT, ["N", 1]),
    ]
    constants = [
        numpy_helper.from_array(np.array(scale, np.float32), "scale"),
        numpy_helper.from_array(np.array([-1, 28, 28, 1], np.int64), "with_channel"),
    ]
    nodes = [*before, *graph.node[:-1], *behind]
    whole = helper.make_graph(nodes, "ours", inputs, outputs, [*graph.initializer, *constants])
    made = helper.make_model(whole, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(made.SerializeToString())


def run(graph: bytes, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Return logits and novelty scores."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return tuple(session.run(["logits", "novelty_scores"], {"rows": rows}))


def manifest_of(scores: Scores, files: dict[str, File]) -> Manifest:
    """Return a manifest whose deciding parts come from these scores."""
    identity = TemperatureScaling(temperature=1, split=MIXTURE, n=ROWS)
    novelty = novelty_tables(scores, NOVELTY, MIXTURE)
    judged = judge(scores, identity, novelty)
    recipe = Recipe(
        name="mnist",
        network="the network that every peer serves",
        description="Random weights, for comparing servers.",
        labels=LABELS,
        seed=7,
        load=lambda _: NotImplemented,
        fit=lambda _, __: NotImplemented,
        max_error=0.01,
        novelty_names=NOVELTY,
        novelty_alpha=0.01,
    )
    alpha = recipe.novelty_alpha
    plan = plan_tests_blindly(judged, alpha, threshold_grid(judged.confidence))
    table = certified_table(judged, plan, alpha)
    policy = make_policy(recipe, table, ROWS, MIXTURE, "calibration")
    outputs = (
        Tensor(name="logits", dtype="float32", shape=(len(LABELS),)),
        Tensor(name="novelty_scores", dtype="float32", shape=(len(NOVELTY),)),
    )
    return Manifest(
        name=recipe.name,
        version="1",
        description=recipe.description,
        labels=LABELS,
        input=ImageInput(height=28, width=28, channels=1),
        files=files,
        graph=Graph(input=Tensor(name="rows", dtype="float32", shape=(28, 28)), outputs=outputs),
        calibration=identity,
        novelty=novelty,
        conformal=conformal_limits(judged, MIXTURE),
        policy=policy,
        reference=reference_profile(judged, policy, LABELS),
        provenance=Provenance(
            recipe=recipe.name,
            network=recipe.network,
            seed=recipe.seed,
            data_sha256={},
            libraries={},
            commit="none",
            created="2026-11-20T00:00:00+00:00",
            seconds=1,
            machine="any",
        ),
    )


main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
