import platform
import sys
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.drift import Drift
from service.telemetry.metrics import MAX_COUNTED_LABELS, NOTES, Metrics, RequestMetrics, Timing


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Return samples by name and the labels that follow model and version."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (
            sample.name,
            ",".join(sorted(v for k, v in sample.labels.items() if k not in ("model", "version"))),
        ): sample.value
        for family in families
        for sample in family.samples
    }


def test_series_of_a_model_exist_before_its_first_request() -> None:
    metrics = Metrics()
    metrics.of_model("wine", "1", ("red", "white"))

    found = samples(metrics)

    assert found["dunno_requests_total", "error,native"] == 0
    assert found["dunno_predictions_total", "dont_know,out_of_distribution"] == 0
    assert found["dunno_predicted_class_total", "red"] == 0
    assert found["dunno_batch_closed_total", "full"] == 0
    assert found["dunno_model_reloads_total", "failed"] == 0


def test_rows_are_counted_by_verdict_label_confidence_and_novelty() -> None:
    metrics = Metrics()
    model = metrics.of_model("wine", "1", ("red", "white"))

    model.count_rows([(None, 1, 0.98, 0.5), ("ambiguous", 1, 0.5, 0.002)])

    found = samples(metrics)
    assert found["dunno_predictions_total", "answer,none"] == 1
    assert found["dunno_predictions_total", "ambiguous,dont_know"] == 1
    assert found["dunno_predicted_class_total", "white"] == 2
    assert found["dunno_confidence_count", ""] == 2
    assert found["dunno_novelty_bucket", "0.003"] == 1


def test_labels_are_not_counted_one_by_one_when_there_are_too_many() -> None:
    metrics = Metrics()
    labels = tuple(str(label) for label in range(MAX_COUNTED_LABELS + 1))
    model = metrics.of_model("zoo", "1", labels)

    model.count_rows([(None, 7, 0.9, None)])

    assert not [name for name, _ in samples(metrics) if name == "dunno_predicted_class_total"]


def test_process_is_described() -> None:
    metrics = Metrics()
    versions = {"version": "1", "commit": "c0ffee", "onnxruntime": "2", "tensorflow": ""}
    metrics.describe_process(versions, threads=3, cores=1.5)

    found = samples(metrics)
    info = metrics.registry.get_sample_value(
        "dunno_build_info", {**versions, "python": platform.python_version()}
    )

    assert info == 1

    assert found["dunno_runtime_threads", ""] == 3
    assert found["dunno_cpu_quota_cores", ""] == 1.5
    assert ("process_resident_memory_bytes", "") in found


def test_drift_is_measured_once_it_is_watched() -> None:
    metrics = Metrics()
    model = metrics.of_model("wine", "1", ("red", "white"))
    model.watch_drift(Drift([0.5, 0.5], [0.5, 0.5], [1.0, 0.0]))

    for _ in range(1000):
        model.count_rows([(None, 1, 0.9, 0.0001)])

    found = samples(metrics)
    assert found["dunno_drift_distance_ratio", "label"] == 1
    assert found["dunno_drift_distance_ratio", "novelty"] == 0.5
    assert found["dunno_drift_alarms_total", ""] > 0
    assert found["dunno_drift_evidence_ratio", ""] >= 1


def test_requests_are_counted_whether_somebody_looks_or_not() -> None:
    metrics = Metrics()
    model = metrics.of_model("wine", "1", ("red", "white"))

    for _ in range(NOTES + 1):
        model.count_answered("answered", 0.004, Timing(0.001, 0.002, 0.0004, 0.0001, 0.0001))

    found = samples(metrics)
    assert found["dunno_requests_total", "answered,native"] == NOTES + 1
    assert found["dunno_request_duration_seconds_count", "native,ok"] == NOTES + 1
    assert found["dunno_stage_duration_seconds_bucket", "0.002,queue"] == NOTES + 1
    assert found["dunno_stage_duration_seconds_bucket", "0.001,queue"] == 0


def test_nothing_is_lost_or_counted_twice_while_somebody_looks() -> None:
    metrics = Metrics()
    model = metrics.of_model("wine", "1", ("red", "white"))
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            metrics.exposition()

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(100 * NOTES):
        model.count_rows([(None, 1, 0.9, 0.5)])
    is_over.set()
    looking.join()

    assert samples(metrics)["dunno_predictions_total", "answer,none"] == 100 * NOTES


def test_requests_by_another_protocol_have_series_of_their_own() -> None:
    metrics = Metrics()
    model = metrics.of_model("wine", "1", ("red", "white"))

    model.of_protocol("v1").count_answered("answered", 0.001, Timing(0, 0, 0, 0, 0))

    found = samples(metrics)
    assert found["dunno_requests_total", "answered,v1"] == 1
    assert found["dunno_requests_total", "answered,native"] == 0
    assert found["dunno_stage_duration_seconds_count", "run"] == 1


def test_requests_of_two_protocols_that_are_counted_in_two_threads_are_all_counted() -> None:
    metrics = Metrics()
    native = metrics.of_model("fruit", "1", ("apple",))
    protocols = (native.of_protocol("v1"), native.of_protocol("v2"))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def count(protocol: RequestMetrics) -> None:
        for _ in range(3000):
            protocol.count_answered("answered", 0.01, Timing(0, 0, 0.01, 0, 0))
            protocol.count_notes()

    threads = [threading.Thread(target=count, args=[each]) for each in protocols]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)

    number, seconds = native.statistics().stages["run"]
    assert number == 6000
    assert seconds == pytest.approx(60)
