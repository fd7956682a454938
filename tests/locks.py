"""Lock files as the tests read them."""

import re
from collections.abc import Collection
from pathlib import Path

from packaging.requirements import Requirement

FOLDER = Path(__file__).parents[1] / "requirements"
LOCKS = sorted(path.stem for path in FOLDER.glob("*.txt"))
_PINNED = re.compile(
    r"^(?P<requirement>[A-Za-z0-9_.\[\],-]+==[^\s;]+(?: ; [^\\]+)?) ?\\?$", re.MULTILINE
)


def read_lock(lock: str) -> str:
    return (FOLDER / f"{lock}.txt").read_text()


def pinned(lock: str) -> dict[str, Requirement]:
    """Return what a lock file installs on this machine, by name."""
    text = read_lock(lock)
    found = [Requirement(match["requirement"]) for match in _PINNED.finditer(text)]
    assert len(found) == len(re.findall("^[^ ]", text, re.MULTILINE))
    return {each.name: each for each in found if applies(each)}


def applies(requirement: Requirement, extras: Collection[str] = ()) -> bool:
    """Return whether this Python needs a requirement of a package with these extras."""
    if not requirement.marker:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))
