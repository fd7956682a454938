"""All that a quiet machine can show in some minutes, each against a fresh server; one report.

    make load            or            python load_tests/run_all.py --only run_locust,soak

Ends with exit code 1 if a threshold was not kept. What is said of a stage is what its script said.
"""

import argparse
import html
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
LOCUST = "locust.html"


@dataclass(frozen=True)
class Stage:
    """One script, and what it has to show."""

    question: str
    threshold: str
    arguments: tuple[str, ...]


STAGES = {
    "many_callers": Stage(
        "Does everybody get his own right answer while others hang up and send rubbish?",
        "no wrong answer, no 500",
        ("--seconds", "30"),
    ),
    "run_locust": Stage(
        "Is every model answered well-formed by every body kind and protocol, in time?",
        "no failure; p99 of real rows 2 s; at most 30 % of them “don't know”",
        ("--run-time", "45s", "--shape", "steps"),
    ),
    "open_loop": Stage(
        "How much is still done in time when three times as much is asked as can be done?",
        "goodput 0.70 of the peak; p99 twice that at saturation",
        ("--loads", "1,3", "--seconds", "8", "--least-goodput", "0.7", "--most-late", "2"),
    ),
    "chaos": Stage(
        "Is every request answered once, rightly, while everything goes wrong at once?",
        "nothing lost, nothing crossed; 10 % memory, 2 file descriptors",
        ("--seconds", "60"),
    ),
    "reloads": Stage(
        "Is a request lost, or answered by a version that is not live, while versions change?",
        "none",
        ("--reloads", "120", "--callers", "8"),
    ),
    "soak": Stage(
        "Do requests of every kind leave memory, file descriptors or threads behind?",
        "2 % memory after 60,000 requests; nothing else",
        ("--requests", "120000", "--warm", "60000"),
    ),
    "stops": Stage(
        "Is a request of clients that keep connections open lost when servers stop and start?",
        "none; every exit code 0",
        ("--stops", "5"),
    ),
    "memory": Stage(
        "Does the server stay within 512 MiB, whatever is sent to it?",
        "not killed; photographs and small questions answered",
        ("--limit", "512"),
    ),
    "compare": Stage(
        "Is it faster than the same model behind plain FastAPI, in one run?",
        "at every number of connections",
        ("--rounds", "1", "--seconds", "2", "--least-ratio", "1"),
    ),
}
"""Script -> what it is run with, in this order."""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage."""

    name: str
    stage: Stage
    exit_code: int
    seconds: float
    output: str


def run(name: str, stage: Stage, more: Sequence[str]) -> Outcome:
    """Run a stage, show what it says, and return it."""
    command = [sys.executable, str(HERE / f"{name}.py"), *stage.arguments, *more]
    print(f"\n== {name}: {stage.question}", flush=True)
    started_s = time.perf_counter()
    lines = []
    with subprocess.Popen(  # noqa: S603  our own scripts
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    seconds = time.perf_counter() - started_s
    return Outcome(name, stage, process.returncode, seconds, "".join(lines))


def machine() -> dict[str, str]:
    """Return where and what was measured."""
    info = Path("/proc/cpuinfo")
    names = [line for line in _lines(info) if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607  the git of this machine
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    load, *_ = os.getloadavg()
    return {
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        "machine": f"{len(os.sched_getaffinity(0))} cores, "
        f"{names[0].partition(':')[2].strip() if names else platform.machine()}",
        "python": platform.python_version(),
        "load before": f"{load:.2f}",
    }


def report(facts: dict[str, str], outcomes: Sequence[Outcome]) -> str:
    """Return the page: what was measured where, a line for each stage, and what each one said."""
    return PAGE.format(
        facts="".join(f"<dt>{_text(name)}<dd>{_text(fact)}" for name, fact in facts.items()),
        rows="".join(map(_row, outcomes)),
        sections="".join(map(_section, outcomes)),
    )


def _row(outcome: Outcome) -> str:
    kept = "kept" if outcome.exit_code == 0 else f"<strong>not kept ({outcome.exit_code})</strong>"
    stage = outcome.stage
    return (
        f'<tr><td><a href="#{outcome.name}">{outcome.name}</a><td>{_text(stage.question)}'
        f"<td>{_text(stage.threshold)}<td>{kept}<td>{outcome.seconds:.0f} s"
    )


def _section(outcome: Outcome) -> str:
    link = f'<p><a href="{LOCUST}">Locust\'s own report</a>' if "locust" in outcome.name else ""
    words = _text(" ".join((f"{outcome.name}.py", *outcome.stage.arguments)))
    return (
        f'<h2 id="{outcome.name}">{outcome.name}</h2><p><code>{words}</code>{link}'
        f'<pre tabindex="0">{_text(outcome.output)}</pre>'
    )


def _text(text: str) -> str:
    return html.escape(text)


def _lines(path: Path) -> Iterator[str]:
    return iter(path.read_text().splitlines()) if path.exists() else iter(())


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Dunno under load</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
padding: 0 1rem }}
dl {{ display: grid; grid-template-columns: max-content auto; gap: 0 1rem }} dd {{ margin: 0 }}
table {{ border-collapse: collapse }} td, th {{ padding: .3rem .6rem; text-align: left;
border-bottom: 1px solid; vertical-align: top }} pre {{ overflow: auto; max-height: 40rem }}
strong {{ color: light-dark(#b00020, #ff8a80) }}
</style>
<h1>Dunno under load</h1><dl>{facts}</dl>
<table><tr><th>stage<th>question<th>threshold<th>result<th>took</tr>{rows}</table>
{sections}
"""


def main() -> int:
    """Run the stages, write the report, and tell whether every threshold was kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="some of the stages, by name, such as run_locust,soak")
    parser.add_argument("--html", type=Path, default=Path("build/load.html"))
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(STAGES)
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        parser.error(f"--only: expected some of {', '.join(STAGES)}, got {unknown[0]}")
    options.html.parent.mkdir(parents=True, exist_ok=True)
    facts = machine()
    outcomes = []
    for name in names:
        is_locust = name == "run_locust"
        more = ("--html", str(options.html.with_name(LOCUST))) if is_locust else ()
        outcomes.append(run(name, STAGES[name], more))
        options.html.write_text(report(facts, outcomes))
    failed = [outcome.name for outcome in outcomes if outcome.exit_code]
    print(f"\nreport: {options.html}; thresholds not kept: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
