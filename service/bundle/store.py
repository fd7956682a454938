"""Reads and writes bundles; a file that differs from its checksum is never handed out.

The manifest is written last and the finished folder appears by one rename, so that nobody ever
sees half a bundle.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.bundle.manifest import File, Manifest, parse_manifest
from service.errors import BundleCorrupt, BundleMissing

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk whose manifest has been read."""

    path: Path
    manifest: Manifest

    def read(self, name: str) -> bytes:
        """Return the content of a file after comparing it with its checksum.

        Raises:
            BundleCorrupt: if the file is missing, a link, or differs.
        """
        declared = self.manifest.files.get(name)
        if declared is None:
            raise BundleCorrupt(f"{self.path}: the manifest lists no file {name!r}")
        path = self.path / name
        if path.is_symlink() or not path.is_file():
            raise BundleCorrupt(f"{path}: listed in the manifest, but no plain file")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleCorrupt(f"{path}: cannot be read ({error.strerror})") from None
        if file_of(content) != declared:
            raise BundleCorrupt(
                f"{path}: sha256 differs from the manifest; restore the file or train again"
            )
        return content

    def verify(self) -> None:
        """Compare every file of the manifest with its checksum.

        Raises:
            BundleCorrupt: naming the first file that differs.
        """
        for name in self.manifest.files:
            self.read(name)


def file_of(content: bytes) -> File:
    """Return the manifest's entry for a file with this content."""
    return File(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def read_bundle(path: Path) -> Bundle:
    """Return the bundle in the folder `path`, all of its files verified.

    Raises:
        BundleMissing: if there is no folder or no manifest.
        ManifestInvalid: if the manifest cannot be read.
        BundleCorrupt: if a file differs from its checksum.
    """
    bundle = open_bundle(path)
    bundle.verify()
    return bundle


def open_bundle(path: Path) -> Bundle:
    """Return the bundle in the folder `path`; its files are verified when they are read.

    Raises:
        BundleMissing: if there is no folder or no manifest.
        ManifestInvalid: if the manifest cannot be read.
    """
    try:
        content = (path / MANIFEST).read_bytes()
    except OSError as error:
        message = f"{path / MANIFEST}: cannot be read ({error.strerror}); train or copy the bundle"
        raise BundleMissing(message) from None
    return Bundle(path, parse_manifest(content, str(path / MANIFEST)))


def write_bundle(
    path: Path,
    contents: Mapping[str, bytes],
    describe: Callable[[dict[str, File]], Manifest],
) -> Bundle:
    """Write a bundle to the folder `path`, replacing one that is there, and return it.

    Args:
        path: folder of the version, `models/<name>/<version>`.
        contents: content of each file by its name, `/` between folders.
        describe: returns the manifest, given the entries of all files.
    """
    manifest = describe({name: file_of(content) for name, content in sorted(contents.items())})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for name, content in contents.items():
            target = unfinished / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (unfinished / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        unfinished.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        unfinished.replace(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return Bundle(path, manifest)
