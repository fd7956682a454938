"""Texts -> rows of token ids, by the vocabulary of the bundle."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import TextInput
from service.errors import InputInvalid, PayloadTooLarge
from service.inputs.charsets import read_text
from service.inputs.numbers import read_instances, shown
from service.inputs.payload import (
    LIGHT_TEXT_BYTES,
    LIGHT_VALUES,
    Decoded,
    InputLimits,
    Payload,
    collect,
    refuse_too_many,
    unsupported,
)

Value = TypeVar("Value")

PAD_ID = 0
UNKNOWN_ID = 1
FIRST_ID = 2
FILLERS = ("_", "__", "xx", "xxxx", "xxxxxxxx")
"""What may stand for tokens that are not in the vocabulary where a row is told as a text."""

HEAD_CHARACTERS_PER_TOKEN = 16
"""This much of a text nearly always holds its first tokens: English needs 6 for each."""

MOST_CHARACTERS_PER_TOKEN = 256
FEWEST_CHARACTERS = 65_536
"""Characters beyond the larger of both are ignored: a search through 8 MB locks the interpreter for
a second."""


class _Ids(dict[str, int]):
    """Ids of the tokens of a vocabulary."""

    def __missing__(self, _: str) -> int:
        """Return the id of all other tokens."""
        return UNKNOWN_ID


class Tokenizer:
    """Cuts texts into tokens and looks them up, the same in training and at serving."""

    def __init__(self, declared: TextInput, vocabulary: Iterable[str]) -> None:
        self._pattern = re.compile(declared.token_pattern)
        self._lowercase = declared.lowercase
        self._max_tokens = declared.max_tokens
        self._head_characters = declared.max_tokens * HEAD_CHARACTERS_PER_TOKEN
        self._most_characters = max(
            FEWEST_CHARACTERS, declared.max_tokens * MOST_CHARACTERS_PER_TOKEN
        )
        self._ids = _Ids((token, FIRST_ID + line) for line, token in enumerate(vocabulary))

    def ids(self, text: str) -> NDArray[np.int32]:
        """Return the row of a text: int32, shape (max_tokens,), 0 behind the last token."""
        tokens = self._tokens(text)
        row = np.zeros(self._max_tokens, np.int32)
        row[: len(tokens)] = list(map(self._ids.__getitem__, tokens))
        return row

    def is_token(self, word: str) -> bool:
        """Tell whether a text that is nothing but this word has it as its token."""
        return self._tokens(word) == [word]

    def text(self, row: NDArray[np.generic]) -> str | None:
        """Return a text whose row is `row`; None if there is none of tokens between blanks."""
        tokens = {number: token for token, number in self._ids.items()}
        numbers = row[row != PAD_ID].tolist()
        texts = (" ".join(tokens.get(each, filler) for each in numbers) for filler in FILLERS)
        return next((text for text in texts if np.array_equal(self.ids(text), row)), None)

    def _tokens(self, text: str) -> list[str]:
        """Return the first tokens; little more than these is read of a huge text."""
        head = text[: self._head_characters]
        tokens: list[str] = self._pattern.findall(self._cased(head))
        if len(head) < len(text) and len(tokens) <= self._max_tokens:
            # Few and far between, and the last may have been cut: one by one, from the start.
            matches = self._pattern.finditer(self._cased(text[: self._most_characters]))
            tokens = [match.group() for match in islice(matches, self._max_tokens)]
        return tokens[: self._max_tokens]

    def _cased(self, text: str) -> str:
        return text.lower() if self._lowercase else text


def read_vocabulary(content: bytes) -> list[str]:
    """Return the tokens of a vocabulary file, one a line, UTF-8."""
    return content.decode().removesuffix("\n").split("\n")


class TextDecoder:
    """Rows of token ids from JSON strings or one plain text."""

    media_types = ("application/json", "text/plain")

    def __init__(self, declared: TextInput, tokenizer: Tokenizer, limits: InputLimits) -> None:
        self._tokenizer = tokenizer
        self._limits = limits
        self._empty = np.empty((0, declared.max_tokens), np.int32)

    def text(self, row: NDArray[np.generic]) -> str | None:
        """Return a text that is decoded to `row`, if there is a plain one."""
        return self._tokenizer.text(row)

    def is_light(self, payload: Payload) -> bool:
        """Tell whether decoding is quick enough for the event loop."""
        size = len(payload.body)
        if payload.media_type == "text/plain":
            return size <= LIGHT_TEXT_BYTES
        return size <= LIGHT_TEXT_BYTES and payload.body.count(b",") <= LIGHT_VALUES

    def decode(self, payload: Payload) -> Decoded:
        """Return the rows of a payload; see `Decoder.decode`."""
        match payload.media_type:
            case "application/json":
                return self.decode_instances(
                    read_instances(payload.in_utf8()), "instances", payload
                )
            case "text/plain":
                return Decoded(self._row(payload.text(), "body")[None])
        raise unsupported(payload, self.media_types)

    def decode_numbers(self, _: bytes) -> None:
        """Return nothing: no text is a number; see `Decoder.decode_numbers`."""
        return

    def decode_instances(self, instances: list[object], place: str, payload: Payload) -> Decoded:
        """Return the rows of texts; see `Decoder.decode_instances`."""
        refuse_too_many(len(instances), self._limits, place)
        return self._collected(
            instances, lambda text, position: self._row(text, f"{place}[{position}]"), payload
        )

    def decode_array(self, values: NDArray[np.generic]) -> Decoded:
        """Refuse numbers; see `Decoder.decode_array`."""
        raise InputInvalid("rows", "texts", f"numbers of type {values.dtype}")

    def decode_contents(self, contents: list[bytes], place: str, payload: Payload) -> Decoded:
        """Return the rows of texts in UTF-8; see `Decoder.decode_contents`."""
        refuse_too_many(len(contents), self._limits, place)
        return self._collected(contents, self._row_of(place), payload)

    def _collected(
        self,
        values: Iterable[Value],
        read_row: Callable[[Value, int], NDArray[np.int32]],
        payload: Payload,
    ) -> Decoded:
        """Return the rows of texts.

        Raises:
            PayloadTooLarge: if they have too many tokens together.
        """
        tokens, most_tokens = 0, self._limits.max_request_tokens

        def read(value: Value, position: int) -> NDArray[np.int32]:
            nonlocal tokens
            row = read_row(value, position)
            tokens += int(np.count_nonzero(row))
            return row

        def within_limit() -> Iterator[Value]:
            for value in values:
                if tokens > most_tokens:
                    raise PayloadTooLarge("the request", most_tokens, "tokens")
                yield value

        return collect(within_limit(), read, self._empty, self._limits, payload)

    def _row_of(self, place: str) -> Callable[[bytes, int], NDArray[np.int32]]:
        def read(content: bytes, position: int) -> NDArray[np.int32]:
            own_place = f"{place}[{position}]"
            return self._row(read_text(content, place=own_place), own_place)

        return read

    def _row(self, text: object, place: str) -> NDArray[np.int32]:
        if not isinstance(text, str):
            raise InputInvalid(place, "a text", shown(text))
        if not text.strip():
            raise InputInvalid(place, "a text", "an empty one")
        return self._tokenizer.ids(text)
