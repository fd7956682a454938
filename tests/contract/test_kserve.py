"""KServe's own client, in an environment of its own: it needs other versions of many packages."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bundles import fruit_bundle, write_catalogue
from many_callers import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-kserve" / "bin" / "python"
LIKELY = 0.99


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the client made of each answer."""
    if not PYTHON.exists() and "DUNNO_CHECK" not in os.environ:
        pytest.skip("`make check` installs KServe's client")
    models = tmp_path_factory.mktemp("models")
    fruit_bundle(models)
    write_catalogue(models, "fruit")
    script = Path(__file__).with_name("kserve_client.py")
    with serving(models) as (_, address):
        asked = subprocess.run(  # noqa: S603  our own command
            [PYTHON, script, address, "fruit"], capture_output=True, check=True, timeout=60
        )
    content: dict[str, Any] = json.loads(asked.stdout)
    return content


@pytest.mark.parametrize(
    "question", ["v1 live", "v1 model ready", "v2 live", "v2 ready", "v2 model ready"]
)
def test_client_of_kserve_finds_server_and_model_ready(
    found: dict[str, Any], question: str
) -> None:
    assert found[question] is True


@pytest.mark.parametrize("question", ["v1 predictions", "v2 json", "v2 binary"])
def test_client_of_kserve_gets_the_probabilities_of_each_row(
    found: dict[str, Any], question: str
) -> None:
    first, second = found[question]

    assert first[0] > LIKELY
    assert second[1] > LIKELY
