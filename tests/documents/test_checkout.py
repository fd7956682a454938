"""Copies and clones are what the working tree is now, committed or not."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from documents.checkout import clone_repository, copy_repository, link_environment

NOW = {".gitignore": "build/\n", "changed.md": "new", "docs/added.md": "added"}


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(command, check=True, cwd=folder, env=own)  # noqa: S603


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def read(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_text() for path in files}


@pytest.fixture(params=["whole", "shallow"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A checkout with a file changed, one added, one removed and one ignored since its commit."""
    first, root = tmp_path / "first", tmp_path / "root"
    write(first, {".gitignore": "build/\n", "changed.md": "old", "removed.md": "", "empty/a": ""})
    git(first, "init", "--quiet")
    for message in ("one", "two"):
        git(first, "add", ".")
        git(first, "commit", "--quiet", "--allow-empty", "--message", message)
    depth = ["--depth", "1"] if request.param == "shallow" else []
    git(tmp_path, "clone", "--quiet", *depth, f"file://{first}", str(root))
    (root / "removed.md").unlink()
    (root / "empty/a").unlink()
    write(root, {**NOW, "build/ignored": ""})
    return root


@pytest.mark.parametrize("make", [copy_repository, clone_repository])
def test_copy_is_the_working_tree_without_what_git_ignores(
    tmp_path: Path, root: Path, make: Callable[[Path, Path], Path]
) -> None:
    (tmp_path / "below").mkdir()

    copy = make(tmp_path / "below", root)

    assert read(copy) == NOW


def test_make_finds_nothing_to_install_in_a_copy(tmp_path: Path) -> None:
    copy = copy_repository(tmp_path)
    link_environment(copy, ".venv-dev")

    told = subprocess.run(
        ["make", "--question", ".venv-dev/installed"],  # noqa: S607
        check=False,
        cwd=copy,
    )

    assert told.returncode == 0
