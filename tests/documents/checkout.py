"""A copy of the repository as it is now, with what is not committed yet, ready for `make`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked_files(root: Path) -> list[str]:
    """Return the files of the working tree that git knows or would add, by their paths."""
    if not (root / ".git").exists():
        pytest.skip("this is no checkout of git, so nothing says which files belong to it")
    listed = _git("-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return sorted(name for name in listed.split("\0") if (root / name).is_file())


def copy_repository(folder: Path, root: Path = ROOT) -> Path:
    """Return a copy below `folder`; the data sets lie beside it where they lie beside ours."""
    copy = folder / "dunno"
    overlay(copy, root)
    shared = root.parent / "shared"
    if shared.is_dir():
        (folder / "shared").symlink_to(shared)
    return copy


def overlay(copy: Path, root: Path) -> None:
    """Write the working tree's files into `copy`, and take away what is not there any more."""
    names = tracked_files(root)
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, copy / name)
    if (copy / ".git").exists():
        for name in set(tracked_files(copy)) - set(names):
            (copy / name).unlink()


def link_environment(copy: Path, name: str) -> None:
    """Let `make` find this interpreter's environment as its own, with nothing left to install."""
    environment = copy / name
    environment.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "installed":
            (environment / path.name).symlink_to(path)
    (environment / "installed").touch()


def clone_repository(folder: Path, root: Path = ROOT) -> Path:
    """Return a clone below `folder`, made true for the working tree; a copy of a shallow one."""
    if _git("-C", str(root), "rev-parse", "--is-shallow-repository").strip() == "true":
        return copy_repository(folder, root)
    clone = folder / "dunno"
    _git("clone", "--quiet", f"file://{root}", str(clone))
    overlay(clone, root)
    return clone


def _git(*arguments: str) -> str:
    # A hook that runs the tests has variables that lead git to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607  git is wherever it is installed
        capture_output=True,
        check=False,
        env=environment,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
