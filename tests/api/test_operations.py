import httpx
import pytest
from counting import value

from service.app import compose
from service.prediction import Catalogue
from service.settings import Settings
from service.telemetry.exposition import TEXT, Format
from service.telemetry.metrics import Metrics


def test_process_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_who_needs_no_body_may_ask_for_the_head(client: httpx.Client, path: str) -> None:
    response = client.head(path)

    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.anyio
async def test_server_without_models_is_not_ready() -> None:
    app = compose(Catalogue({}), Settings(), Metrics())
    transport = httpx.ASGITransport(app)

    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/readyz")

    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "no models" in response.json()["detail"]


def test_models_are_listed_in_short(client: httpx.Client) -> None:
    models = client.get("/models").json()["models"]

    assert [each["name"] for each in models] == ["fruit", "picture", "review", "fruits"]
    assert models[0] == {
        "name": "fruit",
        "version": "2",
        "state": "available",
        "description": "made for tests",
        "kind": "features",
        "labels": ["apple", "pear", "plum"],
        "runtime": "onnx",
        "variant": None,
        "device": models[0]["device"],
    }


def test_model_is_described_with_its_policy(client: httpx.Client) -> None:
    model = client.get("/models/fruits?alias=stable").json()

    assert model["version"] == "1"
    assert model["versions"] == ["2", "1"]
    assert model["aliases"] == {"stable": "1"}
    assert [row["max_error"] for row in model["policy"]["table"]] == [0.001, 0.01, 0.05]
    assert model["policy"]["in_force"]["guarantee"] == "certified"
    assert [field["name"] for field in model["input"]["fields"]] == ["sweet", "sour", "firm"]
    assert "text/csv" in model["media_types"]


def test_unknown_model_has_no_description(client: httpx.Client) -> None:
    response = client.get("/models/nuts")

    assert response.status_code == 404
    assert response.json()["models"] == ["fruit", "picture", "review", "fruits"]


def test_unknown_route_is_a_problem(client: httpx.Client) -> None:
    response = client.get("/nowhere")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("instance", "outcome"),
    [([9, 0, 0], "answered"), ([1, 1, 1], "unknown"), ([1, 1], "invalid")],
)
def test_requests_are_counted_by_what_became_of_them(
    client: httpx.Client, instance: list[float], outcome: str
) -> None:
    labels = {"model": "fruit", "version": "2", "protocol": "native", "outcome": outcome}
    before = value(client, "dunno_requests_total", **labels)

    client.post("/predict/fruit", json={"instances": [instance]})

    assert value(client, "dunno_requests_total", **labels) == before + 1


def test_requests_for_models_that_are_not_there_share_one_series(client: httpx.Client) -> None:
    client.post("/predict/nuts", json={})

    text = client.get("/metrics").text
    assert 'model="_unknown"' in text
    assert "nuts" not in text


def test_verdicts_stages_and_batches_are_measured(client: httpx.Client) -> None:
    names = {
        "dunno_predictions_total": {"verdict": "dont_know", "reason": "low_confidence"},
        "dunno_confidence_count": {},
        "dunno_novelty_count": {},
        "dunno_batch_rows_count": {},
        "dunno_stage_duration_seconds_count": {"stage": "run"},
        "dunno_request_duration_seconds_count": {"outcome": "ok"},
    }
    before = {name: value(client, name, model="fruit", **more) for name, more in names.items()}

    client.post("/predict/fruit", json={"instances": [[1, 1, 1]]})

    after = {name: value(client, name, model="fruit", **more) for name, more in names.items()}
    assert after == {name: number + 1 for name, number in before.items()}


@pytest.mark.anyio
async def test_defect_behind_any_route_is_a_problem_with_an_id() -> None:
    class Broken(Metrics):
        def exposition(self, form: Format = TEXT) -> bytes:  # noqa: ARG002  a signature of ours
            raise RuntimeError("secret")

    app = compose(Catalogue({}), Settings(), Broken())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/metrics")

    assert response.status_code == 500
    assert response.json()["type"] == "urn:dunno:internal"
    assert "secret" not in response.text
