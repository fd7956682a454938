"""The OpenAPI document: what it says of models, failures and keys, and whether it is true."""

import base64
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jsonschema_rs
import numpy as np
import pytest
from bundles import fruit_bundle, review_bundle, write_catalogue
from conftest import ROOT, Server
from fastapi.routing import APIRoute
from keys import NARROW, WHOLE, bearer, write_keys
from PIL import Image
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from service.api import catalogue, probes
from service.api.gate import PROBES
from service.api.hotpath import HotProtocol
from service.api.openapi import failures
from service.api.options import OPTIONS
from service.api.problems import STATUS
from service.errors import DunnoError, code_of_kind
from service.settings import Settings

Json = dict[str, Any]
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/bmp": "BMP"}
VERTEX = "/v1/vertex"


class Asked(NamedTuple):
    """A request example of the document, and where it belongs."""

    path: str
    name: str
    media_type: str
    example: Json
    answer: Json
    """The documented response of status 200."""


@pytest.fixture(scope="module", params=["toys", "repository"])
def served(models: Path, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """Caller of a server of small models of every kind, then of the repository's own."""
    folder = models if request.param == "toys" else ROOT / "models"
    default = "fruit" if request.param == "toys" else ""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIP_PREDICT_ROUTE", VERTEX)
        environment.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
        server = Server(Settings(models=folder, default_model=default), HotProtocol)
    with server as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Json]]:
    """Reads the document of a server that asks for keys, with one of them."""
    keys = write_keys(tmp_path_factory.mktemp("keys"))
    settings = Settings(models=models, keys=keys)
    with Server(settings, HotProtocol) as address, httpx.Client(base_url=address) as client:
        yield lambda key: read(client, bearer(key))


def read(client: httpx.Client, headers: dict[str, str] | None = None) -> Json:
    response = client.get("/openapi.json", headers=headers)
    assert response.status_code == 200
    content: Json = response.json()
    return content


def followed(part: Json, document: Json) -> Json:
    """Return what a part stands for."""
    if "$ref" in part:
        found: Any = document
        for name in part["$ref"].split("/")[1:]:
            found = found[name]
        return followed(found, document)
    return part


