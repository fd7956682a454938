import asyncio
import io
import json
import math
import re
import sys
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from click.testing import CliRunner, Result
from compare import first_numbers, least_ratio, medians, parse_server
from PIL import Image
from rich.console import Console
from rich.table import Table

from service.bench import BenchFailed, Plan, Step, build_request, knee, measure_curve
from service.bench.curve import summary
from service.bench.load import Tally, count
from service.bench.plot import curve_plot
from service.bench.report import BAR_WIDTH, curve_picture, curve_table, remarks
from service.bench.response import MAX_HEAD_BYTES, AnswerBroken, AnswerReader
from service.bench.tuning import (
    CostLine,
    Trial,
    Tuned,
    best,
    environment_file,
    fit_line,
    largest_batch_rows,
    thread_counts,
    time_runs,
    tuned,
)
from service.cli import main

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;note=x\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"
)
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\n\r\nas long as it takes"
TRUNCATED = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"
SECONDS = 0.1


class Canned:
    """A server that gives the same answers in turn, whatever it is asked, and counts them."""

    def __init__(self, answers: tuple[bytes, ...], *, closes: bool) -> None:
        self.answers = answers
        self.closes = closes
        self.given = 0
        self.requests: set[bytes] = set()
        self.transports: set[asyncio.Transport] = set()
        self.url = ""


class Connection(asyncio.Protocol):
    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._canned.transports.add(transport)

    def data_received(self, data: bytes) -> None:
        # Requests are small enough to arrive whole.
        canned = self._canned
        canned.requests.add(data)
        self._transport.write(canned.answers[canned.given % len(canned.answers)])
        canned.given += 1
        if canned.closes:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._canned.transports.discard(self._transport)


@contextmanager
def serving(*answers: bytes, closes: bool = False) -> Iterator[Canned]:
    """Serve in a thread of its own, as the client blocks this one."""
    canned = Canned(answers, closes=closes)
    is_up, is_over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(canned, is_up, is_over)))
    thread.start()
    is_up.wait(5)
    try:
        yield canned
    finally:
        is_over.set()
        thread.join(5)


async def serve(canned: Canned, is_up: threading.Event, is_over: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(canned), "127.0.0.1", 0)
    canned.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    is_up.set()
    await asyncio.to_thread(is_over.wait)
    # What was accepted at the last moment is still attached to the server, which has to be open.
    await asyncio.sleep(0.05)
    server.close()
    for transport in list(canned.transports):
        transport.abort()
    await server.wait_closed()


def load(server: Canned, connections: int = 2, warm_up_s: float = 0) -> Tally:
    return count(build_request(server.url, b"x", "text/plain"), connections, warm_up_s, SECONDS)


def dunno(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)


# Answers as they arrive


@pytest.mark.parametrize("size", [1, 7, 10_000], ids=["bytes", "pieces", "whole"])
@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(GOOD, 200, id="length"),
        pytest.param(CHUNKED, 200, id="chunks"),
        pytest.param(FAILED, 500, id="failure"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, id="no content"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, 200, id="continue"),
    ],
)
def test_answer_is_complete_with_its_last_byte(content: bytes, status: int, size: int) -> None:
    reader = AnswerReader()
    pieces = [content[start : start + size] for start in range(0, len(content), size)]

    complete = [reader.feed(piece) for piece in pieces]

    assert complete == [False] * (len(pieces) - 1) + [True]
    assert reader.status == status


