"""What comes in and what goes on: a request body, and the rows decoded from it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.errors import (
    ClientError,
    DeadlineExceeded,
    InputInvalid,
    MediaTypeUnsupported,
    PayloadTooLarge,
    without_traceback,
)
from service.inputs.budget import Lease, decoding_bytes
from service.inputs.charsets import UTF_8, codec_of, read_text

UNBOUNDED = 1 << 62

LIGHT_BYTES = 65_536
"""A body up to this size is decoded on the event loop: under a millisecond, less than a hop to a
thread under load costs its neighbours."""

LIGHT_TEXT_BYTES = 16_384
"""The same for texts: they are cut into tokens."""

LIGHT_BINARY_TEXT_BYTES = 1024
"""The same for texts that come as a tensor of bytes: four of them may be one."""

LIGHT_VALUES = 256
"""Values of JSON that are looked at one by one on the event loop: each may be a row, and wrong."""

LIGHT_NUMBERS = 4096
"""Numbers of a tensor in JSON that are read on the event loop."""

UNTOLD = "wrong as well (DUNNO_MAX_ROW_ERRORS)"

LIGHT_NPY_BYTES = 1_048_576
"""The same for an .npy file: its numbers are only copied."""

Value = TypeVar("Value")
ScalarT = TypeVar("ScalarT", bound=np.generic)
ClientErrorT = TypeVar("ClientErrorT", bound=ClientError)


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Caps on what a caller may send."""

    max_rows: int
    max_picture_pixels: int
    max_picture_side: int
    max_request_pixels: int = UNBOUNDED
    max_request_tokens: int = UNBOUNDED
    max_row_errors: int = UNBOUNDED
    """Row errors that are described in full; further wrong rows get only an error code."""


@dataclass(slots=True)
class Payload:
    """A request body and what its Content-Type says of it."""

    body: bytes
    media_type: str
    """Lower case, without parameters, such as `image/png`."""

    parameters: dict[str, str] = field(default_factory=dict)
    """Parameters of the Content-Type, such as `boundary`."""

    is_abandoned: bool = False
    """Set when the client has left or the deadline has passed. Decoders look between two rows."""

    lease: Lease | None = None
    """Memory for decoding; None: the body is too small to count it."""

    held_bytes: int = 0
    """Bytes of the body that count towards `DUNNO_MAX_ARRIVING_BYTES` until the request ends."""

    def take_memory_of(self, content: bytes) -> None:
        """Count what decoding takes of a body that was compressed, and wait if it must be.

        Raises:
            DeadlineExceeded: if the request was abandoned before there was enough memory.
        """
        if self.lease is not None and content is not self.body:
            self.lease.take(len(content) + decoding_bytes(len(content)))

    @property
    def charset(self) -> str | None:
        """The charset that the Content-Type names; None: none."""
        return self.parameters.get("charset")

    def text(self) -> str:
        """Return the characters of the body; raises as `read_text` does."""
        return read_text(self.body, self.charset)

    def in_utf8(self) -> bytes:
        """Return the body in UTF-8; raises as `read_text` does where the charset is another."""
        charset = self.charset
        if charset is None or codec_of(charset) == UTF_8:
            return self.body
        return self.text().encode()


@dataclass(frozen=True, slots=True)
class Decoded:
    """The rows of a payload; a row that could not be read has an error in its place."""

    rows: NDArray[np.generic]
    """Shape (rows, *input), only those that could be read, in order."""

    errors: dict[int, ClientError] = field(default_factory=dict)
    """By the position in the payload, counted from 0."""

    ignored_columns: tuple[str, ...] = ()
    """Columns of a table that the model does not use."""

    def in_place(self, answers: Iterator[Value]) -> list[Value | ClientError]:
        """Return the next answers, one for each row, and errors in the order of the payload."""
        errors = self.errors
        return [
            errors[position] if position in errors else next(answers)
            for position in range(len(self.rows) + len(errors))
        ]


