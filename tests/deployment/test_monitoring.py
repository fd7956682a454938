"""What is scraped, recorded, alerted and drawn is what the service tells: names, and real tools."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dashboard
import httpx
import pytest
from bundles import certified_policy, fruit_bundle, write_catalogue
from many_callers import serving
from promql import groups, series
from scraping import Prometheus, alerted, scraped, wait_for

from service.telemetry.metrics import Metrics
from service.telemetry.series import Counter, Gauge, Histogram

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "k8s/monitoring"
RULES = (MONITORING / "rules.yaml").read_text()
RULES_TEST = (MONITORING / "rules_test.yaml").read_text()
SCHEMAS = ROOT.parent / "shared/schemas"
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
TRANSLATIONS = (ROOT / "docs/migrating-metrics.md").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)

TARGET_LABELS = {
    *("container", "endpoint", "instance", "job", "namespace", "node", "pod", "service"),
}
"""What Prometheus and its operator say of a target."""

CANARY = 'versions = ["2", "1"]\nweights = { "1" = 0.5, "2" = 0.5 }\nshadow = "3"\n'
BOTTLE = json.loads((ROOT / "docs/examples/bottle.json").read_text())["instances"][0]
IN_OTHER_UNITS = {name: value * 1000 for name, value in BOTTLE.items()}
TRAFFIC = (
    ("wine", [BOTTLE]),
    ("wine", [IN_OTHER_UNITS, BOTTLE]),
    ("fruit", [[9, 0, 0]]),
    ("fruit", [[3, 3, 9], [9, 0, 0]]),
    ("fruit", [[3, 0, 0]]),  # the shadow is stricter and does not answer it
    ("fruit", [["rubbish"]]),
)


def is_checked() -> bool:
    """Whether a tool that lacks is a failure."""
    return "DUNNO_CHECK_DEPLOYMENT" in os.environ


def installed(tool: str) -> str:
    """Return the path of a tool of Prometheus."""
    path = shutil.which(tool)
    if path is None and not is_checked():
        pytest.skip(f"{tool} is not installed; Debian packages prometheus, prometheus-alertmanager")
    assert path, f"{tool} is not installed, and DUNNO_CHECK_DEPLOYMENT is set"
    return path


def imported(module: str) -> Any:
    """Return a module that is no dependency of ours."""
    if importlib.util.find_spec(module) is None and not is_checked():
        pytest.skip(f"{module} is not installed")
    return importlib.import_module(module)


def schema(name: str) -> str:
    """Return a schema that lies beside this repository."""
    path = SCHEMAS / name
    if not path.exists() and not is_checked():
        pytest.skip(f"../shared/schemas/{name} is not there")
    return path.read_text()


def plain() -> str:
    """Return the rules as Prometheus reads them: what stands under `spec`."""
    _, spec = RULES.split("\nspec:\n")
    return re.sub(r"^  ", "", spec, flags=re.MULTILINE)


@pytest.fixture
def plain_rules(tmp_path: Path) -> Path:
    """A file of the rules for promtool."""
    path = tmp_path / "rules.plain.yaml"
    path.write_text(plain())
    return path


def rules() -> Iterator[tuple[str, str]]:
    """Yield name and expression of each rule."""
    pattern = r"- (?:alert|record): (\S+)\n +expr: (?:\|\n((?: {12,}.*\n)+)|(.*)\n)"
    for name, block, line in re.findall(pattern, RULES):
        yield name, " ".join((block or line).split())


def drawn() -> Iterator[tuple[str, str]]:
    """Yield title and query of each panel, with the user's choices made."""
    for members in dashboard.ROWS.values():
        for panel in members:
            for query in panel.queries:
                chosen = re.sub(r"\$(namespace|job|model)", ".*", query.expr)
                yield panel.title, chosen.replace("$__rate_interval", "30s")


def translated() -> Iterator[tuple[str, str]]:
    """Yield their name and our query for each line of the translations that has one."""
    for line in TRANSLATIONS.splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if line.startswith("| `") and cells[2].strip() != "none":
            yield cells[1].strip(), cells[2].strip().strip("`").replace("\\|", "|")


def labels_by_series() -> dict[str, set[str]]:
    """Return every name that can be asked for, with its labels."""
    metrics = Metrics()
    suffixes = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}
    found = {
        metric.name + suffix: {*metric.label_names, *(("le",) if suffix == "_bucket" else ())}
        for metric in vars(metrics).values()
        if isinstance(metric, Counter | Gauge | Histogram)
        for suffix in suffixes[type(metric)]
    }
    for family in metrics.registry.collect():  # beside ours, those of process, platform and gc
        for sample in family.samples:
            found.setdefault(sample.name, set(sample.labels))
    found |= {name: groups(query) for name, query in rules() if ":" in name}
    return {name: labels | TARGET_LABELS | {"worker"} for name, labels in found.items()} | {
        "up": TARGET_LABELS
    }


