"""Lines of TensorFlow Serving's own documents, typed as they stand there, for a model of ours."""

import json
import subprocess
from typing import Any

import pytest
from tools import needs_curl

pytestmark = needs_curl


def typed(line: str, address: str) -> Any:
    """Return what a line for the shell prints."""
    line = line.replace("http://localhost:8501", address)
    command = ["bash", "-c", line.replace("curl ", "curl --silent --show-error ", 1)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)  # noqa: S603


def test_model_status(address: str) -> None:
    (status,) = typed("curl http://localhost:8501/v1/models/fruit", address)["model_version_status"]

    assert status["state"] == "AVAILABLE"
    assert status["status"] == {"error_code": "OK", "error_message": ""}


def test_model_metadata(address: str) -> None:
    found = typed("curl http://localhost:8501/v1/models/fruit/metadata", address)

    assert "serving_default" in found["metadata"]["signature_def"]["signature_def"]


@pytest.mark.parametrize("version", ["", "/versions/2"])
def test_predict(address: str, version: str) -> None:
    line = (
        """curl -d '{"instances": [[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]}' """
        f"-X POST http://localhost:8501/v1/models/fruit{version}:predict"
    )

    first, second = typed(line, address)["predictions"]

    assert (first.index(max(first)), second.index(max(second))) == (0, 1)


def test_classify(address: str) -> None:
    line = (
        """curl -d '{"signature_name": "serving_default", """
        """"examples": [{"sweet": 9.0, "sour": 0.0, "firm": 0.0}]}' """
        "-X POST http://localhost:8501/v1/models/fruit:classify"
    )

    (row,) = typed(line, address)["results"]

    assert max(row, key=lambda pair: pair[1])[0] == "apple"


def test_regress_says_why_not(address: str) -> None:
    line = (
        """curl -d '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}]}' """
        "-X POST http://localhost:8501/v1/models/fruit:regress"
    )

    assert "predict or classify" in typed(line, address)["error"]
