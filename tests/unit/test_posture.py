"""What `dunno check` says of how open a server is."""

from pathlib import Path
from typing import Any

import pytest
from bundles import fruit_bundle, write_catalogue
from keys import ENTRIES, write_keys

from service.posture import Finding, find_posture
from service.settings import Settings

WIDE = "0.0.0.0"  # noqa: S104  this is what is looked for


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    fruit_bundle(folder)
    write_catalogue(folder, "fruit")
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o022)
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir(mode=0o700)
    return write_keys(folder, whole=ENTRIES["whole"])


def finding(part: str, models: Path, **settings: Any) -> Finding:
    """Return the only finding that begins so."""
    findings = find_posture(Settings(models=models, **settings), {})
    (found,) = [each for each in findings if each.text.startswith(part)]
    return found


def test_wide_address_without_keys_is_unsafe_unless_it_is_meant(models: Path, keys: Path) -> None:
    assert finding("listening on 127.0.0.1", models).level == "ok"
    assert finding("listening on 0.0.0.0", models, host=WIDE).level == "UNSAFE"
    meant = finding("listening on 0.0.0.0", models, host=WIDE, allow_anonymous=True)
    assert meant.level == "warning"
    assert finding("listening on 0.0.0.0", models, host=WIDE, keys=keys).level == "ok"


@pytest.mark.parametrize(
    ("mode", "level"), [(0o600, "ok"), (0o640, "warning"), (0o620, "UNSAFE"), (0o602, "UNSAFE")]
)
def test_file_of_keys_that_others_write_is_unsafe(
    models: Path, keys: Path, mode: int, level: str
) -> None:
    keys.chmod(mode)

    assert finding("keys: ", models, keys=keys).level == level


def test_file_of_keys_in_a_folder_that_others_write_is_unsafe(models: Path, keys: Path) -> None:
    keys.parent.chmod(0o777)

    assert finding("keys: ", models, keys=keys).level == "UNSAFE"


def test_key_for_a_model_that_is_not_served_is_told(models: Path, keys: Path) -> None:
    write_keys(keys.parent, narrow=ENTRIES["narrow"].replace("fruit", "nuts"))

    found = finding("keys.narrow.models", models, keys=keys)

    assert found == ("warning", "keys.narrow.models: 'nuts' is not in the catalogue")


@pytest.mark.parametrize("mode", [0o775, 0o757], ids=["group", "others"])
@pytest.mark.parametrize("place", [".", "catalogue.toml", "fruit", "fruit/1", "fruit/1/model.onnx"])
def test_folder_of_models_that_others_write_is_unsafe(models: Path, place: str, mode: int) -> None:
    (models / place).chmod(mode)

    found = finding("models: ", models)

    assert found.level == "UNSAFE"
    assert found.text.endswith(f"may write {models / place}")


def test_folder_of_models_for_its_owner_is_safe(models: Path) -> None:
    assert finding("models: ", models).level == "ok"


def test_metrics_for_everybody_are_warned_of(models: Path, keys: Path) -> None:
    assert finding("metrics: ", models).level == "ok"
    assert finding("metrics: ", models, host=WIDE).level == "warning"
    assert finding("metrics: ", models, host=WIDE, keys=keys).level == "ok"
    assert finding("metrics: ", models, host=WIDE, metrics_port=9000).level == "ok"
    opened = {"metrics_port": 9000, "metrics_host": WIDE}
    assert finding("metrics: ", models, **opened).level == "warning"


def test_admin_address_is_told(models: Path) -> None:
    assert "no such address" in finding("admin: ", models).text
    assert "every user of this machine" in finding("admin: ", models, admin_port=8001).text
    with_key = finding("admin: ", models, admin_port=8001, admin_host=WIDE, admin_key="k" * 16)
    assert with_key == ("ok", "admin: 0.0.0.0:8001: callers show DUNNO_ADMIN_KEY")


def test_pages_for_everybody_are_noted(models: Path) -> None:
    assert finding("pages: ", models).level == "ok"
    assert finding("pages: ", models, host=WIDE).level == "note"
    assert finding("pages: ", models, host=WIDE, docs_page=False).level == "ok"
    shop = finding("pages: ", models, cors_origins=("https://shop.example",))
    assert "pages of https://shop.example" in shop.text


def test_unknown_variable_is_part_of_the_posture(models: Path) -> None:
    findings = find_posture(Settings(models=models), {"DUNNO_PROT": "1"})

    assert findings[-1].level == "warning"
    assert "DUNNO_PROT is no setting" in findings[-1].text
