"""A server with trusted keys serves what was signed, whatever is put there later."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from bundles import fruit_bundle, fruit_graph, picture_bundle, write_catalogue
from click.testing import CliRunner, Result
from conftest import Server
from counting import value_at
from signing_keys import KeyPair, key_pair
from waiting import wait_for

from service.api.hotpath import HotProtocol
from service.bundle.signatures import SIGNATURE
from service.cli import main
from service.errors import SignatureInvalid
from service.prediction import load_catalogue
from service.settings import Settings, SettingsInvalid, read_settings
from service.telemetry.metrics import Metrics
from training.signing import sign_bundle

SURE = {"instances": [[9, 0, 0]]}


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return key_pair(tmp_path)


@pytest.fixture
def models(tmp_path: Path, keys: KeyPair) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    sign_bundle(fruit_bundle(folder).path, keys.private)
    return write_catalogue(folder, "fruit")


def trusting(models: Path, *keys: KeyPair, **more: float) -> Settings:
    trusted = tuple(pair.public for pair in keys)
    return Settings.model_validate({"models": models, "trusted_keys": trusted, **more})


def check(models: Path, monkeypatch: pytest.MonkeyPatch, trusted_keys: str | None) -> Result:
    monkeypatch.setenv("COLUMNS", "200")
    if trusted_keys is not None:
        monkeypatch.setenv("DUNNO_TRUSTED_KEYS", trusted_keys)
    return CliRunner().invoke(main, ["check", "--models", str(models)], catch_exceptions=False)


def unsigned(models: Path, keys: KeyPair) -> None:
    del keys
    fruit_bundle(models, version="2")


def signed_by_somebody_else(models: Path, keys: KeyPair) -> None:
    stranger = key_pair(keys.private.parent, "stranger")
    sign_bundle(fruit_bundle(models, version="2").path, stranger.private)


def tampered_with(models: Path, keys: KeyPair) -> None:
    """Everything but the signature agrees: the manifest has the new graph's checksum."""
    bundle = fruit_bundle(models, version="2")
    sign_bundle(bundle.path, keys.private)
    signature = (bundle.path / SIGNATURE).read_bytes()
    graph = fruit_graph(bundle, 9)
    facts = json.loads((bundle.path / "manifest.json").read_text())
    (bundle.path / "model.onnx").write_bytes(graph)
    facts["policy"]["novelty_alpha"] = 0.5
    (bundle.path / "manifest.json").write_text(json.dumps(facts))
    (bundle.path / SIGNATURE).write_bytes(signature)


@pytest.mark.parametrize("put", [unsigned, signed_by_somebody_else, tampered_with])
def test_bundle_that_no_trusted_key_signed_is_refused_and_the_old_version_serves_on(
    models: Path,
    keys: KeyPair,
    put: Callable[[Path, KeyPair], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(models.parent / "staging", keys)
    with Server(trusting(models, keys, watch_models_s=0.02), HotProtocol) as address:
        (models.parent / "staging" / "fruit" / "2").rename(models / "fruit" / "2")

        wait_for(lambda: httpx.get(f"{address}/models").json()["failures"])
        answer = httpx.post(f"{address}/predict/fruit", json=SURE).json()
        failures = httpx.get(f"{address}/models").json()["failures"]
        failed = value_at(address, "dunno_model_reloads_total", model="fruit", outcome="failed")
        state = value_at(address, "dunno_model_state", model="fruit", version="2", state="failed")

    assert (answer["version"], answer["predictions"][0]["label"]) == ("1", "apple")
    assert failures == [{"model": "fruit", "code": "signature_invalid"}]
    assert failed >= 1
    assert state == 1
    told = [record for record in caplog.records if record.getMessage() == "reload failed"]
    assert "model.sig: " in told[0].detail  # type: ignore[attr-defined]  # an extra


def test_signature_that_comes_later_is_noticed_if_told_to_watch(
    models: Path, keys: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO),
        Server(trusting(models, keys, watch_models_s=0.02), HotProtocol) as address,
    ):
        path = fruit_bundle(models, version="2").path
        wait_for(lambda: httpx.get(f"{address}/models").json()["failures"])

        fingerprint = sign_bundle(path, keys.private)

        wait_for(lambda: httpx.get(f"{address}/models").json()["models"][0]["version"] == "2")
        assert httpx.get(f"{address}/models").json()["failures"] == []
    (ready,) = [each for each in caplog.records if getattr(each, "version", None) == "2"]
    assert ready.signed_by == fingerprint  # type: ignore[attr-defined]  # an extra


def test_keys_change_without_a_new_start(models: Path, keys: KeyPair) -> None:
    new = key_pair(models.parent, "new")
    with Server(trusting(models, keys, watch_models_s=0.02), HotProtocol) as address:
        sign_bundle(fruit_bundle(models, version="2").path, new.private)
        wait_for(lambda: httpx.get(f"{address}/models").json()["failures"])

        shutil.copy(new.public, keys.public)
        (models / "catalogue.toml").touch()

        wait_for(lambda: httpx.get(f"{address}/models").json()["models"][0]["version"] == "2")


def test_server_with_trusted_keys_does_not_start_on_an_unsigned_bundle(
    models: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "fruit" / "1" / SIGNATURE).unlink()

    result = check(models, monkeypatch, str(keys.public))

    assert result.exit_code == 2
    assert "model.sig: there is none, and DUNNO_TRUSTED_KEYS asks for one" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_signed_bundle_in_the_folder_of_another_model_is_refused(
    models: Path, keys: KeyPair
) -> None:
    sign_bundle(picture_bundle(models).path, keys.private)
    shutil.rmtree(models / "fruit")
    (models / "picture").rename(models / "fruit")

    with pytest.raises(SignatureInvalid, match="what was signed is a version of 'picture'"):
        load_catalogue(trusting(models, keys), Metrics())


def test_check_says_that_every_bundle_is_signed(
    models: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = check(models, monkeypatch, f"{keys.public}, {keys.public}")

    assert result.exit_code == 0
    assert "signatures: every bundle is what one of the keys" in result.stdout


def test_check_says_that_signatures_are_not_looked_at(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "fruit" / "1" / SIGNATURE).write_text("rubbish")

    result = check(models, monkeypatch, None)

    assert result.exit_code == 0
    assert "signatures: not looked at, as DUNNO_TRUSTED_KEYS is not set" in result.stdout


@pytest.mark.parametrize("text", ["", " ", "maker.pub,"])
def test_empty_name_of_a_key_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DUNNO_TRUSTED_KEYS", text)

    with pytest.raises(
        SettingsInvalid, match="DUNNO_TRUSTED_KEYS: expected files, separated by commas"
    ):
        read_settings()
