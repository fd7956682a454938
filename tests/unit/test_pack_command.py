"""`dunno pack`: one line writes a bundle; one sentence and exit code 2 say what is wrong."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from packing_toys import blob_graph, blob_table, request, run
from training_toys import blobs, toy_recipe

from service.bundle import read_bundle
from service.bundle.manifest import FeatureField, FeatureInput
from training.packing.command import pack
from training.packing.declared import InputOptions
from training.packing.labelled import read_labelled
from training.packing.pack import pack as make_bundle
from training.packing.packed_recipe import (
    PackedRecipe,
    make_packed,
    remeasure_packed,
    write_fields,
)
from training.recipe import Data, Fitted, Split, Splits


def arguments(folder: Path, *more: str) -> list[str]:
    model, table = blob_graph(folder / "blobs.onnx"), blob_table(folder / "blobs.csv")
    given = ["--name", "blobs", "--labels", "left,right, top", "--calibration", str(table)]
    return [str(model), *given, "--models", str(folder / "models"), *more]


def test_one_line_writes_a_bundle(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        pack, arguments(tmp_path, "--feature-output", "rows", "--max-error", "0.1")
    )

    assert result.exit_code == 0, result.output
    assert "to serve it, write [models.blobs] into catalogue.toml" in result.output
    bundle = read_bundle(tmp_path / "models" / "blobs" / "1")
    assert bundle.manifest.labels == ("left", "right", "top")
    assert "--feature-output rows --max-error 0.1" in bundle.read("MODEL_CARD.md").decode()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_may_stand_in_a_file(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "labels.txt").write_text("left\nright\ntop\n", encoding=encoding)

    result = CliRunner().invoke(
        pack, arguments(tmp_path, "--labels", f"@{tmp_path / 'labels.txt'}")
    )

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--target", "species", "name the column of labels with --target, one of: x, y, label"),
        ("--labels", "left,right", "has the label 'top', expected one of: left, right"),
        ("--scale", "half", "expected a number or a fraction such as 1/255"),
        ("--max-error", "2", "is not in the range"),
        ("--labels", "@none.txt", "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    tmp_path: Path, option: str, value: str, sentence: str
) -> None:
    result = CliRunner().invoke(pack, arguments(tmp_path, option, value))

    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    assert not (tmp_path / "models").exists()


def test_picture_that_no_manifest_can_hold_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "wide.npz"
    rows = np.zeros((30, 1, 5000), np.uint8)
    rows[:, :, 0] = 255
    np.savez_compressed(path, rows=rows, targets=["left", "right", "top"] * 10)
    given = arguments(tmp_path, "--input", "image", "--calibration", str(path))

    result = CliRunner().invoke(pack, given, catch_exceptions=False)

    assert result.exit_code == 2
    assert "dunno: a manifest cannot hold this: width: Input should be less than" in result.output


FIELDS = (
    FeatureField(name="x", unit="m", minimum=-50, maximum=50),
    FeatureField(name="the y", nullable=True),
)


def packed_recipe(folder: Path) -> PackedRecipe:
    """Return a recipe whose model is a ready graph."""

    def load(_: Path) -> Data:
        splits = Splits(train=blobs(10, seed=1), calibration=blobs(300, seed=2))
        return Data(
            splits=splits, input=FeatureInput(fields=FIELDS), sha256={"b": "0" * 64}, mixture="any"
        )

    def fit(*_: object) -> Fitted:
        return Fitted(model=blob_graph(folder / "made.onnx", filled=True).read_bytes())

    toy = toy_recipe()
    return PackedRecipe(
        name=toy.name,
        network=toy.network,
        description=toy.description,
        labels=toy.labels,
        seed=toy.seed,
        load=load,
        fit=fit,
        max_error=0.1,
        target="where",
        max_errors=(0.1,),
        limits=("It is a toy.",),
    )


@pytest.mark.slow
def test_recipe_is_packed_from_files_that_anybody_can_pack(tmp_path: Path) -> None:
    work, path = tmp_path / "build", tmp_path / "models" / "toy" / "1"

    bundle = make_packed(packed_recipe(tmp_path), tmp_path, work, path)
    again = CliRunner().invoke(
        pack,
        [
            *(str(work / "model.onnx"), "--name", "again", "--labels", "left,right,top"),
            *("--calibration", str(work / "calibration.csv"), "--target", "where"),
            *("--fields", str(work / "fields.toml"), "--max-error", "0.1"),
            *("--models", str(tmp_path / "models")),
        ],
    )

    assert again.exit_code == 0, again.output
    packed = read_bundle(tmp_path / "models" / "again" / "1")
    assert packed.manifest.policy.table == bundle.manifest.policy.table
    assert packed.manifest.input == bundle.manifest.input
    rows = blobs(20, seed=4).rows
    assert run(packed, rows).logits.tolist() == run(bundle, rows).logits.tolist()


@pytest.mark.slow
def test_packed_recipe_measured_again_says_the_same(tmp_path: Path) -> None:
    recipe, work = packed_recipe(tmp_path), tmp_path / "build"
    before = make_packed(recipe, tmp_path, work, tmp_path / "models" / "toy" / "1")

    after = remeasure_packed(recipe, tmp_path, work, before)

    assert after.manifest.evaluation == before.manifest.evaluation
    assert after.manifest.policy_id == before.manifest.policy_id
    assert after.read("MODEL_CARD.md") == before.read("MODEL_CARD.md")
    assert "dunno evaluate toy" in after.read("MODEL_CARD.md").decode()


def test_library_that_wrote_the_graph_is_recorded(tmp_path: Path) -> None:
    graph = onnx.load(blob_graph(tmp_path / "blobs.onnx"))
    graph.producer_name, graph.producer_version = "skl2onnx", "1.20"
    onnx.save(graph, tmp_path / "blobs.onnx")

    bundle = make_bundle(request(tmp_path, model=tmp_path / "blobs.onnx"))

    assert bundle.manifest.provenance.libraries["skl2onnx"] == "1.20"


def test_calibration_file_holds_the_rows_bit_by_bit(tmp_path: Path) -> None:
    recipe = packed_recipe(tmp_path)
    make_packed(recipe, tmp_path, tmp_path / "build", tmp_path / "models" / "toy" / "1")

    options = InputOptions(fields=tmp_path / "build" / "fields.toml")
    found = read_labelled(
        tmp_path / "build" / "calibration.csv", recipe.labels, "where", options, None
    )

    calibration = recipe.load(tmp_path).splits.calibration
    assert isinstance(calibration, Split)
    np.testing.assert_array_equal(found.rows, calibration.rows)
    np.testing.assert_array_equal(found.targets, calibration.targets)


def test_fields_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_fields(tmp_path / "fields.toml", FeatureInput(fields=FIELDS))
    (tmp_path / "rows.csv").write_text("x,the y,label\n1,,left\n2,3,right\n0,1,top\n")

    options = InputOptions(fields=tmp_path / "fields.toml")
    labels = request(tmp_path).labels
    found = read_labelled(tmp_path / "rows.csv", labels, "label", options, None)

    assert isinstance(found.input, FeatureInput)
    without_typical = [each.model_copy(update={"typical": None}) for each in found.input.fields]
    assert tuple(without_typical) == FIELDS