def operations(document: Json) -> list[tuple[str, str, Json]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def asked(document: Json) -> list[Asked]:
    """Return every example of a request."""
    return [
        Asked(
            *(path, name, media_type, followed(example, document)),
            followed(operation["responses"]["200"], document),
        )
        for _, path, operation in operations(document)
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items()
        for name, example in content.get("examples", {}).items()
    ]


def refusal_of(schema: Json, value: object, document: Json) -> str | None:
    """Return what a schema of the document says against a value."""
    whole = {"components": document["components"], **schema}
    error = next(iter(jsonschema_rs.Draft202012Validator(whole).iter_errors(value)), None)
    return None if error is None else str(error)[:300]


def fault_of(each: Asked, client: httpx.Client, document: Json) -> str | None:
    """Post an example and return what is wrong with the answer."""
    value = each.example["value"]
    body = {"content": value.encode()} if isinstance(value, str) else {"json": value}
    response = post(each, client, document, **body)
    if response.status_code != 200:
        return f"{each.path} {each.name}: {response.text}"
    schema = each.answer["content"]["application/json"]["schema"]
    refusal = refusal_of(schema, response.json(), document)
    return refusal and f"{each.path} {each.name}: {refusal}"


def post(each: Asked, client: httpx.Client, document: Json, **body: Any) -> httpx.Response:
    path = each.path.replace("{model}", model_of(each, document))
    return client.post(path, headers={"Content-Type": each.media_type}, **body)


def model_of(each: Asked, document: Json) -> str:
    """Return the model of an example: the longest name that its own begins with."""
    (names,) = [
        parameter["examples"]
        for parameter in document["paths"]["/models/{model}"]["get"]["parameters"]
        if parameter.get("in") == "path"
    ]
    found: str = max((name for name in names if each.name.startswith(f"{name}-")), key=len)
    return found


def codes_of(document: Json) -> set[str]:
    """Return the codes of all problems that some operation may have."""
    return {
        followed(example, document)["value"]["type"].removeprefix("urn:dunno:")
        for _, _, operation in operations(document)
        for response in operation["responses"].values()
        for content in [followed(response, document).get("content", {})]
        for example in content.get("application/problem+json", {}).get("examples", {}).values()
    }


def test_document_is_valid_openapi(served: httpx.Client) -> None:
    errors = [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(read(served))]

    assert errors == []


def test_document_with_keys_is_valid_openapi(guarded: Callable[[str], Json]) -> None:
    errors = [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(guarded(WHOLE))]

    assert errors == []


def test_every_example_of_a_request_is_answered_as_the_document_says(
    served: httpx.Client,
) -> None:
    document = read(served)
    told = [each for each in asked(document) if "value" in each.example]

    faults = [fault_of(each, served, document) for each in told]

    assert [fault for fault in faults if fault] == []
    paths = {each.path for each in told}
    assert {"/predict/{model}", "/v1/models/{model}:predict", "/v2/models/{model}/infer"} <= paths


def test_example_that_tells_its_verdict_gets_it(served: httpx.Client) -> None:
    document = read(served)
    told = [
        (each, re.fullmatch(r".*; (answered '(.*)'|don't know: (.*))", each.example["summary"]))
        for each in asked(document)
        if each.path == "/predict/{model}" and "value" in each.example
    ]

    said = {each.name: (found[2], found[3]) for each, found in told if found is not None}
    got = {
        each.name: verdict_of(each, served, document) for each, found in told if found is not None
    }

    assert said == got
    assert len(said) > 3


def verdict_of(each: Asked, client: httpx.Client, document: Json) -> tuple[str, str]:
    value = each.example["value"]
    body = {"content": value.encode()} if isinstance(value, str) else {"json": value}
    (row,) = post(each, client, document, **body).json()["predictions"]
    return row["label"], row["reason"]


def test_every_kind_of_body_that_a_model_takes_has_an_example(served: httpx.Client) -> None:
    document = read(served)
    examples = [each for each in asked(document) if each.path == "/predict/{model}"]
    names = [model["name"] for model in served.get("/models").json()["models"]]

    told = {
        name: {each.media_type for each in examples if model_of(each, document) == name}
        for name in names
    }

    taken = {name: set(served.get(f"/models/{name}").json()["media_types"]) for name in names}
    assert told == taken


def test_files_that_examples_tell_of_are_answered(served: httpx.Client) -> None:
    document = read(served)
    of_files = [
        each
        for each in asked(document)
        if each.path == "/predict/{model}" and "value" not in each.example
    ]

    statuses = {
        (
            each.name,
            post(each, served, document, content=file_of(each, served, document)).status_code,
        )
        for each in of_files
        if each.media_type != "multipart/form-data"
    }

    assert {status for _, status in statuses} == {200}
    assert all(each.example["description"] for each in of_files)


def file_of(each: Asked, client: httpx.Client, document: Json) -> bytes:
    """Return bytes of the kind that an example tells of."""
    described = client.get(f"/models/{model_of(each, document)}", params={"examples": True}).json()
    rows = np.array([example["instance"] for example in described["examples"]], np.float32)
    content = io.BytesIO()
    if each.media_type in FORMATS:
        Image.fromarray(rows[0].astype(np.uint8)).save(content, FORMATS[each.media_type])
    else:
        np.save(content, rows)
    return content.getvalue()


def test_examples_are_small(served: httpx.Client) -> None:
    document = read(served)

    sizes = [len(str(each.example.get("value", ""))) for each in asked(document)]

    assert max(sizes) < 20_000
    assert max(len(each.example["summary"]) for each in asked(document)) < 200


def test_picture_in_base64_is_a_png(served: httpx.Client) -> None:
    encoded = [
        each.example["value"]["instances"][0]["b64"]
        for each in asked(read(served))
        if each.path == "/predict/{model}" and each.name.endswith("-json-b64")
    ]

    formats = {Image.open(io.BytesIO(base64.b64decode(text))).format for text in encoded}

    assert formats == {"PNG"}


def test_answers_are_told_of_each_verdict_and_of_a_row_that_cannot_be_read(
    served: httpx.Client,
) -> None:
    document = read(served)
    told = document["paths"]["/predict/{model}"]["post"]["responses"]["200"]["content"]
    examples = [followed(each, document) for each in told["application/json"]["examples"].values()]
    rows = [row for each in examples for row in each["value"]["predictions"]]

    schema = {"$ref": "#/components/schemas/PredictResponse"}
    refusals = [refusal_of(schema, each["value"], document) for each in examples]

    assert set(refusals) == {None}
    reasons = {row["reason"] for row in rows if "verdict" in row}
    assert {None, "ambiguous", "low_confidence"} <= reasons
    assert ("out_of_distribution" in reasons) == has_novelty_gate(served)
    assert {row["error"]["code"] for row in rows if "error" in row} == {"input_invalid"}


def has_novelty_gate(client: httpx.Client) -> bool:
    names = [model["name"] for model in client.get("/models").json()["models"]]
    policies = [client.get(f"/models/{name}").json()["policy"] for name in names]
    return any(policy["in_force"]["novelty_alpha"] > 0 for policy in policies)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"verdict": "answer", "label": None}, id="answer without a label"),
        pytest.param({"verdict": "dont_know", "reason": None}, id="no reason"),
        pytest.param({"verdict": "perhaps"}, id="another verdict"),
    ],
)
def test_schema_of_a_row_refuses_what_is_never_answered(client: httpx.Client, row: Json) -> None:
    document = read(client)
    answer = client.post("/predict/fruit", json={"instances": [[9, 0, 0]]}).json()
    schema = {"$ref": "#/components/schemas/PredictResponse"}

    assert refusal_of(schema, answer, document) is None
    answer["predictions"][0] |= row
    assert refusal_of(schema, answer, document)


