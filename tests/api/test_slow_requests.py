"""Requests that took too long are told of, whichever way they went."""

from pathlib import Path

import httpx
import pytest
from conftest import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.hotpath import HotProtocol
from service.settings import Settings

ROW = {"instances": [[9, 0, 0]]}
STAGES = {"decode_s", "queue_s", "run_s", "decide_s", "encode_s"}


@pytest.mark.parametrize(
    ("path", "http"),
    [
        pytest.param("/predict/fruit", HotProtocol, id="hot"),
        pytest.param("/predict/fruit", HttpToolsProtocol, id="asgi"),
        pytest.param("/v1/models/fruit:predict", HotProtocol, id="v1"),
    ],
)
def test_slow_request_is_logged_with_its_stages(
    models: Path, caplog: pytest.LogCaptureFixture, path: str, http: type[HttpToolsProtocol]
) -> None:
    with Server(Settings(models=models, slow_request_ms=0.0001), http) as address:
        httpx.post(f"{address}{path}", json=ROW, headers={"X-Request-ID": "late"})

    (told,) = [record for record in caplog.records if record.message == "slow request"]
    assert told.__dict__.keys() >= STAGES
    assert (told.__dict__["request_id"], told.__dict__["model"]) == ("late", "fruit")


def test_nothing_is_slow_unless_the_operator_says_so(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(Settings(models=models), HotProtocol) as address:
        httpx.post(f"{address}/predict/fruit", json=ROW)

    assert "slow request" not in caplog.text
