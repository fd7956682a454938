"""The whole pipeline on a toy, once; then what it left is looked at from several sides."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_toys import CENTRES, LABELS, fit, load, moved, toy_recipe

from service.bundle import Bundle, read_bundle
from service.decision import Judge
from service.runtimes import RuntimeOptions, load_runtime
from training import export
from training.errors import ExportDiffers, RecipeMissing
from training.pipeline import Place, find_recipe, make, recipe_names
from training.recipe import Data, Fitted, OutOfFold, Recipe, Scores, Splits, Workbench

# Keras 3.15 writes weights by an `__array__` that numpy 2 finds old.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

OPTIONS = RuntimeOptions(threads=1, device="cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("toy")
    return Place(folder / "data", folder / "build", folder / "models" / "toy" / "1")


@pytest.fixture(scope="module")
def bundle(place: Place) -> Bundle:
    make(toy_recipe(), place)
    return read_bundle(place.bundle)


@pytest.mark.slow
def test_bundle_holds_graphs_rows_card_and_pictures(bundle: Bundle) -> None:
    names = {name for name in bundle.manifest.files if not name.startswith("saved_model/")}

    assert names == {
        "model.onnx",
        "golden.npz",
        "MODEL_CARD.md",
        "words.txt",
        "confusion.png",
        "curves.png",
        "reliability.png",
        "risk_coverage.png",
    }


@pytest.mark.parametrize("runtime", ["onnx", "tensorflow"])
def test_runtime_reproduces_the_golden_rows(bundle: Bundle, runtime: str) -> None:
    golden = np.load(io.BytesIO(bundle.read("golden.npz")))

    outputs = load_runtime(runtime, bundle, OPTIONS).run(golden["rows"])

    assert golden["rows"].shape == (8, 2)
    assert np.abs(outputs.logits - golden["logits"]).max() <= export.TOLERANCE
    assert np.abs(outputs.novelty_scores - golden["novelty_scores"]).max() <= export.TOLERANCE


def test_graph_declares_what_the_manifest_says(bundle: Bundle) -> None:
    graph = bundle.manifest.graph

    assert (graph.input.name, graph.input.dtype, graph.input.shape) == ("rows", "float32", (2,))
    assert [(tensor.name, tensor.shape) for tensor in graph.outputs] == [
        ("logits", (3,)),
        ("novelty_scores", (1,)),
    ]


def test_realised_table_is_what_the_service_decides(bundle: Bundle) -> None:
    manifest, test = bundle.manifest, load(Path()).splits.test
    assert manifest.evaluation is not None
    assert test is not None
    judge = Judge(manifest)

    outputs = load_runtime("onnx", bundle, OPTIONS).run(test.rows)
    verdicts = judge.decide(judge.assess(*outputs), judge.terms())

    answered = sum(verdict.label is not None for verdict in verdicts) / len(verdicts)
    default = next(
        row for row in manifest.evaluation.table if row.max_error == manifest.policy.max_error
    )
    assert answered == default.coverage.value


def test_evaluation_counts_every_test_row_once(bundle: Bundle) -> None:
    evaluation = bundle.manifest.evaluation

    assert evaluation is not None
    assert evaluation.n == 1_200
    assert sum(map(sum, evaluation.confusion)) == 1_200
    assert len(evaluation.risk_coverage) <= 101
    assert evaluation.accuracy.low < evaluation.accuracy.value < evaluation.accuracy.high
    assert [condition.name for condition in evaluation.conditions] == ["moved"]
    assert [(family.name, family.n) for family in evaluation.outliers] == [("far away", 100)]


def test_card_tells_numbers_limits_and_how_to_repeat_it(bundle: Bundle) -> None:
    card = bundle.read("MODEL_CARD.md").decode()

    assert "dunno train toy" in card
    assert "- It is a toy." in card
    assert "![Confusion matrix](confusion.png)" in card
    assert f"{bundle.manifest.policy.threshold:.6f}" in card


def test_saved_model_holds_no_optimizer(bundle: Bundle) -> None:
    import tensorflow as tf  # noqa: PLC0415  # slow

    variables = tf.train.list_variables(str(bundle.path / "saved_model/variables/variables"))

    shapes = sorted(tuple(shape) for _, shape in variables if shape)
    assert shapes == [(2, 8), (3,), (8,), (8, 3)]


def made_at(place: Place) -> list[int]:
    """When each finished step was stamped."""
    return [
        (place.work / step / "stamp.json").stat().st_mtime_ns
        for step in ("fit", "export", "scores")
    ]


def test_finished_steps_are_not_redone(bundle: Bundle, place: Place) -> None:
    before = made_at(place)

    again = make(toy_recipe(), place)

    assert made_at(place) == before
    assert again.manifest.policy == bundle.manifest.policy


@pytest.mark.slow
@pytest.mark.usefixtures("bundle")
def test_other_data_are_fitted_again(place: Place) -> None:
    def other_rows(folder: Path) -> Data:
        data = load(folder)
        return replace(data, splits=replace(data.splits, train=moved(data.splits.train, 1)))

    before = made_at(place)

    make(toy_recipe(load=other_rows), place)

    assert all(now > then for now, then in zip(made_at(place), before, strict=True))


@pytest.mark.slow
def test_recipe_with_folds_needs_no_other_split(tmp_path: Path) -> None:
    def load_one_split(folder: Path) -> Data:
        data = load(folder)
        return replace(data, splits=Splits(train=data.splits.train))

    recipe = toy_recipe(load=load_one_split, fit=fit_with_folds)
    bundle = make(recipe, Place(tmp_path, tmp_path / "build", tmp_path / "toy" / "1"))

    assert bundle.manifest.policy.status == "cross_fitted"
    assert bundle.manifest.evaluation is not None
    assert bundle.manifest.evaluation.n == 1_000


@pytest.mark.slow
def test_test_split_beside_folds_gives_the_numbers_of_the_card(tmp_path: Path) -> None:
    def load_train_and_test(folder: Path) -> Data:
        data = load(folder)
        return replace(data, splits=Splits(train=data.splits.train, test=data.splits.test))

    recipe = toy_recipe(load=load_train_and_test, fit=fit_with_folds)
    manifest = make(recipe, Place(tmp_path, tmp_path / "build", tmp_path / "toy" / "1")).manifest

    assert (manifest.policy.split, manifest.policy.n) == ("folds", 1_000)
    assert manifest.evaluation is not None
    assert (manifest.evaluation.split, manifest.evaluation.n) == ("official test split", 1_200)


def fit_with_folds(data: Data, workbench: Workbench) -> Fitted:
    train = data.splits.train
    distances = np.square(train.rows.astype(np.float32)[:, None] - CENTRES).sum(axis=2)
    logits = (-distances / 2).astype(np.float32)
    energy = -np.logaddexp.reduce(logits, axis=1, keepdims=True)
    folds = np.arange(len(logits)) % 4
    scores = Scores(logits, energy, train.targets)
    fitted = fit(replace(data, splits=Splits(train, train)), workbench)
    return replace(fitted, out_of_fold=OutOfFold(scores, folds))


def test_export_that_depends_on_the_batch_is_refused(tmp_path: Path) -> None:
    recipe = toy_recipe(fit=fit_with_batch_mean)
    place = Place(tmp_path, tmp_path / "build", tmp_path / "models" / "toy" / "1")

    with pytest.raises(ExportDiffers, match="onnx, batches of 1"):
        make(recipe, place)

    assert not place.bundle.exists()


def fit_with_batch_mean(*_: object) -> Fitted:
    import keras  # noqa: PLC0415

    from training.layers import serving_model  # noqa: PLC0415

    rows = keras.Input((2,))
    centred = rows - keras.ops.mean(rows, axis=0, keepdims=True)
    return Fitted(model=serving_model(rows, keras.layers.Dense(len(LABELS))(centred)))


def test_every_recipe_module_provides_the_contract() -> None:
    for name in recipe_names():
        recipe, lecture = find_recipe(name)

        assert isinstance(recipe, Recipe)
        assert recipe.name == name
        assert all(isinstance(other, Recipe) for other in lecture)


def test_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(RecipeMissing, match="mnist"):
        find_recipe("nonesuch")
