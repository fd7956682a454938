"""Locust's users in `load_tests/locustfile.py`, in a process of their own: it patches sockets."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from many_callers import serving
from mixes import (
    BAD,
    OUTLIER,
    REAL,
    Ask,
    Body,
    Bounds,
    Outcome,
    exceeded,
    judge,
    subjects,
    users_at,
)

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
USERS = ("WineCSV", "MnistMultipart", "ImdbText", "TitanicV2")
BOUNDS = Bounds(p99_ms=100, most_dont_know=0.5)
BODY = Body("/predict/iris", "application/json", b"{}", 1)


def locust(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  our own command
        [sys.executable, "-m", "locust", "-f", "load_tests/locustfile.py", *options],
        cwd=ROOT,
        env=os.environ | {"LOAD_MODELS": str(MODELS)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run(address: str, seconds: int, *options: str) -> "subprocess.CompletedProcess[str]":
    load = ("--headless", "--users", "4", "--spawn-rate", "4", "--run-time", f"{seconds}s")
    return locust(*load, "--only-summary", "--host", address, *options)


class _Broken(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002  of the base class
        pass


@pytest.fixture
def broken() -> Iterator[str]:
    """The address of a server that answers 500."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_run_against_a_sound_server_keeps_all_thresholds_and_writes_its_report(
    tmp_path: Path,
) -> None:
    with serving(MODELS) as (_, address):
        report = tmp_path / "load.html"
        done = run(address, 5, "--html", str(report), "--p99-ms", "30000", *USERS)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "all thresholds kept" in done.stderr
    for asked in ("wine, CSV", "mnist, multipart", "imdb, text", "titanic, v2"):
        assert f"{asked}: real row" in done.stderr
    assert "mnist, multipart: real row" in report.read_text()


@pytest.mark.slow
def test_a_run_against_a_server_that_answers_500_ends_with_exit_code_1(broken: str) -> None:
    done = run(broken, 2, *USERS)

    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert "requests failed, expected none" in done.stderr


@pytest.mark.slow
def test_a_threshold_that_is_not_kept_ends_a_run_without_failures_with_exit_code_1() -> None:
    with serving(MODELS) as (_, address):
        done = run(address, 2, "--most-dont-know", "-1", "--shape", "steps", "IrisNpy")

    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert "expected -100.0% at most" in done.stderr
    assert "requests failed" not in done.stderr


def test_there_are_users_for_each_model_body_kind_and_protocol() -> None:
    features = ("JSON", "CSV", "Npy", "V1", "V2")
    pictures = ("JSON", "PNG", "Multipart", "Npy", "V1", "V2")
    expected = {f"{name}{way}" for name in ("Wine", "Iris", "Titanic") for way in features}
    expected |= {f"{name}{way}" for name in ("Mnist", "FashionMnist") for way in pictures}
    expected |= {f"Imdb{way}" for way in ("JSON", "Text", "V1", "V2")}

    listed = {line.strip() for line in locust("--list").stdout.splitlines()}

    assert {line for line in listed if line and " " not in line} == expected


@pytest.mark.parametrize(
    ("shape", "users"),
    [
        ("flat", [50, 50, 50, 50, 50]),
        ("steps", [10, 20, 30, 40, 50]),
        ("spike", [5, 5, 50, 5, 5]),
        ("soak", [1, 50, 50, 50, 50]),
    ],
)
def test_a_shape_tells_how_many_users_there_are_at_each_fifth_of_its_time(
    shape: str, users: list[int]
) -> None:
    assert [users_at(shape, elapsed, 50) for elapsed in (0, 0.21, 0.41, 0.61, 0.81)] == users


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(1, 50, 10, 0), "1 requests failed"),
        (Outcome(0, 101, 10, 0), "p99 of real rows: 101 ms, expected 100 at most"),
        (Outcome(0, 50, 4, 6), '"don\'t know" to 60.0% of real rows, expected 50.0% at most'),
        (Outcome(0, 50, 0, 0), "no real row got a verdict"),
    ],
)
def test_each_threshold_that_is_not_kept_has_its_sentence(outcome: Outcome, words: str) -> None:
    assert exceeded(Outcome(0, 100, 5, 5), BOUNDS) == []
    (sentence,) = exceeded(outcome, BOUNDS)
    assert words in sentence


def _answer(**other: object) -> bytes:
    sound: dict[str, object] = {"verdict": "answer", "label": "setosa", "reason": None}
    sound["probabilities"] = {"setosa": 0.9, "versicolor": 0.1, "virginica": 0.0}
    return json.dumps({"predictions": [sound | other]}).encode()


@pytest.mark.parametrize(
    ("intent", "status", "content"),
    [
        (REAL, 200, _answer()),
        (REAL, 200, _answer(verdict="dont_know", label=None, reason="ambiguous")),
        (OUTLIER, 200, _answer(verdict="dont_know", label=None, reason="out_of_distribution")),
        (OUTLIER, 400, b""),
        (BAD, 400, b""),
        (BAD, 415, b""),
    ],
)
def test_a_sound_answer_is_no_failure(intent: str, status: int, content: bytes) -> None:
    assert _judged(intent, status, content) is None


@pytest.mark.parametrize(
    ("intent", "status", "content", "words"),
    [
        (REAL, 400, b"", "real row got 400"),
        (REAL, 0, b"", "real row got 0"),
        (OUTLIER, 500, b"", "outlier got 500"),
        (OUTLIER, 429, b"", "outlier got 429"),
        (BAD, 500, b"", "bad input got 500"),
        (BAD, 200, _answer(), "bad input got 200"),
        (REAL, 200, b"{", "no well-formed answer"),
        (REAL, 200, b"[]", "no well-formed answer"),
        (REAL, 200, b'{"predictions": [{"error": {}}]}', "no well-formed answer"),
        (REAL, 200, b'{"predictions": []}', "0 verdicts for 1 rows"),
        (REAL, 200, _answer(label="rose"), "label 'rose'"),
        (REAL, 200, _answer(verdict="dont_know"), "verdict 'dont_know', label 'setosa'"),
        (REAL, 200, _answer(verdict="perhaps"), "verdict 'perhaps'"),
        (REAL, 200, _answer(probabilities={"setosa": 1.0}), "1 probabilities for 3 labels"),
        (
            REAL,
            200,
            _answer(probabilities={"setosa": 0.9, "versicolor": 0.9, "virginica": 0.9}),
            "sum 2.7",
        ),
    ],
)
def test_an_answer_that_is_not_sound_is_a_failure_that_says_why(
    intent: str, status: int, content: bytes, words: str
) -> None:
    assert words in (_judged(intent, status, content) or "")


def _judged(intent: str, status: int, content: bytes) -> str | None:
    (iris,) = (subject for subject in subjects(MODELS) if subject.name == "iris")
    return judge(iris, Ask(intent, BODY), status, content).problem
