"""What counts as printed: pages show lines, with gaps where machines differ."""

import pytest
from documents.printed import is_answered, is_printed, shown


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("one\ntwo\n", "one\ntwo"),
        ("took … s", "took 0.25 s"),
        ("one\n…\nfour", "one\ntwo\nthree\nfour"),
        ("one\n…\ntwo", "one\ntwo"),
        ("a.b (c)", "a.b (c)"),
    ],
    ids=["the same", "gap in a line", "lines left out", "no lines left out", "signs of patterns"],
)
def test_text_that_a_page_shows_is_printed(expected: str, text: str) -> None:
    assert is_printed(text, expected)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("one", "one\ntwo"),
        ("one\ntwo", "one"),
        ("took … s", "took 0.25 s\nand failed"),
        ("a.b", "aXb"),
        ("one", ""),
    ],
    ids=["line too many", "line missing", "line behind a gap", "other sign", "nothing"],
)
def test_other_text_is_not_printed(expected: str, text: str) -> None:
    assert not is_printed(text, expected)


def test_what_a_terminal_shows_has_no_progress_bar_and_no_colour() -> None:
    assert shown("10 %\r     \rdone\x1b[0m \n\n") == "done"


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ('{"a": 1,\n "b": [true]}', '{"b":[true],"a":1}'),
        ('{"id": "…"}', '{"id":"65a9-1"}'),
        ('{"a": 1, "…": "…"}', '{"a":1,"b":2,"c":3}'),
        ('{"p": 0.455}', '{"p":0.454633}'),
        ("{}\n{}", "{} {}"),
    ],
    ids=["line breaks", "any value", "further keys", "fewer digits", "several answers"],
)
def test_json_that_a_page_shows_is_answered(expected: str, text: str) -> None:
    assert is_answered(text, expected)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ('{"a": 1}', '{"a":2}'),
        ('{"a": 1}', '{"a":1,"b":2}'),
        ('{"a": 1, "…": 0}', '{"b":2}'),
        ('{"p": 0.455}', '{"p":0.457}'),
        ('{"p": 1.0}', '{"p":0.99}'),
        ('{"a": 1}', '{"a":true}'),
        ("[1]", "[1, 2]"),
        ("{}", "{}\n{}"),
        ("{}", "curl: (7) Failed to connect"),
    ],
)
def test_other_json_is_not_answered(expected: str, text: str) -> None:
    assert not is_answered(text, expected)
