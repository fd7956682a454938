"""A canary is judged by requests that were assigned by weight and have the usual deadline."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from bundles import fruit_bundle
from conftest import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from waiting import wait_for

from service.api.hotpath import HotProtocol
from service.prediction.rollback import Finding, Rollback, find_fault
from service.settings import Settings
from service.telemetry.recent import Recent

ENTRY = """
[models.fruit]
versions = ["1", "2"]
aliases = { next = "2" }
weights = { "1" = 0.6, "2" = 0.4 }
rollback = { errors = 0.5, dont_know = 0.5, rows = 100 }
"""
ROWS = [[9.0, 0.0, 0.0]]
TENSOR = {"name": "rows", "shape": [1, 3], "datatype": "FP32", "data": ROWS[0]}
INSTANCES = {"instances": ROWS}
INPUTS = {"inputs": [TENSOR]}


class Noted:
    """How many requests of both versions were recorded when they were last compared."""

    def __init__(self) -> None:
        self.looks = 0
        self.canary = self.default = 0

    def look(self, canary: Recent, default: Recent, rule: Rollback) -> Finding | None:
        self.canary, self.default = canary.requests, default.requests
        self.looks += 1
        return find_fault(canary, default, rule)

    def wait(self) -> None:
        """Wait until the requests that have ended by now were compared."""
        before = self.looks
        wait_for(lambda: self.looks > before + 1)

    def after(self, times: int, ask: Callable[[], int]) -> set[int]:
        """Send a request `times` times, wait, and return the statuses that came."""
        statuses = {ask() for _ in range(times)}
        self.wait()
        return statuses


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    found = Noted()
    monkeypatch.setattr("service.prediction.reloader.LOOK_AT_CANARIES_S", 0.01)
    monkeypatch.setattr("service.prediction.catalogue.find_fault", found.look)
    return found


@pytest.fixture(params=[HttpToolsProtocol, HotProtocol], ids=["asgi", "hot"])
def post(
    tmp_path: Path, noted: Noted, request: pytest.FixtureRequest
) -> Iterator[Callable[[str, object], int]]:
    for version in ("1", "2"):
        fruit_bundle(tmp_path, version=version)
    (tmp_path / "catalogue.toml").write_text(ENTRY)
    protocol: type[asyncio.Protocol] = request.param
    with (
        Server(Settings(models=tmp_path), protocol) as address,
        httpx.Client(base_url=address) as client,
    ):

        def ask(path: str, content: object) -> int:
            headers = {"content-type": "application/json"}
            return client.post(path, content=orjson.dumps(content), headers=headers).status_code

        noted.wait()
        yield ask


@pytest.mark.parametrize(
    ("path", "content"),
    [
        pytest.param("/predict/fruit", INSTANCES, id="native"),
        pytest.param("/predict/fruit?deadline_ms=60000", INSTANCES, id="native, long deadline"),
        pytest.param("/v1/models/fruit:predict", INSTANCES, id="v1"),
        pytest.param("/v2/models/fruit/infer", INPUTS, id="v2"),
        pytest.param("/invocations", INSTANCES, id="SageMaker"),
    ],
)
def test_requests_that_the_weights_assign_are_noted(
    post: Callable[[str, object], int], noted: Noted, path: str, content: object
) -> None:
    statuses = noted.after(40, lambda: post(path, content))

    assert statuses == {200}
    assert noted.canary + noted.default == 40
    assert noted.canary == pytest.approx(16, abs=4)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        pytest.param("/predict/fruit?version=2", INSTANCES, id="native"),
        pytest.param("/predict/fruit?alias=next", INSTANCES, id="native, by alias"),
        pytest.param("/v1/models/fruit/versions/2:predict", INSTANCES, id="v1"),
        pytest.param("/v1/models/fruit/labels/next:predict", INSTANCES, id="v1, by label"),
        pytest.param("/v2/models/fruit/versions/2/infer", INPUTS, id="v2"),
    ],
)
def test_requests_that_name_a_version_are_not_noted(
    post: Callable[[str, object], int], noted: Noted, path: str, content: object
) -> None:
    statuses = noted.after(10, lambda: post(path, content))

    assert statuses == {200}
    assert (noted.canary, noted.default) == (0, 0)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        pytest.param("/predict/fruit?deadline_ms=0.001", INSTANCES, id="native"),
        pytest.param("/v1/models/fruit:predict?deadline_ms=0.001", INSTANCES, id="v1"),
        pytest.param(
            "/v2/models/fruit/infer", {**INPUTS, "parameters": {"timeout": 1}}, id="v2, 1 us"
        ),
        pytest.param("/invocations?deadline_ms=0.001", INSTANCES, id="SageMaker"),
    ],
)
def test_requests_with_a_deadline_that_cannot_be_met_are_not_noted(
    post: Callable[[str, object], int], noted: Noted, path: str, content: object
) -> None:
    statuses = noted.after(10, lambda: post(path, content))

    assert statuses <= {429, 503, 504}
    assert (noted.canary, noted.default) == (0, 0)