@pytest.mark.parametrize(
    ("content", "is_kept_alive"),
    [
        (GOOD, True),
        (CLOSING, False),
        (b"HTTP/1.0 204 x\r\n\r\n", False),
        (b"HTTP/1.0 204 x\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_connection_is_kept_as_the_server_says(content: bytes, *, is_kept_alive: bool) -> None:
    reader = AnswerReader()

    reader.feed(content)

    assert reader.is_kept_alive == is_kept_alive


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"SSH-2.0-x\r\n\r\n", id="another protocol"),
        pytest.param(GOOD + b"!", id="too long"),
        pytest.param(CHUNKED + b"!", id="too long after chunks"),
        pytest.param(CHUNKED.replace(b"5;", b"five;"), id="no length of a chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_HEAD_BYTES, id="endless headers"),
    ],
)
def test_answer_that_is_no_http_is_refused(content: bytes) -> None:
    with pytest.raises(AnswerBroken):
        AnswerReader().feed(content)


# Load


@pytest.mark.parametrize("answer", [GOOD, CHUNKED], ids=["length", "chunks"])
def test_every_answer_is_counted_once(answer: bytes) -> None:
    with serving(answer) as server:
        tally = load(server)

    # At the end both connections had a request on its way, and may have sent another one.
    assert server.given - 4 <= tally.statuses[200] <= server.given
    assert len(tally.seconds) == tally.statuses[200] > 0
    assert tally.broken == 0


def test_request_is_sent_as_it_was_built() -> None:
    with serving(GOOD) as server:
        load(server)

    (request,) = server.requests
    assert request.startswith(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:")
    assert request.endswith(b"Content-Type: text/plain\r\nContent-Length: 1\r\n\r\nx")


def test_warm_up_is_not_counted() -> None:
    with serving(GOOD) as server:
        tally = load(server, warm_up_s=SECONDS)

    assert tally.statuses[200] < server.given - 4
    assert tally.elapsed_s > 0.9 * SECONDS  # timers of the event loop are rounded


def test_other_statuses_are_counted_apart() -> None:
    with serving(GOOD, FAILED) as server:
        step = summary(2, [load(server)])

    assert abs(step.failures_by_status[500] - step.answers) <= 2
    assert step.errors == step.failures_by_status[500]


@pytest.mark.parametrize("answer", [CLOSING, UNTIL_CLOSE], ids=["said so", "ends the answer"])
def test_connection_that_the_server_closes_is_opened_again(answer: bytes) -> None:
    with serving(answer, closes=True) as server:
        tally = load(server)

    assert tally.statuses[200] > 2
    assert tally.broken == 0


def test_connection_that_ends_within_an_answer_is_broken() -> None:
    with serving(TRUNCATED, closes=True) as server:
        tally = load(server)

    assert tally.broken > 2
    assert not tally.statuses


def test_refused_connection_is_broken() -> None:
    tally = count(build_request("http://127.0.0.1:1/", None, ""), 2, 0, SECONDS)

    assert tally.broken > 0


# Curve


def step_of(connections: int, requests_per_s: float) -> Step:
    return Step(connections, requests_per_s, 0.001, 0.002, 0.003, 100, {}, 0, 0.1)


def tally_of(*seconds: float, cpu_s: float = 1.0) -> Tally:
    return Tally(array("d", seconds), Counter({200: len(seconds)}), 0, elapsed_s=2.0, cpu_s=cpu_s)


def test_knee_is_the_fewest_connections_with_almost_the_best_throughput() -> None:
    curve = [step_of(1, 100), step_of(8, 949), step_of(16, 951), step_of(64, 1000)]

    assert knee(curve).connections == 16


def test_processes_of_a_step_are_added_up() -> None:
    step = summary(4, [tally_of(0.001, 0.003, cpu_s=0.2), tally_of(0.002, cpu_s=1.0)])

    assert step.answers == 3
    assert step.requests_per_s == 1.5
    assert step.p50_s == 0.002
    assert step.client_share == 0.5


def printed(table: Table) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def test_picture_marks_the_knee_and_its_bars_are_as_long_as_the_throughput() -> None:
    steps = [step_of(1, 250), step_of(8, 500), step_of(32, 1000), step_of(64, 990)]

    lines = [line for line in printed(curve_picture(steps)) if "█" in line]

    assert [line.split()[0] for line in lines] == ["1", "8", "32", "64"]
    assert [" knee " in line for line in lines] == [False, False, True, False]
    bars = [re.findall("█+", line)[0] for line in lines]
    assert len(bars[2]) == BAR_WIDTH
    # The rest of a cell is drawn as a part of a block.
    assert [round(len(bar) / BAR_WIDTH, 1) for bar in bars[:2]] == [0.2, 0.5]


def test_picture_places_times_between_the_least_median_and_the_worst_p99() -> None:
    quick = Step(1, 100, 0.001, 0.001, 0.001, 9, {}, 0, 0.1)
    slow = Step(2, 100, 0.100, 0.100, 0.100, 9, {}, 0, 0.1)

    lines = printed(curve_picture([quick, slow]))

    first, last = (line for line in lines if "█" in line)
    assert "p50 to p99, 1 to 100 ms, log" in lines[1]
    assert len(last.rstrip()) - len(first.rstrip()) >= BAR_WIDTH - 2


def test_step_without_an_answer_says_so_in_the_picture() -> None:
    none = Step(2, 0, math.nan, math.nan, math.nan, 0, {503: 9}, 0, 0.1)

    lines = printed(curve_picture([step_of(1, 100), none]))

    assert [line.split() for line in lines if "no answer" in line] == [["2", "no", "answer"]]


def test_table_has_the_errors_of_every_step() -> None:
    failing = Step(2, 50, 0.001, 0.002, 0.003, 9, {503: 9}, 4, 0.1)

    lines = printed(curve_table([step_of(1, 100), failing]))

    assert [line.rstrip().endswith("9x 503, 4 broken") for line in lines].count(True) == 1


def test_client_that_used_up_its_core_says_so() -> None:
    quiet, busy = summary(1, [tally_of(0.001)]), summary(64, [tally_of(0.001, cpu_s=1.9)])

    assert not [line for line in remarks([quiet], 1) if "client" in line]
    (warning,) = [line for line in remarks([quiet, busy], 1) if "client" in line]
    assert "used up its core at 64 connections" in warning
    assert "--processes 2" in warning


def test_several_processes_share_the_connections() -> None:
    with serving(GOOD) as server:
        request = build_request(server.url, None, "")
        (step,) = measure_curve(request, Plan((3,), SECONDS, processes=2))

    assert 0 < step.answers <= server.given
    assert step.errors == 0


def test_server_that_fails_under_load_alone_is_reported() -> None:
    with serving(GOOD, *[FAILED] * 100_000) as server:
        request = build_request(server.url, None, "")
        with pytest.raises(BenchFailed, match=r"no 2xx answer under load, and \d+ errors"):
            list(measure_curve(request, Plan((1,), SECONDS)))


def test_request_carries_the_headers_that_it_is_given() -> None:
    request = build_request("http://127.0.0.1/", b"x", "text/plain", ["X-API-Key: secret"])

    assert b"\r\nX-API-Key: secret\r\n" in request.content


# dunno bench


def test_bench_prints_the_curve_and_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "body.json").write_text("{}")
    with serving(GOOD) as server:
        result = dunno(
            *("bench", server.url, "--body", tmp_path / "body.json", "--concurrency", "2,1"),
            *("--seconds", SECONDS, "--json", tmp_path / "curve.json"),
        )

    assert result.exit_code == 0
    assert "knee: " in result.stdout
    assert "connections" in result.stdout
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [step["connections"] for step in curve["steps"]] == [1, 2]
    assert all(step["p50_ms"] <= step["p99_ms"] for step in curve["steps"])
    assert all(b"Content-Type: application/json" in request for request in server.requests)


@pytest.mark.slow
def test_bench_plots_the_curve(tmp_path: Path) -> None:
    png, svg = tmp_path / "curve.png", tmp_path / "curve.svg"

    with serving(GOOD) as server:
        arguments = ("bench", server.url, "--concurrency", "1,2", "--seconds", SECONDS, "--plot")
        results = [dunno(*arguments, file) for file in (png, svg)]

    assert [result.exit_code for result in results] == [0, 0]
    with Image.open(png) as picture:
        assert picture.format == "PNG"
        assert picture.width == 1000
    assert b"<svg" in svg.read_bytes()


def test_plot_names_the_server_the_day_and_the_knee(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")  # text that can be read
    none = Step(16, 0, math.nan, math.nan, math.nan, 0, {503: 9}, 0, 0.1)
    steps = [step_of(1, 100), step_of(8, 1000), none]

    drawn = curve_plot(Path("curve.SVG"))("http://here/$a$", steps).decode()

    today = datetime.now(UTC).date().isoformat()
    assert f"http://here/$a$, {today}" in drawn
    assert "knee: 8 connections," in drawn
    assert {"p50", "p99", "connections", "requests/s"} <= set(re.findall(">([^<>]+)</text>", drawn))


@pytest.mark.parametrize("name", ["curve.gif", "curve", "png"])
def test_plot_of_another_kind_is_refused_before_anything_is_measured(name: str) -> None:
    with serving(GOOD) as server:
        result = dunno("bench", server.url, "--plot", name)

    assert result.exit_code == 2
    expected = f"dunno: --plot: expected a file ending in .png or .svg, got '{name}'\n"
    assert result.stderr == expected
    assert server.given == 0


def test_plot_without_matplotlib_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)

    with pytest.raises(BenchFailed, match=r"matplotlib: .*pip install -e '\.\[training\]'$"):
        curve_plot(Path("curve.png"))


def test_server_that_answers_errors_only_is_one_sentence_and_exit_code_two() -> None:
    with serving(FAILED) as server:
        result = dunno("bench", server.url)

    assert result.exit_code == 2
    assert result.stderr.endswith("the server answers 500 to this request: oops\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("http://127.0.0.1:1/",), "Connection refused"),
        (("https://127.0.0.1/",), "expected an address such as http://"),
        (("127.0.0.1:8000",), "expected an address such as http://"),
        (("http://127.0.0.1:99999/",), "Port out of range"),
        (("http://127.0.0.1/ä",), "expected an address in ASCII"),
        (("http://127.0.0.1/", "--header", "a key"), "expected a header such as"),
        (("http://127.0.0.1/", "--header", "A: b\r\nC: d"), "expected a header such as"),
        (("http://127.0.0.1:1/", "--concurrency", "1,x"), "expected numbers from 1 on"),
        (("http://127.0.0.1:1/", "--body", "nowhere.json"), "a file that can be read"),
        (("http://127.0.0.1:1/", "--body", "a", "--content-type", "b/c"), "a file that can be"),
    ],
)
def test_bench_refuses_what_cannot_be_in_one_sentence(
    arguments: tuple[str, ...], expected: str
) -> None:
    result = dunno("bench", *arguments)

    assert result.exit_code == 2
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_server_that_speaks_no_http_is_one_sentence() -> None:
    with serving(b"220 mail.example\r\n", closes=True) as server:
        result = dunno("bench", server.url)

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


