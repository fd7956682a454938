"""What is a code block of a page, and what the page says about it."""

import pytest
from documents.blocks import PageError, read_blocks


def page(*lines: str) -> str:
    return "\n".join(lines)


def test_blocks_come_in_the_order_of_the_page_with_their_lines() -> None:
    text = page("# Title", "", "```sh", "ls", "```", "", "```python", "print(1)", "```")

    blocks = read_blocks("docs/a.md", text)

    assert [(block.place, block.text) for block in blocks] == [
        ("docs/a.md:4", "ls\n"),
        ("docs/a.md:8", "print(1)\n"),
    ]


def test_block_in_a_list_loses_the_indent_of_its_fence() -> None:
    (block,) = read_blocks("a.md", page("- so:", "  ```python", "  if 1:", "      pass", "  ```"))

    assert block.text == "if 1:\n    pass\n"


def test_longer_fence_holds_shorter_ones() -> None:
    (block,) = read_blocks("a.md", page("````text", "```", "````"))

    assert block.text == "```\n"


@pytest.mark.parametrize("between", [(), ("", "prints"), ("## Not a heading of level seven",)])
def test_text_below_a_program_is_what_it_prints_up_to_the_next_heading(
    between: tuple[str, ...],
) -> None:
    text = page("```sh", "ls", "```", *between, "", "```text", "README.md", "```")

    program, *others = read_blocks("a.md", text)

    is_of_the_program = not any(line.startswith("##") for line in between)
    assert (program.output is not None) == is_of_the_program
    assert len(others) == (not is_of_the_program)


@pytest.mark.parametrize(("between", "is_said"), [((), True), (("in the file:",), False)])
def test_json_is_what_a_program_prints_only_right_below_it(
    between: tuple[str, ...], *, is_said: bool
) -> None:
    text = page("```sh", "curl", "```", "", *between, "```json", "{}", "```")

    program, *others = read_blocks("a.md", text)

    assert (program.output is not None) == is_said
    assert bool(others) != is_said


@pytest.mark.parametrize("mark", ["not run", "run by make check"])
def test_mark_right_before_a_block_is_its_own(mark: str) -> None:
    first, second = read_blocks(
        "a.md",
        page(f"<!-- {mark}: takes hours -->", "```sh", "a", "```", "", "```sh", "b", "```"),
    )

    assert (first.mark, second.mark) == (mark, None)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (("", "```", "x", "```"), "a.md:2: expected one of the languages sh, .*, got none"),
        (("```shell", "x", "```"), "a.md:1: expected one of the languages .*, got 'shell'"),
        (("```sh", "x"), "a.md:1: this block has no end"),
        (("<!-- not run -->", "```sh", "x", "```"), "a.md:1: expected `<!-- not run: REASON -->`"),
    ],
    ids=["no language", "unknown language", "no end", "no reason"],
)
def test_page_that_makes_no_sense_is_refused_by_line(lines: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(PageError, match=sentence):
        read_blocks("a.md", page(*lines))
