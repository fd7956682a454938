"""Rows of named numbers: JSON lists and objects, CSV tables, .npy arrays."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import FeatureField, FeatureInput
from service.errors import ClientError, InputInvalid, PayloadTooLarge, without_traceback
from service.inputs.csv_reader import (
    ALL_SEPARATORS,
    BOOLEANS,
    LINE_ENDS,
    is_missing,
    read_table,
)
from service.inputs.numbers import (
    check_number,
    quick_rows,
    read_instances,
    shown,
)
from service.inputs.payload import (
    LIGHT_BYTES,
    LIGHT_VALUES,
    Decoded,
    InputLimits,
    Payload,
    collect,
    has_few_marks,
    has_few_values,
    refuse_too_many,
    select_valid,
    unsupported,
)
from service.inputs.tensors import read_npy

MOST_COLUMNS = 4096
"""Columns of a table, those that the model does not use included."""

_CELL_ENDS = tuple(mark.encode() for mark in (*ALL_SEPARATORS, *LINE_ENDS))


class FeatureDecoder:
    """Rows of shape (fields,), float, each value within the bounds of its field."""

    media_types = ("application/json", "text/csv", "application/x-npy")

    def __init__(self, declared: FeatureInput, dtype: str, limits: InputLimits) -> None:
        self._fields = declared.fields
        self._names = [field.name for field in declared.fields]
        self._dtype = np.dtype(dtype)
        self._limits = limits
        self._minima = np.array([_bound(field.minimum, -math.inf) for field in self._fields])
        self._maxima = np.array([_bound(field.maximum, math.inf) for field in self._fields])
        self._nullable = np.array([field.nullable for field in self._fields])
        self._empty = np.empty((0, len(self._fields)), self._dtype)

    def is_light(self, payload: Payload) -> bool:
        """Tell whether decoding is quick enough for the event loop."""
        body = payload.body
        match payload.media_type:
            case "application/json":
                return len(body) <= LIGHT_BYTES and has_few_values(body)
            case "text/csv":
                return len(body) <= LIGHT_BYTES and has_few_marks(body, _CELL_ENDS, LIGHT_VALUES)
            case "application/x-npy":
                return len(body) <= LIGHT_BYTES
        return True  # it is refused

    def decode(self, payload: Payload) -> Decoded:
        """Return the rows of a payload; see `Decoder.decode`."""
        match payload.media_type:
            case "application/json":
                return self._from_json(payload)
            case "text/csv":
                return self._from_csv(payload.text())
            case "application/x-npy":
                return self.decode_array(read_npy(payload.body, (len(self._fields),)))
        raise unsupported(payload, self.media_types)

    def decode_numbers(self, body: bytes) -> Decoded | None:
        """Return the rows of a body of numbers; see `Decoder.decode_numbers`."""
        values = quick_rows(body, (len(self._fields),), self._limits.max_rows)
        if values is None or not self._are_valid(values):
            return None
        return Decoded(values.astype(self._dtype))

    def decode_instances(self, instances: list[object], place: str, payload: Payload) -> Decoded:
        """Return rows of JSON; see `Decoder.decode_instances`."""
        refuse_too_many(len(instances), self._limits, place)
        return collect(
            instances,
            lambda instance, position: self._row_of_json(instance, f"{place}[{position}]"),
            self._empty,
            self._limits,
            payload,
        )

    def decode_array(self, values: NDArray[np.generic]) -> Decoded:
        """Return the rows of an array; see `Decoder.decode_array`."""
        refuse_too_many(len(values), self._limits, "rows")
        with np.errstate(invalid="ignore"):  # a signalling NaN is one like any other
            numbers = values.astype(np.float64)
        return self._checked(numbers)

    def decode_contents(self, contents: list[bytes], place: str, _: Payload) -> Decoded:
        """Refuse files; see `Decoder.decode_contents`."""
        raise InputInvalid(place, f"rows of {len(self._fields)} numbers", f"{len(contents)} files")

    def _from_json(self, payload: Payload) -> Decoded:
        decoded = self.decode_numbers(payload.body)
        if decoded is not None:
            return decoded
        return self.decode_instances(read_instances(payload.in_utf8()), "instances", payload)

    def _from_csv(self, text: str) -> Decoded:
        head, lines = read_table(text)
        names = head.names
        if not names:
            raise InputInvalid("body", "a header and rows of CSV", "nothing")
        if len(names) > MOST_COLUMNS:
            raise PayloadTooLarge("the header", MOST_COLUMNS, "columns")
        self._check_header(names)
        # One row beyond the cap is enough to know, and the table is never built.
        table = list(itertools.islice(lines, self._limits.max_rows + 1))
        refuse_too_many(len(table), self._limits)
        places = [names.index(name) for name in self._names]
        decoded = collect(
            table,
            lambda line, _: self._row_of_csv(line[1], len(names), places, line[0]),
            self._empty,
            self._limits,
        )
        ignored = tuple(name for name in names if name not in self._names)
        return Decoded(decoded.rows, decoded.errors, ignored)

    def _checked(self, values: NDArray[np.float64]) -> Decoded:
        found = select_valid(
            values,
            self._are_valid_each(values),
            lambda row, position: self._error_of(row, f"rows[{position}]"),
            self._limits,
        )
        return Decoded(found.rows.astype(self._dtype), found.errors)

    def _are_valid(self, values: NDArray[np.float64]) -> bool:
        return bool(self._are_valid_each(values).all())

    def _are_valid_each(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell of each row, shape (rows,), whether it can be run."""
        missing = np.isnan(values)
        with np.errstate(over="ignore", invalid="ignore"):
            valid = np.isfinite(values.astype(self._dtype))
            valid &= (values >= self._minima) & (values <= self._maxima)
        if missing.any():
            valid |= missing & self._nullable
        is_valid: NDArray[np.bool_] = valid.all(axis=1)
        return is_valid

    def _row_of_json(self, instance: object, place: str) -> NDArray[np.generic]:
        if isinstance(instance, dict):
            instance = self._in_order(instance, place)
        if not isinstance(instance, list) or len(instance) != len(self._fields):
            expected = f"{len(self._fields)} numbers ({', '.join(self._names)})"
            raise InputInvalid(place, expected, shown(instance))
        numbers = [
            math.nan
            if field.nullable and _is_missing(value)
            else _number_of(value, f"{place}.{field.name}")
            for value, field in zip(instance, self._fields, strict=True)
        ]
        return self._row(np.array(numbers), place)

    def _in_order(self, instance: dict[str, object], place: str) -> list[object]:
        unknown = [name for name in instance if name not in self._names]
        if unknown:
            expected = f"only the features {', '.join(self._names)}"
            raise InputInvalid(place, expected, f"also {shown(unknown[0])}")
        missing = [
            field.name
            for field in self._fields
            if field.name not in instance and not field.nullable
        ]
        if missing:
            raise InputInvalid(place, f"the feature {missing[0]!r}", f"{len(instance)} others")
        return [instance.get(name) for name in self._names]

    def _check_header(self, names: list[str]) -> None:
        for name in self._names:
            if names.count(name) != 1:
                expected = f"one column {name!r} (all: {', '.join(self._names)})"
                got = shown(", ".join(names)) if name not in names else "several"
                if any("\0" in each for each in names):
                    got = "zero bytes; without a byte order mark UTF-16 needs charset=utf-16le"
                raise InputInvalid("header", expected, got)

    def _row_of_csv(
        self, line: list[str], width: int, places: list[int], line_number: int
    ) -> NDArray[np.generic]:
        place = f"line {line_number}"
        if len(line) != width:
            got = str(len(line))
            if any("\n" in cell or "\r" in cell for cell in line):
                got += ", one of them over several lines (a quote that is not closed?)"
            raise InputInvalid(place, f"{width} cells, as the header has", got)
        numbers = [
            _number_of_cell(line[at].strip(), field, place)
            for at, field in zip(places, self._fields, strict=True)
        ]
        return self._row(np.array(numbers), place)

    def _row(self, values: NDArray[np.float64], place: str) -> NDArray[np.generic]:
        if not self._are_valid(values[None]):
            raise self._error_of(values, place)
        return values.astype(self._dtype)

    def _error_of(self, values: NDArray[np.float64], place: str) -> ClientError:
        """Return what is wrong with a row."""
        try:
            for value, field in zip(values.tolist(), self._fields, strict=True):
                _check_bounds(value, field, f"{place}.{field.name}")
        except InputInvalid as error:
            return without_traceback(error)
        expected = f"numbers that {self._dtype} can hold"
        return InputInvalid(place, expected, str(max(values, key=abs)))