# dunno tune


def made_up(fixed_s: float, row_s: float) -> dict[int, float]:
    return {rows: fixed_s + row_s * rows for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256)}


def trial_of(costs: dict[int, float], threads: int = 1, workers: int = 4) -> Trial:
    return Trial("cpu", threads, workers, costs)


def test_line_of_a_made_up_cost_is_found() -> None:
    line = fit_line(made_up(0.002, 0.0005))

    assert line.fixed_s == pytest.approx(0.002)
    assert line.row_s == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        pytest.param({1: 0.001, 2: 0.004, 4: 0.01}, "fixed_s", id="no fixed part"),
        pytest.param({1: 0.004, 2: 0.002, 4: 0.001}, "row_s", id="quicker with more rows"),
    ],
)
def test_no_part_of_a_cost_is_below_zero(costs: dict[int, float], expected: str) -> None:
    line = fit_line(costs)

    assert getattr(line, expected) == 0
    assert line.seconds(2) > 0


@pytest.mark.parametrize("goal_s", [0.004, 0.02, 0.1])
def test_largest_batch_takes_at_most_half_of_the_goal(goal_s: float) -> None:
    found = tuned(trial_of(made_up(0.001, 0.0005)), goal_s)

    assert found
    line = CostLine(0.001, 0.0005)
    assert line.seconds(found.max_batch_rows) <= goal_s / 2 * (1 + 1e-9)
    assert line.seconds(found.max_batch_rows + 1) > goal_s / 2
    assert found.rows_per_s == pytest.approx(4 * found.max_batch_rows / found.batch_s)


