"""Every link between the documents leads somewhere: files and headings are there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents.checkout import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("*.md", "docs/**/*.md", "load_tests/**/*.md", "models/**/*.md")
    for path in ROOT.glob(folder)
)
LINK = re.compile(
    r"\]\((?P<target>[^)\s]+)(?: \"[^\"]*\")?\)|(?:src|srcset|href)=\"(?P<attribute>[^\"]+)\""
)


def prose(text: str) -> str:
    """Return a page without its code."""
    without_blocks = re.sub(r"^ *(```+|~~~+).*?^ *\1 *$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", lambda code: re.sub(r"[\[\]()<>]", "", code[0]), without_blocks)


def anchors(text: str) -> set[str]:
    """Return the names by which GitHub links to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(next(each for each in _numbered(name) if each not in found))
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in range(1, 100))


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    targets = [
        found["target"] or found["attribute"] for found in LINK.finditer(prose(page.read_text()))
    ]
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    return [target for target in local if not is_there(page, target)]


def is_there(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = page.parent / path if path else page
    if not anchor or file.suffix != ".md":
        return file.exists()
    return file.exists() and anchor in anchors(file.read_text())


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: str) -> None:
    assert broken(ROOT / page) == []


@pytest.mark.parametrize(
    ("target", "is_found"),
    [
        ("other.md", True),
        ("other.md#a-heading-of-two-lines", True),
        ("other.md#twice-1", True),
        ("other.md#in-code", False),
        ("other.md#nothing", False),
        ("#here", True),
        ("nothing.md", False),
    ],
)
def test_link_is_broken_if_file_or_heading_is_missing(
    tmp_path: Path, target: str, *, is_found: bool
) -> None:
    (tmp_path / "other.md").write_text(
        "# A `heading`, of two lines\n## Twice\n## Twice\n```sh\n# In code\n```\n"
    )
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n[a]({target}) and `[b](code.md)` and <https://elsewhere>\n")

    assert broken(page) == ([] if is_found else [target])
