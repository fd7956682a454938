"""Every metric there is, with its name, meaning, labels and buckets.

Base units; series of a model are created when it is loaded, so that `rate()` sees the first error.
The hot path holds the children it counts with (`ModelMetrics`) and looks nothing up. What it sees
it only notes down; notes are counted many at once, when there are enough or somebody looks.
"""

import os
import platform
import threading
from collections import Counter as Tally
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.telemetry.drift import ALARM, Drift
from service.telemetry.exposition import TEXT, Format
from service.telemetry.logs import dropped_lines
from service.telemetry.series import Counter, Gauge, Histogram

UNKNOWN_MODEL = "_unknown"
MAX_COUNTED_LABELS = 100
OUTCOMES = (
    "answered",
    "unknown",
    "mixed",
    "invalid",
    "too_large",
    "not_found",
    "rejected",
    "expired",
    "cancelled",
    "error",
)
GATE_OUTCOMES = ("unauthorised", "limited")
"""Of requests that are refused for their key, whatever the model."""

KEY_OUTCOMES = (
    *("ok", "invalid", "too_large", "not_found", "limited"),
    *("rejected", "expired", "cancelled", "error"),
)
STAGES = ("decode", "queue", "run", "decide", "encode")
REASONS = ("out_of_distribution", "ambiguous", "low_confidence")
CAUSES = ("full", "idle", "max_wait", "deadline", "drain")
WASTE_CAUSES = ("cancelled", "expired")
LANES: tuple[Literal["interactive", "bulk"], ...] = ("interactive", "bulk")
REJECTION_CAUSES = (
    "queue_full",
    "decoding_full",
    "bodies_full",
    "deadline_unreachable",
    "not_ready",
    "draining",
)
LOSSES = ("hung", "broken")
INPUT_REASONS = (
    *("input_invalid", "picture_unreadable", "media_type_unsupported", "body_timed_out"),
    *("too_many_bytes", "too_many_times_its_size", "too_many_rows", "too_many_pixels"),
    *("too_many_levels", "too_many_digits", "too_many_columns", "too_many_characters"),
    *("too_many_parts", "too_many_headers", "too_many_header_bytes", "too_many_object_bytes"),
    *("too_many_scans", "too_many_segments", "too_many_chunks", "too_many_frames"),
    "too_many_tokens",
)
"""Those that are there from the start; codes of rare failures join them."""

CONNECTION_CAUSES = (
    "connections",
    "connections_of_peer",
    "header_count",
    "header_size",
    "header_timeout",
    "host",
    "malformed",
    "pipelined",
    "unsent_answers",
    "write_timeout",
)
STATES = ("available", "shadow", "unloaded", "failed")
RELOAD_OUTCOMES = ("switched", "unchanged", "unloaded", "failed")
SHADOW_OUTCOMES = ("agreed", "disagreed", "dropped", "failed")
OTHER_LABEL = "_other"

Note = TypeVar("Note")

NOTES = 128
"""So many requests or rows are noted down before they are counted."""