def test_no_batch_is_larger_than_what_was_measured() -> None:
    assert largest_batch_rows({1: 1e-6, 2: 2e-6}, CostLine(0, 1e-6), limit_s=1) == 2


def test_batch_that_was_measured_as_too_slow_is_not_taken_on_the_word_of_the_line() -> None:
    costs = {1: 0.001, 2: 0.002, 4: 0.02}

    assert largest_batch_rows(costs, CostLine(0, 0.001), limit_s=0.01) == 3


def test_model_that_is_too_slow_for_the_goal_gets_no_settings() -> None:
    assert tuned(trial_of(made_up(0.011, 0.001)), 0.02) is None


def test_gpu_gets_one_worker() -> None:
    found = tuned(Trial("cuda", 1, 4, made_up(0.001, 0.0001)), 0.02)

    assert found
    assert found.workers == 1


def test_most_rows_a_second_are_best_and_then_fewest_threads() -> None:
    slow, quick = Tuned(1, 4, 8, 0.01, 3200.0), Tuned(2, 2, 20, 0.01, 4000.0)
    quick_by_more = Tuned(4, 1, 40, 0.01, 4000.0)

    assert best([slow, quick_by_more, quick]) is quick


def test_threads_are_tried_from_one_to_all_cores() -> None:
    assert [list(thread_counts(cores)) for cores in (1, 2, 6)] == [[1], [1, 2], [1, 2, 4, 6]]