@pytest.mark.parametrize("path", ["/models", "/models/{model}"])
def test_descriptions_of_models_are_as_the_document_says(served: httpx.Client, path: str) -> None:
    document = read(served)
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    names = [model["name"] for model in served.get("/models").json()["models"]]

    answers = [
        served.get(path.replace("{model}", name), params={"examples": True} if "{" in path else {})
        for name in names
    ]

    assert {refusal_of(schema["schema"], each.json(), document) for each in answers} == {None}


def test_every_failure_of_the_table_is_documented_by_its_code(
    guarded: Callable[[str], Json],
) -> None:
    document = guarded(WHOLE)
    bundles = document["components"]["schemas"]["ModelFailure"]["properties"]["code"]["enum"]
    bases = {DunnoError, *DunnoError.__subclasses__()}

    documented = codes_of(document) | set(bundles)

    assert {code_of_kind(each) for each in STATUS if each not in bases} <= documented


def test_problems_are_documented_under_their_status(guarded: Callable[[str], Json]) -> None:
    document = guarded(WHOLE)
    found = {
        (status, example["value"]["status"])
        for _, _, operation in operations(document)
        for status, response in operation["responses"].items()
        for content in [followed(response, document).get("content", {})]
        for each in content.get("application/problem+json", {}).get("examples", {}).values()
        for example in [followed(each, document)]
    }

    assert len(found) > 10
    assert {(status, number) for status, number in found if status != str(number)} == set()


def test_examples_of_problems_are_problems(guarded: Callable[[str], Json]) -> None:
    document = guarded(WHOLE)
    schema = {"$ref": "#/components/schemas/Problem"}
    values = [each["value"] for each in document["components"]["examples"].values()]
    problems = [value for value in values if "type" in value]

    assert len(problems) > 15
    assert {refusal_of(schema, each, document) for each in problems} == {None}


@pytest.mark.parametrize(
    ("body", "parameters", "code"),
    [
        pytest.param({"instances": [[1]]}, {}, "input_invalid", id="input"),
        pytest.param({"instances": [[1, 2, 3]]}, {"top_k": 0}, "option_invalid", id="option"),
        pytest.param({"instances": [[1, 2, 3]] * 201}, {}, "payload_too_large", id="rows"),
    ],
)
def test_problem_is_as_the_document_says(
    client: httpx.Client, body: Json, parameters: Json, code: str
) -> None:
    document = read(client)
    responses = document["paths"]["/predict/{model}"]["post"]["responses"]

    response = client.post("/predict/fruit", json=body, params=parameters)

    documented = followed(responses[str(response.status_code)], document)
    content = documented["content"]["application/problem+json"]
    assert code in content["examples"]
    assert response.json()["type"] == f"urn:dunno:{code}"
    assert refusal_of(content["schema"], response.json(), document) is None


@pytest.mark.parametrize(
    ("status", "header"),
    [("429", "Retry-After"), ("503", "Retry-After"), ("401", "WWW-Authenticate"), ("405", "Allow")],
)
def test_headers_of_refusals_are_documented(
    guarded: Callable[[str], Json], status: str, header: str
) -> None:
    document = guarded(WHOLE)
    responses = document["paths"]["/predict/{model}"]["post"]["responses"]

    found = followed(responses[status], document)["headers"]

    assert {header, "X-Request-ID"} <= set(found)
    assert {"Server-Timing", "X-Request-ID"} <= set(responses["200"]["headers"])


