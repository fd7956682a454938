import sys
from pathlib import Path

import pytest
from bundles import fruit_bundle
from click.testing import CliRunner, Result
from signing_keys import KeyPair, key_pair

from service.bundle import TrustedKeys
from service.bundle.signatures import SIGNATURE
from training.signing import sign


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return key_pair(tmp_path)


def dunno_sign(*arguments: object, typed: str = "") -> Result:
    return CliRunner().invoke(
        sign, [str(each) for each in arguments], input=typed, catch_exceptions=False
    )


def test_sign_signs_several_bundles(tmp_path: Path, keys: KeyPair) -> None:
    folders = [fruit_bundle(tmp_path, version=version).path for version in ("1", "2")]

    result = dunno_sign(*folders, "--key", keys.private)

    trusted = TrustedKeys((keys.public,))
    fingerprint = trusted.verify(folders[0]).key
    assert result.stdout.splitlines() == [
        f"{folder / SIGNATURE}: signed by key {fingerprint}" for folder in folders
    ]
    assert trusted.verify(folders[1]).key == fingerprint


def test_signing_again_replaces_the_signature(tmp_path: Path, keys: KeyPair) -> None:
    folder = fruit_bundle(tmp_path).path
    other = key_pair(tmp_path, "other")
    dunno_sign(folder, "--key", other.private)

    dunno_sign(folder, "--key", keys.private)

    assert TrustedKeys((keys.public,)).verify(folder)
    assert [path.name for path in folder.iterdir() if "sig" in path.name] == [SIGNATURE]


def test_key_with_a_password_signs(tmp_path: Path) -> None:
    keys = key_pair(tmp_path, password="open sesame")
    folder = fruit_bundle(tmp_path).path

    refused = dunno_sign(folder, "--key", keys.private)
    wrong = dunno_sign(folder, "--key", keys.private, "--ask-password", typed="please\n")
    signed = dunno_sign(folder, "--key", keys.private, "--ask-password", typed="open sesame\n")

    assert (refused.exit_code, wrong.exit_code, signed.exit_code) == (2, 2, 0)
    assert "Password was not given" in refused.stderr
    assert "open sesame" not in signed.output
    assert TrustedKeys((keys.public,)).verify(folder)


def test_bundle_that_is_not_whole_is_not_signed(tmp_path: Path, keys: KeyPair) -> None:
    folder = fruit_bundle(tmp_path).path
    (folder / "model.onnx").write_bytes(b"x")

    result = dunno_sign(folder, "--key", keys.private)

    assert result.exit_code == 2
    assert "sha256 differs from the manifest" in result.stderr
    assert not (folder / SIGNATURE).exists()


def test_file_that_is_not_the_bundle_s_is_not_signed(tmp_path: Path, keys: KeyPair) -> None:
    folder = fruit_bundle(tmp_path).path
    (folder / "notes.txt").write_text("x")

    result = dunno_sign(folder, "--key", keys.private)

    assert result.exit_code == 2
    assert "the manifest lists no file 'notes.txt'" in result.stderr


@pytest.mark.parametrize("content", [None, b"rubbish"], ids=["no file", "no key"])
def test_key_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    folder, key = fruit_bundle(tmp_path).path, tmp_path / "bad.pem"
    if content is not None:
        key.write_bytes(content)

    result = dunno_sign(folder, "--key", key)

    assert result.exit_code == 2
    assert "cannot be signed" in result.stderr
    assert not (folder / SIGNATURE).exists()


def test_sign_without_the_extra_says_how_to_install_it(
    tmp_path: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)

    result = dunno_sign(fruit_bundle(tmp_path).path, "--key", keys.private)

    assert result.exit_code == 2
    assert "pip install -e '.[signing]'" in result.stderr
