"""CSV as programs write it: server, `dunno pack` and `dunno predict` read the same bytes alike."""

import codecs
import io
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.manifest import FeatureField, FeatureInput
from service.errors import ClientError, InputInvalid, PayloadTooLarge
from service.inputs.csv_reader import read_table
from service.inputs.features import FeatureDecoder
from service.inputs.payload import InputLimits, Payload
from service.offline import tables
from service.offline.tables import Table, csv_parts
from training.packing.declared import InputOptions
from training.packing.labelled import read_labelled

LIMITS = InputLimits(max_rows=100, max_picture_pixels=1, max_picture_side=1)
DECLARED = FeatureInput(
    fields=(FeatureField(name="pH"), FeatureField(name="age, years", nullable=True))
)
PLAIN = 'pH,"age, years",label\n3,7,cat\n4,,dog\n5,1,cat\n'
WINDOWS = 'pH;"age, years";label\r\n3;7;cat\r\n4;;dog\r\n5;1;cat\r\n'
ROWS = [[3, 7], [4, None], [5, 1]]

SAME = [
    pytest.param(PLAIN.encode(), id="as it should be"),
    pytest.param(WINDOWS.encode(), id="semicolons, a comma in the header"),
    pytest.param(f"\n\r\n{WINDOWS}".encode(), id="blank first lines"),
    pytest.param(f"  \n\t\n{WINDOWS}".encode(), id="first lines of blanks"),
    pytest.param(f"sep=;\r\n{WINDOWS}".encode(), id="separator told"),
    pytest.param(f'\ufeff"sep=;"\r\n{WINDOWS}'.encode(), id="mark and separator in quotes"),
    pytest.param(f"sep=,\n\n{PLAIN}".encode(), id="comma told, blank line behind it"),
    pytest.param(f"SEP=|\n{WINDOWS.replace(';', '|')}".encode(), id="bar told"),
    pytest.param(f"sep=\t\n{WINDOWS.replace(';', chr(9))}".encode(), id="tab told"),
    pytest.param(WINDOWS.replace(";", "\t").encode("utf-16"), id="Unicode text of Excel"),
    pytest.param(codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"), id="UTF-16, big end first"),
    pytest.param(PLAIN.replace("\n", "\r").encode(), id="CR only"),
    pytest.param(f"\r{PLAIN}\r\r".replace("\n", "\r").encode(), id="CR only, blank lines"),
    pytest.param(PLAIN.replace("\n3", "\r3").encode(), id="line ends mixed"),
    pytest.param(PLAIN.replace("4,,", "4,NaN,").encode(), id="NaN"),
    pytest.param(PLAIN.replace("4,,", "4, <NA> ,").encode(), id="<NA> between blanks"),
    pytest.param(PLAIN.replace("4,,", '4,"null",').encode(), id="null in quotes"),
    pytest.param(PLAIN.replace("\n4", "\n\n   \n4").encode(), id="blank lines between"),
    pytest.param(f"{PLAIN}  \t \n   ".encode(), id="a line of blanks at the end"),
    pytest.param(PLAIN.replace("5,1", "5,true").encode(), id="true is 1"),
    pytest.param(PLAIN.replace("5,1", "5,TRUE").encode(), id="TRUE of Excel is 1"),
    pytest.param(PLAIN.rstrip("\n").encode(), id="no line end at the end"),
    pytest.param(PLAIN.replace("label", '"label"').encode(), id="quotes"),
]


lone_cr = re.compile(r"\\r(?!\\n)")
"""In a quoted cell `dunno predict` makes it a LF, so that lines are counted by LF alone."""


def told(decoder: FeatureDecoder, payload: Payload) -> list[list[float | None]]:
    decoded = decoder.decode(payload)
    for error in decoded.errors.values():
        raise error
    return [[None if math.isnan(each) else each for each in row] for row in decoded.rows.tolist()]


def by_server(content: bytes) -> list[list[float | None]]:
    return told(FeatureDecoder(DECLARED, "float32", LIMITS), Payload(content, "text/csv"))


def by_predict(content: bytes) -> list[list[float | None]]:
    parts = list(csv_parts(Table("a.csv", io.BytesIO(content), len(content), None, ())))
    decoder = FeatureDecoder(DECLARED, "float32", LIMITS)
    return [row for part in parts for row in told(decoder, part.payload())]


def by_pack(content: bytes, folder: Path) -> list[list[float | None]]:
    path = folder / "a.csv"
    path.write_bytes(content)
    found = read_labelled(path, ("cat", "dog"), "label", InputOptions(), None)
    assert found.targets.tolist() == [0, 1, 0]
    return [[None if math.isnan(each) else each for each in row] for row in found.rows.tolist()]


@pytest.mark.parametrize("piece_bytes", [1, 1 << 18])
@pytest.mark.parametrize("content", SAME)
def test_table_is_read_alike_by_server_predict_and_pack(
    content: bytes, piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 2)
    monkeypatch.setattr(tables, "PIECE_BYTES", piece_bytes)

    assert by_server(content) == ROWS
    assert by_predict(content) == ROWS
    assert by_pack(content, tmp_path) == ROWS


@given(
    st.text(st.sampled_from('a1",;\t \n\r='), max_size=30),
    st.sampled_from(["", "sep=;\n", "\n \n"]),
)
def test_table_of_any_characters_is_read_alike_by_server_and_predict(text: str, start: str) -> None:
    content = f'{start}pH,"age, years"\n{text}'.encode()

    found: list[object] = []
    for read in (by_server, by_predict):
        try:
            found.append(read(content))
        except ClientError as error:
            found.append(lone_cr.sub(r"\\n", str(error).partition(":")[2]))

    assert found[0] == found[1]


@pytest.mark.parametrize("content", ['a\n"  "\n  \n\n""\n1\n', 'a\n"\n"\n2\n'])
def test_column_that_is_alone_has_a_row_for_each_record(content: str) -> None:
    parts = list(csv_parts(Table("a", io.BytesIO(content.encode()), 9, "a", ())))

    _, rows = read_table(content)
    assert sum(len(part.records) for part in parts) == len(list(rows))


def test_line_of_a_bad_cell_counts_blank_lines_and_the_separators() -> None:
    content = b"\nsep=;\n\npH;age, years\n3;1\r\n\nfour;1\n"

    for read in (by_server, by_predict):
        with pytest.raises(InputInvalid, match="column 'pH': expected a number"):
            read(content)
    with pytest.raises(InputInvalid, match=r"^line 7, column 'pH'"):
        by_server(content)
    (part,) = csv_parts(Table("a.csv", io.BytesIO(content), len(content), None, ()))
    body = part.payload().body
    with pytest.raises(InputInvalid) as caught:
        by_server(body)
    assert part.in_file(str(caught.value)).startswith("line 7, column 'pH'")


def test_missing_value_is_refused_where_the_field_needs_one() -> None:
    with pytest.raises(InputInvalid, match="column 'pH': expected a number, got the string 'NA'"):
        by_server(b'pH,"age, years"\nNA,1\n')


def test_separator_that_is_none_is_refused_by_its_line() -> None:
    with pytest.raises(InputInvalid, match=r"^line 2: expected sep= and one of , ; | : or a tab"):
        by_server(b"\nsep=x\npHx1\n")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(',"' * 200_000, id="one line of quotes"),
        pytest.param('sep=;\n"a\n' + '"",""\n' * 200_000, id="a quote that is never closed"),
        pytest.param("a;" * 200_000, id="columns"),
    ],
)
def test_header_that_is_too_long_is_refused_by_its_cap(content: str) -> None:
    """8 MiB of quotes took seven seconds, in which nothing else ran, before there was a cap."""
    for read in (by_server, by_predict):
        with pytest.raises(PayloadTooLarge, match="the header is larger than the cap of 262,144"):
            read(content.encode())


def test_header_of_nearly_as_many_characters_is_read() -> None:
    notes = [f"{'a' * 60}{number}" for number in range(4000)]
    header = ",".join(['pH,"age, years"', *notes])

    assert by_server(f"{header}\n3,7{',' * 4000}\n".encode()) == [[3, 7]]