QUERIES = [
    *(pytest.param(query, id=f"rule {name}") for name, query in rules()),
    *(pytest.param(query, id=f"panel {title}") for title, query in drawn()),
    *(pytest.param(query, id=theirs) for theirs, query in translated()),
]


@pytest.mark.parametrize("query", QUERIES)
def test_query_names_only_metrics_and_labels_that_there_are(query: str) -> None:
    known = labels_by_series()
    asked = series(query)

    assert asked or query.startswith("vector(")
    assert asked.keys() <= known.keys()
    assert [name for name, labels in asked.items() if not labels <= known[name]] == []
    assert groups(query) <= set().union(*(known[name] for name in asked))


def test_rules_and_tables_are_read_whole() -> None:
    assert len(list(rules())) == RULES.count("expr:")
    assert len(list(translated())) > 25


def test_labels_of_ours_are_not_those_of_a_target() -> None:
    metrics = vars(Metrics()).values()
    ours = [each.label_names for each in metrics if isinstance(each, Counter | Gauge | Histogram)]

    assert ours
    assert TARGET_LABELS.isdisjoint(label for labels in ours for label in labels)


@pytest.mark.parametrize("query", [pytest.param(query, id=name) for name, query in rules()])
def test_no_rule_tells_workers_apart_in_what_it_says(query: str) -> None:
    # The outermost sum, or what is compared with it, has no worker; one pod may have several.
    outermost = re.match(r"[^(]*?\bby \(([^)]*)\)", query)

    assert outermost is None or "worker" not in outermost.group(1)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_happened_and_where_help_stands(alert: str) -> None:
    (rule,) = re.findall(rf"- alert: {alert}\n(?:(?!- alert:).*\n)+", RULES)

    for said in ("summary: ", "description: ", f"runbook: docs/runbook.md#{alert.lower()}\n"):
        assert said in rule
    assert re.search(r"severity: (critical|warning)\n", rule)


def test_runbook_has_one_section_for_each_alert() -> None:
    sections = re.findall(r"^## (\w+)\n\n((?:- .*\n)+)", RUNBOOK, re.MULTILINE)

    assert sorted(name for name, _ in sections) == sorted(ALERTS)
    for _, text in sections:
        assert re.findall(r"^- \*\*(.*?):\*\*", text, re.MULTILINE) == ["Means", "Look at", "Now"]


def test_runbook_names_only_panels_that_there_are() -> None:
    titles = {panel.title for members in dashboard.ROWS.values() for panel in members}
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOK)) - {"Dunno", "Now"}

    assert named
    assert named <= titles


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_to_fire_and_not_to_fire(alert: str) -> None:
    expectations = re.findall(rf"alertname: {alert}\n +exp_alerts:( \[\])?\n", RULES_TEST)

    assert set(expectations) == {"", " []"}


def test_dashboard_is_what_the_script_writes() -> None:
    assert dashboard.OUTPUT.read_text() == dashboard.text()


def test_rules_are_valid(plain_rules: Path) -> None:
    command = [installed("promtool"), "check", "rules", str(plain_rules)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alerts_fire_when_they_should_and_only_then(plain_rules: Path) -> None:
    test = plain_rules.with_name("rules_test.yaml")
    test.write_text(RULES_TEST)
    command = [installed("promtool"), "test", "rules", str(test)]
    tested = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603

    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("servicemonitor.yaml", "crd-servicemonitors.yaml"),
        ("rules.yaml", "crd-prometheusrules.yaml"),
    ],
)
def test_manifest_is_what_the_operator_reads(name: str, definition: str) -> None:
    yaml, jsonschema = imported("yaml"), imported("jsonschema")
    (version,) = yaml.safe_load(schema(definition))["spec"]["versions"]
    read = version["schema"]["openAPIV3Schema"]
    close(read["properties"]["spec"])

    # Its patterns are Go's: the schema itself is not checked.
    validator = jsonschema.Draft202012Validator(read)
    content = yaml.safe_load((MONITORING / name).read_text())
    assert list(validator.iter_errors(content)) == []


def close(node: Any) -> None:
    """Let the objects of a schema hold nothing that it does not name, as the API server does."""
    if isinstance(node, dict):
        if "properties" in node:
            node.setdefault("additionalProperties", False)
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            close(each)


def test_dashboard_is_what_grafana_reads() -> None:
    jsonschema = imported("jsonschema")
    validator = jsonschema.Draft7Validator(json.loads(schema("grafana-dashboard.schema.json")))

    assert list(validator.iter_errors(dashboard.dashboard())) == []


