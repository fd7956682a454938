"""What was measured, for people and for programs."""

import math
from collections.abc import Sequence

from rich import box
from rich.bar import Bar
from rich.table import Table

from service.bench.curve import Plan, Step, knee
from service.bench.request import Request
from service.bench.tuning import Trial, Tuned, fit_line

BAR_WIDTH = 26
LEAST_BAR_SHARE = 1 / BAR_WIDTH
MS_PER_S = 1000

TUNING_LIMITS = (
    "Not known here: the network, reading and decoding of requests, other models of the same "
    "process, and how much workers that run at the same time slow each other. The settings hold "
    "for all models of a server: tune the slowest one, and look at the result with `dunno bench`."
)


def curve_table(steps: Sequence[Step]) -> Table:
    """Return the numbers of each step on a line, the knee's in bold.

    `client` is the share of its core that the busiest client process used.
    """
    bend = knee(steps)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("connections", "requests/s", "p50 ms", "p90", "p99", "client"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("errors", min_width=len("errors"))
    for step in steps:
        times_s = (step.p50_s, step.p90_s, step.p99_s)
        table.add_row(
            str(step.connections),
            f"{step.requests_per_s:,.0f}",
            *(f"{time_s * MS_PER_S:.2f}" if step.answers else "" for time_s in times_s),
            f"{step.client_share:.0%}",
            _errors(step),
            style="bold" if step is bend else None,
        )
    return table


def curve_picture(steps: Sequence[Step]) -> Table:
    """Return the curve: bars of requests/s, the knee marked, and of p50 to p99 on one log scale.

    One step at least must have an answer.
    """
    bend = knee(steps)
    best = max(step.requests_per_s for step in steps)
    answered = [step for step in steps if step.answers]
    least_s = min(step.p50_s for step in answered)
    most_s = max(step.p99_s for step in answered)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("connections", justify="right", min_width=len("connections"))
    table.add_column(f"requests/s, 0 to {best:,.0f}", no_wrap=True)
    scale = f"{least_s * MS_PER_S:.3g} to {most_s * MS_PER_S:.3g} ms, log"
    table.add_column(f"p50 to p99, {scale}", no_wrap=True)
    for step in steps:
        is_knee = step is bend
        table.add_row(
            str(step.connections) + (" knee" if is_knee else ""),
            Bar(
                best,
                0,
                step.requests_per_s,
                width=BAR_WIDTH,
                color="green" if is_knee else "default",
            ),
            _span(step, least_s, most_s) if step.answers else "no answer",
            style="bold" if is_knee else None,
        )
    return table


def _span(step: Step, least_s: float, most_s: float) -> Bar:
    """Return a bar from p50 to p99, wide enough to be seen, on a scale of equal ratios."""
    whole = math.log(most_s / least_s) or 1.0
    begin = min(math.log(step.p50_s / least_s) / whole, 1 - LEAST_BAR_SHARE)
    end = max(math.log(step.p99_s / least_s) / whole, begin + LEAST_BAR_SHARE)
    return Bar(1.0, begin, end, width=BAR_WIDTH)


def remarks(steps: Sequence[Step], processes: int) -> list[str]:
    """Return what has to be known to read the table, one sentence each."""
    bend = knee(steps)
    lines = [
        (
            f"knee: {bend.connections} connections, the fewest with 95 % of the best: "
            f"{bend.requests_per_s:,.0f} requests/s, p99 {bend.p99_s * MS_PER_S:.2f} ms"
        )
    ]
    limited = [str(step.connections) for step in steps if step.is_limited_by_client]
    if limited:
        lines.append(
            f"warning: the client used up its core at {', '.join(limited)} connections: these "
            f"numbers are the client's, not the server's; try --processes {2 * processes}"
        )
    if any(step.errors for step in steps):
        lines.append("warning: requests/s and times are of 2xx answers only, and there were errors")
    return lines


def curve_facts(request: Request, plan: Plan, steps: Sequence[Step]) -> dict[str, object]:
    """Return the curve as JSON has it; a time without an answer is null."""
    return {
        "url": request.url,
        "seconds": plan.seconds,
        "processes": plan.processes,
        "knee_connections": knee(steps).connections,
        "steps": [_facts(step) for step in steps],
    }


def tuning_table(trials: Sequence[Trial], candidates: Sequence[Tuned], best: Tuned) -> Table:
    """Return a line for each number of threads, the best in bold."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in (
        "threads",
        "a ms",
        "b µs/row",
        "largest batch",
        "takes ms",
        "workers",
        "rows/s",
    ):
        table.add_column(heading, justify="right")
    by_threads = {each.threads: each for each in candidates}
    for trial in trials:
        line = fit_line(trial.seconds_by_rows)
        cells = [str(trial.threads), f"{line.fixed_s * 1e3:.3f}", f"{line.row_s * 1e6:.2f}"]
        if (found := by_threads.get(trial.threads)) is None:
            table.add_row(*cells, "too slow")
            continue
        cells += [str(found.max_batch_rows), f"{found.batch_s * MS_PER_S:.2f}"]
        cells += [str(found.workers), f"{found.rows_per_s:,.0f}"]
        table.add_row(*cells, style="bold" if found is best else None)
    return table


def _facts(step: Step) -> dict[str, object]:
    times_s = {"p50_ms": step.p50_s, "p90_ms": step.p90_s, "p99_ms": step.p99_s}
    return {
        "connections": step.connections,
        "requests_per_s": step.requests_per_s,
        **{name: s * MS_PER_S if step.answers else None for name, s in times_s.items()},
        "answers": step.answers,
        "failures_by_status": {str(key): value for key, value in step.failures_by_status.items()},
        "broken_connections": step.broken_connections,
        "client_share": step.client_share,
    }


def _errors(step: Step) -> str:
    failures = [f"{number}x {status}" for status, number in step.failures_by_status.items()]
    if step.broken_connections:
        failures.append(f"{step.broken_connections} broken")
    return ", ".join(failures)
