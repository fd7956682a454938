"""What is scraped, recorded, alerted and drawn is what the service tells: names, and real tools."""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import dashboard
import httpx
import pytest
from bundles import certified_policy, fruit_bundle, write_catalogue
from deployment.parts import installed
from many_callers import serving
from promql import groups, series
from scraping import Alertmanager, Prometheus, alerted, scraped, wait_for

from service.telemetry.metrics import Metrics
from service.telemetry.series import Counter, Gauge, Histogram

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "k8s/monitoring"
RULES = (MONITORING / "rules.yaml").read_text()
RULES_TEST = (MONITORING / "rules_test.yaml").read_text()
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
RELOADS_SEEN_FOR = "15s"
"""Instead of half an hour: so long the alert on failed reloads fires after the last of them."""
FIRED = 'last_over_time(ALERTS{alertname="DunnoReloadFailed", alertstate="firing"}[10m])'
TRAFFIC = (
    ("wine", [BOTTLE]),
    ("wine", [IN_OTHER_UNITS, BOTTLE]),
    ("fruit", [[9, 0, 0]]),
    ("fruit", [[3, 3, 9], [9, 0, 0]]),
    ("fruit", [[3, 0, 0]]),  # the shadow is stricter and does not answer it
    ("fruit", [["rubbish"]]),
)


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


@pytest.mark.slow
def test_rules_are_valid(plain_rules: Path) -> None:
    command = [installed("promtool"), "check", "rules", str(plain_rules)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_alerts_fire_when_they_should_and_only_then(plain_rules: Path) -> None:
    test = plain_rules.with_name("rules_test.yaml")
    test.write_text(RULES_TEST)
    command = [installed("promtool"), "test", "rules", str(test)]
    tested = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603

    assert tested.returncode == 0, tested.stdout + tested.stderr


class Watched(NamedTuple):
    """A service, who scrapes it, and where alerts go, if anywhere."""

    address: str
    prometheus: Prometheus
    alertmanager: Alertmanager | None


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The real service with two workers after some traffic, and a Prometheus that saw it."""
    command = installed("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    rules = folder / "rules.yaml"
    rules.write_text(plain().replace("offset 30m", f"offset {RELOADS_SEEN_FOR}"))
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
            wait_for(lambda: bool(it.query(FIRED)))
            wait_for(lambda: bool(it.query("model:dunno_request_duration_seconds:p99_rate5m > 0")))
            yield Watched(address, it, alertmanager)


def drive(address: str) -> None:
    """Ask familiar rows, outliers and rubbish for some seconds, on a connection each."""
    until_s = time.monotonic() + 3
    while time.monotonic() < until_s:
        for model, rows in TRAFFIC:
            httpx.post(f"{address}/predict/{model}", json={"instances": rows}, timeout=10)
        time.sleep(0.02)


@pytest.mark.slow
def test_every_panel_has_data_after_some_traffic(watched: Watched) -> None:
    prometheus = watched.prometheus

    assert [(title, query) for title, query in drawn() if not prometheus.query(query)] == []


@pytest.mark.slow
def test_every_metric_of_the_dashboard_is_told_but_of_what_did_not_happen(
    watched: Watched,
) -> None:
    prometheus = watched.prometheus
    names = {name for _, query in drawn() for name in series(query)}

    silent = {name for name in names if not prometheus.query(f"count({name})")}
    assert silent == {"dunno_rollbacks_total", "dunno_key_requests_total"}


@pytest.mark.slow
def test_every_translation_has_data_after_some_traffic(watched: Watched) -> None:
    prometheus = watched.prometheus

    assert [query for _, query in translated() if not prometheus.query(query)] == []


@pytest.mark.slow
def test_no_panel_and_no_rule_tells_workers_apart(watched: Watched) -> None:
    prometheus = watched.prometheus
    queries = [*drawn(), *((name, name) for name, _ in rules() if ":" in name)]

    found = [shown for _, query in queries for shown in prometheus.query(query)]
    assert [each for each in found if "worker" in each["metric"]] == []


@pytest.mark.slow
def test_prometheus_evaluates_every_rule(watched: Watched) -> None:
    prometheus = watched.prometheus
    wait_for(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()))
    found = prometheus.rules()

    assert len(found) == len(list(rules()))
    assert [rule["name"] for rule in found if rule["health"] != "ok"] == []


@pytest.mark.slow
def test_catalogue_that_cannot_be_read_fires_its_alert(watched: Watched) -> None:
    fired = watched.prometheus.query(FIRED)

    assert [each["metric"]["model"] for each in fired] == ["_unknown"]


@pytest.mark.slow
def test_alert_is_told_with_its_line_of_the_runbook(watched: Watched) -> None:
    installed("prometheus-alertmanager")
    assert watched.alertmanager
    told = partial(watched.alertmanager.about, "DunnoReloadFailed", "firing")
    wait_for(lambda: bool(told()))

    assert told()[0]["labels"]["model"] == "_unknown"
    assert told()[0]["annotations"]["runbook"] == "docs/runbook.md#dunnoreloadfailed"


@pytest.mark.slow
def test_alert_is_told_to_be_over_when_its_time_has_passed(watched: Watched) -> None:
    installed("prometheus-alertmanager")
    assert watched.alertmanager
    told = partial(watched.alertmanager.about, "DunnoReloadFailed", "resolved")
    wait_for(lambda: bool(told()))

    assert told()[0]["labels"]["model"] == "_unknown"
    assert watched.prometheus.query('ALERTS{alertname="DunnoReloadFailed"}') == []


@pytest.mark.slow
def test_live_metrics_please_promtool(watched: Watched) -> None:
    told = httpx.get(f"{watched.address}/metrics", timeout=10).text
    command = [installed("promtool"), "check", "metrics"]
    checked = subprocess.run(  # noqa: S603
        command, input=told, capture_output=True, text=True, check=False
    )

    assert 'worker="0"' in told
    assert 'worker="1"' in told
    assert (checked.returncode, checked.stderr) == (0, "")