class Watched(NamedTuple):
    """A service, who scrapes it, and where alerts go: host and port, if anywhere."""

    address: str
    prometheus: Prometheus
    alertmanager: str | None


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The real service with two workers after some traffic, and a Prometheus that saw it."""
    command = installed("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    rules = folder / "rules.yaml"
    rules.write_text(plain())
    models = folder / "models"
    for version in ("1", "2"):
        fruit_bundle(models, version=version)
    fruit_bundle(models, version="3", policy=certified_policy(max_error=0.001, threshold=0.99))
    shutil.copytree(ROOT / "models/wine", models / "wine")
    write_catalogue(models, "wine", more=f"[models.fruit]\n{CANARY}")
    with (
        pytest.MonkeyPatch.context() as environment,
        alerted(shutil.which("prometheus-alertmanager"), folder) as alertmanager,
    ):
        environment.setenv("DUNNO_WORKERS", "2")
        with (
            serving(models) as (process, address),
            scraped(command, address, rules, alertmanager) as it,
        ):
            wait_for(lambda: len(it.query("dunno_process_id")) == 2)
            drive(address)
            (models / "catalogue.toml").write_text("[models.fruit]\nversions = [")
            process.send_signal(signal.SIGHUP)
            drive(address)
            wait_for(lambda: bool(it.query('ALERTS{alertname="DunnoReloadFailed"}')))
            wait_for(lambda: bool(it.query("model:dunno_request_duration_seconds:p99_rate5m > 0")))
            yield Watched(address, it, alertmanager)


def drive(address: str) -> None:
    """Ask familiar rows, outliers and rubbish for some seconds, on a connection each."""
    until_s = time.monotonic() + 3
    while time.monotonic() < until_s:
        for model, rows in TRAFFIC:
            httpx.post(f"{address}/predict/{model}", json={"instances": rows}, timeout=10)
        time.sleep(0.02)


def test_every_panel_has_data_after_some_traffic(watched: Watched) -> None:
    prometheus = watched.prometheus

    assert [(title, query) for title, query in drawn() if not prometheus.query(query)] == []


def test_every_metric_of_the_dashboard_is_told_but_of_what_did_not_happen(
    watched: Watched,
) -> None:
    prometheus = watched.prometheus
    names = {name for _, query in drawn() for name in series(query)}

    silent = {name for name in names if not prometheus.query(f"count({name})")}
    assert silent == {"dunno_rollbacks_total"}


def test_every_translation_has_data_after_some_traffic(watched: Watched) -> None:
    prometheus = watched.prometheus

    assert [query for _, query in translated() if not prometheus.query(query)] == []


def test_no_panel_and_no_rule_tells_workers_apart(watched: Watched) -> None:
    prometheus = watched.prometheus
    queries = [*drawn(), *((name, name) for name, _ in rules() if ":" in name)]

    found = [shown for _, query in queries for shown in prometheus.query(query)]
    assert [each for each in found if "worker" in each["metric"]] == []


def test_prometheus_evaluates_every_rule(watched: Watched) -> None:
    prometheus = watched.prometheus
    wait_for(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()))
    found = prometheus.rules()

    assert len(found) == len(list(rules()))
    assert [rule["name"] for rule in found if rule["health"] != "ok"] == []


def test_catalogue_that_cannot_be_read_fires_its_alert(watched: Watched) -> None:
    prometheus = watched.prometheus
    firing = prometheus.query('ALERTS{alertname="DunnoReloadFailed", alertstate="firing"}')

    assert [each["metric"]["model"] for each in firing] == ["_unknown"]


def test_alert_reaches_alertmanager_with_its_line_of_the_runbook(watched: Watched) -> None:
    installed("prometheus-alertmanager")
    url = f"http://{watched.alertmanager}/api/v2/alerts?filter=alertname=DunnoReloadFailed"
    wait_for(lambda: bool(httpx.get(url).json()))

    (alert,) = httpx.get(url).json()
    assert alert["labels"]["model"] == "_unknown"
    assert alert["annotations"]["runbook"] == "docs/runbook.md#dunnoreloadfailed"


def test_live_metrics_please_promtool(watched: Watched) -> None:
    told = httpx.get(f"{watched.address}/metrics", timeout=10).text
    command = [installed("promtool"), "check", "metrics"]
    checked = subprocess.run(  # noqa: S603
        command, input=told, capture_output=True, text=True, check=False
    )

    assert 'worker="0"' in told
    assert 'worker="1"' in told
    assert (checked.returncode, checked.stderr) == (0, "")
