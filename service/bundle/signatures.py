"""Signatures of bundles, in OpenSSF Model Signing's format; checked before a bundle is parsed.

    model.sig: Sigstore bundle > DSSE envelope > in-toto statement > SHA-256 of every file

`dunno sign` writes them with the library `model_signing`, which also verifies them. It is not used
here: it would bring HTTP clients into a process that calls nobody, and it compares files on the
disk, not the bytes that are parsed afterwards. What is accepted is narrower than there: a
signature by an elliptic-curve key over whole files, and not one file beside those.
"""

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.bundle.duplicates import DuplicateKey, refuse_duplicate_keys
from service.errors import SignatureInvalid, TrustedKeyInvalid
from service.files import open_regular, read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

SIGNATURE = "model.sig"
"""File of the signature, beside the files that it covers."""

MAX_SIGNATURE_BYTES = 1024 * 1024
"""Hundreds of times what a bundle's signature takes."""

_PAYLOAD_TYPE = "application/vnd.in-toto+json"


def _base64_bytes(text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64 ({error})") from None


Base64 = Annotated[bytes, BeforeValidator(_base64_bytes)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Signature(_Part):
    sig: Base64


class _Envelope(_Part):
    payload: Base64
    payload_type: Literal["application/vnd.in-toto+json"] = Field(alias="payloadType")
    signatures: tuple[_Signature]


class _PublicKey(_Part):
    hint: str | None = None


class _Material(_Part):
    public_key: _PublicKey = Field(alias="publicKey")


class _SigstoreBundle(_Part):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"] = Field(alias="mediaType")
    material: _Material = Field(alias="verificationMaterial")
    envelope: _Envelope = Field(alias="dsseEnvelope")


class _Serialization(_Part):
    method: Literal["files"]
    hash_type: Literal["sha256"]


class _Resource(_Part):
    name: str
    algorithm: Literal["sha256"]
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class _RootDigest(_Part):
    sha256: str


class _Subject(_Part):
    digest: _RootDigest


class _Predicate(_Part):
    serialization: _Serialization
    resources: tuple[_Resource, ...] = Field(min_length=1)


class _Statement(_Part):
    kind: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate_type: Literal["https://model_signing/signature/v1.0"] = Field(alias="predicateType")
    subject: tuple[_Subject]
    predicate: _Predicate


class Signed(NamedTuple):
    """What a trusted key signed, and what the folder holds at this moment."""

    sha256_by_name: Mapping[str, str]
    key: str
    """SHA-256 of the public key as PEM, as `model_signing` names it."""


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Public keys in files; a bundle that none of them signed is not opened.

    The files are read whenever a bundle is opened, so that keys change without a new start.
    """

    paths: tuple[Path, ...]

    def verify(self, folder: Path) -> Signed:
        """Return the digests of a bundle's files, signed and as they are; nothing is parsed yet.

        Raises:
            SignatureInvalid: if there is no such signature, or a file differs, lacks or is extra.
            TrustedKeyInvalid: if a key cannot be read.
        """
        keys = [_PublicKeyFile.read(path) for path in self.paths]
        try:
            key, payload = _open_envelope(_read_signature(folder), keys)
            signed = _digests(payload)
            _compare(folder, signed)
        except _Refused as reason:
            raise SignatureInvalid(f"{folder / SIGNATURE}: {reason}") from None
        return Signed(signed, key.fingerprint)


class _Refused(Exception):
    """Why a signature does not count."""


@dataclass(frozen=True, slots=True)
class _PublicKeyFile:
    key: "EllipticCurvePublicKey"
    fingerprint: str

    @classmethod
    def read(cls, path: Path) -> "_PublicKeyFile":
        # Only who trusts keys pays for the import.
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

        expected = "expected a public elliptic-curve key as PEM (P-256, P-384 or P-521)"
        try:
            key = serialization.load_pem_public_key(read_regular(path))
        except OSError as error:
            message = f"DUNNO_TRUSTED_KEYS: {path}: cannot be read ({error.strerror})"
            raise TrustedKeyInvalid(message) from None
        except (ValueError, UnsupportedAlgorithm):
            raise TrustedKeyInvalid(f"DUNNO_TRUSTED_KEYS: {path}: {expected}") from None
        curves = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, curves):
            raise TrustedKeyInvalid(f"DUNNO_TRUSTED_KEYS: {path}: {expected}")
        pem = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(key, hashlib.sha256(pem).hexdigest())

    def has_signed(self, payload: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

        # DSSE's pre-authentication encoding, https://github.com/secure-systems-lab/dsse
        encoded = b"DSSEv1 %d %s %d %s" % (
            len(_PAYLOAD_TYPE),
            _PAYLOAD_TYPE.encode(),
            len(payload),
            payload,
        )
        try:
            self.key.verify(signature, encoded, ec.ECDSA(self._hash()))
        except InvalidSignature:
            return False
        return True

    def _hash(self) -> "HashAlgorithm":
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

        by_bits = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
        return by_bits[self.key.curve.key_size]


def _read_signature(folder: Path) -> bytes:
    path = folder / SIGNATURE
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise _Refused("is no plain file")
        return read_regular(path, MAX_SIGNATURE_BYTES)
    except FileNotFoundError:
        raise _Refused(
            "there is none, and DUNNO_TRUSTED_KEYS asks for one; sign the bundle with `dunno sign`"
        ) from None
    except OSError as error:
        raise _Refused(f"cannot be read ({error.strerror})") from None


def _open_envelope(content: bytes, keys: list[_PublicKeyFile]) -> tuple[_PublicKeyFile, bytes]:
    try:
        bundle = _SigstoreBundle.model_validate_json(content)
        refuse_duplicate_keys(content)
    except (pydantic.ValidationError, DuplicateKey) as error:
        raise _Refused(f"no signature by a key ({_first(error)})") from None
    payload, signature = bundle.envelope.payload, bundle.envelope.signatures[0].sig
    hint = bundle.material.public_key.hint
    named = [key for key in keys if hint in (None, "", key.fingerprint)]
    if not named:
        raise _Refused("signed by a key that DUNNO_TRUSTED_KEYS does not name")
    for key in named:
        if key.has_signed(payload, signature):
            return key, payload
    raise _Refused("the signature is wrong")


def _digests(payload: bytes) -> dict[str, str]:
    """Return SHA-256 by name of a statement; it is signed, so this is about mistakes."""
    try:
        statement = _Statement.model_validate_json(payload)
        refuse_duplicate_keys(payload)
    except (pydantic.ValidationError, DuplicateKey) as error:
        message = f"signs no whole files by SHA-256 ({_first(error)}); use `dunno sign`"
        raise _Refused(message) from None
    resources = statement.predicate.resources
    root = hashlib.sha256(b"".join(bytes.fromhex(resource.digest) for resource in resources))
    if root.hexdigest() != statement.subject[0].digest.sha256:
        raise _Refused("its digest is not that of the files it names")
    digests = {resource.name: resource.digest for resource in resources}
    if len(digests) != len(resources):
        raise _Refused("names a file twice")
    return digests


def _compare(folder: Path, signed: Mapping[str, str]) -> None:
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    found.pop(SIGNATURE, None)
    extra, missing = sorted(found.keys() - signed.keys()), sorted(signed.keys() - found.keys())
    if extra:
        raise _Refused(f"the bundle holds {_quoted(extra[0])}, which is not signed")
    if missing:
        raise _Refused(f"the bundle holds no {_quoted(missing[0])}, which is signed")
    for name, path in found.items():
        try:
            with open_regular(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _Refused(f"{_quoted(name)} cannot be read ({error.strerror})") from None
        if digest != signed[name]:
            raise _Refused(f"{_quoted(name)} is not what was signed")


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder; a link, or whatever else is no file, is refused."""

    def refuse(error: OSError) -> None:
        raise _Refused(f"the bundle cannot be listed ({error.strerror})")

    for place, folders, files in os.walk(folder, onerror=refuse):
        for name in (*folders, *files):
            path = Path(place, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                raise _Refused(f"{_quoted(path.relative_to(folder).as_posix())} is no plain file")


def _first(error: pydantic.ValidationError | DuplicateKey) -> str:
    if isinstance(error, DuplicateKey):
        return str(error)
    first: Any = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "content"
    return f"{where}: {first['msg']}"


def _quoted(name: str) -> str:
    """Return a file's name in quotes; whoever put it there chose its characters."""
    return json.dumps(name[:200])
