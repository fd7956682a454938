"""Requests that are almost right: a few of each family, and those that once were answered wrongly.

`load_tests/fuzz.py` asks a million more.
"""

import asyncio
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from fuzz import Fuzz
from fuzz_inputs import FAMILIES
from fuzz_wire import Lane, Request, Response, Service, serving

from service.settings import Settings

CORPUS = Path(__file__).parents[1] / "corpus"
EXPECTED = tomllib.loads((CORPUS / "expected.toml").read_text())
ADMIN = {"method_of_admin", "admin_body_with_unknown_key", "admin_body_deep"}
PATIENCE_S = 10.0

pytestmark = [
    pytest.mark.anyio,
    # What Pillow says of broken pictures, pytest would make errors of.
    pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\."),
    pytest.mark.filterwarnings(r"ignore::RuntimeWarning:PIL\."),
]


@pytest.fixture
async def service(models: Path) -> AsyncIterator[Service]:
    settings = Settings(
        models=models,
        max_body_bytes=100_000,
        max_request_rows=200,
        max_picture_pixels=1_000_000,
        max_picture_side=2000,
        body_timeout_ms=300,
    )
    async with serving(settings) as service:
        yield service


async def ask(service: Service, content: bytes, lane: Lane) -> Response:
    connection = service.connect(lane)
    async with asyncio.timeout(PATIENCE_S):
        response = await connection.ask(Request("", raw=content))
    connection.hang_up()
    return response


def said(response: Response) -> str:
    """Return what a response says is wrong, or all of it."""
    if response.headers["content-type"] in ("application/json", "application/problem+json"):
        content = orjson.loads(response.body)
        if isinstance(content, dict) and response.status != 200:
            return str(content.get("detail") or content["error"])
    return response.body.decode("utf-8", "replace")


@pytest.mark.parametrize("family", EXPECTED)
async def test_every_request_of_the_corpus_gets_the_answer_that_it_should(
    service: Service, family: str
) -> None:
    for name, (status, text) in EXPECTED[family].items():
        content = (CORPUS / family / f"{name}.http").read_bytes()
        lanes: tuple[Lane, ...] = ("admin",) if name in ADMIN else ("hot", "general")
        for lane in lanes:
            response = await ask(service, content, lane)
            assert (response.status, text in said(response)) == (status, True), (
                f"{family}/{name}, {lane}: {response.status} {said(response)}"
            )


def test_every_file_of_the_corpus_is_asked() -> None:
    names = {f"{family}/{name}.http" for family, cases in EXPECTED.items() for name in cases}

    assert names == {str(path.relative_to(CORPUS)) for path in CORPUS.glob("*/*")}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
async def test_requests_that_are_almost_right_are_refused_or_answered(
    service: Service, family: str
) -> None:
    fuzz = Fuzz(service, seed=7, slow_s=PATIENCE_S)
    await fuzz.learn()

    await fuzz.block(family, 0)

    assert fuzz.findings == []
    assert fuzz.tallies[family].inputs > 0
