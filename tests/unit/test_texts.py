import json
import time
from dataclasses import replace

import numpy as np
import pytest

from service.bundle.manifest import TextInput
from service.errors import InputInvalid, MediaTypeUnsupported, PayloadTooLarge
from service.inputs.payload import InputLimits, Payload
from service.inputs.texts import TextDecoder, Tokenizer, read_vocabulary

LIMITS = InputLimits(max_rows=3, max_picture_pixels=100, max_picture_side=100)
DECLARED = TextInput(max_tokens=5, token_pattern=r"[a-z']+|!")
VOCABULARY = ["a", "good", "film", "!"]


@pytest.fixture
def decoder() -> TextDecoder:
    return TextDecoder(DECLARED, Tokenizer(DECLARED, VOCABULARY), LIMITS)


def plain(body: bytes) -> Payload:
    return Payload(body, "text/plain")


def test_tokens_become_ids_in_order(decoder: TextDecoder) -> None:
    decoded = decoder.decode(plain(b"A GOOD film!"))

    assert decoded.rows.tolist() == [[2, 3, 4, 5, 0]]


def test_token_outside_the_vocabulary_is_id_one(decoder: TextDecoder) -> None:
    assert decoder.decode(plain(b"a bad film")).rows.tolist() == [[2, 1, 4, 0, 0]]


def test_tokens_beyond_the_limit_are_not_looked_at(decoder: TextDecoder) -> None:
    assert decoder.decode(plain(b"a " * 99)).rows.tolist() == [[2] * 5]


@pytest.mark.parametrize("between", [" ", " " * 500], ids=["dense", "sparse"])
def test_of_a_huge_text_the_first_tokens_are_read(decoder: TextDecoder, between: str) -> None:
    text = between.join(["a", "good", "film", "!", "strange"] * 2000)

    assert decoder.decode(plain(text.encode())).rows.tolist() == [[2, 3, 4, 5, 1]]


@pytest.mark.parametrize(
    "text", ["a" * 400_000 + " />", "a" * 400_000, "a />" * 100_000, " " * 400_000, "ab-" * 130_000]
)
def test_hostile_texts_are_read_in_milliseconds(text: str) -> None:
    """110 KB of one word before " />" took 90 s with the interpreter locked."""
    declared = TextInput(max_tokens=1024, token_pattern=r"\b\w++(?! />)|[!?]")
    tokenizer = Tokenizer(declared, VOCABULARY)
    started_s = time.process_time()

    tokenizer.ids(text)

    # Some 10 ms here.
    assert time.process_time() - started_s < 1


def test_characters_far_beyond_the_tokens_are_ignored(decoder: TextDecoder) -> None:
    near, far = " " * 65_000 + "film", " " * 66_000 + "film"

    rows = [decoder.decode(plain(text.encode())).rows.tolist() for text in (near, far)]

    assert rows == [[[4, 0, 0, 0, 0]], [[0, 0, 0, 0, 0]]]


def test_text_without_any_token_is_a_row_of_padding(decoder: TextDecoder) -> None:
    assert decoder.decode(plain("好电影".encode())).rows.tolist() == [[0] * 5]


def test_case_is_kept_where_the_manifest_says_so() -> None:
    declared = TextInput(max_tokens=2, token_pattern="[A-Za-z]+", lowercase=False)

    assert Tokenizer(declared, ["Film"]).ids("Film film").tolist() == [2, 1]


def test_several_texts_come_as_json_strings(decoder: TextDecoder) -> None:
    body = json.dumps({"instances": ["a film", "", 3, "  \n"]}).encode()
    with pytest.raises(PayloadTooLarge):
        decoder.decode(Payload(body, "application/json"))

    body = json.dumps({"instances": ["a film", "", 3]}).encode()
    decoded = decoder.decode(Payload(body, "application/json"))

    assert decoded.rows.tolist() == [[2, 4, 0, 0, 0]]
    assert str(decoded.errors[1]) == "instances[1]: expected a text, got an empty one"
    assert str(decoded.errors[2]) == "instances[2]: expected a text, got 3"


@pytest.mark.parametrize("body", [b"", b"  \n\t ", b"\xef\xbb\xbf"])
def test_empty_text_is_refused(decoder: TextDecoder, body: bytes) -> None:
    with pytest.raises(InputInvalid, match="an empty one"):
        decoder.decode(plain(body))


def test_byte_that_is_no_utf_8_is_named(decoder: TextDecoder) -> None:
    with pytest.raises(InputInvalid, match="another byte at 5"):
        decoder.decode(plain(b"good \xe9t\xe9"))


def test_other_media_types_are_refused(decoder: TextDecoder) -> None:
    with pytest.raises(MediaTypeUnsupported, match="text/plain"):
        decoder.decode(Payload(b"a,b", "text/csv"))


def test_vocabulary_is_one_token_a_line_whatever_separates_lines_elsewhere() -> None:
    assert read_vocabulary("a\n\u2028\nb\n".encode()) == ["a", "\u2028", "b"]


def test_numbers_are_no_texts(decoder: TextDecoder) -> None:
    with pytest.raises(InputInvalid, match="expected texts, got numbers of type float64"):
        decoder.decode_array(np.zeros((1, 3)))


@pytest.mark.parametrize("texts", [["a"] * 300, [""] * 300, ["a b " * 5000]])
def test_many_texts_and_long_ones_are_not_read_on_the_event_loop(
    decoder: TextDecoder, texts: list[str]
) -> None:
    assert not decoder.is_light(Payload(json.dumps(texts).encode(), "application/json"))
    assert not decoder.is_light(plain(b"a b " * 5000))
    assert decoder.is_light(plain(b"a good film"))


def test_request_of_too_many_tokens_is_refused() -> None:
    limits = replace(LIMITS, max_request_tokens=7)
    decoder = TextDecoder(DECLARED, Tokenizer(DECLARED, VOCABULARY), limits)
    allowed, refused = ["a a a a", "a a a"], ["a a a a", "a a a a", "a"]

    assert len(decoder.decode_instances(list(allowed), "instances", plain(b"")).rows) == 2
    with pytest.raises(PayloadTooLarge, match="7 tokens"):
        decoder.decode_instances(list(refused), "instances", plain(b""))