_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05),
    *(0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_STAGE_SECONDS = (0.00005, 0.0001, 0.00025, *_SECONDS)
_LOAD_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS = tuple(2.0**exponent for exponent in range(13))
_SHARES = (*(step / 20 for step in range(1, 20)), 0.97, 0.99, 0.999, 1.0)
_P_VALUES = (0.001, 0.003, 0.01, 0.03, *(step / 10 for step in range(1, 11)))


class Timing(NamedTuple):
    """Where the time of an answered request went, seconds."""

    decode_s: float
    queue_s: float
    run_s: float
    decide_s: float
    encode_s: float


RowNote = tuple[str | None, int, float, float | None]
"""What is counted of a row: reason (None for an answer), index of the best label, confidence, p."""


class Statistics(NamedTuple):
    """What has been counted of one version of a model, for protocols that ask for it.

    Stages and batches are those of all versions under the name.
    """

    requests: int
    """That got an answer, whatever the verdict."""

    requests_s: float
    """How long these took together."""

    failures: int
    failures_s: float
    rows: int
    batches: int
    last_success_s: float
    """Unix time of the last run that went well; 0: there was none."""

    stages: dict[str, tuple[int, float]]
    """Stage -> how often and how long together, seconds."""


class Metrics:
    """All metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counting = threading.Lock()
        """Held while notes of requests and rows are counted."""

        self._models: dict[tuple[str, str, tuple[str, ...]], ModelMetrics] = {}
        # The first collector of the registry: what is noted down is counted before anybody looks.
        self.registry.register(self)
        self._define_connections()
        self._define_requests()
        self._define_verdicts()
        self._define_batches()
        self._define_models()
        self._define_changes()
        self._define_process()

    def collect(self) -> Iterable[Metric]:
        """Count what is noted down; yields nothing of its own."""
        self.log_lines_dropped.labels().value = dropped_lines()
        for model in list(self._models.values()):  # others may be loaded meanwhile
            model.count_notes()
        return ()

    def _define_connections(self) -> None:
        self.connections = Gauge(
            "dunno_connections", "Connections that are open.", registry=self.registry
        )
        self.connection_rejections = Counter(
            "dunno_connection_rejections",
            "Connections ended for what their callers did, before or beside any request.",
            ("cause",),
            registry=self.registry,
        )
        for cause in CONNECTION_CAUSES:
            self.connection_rejections.labels(cause)

    def _define_requests(self) -> None:
        registry = self.registry
        self.requests = Counter(
            "dunno_requests",
            "Requests by what became of them.",
            ("model", "version", "protocol", "outcome"),
            registry=registry,
        )
        self.request_duration = Histogram(
            "dunno_request_duration_seconds",
            "From the first byte read to the last byte handed over.",
            ("model", "protocol", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_duration = Histogram(
            "dunno_stage_duration_seconds",
            "Time a request spent in one stage.",
            ("model", "stage"),
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self.inflight = Gauge(
            "dunno_inflight_requests",
            "Predict requests being worked on.",
            ("protocol",),
            registry=registry,
        )
        self.rejections = Counter(
            "dunno_rejections",
            "Requests refused for want of capacity, ours or what their key may take.",
            ("model", "cause"),
            registry=registry,
        )
        self.key_requests = Counter(
            "dunno_key_requests",
            "Requests by the name of the key that was shown and what became of them.",
            ("key", "outcome"),
            registry=registry,
        )
        self.input_rejections = Counter(
            "dunno_input_rejections",
            "Rows or requests refused for what they hold, by failure.",
            ("model", "reason"),
            registry=registry,
        )

    def _define_verdicts(self) -> None:
        registry = self.registry
        by_version = ("model", "version")
        self.predictions = Counter(
            "dunno_predictions",
            "Rows by verdict.",
            (*by_version, "verdict", "reason"),
            registry=registry,
        )
        self.predicted_class = Counter(
            "dunno_predicted_class",
            f"Rows by best label, for models of at most {MAX_COUNTED_LABELS} labels.",
            (*by_version, "label"),
            registry=registry,
        )
        self.confidence = Histogram(
            "dunno_confidence",
            "Calibrated probability of the best label.",
            by_version,
            buckets=_SHARES,
            registry=registry,
        )
        self.novelty = Histogram(
            "dunno_novelty",
            "Novelty p-value, uniform on familiar rows.",
            by_version,
            buckets=_P_VALUES,
            registry=registry,
        )
        self.drift_distance = Gauge(
            "dunno_drift_distance_ratio",
            "Total variation distance of the last rows to the reference profile, 0 to 1.",
            (*by_version, "signal"),
            registry=registry,
        )
        self.drift_evidence = Gauge(
            "dunno_drift_evidence_ratio",
            "Capital of the bet that novelty p-values are not uniform; starts at 1.",
            by_version,
            registry=registry,
        )
        self.drift_alarms = Counter(
            "dunno_drift_alarms",
            f"Times that capital passed {ALARM:g}.",
            by_version,
            registry=registry,
        )
        self.threshold = Gauge(
            "dunno_threshold_ratio",
            "Least confidence to answer by default.",
            by_version,
            registry=registry,
        )

    def _define_batches(self) -> None:
        registry = self.registry
        self.batch_rows = Histogram(
            "dunno_batch_rows", "Rows of a run.", ("model",), buckets=_ROWS, registry=registry
        )
        self.batch_limit_rows = Gauge(
            "dunno_batch_limit_rows",
            "Most rows of a run, by what runs cost at the moment.",
            ("model",),
            registry=registry,
        )
        self.batch_latency_goal = Gauge(
            "dunno_batch_latency_goal_seconds",
            "Longest run that batches are cut for; +Inf where they run beside the event loop.",
            ("model",),
            registry=registry,
        )
        self.batch_wait = Histogram(
            "dunno_batch_wait_seconds",
            "Time the first job of a batch waited.",
            ("model",),
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self.batch_closed = Counter(
            "dunno_batch_closed", "Why batches closed.", ("model", "cause"), registry=registry
        )
        self.batch_padded_rows = Counter(
            "dunno_batch_padded_rows", "Rows run only as padding.", ("model",), registry=registry
        )
        self.wasted_rows = Counter(
            "dunno_wasted_rows",
            "Rows computed although nobody waited.",
            ("model", "cause"),
            registry=registry,
        )
        self.lost_instances = Counter(
            "dunno_lost_instances",
            "Instances of a runtime that did not come back from a run, or gave other outputs.",
            ("model", "cause"),
            registry=registry,
        )
        self.queue_rows = Gauge(
            "dunno_queue_rows", "Rows waiting.", ("model", "lane"), registry=registry
        )
        self.queue_capacity_rows = Gauge(
            "dunno_queue_capacity_rows",
            "Rows that may wait.",
            ("model", "lane"),
            registry=registry,
        )

    def _define_models(self) -> None:
        registry = self.registry
        self.model_state = Gauge(
            "dunno_model_state",
            "1 for the state a version is in; `failed` beside `available`: its new files are bad.",
            ("model", "version", "state"),
            registry=registry,
        )
        self.model_info = Gauge(
            "dunno_model_info",
            "Constant 1: what serves a version, where, and which files.",
            ("model", "version", "runtime", "device", "sha256"),
            registry=registry,
        )
        self.model_load_duration = Histogram(
            "dunno_model_load_duration_seconds",
            "From checked files to a runtime.",
            ("model",),
            buckets=_LOAD_SECONDS,
            registry=registry,
        )
        self.model_warmup_duration = Histogram(
            "dunno_model_warmup_duration_seconds",
            "Golden rows and one run of each batch size.",
            ("model",),
            buckets=_LOAD_SECONDS,
            registry=registry,
        )
        self.model_last_success = Gauge(
            "dunno_model_last_success_timestamp_seconds",
            "Unix time of the last run that went well.",
            ("model",),
            registry=registry,
        )

    def _define_changes(self) -> None:
        registry = self.registry
        self.model_reloads = Counter(
            "dunno_model_reloads",
            "What became of a name when the catalogue was read anew.",
            ("model", "outcome"),
            registry=registry,
        )
        self.version_weight = Gauge(
            "dunno_version_weight_ratio",
            "Share of the requests that name no version, where weights share them out.",
            ("model", "version"),
            registry=registry,
        )
        self.rollbacks = Counter(
            "dunno_rollbacks",
            "Canaries that lost their traffic, by what was wrong with them.",
            ("model", "version", "reason"),
            registry=registry,
        )
        self.shadow_comparisons = Counter(
            "dunno_shadow_comparisons",
            "Rows copied to a candidate, by what came of it.",
            ("model", "candidate", "outcome"),
            registry=registry,
        )
        self.shadow_disagreements = Counter(
            "dunno_shadow_disagreements",
            "Rows judged otherwise, by best label and verdict: the live one's/the candidate's.",
            ("model", "candidate", "label", "verdict"),
            registry=registry,
        )

    def _define_process(self) -> None:
        registry = self.registry
        self.runtime_threads = Gauge(
            "dunno_runtime_threads", "Threads that one run may use.", registry=registry
        )
        self.cpu_quota_cores = Gauge(
            "dunno_cpu_quota_cores", "Cores this process may use.", registry=registry
        )
        self.event_loop_lag = Histogram(
            "dunno_event_loop_lag_seconds",
            "How late a timer of the event loop fired.",
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self.log_lines_dropped = Counter(
            "dunno_log_lines_dropped",
            "Lines of the log that nobody took in time.",
            registry=registry,
        )
        self.process_id = Gauge(
            "dunno_process_id", "Of the process whose series these are.", registry=registry
        )
        self.build_info = Gauge(
            "dunno_build_info",
            "Constant 1: what is running.",
            ("version", "commit", "python", "onnxruntime", "tensorflow"),
            registry=registry,
        )
        self.device_memory = Gauge(
            "dunno_device_memory_bytes",
            "Memory of each GPU that this process may use, by all who use it.",
            ("device", "kind"),
            registry=registry,
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def describe_process(self, versions: dict[str, str], threads: int, cores: float) -> None:
        """Set the constants of this process."""
        self.process_id.set(os.getpid())
        self.build_info.labels(python=platform.python_version(), **versions).set(1)
        self.runtime_threads.set(threads)
        self.cpu_quota_cores.set(cores)

    def forget_failures(self, names: Collection[str]) -> None:
        """Let nothing be `failed` any more under other names than these."""
        for model, version, state in self.model_state.values():
            if state == "failed" and model not in names:
                self.model_state.labels(model, version, state).set(0)

    def of_model(self, model: str, version: str, labels: Iterable[str] = ()) -> "ModelMetrics":
        """Return the series of one version of a model, creating them on the first call."""
        key = (model, version, tuple(labels))
        if key not in self._models:
            self._models[key] = ModelMetrics(self, *key)
        return self._models[key]

    def of_shadow(self, model: str, candidate: str, labels: Iterable[str]) -> "ShadowMetrics":
        """Return the series of a candidate; `labels` are those of the version that answers."""
        return ShadowMetrics(self, model, candidate, tuple(labels))

    def exposition(self, form: Format = TEXT) -> bytes:
        """Return all series as a scrape wants them written."""
        return form.write(self.registry)


class RequestMetrics:
    """The series that every request of one protocol counts in, looked up once."""

    def __init__(
        self, metrics: Metrics, model: str, version: str, protocol: str = "native"
    ) -> None:
        self._input_rejections = metrics.input_rejections
        self._answered_requests: list[tuple[str, float, Timing]] = []
        # Notes may be counted in the threads of scrapes and of large answers, and several protocols
        # and versions count in the same series: one lock for all.
        self._counting = metrics.counting
        self._model = model
        self.protocol = protocol
        self.stages = {stage: metrics.stage_duration.labels(model, stage) for stage in STAGES}
        self._requests = {
            outcome: metrics.requests.labels(model, version, protocol, outcome)
            for outcome in OUTCOMES
        }
        for reason in INPUT_REASONS:
            metrics.input_rejections.labels(model, reason)
        self._durations = {
            is_ok: metrics.request_duration.labels(model, protocol, "ok" if is_ok else "failed")
            for is_ok in (True, False)
        }

    def count_request(
        self, outcome: str, seconds: float, *, is_ok: bool, trace_id: str = ""
    ) -> None:
        """Count a request and how long it took; its trace becomes an example of that."""
        self._requests[outcome].inc()
        self._durations[is_ok].observe(seconds)
        if trace_id:
            self._durations[is_ok].exemplify(seconds, trace_id)

    def count_answered(
        self, outcome: str, seconds: float, timing: Timing, trace_id: str = ""
    ) -> None:
        """Count a request that got its verdicts: `answered`, `unknown` or `mixed`."""
        if trace_id:
            self._durations[True].exemplify(seconds, trace_id)
            for stage, stage_s in zip(STAGES, timing, strict=True):
                self.stages[stage].exemplify(stage_s, trace_id)
        self._answered_requests.append((outcome, seconds, timing))
        if len(self._answered_requests) >= NOTES:
            self.count_notes()

    def count_notes(self) -> None:
        """Count the requests that were noted down."""
        with self._counting:
            self._count_requests()

    def _count_requests(self) -> None:
        notes = _taken(self._answered_requests)
        if not notes:
            return
        outcomes, seconds, timings = zip(*notes, strict=True)
        for outcome, number in Tally(outcomes).items():
            self._requests[outcome].inc(number)
        self._durations[True].observe_all(seconds)
        for stage, values in zip(STAGES, zip(*timings, strict=True), strict=True):
            self.stages[stage].observe_all(values)

    def totals(self, *, is_ok: bool) -> tuple[int, float]:
        """Return how many requests were answered, or were not, and their seconds together."""
        durations = self._durations[is_ok]
        return sum(durations.counts), durations.sum

    def count_input_rejection(self, reason: str, number: int = 1) -> None:
        """Count rows, or a request, that were refused for what they hold."""
        self._input_rejections.labels(self._model, reason).inc(number)


class ModelMetrics(RequestMetrics):
    """The series of one version of one model, looked up once."""

    def __init__(self, metrics: Metrics, model: str, version: str, labels: tuple[str, ...]) -> None:
        super().__init__(metrics, model, version)
        self._metrics = metrics
        self._names = (model, version)
        self._protocols: dict[str, RequestMetrics] = {}
        self._answered = metrics.predictions.labels(model, version, "answer", "none")
        self._unknown = {
            reason: metrics.predictions.labels(model, version, "dont_know", reason)
            for reason in REASONS
        }
        self._labels = [
            metrics.predicted_class.labels(model, version, label)
            for label in labels
            if len(labels) <= MAX_COUNTED_LABELS
        ]
        self._confidence = metrics.confidence.labels(model, version)
        self._novelty = metrics.novelty.labels(model, version)
        self._rows: list[RowNote] = []
        self._drift: Drift | None = None
        self._drift_alarms = metrics.drift_alarms.labels(model, version)
        self.threshold = metrics.threshold.labels(model, version)
        self._batch_rows = metrics.batch_rows.labels(model)
        self.batch_limit_rows = metrics.batch_limit_rows.labels(model)
        self.batch_latency_goal = metrics.batch_latency_goal.labels(model)
        self._batch_wait = metrics.batch_wait.labels(model)
        self._closed = {cause: metrics.batch_closed.labels(model, cause) for cause in CAUSES}
        self._padded_rows = metrics.batch_padded_rows.labels(model)
        self._wasted = {cause: metrics.wasted_rows.labels(model, cause) for cause in WASTE_CAUSES}
        self.queue_rows = {lane: metrics.queue_rows.labels(model, lane) for lane in LANES}
        self.queue_capacity_rows = {
            lane: metrics.queue_capacity_rows.labels(model, lane) for lane in LANES
        }
        self.rejections = {
            cause: metrics.rejections.labels(model, cause) for cause in REJECTION_CAUSES
        }
        self.lost_instances = {
            cause: metrics.lost_instances.labels(model, cause) for cause in LOSSES
        }
        self._last_success = metrics.model_last_success.labels(model)
        for outcome in RELOAD_OUTCOMES:
            metrics.model_reloads.labels(model, outcome)
        self._info: tuple[str, ...] = ()

    def of_protocol(self, protocol: str) -> RequestMetrics:
        """Return the series of requests that come by a protocol, ours included."""
        if protocol == self.protocol:
            return self
        if protocol not in self._protocols:
            self._protocols[protocol] = RequestMetrics(self._metrics, *self._names, protocol)
        return self._protocols[protocol]

    def statistics(self) -> Statistics:
        """Return what has been counted so far, by requests of all protocols."""
        self.count_notes()
        series = [self, *self._protocols.values()]
        answered = [each.totals(is_ok=True) for each in series]
        failed = [each.totals(is_ok=False) for each in series]
        rows = [self._answered, *self._unknown.values()]
        return Statistics(
            requests=sum(number for number, _ in answered),
            requests_s=sum(seconds for _, seconds in answered),
            failures=sum(number for number, _ in failed),
            failures_s=sum(seconds for _, seconds in failed),
            rows=int(sum(each.value for each in rows)),
            batches=sum(self._batch_rows.counts),
            last_success_s=self._last_success.value,
            stages={name: (sum(each.counts), each.sum) for name, each in self.stages.items()},
        )

    def set_state(self, state: str) -> None:
        """Tell the state of the version, one of `STATES`."""
        for each in STATES:
            self._metrics.model_state.labels(*self._names, each).set(each == state)

    def describe(self, runtime: str, device: str, digest: str) -> None:
        """Tell what serves the version, where, and by which files."""
        self._info = (*self._names, runtime, device, digest)
        self._metrics.model_info.labels(*self._info).set(1)

    def retire(self) -> None:
        """Tell that the version is not served any more."""
        self.set_state("unloaded")
        self._metrics.model_info.remove(*self._info)

    def watch_drift(self, drift: Drift) -> None:
        """Let `drift` see every row from now on; its signals are computed when scraped."""
        self._drift = drift
        for signal, window in drift.windows.items():
            gauge = self._metrics.drift_distance.labels(*self._names, signal)
            gauge.set_function(window.distance)
        evidence = self._metrics.drift_evidence.labels(*self._names)
        evidence.set_function(lambda: drift.martingale.capital)

    def count_batch(self, rows: int, padded_rows: int, cause: str, wait_s: float) -> None:
        """Count a batch that closed."""
        self._batch_rows.observe(rows)
        self._batch_wait.observe(wait_s)
        self._closed[cause].inc()
        if padded_rows:
            self._padded_rows.inc(padded_rows)

    def count_waste(self, rows: int, cause: str) -> None:
        """Count rows that were computed although nobody waited."""
        self._wasted[cause].inc(rows)

    def count_success(self, timestamp_s: float) -> None:
        """Note when the last run went well, Unix seconds."""
        self._last_success.set(timestamp_s)

    def count_rows(self, rows: Iterable[RowNote]) -> None:
        """Count rows that got a verdict."""
        self._rows.extend(rows)
        if len(self._rows) >= NOTES:
            self.count_notes()

    def count_notes(self) -> None:
        """Count the requests and rows that were noted down."""
        for others in list(self._protocols.values()):
            others.count_notes()
        with self._counting:
            self._count_requests()
            self._count_rows()

    def _count_rows(self) -> None:
        notes = _taken(self._rows)
        if not notes:
            return
        reasons, best, confidence, novelty_p = zip(*notes, strict=True)
        for reason, number in Tally(reasons).items():
            (self._answered if reason is None else self._unknown[reason]).inc(number)
        if self._labels:
            for label, number in Tally(best).items():
                self._labels[label].inc(number)
        self._confidence.observe_all(confidence)
        p_values: Sequence[float] | None = None if novelty_p[0] is None else novelty_p
        if p_values is not None:
            self._novelty.observe_all(p_values)
        if self._drift is not None:
            self._drift_alarms.inc(self._drift.see(best, confidence, p_values))


class ShadowMetrics:
    """The series of a candidate that is compared with the version that answers."""

    def __init__(
        self, metrics: Metrics, model: str, candidate: str, labels: tuple[str, ...]
    ) -> None:
        self._metrics = metrics
        self._names = (model, candidate)
        self._labels = frozenset(labels if len(labels) <= MAX_COUNTED_LABELS else ())
        self._comparisons = {
            outcome: metrics.shadow_comparisons.labels(*self._names, outcome)
            for outcome in SHADOW_OUTCOMES
        }

    def count(self, outcome: str, rows: int) -> None:
        """Count rows by what came of their copies."""
        self._comparisons[outcome].inc(rows)

    def count_disagreement(self, label: str, verdict: str) -> None:
        """Count a row that was judged otherwise.

        Args:
            label: the live version's best one.
            verdict: the live version's / the candidate's, such as `answer/dont_know`.
        """
        counted = label if label in self._labels else OTHER_LABEL
        self._metrics.shadow_disagreements.labels(*self._names, counted, verdict).inc()


def _taken(notes: list[Note]) -> list[Note]:
    """Take the notes that are there out of a list to which others may be added meanwhile."""
    n = len(notes)
    taken = notes[:n]
    del notes[:n]
    return taken
