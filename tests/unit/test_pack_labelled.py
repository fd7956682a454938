"""Calibration files are read by the decoders that serve, and say what is wrong with them."""

import logging
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
    ("content", "message"),
    [
        pytest.param("x,label\n1,fourmí\n".encode("latin-1"), "expected UTF-8, got", id="latin"),
        pytest.param(b"x,label\n1," + b"c" * 200_000, "line 2: a cell is larger than", id="long"),
        pytest.param(
            b"label,text\ncat,meow, meow\n",
            "line 2: expected 2 cells, as the header has, got 3",
            id="comma in a text without quotes",
        ),
        pytest.param(b"", "expected a header and rows, got no row", id="empty"),
    ],
)
def test_file_that_is_no_table_is_refused_by_its_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "pets.csv"
    path.write_bytes(content)

    with pytest.raises(PackRefused) as caught:
        read_labelled(path, LABELS, "label", InputOptions(), None)

    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_vocabulary_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackRefused, match=r"none\.txt: cannot be read"):
        read(
            tmp_path / "texts.csv",
            "text,label\nmeow,cat\n",
            kind="text",
            vocabulary=tmp_path / "none.txt",
            max_tokens=2,
        )


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


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param(",x,y,label\n0,1,2,cat\n1,3,4,dog\n", "1", id="index of pandas"),
        pytest.param("x,y,label,\n1,2,cat,\n3,4,dog,\n", "4", id="comma behind every line"),
        pytest.param(' ;x;y;"";label\n0;1;2;;cat\n1;3;4;;dog\n', "1, 4", id="two of them"),
    ],
)
def test_column_without_a_name_is_left_out_and_told(
    tmp_path: Path, text: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    found = read(tmp_path / "pets.csv", text)

    assert isinstance(found.input, FeatureInput)
    assert [field.name for field in found.input.fields] == ["x", "y"]
    assert found.rows.tolist() == [[1, 2], [3, 4]]
    assert f"left out column {place}, which has no name" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "x,y,x,label\n1,2,3,cat\n1,2,3,dog\n",
            "the columns 1 and 3 are both called 'x'",
            id="a feature twice",
        ),
        pytest.param(
            "x,label,label\n1,cat,cat\n1,dog,dog\n",
            "the columns 2 and 3 are both called 'label'",
            id="labels twice",
        ),
        pytest.param(",label\n1,cat\n2,dog\n", "expected columns beside 'label'", id="only labels"),
        pytest.param(
            "x,label\n1,cat,\n2,dog,\n", "2 cells, as the header has, got 3", id="comma behind rows"
        ),
        pytest.param(
            "x,la\ufeffbel\n1,cat\n",
            r"looks like 'la\\ufeffbel', which has a byte order mark \(U\+FEFF\)",
            id="mark in header",
        ),
    ],
)
def test_table_with_other_columns_than_it_seems_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(PackRefused, match=message):
        read(tmp_path / "pets.csv", text)


@pytest.mark.parametrize(
    ("label", "written", "message"),
    [
        ("\ufeffant", "ant", r"looks like '\ufeffant', which has a byte order mark (U+FEFF)"),
        (
            "fourm\u00ed",
            "fourmi\u0301",
            "but has a combining character (U+0301 COMBINING ACUTE ACCENT)",
        ),
        (
            "fourmi\u0301",
            "fourm\u00ed",
            "but has U+00ED LATIN SMALL LETTER I WITH ACUTE",
        ),
        ("ant", "a\u200bnt", "looks like 'ant' but has an invisible character (U+200B ZERO WIDTH"),
        ("red ant", "red\u00a0ant", "has an invisible character (U+00A0 NO-BREAK SPACE)"),
        ("ant", "\u0430nt", "but has U+0430 CYRILLIC SMALL LETTER A"),
        ("ant", "Ant", "looks like 'ant' but differs in blanks, or in upper and lower case"),
    ],
)
def test_label_that_only_looks_like_another_is_refused_with_what_differs(
    tmp_path: Path, label: str, written: str, message: str
) -> None:
    path = tmp_path / "pets.csv"
    path.write_text(f"x,label\n1,{written}\n2,bee\n", encoding="utf-8")

    with pytest.raises(PackRefused) as caught:
        read_labelled(path, (label, "bee"), "label", InputOptions(), None)

    assert message in str(caught.value)


def test_fields_file_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    fields = tmp_path / "fields.toml"
    fields.write_text('[x]\nunit = "µm"\n', encoding="utf-8-sig")

    found = read(tmp_path / "pets.csv", "x,label\n1,cat\n2,dog\n", fields=fields)

    assert isinstance(found.input, FeatureInput)
    assert found.input.fields[0].unit == "µm"


WORDS = "meow\nwoof\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(WORDS.encode(), id="as it should be"),
        pytest.param(WORDS.replace("\n", "\r\n").encode(), id="CR LF"),
        pytest.param(WORDS.replace("\n", "\r").encode(), id="CR"),
        pytest.param(WORDS.encode("utf-8-sig"), id="byte order mark"),
        pytest.param(WORDS.replace("\n", "\r\n").encode("utf-16"), id="Notepad's Unicode"),
        pytest.param(WORDS.rstrip("\n").encode(), id="no line end at the end"),
    ],
)
def test_vocabulary_of_any_line_end_knows_its_words(tmp_path: Path, content: bytes) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_bytes(content)

    found = read(
        tmp_path / "texts.csv",
        "text,label\nMeow,cat\nwoof woof,dog\n",
        kind="text",
        vocabulary=vocabulary,
        max_tokens=2,
    )

    assert found.rows.tolist() == [[2, 0], [3, 3]]
    assert found.files == {"vocabulary.txt": WORDS.encode()}


@pytest.mark.parametrize("words", ["MEOW\nWoof\n", "##meow\n##woof\n", "meow \nwoof \n"])
def test_vocabulary_that_knows_no_word_is_refused(tmp_path: Path, words: str) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text(words)
    options = InputOptions(kind="text", vocabulary=vocabulary, max_tokens=2)
    path = tmp_path / "texts.npz"
    np.savez(path, rows=np.array([[2, 0], [3, 3]], np.int32), targets=["cat", "dog"])

    with pytest.raises(PackRefused, match=r"2 of 2 words of .* are no token of a text, such as"):
        read_labelled(path, LABELS, "label", options, width=None)


def test_words_that_no_text_has_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("[UNK]\nmeow\nwoof\n")

    read(
        tmp_path / "texts.csv",
        "text,label\nMeow,cat\nwoof woof,dog\n",
        kind="text",
        vocabulary=vocabulary,
        max_tokens=2,
    )

    assert "1 of 3 words" in caplog.text
    assert "'[UNK]'" in caplog.text


def test_token_count_beyond_what_a_manifest_holds_is_refused_by_its_option(tmp_path: Path) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text(WORDS)

    with pytest.raises(PackRefused, match=r"^--max-tokens: "):
        read(
            tmp_path / "texts.csv",
            "text,label\nmeow,cat\nwoof,dog\n",
            kind="text",
            vocabulary=vocabulary,
            max_tokens=100_000,
        )


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
