"""The code blocks of a Markdown page, in its order, with what the page says about them.

A fence without a language, or with one that nothing here can run or parse, is an error that names
page and line. What may stand alone on the line before a block:

- `<!-- not run: REASON -->`: cannot be run where tests run; what it prints is not compared.
- `<!-- run by make check: REASON -->`: only there, as it takes long.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

PROGRAMS = ("sh", "python")
"""Languages that are run."""

DATA = ("json", "toml", "yaml")
"""Languages that are parsed."""

OUTPUT = "text"
"""The language of what the program before it prints; plain text where there is none."""

LANGUAGES = (*PROGRAMS, *DATA, OUTPUT)

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[^`]*)$")
_MARK = re.compile(r"^ *<!-- (?P<mark>not run|run by make check): (?P<reason>.*\S) -->$")
_HEADING = re.compile(r"^#{1,6} +(?P<heading>.*)$")


class PageError(AssertionError):
    """A page that cannot be read; the message names page and line."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its first line of content, counted from 1."""

    page: str
    line: int
    language: str
    text: str
    heading: str = ""
    """What the section is called."""

    mark: str | None = None
    """`not run` or `run by make check`."""

    output: "Block | None" = None
    """What a program prints, as the page says: the next text of the same section, or JSON that
    stands right below."""

    @property
    def is_program(self) -> bool:
        """Whether it can be run."""
        return self.language in PROGRAMS

    @property
    def place(self) -> str:
        """Page and line, as editors take them."""
        return f"{self.page}:{self.line}"


def read_blocks(page: str, text: str) -> list[Block]:
    """Return the blocks of a page, each program with what it prints.

    Raises:
        PageError: naming page and line of a fence that makes no sense.
    """
    found: list[Block] = []
    is_open = False
    for block in _fenced(page, text.splitlines()):
        if is_open and _is_output(found[-1], block):
            found[-1] = replace(found[-1], output=block)
            is_open = False
        else:
            found.append(block)
            is_open = block.is_program
    return found


def _is_output(program: Block, block: Block) -> bool:
    # From fence to fence: one empty line or none between them.
    is_next = block.line - program.line - program.text.count("\n") <= 3
    is_said = block.language == OUTPUT or (block.language == "json" and is_next)
    return is_said and block.mark is None and block.heading == program.heading


def _fenced(page: str, lines: Sequence[str]) -> Iterator[Block]:
    """Yield the blocks as they stand there."""
    number, heading = 0, ""
    while number < len(lines):
        if headed := _HEADING.match(lines[number]):
            heading = headed["heading"]
        if opening := _FENCE.match(lines[number]):
            end = _end(page, lines, number, opening["fence"])
            content = lines[number + 1 : end]
            yield Block(
                page,
                number + 2,
                _language(page, number, opening["language"].strip()),
                "".join(f"{_unindented(line, len(opening['indent']))}\n" for line in content),
                heading,
                _mark(page, lines, number),
            )
            number = end
        number += 1


def _end(page: str, lines: Sequence[str], start: int, fence: str) -> int:
    closing = re.compile(rf"^ *{re.escape(fence[0])}{{{len(fence)},}} *$")
    for number in range(start + 1, len(lines)):
        if closing.match(lines[number]):
            return number
    raise PageError(f"{page}:{start + 1}: this block has no end")


def _language(page: str, start: int, language: str) -> str:
    if language not in LANGUAGES:
        got = repr(language) if language else "none"
        raise PageError(
            f"{page}:{start + 1}: expected one of the languages {', '.join(LANGUAGES)}, got {got}"
        )
    return language


def _unindented(line: str, indent: int) -> str:
    return line[indent:] if not line[:indent].strip() else line


def _mark(page: str, lines: Sequence[str], start: int) -> str | None:
    before = lines[start - 1] if start else ""
    if marked := _MARK.match(before):
        return marked["mark"]
    if "<!-- not run" in before or "<!-- run by" in before:
        raise PageError(f"{page}:{start}: expected `<!-- not run: REASON -->`, got {before!r}")
    return None
