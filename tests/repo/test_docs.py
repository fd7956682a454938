"""The documents say what is true: they are compared with the code and the manifests."""

import ast
import importlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.api.options import OPTIONS
from service.prediction.catalogue import read_catalogue
from service.settings import Settings
from service.telemetry.metrics import CONNECTION_CAUSES, INPUT_REASONS, REJECTION_CAUSES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BEHAVIOUR = (ROOT / "docs/behaviour.md").read_text()
SECURITY = (ROOT / "docs/security.md").read_text()
PROTOCOLS = (ROOT / "docs/protocols.md").read_text()


def section(text: str, name: str) -> str:
    """Return what stands between the marks of a generated section."""
    found = re.search(rf"<!-- {name} -->\n(.*)<!-- /{name} -->", text, re.DOTALL)
    assert found, f"no section {name}"
    return found.group(1)


def sentences() -> dict[str, str]:
    """Return the docstring under each setting, from the source."""
    source = (ROOT / "service/settings.py").read_text()
    (body,) = [
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    ]
    return {
        field.target.id: str(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def test_every_setting_is_documented_as_the_code_says() -> None:
    fields = Settings.model_fields
    lines = [
        f"| `DUNNO_{name.upper()}` | `{fields[name].default}` | {text} |"
        for name, text in sentences().items()
    ]

    table = "| variable | default | meaning |\n| --- | --- | --- |\n" + "\n".join(lines)
    assert sentences().keys() == fields.keys()
    assert section(BEHAVIOUR, "settings").strip() == table


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
