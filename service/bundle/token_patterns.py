r"""Token patterns that run in linear time, whatever the text.

Python's `re` backtracks. `\w+(?! />)` reads a run of word characters, fails at its end, and starts
again one character later: 64 KB of one word take seconds, with the interpreter locked. So each
alternative of a pattern must be one of these:

- bounded: at most `MOST_CHARACTERS` long, with few ways to match;
- an unbounded quantifier on one character class, such as `[a-z]+`, after which nothing can fail to
  match: no character is read twice;
- `\b`, then one such quantifier on word characters: it is tried once for each word.
"""

import math
import re._constants as op  # type: ignore[import-not-found]  # `re` has no public parser
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

MOST_CHARACTERS = 64
"""Longest bounded alternative, and longest lookahead or lookbehind."""

MOST_WAYS = 256
"""Ways in which a bounded part may match, at most: backtracking tries all of them."""

MOST_ALTERNATIVES = 64

Item: TypeAlias = tuple[Any, Any]

_REPEATS = (op.MAX_REPEAT, op.POSSESSIVE_REPEAT)
_SINGLE = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.CATEGORY)
_LOOKS = (op.ASSERT, op.ASSERT_NOT)
_WORD = (op.CATEGORY_WORD, op.CATEGORY_DIGIT)


class NotLinear(ValueError):
    """A pattern that may take more than linear time; the text says why and what to write."""


def refuse_slow_pattern(pattern: str) -> None:
    """Raise if the time that a pattern takes may grow faster than the text.

    Raises:
        NotLinear: naming the part that is not allowed.
        re.error: if it is no pattern at all.
    """
    for alternative in _alternatives(list(parser.parse(pattern))):
        _check_alternative(alternative)


def _alternatives(items: list[Item]) -> Iterator[list[Item]]:
    """Yield the sequences that a sequence with `|` and plain groups stands for."""
    found: list[list[Item]] = [[]]
    for code, value in items:
        if code is op.BRANCH:
            choices = [each for branch in value[1] for each in _alternatives(list(branch))]
        elif code is op.SUBPATTERN:
            if value[1] or value[2]:
                raise NotLinear("sets flags inside a group; set them for the whole pattern")
            choices = list(_alternatives(list(value[3])))
        else:
            choices = [[(code, value)]]
        found = [[*before, *choice] for before in found for choice in choices]
        if len(found) > MOST_ALTERNATIVES:
            raise NotLinear(f"has more than {MOST_ALTERNATIVES} alternatives")
    yield from found


def _check_alternative(items: Sequence[Item]) -> None:
    unbounded = [place for place, item in enumerate(items) if _is_unbounded(item)]
    if not unbounded:
        _check_bounded(items)
        return
    first = unbounded[0]
    run, before, after = items[first], items[:first], items[first + 1 :]
    _check_bounded(before)
    _check_run(run)
    if all(_is_optional(item) for item in after):
        for _, (_, _, body) in after:
            for alternative in _alternatives(list(body)):
                _check_alternative(alternative)
        return
    if len(unbounded) > 1:
        raise NotLinear("has two unbounded quantifiers, and the second may fail to match")
    _check_bounded(after)
    starts_word = bool(before) and before[0] == (op.AT, op.AT_BOUNDARY)
    if not starts_word or not all(_is_word(item) for item in (*before[1:], run)):
        raise NotLinear(
            r"may fail to match after an unbounded quantifier; begin it with \b and repeat word "
            r"characters only, as in \b\w+(?! />), or bound the quantifier, as in {1,64}"
        )


def _check_run(item: Item) -> None:
    least, _, body = item[1]
    if len(body) != 1 or body[0][0] not in _SINGLE:
        raise NotLinear("repeats a group without a bound; repeat one character class")
    if least > MOST_CHARACTERS:
        raise NotLinear(f"needs {least} repeats, more than {MOST_CHARACTERS}")


def _check_bounded(items: Sequence[Item]) -> None:
    if sum(_width(item) for item in items) > MOST_CHARACTERS:
        raise NotLinear(f"may match more than {MOST_CHARACTERS} characters before it fails")
    if math.prod(map(_ways, items)) > MOST_WAYS:
        raise NotLinear(f"has more than {MOST_WAYS} ways to match the same text")


def _width(item: Item) -> int:
    """Return how many characters an item reads, at most."""
    code, value = item
    if code in _SINGLE:
        return 1
    if code is op.AT:
        return 0
    if code in _LOOKS:
        return _widest(list(value[1]))
    if code in _REPEATS and not _is_unbounded(item):
        return int(value[1]) * _widest(list(value[2]))
    raise NotLinear("uses a construct that token patterns do not support")


def _widest(items: list[Item]) -> int:
    return max(sum(_width(item) for item in each) for each in _alternatives(items))


def _ways(item: Item) -> int:
    """Return in how many ways an item may match at one place, at most."""
    code, value = item
    if code in _LOOKS:
        return _ways_of_all(list(value[1]))
    if code not in _REPEATS:
        return 1
    least, most, body = value
    inner = _ways_of_all(list(body))
    if inner > 1 and most > 1:
        return MOST_WAYS + 1  # they multiply with each repeat
    return inner * (int(most) - int(least) + 1)


def _ways_of_all(items: list[Item]) -> int:
    return sum(math.prod(map(_ways, alternative)) for alternative in _alternatives(items))


def _is_unbounded(item: Item) -> bool:
    code, value = item
    # A lazy repeat counts as unbounded: what follows is tried after each of its steps.
    return code is op.MIN_REPEAT or (code in _REPEATS and value[1] is op.MAXREPEAT)


def _is_optional(item: Item) -> bool:
    code, value = item
    return code in _REPEATS and value[0] == 0


def _is_word(item: Item) -> bool:
    r"""Return whether an item reads nothing but characters that `\w` stands for."""
    code, value = item
    if code in _REPEATS:
        return len(value[2]) == 1 and _is_word(value[2][0])
    if code is op.IN:
        return all(_is_word(member) for member in value)
    if code is op.CATEGORY:
        return value in _WORD
    if code is op.RANGE:
        return all(_is_word_character(each) for each in range(value[0], value[1] + 1))
    return code is op.LITERAL and _is_word_character(value)


def _is_word_character(number: int) -> bool:
    return chr(number).isalnum() or chr(number) == "_"
