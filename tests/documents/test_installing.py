"""What documents, messages and pages tell the reader to install can be installed today."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents.checkout import ROOT

TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "load_tests/*",
        "service/**/*",
        "training/**/*.py",
        "dunno_client/*.py",
        "k8s/**/*",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix in {".md", ".py", ".js", ".html", ".yaml"}
)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def promised(text: str) -> Iterator[str]:
    """Yield each part of a text that installs this project from an index."""
    for found in re.finditer(r"pip install (?P<what>[^\n`\"]*)", text):
        words = found["what"].replace("'", " ").split()
        yield from (word for word in words if re.fullmatch(r"dunno([-_]client)?(\[.*)?", word))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_text_installs_dunno_from_an_index_that_does_not_have_it(path: Path) -> None:
    assert list(promised(path.read_text())) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_extra_that_a_text_installs_is_there(path: Path) -> None:
    named = re.findall(r"pip install (?:-e|--editable) '?\.\[([a-z,]+)\]", path.read_text())

    assert [name for names in named for name in names.split(",") if name not in EXTRAS] == []


@pytest.mark.parametrize(
    "line", ["pip install dunno", "`pip install 'dunno[client]'`", "pip install -U dunno-client"]
)
def test_line_that_installs_from_an_index_is_found(line: str) -> None:
    assert len(list(promised(line))) == 1