def test_runs_are_timed_until_they_take_too_long() -> None:
    rows = np.arange(6.0).reshape(2, 3)
    shapes = set()

    times = time_runs(lambda batch: shapes.add(batch.shape), rows, enough_s=0.0)

    assert shapes == {(1, 3), (2, 3)}
    assert list(times) == [1, 2]


def test_env_file_holds_the_settings() -> None:
    text = environment_file(Tuned(2, 3, 48, 0.01, 100.0), "how it was made")

    assert text.splitlines() == [
        "# how it was made",
        "DUNNO_MAX_BATCH_ROWS=48",
        "DUNNO_RUNTIME_THREADS=2",
        "DUNNO_WORKERS=3",
    ]


@pytest.mark.slow
def test_tune_prints_and_writes_settings_of_a_real_model(models: Path, tmp_path: Path) -> None:
    result = dunno(
        *("tune", "fruit", "--p99-ms", 1000, "--models", models, "--write", tmp_path / "env")
    )

    assert result.exit_code == 0
    assert "DUNNO_MAX_BATCH_ROWS=256" in result.stdout  # a few additions a row
    assert "Not known here: the network" in result.stdout
    assert "DUNNO_WORKERS=" in (tmp_path / "env").read_text()


def test_tune_of_a_model_that_is_not_served_is_one_sentence(models: Path) -> None:
    result = dunno("tune", "nuts", "--p99-ms", 20, "--models", models)

    assert result.exit_code == 2
    assert result.stderr.startswith("dunno: no model 'nuts'; served here: fruit")


# load_tests/compare.py


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("other=serve --a=b", ("other", "/predict", "serve --a=b")),
        ("other/v1/infer=serve", ("other", "/v1/infer", "serve")),
    ],
)
def test_further_server_has_a_name_a_path_and_a_command(
    text: str, expected: tuple[str, str, str]
) -> None:
    server = parse_server(text)

    assert (server.name, server.path, server.command) == expected


def test_probabilities_are_found_in_answers_of_any_shape() -> None:
    ten = [0.1] * 10
    answer = {"model": "x", "predictions": [{"labels": ["7"], "probabilities": ten}]}

    assert first_numbers(answer, 10) == ten
    assert first_numbers({"predictions": [[0.5, 0.5]]}, 10) is None


def test_servers_are_compared_by_medians_over_the_rounds() -> None:
    rounds = [step_of(8, 100), step_of(64, 1), step_of(8, 300), step_of(8, 110)]

    assert medians(rounds, 8).requests_per_s == 110


def test_least_ratio_is_where_the_first_server_is_slowest_beside_another() -> None:
    steps = {
        "ours": [step_of(8, 300), step_of(64, 100)],
        "plain": [step_of(8, 100), step_of(64, 80)],
        "peer": [step_of(8, 100), step_of(64, 200)],
    }

    assert least_ratio(steps) == 0.5
    assert least_ratio({"ours": steps["ours"]}) == math.inf


def test_step_without_an_answer_has_no_times() -> None:
    assert math.isnan(summary(1, [Tally(elapsed_s=1.0)]).p99_s)
