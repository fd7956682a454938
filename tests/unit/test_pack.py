"""Users' models become bundles; each kind of model, input and output once."""

import io
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from packing_toys import (
    blob_graph,
    blob_table,
    column_graph,
    linear,
    request,
    run,
    softmax,
    write_graph,
)
from skl2onnx import to_onnx
from sklearn.base import ClassifierMixin
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from training_toys import LABELS, blobs

from service.bundle import read_bundle
from service.decision import Judge, Unknown
from service.inputs import InputLimits, Payload, create_decoder
from training.errors import ExportDiffers, PackRefused
from training.packing.classifiers import Choice
from training.packing.declared import InputOptions
from training.packing.heads import LEAST_ROUNDED
from training.packing.pack import pack
from training.packing.request import Notes
from training.packing.wrapping import runtimes_of

ROWS = blobs(50, seed=9).rows


def test_packed_graph_returns_what_the_model_returned(tmp_path: Path) -> None:
    bundle = pack(request(tmp_path))

    # 1e-5: float32 sums in another order.
    np.testing.assert_allclose(run(bundle, ROWS).logits, linear(ROWS), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [9, 13, 17, 18])
def test_old_opsets_are_packed_as_they_are(tmp_path: Path, opset: int) -> None:
    model = blob_graph(tmp_path / "old.onnx", opset=opset)

    bundle = pack(request(tmp_path, model=model, choice=Choice(features="x")))

    np.testing.assert_allclose(run(bundle, ROWS).logits, linear(ROWS), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["softmax", "hidden softmax", "zip map"])
def test_probabilities_become_logits(tmp_path: Path, end: str) -> None:
    model = blob_graph(tmp_path / "soft.onnx", end)

    bundle = pack(request(tmp_path, model=model))

    expected = softmax(linear(ROWS))
    np.testing.assert_allclose(softmax(run(bundle, ROWS).logits), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "zip_map"),
    [
        (LogisticRegression(C=1e4), True),
        (LogisticRegression(C=1e4), False),
        (RandomForestClassifier(20, random_state=0), False),
        (GradientBoostingClassifier(random_state=0), False),
    ],
    ids=["logistic regression as it is", "logistic regression", "forest", "boosted trees"],
)
@pytest.mark.parametrize("labels", [2, 3])
def test_probabilities_of_scikit_learn_are_packed_however_near_to_0_they_are(
    tmp_path: Path, model: ClassifierMixin, labels: int, *, zip_map: bool
) -> None:
    seen = blobs(400, seed=3)
    is_of_these = seen.targets < labels
    rows = seen.rows[is_of_these]
    model.fit(rows, seen.targets[is_of_these])
    graph = to_onnx(model, rows[:1], options={id(model): {"zipmap": zip_map}})
    path = tmp_path / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    table = blob_table(tmp_path / "table.csv", n=400, labels=labels)

    bundle = pack(request(tmp_path, model=path, calibration=table, labels=LABELS[:labels]))

    found = softmax(run(bundle, rows).logits)
    np.testing.assert_allclose(found, model.predict_proba(rows), atol=labels * LEAST_ROUNDED)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sigmoid", "margin"])
def test_single_column_becomes_two_labels(tmp_path: Path, end: str) -> None:
    table = blob_table(tmp_path / "two.csv", n=400, labels=2)
    model = column_graph(tmp_path / "column.onnx", end)

    bundle = pack(request(tmp_path, model=model, calibration=table, labels=LABELS[:2]))

    second = softmax(run(bundle, ROWS).logits)[:, 1]
    expected = 1 / (1 + np.exp(-4 * ROWS[:, 0]))
    np.testing.assert_allclose(second, expected, atol=2 * LEAST_ROUNDED)
    assert bundle.manifest.calibration.kind == "power"


@pytest.mark.slow
def test_sigmoid_that_is_told_to_be_probabilities_says_the_same(tmp_path: Path) -> None:
    table = blob_table(tmp_path / "two.csv", n=400, labels=2)
    model = column_graph(tmp_path / "column.onnx", "sigmoid")

    bundle = pack(
        request(
            tmp_path,
            model=model,
            calibration=table,
            labels=LABELS[:2],
            returns="probabilities",
        )
    )

    second = softmax(run(bundle, ROWS).logits)[:, 1]
    expected = 1 / (1 + np.exp(-4 * ROWS[:, 0]))
    np.testing.assert_allclose(second, expected, atol=2 * LEAST_ROUNDED)


