"""The Grafana dashboard: `python k8s/monitoring/dashboard.py` writes dashboard.json beside it.

Every query sums over workers and pods: the label `worker` never stands alone. Counters that are
born at their first event have `or vector(0)`, so that a panel that is empty is a panel in need.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import SortOrder, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)

OUTPUT = Path(__file__).with_name("dashboard.json")

SOURCE = DataSourceRef("prometheus", "${source}")
SERVICE = 'namespace=~"$namespace", job=~"$job"'
MODEL = f'{SERVICE}, model=~"$model"'
RATE = "[$__rate_interval]"
WIDTH, HEIGHT = 8, 8
"""Of a panel; a row of the grid is 24 wide."""


@dataclass(frozen=True)
class Query:
    """PromQL, and what each of its series is called in the legend."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One drawing; `unit` is Grafana's name for it, `about` says how to read it."""

    title: str
    unit: str
    about: str
    queries: tuple[Query, ...]


def rate(metric: str, by: str, matchers: str = MODEL) -> str:
    """Return the sum of rates of a counter, by these labels."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}{RATE}))"


def percentile(share: float, metric: str, by: str, matchers: str = MODEL) -> str:
    """Return a percentile of a histogram: the buckets of all workers together, by these labels."""
    grouped = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', grouped, matchers)})"


def mean(metric: str, by: str) -> str:
    """Return the mean of what a histogram saw, by these labels."""
    return f"{rate(f'{metric}_sum', by)} / {rate(f'{metric}_count', by)}"


TRAFFIC = (
    Panel(
        "Requests by outcome",
        "reqps",
        '`unknown` is an answer: all rows of the request are "don\'t know".',
        (Query(rate("dunno_requests_total", "outcome"), "{{outcome}}"),),
    ),
    Panel(
        "Requests by model and protocol",
        "reqps",
        "The model `_unknown` stands for names that are not served.",
        (Query(rate("dunno_requests_total", "model, protocol"), "{{model}} {{protocol}}"),),
    ),
    Panel(
        "Failing and refused share",
        "percentunit",
        "Failing: status 500. Refused: no room, or expired.",
        (
            Query(
                rate("dunno_requests_total", "model", f'{MODEL}, outcome="error"')
                + f" / {rate('dunno_requests_total', 'model')}",
                "{{model}} failing",
            ),
            Query(
                rate("dunno_requests_total", "model", f'{MODEL}, outcome=~"rejected|expired"')
                + f" / {rate('dunno_requests_total', 'model')}",
                "{{model}} refused",
            ),
        ),
    ),
    Panel(
        "Requests in flight",
        "short",
        "By protocol, at the moment of the scrape.",
        (Query(f"sum by (protocol) (dunno_inflight_requests{{{SERVICE}}})", "{{protocol}}"),),
    ),
    Panel(
        "Refused for want of capacity",
        "reqps",
        "By cause.",
        (Query(rate("dunno_rejections_total", "model, cause"), "{{model}} {{cause}}"),),
    ),
    Panel(
        "Refused for what they hold",
        "short",
        "Rows and requests a second, by what is wrong with them.",
        (
            Query(
                f"{rate('dunno_input_rejections_total', 'model, reason')} or vector(0)",
                "{{model}} {{reason}}",
            ),
        ),
    ),
)

VERDICTS = (
    Panel(
        "Rows by verdict",
        "short",
        "Rows a second.",
        (
            Query(
                rate("dunno_predictions_total", "verdict, reason"),
                "{{verdict}} {{reason}}",
            ),
        ),
    ),
    Panel(
        'Share of "don\'t know"',
        "percentunit",
        "Of the rows of the last half hour. The alert DunnoDontKnowMoved compares with a day.",
        (
            Query(
                "sum by (model, version) "
                f'(rate(dunno_predictions_total{{{MODEL}, verdict="dont_know"}}[30m]))'
                f" / sum by (model, version) (rate(dunno_predictions_total{{{MODEL}}}[30m]))",
                "{{model}} {{version}}",
            ),
        ),
    ),
    Panel(
        "Best labels",
        "percentunit",
        "Share of each label among the rows, answered or not; only of up to 100 labels.",
        (
            Query(
                rate("dunno_predicted_class_total", "model, label")
                + f" / on (model) group_left () {rate('dunno_predicted_class_total', 'model')}",
                "{{model}} {{label}}",
            ),
        ),
    ),
    Panel(
        "Confidence",
        "percentunit",
        "Median and lowest tenth, beside the least confidence to answer.",
        (
            Query(percentile(0.5, "dunno_confidence", "model, version"), "{{model}} median"),
            Query(percentile(0.1, "dunno_confidence", "model, version"), "{{model}} lowest tenth"),
            Query(
                f"max by (model, version) (dunno_threshold_ratio{{{MODEL}}})",
                "{{model}} threshold",
            ),
        ),
    ),
    Panel(
        "Novelty p-value",
        "percentunit",
        "Median; 0.5 on familiar rows, near 0 on novel ones.",
        (Query(percentile(0.5, "dunno_novelty", "model, version"), "{{model}} {{version}}"),),
    ),
    Panel(
        "Distance to the reference",
        "percentunit",
        "Total variation of the last rows, worst worker; 0 until there are 500 of them.",
        (
            Query(
                f"max by (model, version, signal) (dunno_drift_distance_ratio{{{MODEL}}})",
                "{{model}} {{version}} {{signal}}",
            ),
        ),
    ),
    Panel(
        "Evidence of drift",
        "short",
        "Capital of the bet against familiar input, worst worker. At 1,000 it is an alarm.",
        (
            Query(
                f"max by (model, version) (dunno_drift_evidence_ratio{{{MODEL}}})",
                "{{model}} {{version}}",
            ),
        ),
    ),
    Panel(
        "Drift alarms",
        "short",
        "Within the last hour.",
        (
            Query(
                f"sum by (model, version) (increase(dunno_drift_alarms_total{{{MODEL}}}[1h]))",
                "{{model}} {{version}}",
            ),
        ),
    ),
)

LATENCY = (
    Panel(
        "Answered within",
        "s",
        "From the first byte read to the last byte handed over.",
        tuple(
            Query(
                percentile(
                    share, "dunno_request_duration_seconds", "model", f'{MODEL}, outcome="ok"'
                ),
                f"{{{{model}}}} {name}",
            )
            for share, name in ((0.5, "p50"), (0.99, "p99"))
        ),
    ),
    Panel(
        "Stages, mean",
        "s",
        "Where the time goes; stacked, the stages make up the request.",
        (Query(mean("dunno_stage_duration_seconds", "stage"), "{{stage}}"),),
    ),
    Panel(
        "Stages, p99",
        "s",
        "Not additive: the slowest of each stage are other requests.",
        (Query(percentile(0.99, "dunno_stage_duration_seconds", "stage"), "{{stage}}"),),
    ),
)

BATCHES = (
    Panel(
        "Rows of a run",
        "short",
        "Mean.",
        (Query(mean("dunno_batch_rows", "model"), "{{model}}"),),
    ),
    Panel(
        "Why batches close",
        "short",
        "Batches a second. `full`: more rows than a run may hold are there.",
        (Query(rate("dunno_batch_closed_total", "cause"), "{{cause}}"),),
    ),
    Panel(
        "Wait of a batch's first job",
        "s",
        "p99.",
        (Query(percentile(0.99, "dunno_batch_wait_seconds", "model"), "{{model}}"),),
    ),
    Panel(
        "Fullest queue",
        "percentunit",
        "Each worker has queues of its own; at 100 % it refuses.",
        (
            Query(
                f"max by (model, lane) (dunno_queue_rows{{{MODEL}}}"
                f" / dunno_queue_capacity_rows{{{MODEL}}})",
                "{{model}} {{lane}}",
            ),
        ),
    ),
    Panel(
        "Rows waiting",
        "short",
        "In all workers together.",
        (Query(f"sum by (model, lane) (dunno_queue_rows{{{MODEL}}})", "{{model}} {{lane}}"),),
    ),
    Panel(
        "Padded and wasted rows",
        "short",
        "Rows a second that were computed for nobody.",
        (
            Query(rate("dunno_batch_padded_rows_total", "model"), "{{model}} padded"),
            Query(rate("dunno_wasted_rows_total", "model, cause"), "{{model}} {{cause}}"),
        ),
    ),
)

MODELS = (
    Panel(
        "Versions by state",
        "short",
        "Processes in which the version is in this state.",
        (
            Query(
                f"sum by (model, version, state) (dunno_model_state{{{MODEL}}}) > 0",
                "{{model}} {{version}} {{state}}",
            ),
        ),
    ),
    Panel(
        "What serves",
        "short",
        "Processes by files, runtime and device: two digests of one version are one too many.",
        (
            Query(
                f"count by (model, version, runtime, device, sha256) (dunno_model_info{{{MODEL}}})",
                "{{model}} {{version}} {{runtime}} {{device}} {{sha256}}",
            ),
        ),
    ),
    Panel(
        "Since the last good run",
        "s",
        "Worst worker. Long only because nobody asks, or because nothing goes well.",
        (
            Query(
                "time() - min by (model) "
                f"(dunno_model_last_success_timestamp_seconds{{{MODEL}}} > 0)",
                "{{model}}",
            ),
        ),
    ),
    Panel(
        "Reloads",
        "short",
        "Since the processes began, by outcome.",
        (
            Query(
                f"sum by (model, outcome) (dunno_model_reloads_total{{{MODEL}}}) or vector(0)",
                "{{model}} {{outcome}}",
            ),
        ),
    ),
    Panel(
        "Canaries rolled back",
        "short",
        "Since the processes began, by what was wrong with them.",
        (
            Query(
                f"sum by (model, version, reason) (dunno_rollbacks_total{{{MODEL}}}) or vector(0)",
                "{{model}} {{version}} {{reason}}",
            ),
        ),
    ),
    Panel(
        "Instances lost",
        "short",
        "Runtimes given up and built anew since the processes began, by cause.",
        (
            Query(
                f"sum by (model, cause) (dunno_lost_instances_total{{{MODEL}}})",
                "{{model}} {{cause}}",
            ),
        ),
    ),
    Panel(
        "Weights",
        "percentunit",
        "Share of the requests that name no version; least of all workers: 0 after a rollback.",
        (
            Query(
                f"min by (model, version) (dunno_version_weight_ratio{{{MODEL}}}) or vector(1)",
                "{{model}} {{version}}",
            ),
        ),
    ),
    Panel(
        "Shadow comparisons",
        "short",
        "Rows a second by what came of their copies.",
        (
            Query(
                rate("dunno_shadow_comparisons_total", "model, candidate, outcome")
                + " or vector(0)",
                "{{model}} {{candidate}} {{outcome}}",
            ),
        ),
    ),
    Panel(
        "Shadow disagreements",
        "short",
        "Rows that the candidate judged otherwise, since the processes began.",
        (
            Query(
                "sum by (model, candidate, verdict) "
                f"(dunno_shadow_disagreements_total{{{MODEL}}}) or vector(0)",
                "{{model}} {{candidate}} {{verdict}}",
            ),
        ),
    ),
    Panel(
        "Load and warm-up",
        "s",
        "Mean since the processes began.",
        tuple(
            Query(
                f"sum by (model) (dunno_model_{name}_duration_seconds_sum{{{MODEL}}})"
                f" / sum by (model) (dunno_model_{name}_duration_seconds_count{{{MODEL}}})",
                f"{{{{model}}}} {name}",
            )
            for name in ("load", "warmup")
        ),
    ),
)

OURS = "and on (namespace, job, pod, instance, worker) dunno_build_info"
PROCESS = (
    Panel(
        "Event loop lag",
        "s",
        "p99 of the worst worker.",
        (
            Query(
                "max by (instance) ("
                + percentile(0.99, "dunno_event_loop_lag_seconds", "instance, worker", SERVICE)
                + ")",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        "Resident memory",
        "bytes",
        "Of all workers of an instance: they share its limit.",
        (
            Query(
                f"sum by (instance) (process_resident_memory_bytes{{{SERVICE}}} {OURS})",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        "Cores used",
        "short",
        "Beside the cores that there are.",
        (
            Query(
                f"sum by (instance) (rate(process_cpu_seconds_total{{{SERVICE}}}{RATE}) {OURS})",
                "{{instance}} used",
            ),
            Query(
                f"max by (instance) (dunno_cpu_quota_cores{{{SERVICE}}})",
                "{{instance}} quota",
            ),
        ),
    ),
    Panel(
        "Threads of runs",
        "short",
        "Of all workers together; more than the cores are too many.",
        (
            Query(
                f"sum by (instance) (dunno_runtime_threads{{{SERVICE}}})",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        "Open files",
        "percentunit",
        "Share of what a process may open, worst worker.",
        (
            Query(
                f"max by (instance) (process_open_fds{{{SERVICE}}}"
                f" / process_max_fds{{{SERVICE}}} {OURS})",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        "Connections",
        "short",
        "Open ones of the worker with most: each has a limit of its own.",
        (
            Query(
                f"max by (instance) (dunno_connections{{{SERVICE}}})",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        "Connections ended",
        "short",
        "A second, by the limit or the fault that ended them.",
        (
            Query(
                f"sum by (cause) (rate(dunno_connection_rejections_total{{{SERVICE}}}{RATE}))",
                "{{cause}}",
            ),
        ),
    ),
    Panel(
        "Log lines lost",
        "short",
        "A second: nobody read them in time, or they could not be written.",
        (
            Query(
                f"sum by (instance) (rate(dunno_log_lines_dropped_total{{{SERVICE}}}{RATE}))",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        "Requests by key",
        "reqps",
        "By what became of them, where callers show keys.",
        (
            Query(
                "sum by (key, outcome) "
                f"(rate(dunno_key_requests_total{{{SERVICE}}}{RATE})) or vector(0)",
                "{{key}} {{outcome}}",
            ),
        ),
    ),
    Panel(
        "Workers by build",
        "short",
        "Processes by version of Dunno, Python and ONNX Runtime.",
        (
            Query(
                f"count by (version, python, onnxruntime) (dunno_build_info{{{SERVICE}}})",
                "{{version}} python {{python}} onnxruntime {{onnxruntime}}",
            ),
        ),
    ),
)

ROWS = {
    "Traffic and outcomes": TRAFFIC,
    "Verdicts and drift": VERDICTS,
    "Latency by stage": LATENCY,
    "Batches and queue": BATCHES,
    "Models and reloads": MODELS,
    "Process": PROCESS,
}


def drawn(panel: Panel) -> timeseries.Panel:
    """Return a panel as Grafana has it; the dashboard finds its place."""
    found = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.about)
        .unit(panel.unit)
        .min(0)
        .span(WIDTH)
        .height(HEIGHT)
        .datasource(SOURCE)
        .legend(common.VizLegendOptions().show_legend(True))
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
    )
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend)
        found.with_target(target.datasource(SOURCE))
    return found


def variable(name: str, within: str = "") -> QueryVariable:
    """Return a choice among the values of a label, all of them at first."""
    return (
        QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(f"label_values(dunno_queue_rows{within}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(text=["All"], value=["$__all"]))
    )


def dashboard() -> Dashboard:
    """Return the dashboard: rows of panels, three abreast."""
    found = (
        Dashboard("Dunno")
        .uid("dunno")
        .description("A model server that knows when it does not know.")
        .tags(["dunno"])
        .editable()
        .refresh("30s")
        .time("now-3h", "now")
        .with_variable(DatasourceVariable("source").label("Source").type("prometheus"))
        .with_variable(variable("namespace"))
        .with_variable(variable("job", '{namespace=~"$namespace"}'))
        .with_variable(variable("model", f"{{{SERVICE}}}"))
    )
    numbers = itertools.count(1)
    for title, members in ROWS.items():
        found.with_row(Row(title).id(next(numbers)))
        for panel in members:
            found.with_panel(drawn(panel).id(next(numbers)))
    return found


def text() -> str:
    """Return the dashboard as the file holds it."""
    content = dashboard().build()
    return json.dumps(content, cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(text())
