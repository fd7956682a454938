"""Verdicts beside the rows of Arrow's tables: what engines of large jobs map over their batches."""

import io
import re
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from service.errors import InputInvalid
from service.offline.arrow import verdicts_beside, worker_model
from service.offline.engines import Local, load_local
from service.settings import Settings


@pytest.fixture
def fruit(models: Path) -> Local:
    return load_local("fruit", Settings(models=models, max_request_rows=4))


@pytest.fixture
def review(models: Path) -> Local:
    return load_local("review", Settings(models=models))


def fruit_table(*rows: tuple[object, ...]) -> pa.Table:
    sweet, sour, firm = zip(*rows, strict=True)
    return pa.table({"sweet": sweet, "sour": sour, "firm": firm})


def test_each_row_keeps_its_columns_and_gets_a_verdict_beside_them(fruit: Local) -> None:
    table = fruit_table((9, 0, 0), (1, 1, 1)).append_column("box", pa.array(["007", "008"]))

    first, second = verdicts_beside(table, fruit).to_pylist()

    assert (first["box"], first["sweet"], first["verdict"], first["label"]) == (
        *("007", 9, "answer", "apple"),
    )
    assert first["probability_apple"] == first["confidence"]
    assert (second["verdict"], second["reason"]) == ("dont_know", "low_confidence")
    assert "file" not in first


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ((999, 0, 0), "sweet: expected at most 100 g/l, got 999"),
        (("9", "n/a", "0"), "column 'sour': expected a number, got the string 'n/a'"),
        ((None, 0, 0), "sweet: expected a number, got null"),
        ((None, None, None), "sweet: expected a number, got null"),
        (("", "", ""), "column 'sweet': expected a number, got the string ''"),
    ],
)
@pytest.mark.parametrize("rows", [1, 3, 9], ids=["one row", "a payload", "several payloads"])
def test_rows_that_are_all_bad_have_their_error_each(
    fruit: Local, bad: tuple[object, ...], expected: str, rows: int
) -> None:
    found = verdicts_beside(fruit_table(*[bad] * rows), fruit).to_pylist()

    assert [row["error"] for row in found] == [expected] * rows
    assert {row["verdict"] for row in found} == {None}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_cells_of_text_are_read_as_those_of_csv(fruit: Local, kind: pa.DataType) -> None:
    table = fruit_table(("9", " 0 ", "0"), ("n/a", "0", "0"), ("0", "9e0", "0"))

    found = verdicts_beside(
        table.cast(pa.schema([(name, kind) for name in table.column_names])), fruit
    ).to_pylist()

    assert [row["label"] for row in found] == ["apple", None, "pear"]
    assert found[0]["sour"] == " 0 "


def test_exact_decimals_are_numbers(fruit: Local) -> None:
    rows = [(Decimal("9.50"), Decimal("0.25"), Decimal("0.00"))]

    assert verdicts_beside(fruit_table(*rows), fruit)["label"].to_pylist() == ["apple"]


def test_column_that_has_the_name_of_a_verdicts_is_renamed(fruit: Local) -> None:
    table = fruit_table((9, 0, 0)).append_column("label", pa.array(["plum"]))

    (row,) = verdicts_beside(table, fruit).to_pylist()

    assert (row["input_label"], row["label"]) == ("plum", "apple")


def test_tables_without_rows_have_the_same_columns(fruit: Local) -> None:
    table = fruit_table((9, 0, 0))

    assert verdicts_beside(table.slice(1), fruit).schema == verdicts_beside(table, fruit).schema


def test_texts_and_pictures_come_from_a_column(review: Local, models: Path) -> None:
    picture = load_local("picture", Settings(models=models, max_request_pixels=4096))
    content = io.BytesIO()
    Image.new("L", (60, 60), 250).save(content, "PNG")

    texts = pa.table({"id": [1, 2], "text": ["good good good", None]})
    pictures = pa.table({"scan": [content.getvalue(), b"x", content.getvalue()]})

    read, missing = verdicts_beside(texts, review, "text").to_pylist()
    assert (read["label"], missing["label"]) == ("positive", None)
    assert missing["error"] == "expected a text, got null"
    labels = verdicts_beside(pictures, picture, "scan")["label"].to_pylist()
    assert labels == ["light", None, "light"]


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("fruit", "box", "columns: expected one 'box', got sweet, sour"),
        ("review", None, "column: expected the one that holds the texts, got none"),
        ("fruit", None, "columns: expected one 'firm', got sweet, sour"),
    ],
)
def test_table_without_a_column_that_is_needed_is_refused(
    models: Path, name: str, column: str | None, expected: str
) -> None:
    model = load_local(name, Settings(models=models))

    for table in (pa.table({"sweet": ["9"], "sour": ["0"]}), pa.table({"sweet": [9], "sour": [0]})):
        with pytest.raises(InputInvalid, match=re.escape(expected)):
            verdicts_beside(table, model, column)


def test_process_loads_a_model_once(models: Path) -> None:
    assert worker_model("fruit", models) is worker_model("fruit", models)
    assert worker_model("review", models).kind == "text"
