"""The pages for people: what a browser gets, and what everybody else still gets."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.pages import FOLDER
from service.app import compose
from service.prediction import Catalogue
from service.settings import Settings
from service.telemetry.metrics import Metrics

FILES = sorted(FOLDER.iterdir())
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
MOST_LINES = 400


def test_browser_gets_the_playground(client: httpx.Client) -> None:
    response = client.get("/", headers=BROWSER)

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "playground/playground.js" in response.text


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_who_does_not_ask_for_a_page_is_told_that_the_server_is_alive(
    client: httpx.Client, accept: str
) -> None:
    response = client.get("/", headers={"accept": accept})

    assert response.json() == {"status": "alive"}
    assert response.headers["vary"] == "accept"


@pytest.mark.parametrize("path", ["/", "/docs", "/playground/style.css"])
def test_pages_come_with_a_strict_policy(client: httpx.Client, path: str) -> None:
    headers = client.get(path, headers=BROWSER).headers

    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_of_the_pages_is_served(client: httpx.Client, path: Path) -> None:
    response = client.get(f"/playground/{path.name}")

    assert response.content == path.read_bytes()
    assert response.headers.get_list("cache-control") == ["no-cache"]


def test_file_that_has_not_changed_is_not_sent_again(client: httpx.Client) -> None:
    etag = client.get("/playground/style.css").headers["etag"]

    response = client.get("/playground/style.css", headers={"if-none-match": etag})

    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == etag


@pytest.mark.parametrize("path", ["/", "/docs", "/playground/style.css"])
def test_head_of_a_page_has_no_body(client: httpx.Client, path: str) -> None:
    response = client.head(path, headers=BROWSER)

    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 0


@pytest.mark.parametrize(
    "name",
    [
        *(
            "nothing.js",
            "",
            "../pages.py",
            "..%2fpages.py",
            "%2e%2e/pages.py",
            "a%2f..%2fstyle.css",
        ),
        *("/etc/passwd", "style.css%00", "STYLE.CSS", "__pycache__"),
    ],
)
def test_other_names_are_not_found(client: httpx.Client, name: str) -> None:
    response = client.get(f"/playground/{name}")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pages_need_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")

    assert re.findall(r"https?:|//[a-z]+\.|@import|\burl\(", text) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pages_hold_no_code_in_attributes_and_no_model_by_name(path: Path) -> None:
    text = path.read_text()

    assert (
        re.findall(r"<script>|<style|\sstyle=|\son\w+=\"|javascript:|innerHTML|eval\(", text) == []
    )
    assert re.findall(r"mnist|imdb|wine|iris|titanic|fashion", text) == []
    assert len(text.splitlines()) <= MOST_LINES


@pytest.fixture
async def without_playground() -> AsyncIterator[httpx.AsyncClient]:
    app = compose(Catalogue({}), Settings(playground=False), Metrics())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.anyio
async def test_playground_can_be_switched_off(without_playground: httpx.AsyncClient) -> None:
    response = await without_playground.get("/", headers=BROWSER)
    script = await without_playground.get("/playground/playground.js")

    assert response.json() == {"status": "alive"}
    assert script.status_code == 404


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changes", "path", "link"),
    [
        ({"playground": False}, "/docs", "Playground</a>"),
        ({"docs_page": False}, "/", 'href="docs"'),
    ],
)
async def test_page_has_no_link_to_one_that_is_left_out(
    changes: dict[str, Any], path: str, link: str
) -> None:
    async def page(settings: Settings) -> str:
        transport = httpx.ASGITransport(compose(Catalogue({}), settings, Metrics()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.get(path, headers=BROWSER)).text

    assert link in await page(Settings())
    assert link not in await page(Settings(**changes))


@pytest.mark.anyio
async def test_reference_is_there_without_the_playground(
    without_playground: httpx.AsyncClient,
) -> None:
    names = ["reference.html", *imported("reference.html", set())]

    statuses = [(await without_playground.get(f"/playground/{each}")).status_code for each in names]

    assert (await without_playground.get("/docs")).status_code == 200
    assert len(names) > 4
    assert statuses == [200] * len(names)


def imported(name: str, seen: set[str]) -> set[str]:
    """Return the files that a file needs, and those that they need."""
    text = (FOLDER / name).read_text()
    for found in re.findall(r'(?:"playground/|from "\./)([\w.]+)"', text):
        if found not in seen:
            seen.add(found)
            imported(found, seen)
    return seen


def test_examples_of_a_model_are_its_golden_rows_with_their_verdicts(client: httpx.Client) -> None:
    examples = client.get("/models/fruit?examples=true").json()["examples"]

    instances = [example["instance"] for example in examples]
    told = client.post("/predict/fruit", json={"instances": instances}).json()["predictions"]
    facts = ("verdict", "label", "reason")
    assert len(examples) == 8
    assert {example["verdict"] for example in examples} == {"answer", "dont_know"}
    assert [[row[fact] for fact in facts] for row in told] == [
        [example[fact] for fact in facts] for example in examples
    ]


def test_examples_are_told_to_those_who_ask_for_them(client: httpx.Client) -> None:
    assert "examples" not in client.get("/models/fruit").json()


def test_description_tells_whether_a_request_may_be_looser(client: httpx.Client) -> None:
    looser = [
        client.get(f"/models/{name}").json()["policy"]["allow_looser"]
        for name in ("fruit", "fruits")
    ]

    assert looser == [False, True]
