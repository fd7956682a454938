"""`dunno train` and `dunno evaluate`: what they say when something is missing."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from training.cli import data_folder, evaluate, train


def test_unknown_recipe_ends_with_one_sentence() -> None:
    result = CliRunner().invoke(train, ["nonesuch"])

    assert result.exit_code == 1
    assert "no recipe 'nonesuch'; there are:" in result.stderr
    assert "Traceback" not in result.output


def test_missing_bundle_ends_with_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(evaluate, ["wine", "--models", str(tmp_path)])

    assert result.exit_code == 1
    assert "manifest.json: cannot be read" in result.stderr
    assert "Traceback" not in result.output


def test_missing_data_end_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy where nobody listens stands for a machine without network.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    result = CliRunner().invoke(
        train, ["wine", "--data", str(tmp_path), "--work", str(tmp_path / "build")]
    )

    assert result.exit_code == 1
    assert "winequality-red.csv" in result.stderr
    assert str(tmp_path / "wine") in result.stderr


def test_without_the_extra_it_says_how_to_install_it() -> None:
    blocked = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['pooch'] = None;"
        "from training.cli import train; train(['wine'])"
    )

    result = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", blocked],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )

    assert result.returncode == 2
    assert result.stderr.strip().endswith("pip install -e '.[training]'")
    assert "Traceback" not in result.stderr


def test_help_needs_no_tensorflow() -> None:
    asked = "from training.cli import train; import sys; assert 'tensorflow' not in sys.modules"

    result = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", asked],
        check=False,
        cwd=Path(__file__).parents[2],
    )

    assert result.returncode == 0


def test_data_folder_is_the_named_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNNO_DATA", "/elsewhere")

    assert data_folder() == Path("/elsewhere")


def test_data_folder_without_a_name_is_below_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DUNNO_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    assert data_folder() == Path("data")