def _number_of(value: object, place: str) -> float:
    """Return a number of JSON; true is 1 and false is 0, as in every other form of rows."""
    return float(value) if isinstance(value, bool) else check_number(value, place)


def _is_missing(value: object) -> bool:
    """Tell whether JSON says so: by null, or as other servers' clients do, by the token NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _bound(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _check_bounds(value: float, field: FeatureField, place: str) -> None:
    if math.isnan(value) and field.nullable:
        return
    if not math.isfinite(value):
        raise InputInvalid(place, "a finite number", str(value))
    unit = f" {field.unit}" if field.unit else ""
    if field.minimum is not None and value < field.minimum:
        raise InputInvalid(place, f"at least {field.minimum:g}{unit}", f"{value:g}")
    if field.maximum is not None and value > field.maximum:
        raise InputInvalid(place, f"at most {field.maximum:g}{unit}", f"{value:g}")


def _number_of_cell(cell: str, field: FeatureField, line: str) -> float:
    if field.nullable and is_missing(cell):
        return math.nan
    try:
        # Python reads a number with `_` between its digits; other programs do not write one.
        number = float(cell if "_" not in cell else "?")
    except ValueError:
        word = BOOLEANS.get(cell.lower())
        if word is None:
            place = f"{line}, column {field.name!r}"
            raise InputInvalid(place, "a number", shown(cell)) from None
        return word
    if not math.isfinite(number):
        raise InputInvalid(f"{line}, column {field.name!r}", "a finite number", shown(number))
    return number
