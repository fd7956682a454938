import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle.manifest import FeatureField, FeatureInput
from service.errors import ClientError, InputInvalid, MediaTypeUnsupported, PayloadTooLarge
from service.inputs.features import MOST_COLUMNS, FeatureDecoder
from service.inputs.payload import UNTOLD, InputLimits, Payload, decode_light

LIMITS = InputLimits(max_rows=5, max_picture_pixels=100, max_picture_side=100)
DECLARED = FeatureInput(
    fields=(
        FeatureField(name="pH", minimum=0, maximum=14),
        FeatureField(name="sugar", minimum=0, unit="g/l"),
        FeatureField(name="age", nullable=True),
    )
)


@pytest.fixture
def decoder() -> FeatureDecoder:
    return FeatureDecoder(DECLARED, "float32", LIMITS)


def as_json(*instances: object) -> Payload:
    return Payload(json.dumps({"instances": instances}).encode(), "application/json")


def as_csv(text: str) -> Payload:
    return Payload(text.encode(), "text/csv")


def as_npy(array: NDArray[np.generic]) -> Payload:
    stream = io.BytesIO()
    np.save(stream, array)
    return Payload(stream.getvalue(), "application/x-npy")


def errors(found: dict[int, ClientError]) -> dict[int, str]:
    return {row: str(error) for row, error in found.items()}


def test_list_in_order_and_object_by_name_are_the_same_row(decoder: FeatureDecoder) -> None:
    decoded = decoder.decode(as_json([3, 7.5, 1], {"age": 1, "pH": 3, "sugar": 7.5}))

    assert decoded.rows.tolist() == [[3, 7.5, 1], [3, 7.5, 1]]
    assert decoded.rows.dtype == np.float32


def test_missing_value_is_nan_where_the_field_allows_it(decoder: FeatureDecoder) -> None:
    decoded = decoder.decode(as_json([3, 7.5, None], [3, 7.5, math.nan], {"pH": 3, "sugar": 7.5}))

    assert np.isnan(decoded.rows[:, 2].astype(float)).all()


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        pytest.param([3, 7], "3 numbers (pH, sugar, age), got a list of 2", id="too few"),
        pytest.param([3, 7, 1, 2], "3 numbers (pH, sugar, age), got a list of 4", id="too many"),
        pytest.param([15, 7, 1], "instances[0].pH: expected at most 14, got 15", id="above"),
        pytest.param([3, -1, 1], "instances[0].sugar: expected at least 0 g/l, got -1", id="below"),
        pytest.param([3, math.nan, 1], "instances[0].sugar: expected a finite number", id="NaN"),
        pytest.param([3, None, 1], "instances[0].sugar: expected a number, got null", id="null"),
        pytest.param([3, "7", 1], "instances[0].sugar: expected a number, got the", id="text"),
        pytest.param([3, 1e300, 1], "numbers that float32 can hold", id="too large for float32"),
        pytest.param({"pH": 3, "age": 1}, "the feature 'sugar'", id="missing name"),
        pytest.param({"pH": 3, "sugar": 1, "sauce": 2}, "also the string 'sauce'", id="wrong name"),
        pytest.param("3,7,1", "3 numbers", id="string"),
        pytest.param(None, "3 numbers", id="null row"),
    ],
)
def test_bad_row_is_named_and_its_neighbour_read(
    decoder: FeatureDecoder, instance: object, expected: str
) -> None:
    decoded = decoder.decode(as_json(instance, [3, 7, 1]))

    assert decoded.rows.tolist() == [[3, 7, 1]]
    assert expected in errors(decoded.errors)[0]


@pytest.mark.parametrize("separator", [",", ";"])
def test_csv_with_either_separator_is_read(decoder: FeatureDecoder, separator: str) -> None:
    text = 'quality,"pH","sugar",age\n5,3,7.5,1\n\n6,4,8,\n'.replace(",", separator)

    decoded = decoder.decode(as_csv(text))

    assert decoded.rows[0].tolist() == [3, 7.5, 1]
    assert decoded.rows[1, :2].tolist() == [4, 8]
    assert decoded.ignored_columns == ("quality",)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(as_json([True, 1, False], {"pH": 1, "sugar": True, "age": 0}), id="json"),
        pytest.param(as_json([True, True, False], [1, 1, 0]), id="json without a fraction"),
        pytest.param(as_csv("pH,sugar,age\ntrue,1,False\n1,TRUE,0\n"), id="csv"),
        pytest.param(as_npy(np.array([[True, True, False]] * 2)), id="npy"),
    ],
)
def test_truth_is_one_and_falsehood_zero_in_every_form(
    decoder: FeatureDecoder, payload: Payload
) -> None:
    assert decoder.decode(payload).rows.tolist() == [[1, 1, 0], [1, 1, 0]]


