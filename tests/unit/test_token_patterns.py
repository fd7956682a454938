"""Token patterns of manifests take time that is linear in the text, or are refused."""

import random
import re
import time

import pytest

from service.bundle.manifest import TextInput
from service.bundle.token_patterns import NotLinear, refuse_slow_pattern

LINEAR = [
    r"\w+",
    r"(?u)\b\w\w+\b",
    r"\b\w++(?! />)|[!?]",
    r"[a-z]+(?:'[a-z]+)?",
    r"\w+(?:[-']\w+)*",
    r"[^\W\d_]+|\d{1,4}",
    r"\S+",
    r"[A-Za-z0-9]+|[^\sA-Za-z0-9]",
    r"(?i)\b[a-z]{2,}(?= )",
    r"(?:foo|bar|#[0-9a-f]{6})",
    r"\w+?",
]
SLOW = {
    r"\w++(?! />)|[!?]": "begin it with",
    r"\w+(?! />)": "begin it with",
    r"\w+x": "begin it with",
    r".*x": "begin it with",
    r"\b.+x": "begin it with",
    r"\b[a-z ]+x": "begin it with",
    r"\b\w+\w+x": "two unbounded quantifiers",
    r"(?:a+)+b": "repeats a group",
    r"(?:\w+\s?)+$": "repeats a group",
    r"(?:a|a)+": "repeats a group",
    r"(?:a?){30}b": "ways to match",
    r"(?:a|a){9}b": "ways to match",
    r"a?a?a?a?a?a?a?a?a?b": "ways to match",
    r"\w{0,60}\w{0,60}x": "characters before it fails",
    r"\w{1,1000}x": "characters before it fails",
    r"\w{1000,}": "needs 1000 repeats",
    r"a(?=.*b)": "do not support",
    r"(?<=a{99})b": "characters before it fails",
    r"\b(?a:\w+)x": "sets flags",
    r"(?>\w+)x": "do not support",
    r"[a-z]+(?:-[a-z]+x)*": "begin it with",
    r"\w{1,60}?x": "begin it with",
    "|".join(f"a{number}" for number in range(99)) + r"|\w+": "alternatives",
}
"""Pattern -> what the refusal says."""

TEXTS = ["a", "ab", "a ", "a-", "\u00e9a", "0", "'", "!", " />", "\n", "a />"]


@pytest.mark.parametrize("pattern", LINEAR)
def test_pattern_that_is_linear_is_taken(pattern: str) -> None:
    refuse_slow_pattern(pattern)


@pytest.mark.parametrize(("pattern", "said"), SLOW.items(), ids=SLOW)
def test_pattern_that_may_be_slow_is_refused_with_the_reason(pattern: str, said: str) -> None:
    re.compile(pattern)

    with pytest.raises(NotLinear, match=re.escape(said)):
        refuse_slow_pattern(pattern)


def test_manifest_with_a_slow_pattern_names_field_and_pattern() -> None:
    with pytest.raises(ValueError, match=r"token_pattern '\\\\w\+x' may fail to match"):
        TextInput(max_tokens=5, token_pattern=r"\w+x")


@pytest.mark.parametrize("piece", TEXTS, ids=repr)
@pytest.mark.parametrize("pattern", LINEAR)
def test_time_of_a_linear_pattern_grows_as_the_text_does(pattern: str, piece: str) -> None:
    """A quadratic one takes 64 times as long for eight times the text; 64 KB seconds."""
    compiled = re.compile(pattern)
    started_s = time.process_time()

    compiled.findall(piece * (400_000 // len(piece)) + " />")

    # 400 KB take some 50 ms of CPU here; a quadratic pattern minutes.
    assert time.process_time() - started_s < 2


@pytest.mark.parametrize("seed", range(20))
def test_pattern_of_the_reviews_gives_the_tokens_that_it_gave_before(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311  texts, not secrets
    pieces = [
        "br",
        " />",
        "<br />",
        "a",
        "film",
        "!",
        "?",
        " ",
        "'",
        "\u00e9",
        "_",
        "9",
        "/>",
        "\n",
    ]
    for _ in range(200):
        text = "".join(draw.choice(pieces) for _ in range(draw.randrange(40)))
        before = re.findall(r"\w++(?! />)|[!?]", text)

        assert re.findall(r"\b\w++(?! />)|[!?]", text) == before
