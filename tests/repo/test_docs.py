"""The documents say what is true: they are compared with the code and the manifests."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from generate import PAGES

from service.api.options import OPTIONS
from service.api.problems import STATUS
from service.cli import main
from service.errors import CapacityError, DunnoError, code_of
from service.prediction.catalogue import read_catalogue
from service.settings import Settings, SettingsInvalid, read_settings
from service.telemetry.metrics import CONNECTION_CAUSES, INPUT_REASONS, REJECTION_CAUSES

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
README = (ROOT / "README.md").read_text()
BEHAVIOUR = (ROOT / "docs/behaviour.md").read_text()
SECURITY = (ROOT / "docs/security.md").read_text()
PROTOCOLS = (ROOT / "docs/protocols.md").read_text()


def section(text: str, name: str) -> str:
    """Return what stands between the marks of a generated section."""
    found = re.search(rf"<!-- {name} -->\n(.*)<!-- /{name} -->", text, re.DOTALL)
    assert found, f"no section {name}"
    return found.group(1)


@pytest.mark.parametrize("name", PAGES)
def test_page_of_the_reference_says_what_the_code_says(name: str) -> None:
    page = REFERENCE / name

    assert page.read_text() == PAGES[name](), f"{page}: run make reference"


def test_reference_holds_no_other_page() -> None:
    assert {path.name for path in REFERENCE.glob("*.md")} == set(PAGES)


def lines_of(page: str, mark: str, cells: int) -> dict[str, list[str]]:
    """Return what stands in tables of so many cells behind a first one that begins like `mark`."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in (REFERENCE / page).read_text().splitlines()
        if line.startswith(f"| `{mark}")
    ]
    return {row[0].strip("`"): row[1:] for row in rows if len(row) == cells}


SETTINGS = lines_of("settings.md", "DUNNO_", 4)
BOUNDED = {
    variable: tuple(float(bound.replace(",", "")) for bound in found.groups())
    for variable, (_, takes, _) in SETTINGS.items()
    if (found := re.search(r"number ([\d,]+) to ([\d,]+)", takes))
}


