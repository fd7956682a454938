"""What headers every response has, and what pages of other origins may do."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import Server
from keys import WHOLE, bearer, write_keys
from many_callers import serving
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.hotpath import HotProtocol
from service.api.middleware import SAFE_HEADERS
from service.settings import Settings, SettingsInvalid, read_settings

ROW = {"instances": [[9, 0, 0]]}
PAGE, STRANGER = "https://shop.example", "https://thief.example"
SAFE = {name.decode(): value.decode() for name, value in SAFE_HEADERS}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict/fruit"),
        ("POST", "/predict/nuts"),
        ("GET", "/predict/fruit"),
        ("GET", "/models"),
        ("GET", "/nowhere"),
        ("GET", "/v1/models"),
        ("POST", "/v2/models/fruit/infer"),
        ("GET", "/ping"),
    ],
)
def test_every_response_has_the_safe_headers_once(
    client: httpx.Client, method: str, path: str
) -> None:
    response = client.request(method, path, json=ROW if method == "POST" else None)

    found = {name: response.headers.get_list(name) for name in SAFE}
    assert found == {name: [value] for name, value in SAFE.items()}
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("path", ["/docs", "/playground/style.css"])
def test_pages_are_framed_by_nobody_and_load_only_what_they_need(
    client: httpx.Client, path: str
) -> None:
    response = client.get(path)

    policy = response.headers["content-security-policy"]
    assert response.status_code == 200
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
    assert response.headers["referrer-policy"] == "no-referrer"


def test_response_does_not_tell_which_program_wrote_it(models: Path) -> None:
    with serving(models) as (_, address):
        answers = [
            httpx.post(f"{address}/predict/fruit", json=ROW),
            httpx.get(f"{address}/models"),
            httpx.get(f"{address}/nowhere"),
        ]

    assert [answer.headers.get("server") for answer in answers] == [None] * 3


@pytest.fixture(
    scope="module",
    params=[pytest.param(HttpToolsProtocol, id="asgi"), pytest.param(HotProtocol, id="hot")],
)
def shared(
    models: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[httpx.Client]:
    """Caller of a server that asks for keys and lets pages of one origin ask."""
    keys = write_keys(tmp_path_factory.mktemp("keys"))
    settings = Settings(models=models, keys=keys, cors_origins=(PAGE,))
    with Server(settings, request.param) as address, httpx.Client(base_url=address) as client:
        yield client


def ask(client: httpx.Client, origin: str, key: str = WHOLE) -> httpx.Response:
    headers = {**bearer(key), "Origin": origin}
    return client.post("/predict/fruit", json=ROW, headers=headers)


def test_page_of_a_named_origin_may_read_answers_without_cookies(shared: httpx.Client) -> None:
    response = ask(shared, PAGE)

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["vary"] == "origin"
    assert "x-request-id" in response.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in response.headers


def test_page_of_a_named_origin_may_read_why_it_is_refused(shared: httpx.Client) -> None:
    response = ask(shared, PAGE, "guess")

    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origin", [STRANGER, "null", f"{PAGE}.thief.example", PAGE.upper(), ""])
def test_page_of_another_origin_may_read_nothing(shared: httpx.Client, origin: str) -> None:
    response = ask(shared, origin)

    assert "access-control-allow-origin" not in response.headers


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    return client.options("/predict/fruit", headers=headers)


def test_browser_that_asks_first_is_told_without_a_key(shared: httpx.Client) -> None:
    response = preflight(shared, PAGE)

    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "authorization" in response.headers["access-control-allow-headers"]
    assert response.headers["x-content-type-options"] == "nosniff"


def test_browser_of_another_origin_that_asks_first_is_refused(shared: httpx.Client) -> None:
    response = preflight(shared, STRANGER)

    assert response.status_code == 401
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_no_page_of_another_origin_is_let_in_unless_it_is_named(client: httpx.Client) -> None:
    asked, first = ask(client, PAGE), preflight(client, PAGE)

    assert asked.status_code == 200
    assert first.status_code == 405
    assert not [name for name in (*asked.headers, *first.headers) if name.startswith("access")]


@pytest.mark.parametrize(
    "origins", ["*", "shop.example", "https://shop.example/", "null", f"{PAGE}, *", "https://*.de"]
)
def test_origin_that_is_not_exact_is_refused(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("DUNNO_CORS_ORIGINS", origins)

    with pytest.raises(SettingsInvalid, match="DUNNO_CORS_ORIGINS: expected origins such as"):
        read_settings()


def test_origins_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNNO_CORS_ORIGINS", "https://a.example, http://[::1]:8080,")

    assert read_settings().cors_origins == ("https://a.example", "http://[::1]:8080")


def test_pages_can_be_left_out(models: Path) -> None:
    with Server(Settings(models=models, docs_page=False), HotProtocol) as address:
        found = [httpx.get(f"{address}{path}").status_code for path in ("/docs",)]
        document = httpx.get(f"{address}/openapi.json")

    assert found == [404]
    assert document.status_code == 200
