"""Somebody who has just cloned this repository types what the documents say."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents.blocks import Block, read_blocks
from documents.checkout import clone_repository, link_environment
from documents.session import Session, installed_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "DUNNO_CHECK" not in os.environ, reason="`make check` runs it: installs from an index"
    ),
]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A fresh clone, in which nothing is installed."""
    clone = clone_repository(tmp_path)
    yield clone
    shutil.rmtree(clone)


def programs(clone: Path, page: str) -> list[Block]:
    blocks = read_blocks(page, (clone / page).read_text())
    return [block for block in blocks if block.is_program and block.mark is None]


def test_new_user_gets_a_verdict_from_each_line_of_the_readme_and_the_tutorial_does_as_it_says(
    clone: Path, tmp_path: Path
) -> None:
    first = [each for each in programs(clone, "README.md") if each.heading == "Two commands"]

    with Session(clone, tmp_path / "readme", {}) as session:
        serve, ask = (session.run(block) for block in first)

    assert serve == ""
    answers = [json.loads(line) for line in ask.splitlines()]
    assert [answer["model"] for answer in answers] == ["mnist", "wine", "imdb"]
    assert all(row["verdict"] for answer in answers for row in answer["predictions"])

    # The other environment has TensorFlow in it: this one stands for it.
    link_environment(clone, ".venv-dev")
    with Session(clone, tmp_path / "tutorial", installed_for(clone)) as session:
        for block in programs(clone, "docs/tutorial.md"):
            session.run(block)