def test_missing_values_are_answered(tmp_path: Path) -> None:
    model = blob_graph(tmp_path / "filled.onnx", filled=True)
    table = blob_table(tmp_path / "missing.csv", missing=True)
    bundle = pack(request(tmp_path, model=model, calibration=table))

    decoder = create_decoder(bundle, InputLimits(10, 10, 10))
    rows = decoder.decode(Payload(b"x,y\n-3.5,\n", "text/csv")).rows
    judge = Judge(bundle.manifest)
    assessment = judge.assess(*run(bundle, rows))

    assert assessment.finite.all()
    assert judge.decide(assessment, judge.default_terms) == [("left",)]


@pytest.mark.slow
@pytest.mark.parametrize("features", ["x", "linear", "rows"])
def test_novelty_score_is_larger_on_rows_far_away(tmp_path: Path, features: str) -> None:
    bundle = pack(request(tmp_path, choice=Choice(features=features)))

    near, far = (run(bundle, rows).novelty_scores for rows in (ROWS, [[90, 90], [0, -50]]))

    assert near.max() < far.min()
    judge = Judge(bundle.manifest)
    verdicts = judge.decide(judge.assess(*run(bundle, [[90, 90]])), judge.default_terms)
    assert verdicts == [Unknown("out_of_distribution")]


def test_many_rows_are_halved_and_certify_exactly(tmp_path: Path) -> None:
    table = blob_table(tmp_path / "many.csv", n=1_400)

    policy = pack(request(tmp_path, calibration=table, max_errors=())).manifest.policy

    assert (policy.status, policy.split) == ("certified", "calibration")
    assert policy.n == pytest.approx(700, abs=5)
    assert policy.max_error == 0.05


@pytest.mark.slow
def test_few_rows_are_cross_fitted_and_say_so(tmp_path: Path) -> None:
    policy = pack(request(tmp_path)).manifest.policy

    assert (policy.status, policy.split, policy.n) == ("cross_fitted", "folds", 300)


def test_too_few_rows_certify_nothing_and_nothing_is_answered(tmp_path: Path) -> None:
    table = blob_table(tmp_path / "few.csv", n=40)

    bundle = pack(request(tmp_path, calibration=table, max_errors=(0.01,)))

    policy = bundle.manifest.policy
    assert (policy.status, policy.table, policy.threshold) == ("uncertified", (), 1.0)
    judge = Judge(bundle.manifest)
    verdicts = judge.decide(judge.assess(*run(bundle, ROWS)), judge.default_terms)
    assert {type(verdict) for verdict in verdicts} == {Unknown}


@pytest.mark.slow
def test_several_risks_are_certified_and_the_first_is_the_default(tmp_path: Path) -> None:
    policy = pack(request(tmp_path, max_errors=(0.2, 0.1))).manifest.policy

    assert policy.max_error == 0.2
    assert [row.max_error for row in policy.table] == [0.1, 0.2]


@pytest.mark.slow
def test_onnx_graph_has_no_saved_model_in_its_bundle(tmp_path: Path) -> None:
    bundle = read_bundle(pack(request(tmp_path)).path)

    assert runtimes_of(bundle) == ("onnx",)
    assert set(bundle.manifest.files) == {
        *("model.onnx", "golden.npz", "MODEL_CARD.md"),
        *("confusion.png", "reliability.png", "risk_coverage.png"),
    }


def test_golden_rows_are_what_the_bundle_returns(tmp_path: Path) -> None:
    bundle = pack(request(tmp_path))

    golden = np.load(io.BytesIO(bundle.read("golden.npz")))

    assert golden["rows"].shape == (8, 2)
    assert run(bundle, golden["rows"]).logits == pytest.approx(golden["logits"], abs=1e-5)


def calibration_rows(table: Path) -> set[tuple[float, ...]]:
    """Return the rows of a calibration file as the graph takes them, without their labels."""
    lines = table.read_text().splitlines()[1:]
    rows = np.array([line.split(",")[:-1] for line in lines], np.float32)
    return {tuple(row) for row in rows.tolist()}


def test_no_calibration_row_is_in_the_bundle(tmp_path: Path) -> None:
    table = blob_table(tmp_path / "blobs.csv")

    bundle = pack(request(tmp_path, calibration=table))

    golden = np.load(io.BytesIO(bundle.read("golden.npz")))["rows"].tolist()
    assert not {tuple(row) for row in golden} & calibration_rows(table)
    card = bundle.read("MODEL_CARD.md").decode()
    assert "Worst errors" not in card
    assert "made up, none is a calibration row" in card


