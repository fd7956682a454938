"""The gate in front of everything, by both ways that requests go."""

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bundles import fruit_bundle, write_catalogue
from conftest import Server
from connections import PATIENCE_S, Connection, request
from counting import value
from fastapi import FastAPI
from keys import ENTRIES, NARROW, NEXT, RARE, SCRAPER, WHOLE, bearer, write_keys
from starlette.routing import BaseRoute, Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.fastlane import Fastlane
from service.api.gate import PAGES, PROBES, Gate
from service.api.hotpath import HotProtocol
from service.api.keys import digest_of
from service.api.middleware import RequestIds
from service.app import create_app
from service.settings import Settings

ROW = {"instances": [[9, 0, 0]]}
PROTOCOLS = [pytest.param(HttpToolsProtocol, id="asgi"), pytest.param(HotProtocol, id="hot")]


def serving_keys(models: Path, folder: Path, protocol: type[HotProtocol]) -> Iterator[httpx.Client]:
    settings = Settings(models=models, keys=write_keys(folder), default_model="review")
    with Server(settings, protocol) as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture(scope="module", params=PROTOCOLS)
def guarded(
    models: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[httpx.Client]:
    """Caller of a server that asks for keys; the caller shows none by himself."""
    yield from serving_keys(models, tmp_path_factory.mktemp("keys"), request.param)


@pytest.fixture(params=PROTOCOLS)
def fresh(models: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """The same of a server that nobody has asked before."""
    yield from serving_keys(models, tmp_path, request.param)


def plain_routes(routes: list[BaseRoute]) -> Iterator[Route]:
    """Yield routes, also those of the routers that FastAPI has included."""
    for route in routes:
        if isinstance(route, Route):
            yield route
        else:
            yield from plain_routes(vars(route)["original_router"].routes)


def routes_of(models: Path, tmp_path: Path) -> list[tuple[str, str]]:
    """Return method and path of all that the whole service has routes for."""
    gate = create_app(Settings(models=models, keys=write_keys(tmp_path)))
    assert isinstance(gate, Gate)
    assert isinstance(gate.app, Fastlane)
    assert isinstance(gate.app.app, RequestIds)
    app = gate.app.app.app
    assert isinstance(app, FastAPI)
    routes = list(plain_routes(app.routes))
    found = [
        (method, re.sub(r"{rest:path}", rest, re.sub(r"{\w+}", "fruit", route.path)))
        for route in routes
        for method in route.methods or ("GET", "POST", "PUT", "DELETE", "OPTIONS")
        for rest in ("models", "models/fruit", "models/fruit:predict", "models/fruit/infer", "x")
    ]
    return [*dict.fromkeys(found), ("POST", "/predict/fruit"), ("GET", "/predict/fruit")]


@pytest.mark.anyio
async def test_every_route_but_probes_and_pages_refuses_who_shows_no_key(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/vertex/predict")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
    routes = routes_of(models, tmp_path)
    app = create_app(Settings(models=models, keys=write_keys(tmp_path)))
    transport = httpx.ASGITransport(app)

    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        statuses = {route: (await client.request(*route)).status_code for route in routes}

    probes = PROBES | {"/vertex/health"}
    answered = {route for route, status in statuses.items() if status != 401}
    assert {"/vertex/predict", "/models/fruit", "/docs", "/metrics", "/invocations"} <= {
        path for _, path in routes
    }
    # Whether they answer 200 or, not started, 503.
    open_paths = {path for _, path in routes if path in probes or path.startswith(PAGES)}
    assert "/playground/fruit" in open_paths
    assert answered == {
        (method, path)
        for method, path in routes
        if path in open_paths and method in ("GET", "HEAD")
    }


def test_probes_need_no_key(guarded: httpx.Client) -> None:
    found = {path: guarded.get(path).status_code for path in sorted(PROBES)}

    assert found == dict.fromkeys(PROBES, 200)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": "Bearer"}, id="no key"),
        pytest.param(bearer("guess"), id="another"),
        pytest.param({"X-API-Key": digest_of(WHOLE)}, id="the digest"),
        pytest.param({"Authorization": f"Basic {WHOLE}"}, id="another scheme"),
        pytest.param(bearer(WHOLE.upper()), id="other letters"),
    ],
)
def test_request_without_a_key_of_ours_is_status_401_whatever_is_wrong_with_it(
    guarded: httpx.Client, headers: dict[str, str]
) -> None:
    response = guarded.post("/predict/fruit", json=ROW, headers=headers)

    content = response.json()
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert content["type"] == "urn:dunno:unauthorised"
    assert content["detail"] == "expected Authorization: Bearer <key> or X-API-Key: <key>"
    assert content["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/models/fruit:predict", "/v2/models/fruit/infer", "/v2"])