def test_reference_names_every_variable_that_is_read() -> None:
    assert SETTINGS.keys() == {f"DUNNO_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("variable", BOUNDED)
def test_number_beyond_the_bounds_of_the_reference_is_refused(variable: str) -> None:
    field = variable.removeprefix("DUNNO_").lower()
    least, most = BOUNDED[variable]

    for beyond in (least - 1, most + 1):
        with pytest.raises(SettingsInvalid, match=f"^{variable}: "):
            read_settings(**{field: beyond})


def test_defaults_of_the_reference_are_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_settings()
    for variable, (default, *_) in SETTINGS.items():
        if default.startswith("`"):
            monkeypatch.setenv(variable, default.strip("`"))

    assert read_settings() == before


FAILURES = lines_of("errors.md", "", 7)


def test_reference_names_every_failure_with_its_status() -> None:
    codes = {code_of(kind.__new__(kind)): kind for kind in STATUS if kind is not DunnoError}

    assert {code: int(status) for code, (status, *_) in FAILURES.items()} == {
        code: STATUS[kind] for code, kind in codes.items()
    }
    for code, (_, _, urn, again, *_) in FAILURES.items():
        assert urn == f"`urn:dunno:{code}`"
        assert (again == "yes") == issubclass(codes[code], CapacityError)


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        (("POST", "/predict/nobody", {"instances": [[1, 2, 3]]}), "model_not_found"),
        (("POST", "/predict/fruit?version=9", {"instances": [[1, 2, 3]]}), "version_not_found"),
        (("POST", "/predict/fruit?top_k=none", {"instances": [[1, 2, 3]]}), "option_invalid"),
        (("POST", "/predict/fruit?max_error=1e-9", {"instances": [[1, 2, 3]]}), "risk_not_"),
        (("POST", "/predict/fruit", {"instances": [["red"]]}), "input_invalid"),
        (("POST", "/predict/fruit", {"instances": [[1, 2, 3]] * 201}), "payload_too_large"),
        (("POST", "/predict/fruit", {"instances": ["x" * 100_000]}), "body_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_problem_that_a_caller_gets_is_in_the_reference(
    client: httpx.Client, request_of: tuple[str, str, object], code: str
) -> None:
    method, path, body = request_of

    response = client.request(method, path, json=body)

    found = response.json()
    (name,) = [each for each in FAILURES if each.startswith(code)]
    status, title, urn, *_ = FAILURES[name]
    assert (str(response.status_code), found["title"], f"`{found['type']}`") == (status, title, urn)


def test_routes_that_do_not_exist_have_the_codes_of_the_reference(client: httpx.Client) -> None:
    for method, path, code in (
        ("GET", "/nowhere", "not_found"),
        ("DELETE", "/models", "method_not_allowed"),
    ):
        response = client.request(method, path)

        assert response.json()["type"] == f"urn:dunno:{code}"
        assert f"`{code}` ({response.status_code})" in (REFERENCE / "errors.md").read_text()


def test_running_server_tells_the_metrics_of_the_reference(client: httpx.Client) -> None:
    told = client.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", told, re.MULTILINE))
    labels = {
        name: set(re.findall(r"(\w+)=", inside))
        for name, inside in re.findall(r"^(\w+)\{(.*)\} ", told, re.MULTILINE)
    }

    metrics = lines_of("metrics.md", "", 5)
    assert {name: kind for name, (kind, *_) in metrics.items()} == kinds
    for name, (kind, named, *_) in metrics.items():
        seen = labels.get(f"{name}_sum" if kind == "histogram" else name)
        # Metrics of keys and shadows have no series on a server without.
        assert seen in (None, set(re.findall(r"`(\w+)`", named))), name


def test_running_server_has_the_buckets_of_the_reference(client: httpx.Client) -> None:
    told = re.findall(
        r'^(\w+)_bucket\{.*?le="(.+?)".*?\} ', client.get("/metrics").text, re.MULTILINE
    )
    bounds: dict[str, list[str]] = {}
    for name, bound in told:
        if bound not in bounds.setdefault(name, []):
            bounds[name].append(bound)

    listed = lines_of("metrics.md", "", 2)
    assert {name: ", ".join(found) for name, found in bounds.items()} == {
        name: text for name, (text,) in listed.items()
    }


def test_every_alert_and_panel_of_the_reference_exists() -> None:
    page = (REFERENCE / "metrics.md").read_text()
    rules = (ROOT / "k8s/monitoring/rules.yaml").read_text()
    drawn = json.loads((ROOT / "k8s/monitoring/dashboard.json").read_text())["panels"]

    assert set(re.findall(r"\[(\w+)\]\(\.\./runbook", page)) == {
        *re.findall(r"- alert: (\w+)", rules)
    }
    assert {panel["title"] for panel in drawn if panel["type"] != "row"} <= {
        *re.findall(r"\*([^*]+)\*", page)
    }


def test_reference_describes_every_command_that_is_there() -> None:
    page = (REFERENCE / "command.md").read_text()
    context = click.Context(main)

    assert {f"dunno {name}" for name in main.list_commands(context)} <= {
        *re.findall(r"^## (.+)$", page, re.MULTILINE)
    }


HOW_TOS = sorted((ROOT / "docs/how-to").glob("*.md"))
OTHER_NAMES = {"dunno_client"}
"""Begin like metrics and are none."""


@pytest.mark.parametrize("page", HOW_TOS, ids=lambda page: page.stem)
def test_every_setting_and_metric_of_a_how_to_exists(page: Path) -> None:
    text = page.read_text()
    metrics = {
        name + end
        for name, (kind, *_) in lines_of("metrics.md", "", 5).items()
        for end in (("", "_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }

    assert set(re.findall(r"\bDUNNO_\w*[A-Z]\b", text)) <= SETTINGS.keys()
    assert set(re.findall(r"\b(?:dunno|process|python)_\w*[a-z]\b", text)) <= metrics | OTHER_NAMES


def test_how_to_on_statuses_has_a_line_for_each() -> None:
    text = (ROOT / "docs/how-to/statuses.md").read_text()
    firsts = "".join(re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE))

    assert set(re.findall(r"\d{3}", firsts)) == {str(status) for status in STATUS.values()}


def names_of_tests() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }


def test_every_line_of_the_conformance_tables_names_its_test() -> None:
    heads = ("| part |", "| --- |")
    lines = [
        line
        for line in PROTOCOLS.splitlines()
        if line.startswith("| ") and not line.startswith(heads)
    ]
    tests = names_of_tests()

    assert lines
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line)
        assert named, f"no test behind: {line}"
        assert set(named) <= tests, f"no such test: {set(named) - tests}"


@pytest.mark.parametrize("text", [BEHAVIOUR, SECURITY], ids=["behaviour", "security"])
def test_every_promise_is_backed_by_a_test_of_that_name(text: str) -> None:
    tests = names_of_tests()
    promises = [line for line in text.splitlines() if line.startswith("- ")]

    assert promises
    for promise in promises:
        named = re.findall(r"`(test_\w+)`", promise)
        assert named, f"no test behind: {promise}"
        assert set(named) <= tests, f"no such test: {set(named) - tests}"


def value_of(path: str) -> object:
    """Return a constant by its dotted path, or what a function there returns."""
    module = path.partition(".")[0]
    found: Any = importlib.import_module(module)
    for name in path.split(".")[1:]:
        module = f"{module}.{name}"
        found = getattr(found, name) if hasattr(found, name) else importlib.import_module(module)
    return found() if callable(found) else found


def test_every_limit_is_documented_as_the_code_says() -> None:
    lines = section(BEHAVIOUR, "limits").splitlines()[2:]
    reasons = {*INPUT_REASONS, *REJECTION_CAUSES, *CONNECTION_CAUSES}
    tests = names_of_tests()

    assert lines
    for line in lines:
        _, set_by, default, beyond, named = (cell.strip() for cell in line.strip("|").split(" | "))
        name = "".join(re.findall(r"`(.+)`", set_by))
        if name.startswith("DUNNO_"):
            field = Settings.model_fields[name.removeprefix("DUNNO_").lower()]
            assert default == str(field.default), line
        else:
            assert set_by.startswith("fixed"), line
            assert not name or default == str(value_of(name)), line
        assert set(re.findall(r"`(\w+)`", beyond)) <= reasons, line
        assert set(re.findall(r"`(test_\w+)`", named)) <= tests, line
        assert "`test_" in named, line


def test_every_query_parameter_is_in_the_readme() -> None:
    assert [name for name in OPTIONS if f"{name}=" not in README] == []


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"make ([a-z]+)", README)) <= targets


