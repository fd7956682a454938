"""The address of metrics: what is answered there, and what is not answered elsewhere any more."""

import logging
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import Server
from connections import PATIENCE_S
from keys import WHOLE, bearer, write_keys
from many_callers import serving

from service.api.hotpath import HotProtocol
from service.api.probes import create_metrics
from service.prediction import load_catalogue
from service.settings import Settings, SettingsInvalid, read_settings
from service.telemetry.metrics import Metrics

WITHOUT = ("/models", "/docs", "/openapi.json", "/v1/models", "/v2")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.mark.parametrize("has_keys", [False, True], ids=["without keys", "with keys"])
def test_metrics_have_an_address_of_their_own_and_are_not_on_the_other_one(
    models: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    has_keys: bool,  # noqa: FBT001  a case
) -> None:
    caplog.set_level(logging.INFO)
    keys = write_keys(tmp_path) if has_keys else None
    with Server(Settings(models=models, metrics_port=0, keys=keys), HotProtocol) as address:
        found = re.search(r"metrics address (http://127\.0\.0\.1:\d+)", caplog.text)
        assert found
        with httpx.Client(base_url=found.group(1)) as client:
            scraped = client.get("/metrics")
            probes = [client.get(path).status_code for path in ("/livez", "/readyz")]
            others = [client.get(path).status_code for path in WITHOUT]
            predicted = client.post("/predict/fruit", json={"instances": [[9, 0, 0]]})
        elsewhere = httpx.get(f"{address}/metrics", headers=bearer(WHOLE))
        still = httpx.get(f"{address}/readyz")

    assert "dunno_build_info" in scraped.text
    assert scraped.headers["x-content-type-options"] == "nosniff"
    assert probes == [200, 200]
    assert others == [404] * len(WITHOUT)
    assert predicted.status_code == 404
    assert elsewhere.status_code == (403 if has_keys else 404)
    assert still.status_code == 200


@pytest.mark.parametrize(
    ("host", "metrics_host", "statuses"),
    [
        pytest.param("127.0.0.1", "0.0.0.0", (421, 200), id="metrics are open"),  # noqa: S104
        pytest.param("0.0.0.0", "127.0.0.1", (200, 421), id="models are open"),  # noqa: S104
    ],
)
def test_host_is_looked_at_on_loopback_addresses_only(
    models: Path,
    caplog: pytest.LogCaptureFixture,
    host: str,
    metrics_host: str,
    statuses: tuple[int, int],
) -> None:
    caplog.set_level(logging.INFO)
    settings = Settings(models=models, host=host, metrics_host=metrics_host, metrics_port=0)
    with Server(settings, HotProtocol) as address:
        found = re.search(r"metrics address http://[\d.]+:(\d+)", caplog.text)
        assert found
        asked = (f"{address}/models", f"http://127.0.0.1:{found.group(1)}/metrics")
        headers = {"Host": "node1.example.com"}

        assert tuple(httpx.get(url, headers=headers).status_code for url in asked) == statuses


@pytest.mark.anyio
@pytest.mark.parametrize("has_keys", [False, True], ids=["without keys", "with keys"])
async def test_readiness_on_the_metrics_address_is_status_503_before_models_take_rows(
    models: Path,
    has_keys: bool,  # noqa: FBT001  a case
) -> None:
    metrics = Metrics()
    catalogue = load_catalogue(Settings(models=models), metrics)
    app = create_metrics(catalogue, metrics, None, has_keys=has_keys)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/readyz")

    assert answer.status_code == 503
    assert ("fruit" in answer.json()["detail"]) != has_keys


def pids(text: str) -> set[str]:
    return set(re.findall(r"dunno_process_id{.*} (\S+)", text))


@pytest.mark.slow
def test_any_worker_tells_the_metrics_of_all_on_their_address(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    monkeypatch.setenv("DUNNO_METRICS_PORT", str(port))
    with serving(models) as (process, address):
        for _ in range(1000):
            found = _scrape(port)
            if len(found) == 2:
                break
        elsewhere = httpx.get(f"{address}/metrics")
        process.terminate()

        assert process.wait(PATIENCE_S * 4) == 0
    assert len(found) == 2
    assert elsewhere.status_code == 404


def _scrape(port: int) -> set[str]:
    try:
        return pids(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    except httpx.TransportError:
        return set()  # no worker is there yet


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_address_of_metrics_that_is_taken_is_one_sentence_and_exit_code_two(
    models: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("DUNNO_WORKERS", workers)
    monkeypatch.setenv("DUNNO_LOG_LEVEL", "error")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("DUNNO_METRICS_PORT", str(port))
        stopped = subprocess.run(  # noqa: S603  our own command
            [sys.executable, "-m", "service.cli", "serve", "--models", str(models), "--port", "0"],
            capture_output=True,
            timeout=30,
            check=False,
        )

    assert stopped.returncode == 2
    message = f"dunno: DUNNO_METRICS_HOST, DUNNO_METRICS_PORT: cannot listen on 127.0.0.1:{port}: "
    assert stopped.stderr.decode().startswith(message)
    assert stopped.stderr.count(b"\n") == 1


@pytest.mark.parametrize("workers", [2, "auto"])
def test_free_port_for_metrics_needs_a_single_worker(workers: object) -> None:
    with pytest.raises(SettingsInvalid, match="DUNNO_METRICS_PORT=0 needs DUNNO_WORKERS=1"):
        read_settings(metrics_port=0, workers=workers)

    assert read_settings(metrics_port=9000, workers=workers).metrics_port == 9000
