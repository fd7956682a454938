"""`dunno sign`: a signature beside a bundle's files, which a server with trusted keys asks for.

Keys are made by `openssl` and kept where the operator keeps keys; here they are only used. The
format is that of OpenSSF Model Signing, whose library signs, so that its tools verify it as well.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import click

from service.bundle import Bundle, TrustedKeys, read_bundle
from service.bundle.signatures import SIGNATURE
from service.bundle.store import MANIFEST
from service.errors import BundleError, install_line

CANNOT_SIGN = 2


@click.command()
@click.argument("folders", nargs=-1, required=True, type=Path, metavar="FOLDER...")
@click.option("--key", type=Path, required=True, help="Private elliptic-curve key, as PEM.")
@click.option("--ask-password", is_flag=True, help="Ask for the password of the key.")
def sign(folders: tuple[Path, ...], key: Path, *, ask_password: bool) -> None:
    """Sign the bundles in FOLDERs such as models/wine/1, each as a whole."""
    password = None
    if ask_password:
        password = click.prompt("password", hide_input=True, err=True).encode()
    for folder in folders:
        try:
            fingerprint = sign_bundle(folder, key, password)
        except (BundleError, ValueError, OSError) as error:
            _stop(f"{folder}: cannot be signed: {error}")
        except TypeError as error:  # what `cryptography` says of a password too many or too few
            _stop(f"{key}: {error}")
        except ModuleNotFoundError as error:
            _stop(f"signing needs the package {error.name!r}; {install_line('signing')}")
        click.echo(f"{folder / SIGNATURE}: signed by key {fingerprint}")


def sign_bundle(folder: Path, key: Path, password: bytes | None = None) -> str:
    """Write the signature of a bundle, replacing one that is there; return the key's SHA-256.

    Args:
        folder: of the version, `models/<name>/<version>`.
        key: file of a private key on P-256, P-384 or P-521, as PEM.
        password: of the key; None: it has none.

    Raises:
        BundleError: if the bundle is not whole.
        ValueError: if the key is of another kind, or the folder holds what is not the bundle's.
    """
    from model_signing import hashing, signing  # noqa: PLC0415  an extra, and slow to import

    bundle = read_bundle(folder)
    extra = _extra_files(bundle)
    if extra:
        raise ValueError(f"the manifest lists no file {extra[0]!r}; remove it first")
    signature = folder / SIGNATURE
    files = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    signer = signing.Config().set_hashing_config(files)
    # The library's annotation says str, and what it calls takes bytes.
    signer.use_elliptic_key_signer(private_key=key, password=password)
    with tempfile.TemporaryDirectory() as work:
        written, public = Path(work, SIGNATURE), Path(work, "key.pub")
        signer.sign(folder, written)
        _write_public_key(key, password, public)
        content = written.read_bytes()
        _put(signature, content)
        return TrustedKeys((public,)).verify(folder).key


def _extra_files(bundle: Bundle) -> list[str]:
    there = {
        path.relative_to(bundle.path).as_posix()
        for path in bundle.path.rglob("*")
        if not path.is_dir()
    }
    return sorted(there - bundle.manifest.files.keys() - {MANIFEST, SIGNATURE})


def _write_public_key(key: Path, password: bytes | None, target: Path) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  as above

    public = serialization.load_pem_private_key(key.read_bytes(), password).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    target.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))


def _put(target: Path, content: bytes) -> None:
    """Write a file at once: a server that looks meanwhile sees the old one or the new one."""
    unfinished = target.with_name(f".{target.name}-{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(target)


def _stop(message: str) -> NoReturn:
    click.echo(f"dunno: {message}", err=True)
    sys.exit(CANNOT_SIGN)
