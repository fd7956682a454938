"""The admin address: who may use it, and what it does to the other one."""

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import tritonclient.http as triton
from bundles import fruit_bundle
from conftest import Server
from tritonclient.utils import InferenceServerException

from service.api.admin import MOST_BODY_BYTES, create_admin
from service.api.hotpath import HotProtocol
from service.prediction import Reloader, load_catalogue
from service.settings import Settings
from service.telemetry.metrics import Metrics

KEY = "a key of sixteen"
ROW = {"instances": [[9, 0, 0]]}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in ("1", "2"):
        fruit_bundle(tmp_path, version=version)
    (tmp_path / "catalogue.toml").write_text('[models.fruit]\nversions = ["1"]\n')
    return tmp_path


@pytest.fixture
def addresses(models: Path, caplog: pytest.LogCaptureFixture) -> Iterator[tuple[str, str]]:
    """Of the service and of its admin."""
    caplog.set_level(logging.INFO)
    with Server(Settings(models=models, admin_port=0), HotProtocol) as address:
        found = re.search(r"admin address (\S+)", caplog.text)
        assert found
        yield address, found.group(1)


@pytest.fixture
def service(addresses: tuple[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=addresses[0]) as client:
        yield client


@pytest.fixture
def admin(addresses: tuple[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=addresses[1]) as client:
        yield client


def version_of(service: httpx.Client) -> object:
    return service.post("/predict/fruit", json=ROW).json().get("version")


def use_version_two(models: Path) -> None:
    (models / "catalogue.toml").write_text('[models.fruit]\nversions = ["2"]\n')


def test_reload_switches_versions_for_callers_who_asked_before(
    service: httpx.Client, admin: httpx.Client, models: Path
) -> None:
    assert version_of(service) == "1"
    use_version_two(models)

    response = admin.post("/reload")

    assert response.json() == {"models": {"fruit": ["2"]}}
    assert version_of(service) == "2"


def test_model_is_unloaded_and_loaded_by_the_client_of_triton(
    service: httpx.Client, addresses: tuple[str, str], models: Path
) -> None:
    client = triton.InferenceServerClient(urlsplit(addresses[1]).netloc)
    use_version_two(models)

    client.unload_model("fruit")
    refused = service.post("/predict/fruit", json=ROW)
    without = client.get_model_repository_index()
    client.load_model("fruit")

    assert refused.status_code == 404
    assert without == []
    assert [model["version"] for model in client.get_model_repository_index()] == ["2"]
    assert version_of(service) == "2"
    with pytest.raises(InferenceServerException, match="config"):
        client.load_model("fruit", config="{}")
    client.close()


def test_index_lists_what_is_served_and_what_failed(admin: httpx.Client, models: Path) -> None:
    with (models / "catalogue.toml").open("a") as file:
        file.write("[models.nuts]\n")
    admin.post("/reload")
    ready = {"name": "fruit", "version": "1", "state": "READY", "reason": ""}

    whole = admin.post("/v2/repository/index").json()
    short = admin.post("/v2/repository/index", content=b'{"ready": true}').json()

    assert whole[0] == ready
    assert (whole[1]["name"], whole[1]["state"]) == ("nuts", "UNAVAILABLE")
    assert "holds no version" in whole[1]["reason"]
    assert short == [ready]


def test_version_that_fails_is_told_to_the_operator_and_named_to_everybody(
    service: httpx.Client, admin: httpx.Client, models: Path
) -> None:
    (models / "fruit" / "2" / "model.onnx").write_bytes(b"rubbish")
    use_version_two(models)

    response = admin.post("/reload")

    assert response.status_code == 500
    assert response.json()["models"] == ["fruit"]
    assert "sha256 differs" in response.json()["error"]
    assert version_of(service) == "1"
    listed = service.get("/models").json()
    assert listed["failures"] == [{"model": "fruit", "code": "bundle_corrupt"}]
    assert listed["models"][0]["state"] == "available"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("models/fruit/load", b'{"parameters": {"config": "{}"}}', 400, id="config"),
        pytest.param(
            "models/fruit/load", b'{"parameters": {"file:1/model.onnx": "AA=="}}', 400, id="file"
        ),
        pytest.param("models/fruit/unload", b'{"force": true}', 400, id="unknown key"),
        pytest.param("models/fruit/load", b"[]", 400, id="no object"),
        pytest.param("models/fruit/load", b"{", 400, id="no json"),
        pytest.param("models/fruit/load", b" " * 70_000, 413, id="too large"),
        pytest.param("models/nuts/load", b"", 404, id="unknown model"),
        pytest.param("models/nuts/unload", b"", 404, id="model that is not served"),
        pytest.param("models/fruit/burn", b"", 404, id="unknown verb"),
    ],
)
def test_admin_request_that_asks_for_more_is_refused(
    admin: httpx.Client, path: str, body: bytes, status: int
) -> None:
    response = admin.post(f"/v2/repository/{path}", content=body)

    assert response.status_code == status
    assert response.json()["error"]
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_admin_request_of_another_method_is_told_the_right_one(admin: httpx.Client) -> None:
    response = admin.get("/reload")

    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_web_page_may_not_reload(admin: httpx.Client) -> None:
    response = admin.post("/reload", headers={"Origin": "http://127.0.0.1"})

    assert response.status_code == 403


def test_other_address_neither_loads_nor_reloads(service: httpx.Client) -> None:
    for path in ("/reload", "/v2/repository/models/fruit/unload"):
        assert service.post(path).status_code == 404


def test_admin_address_that_is_taken_is_one_sentence_and_exit_code_two(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stopped = subprocess.run(  # noqa: S603  our own command
            [sys.executable, "-m", "service.cli", "serve", "--models", str(models), "--port", "0"],
            env={**os.environ, "DUNNO_ADMIN_PORT": str(port), "DUNNO_LOG_LEVEL": "error"},
            capture_output=True,
            timeout=30,
            check=False,
        )

    assert stopped.returncode == 2
    message = f"dunno: DUNNO_ADMIN_HOST, DUNNO_ADMIN_PORT: cannot listen on 127.0.0.1:{port}: "
    assert stopped.stderr.decode().startswith(message)
    assert stopped.stderr.count(b"\n") == 1


def test_admin_body_that_is_too_large_is_refused(admin: httpx.Client) -> None:
    response = admin.post("/reload", content=b" " * (MOST_BODY_BYTES + 1))

    assert response.status_code == 413
    assert "65,536 bytes" in response.json()["error"]


@pytest.fixture
async def guarded(models: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings.model_validate({"models": models, "admin_port": 0, "admin_key": KEY})
    metrics = Metrics()
    catalogue = load_catalogue(settings, metrics)
    app = create_admin(catalogue, Reloader(catalogue, settings, metrics), settings)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


@pytest.mark.anyio
@pytest.mark.parametrize(
    "shown", ["", "Bearer", f"Bearer {KEY} ", "Bearer another", f"Basic {KEY}"]
)
async def test_caller_without_the_key_is_refused(guarded: httpx.AsyncClient, shown: str) -> None:
    response = await guarded.post("/v2/repository/index", headers={"Authorization": shown})

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert KEY not in response.text


@pytest.mark.anyio
async def test_caller_with_the_key_is_let_in(guarded: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}

    assert (await guarded.post("/v2/repository/index", headers=headers)).status_code == 200
