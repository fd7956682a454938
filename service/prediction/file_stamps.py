"""Whether the operator's files changed: times, inode and size, compared with those of before.

What is copied into a file in place may keep its time of modification (`rsync --inplace --times`),
but not the time of its last change of status.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from service.bundle.signatures import SIGNATURE

Stamps: TypeAlias = Mapping[Path, tuple[int, int, int, int]]
"""File -> times of modification and of change (ns), inode, size; files that are not there are left
out."""


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """Return the stamps of the files that are there."""
    found = {}
    for path in paths:
        try:
            status = path.stat()
        except (OSError, ValueError):  # the latter of a NUL in its name
            continue
        times = (status.st_mtime_ns, status.st_ctime_ns)
        found[path] = (*times, status.st_ino, status.st_size)
    return found


def model_files(models: Path, catalogue: str) -> Iterator[Path]:
    """Yield the files that say what is served: the catalogue, manifests and signatures."""
    yield models / catalogue
    yield from models.glob("*/[!.]*/manifest.json")
    yield from models.glob(f"*/[!.]*/{SIGNATURE}")


def bundle_files(folder: Path) -> Iterator[Path]:
    """Yield the folder of a model's versions and what lies in each version's folder."""
    yield folder
    with suppress(OSError, ValueError):  # whoever opens the folder says it better
        yield from folder.glob("[!.]*/*")