def test_other_protocols_are_refused_in_their_own_words(guarded: httpx.Client, path: str) -> None:
    response = guarded.post(path, json=ROW)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize("key", [WHOLE, NEXT], ids=["key of today", "key of tomorrow"])
def test_both_live_keys_of_a_name_are_let_in(guarded: httpx.Client, key: str) -> None:
    assert guarded.post("/predict/fruit", json=ROW, headers=bearer(key)).status_code == 200
    shown = {"X-API-Key": key}
    assert guarded.post("/v1/models/fruit:predict", json=ROW, headers=shown).status_code == 200


def asked(client: httpx.Client, method: str, path: str, key: str) -> tuple[int, dict[str, Any]]:
    body = ROW if method == "POST" else None
    response = client.request(method, path, headers=bearer(key), json=body)
    content: dict[str, Any] = response.json()
    content.pop("request_id", None)
    return response.status_code, content


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict/{}"),
        ("GET", "/models/{}"),
        ("GET", "/v1/models/{}"),
        ("GET", "/v1/models/{}/metadata"),
        ("POST", "/v1/models/{}:predict"),
        ("GET", "/v2/models/{}"),
        ("GET", "/v2/models/{}/ready"),
        ("GET", "/v2/models/{}/stats"),
        ("POST", "/v2/models/{}/infer"),
    ],
)
def test_model_outside_of_a_keys_list_is_as_unknown_as_one_that_is_not_there(
    guarded: httpx.Client, method: str, path: str
) -> None:
    status, forbidden = asked(guarded, method, path.format("review"), NARROW)
    _, unknown = asked(guarded, method, path.format("nuts"), NARROW)

    assert status == 404
    assert "picture" not in str(forbidden)
    assert str(forbidden).replace("review", "nuts") == str(unknown)


def test_lists_have_the_models_of_the_key_only(guarded: httpx.Client) -> None:
    names = bearer(NARROW)

    native = guarded.get("/models", headers=names).json()["models"]
    first = guarded.get("/v1/models", headers=names).json()
    index = guarded.post("/v2/repository/index", headers=names).json()
    stats = guarded.get("/v2/models/stats", headers=names).json()["model_stats"]

    assert [each["name"] for each in native] == ["fruit"]
    assert first == {"models": ["fruit"]}
    assert [each["name"] for each in index] == ["fruit"]
    assert [each["name"] for each in stats] == ["fruit"]


def test_default_model_that_a_key_does_not_know_is_none_for_it(guarded: httpx.Client) -> None:
    whole = guarded.post("/invocations", content="good", headers=bearer(WHOLE))
    narrow = guarded.post("/invocations", json=ROW, headers=bearer(NARROW))

    assert whole.status_code == 415  # a review, which is text
    assert narrow.json()["model"] == "fruit"  # the only one there is for this key


def test_key_that_asks_too_often_is_status_429_with_when_it_may_again(
    fresh: httpx.Client,
) -> None:
    statuses = [
        fresh.post("/predict/fruit", json=ROW, headers=bearer(RARE)).status_code for _ in range(2)
    ]
    response = fresh.post("/predict/fruit", json=ROW, headers=bearer(RARE))

    assert statuses == [200, 200]
    assert response.status_code == 429
    assert response.json()["type"] == "urn:dunno:rate_exceeded"
    # One in a thousand seconds, of which few have passed since the first.
    assert 900 <= int(response.headers["retry-after"]) <= 1000
    other = fresh.get("/v2/models/fruit", headers=bearer(RARE))
    assert (other.status_code, list(other.json())) == (429, ["error"])


def test_requests_are_counted_by_key_and_refusals_by_cause(fresh: httpx.Client) -> None:
    fresh.headers.update(bearer(SCRAPER))  # of whoever reads the metrics
    native = {"model": "_unknown", "protocol": "native"}
    for key in (WHOLE, RARE, RARE, RARE, "guess"):
        fresh.post("/predict/fruit", json=ROW, headers=bearer(key))

    name = "dunno_key_requests_total"
    assert value(fresh, name, key="whole", outcome="ok") == 1
    assert value(fresh, name, key="rare", outcome="ok") == 2
    assert value(fresh, name, key="rare", outcome="limited") == 1
    assert value(fresh, "dunno_requests_total", outcome="unauthorised", **native) == 1
    assert value(fresh, "dunno_requests_total", outcome="limited", **native) == 1
    assert value(fresh, "dunno_rejections_total", model="_unknown", cause="rate") == 1
    series = fresh.get("/metrics").text
    assert 'dunno_rejections_total{cause="concurrency",model="_unknown"} 0.0' in series
    assert "guess" not in series


