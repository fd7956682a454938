"""Calibration files are read by the decoders that serve, and say what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest

from service.bundle.manifest import FeatureInput, ImageInput
from training.errors import PackRefused
from training.packing.declared import InputOptions
from training.packing.labelled import Labelled, read_labelled

LABELS = ("cat", "dog")


def read(path: Path, text: str, **options: object) -> Labelled:
    path.write_text(text)
    described = InputOptions(**options)  # type: ignore[arg-type]  # any of its fields
    return read_labelled(path, LABELS, "label", described, width=None)


def test_header_names_the_features_in_its_order(tmp_path: Path) -> None:
    found = read(tmp_path / "pets.csv", "weight,label,height\n4,cat,25\n9,dog,30\n")

    assert isinstance(found.input, FeatureInput)
    assert [field.name for field in found.input.fields] == ["weight", "height"]
    assert found.rows.tolist() == [[4, 25], [9, 30]]
    assert found.targets.tolist() == [0, 1]


def test_labels_may_be_numbers_from_zero(tmp_path: Path) -> None:
    found = read(tmp_path / "pets.csv", "x;label\n4;1\n9;0\n")

    assert found.targets.tolist() == [1, 0]


def test_empty_cells_make_a_column_nullable(tmp_path: Path) -> None:
    found = read(tmp_path / "pets.csv", "x,y,label\n4,,cat\n9,1,dog\n")

    assert isinstance(found.input, FeatureInput)
    assert [field.nullable for field in found.input.fields] == [False, True]
    assert np.isnan(found.rows[0, 1])
    assert found.input.fields[1].typical == (1.0, 1.0)


def test_fields_file_chooses_columns_bounds_and_units(tmp_path: Path) -> None:
    fields = tmp_path / "fields.toml"
    fields.write_text('["height"]\nunit = "cm"\nminimum = 0\n')

    found = read(
        tmp_path / "pets.csv", "name,height,label\nTom,25,cat\nRex,30,dog\n", fields=fields
    )

    assert isinstance(found.input, FeatureInput)
    (height,) = found.input.fields
    assert (height.name, height.unit, height.minimum) == ("height", "cm", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("x,label\n", "expected a header and rows", id="no rows"),
        pytest.param("x,kind\n1,cat\n", "--target, one of: x, kind", id="no target"),
        pytest.param("x,label\n1,cow\n", "row 1 has the label 'cow'", id="unknown label"),
        pytest.param("x,label\n1,cat\n2,cat\n", "no row has the label 'dog'", id="unseen label"),
        pytest.param("x,label\nTom,cat\n2,dog\n", "expected a number, got the string", id="a word"),
    ],
)
def test_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PackRefused, match=message):
        read(tmp_path / "pets.csv", text)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        pytest.param("[y]\n", r"\[y\] is no column; there are: x", id="unknown column"),
        pytest.param("[x]\nmin = 1\n", "min: Extra inputs", id="unknown fact"),
        pytest.param("x = 1\n", r"\[x\] expected a table", id="no table"),
        pytest.param("", "one table for each column", id="empty"),
        pytest.param("[x]\nminimum = 3\n", "expected at least 3", id="row below the bound"),
    ],
)
def test_fields_file_is_refused(tmp_path: Path, toml: str, message: str) -> None:
    fields = tmp_path / "fields.toml"
    fields.write_text(toml)

    with pytest.raises(PackRefused, match=message):
        read(tmp_path / "pets.csv", "x,label\n1,cat\n2,dog\n", fields=fields)


def test_arrays_of_pictures_tell_their_size(tmp_path: Path) -> None:
    path = tmp_path / "pets.npz"
    np.savez(path, rows=np.full((2, 6, 5, 1), 255.0), targets=["cat", "dog"])

    found = read_labelled(path, LABELS, "label", InputOptions(kind="image"), width=None)

    assert found.input == ImageInput(height=6, width=5, channels=1)
    assert found.rows.shape == (2, 6, 5)
    assert found.rows.dtype == np.uint8


@pytest.mark.parametrize(
    ("arrays", "kind", "message"),
    [
        pytest.param({"rows": np.ones((2, 2))}, "features", "expected `rows` and", id="no targets"),
        pytest.param(
            {"rows": np.ones((2, 2)), "targets": [0]}, "features", "as many", id="too few targets"
        ),
        pytest.param(
            {"rows": np.ones((2, 6, 5)), "targets": [0, 1]}, "image", "--scale", id="pixels to 1"
        ),
        pytest.param(
            {"rows": np.ones((2, 6, 5)), "targets": [0, 1]}, "features", "--input", id="pictures"
        ),
        pytest.param(
            {"rows": np.ones((2, 6)), "targets": [0, 1]}, "text", "token ids", id="no ids"
        ),
    ],
)
def test_arrays_are_refused(
    tmp_path: Path, arrays: dict[str, object], kind: str, message: str
) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # arrays by name

    options = InputOptions(kind=kind)  # type: ignore[arg-type]  # one of its kinds
    with pytest.raises(PackRefused, match=message):
        read_labelled(path, LABELS, "label", options, width=None)


def test_texts_without_a_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackRefused, match="texts need --vocabulary"):
        read(tmp_path / "texts.csv", "text,label\nmeow,cat\nwoof,dog\n", kind="text")
