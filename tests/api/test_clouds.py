"""What container platforms ask, against the routes themselves: their variables are parameters."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from bundles import fruit_bundle, picture_bundle, write_catalogue
from starlette.applications import Starlette

from service.api.fastlane import Fastlane
from service.api.middleware import RequestIds
from service.api.protocols import protocol_routes
from service.prediction import Catalogue, load_catalogue
from service.settings import Settings
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

APPLE, UNSURE = [9, 0, 0], [1, 1, 1]
VERTEX = {
    "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
    "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
}


def connect(
    settings: Settings, catalogue: Catalogue, metrics: Metrics, environment: dict[str, str]
) -> httpx.AsyncClient:
    app = Starlette()
    lane = Fastlane(RequestIds(app), catalogue, settings, metrics)
    app.router.routes.extend(protocol_routes(lane.resources, lane, environment))
    return httpx.AsyncClient(transport=httpx.ASGITransport(lane), base_url="http://test")


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A server of one model, as Vertex AI starts it."""
    fruit_bundle(tmp_path)
    settings, metrics = Settings(models=write_catalogue(tmp_path, "fruit")), Metrics()
    catalogue = load_catalogue(settings, metrics)
    catalogue.start()
    async with connect(settings, catalogue, metrics, VERTEX) as client:
        yield client
    await catalogue.close(1)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A server of two models, without a word which of them is meant."""
    fruit_bundle(tmp_path)
    picture_bundle(tmp_path)
    folder, metrics = write_catalogue(tmp_path, "fruit", "picture"), Metrics()
    settings = Settings(models=folder)
    catalogue = load_catalogue(settings, metrics)
    catalogue.start()
    async with connect(settings, catalogue, metrics, VERTEX) as client:
        yield client
    await catalogue.close(1)


async def test_vertex_gets_predictions_on_the_route_it_chose(alone: httpx.AsyncClient) -> None:
    response = await alone.post(
        VERTEX["AIP_PREDICT_ROUTE"], json={"instances": [APPLE], "parameters": {}}
    )

    assert response.status_code == 200, response.text
    assert list(response.json()) == ["predictions"]
    assert response.json()["predictions"][0][0] > 0.99


async def test_vertex_gets_health_on_the_route_it_chose(alone: httpx.AsyncClient) -> None:
    assert (await alone.get(VERTEX["AIP_HEALTH_ROUTE"])).json() == {"ready": True}


async def test_routes_of_vertex_take_one_method_each(alone: httpx.AsyncClient) -> None:
    wrong = [
        await alone.get(VERTEX["AIP_PREDICT_ROUTE"]),
        await alone.post(VERTEX["AIP_HEALTH_ROUTE"]),
    ]

    assert [response.headers["allow"] for response in wrong] == ["POST", "GET"]


@pytest.mark.parametrize("name", ["min_confidence", "confidenceThreshold"])
async def test_parameters_of_vertex_make_terms_stricter(
    alone: httpx.AsyncClient, name: str
) -> None:
    labels = []
    for least in (0.95, 0.99):
        parameters = {name: least, "verdict": True}
        content = {"instances": [[6, 1, 1]], "parameters": parameters}
        response = await alone.post(VERTEX["AIP_PREDICT_ROUTE"], json=content)
        labels.append(response.json()["verdicts"][0]["label"])

    assert labels == ["apple", None]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"instances": [APPLE], "parameters": {"maxPredictions": 1}}, "maxPredictions"),
        ({"instances": [APPLE], "parameters": {"max_error": "low"}}, "above 0"),
        ({"instances": [APPLE], "parameters": 7}, "an object"),
        ({"inputs": [APPLE]}, "instances"),
    ],
)
async def test_bad_request_of_vertex_is_refused(
    alone: httpx.AsyncClient, content: object, expected: str
) -> None:
    response = await alone.post(VERTEX["AIP_PREDICT_ROUTE"], json=content)

    assert response.status_code == 400
    assert expected in response.json()["error"]


async def test_routes_of_vertex_are_there_only_if_it_says_so(tmp_path: Path) -> None:
    client = connect(Settings(models=tmp_path), Catalogue({}), Metrics(), {})

    response = await client.post("/v1/endpoints/1/deployedModels/2:predict", json={})

    assert response.status_code == 400
    assert response.json()["error"].startswith("Malformed request")


async def test_sagemaker_is_told_when_models_are_ready(alone: httpx.AsyncClient) -> None:
    assert (await alone.get("/ping")).status_code == 200
    assert (await alone.post("/ping")).status_code == 405


async def test_sagemaker_is_told_when_there_are_no_models(tmp_path: Path) -> None:
    client = connect(Settings(models=tmp_path), Catalogue({}), Metrics(), {})

    assert (await client.get("/ping")).status_code == 503


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"instances": [[9, 0, 0]]}'),
        ("text/csv", b"sweet,sour,firm\n9,0,0\n"),
    ],
)
async def test_sagemaker_sends_any_body_of_the_native_route(
    alone: httpx.AsyncClient, content_type: str, body: bytes
) -> None:
    headers = {"content-type": content_type, "x-request-id": "mine-1"}

    response = await alone.post("/invocations", content=body, headers=headers)

    assert response.status_code == 200, response.text
    assert response.json()["predictions"][0]["label"] == "apple"
    assert response.headers.get_list("x-request-id") == ["mine-1"]
    assert response.headers.get_list("cache-control") == ["no-store"]


@pytest.mark.parametrize("path", ["/invocations", VERTEX["AIP_PREDICT_ROUTE"]])
async def test_path_without_a_name_needs_a_default_among_several_models(
    two: httpx.AsyncClient, path: str
) -> None:
    response = await two.post(path, json={"instances": [APPLE]})

    assert response.status_code == 404
    assert "DUNNO_DEFAULT_MODEL" in response.json()["error"]


async def test_default_model_is_meant_where_a_path_names_none(tmp_path: Path) -> None:
    fruit_bundle(tmp_path)
    picture_bundle(tmp_path)
    folder, metrics = write_catalogue(tmp_path, "picture", "fruit"), Metrics()
    settings = Settings(models=folder, default_model="fruit")
    catalogue = load_catalogue(settings, metrics)
    catalogue.start()

    async with connect(settings, catalogue, metrics, VERTEX) as client:
        response = await client.post(VERTEX["AIP_PREDICT_ROUTE"], json={"instances": [UNSURE]})
    await catalogue.close(1)

    assert len(response.json()["predictions"][0]) == 3