def test_every_file_of_the_readme_exists() -> None:
    paths = re.findall(r"@?((?:docs|models|service|training|requirements)/[\w./-]+\w)", README)

    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def served() -> list[str]:
    return list(read_catalogue(ROOT / "models").models)


def test_table_of_models_says_what_the_manifests_say() -> None:
    lines = [line for line in section(README, "models").splitlines() if line.startswith("| [")]

    expected = []
    for name in served():
        version = max((ROOT / "models" / name).iterdir(), key=lambda path: int(path.name)).name
        manifest = json.loads((ROOT / f"models/{name}/{version}/manifest.json").read_text())
        evaluation, policy = manifest["evaluation"], manifest["policy"]
        (row,) = [row for row in evaluation["table"] if row["max_error"] == policy["max_error"]]
        expected.append(
            f"| [{name}](models/{name}/{version}/MODEL_CARD.md) | {manifest['description']} "
            f"| {evaluation['accuracy']['value']:.2%} | {evaluation['ece']:.2%} "
            f"| {policy['max_error']:.1%} | {row['coverage']['value']:.1%} "
            f"| {row['risk']['value']:.2%} |"
        )
    assert lines == expected


@pytest.mark.parametrize("name", ["seven.png", "bottle.json", "review.txt"])
def test_every_example_is_used_in_the_readme(name: str) -> None:
    assert f"@docs/examples/{name}" in README