def test_truth_has_to_lie_within_the_bounds_as_any_number() -> None:
    declared = FeatureInput(fields=(FeatureField(name="year", minimum=1900),))
    decoder = FeatureDecoder(declared, "float32", LIMITS)

    decoded = decoder.decode(as_json([True]))

    assert str(decoded.errors[0]) == "instances[0].year: expected at least 1900, got 1"


def test_cell_too_many_is_refused_because_it_shifts_the_others(decoder: FeatureDecoder) -> None:
    decoded = decoder.decode(as_csv("pH,sugar,age\n\n\n3,7,5,1\n3,7,1\n"))

    assert str(decoded.errors[0]) == "line 4: expected 3 cells, as the header has, got 4"
    assert len(decoded.rows) == 1


def test_csv_names_line_and_column_of_a_bad_cell(decoder: FeatureDecoder) -> None:
    decoded = decoder.decode(as_csv("pH,sugar,age\n3,7,1\n3,much,1\n99,7,1\n3\n3,nan,1\n"))

    assert decoded.rows.tolist() == [[3, 7, 1]]
    found = errors(decoded.errors)
    assert found[1] == "line 3, column 'sugar': expected a number, got the string 'much'"
    assert found[2] == "line 4.pH: expected at most 14, got 99"
    assert "3 cells, as the header has, got 1" in found[3]
    assert "finite" in found[4]


def test_quote_that_is_not_closed_is_named(decoder: FeatureDecoder) -> None:
    decoded = decoder.decode(as_csv('pH,sugar,age\n5,"3\n,1,0\n4,3,1\n'))

    assert str(decoded.errors[0]) == (
        "line 4: expected 3 cells, as the header has, got 2, one of them over several lines "
        "(a quote that is not closed?)"
    )


def test_cell_is_no_number_because_python_would_take_it_for_one(decoder: FeatureDecoder) -> None:
    decoded = decoder.decode(as_csv("pH,sugar,age\n1_0,1,1\n"))

    assert str(decoded.errors[0]) == (
        "line 2, column 'pH': expected a number, got the string '1_0'"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "a header and rows", id="nothing"),
        pytest.param(b"pH,sugar\n1,2\n", "one column 'age'", id="missing column"),
        pytest.param(b"pH,sugar,age,pH\n1,2,3,4\n", "one column 'pH'.*several", id="column twice"),
        pytest.param(b"pH,sugar,age\n", "at least one row", id="header only"),
        pytest.param(b"pH,sugar,age\n\xff,1,2\n", "UTF-8", id="no UTF-8"),
        pytest.param(
            "pH,sugar,age\n1,1,2\n".encode("utf-16-le"),
            "got zero bytes; without a byte order mark UTF-16 needs charset=utf-16le",
            id="UTF-16 that says nothing of it",
        ),
    ],
)
def test_csv_of_another_form_is_refused(
    decoder: FeatureDecoder, content: bytes, expected: str
) -> None:
    with pytest.raises(InputInvalid, match=expected):
        decoder.decode(Payload(content, "text/csv"))


def test_npy_rows_are_checked_like_any_other(decoder: FeatureDecoder) -> None:
    decoded = decoder.decode(as_npy(np.array([[3.0, 7, 1], [15, 7, 1], [3, np.inf, 1]])))

    assert decoded.rows.tolist() == [[3, 7, 1]]
    assert set(decoded.errors) == {1, 2}


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(as_json(*[[3, 7, 1]] * 6), id="json lists"),
        pytest.param(as_json(*[{"pH": 3, "sugar": 7}] * 6), id="json objects"),
        pytest.param(as_csv("pH,sugar,age\n" + "3,7,1\n" * 6), id="csv"),
        pytest.param(as_npy(np.ones((6, 3))), id="npy"),
    ],
)
def test_too_many_rows_are_refused(decoder: FeatureDecoder, payload: Payload) -> None:
    with pytest.raises(PayloadTooLarge, match="cap of 5 rows"):
        decoder.decode(payload)


def test_other_media_types_are_refused_with_those_there_are(decoder: FeatureDecoder) -> None:
    with pytest.raises(MediaTypeUnsupported, match=r"text/csv.*got image/png"):
        decoder.decode(Payload(b"", "image/png"))


def test_only_small_bodies_are_light(decoder: FeatureDecoder) -> None:
    assert decoder.is_light(Payload(b"x" * 1000, "text/csv"))
    assert not decoder.is_light(Payload(b"x" * 1_000_000, "text/csv"))


def test_files_are_no_rows_of_features(decoder: FeatureDecoder) -> None:
    with pytest.raises(InputInvalid, match="expected rows of 3 numbers, got 2 files"):
        decoder.decode_contents([b"", b""], "data", Payload(b"", ""))