class Decoder(Protocol):
    """Turns payloads into rows for one model; says what is wrong and where."""

    @property
    def media_types(self) -> tuple[str, ...]:
        """Media types that `decode` takes."""
        ...

    def is_light(self, payload: Payload) -> bool:
        """Tell whether decoding is quick enough for the event loop."""
        ...

    def decode(self, payload: Payload) -> Decoded:
        """Return the rows of a payload.

        Raises:
            ClientError: if nothing can be read; what concerns a row is in `Decoded.errors`.
        """
        ...

    def decode_numbers(self, body: bytes) -> Decoded | None:
        """Return the rows of `{"instances": [...]}` of nothing but sound numbers, else None.

        This is quick however many they are.
        """
        ...

    def decode_instances(self, instances: list[object], place: str, payload: Payload) -> Decoded:
        """Return rows that are parsed JSON already.

        Args:
            instances: one for each row.
            place: what they are called in messages.
            payload: where they come from.

        Raises:
            ClientError: as `decode` does.
        """
        ...

    def decode_array(self, values: NDArray[np.generic]) -> Decoded:
        """Return the rows of an array of numbers, shape (rows, *input).

        Raises:
            ClientError: as `decode` does.
        """
        ...

    def decode_contents(self, contents: list[bytes], place: str, payload: Payload) -> Decoded:
        """Return rows that are a file each: a picture or a text in UTF-8.

        Args:
            contents: one for each row.
            place: what they are called in messages.
            payload: where they come from.

        Raises:
            ClientError: as `decode` does.
        """
        ...


def decode_light(decoder: Decoder, payload: Payload) -> Decoded | None:
    """Return the rows of a payload if that is quick enough for the event loop, else None.

    Raises:
        ClientError: as `Decoder.decode` does.
    """
    if decoder.is_light(payload):
        return decoder.decode(payload)
    if len(payload.body) <= LIGHT_BYTES and payload.media_type == "application/json":
        return decoder.decode_numbers(payload.body)
    return None


def has_few_values(body: bytes) -> bool:
    """Return whether JSON has at most `LIGHT_VALUES` values."""
    return has_few_marks(body, (b",", b"[", b"{"), LIGHT_VALUES - 1)


def has_few_marks(body: bytes, marks: Iterable[bytes], most: int) -> bool:
    """Return whether a body contains the `marks` at most `most` times together."""
    found = 0
    for mark in marks:
        found += body.count(mark)
        if found > most:
            return False
    return True


def unsupported(payload: Payload, media_types: tuple[str, ...]) -> MediaTypeUnsupported:
    """Return the failure that lists what the model takes."""
    came = payload.media_type or "no Content-Type"
    return MediaTypeUnsupported(
        f"Content-Type: expected one of {', '.join(media_types)}, got {came}"
    )


def collect(
    values: Iterable[Value],
    read_row: Callable[[Value, int], NDArray[np.generic]],
    empty: NDArray[np.generic],
    limits: InputLimits,
    payload: Payload | None = None,
) -> Decoded:
    """Return the rows that `read_row(value, position)` returns, and the errors it raises.

    Args:
        values: one for each row.
        read_row: returns a row of shape (*input).
        empty: shape (0, *input), for when no row can be read.
        limits: with the number of errors that are described in full.
        payload: checked for cancellation before each row; None if rows are quick to read.
    """
    rows: list[NDArray[np.generic]] = []
    errors: dict[int, ClientError] = {}
    for position, value in enumerate(values):
        if payload is not None and payload.is_abandoned:
            raise DeadlineExceeded("nobody waits for these rows any more")
        try:
            rows.append(read_row(value, position))
        except ClientError as error:
            told = error if len(errors) < limits.max_row_errors else untold(error)
            errors[position] = without_traceback(told)
    return Decoded(np.stack(rows) if rows else empty, errors)


def select_valid(
    rows: NDArray[ScalarT],
    is_valid: NDArray[np.bool_],
    error_of: Callable[[NDArray[ScalarT], int], ClientError],
    limits: InputLimits,
) -> "Decoded":
    """Return the valid rows of an array, and an error for each of the others.

    Args:
        rows: shape (rows, *input).
        is_valid: shape (rows,).
        error_of: returns what is wrong with a row at a position.
        limits: with the number of errors that are described in full.
    """
    if is_valid.all():
        return Decoded(rows)
    wrong = np.flatnonzero(~is_valid).tolist()
    described = wrong[: limits.max_row_errors]
    errors = {position: error_of(rows[position], position) for position in described}
    if len(described) < len(wrong):
        brief = untold(error_of(rows[wrong[0]], wrong[0]))
        errors |= dict.fromkeys(wrong[len(described) :], brief)
    return Decoded(rows[is_valid], errors)


def untold(error: ClientErrorT) -> ClientErrorT:
    """Return an error of the same type and code, without a description."""
    brief = type(error).__new__(type(error))
    Exception.__init__(brief, UNTOLD)
    brief.__dict__.update(error.__dict__)
    return brief


def refuse_too_many(rows: int, limits: InputLimits, place: str = "instances") -> None:
    """Raise PayloadTooLarge if a request has more rows than it may."""
    if rows > limits.max_rows:
        raise PayloadTooLarge(f"the request ({rows:,} rows)", limits.max_rows, "rows")
    if rows == 0:
        raise InputInvalid(place, "at least one row", "none")
