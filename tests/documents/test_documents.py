"""Every code block of the documents does what its page says."""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from documents.blocks import Block, read_blocks
from documents.checkout import ROOT, copy_repository, link_environment
from documents.session import Session, installed_for
from tools import needs_curl

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("load_tests/**/*.md"))
)
IS_CHECK = "DUNNO_CHECK" in os.environ
ELSEWHERE = {"docs/tutorial.md"} if IS_CHECK else set()
"""`make check` runs it in a clone, by test_new_user.py."""

WITH_PROGRAMS = [
    page
    for page in PAGES
    if re.search(r"^ *[`~]{3,} *(sh|python)", (ROOT / page).read_text(), re.MULTILINE)
]

pytestmark = [
    needs_curl,
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
]


def read_yaml(text: str) -> list[Any]:
    """Return the documents of a YAML text."""
    if not IS_CHECK:
        pytest.importorskip("yaml", reason="`make test` installs PyYAML")
    import yaml  # noqa: PLC0415  only where it is installed

    return list(yaml.safe_load_all(text))


PARSERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": read_yaml,
}


def mistakes(block: Block) -> Iterator[str]:
    """Yield why a block of data cannot be parsed."""
    try:
        PARSERS[block.language](block.text)
    except Exception as error:  # noqa: BLE001  each parser has its own
        yield f"{block.place}: {error}"


def blocks_of(page: str) -> list[Block]:
    return read_blocks(page, (ROOT / page).read_text())


def programs(blocks: list[Block], *, is_check: bool) -> list[Block]:
    """Return what is to be run."""
    left_out = {"not run"} if is_check else {"not run", "run by make check"}
    return [block for block in blocks if block.is_program and block.mark not in left_out]


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """A copy of the repository whose environments are this one."""
    copy = copy_repository(tmp_path)
    for name in (".venv", ".venv-dev"):
        link_environment(copy, name)
    yield copy
    shutil.rmtree(copy)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_data_can_be_parsed(page: str) -> None:
    blocks = [block for block in blocks_of(page) if block.language in PARSERS and not block.mark]

    assert [sentence for block in blocks for sentence in mistakes(block)] == []


@pytest.mark.parametrize(
    ("language", "text"), [("json", "{a: 1}"), ("toml", "a = "), ("yaml", "a: [1")]
)
def test_block_that_cannot_be_parsed_is_told_by_page_and_line(language: str, text: str) -> None:
    (block,) = read_blocks("docs/a.md", f"\n```{language}\n{text}\n```\n")

    (sentence,) = mistakes(block)

    assert sentence.startswith("docs/a.md:3: ")


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({*WITH_PROGRAMS} - ELSEWHERE))
def test_every_program_of_a_page_runs_and_prints_what_the_page_shows(
    page: str, copy: Path, tmp_path: Path
) -> None:
    with Session(copy, tmp_path / "page", installed_for(copy)) as session:
        for block in programs(blocks_of(page), is_check=IS_CHECK):
            session.run(block)
