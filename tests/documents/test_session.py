"""Programs of a page run one after the other, and what goes wrong is told by page and line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from documents.blocks import read_blocks
from documents.checkout import ROOT
from documents.session import BlockFailed, Session, installed_for
from tools import needs_curl

PAGE = "docs/a.md"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A shell in an empty folder."""
    folder = tmp_path / "copy"
    folder.mkdir()
    with Session(folder, tmp_path / "page", installed_for(ROOT)) as session:
        yield session


def run(session: Session, *lines: str) -> None:
    for block in read_blocks(PAGE, "\n".join(lines)):
        session.run(block)


def test_variables_and_folder_last_from_block_to_block(session: Session) -> None:
    run(
        *(session, "```sh", "mkdir below; cd below", "KEY=$(echo secret); export WORD=ours", "```"),
        *("```sh", "echo $KEY $(basename $PWD)", "```", "", "```text", "secret below", "```"),
        *("```python", "import os; print(os.environ['WORD'])", "```", "```text", "ours", "```"),
    )


def test_block_that_fails_is_told_with_its_line_and_what_it_printed(session: Session) -> None:
    with pytest.raises(BlockFailed) as told:
        run(session, "# Title", "", "```sh", "echo so far", "ls nowhere", "echo further", "```")

    message = str(told.value)
    assert message.startswith("docs/a.md:4: failed\n\necho so far\nls nowhere\n")
    assert "It printed:\nso far\n" in message
    assert "stopped at line 5 with status 2" in message
    assert "further\n" not in message.partition("It printed:")[2]


@pytest.mark.parametrize(
    "line",
    ["false | true", "echo $UNSET_BEFORE", "(exit 3)", "x=$(false)"],
    ids=["first of a pipe", "unset variable", "subshell", "substitution"],
)
def test_failure_anywhere_in_a_line_fails_the_block(session: Session, line: str) -> None:
    with pytest.raises(BlockFailed, match=r"docs/a\.md:2: failed"):
        run(session, "```sh", line, "true", "```")


def test_error_in_python_has_the_line_of_the_page(session: Session) -> None:
    with pytest.raises(BlockFailed, match=r"(?s)docs/a\.md:3: failed.*line 4.*ZeroDivisionError"):
        run(session, "", "```python", "a = 0", "1 / a", "```")


def test_other_output_than_the_page_shows_is_told_with_both(session: Session) -> None:
    with pytest.raises(BlockFailed) as told:
        run(session, "```sh", "echo 8", "```", "```text", "7", "```")

    assert str(told.value) == (
        "docs/a.md:5: expected\n\n7\n\nof the block at docs/a.md:2, which printed\n\n8"
    )


@pytest.mark.slow
def test_server_in_the_foreground_lets_the_page_go_on(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    ask = "curl http://127.0.0.1:8000/models/fruit"

    with Session(folder, tmp_path / "page", installed_for(ROOT)) as session:
        run(
            *(session, "```sh", f"DUNNO_MODELS={models} \\", "  dunno serve   # stays", ask, "```"),
            *("```sh", ask, "```", "", "```json", '{"name": "fruit", "…": "…"}', "```"),
        )
        server = int((tmp_path / "page/server.pid").read_text())

    assert not Path(f"/proc/{server}").exists()


@pytest.mark.slow
def test_server_that_does_not_start_is_told_with_its_log(session: Session) -> None:
    with pytest.raises(BlockFailed, match=r"(?s)dunno: .*catalogue.*the server is not ready"):
        run(session, "```sh", "DUNNO_MODELS=nowhere dunno serve", "```")


@needs_curl
def test_answer_that_is_a_refusal_fails_unless_the_page_shows_it(
    session: Session, address: str
) -> None:
    port = address.rpartition(":")[2]
    ask = f"AT={port}; curl http://127.0.0.1:$AT/models/nothing"
    run(session, "```sh", ask, "```", "```json", '{"status": 404, "…": "…"}', "```")

    with pytest.raises(BlockFailed, match="404"):
        run(session, "```sh", ask, "```")