def test_table_of_too_many_columns_is_refused_by_their_cap(decoder: FeatureDecoder) -> None:
    names = ["pH", "sugar", "age", *(f"x{n}" for n in range(MOST_COLUMNS - 3))]
    row = ",".join(["3"] * MOST_COLUMNS)
    assert decoder.decode(as_csv(f"{','.join(names)}\n{row}\n")).rows.tolist() == [[3, 3, 3]]

    with pytest.raises(PayloadTooLarge, match="cap of 4,096 columns"):
        decoder.decode(as_csv(f"{','.join([*names, 'more'])}\n{row},3\n"))


@pytest.mark.parametrize("line", [1, 2])
def test_cell_that_is_too_long_is_refused_by_its_cap(decoder: FeatureDecoder, line: int) -> None:
    cell = "3" * 200_000
    table = f"pH,sugar,age\n3,7,{cell}\n" if line == 2 else f"pH,sugar,age,{cell}\n3,7,1,2\n"

    with pytest.raises(PayloadTooLarge, match=f"line {line}: a cell .* cap of 131,072 characters"):
        decoder.decode(as_csv(table))


MOST_TOLD = 100
MANY = FeatureDecoder(DECLARED, "float32", replace(LIMITS, max_rows=1000, max_row_errors=MOST_TOLD))
MANY_WRONG = [[99, 0, 0]] * 300 + [[7, 1, 2]]
NPY_WRONG = as_npy(np.array(MANY_WRONG, np.float64))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(as_json(*MANY_WRONG), id="JSON"),
        pytest.param(NPY_WRONG, id="npy"),
        pytest.param(as_csv("pH,sugar,age\n" + "99,0,0\n" * 300 + "7,1,2\n"), id="CSV"),
    ],
)
def test_the_first_hundred_errors_are_told_in_full_and_all_have_their_code(
    payload: Payload,
) -> None:
    decoded = MANY.decode(payload)

    assert decoded.rows.tolist() == [[7, 1, 2]]
    assert list(decoded.errors) == list(range(300))
    assert {type(error) for error in decoded.errors.values()} == {InputInvalid}
    told = [str(error) for error in decoded.errors.values()]
    assert all("pH: expected at most 14, got 99" in text for text in told[:MOST_TOLD])
    assert set(told[MOST_TOLD:]) == {UNTOLD}


def test_rows_of_an_array_are_told_apart_and_wrong_ones_are_named() -> None:
    rows = np.array([[7, 1, 2], [7, -1, 2], [7, 1, np.nan], [np.nan, 1, 2], [7, 1e39, 2]])

    decoded = MANY.decode(as_npy(rows))

    assert decoded.rows[:, :2].tolist() == [[7, 1], [7, 1]]
    assert {position: str(error) for position, error in decoded.errors.items()} == {
        1: "rows[1].sugar: expected at least 0 g/l, got -1",
        3: "rows[3].pH: expected a finite number, got nan",
        4: "rows[4]: expected numbers that float32 can hold, got 1e+39",
    }


@pytest.mark.parametrize(
    ("payload", "is_light"),
    [
        pytest.param(as_json([7, 1, 2]), True, id="a row"),
        pytest.param(as_json(*[[7, 1, 2]] * 300), True, id="rows of sound numbers"),
        pytest.param(as_json(*[[]] * 300), False, id="empty rows"),
        pytest.param(as_json(*[0] * 300), False, id="numbers for rows"),
        pytest.param(as_json(*[{}] * 300), False, id="empty objects"),
        pytest.param(as_json(*MANY_WRONG), False, id="wrong rows"),
        pytest.param(as_json({str(key): 1 for key in range(300)}), False, id="keys"),
        pytest.param(as_csv("pH,sugar,age\n" + "7,1,2\n" * 300), False, id="CSV"),
        pytest.param(as_csv("pH;sugar;age\n" + "7;1;2\n" * 100), False, id="semicolons"),
        pytest.param(as_csv("pH\tsugar\tage\n" + "7\t1\t2\n" * 100), False, id="tabs"),
        pytest.param(as_csv("sep=|\na|b\n" + "7|1\n" * 200), False, id="bars"),
        pytest.param(as_csv("sep=:\na:b\n" + "7:1\n" * 200), False, id="colons"),
        pytest.param(as_csv("pH\n" + "7\n" * 300), False, id="one column"),
        pytest.param(as_csv("pH\r" + "7\r" * 300), False, id="one column, lines of CR"),
        pytest.param(as_csv("pH,sugar,age\n7,1,2\n"), True, id="a row of CSV"),
        pytest.param(NPY_WRONG, True, id="wrong rows of npy"),
    ],
)
def test_what_takes_long_for_its_size_is_not_decoded_on_the_event_loop(
    payload: Payload, *, is_light: bool
) -> None:
    assert (decode_light(MANY, payload) is not None) == is_light
