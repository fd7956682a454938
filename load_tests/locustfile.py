"""Locust users for every model, body kind and protocol, with thresholds that fail the run.

A class for each model and way, such as `MnistPNG`, `WineCSV`, `ImdbV1`; name some to have only
those. Most ask real rows, some outliers, a few send what is to be refused with 4xx. Each answer is
checked. The run ends with exit code 1 if one request failed, if a real row's p99 is above
`--p99-ms`, or if more than `--most-dont-know` of the real rows got a "don't know".

    locust -f load_tests/locustfile.py                                  (pages at :8089)
    locust -f load_tests/locustfile.py --headless -u 40 -r 40 -t 60s --shape spike WineCSV MnistPNG

`LOAD_MODELS` names the folder of the served models, if it is not `models` of this repository.
"""

import collections
import logging
import os
import random
from pathlib import Path
from typing import Any, ClassVar

from locust import FastHttpUser, LoadTestShape, between, events
from locust.stats import StatsEntry
from mixes import (
    BAD,
    OUTLIER,
    REAL,
    SHAPES,
    WAYS,
    Bounds,
    Outcome,
    Subject,
    asks,
    exceeded,
    judge,
    subjects,
    users_at,
)

WEIGHTS = {REAL: 80, OUTLIER: 15, BAD: 5}
PERIOD_S = 60.0
"""Length of a shape if no `--run-time` is given; it then starts again."""

log = logging.getLogger("dunno.load")
verdicts: collections.Counter[str] = collections.Counter()
"""Of the real rows, all users together."""


class Caller(FastHttpUser):  # type: ignore[misc]
    """Asks one model by one way."""

    abstract = True
    host = "http://127.0.0.1:8000"
    wait_time = between(0.05, 0.2)
    subject: ClassVar[Subject]
    way: ClassVar[str]

    def on_start(self) -> None:
        """Make this caller's requests; outliers differ from caller to caller."""
        self._rng = random.Random()
        self._asks = asks(self.subject, self.way, self._rng)

    def ask(self) -> None:
        """Ask once and look at the answer."""
        (intent,) = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        ask = self._rng.choice(self._asks[intent])
        name = f"{self.subject.name}, {self.way}: {intent}"
        with self.client.post(
            ask.body.path,
            data=ask.body.content,
            headers={"Content-Type": ask.body.content_type},
            name=name,
            catch_response=True,
        ) as response:
            found = judge(self.subject, ask, response.status_code, response.content or b"")
            if found.problem:
                response.failure(found.problem)
                return
            response.success()
        if intent == REAL:
            verdicts.update(found.verdicts)

    tasks: ClassVar[list[Any]] = [ask]


def _callers(models: Path) -> dict[str, type]:
    """Return a class for each model and way."""
    found = {}
    for subject in subjects(models):
        for way in WAYS[subject.kind]:
            words = (*subject.name.split("_"), way)
            name = "".join(word[:1].upper() + word[1:] for word in words)
            found[name] = type(name, (Caller,), {"subject": subject, "way": way})
    return found


MODELS = Path(os.environ.get("LOAD_MODELS", Path(__file__).resolve().parents[1] / "models"))
globals().update(_callers(MODELS))


class Shape(LoadTestShape):  # type: ignore[misc]
    """The shape of `--shape`, stretched over the run's time."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there are to be, and how many may start in a second."""
        options = self.runner.environment.parsed_options
        run_time_s = options.run_time
        if run_time_s and self.get_run_time() >= run_time_s:
            return None
        users = options.num_users or 1
        if options.shape == "flat":
            return users, options.spawn_rate or 1
        elapsed = self.get_run_time() / (run_time_s or PERIOD_S)
        if options.shape != "soak" and not run_time_s:
            elapsed %= 1
        return users_at(options.shape, elapsed, users), users


def add_options(parser: Any) -> None:
    """Add what can be chosen on the command line and on Locust's page."""
    group = parser.add_argument_group("dunno")
    group.add_argument("--shape", choices=SHAPES, default="flat", help="how the load goes")
    group.add_argument("--p99-ms", type=float, default=2000, help="of real rows, at most")
    group.add_argument(
        "--most-dont-know", type=float, default=0.3, help='share of real rows with "don\'t know"'
    )


def judge_run(environment: Any, **_others: Any) -> None:
    """Say which thresholds were not kept, and end with exit code 1 if there is one."""
    real = StatsEntry(environment.stats, REAL, "POST")
    for entry in environment.stats.entries.values():
        if entry.name.endswith(REAL):
            real.extend(entry)
    p99_ms = real.get_response_time_percentile(0.99)
    failures = environment.stats.total.num_failures
    outcome = Outcome(failures, p99_ms, verdicts["answer"], verdicts["dont_know"])
    options = environment.parsed_options
    found = exceeded(outcome, Bounds(options.p99_ms, options.most_dont_know))
    for sentence in found:
        log.error("threshold: %s", sentence)
    if found:
        environment.process_exit_code = 1
    else:
        log.info("all thresholds kept: %s", outcome)


def send_verdicts(data: dict[str, Any], **_others: Any) -> None:
    """Tell the first of several processes what this one has counted."""
    data["verdicts"] = dict(verdicts)
    verdicts.clear()


def add_verdicts(data: dict[str, Any], **_others: Any) -> None:
    """Add what another process has counted."""
    verdicts.update(data["verdicts"])


def forget(**_others: Any) -> None:
    """Count from nothing: on its page Locust starts one run after another."""
    verdicts.clear()


def connect(environment: Any, **_others: Any) -> None:
    """Judge at the end; of several processes only the first has all numbers."""
    if environment.runner.__class__.__name__ != "WorkerRunner":
        environment.events.quitting.add_listener(judge_run)
    environment.events.test_start.add_listener(forget)


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(connect)
events.report_to_master.add_listener(send_verdicts)
events.worker_report.add_listener(add_verdicts)