def test_every_option_is_documented_with_its_bounds(client: httpx.Client) -> None:
    document = read(client)
    parameters = document["paths"]["/predict/{model}"]["post"]["parameters"]

    found = {each["name"]: each for each in (followed(part, document) for part in parameters)}

    assert {name for name, each in found.items() if each["in"] == "query"} == set(OPTIONS)
    assert found["max_error"]["schema"] == {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    assert found["include"]["schema"]["enum"] == ["best_guess"]
    assert all(each["description"].endswith(".") for each in found.values())


def test_operations_have_names_summaries_and_tags_that_are_described(
    served: httpx.Client,
) -> None:
    document = read(served)
    all_of_them = [operation for _, _, operation in operations(document)]
    names = [operation["operationId"] for operation in all_of_them]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z][a-z0-9_]+", name) for name in names)
    assert all(operation["summary"] for operation in all_of_them)
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert {tag for operation in all_of_them for tag in operation["tags"]} == described
    assert document["info"]["license"]["identifier"] == "Apache-2.0"


def test_every_route_is_documented(served: httpx.Client) -> None:
    routers = (catalogue.router, probes.router, probes.metrics_router)
    routes = [route for router in routers for route in router.routes]
    ours = {route.path for route in routes if isinstance(route, APIRoute)}

    paths = set(read(served)["paths"])

    assert ours <= paths
    assert {VERTEX, "/vertex/health", "/ping", "/invocations", "/docs", "/"} <= paths
    assert {"/v1/models/{model}:classify", "/v2/models/{model}/versions/{version}/infer"} <= paths


def test_routes_that_settings_leave_out_are_not_documented(models: Path) -> None:
    settings = Settings(models=models, metrics_port=0, docs_page=False)
    with Server(settings, HotProtocol) as address, httpx.Client(base_url=address) as client:
        paths = read(client)["paths"]

    assert not {"/metrics", "/docs", VERTEX} & set(paths)


def test_security_is_documented_only_where_keys_are_asked_for(
    client: httpx.Client, guarded: Callable[[str], Json]
) -> None:
    free, kept = read(client), guarded(WHOLE)
    schemes = kept["components"]["securitySchemes"]

    assert "security" not in free
    assert "securitySchemes" not in free["components"]
    assert not {"unauthorised", "forbidden", "rate_exceeded"} & codes_of(free)
    assert [list(each) for each in kept["security"]] == [[name] for name in schemes]
    told = {(each["type"], each.get("scheme"), each.get("name")) for each in schemes.values()}
    assert told == {("http", "bearer", None), ("apiKey", None, "X-API-Key")}


def test_security_of_a_path_is_as_the_gate_has_it(guarded: Callable[[str], Json]) -> None:
    document = guarded(WHOLE)
    found = operations(document)

    is_open = {path for _, path, operation in found if operation.get("security") == []}
    unauthorised = {path for _, path, operation in found if "401" in operation["responses"]}
    forbidden = {path for _, path, operation in found if "403" in operation["responses"]}

    assert is_open == {*PROBES, "/docs"}
    assert unauthorised == set(document["paths"]) - is_open
    assert forbidden == {"/metrics"}


def test_document_tells_nobody_of_models_that_there_are_not_for_his_key(
    guarded: Callable[[str], Json],
) -> None:
    whole, narrow = str(guarded(WHOLE)), str(guarded(NARROW))

    assert "picture-json" in whole
    assert "fruit-json" in narrow
    assert "picture-json" not in narrow
    assert "review" not in narrow


def test_document_follows_a_reload(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fruit_bundle(tmp_path)
    review_bundle(tmp_path)
    write_catalogue(tmp_path, "fruit")
    settings = Settings(models=tmp_path, admin_port=0)
    with Server(settings, HotProtocol) as address, httpx.Client(base_url=address) as client:
        admin = re.search(r"admin address (\S+)", caplog.text)
        assert admin
        before = {each.name for each in asked(read(client))}
        fruit_bundle(tmp_path, version="2", labels=("fig", "pear", "plum"))
        assert httpx.post(f"{admin[1]}/reload").status_code == 200
        newer = read(client)
        write_catalogue(tmp_path, "review")
        assert httpx.post(f"{admin[1]}/reload").status_code == 200
        after = {each.name for each in asked(read(client))}

    assert {"fruit-json", "fruit-csv"} <= before
    assert newer["components"]["examples"]["fruit-answer"]["value"]["version"] == "2"
    assert {"review-json", "review-text"} <= after
    assert not [name for name in after if name.startswith("fruit")]


def test_every_failure_has_an_example_of_itself() -> None:
    made = {type(failures.example_of(failure)) for failure in failures.FAILURES}

    assert made == set(failures.FAILURES)