def test_calibration_rows_are_examples_if_the_user_publishes_them(tmp_path: Path) -> None:
    table = blob_table(tmp_path / "blobs.csv")

    bundle = pack(request(tmp_path, calibration=table, publish_examples=True))

    golden = np.load(io.BytesIO(bundle.read("golden.npz")))["rows"].tolist()
    assert {tuple(row) for row in golden} <= calibration_rows(table)
    assert "Worst errors" in bundle.read("MODEL_CARD.md").decode()


def test_card_tells_how_it_was_packed(tmp_path: Path) -> None:
    notes = Notes(command="dunno pack blobs.onnx --name blobs", limits=("It is a toy.",))

    card = pack(request(tmp_path), notes).read("MODEL_CARD.md").decode()

    assert "dunno pack blobs.onnx --name blobs" in card
    assert "dunno train" not in card
    assert "so they are logits" in card
    assert "- It is a toy." in card


def picture_graph(path: Path, shape: list[int]) -> Path:
    """Write a classifier of dark and light that takes pixels from 0 to 1."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "half"], ["light"]),
        helper.make_node("Unsqueeze", ["light", "last"], ["column"]),
        helper.make_node("Mul", ["column", "steep"], ["margin"]),
    ]
    constants = {
        "axes": np.arange(1, 1 + len(shape)),
        "last": np.array([1]),
        "half": np.float32(0.5),
        "steep": np.float32(40),
    }
    output = helper.make_tensor_value_info("margin", TensorProto.FLOAT, ["n", 1])
    return write_graph(path, nodes, {"x": (TensorProto.FLOAT, shape)}, [output], constants)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row_shape", "model_shape"),
    [
        pytest.param((6, 5), [6, 5], id="grey as it is"),
        pytest.param((6, 5), [6, 5, 1], id="grey, channel last"),
        pytest.param((6, 5), [1, 6, 5], id="grey, channel first"),
        pytest.param((6, 5), [30], id="grey, flattened"),
        pytest.param((6, 5, 3), [6, 5, 3], id="colour, channels last"),
        pytest.param((6, 5, 3), [3, 6, 5], id="colour, channels first"),
    ],
)
def test_pictures_reach_the_model_in_its_shape_and_scale(
    tmp_path: Path, row_shape: tuple[int, ...], model_shape: list[int]
) -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, 200)
    middle = np.where(targets == 1, 140, 115).reshape(-1, *(1 for _ in row_shape))
    rows = np.clip(rng.normal(middle, 40, (200, *row_shape)), 0, 255).astype(np.uint8)
    np.savez(tmp_path / "pictures.npz", rows=rows, targets=targets)

    bundle = pack(
        request(
            tmp_path,
            model=picture_graph(tmp_path / "pictures.onnx", model_shape),
            calibration=tmp_path / "pictures.npz",
            labels=("dark", "light"),
            input=InputOptions(kind="image"),
            scale=1 / 255,
        )
    )

    logits = run(bundle, rows).logits
    mean = rows.reshape(200, -1).astype(np.float64).mean(axis=1) / 255
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], 40 * (mean - 0.5), atol=1e-4)
    assert bundle.manifest.graph.input.dtype == "uint8"


def test_texts_reach_the_model_as_token_ids(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Equal", ["ids", "good"], ["is_good"]),
        helper.make_node("Cast", ["is_good"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ones", "last"], ["count"], keepdims=1),
        helper.make_node("Sub", ["count", "half"], ["margin"]),
    ]
    constants = {"good": np.int64(3), "last": np.array([1]), "half": np.float32(0.5)}
    output = helper.make_tensor_value_info("margin", TensorProto.FLOAT, ["n", 1])
    inputs = {"ids": (TensorProto.INT64, [4])}
    model = write_graph(tmp_path / "texts.onnx", nodes, inputs, [output], constants)
    words = ["bad", "good", *"abcdefghij"]
    (tmp_path / "words.txt").write_text("\n".join(words))
    lines = [f"{word} {x} {y},{word}" for x in "abcde" for y in "fghij" for word in words[:2]]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *lines]))

    bundle = pack(
        request(
            tmp_path,
            model=model,
            calibration=tmp_path / "texts.csv",
            labels=("bad", "good"),
            input=InputOptions(kind="text", vocabulary=tmp_path / "words.txt"),
        )
    )

    payload = Payload(b"A GOOD, good film", "text/plain")
    rows = create_decoder(bundle, InputLimits(10, 10, 10)).decode(payload).rows
    logits = run(bundle, rows).logits
    assert logits[0, 1] - logits[0, 0] == pytest.approx(1.5)


def test_model_that_looks_at_its_neighbours_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["logits"]),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    inputs = {"x": (TensorProto.FLOAT, [2])}
    constants = {"axes": np.array([0])}
    model = write_graph(tmp_path / "batch.onnx", nodes, inputs, [output], constants)
    table = blob_table(tmp_path / "two.csv", labels=2)

    with pytest.raises(ExportDiffers, match="batches of 1"):
        pack(request(tmp_path, model=model, calibration=table, labels=LABELS[:2]))

    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_pack_refuses_to_write_over_a_bundle(tmp_path: Path) -> None:
    pack(request(tmp_path))

    with pytest.raises(PackRefused, match="--version or say --replace"):
        pack(request(tmp_path))
    pack(request(tmp_path, is_replaced=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"labels": ("a",)}, "at least two different", id="one label"),
        pytest.param({"labels": LABELS[:2]}, "has the label 'top'", id="label left out"),
        pytest.param({"name": "No Name"}, "--name", id="name"),
        pytest.param({"model": Path("none.onnx")}, "no such file", id="no model"),
        pytest.param({"target": "species"}, "no column 'species'", id="no target"),
        pytest.param({"choice": Choice(features="y")}, "--feature-output y", id="no features"),
        pytest.param({"choice": Choice(scores="y")}, "--model-output y", id="no output"),
        pytest.param({"calibration": Path("none.csv")}, "cannot be read", id="no rows"),
    ],
)
def test_pack_refuses(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PackRefused, match=message):
        pack(request(tmp_path, **changes))

    assert not (tmp_path / "models").exists()


def test_pack_refuses_labels_that_the_model_has_no_number_for(tmp_path: Path) -> None:
    table = blob_table(tmp_path / "two.csv", labels=2)

    with pytest.raises(PackRefused, match="3 numbers a row, but --labels names 2: left, right"):
        pack(request(tmp_path, calibration=table, labels=LABELS[:2]))


def test_pack_refuses_missing_values_that_the_model_cannot_take(tmp_path: Path) -> None:
    table = blob_table(tmp_path / "missing.csv", missing=True)

    with pytest.raises(PackRefused, match="put an imputation into the graph"):
        pack(request(tmp_path, calibration=table))


def test_pack_refuses_features_in_front_of_the_imputation(tmp_path: Path) -> None:
    model = blob_graph(tmp_path / "filled.onnx", filled=True)
    table = blob_table(tmp_path / "missing.csv", missing=True)

    with pytest.raises(PackRefused, match="name one behind the imputation"):
        pack(request(tmp_path, model=model, calibration=table, choice=Choice(features="rows")))


def test_pack_refuses_a_label_with_hardly_any_rows(tmp_path: Path) -> None:
    rows = [f"{x},{x},{label}" for x, label in enumerate(["left", "right"] * 9 + ["top"])]
    (tmp_path / "rare.csv").write_text("\n".join(["x,y,label", *rows]))

    with pytest.raises(PackRefused, match="1 different rows of its rarest label"):
        pack(request(tmp_path, calibration=tmp_path / "rare.csv"))


@pytest.mark.slow
def test_labels_in_another_order_are_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pack(request(tmp_path, labels=("right", "top", "left")))

    assert "are --labels in the order of the model's numbers?" in caplog.text


def test_graph_for_batches_of_one_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "one_row"], ["row"]),
        helper.make_node("Neg", ["row"], ["logits"]),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])
    inputs = {"x": (TensorProto.FLOAT, [2])}
    constants = {"one_row": np.array([1, 2])}
    model = write_graph(tmp_path / "one.onnx", nodes, inputs, [output], constants)
    table = blob_table(tmp_path / "two.csv", labels=2)

    with pytest.raises(PackRefused, match="export it with a dynamic first axis"):
        pack(request(tmp_path, model=model, calibration=table, labels=LABELS[:2]))


@pytest.mark.slow
def test_arrays_of_features_are_packed_like_tables(tmp_path: Path) -> None:
    split = blobs(300, seed=7)
    np.savez(tmp_path / "blobs.npz", rows=split.rows, targets=split.targets)

    bundle = pack(request(tmp_path, calibration=tmp_path / "blobs.npz"))

    assert bundle.manifest.policy.n == 300
    assert run(bundle, ROWS).logits.shape == (50, 3)


@pytest.mark.parametrize(("suffix", "content"), [(".onnx", b"nothing"), (".pkl", b"pickle")])
def test_file_that_is_no_model_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    model = tmp_path / f"model{suffix}"
    model.write_bytes(content)

    with pytest.raises(PackRefused, match=r"no valid ONNX graph|expected a Keras model"):
        pack(request(tmp_path, model=model))


def test_version_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackRefused, match="--version 'new'"):
        pack(request(tmp_path, version="new"))
