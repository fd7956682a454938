"""Files of rows in parts: nothing is lost at their seams, whatever the cells hold."""

import codecs
import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ClientError, InputInvalid, PayloadTooLarge
from service.inputs.tensors import read_npy
from service.offline import tables
from service.offline.parts import Part
from service.offline.tables import (
    Table,
    array_parts,
    csv_parts,
    json_line_parts,
    line_parts,
    parquet_parts,
)


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after every third row, so that a test sees seams."""
    monkeypatch.setattr(tables, "MOST_ROWS", 3)


def table(content: bytes, column: str | None = None, features: Sequence[str] = ()) -> Table:
    return Table("a.csv", io.BytesIO(content), len(content), column, features)


def bodies(parts: Sequence[Part]) -> list[bytes]:
    return [part.payload().body for part in parts]


def instances(parts: Sequence[Part]) -> list[list[object]]:
    return [json.loads(body)["instances"] for body in bodies(parts)]


def failure(part: Part) -> ClientError:
    with pytest.raises(ClientError) as caught:
        part.payload()
    return caught.value


CELLS = st.text(st.sampled_from('ab",;\n 1'), max_size=6)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12),
    separator=st.sampled_from(",;"),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_in_parts_holds_the_rows_of_the_whole(
    rows: list[tuple[str, str]], separator: str, line_end: str
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=line_end)
    writer.writerows([("first", "second"), *rows])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "MOST_ROWS", 3)
        parts = list(csv_parts(table(stream.getvalue().encode())))

    found: list[tuple[str, ...]] = []
    for part in parts:
        text = io.StringIO(part.payload().body.decode(), newline="")
        header, *read = csv.reader(text, delimiter=separator)
        assert header == ["first", "second"]
        assert part.first_row == len(found)
        found += [tuple(row) for row in read if row]
    assert found == rows


@pytest.mark.usefixtures("_small_parts")
def test_places_in_a_part_are_told_as_places_in_the_file() -> None:
    parts = list(csv_parts(table(b'a\n1\n\n2\n"3"\n4\n\n\n5\n')))

    assert bodies(parts) == [b'a\n1\n\n2\n"3"\n', b"a\n4\n\n\n5\n"]
    assert parts[1].in_file("line 5, column 'a': expected a number") == (
        "line 9, column 'a': expected a number"
    )
    assert parts[1].in_file("instances[1].a: expected") == "instances[4].a: expected"


@pytest.mark.usefixtures("_small_parts")
def test_half_of_a_part_knows_its_place_too() -> None:
    _, part = csv_parts(table(b"a\n1\n2\n3\n4\n5\n6\n"))

    halves = part.halves()

    assert halves is not None
    first, second = halves
    assert bodies([first, second]) == [b"a\n4\n", b"a\n5\n6\n"]
    assert (first.first_row, second.first_row) == (3, 4)
    assert second.in_file("line 2") == "line 6"
    assert first.halves() is None


@pytest.mark.usefixtures("_small_parts")
def test_header_may_begin_late_and_go_on_over_several_lines() -> None:
    parts = list(csv_parts(table(b'\n\r\n"a\nin cm",b\n1,1\n2,2\n3,3\n4,4\n')))

    assert bodies(parts) == [b'"a\nin cm",b\n1,1\n2,2\n3,3\n', b'"a\nin cm",b\n4,4\n']
    assert parts[1].in_file("line 3") == "line 8"


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        (csv_parts, b'"text",id\ngood,1\n'),
        (json_line_parts, b'{"text": "good"}\n'),
        (line_parts, b"good\n"),
    ],
)
def test_byte_order_mark_is_no_part_of_the_first_row(
    parts: Callable[[Table], Iterable[Part]], content: bytes
) -> None:
    column = None if parts is line_parts else "text"

    assert instances(list(parts(table(codecs.BOM_UTF8 + content, column)))) == [["good"]]


def test_cell_that_is_too_long_is_refused_alone() -> None:
    (part,) = csv_parts(table(b"text\na\n" + b"b" * 200_000 + b"\nc\n", "text"))

    assert str(failure(part)) == ("line 2: a cell is larger than the cap of 131,072 characters")
    assert part.in_file("line 2") == "line 3"
    halves = part.halves()
    assert halves is not None
    assert instances([halves[0]]) == [["a"]]


def test_quote_within_a_bare_cell_does_not_swallow_the_next_row() -> None:
    (part,) = csv_parts(table(b'a,b\n5" pipe,1\n6" pipe,2\n'))

    assert len(part.records) == 2


@pytest.mark.parametrize("content", [b'a\n1\n"2\n' + b"3\n" * 50, b"a\n1\n" + b"2" * 200])
def test_row_without_an_end_is_refused_after_those_before_it(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_RECORD_BYTES", 64)

    good, bad = csv_parts(table(content))

    assert good.payload().body == b"a\n1\n"
    assert isinstance(failure(bad), PayloadTooLarge)
    assert bad.first_row == 1


def test_table_in_another_encoding_is_refused_at_once() -> None:
    with pytest.raises(InputInvalid, match="expected CSV in UTF-8, or in UTF-16 with a byte"):
        csv_parts(table("a,ü\n1,2\n".encode("latin-1")))


def test_separator_in_a_text_without_quotes_is_refused_by_its_line() -> None:
    (part,) = csv_parts(table(b"id,text\n1,good,\n\n2,good, and bad\n", "text"))

    error = str(failure(part))

    assert part.in_file(error) == "line 4: expected 2 cells, as the header has, got 3"
    halves = part.halves()
    assert halves is not None
    assert instances([halves[0]]) == [["good"]]
    assert halves[1].in_file(str(failure(halves[1]))) == part.in_file(error)


def test_cell_in_another_encoding_is_refused_with_its_part() -> None:
    (part,) = csv_parts(table(b"text\ngood\n\xe9\n", "text"))

    assert "a.csv: expected CSV in UTF-8, got 'utf-8' codec" in str(failure(part))


@pytest.mark.parametrize("content", [b"", b"\n  \n", b"sep=;\n", b"\xef\xbb\xbf"])
def test_table_without_a_header_is_left_to_the_decoder(content: bytes) -> None:
    (part,) = csv_parts(table(content))

    assert part.payload().body == b""


def test_header_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_RECORD_BYTES", 64)

    with pytest.raises(PayloadTooLarge, match="the header with the empty lines before it"):
        csv_parts(table(b'"a\n' + b"b\n" * 50))


def test_file_that_breaks_off_within_a_character_is_told_behind_its_rows() -> None:
    good, bad = csv_parts(table("a,b\n1,2\n3,4\n".encode("utf-16")[:-1]))

    assert good.payload().body == b"a,b\n1,2\n"
    assert bad.first_row == 1
    assert "expected UTF-16-LE" in str(failure(bad))


@pytest.mark.parametrize("parts", [json_line_parts, line_parts])
def test_lines_of_utf_16_are_read_by_their_byte_order_mark(
    parts: Callable[[Table], Iterable[Part]],
) -> None:
    content = '"ü"\n  \n"b"\n'.encode("utf-16")

    (part,) = parts(table(content))

    assert [str(text).strip('"') for text in instances([part])[0]] == ["ü", "b"]


@pytest.mark.usefixtures("_small_parts")
def test_each_line_is_a_text() -> None:
    parts = list(line_parts(table("eins\r\n\r\nzwei\ndrüben\nvier".encode())))

    assert instances(parts) == [["eins", "zwei", "drüben"], ["vier"]]


@pytest.mark.usefixtures("_small_parts")
def test_each_line_is_a_row_of_json() -> None:
    parts = list(json_line_parts(table(b'[1, 2]\n{"a": 3}\n\n"x"\n[4]')))

    assert instances(parts) == [[[1, 2], {"a": 3}, "x"], [[4]]]


def test_nan_on_a_line_of_json_is_read_as_in_a_request() -> None:
    (part,) = json_line_parts(table(b"[NaN, Infinity]\n"))

    assert b"[[NaN, Infinity]]" in part.payload().body


def test_row_nested_too_deep_for_a_request_is_refused() -> None:
    (part,) = json_line_parts(table(b"[" * 300 + b"]" * 300))

    assert "instances: expected rows that JSON can hold" in str(failure(part))


@pytest.mark.parametrize("line", [b'{"a": 1', b"[1], [2]", b'[1]], "more": [[2]'])
def test_line_that_is_no_json_is_refused(line: bytes) -> None:
    (part,) = json_line_parts(table(line))

    assert "a.csv: expected JSON on each line" in str(failure(part))


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        (csv_parts, b'id,text\n1,"a, b"\n2,\n3\n'),
        (csv_parts, b"\xef\xbb\xbfid;text\n1;a, b\n2;\n3\n"),
        (json_line_parts, b'{"text": "a, b"}\n{"text": ""}\n{"text": null}\n'),
    ],
)
def test_column_holds_the_texts(parts: object, content: bytes) -> None:
    assert callable(parts)

    assert instances(list(parts(table(content, "text")))) == [["a, b", "", None]]


def test_column_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(InputInvalid, match=r"^--column: expected one of id, text, got words$"):
        csv_parts(table(b"id,text\n1,a\n", "words"))


def test_array_comes_in_parts() -> None:
    values = np.arange(3000 * 3, dtype=np.float32).reshape(3000, 3)

    parts = list(array_parts("a.npy", values))

    read = [read_npy(body, (3,)) for body in bodies(parts)]
    assert [part.first_row for part in parts] == [0, 1024, 2048]
    assert np.array_equal(np.concatenate(read), values)


def parquet(**columns: object) -> bytes:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet as pq  # noqa: PLC0415

    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


@pytest.mark.usefixtures("_small_parts")
def test_parquet_is_read_by_the_names_of_the_features() -> None:
    content = parquet(sour=[1.5, None, 3, 4], note=["x"] * 4, sweet=[1, 2, 3, 4])

    parts = list(parquet_parts(table(content, features=("sweet", "sour"))))

    assert instances(parts) == [
        [{"sour": 1.5, "sweet": 1}, {"sour": None, "sweet": 2}, {"sour": 3, "sweet": 3}],
        [{"sour": 4, "sweet": 4}],
    ]


def test_parquet_without_a_feature_is_refused_as_a_whole() -> None:
    content = table(parquet(sweet=[1, 2], sour=[1, 2]), features=("sweet", "firm"))

    with pytest.raises(InputInvalid, match=r"^header: expected one column 'firm', got sweet, sour"):
        parquet_parts(content)


def test_numbers_of_a_parquet_file_stay_what_they_are() -> None:
    content = parquet(sweet=[Decimal("1.5"), None], sour=[math.inf, math.nan])

    (part,) = parquet_parts(table(content, features=("sweet", "sour")))

    assert str(instances([part])[0]) == str(
        [{"sweet": 1.5, "sour": math.inf}, {"sweet": None, "sour": math.nan}]
    )


def test_row_of_a_parquet_file_that_is_no_json_is_refused_alone() -> None:
    (part,) = parquet_parts(table(parquet(stay=[timedelta(1)]), features=("stay",)))

    assert instances([part]) == [[{"stay": "1 day, 0:00:00"}]]


def test_parquet_holds_pictures_as_bytes() -> None:
    (part,) = parquet_parts(table(parquet(scan=[b"\x89PNG", None]), "scan"))

    assert instances([part]) == [[{"b64": "iVBORw=="}, None]]


def test_file_that_is_no_parquet_is_refused() -> None:
    with pytest.raises(InputInvalid, match=r"a\.csv: expected a Parquet file"):
        parquet_parts(table(b"PAR1 and then nothing"))


def test_parquet_that_breaks_off_is_told_after_the_rows_before_it() -> None:
    content = bytearray(parquet(text=[str(row) for row in range(200_000)]))
    content[len(content) // 2 : len(content) // 2 + 4096] = b"\xff" * 4096

    *good, bad = parquet_parts(table(bytes(content), "text"))

    assert isinstance(failure(bad), InputInvalid)
    assert bad.first_row == sum(len(part.records) for part in good)