def test_metrics_need_a_key_that_is_for_them(guarded: httpx.Client) -> None:
    assert guarded.get("/metrics").status_code == 401
    for path in ("/metrics", "/metrics%0A"):
        assert guarded.get(path, headers=bearer(WHOLE)).status_code == 403
    assert guarded.get("/metrics", headers=bearer(SCRAPER)).status_code == 200
    assert guarded.post("/predict/fruit", json=ROW, headers=bearer(SCRAPER)).status_code == 404


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lines_of_the_log_name_the_key_and_never_show_it(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: type[HotProtocol]
) -> None:
    caplog.set_level(logging.INFO)
    path = write_keys(tmp_path)
    settings = Settings(models=models, keys=path, access_log=True, slow_request_ms=0.001)
    with Server(settings, protocol) as address, httpx.Client(base_url=address) as client:
        client.post("/predict/fruit", json=ROW, headers=bearer(WHOLE))
        client.post("/v1/models/fruit:predict", json=ROW, headers=bearer(NARROW))
        client.post("/predict/fruit", json=ROW, headers=bearer("guess"))

    lines = [
        (record.message, getattr(record, "key", None))
        for record in caplog.records
        if record.message in ("request", "slow request")
    ]
    assert lines == [
        *(("slow request", "whole"), ("request", "whole")),
        *(("slow request", "narrow"), ("request", "narrow")),
        ("request", None),
    ]
    everything = "".join(str(vars(record)) for record in caplog.records)
    assert not [key for key in (WHOLE, NARROW, "guess") if key in everything]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_slow_request_is_logged_with_the_name_of_its_key(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: type[HotProtocol]
) -> None:
    settings = Settings(models=models, keys=write_keys(tmp_path), slow_request_ms=0.001)
    with Server(settings, protocol) as address:
        httpx.post(f"{address}/predict/fruit", json=ROW, headers=bearer(NEXT))

    (line,) = [record for record in caplog.records if record.message == "slow request"]
    assert vars(line)["key"] == "whole"


def test_refused_caller_can_go_on_with_his_connection(models: Path, tmp_path: Path) -> None:
    settings = Settings(models=models, keys=write_keys(tmp_path))
    with Server(settings, HotProtocol) as address:
        connection = Connection(address)
        connection.send(request(), request(Authorization=f"Bearer {WHOLE}"), request())
        statuses = [connection.response()[0] for _ in range(3)]
        connection.close()

    assert statuses == [401, 200, 401]


@pytest.fixture
def own_models(tmp_path: Path) -> Path:
    fruit_bundle(tmp_path)
    return write_catalogue(tmp_path, "fruit")


@pytest.fixture
def addresses(own_models: Path, caplog: pytest.LogCaptureFixture) -> Iterator[tuple[str, str]]:
    """Of a service that asks for keys and of its admin."""
    caplog.set_level(logging.INFO)
    settings = Settings(models=own_models, keys=write_keys(own_models), admin_port=0)
    with Server(settings, HotProtocol) as address:
        found = re.search(r"admin address (\S+)", caplog.text)
        assert found
        yield address, found.group(1)


def status_with(address: str, key: str) -> int:
    return httpx.post(f"{address}/predict/fruit", json=ROW, headers=bearer(key)).status_code


def test_keys_come_and_go_with_a_reload(addresses: tuple[str, str], own_models: Path) -> None:
    data, admin = addresses
    before = status_with(data, WHOLE), status_with(data, "young")
    write_keys(own_models, young=f'sha256 = ["{digest_of("young")}"]')

    response = httpx.post(f"{admin}/reload")

    assert before == (200, 401)
    assert response.status_code == 200
    assert (status_with(data, WHOLE), status_with(data, "young")) == (401, 200)


def test_file_of_keys_that_cannot_be_used_leaves_the_old_keys_and_says_so(
    addresses: tuple[str, str], own_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, admin = addresses
    write_keys(own_models, young="sha256 = 3")

    response = httpx.post(f"{admin}/reload")

    assert response.status_code == 500
    assert "keys.young.sha256" in response.json()["detail"]
    assert "reload failed" in caplog.text
    assert (status_with(data, WHOLE), status_with(data, "young")) == (200, 401)


def test_bad_catalogue_does_not_keep_a_key_in_force(
    addresses: tuple[str, str], own_models: Path
) -> None:
    data, admin = addresses
    (own_models / "catalogue.toml").write_text("rubbish")
    write_keys(own_models, narrow=ENTRIES["narrow"])

    response = httpx.post(f"{admin}/reload")

    assert response.status_code == 500
    assert (status_with(data, WHOLE), status_with(data, NARROW)) == (401, 200)


def test_changed_keys_are_noticed_if_told_to_watch(own_models: Path) -> None:
    path = write_keys(own_models)
    settings = Settings(models=own_models, keys=path, watch_models_s=0.01)
    with Server(settings, HotProtocol) as address:
        until_s = time.monotonic() + PATIENCE_S
        while status_with(address, "young") == 401:
            assert time.monotonic() < until_s
            write_keys(own_models, young=f'sha256 = ["{digest_of("young")}"]')

        assert status_with(address, WHOLE) == 401
