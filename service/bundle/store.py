"""Reads and writes bundles; a file that differs from its checksum is never handed out.

The manifest is written last and the finished folder appears by one rename, so that nobody ever
sees half a bundle.
"""

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.bundle.manifest import File, Manifest, parse_manifest
from service.bundle.signatures import TrustedKeys
from service.errors import BundleCorrupt, BundleMissing, ManifestInvalid, SignatureInvalid
from service.files import read_regular

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
"""A hundred times the largest one that training wrote."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk whose manifest has been read."""

    path: Path
    manifest: Manifest
    signed_by: str | None = None
    """SHA-256 of the public key whose signature was checked; None: none was asked for."""

    def read(self, name: str) -> bytes:
        """Return the content of a file after comparing it with its checksum.

        Raises:
            BundleCorrupt: if the file is missing, a link, or differs.
        """
        declared = self.manifest.files.get(name)
        if declared is None:
            raise BundleCorrupt(f"{self.path}: the manifest lists no file {name!r}")
        path = self.path / name
        try:
            if path.is_symlink() or not path.is_file():
                raise BundleCorrupt(f"{path}: listed in the manifest, but no plain file")
            # A file of another size is not even read: it may be larger than the memory.
            has_size = path.stat().st_size == declared.size_bytes
            content = read_regular(path, declared.size_bytes) if has_size else b""
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


def open_bundle(path: Path, keys: TrustedKeys | None = None) -> Bundle:
    """Return the bundle in the folder `path`; its files are verified when they are read.

    With `keys` its signature is verified first, with all of its files. What is parsed is what was
    signed even if somebody changes the files meanwhile: the manifest is the very bytes that were
    signed, and it has the checksum of every other file that is read.

    Raises:
        SignatureInvalid: if no key of `keys` signed the bundle as it is.
        BundleMissing: if there is no folder or no manifest.
        ManifestInvalid: if the manifest cannot be read.
    """
    place = path / MANIFEST
    try:
        signed = None if keys is None else keys.verify(path)
        content = read_regular(place, MAX_MANIFEST_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ManifestInvalid(f"{place}: is larger than {MAX_MANIFEST_BYTES:,} bytes") from None
        message = f"{place}: cannot be read ({error.strerror}); train or copy the bundle"
        raise BundleMissing(message) from None
    if signed and signed.sha256_by_name[MANIFEST] != hashlib.sha256(content).hexdigest():
        raise SignatureInvalid(f"{place}: has changed since its signature was checked")
    return Bundle(path, parse_manifest(content, str(place)), signed and signed.key)


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
