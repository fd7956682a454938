"""Whether the operator's files changed: their times and inodes, compared with those of before."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from service.bundle.signatures import SIGNATURE

Stamps: TypeAlias = Mapping[Path, tuple[int, int]]
"""File -> when it was changed last (ns) and its inode; files that are not there are left out."""


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """Return the stamps of the files that are there."""
    found = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        found[path] = (status.st_mtime_ns, status.st_ino)
    return found


def model_files(models: Path, catalogue: str) -> Iterator[Path]:
    """Yield the files that say what is served: the catalogue, manifests and signatures."""
    yield models / catalogue
    yield from models.glob("*/[!.]*/manifest.json")
    yield from models.glob(f"*/[!.]*/{SIGNATURE}")
