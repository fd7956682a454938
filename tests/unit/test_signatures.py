"""The library `model_signing` is the oracle: what it signs is accepted, what it refuses is not."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import fruit_bundle
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_signing import hashing, signing, verifying
from signing_keys import KeyPair, key_pair

from service.bundle import TrustedKeys, open_bundle
from service.bundle.signatures import MAX_SIGNATURE_BYTES, SIGNATURE, _files
from service.errors import SignatureInvalid, TrustedKeyInvalid
from training.signing import sign_bundle

CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return key_pair(tmp_path)


@pytest.fixture
def signed(tmp_path: Path, keys: KeyPair) -> Path:
    folder = fruit_bundle(tmp_path).path
    sign_bundle(folder, keys.private)
    return folder


def verify(folder: Path, *keys: KeyPair) -> None:
    TrustedKeys(tuple(pair.public for pair in keys)).verify(folder)


def oracle_verifies(folder: Path, keys: KeyPair) -> None:
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys.public)
    config.verify(folder, folder / SIGNATURE)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_bundle_that_a_trusted_key_signed_is_opened(tmp_path: Path, curve: Any) -> None:
    keys = key_pair(tmp_path, curve=curve)
    folder = fruit_bundle(tmp_path).path

    fingerprint = sign_bundle(folder, keys.private)

    assert open_bundle(folder, TrustedKeys((keys.public,))).signed_by == fingerprint
    oracle_verifies(folder, keys)


def test_signature_by_the_library_s_own_command_is_accepted(tmp_path: Path, keys: KeyPair) -> None:
    folder = fruit_bundle(tmp_path).path
    command = [sys.executable, "-m", "model_signing", "sign", "key", str(folder)]
    command += ["--private_key", str(keys.private), "--signature", str(folder / SIGNATURE)]

    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  our own command

    verify(folder, keys)


def test_bundle_is_accepted_from_either_of_two_keys(tmp_path: Path, signed: Path) -> None:
    new, old = key_pair(tmp_path, "new"), KeyPair(tmp_path / "maker.pem", tmp_path / "maker.pub")

    verify(signed, new, old)

    sign_bundle(signed, new.private)
    verify(signed, new, old)
    with pytest.raises(SignatureInvalid, match="a key that DUNNO_TRUSTED_KEYS does not name"):
        verify(signed, old)


def test_unsigned_bundle_is_refused_where_keys_are_trusted(tmp_path: Path, keys: KeyPair) -> None:
    folder = fruit_bundle(tmp_path).path

    with pytest.raises(SignatureInvalid, match=r"model\.sig: there is none.*dunno sign"):
        open_bundle(folder, TrustedKeys((keys.public,)))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rename(folder: Path, name: str, other: str) -> None:
    (folder / name).rename(folder / other)


def hide_a_file_in_a_folder(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / SIGNATURE).write_bytes(b"x")


def change_two_files_for_each_other(folder: Path) -> None:
    rename(folder, "model.onnx", "x")
    rename(folder, "golden.npz", "model.onnx")
    rename(folder, "x", "golden.npz")


def link_to_a_file(folder: Path) -> None:
    rename(folder, "model.onnx", "../elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "a flipped bit in the manifest": lambda folder: flip_a_bit(folder / "manifest.json"),
    "a flipped bit in the graph": lambda folder: flip_a_bit(folder / "model.onnx"),
    "a flipped bit in the golden rows": lambda folder: flip_a_bit(folder / "golden.npz"),
    "no graph": lambda folder: (folder / "model.onnx").unlink(),
    "no golden rows": lambda folder: (folder / "golden.npz").unlink(),
    "a byte more": lambda folder: append(folder / "model.onnx"),
    "an empty file": lambda folder: (folder / "model.onnx").write_bytes(b""),
    "a file more": lambda folder: (folder / "extra.bin").write_bytes(b"x"),
    "a hidden file more": lambda folder: (folder / ".hidden").write_bytes(b""),
    "a file more in a folder": hide_a_file_in_a_folder,
    "a file of another name": lambda folder: rename(folder, "golden.npz", "golden.npy"),
    "two files changed for each other": change_two_files_for_each_other,
    "a link to a file": link_to_a_file,
    "a link to a folder": lambda folder: (folder / "deep").symlink_to(folder.parent),
    "a pipe": lambda folder: os.mkfifo(folder / "pipe"),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_bundle_that_is_not_what_was_signed_is_refused(
    signed: Path, keys: KeyPair, tamper: Callable[[Path], object]
) -> None:
    tamper(signed)

    with pytest.raises(SignatureInvalid, match=r"model\.sig: "):
        open_bundle(signed, TrustedKeys((keys.public,)))
    with pytest.raises(ValueError, match=r"Signature mismatch|because it is a symlink|Cannot use"):
        oracle_verifies(signed, keys)


def test_files_of_git_are_extra_files_too(signed: Path, keys: KeyPair) -> None:
    (signed / ".gitattributes").write_text("x")

    with pytest.raises(SignatureInvalid, match=r'"\.gitattributes", which is not signed'):
        verify(signed, keys)


def test_manifest_is_not_parsed_before_its_signature_is_checked(
    signed: Path, keys: KeyPair
) -> None:
    (signed / "manifest.json").write_text("{")

    with pytest.raises(SignatureInvalid, match=r'"manifest\.json" is not what was signed'):
        open_bundle(signed, TrustedKeys((keys.public,)))


def content_of(folder: Path) -> Any:
    return json.loads((folder / SIGNATURE).read_text())


def truncated(content: Any) -> str:
    return json.dumps(content)[:-20]


def without_signature(content: Any) -> str:
    content["dsseEnvelope"]["signatures"] = []
    return json.dumps(content)


def of_a_certificate(content: Any) -> str:
    content["verificationMaterial"] = {"certificate": {"rawBytes": "AA=="}, "tlogEntries": []}
    return json.dumps(content)


def of_another_media_type(content: Any) -> str:
    return json.dumps({**content, "mediaType": "application/vnd.dev.sigstore.bundle+json"})


def of_another_payload_type(content: Any) -> str:
    content["dsseEnvelope"]["payloadType"] = "text/plain"
    return json.dumps(content)


def with_another_statement(content: Any) -> str:
    payload = base64.b64decode(content["dsseEnvelope"]["payload"])
    payload = payload.replace(b"golden.npz", b"golden.npy")
    content["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return json.dumps(content)


def with_another_signature(content: Any) -> str:
    signature = content["dsseEnvelope"]["signatures"][0]
    raw = bytearray(base64.b64decode(signature["sig"]))
    raw[-1] ^= 1
    signature["sig"] = base64.b64encode(raw).decode()
    return json.dumps(content)


def with_signature_cut(content: Any) -> str:
    signature = content["dsseEnvelope"]["signatures"][0]
    signature["sig"] = base64.b64encode(base64.b64decode(signature["sig"])[:-8]).decode()
    return json.dumps(content)


def no_base64(content: Any) -> str:
    content["dsseEnvelope"]["payload"] = "%%%"
    return json.dumps(content)


def of_another_key(content: Any) -> str:
    content["verificationMaterial"]["publicKey"]["hint"] = "00" * 32
    return json.dumps(content)


@pytest.mark.parametrize(
    "forge",
    [
        *(truncated, without_signature, of_a_certificate, of_another_media_type),
        *(of_another_payload_type, with_another_statement, with_another_signature),
        *(with_signature_cut, no_base64, of_another_key),
        *(lambda _: "", lambda _: "[]", lambda _: "-----BEGIN PGP SIGNATURE-----"),
        *(lambda _: "\0" * (MAX_SIGNATURE_BYTES + 1), lambda _: "[" * 100_000),
    ],
)
def test_forged_signature_is_refused(
    signed: Path, keys: KeyPair, forge: Callable[[Any], str]
) -> None:
    (signed / SIGNATURE).write_text(forge(content_of(signed)))

    with pytest.raises(SignatureInvalid, match=r"model\.sig: "):
        verify(signed, keys)
    with pytest.raises(Exception, match=r".*"):  # the library raises whatever comes
        oracle_verifies(signed, keys)


def test_hint_at_the_key_may_be_absent(signed: Path, keys: KeyPair) -> None:
    content = content_of(signed)
    del content["verificationMaterial"]["publicKey"]["hint"]
    (signed / SIGNATURE).write_text(json.dumps(content))

    verify(signed, keys)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_changed_signature_file_never_raises_anything_else(
    signed: Path, keys: KeyPair, data: st.DataObject
) -> None:
    kept = signed.parent / "original.sig"  # one folder for all examples
    if not kept.exists():
        kept.write_bytes((signed / SIGNATURE).read_bytes())
    original = kept.read_bytes()
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (signed / SIGNATURE).write_bytes(content)

    try:
        verify(signed, keys)
    except SignatureInvalid:
        return
    # Only what nobody looks at may have changed: the same statement is signed.
    assert (
        content_of(signed)["dsseEnvelope"]["payload"]
        == json.loads(original)["dsseEnvelope"]["payload"]
    )


@pytest.mark.parametrize("serialization", ["shards", "blake3"])
def test_signature_over_anything_but_whole_files_is_refused(
    tmp_path: Path, keys: KeyPair, serialization: str
) -> None:
    folder = fruit_bundle(tmp_path).path
    files = hashing.Config()
    if serialization == "shards":
        files.use_shard_serialization(shard_size=1000)
    else:
        files.use_file_serialization(hashing_algorithm="blake3")
    signer = signing.Config().set_hashing_config(files.set_ignored_paths(paths=[SIGNATURE]))
    signer.use_elliptic_key_signer(private_key=keys.private).sign(folder, folder / SIGNATURE)

    with pytest.raises(SignatureInvalid, match="signs no whole files by SHA-256"):
        verify(folder, keys)


def test_file_in_place_of_the_folder_is_refused(signed: Path, keys: KeyPair) -> None:
    with pytest.raises(SignatureInvalid, match=r"cannot be read \(Not a directory\)"):
        verify(signed / "model.onnx", keys)


@pytest.mark.parametrize("kind", ["a link", "a folder"])
def test_link_or_folder_in_place_of_the_signature_is_refused(
    signed: Path, keys: KeyPair, kind: str
) -> None:
    elsewhere = (signed / SIGNATURE).rename(signed.parent / "elsewhere.sig")
    if kind == "a link":
        (signed / SIGNATURE).symlink_to(elsewhere)
    else:
        (signed / SIGNATURE).mkdir()

    with pytest.raises(SignatureInvalid, match="is no plain file"):
        verify(signed, keys)


def sign_statement(folder: Path, keys: KeyPair, change: Callable[[Any], object]) -> None:
    """Sign what the library would not write, by the trusted key itself."""
    content = content_of(folder)
    statement = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    kind = b"application/vnd.in-toto+json"
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    private: Any = serialization.load_pem_private_key(keys.private.read_bytes(), None)
    signature = private.sign(encoded, ec.ECDSA(hashes.SHA256()))
    content["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    content["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    (folder / SIGNATURE).write_text(json.dumps(content))


def test_key_that_stands_twice_in_a_signature_is_refused_by_its_name(
    signed: Path, keys: KeyPair
) -> None:
    path = signed / SIGNATURE
    path.write_text(path.read_text().replace('"payload"', '"payload": "", "payload"', 1))

    with pytest.raises(SignatureInvalid, match='the key "payload" stands twice'):
        verify(signed, keys)


def test_key_that_stands_twice_in_a_statement_is_refused_by_its_name(
    signed: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps = json.dumps
    monkeypatch.setattr(
        json, "dumps", lambda each: dumps(each).replace('"_type"', '"_type": 1, "_type"')
    )
    sign_statement(signed, keys, lambda _: None)
    monkeypatch.undo()

    with pytest.raises(SignatureInvalid, match='the key "_type" stands twice'):
        verify(signed, keys)


def test_signature_larger_than_it_may_be_is_refused(signed: Path, keys: KeyPair) -> None:
    (signed / SIGNATURE).write_bytes(b" " * (MAX_SIGNATURE_BYTES + 1))

    with pytest.raises(SignatureInvalid, match=r"larger than 1,048,576 bytes"):
        verify(signed, keys)


def test_fifo_that_takes_the_place_of_a_signed_file_is_refused_at_once(
    signed: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(folder: Path) -> list[Path]:
        """List the files, and let one of them be another thing a moment later."""
        found = list(_files(folder))
        (folder / "model.onnx").unlink()
        os.mkfifo(folder / "model.onnx")
        return found

    monkeypatch.setattr("service.bundle.signatures._files", replace)

    with pytest.raises(SignatureInvalid, match=r"model\.onnx.* cannot be read \(no regular file\)"):
        verify(signed, keys)


def name_a_file_twice(statement: Any) -> None:
    resources = statement["predicate"]["resources"]
    resources.append(resources[0])
    digests = b"".join(bytes.fromhex(each["digest"]) for each in resources)
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(digests).hexdigest()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (name_a_file_twice, "names a file twice"),
        (
            lambda statement: statement["subject"][0]["digest"].update(sha256="00" * 32),
            "its digest is not that of the files it names",
        ),
        (
            lambda statement: statement.update(predicateType="https://slsa.dev/provenance/v1"),
            "signs no whole files by SHA-256",
        ),
        (
            lambda statement: statement["predicate"]["resources"].clear(),
            "signs no whole files by SHA-256",
        ),
    ],
    ids=["a file twice", "another digest", "another predicate", "no files"],
)
def test_statement_of_another_kind_is_refused_though_a_trusted_key_signed_it(
    signed: Path, keys: KeyPair, change: Callable[[Any], object], said: str
) -> None:
    sign_statement(signed, keys, lambda _: None)
    verify(signed, keys)

    sign_statement(signed, keys, change)

    with pytest.raises(SignatureInvalid, match=said):
        verify(signed, keys)


def public_bytes(key: Any) -> bytes:
    content: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"rubbish", id="no PEM"),
        pytest.param(public_bytes(ed25519.Ed25519PrivateKey.generate()), id="another algorithm"),
        pytest.param(public_bytes(ec.generate_private_key(ec.SECP256K1())), id="another curve"),
    ],
)
def test_file_that_is_no_key_is_named(signed: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pub").write_bytes(content)

    with pytest.raises(TrustedKeyInvalid, match=r"DUNNO_TRUSTED_KEYS: .*bad\.pub: expected a pub"):
        TrustedKeys((tmp_path / "bad.pub",)).verify(signed)


def test_private_key_in_place_of_a_public_one_is_refused(signed: Path, keys: KeyPair) -> None:
    with pytest.raises(TrustedKeyInvalid, match="expected a public elliptic-curve key"):
        TrustedKeys((keys.private,)).verify(signed)


def test_key_that_is_not_there_is_named(signed: Path, tmp_path: Path) -> None:
    with pytest.raises(TrustedKeyInvalid, match=r"gone\.pub: cannot be read \(No such file"):
        TrustedKeys((tmp_path / "gone.pub",)).verify(signed)


def test_manifest_that_changes_after_the_check_is_refused(signed: Path, keys: KeyPair) -> None:
    class SwappingKeys(TrustedKeys):
        """Somebody changes the manifest between the check and the reading."""

        def verify(self, folder: Path) -> Any:
            found = TrustedKeys.verify(self, folder)
            flip_a_bit(folder / "manifest.json")
            return found

    with pytest.raises(SignatureInvalid, match="has changed since its signature was checked"):
        open_bundle(signed, SwappingKeys((keys.public,)))
