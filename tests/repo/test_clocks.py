"""Clocks that jump: the time of day is told to others, and nothing is measured or timed by it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("service/**/*.py"))

TIME_OF_DAY = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime"),
    *("time.clock_gettime", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
}
MAY_TELL = {
    "service/telemetry/spans.py": "when a span began and ended, in the format of OpenTelemetry",
    "service/telemetry/series.py": "when an exemplar was seen, in the format of OpenMetrics",
    "service/bench/plot.py": "the day in the title of a plot",
    "service/batching/batcher.py": "dunno_model_last_success_timestamp_seconds",
}
"""Where the time of day is told -> as what."""


def times_of_day(path: Path) -> set[str]:
    """Return what a module takes the time of day from, by whatever name it calls the package."""
    names = (
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    )
    return {name for name in names if any(f".{name}".endswith(f".{each}") for each in TIME_OF_DAY)}


def imported_from_time(path: Path) -> set[str]:
    return {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for alias in node.names
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_timed_by_the_time_of_day(path: Path) -> None:
    assert imported_from_time(path) == set()
    assert bool(times_of_day(path)) == (path.relative_to(ROOT).as_posix() in MAY_TELL)


@pytest.mark.parametrize(
    "source", ["time.time()", "x = dt.datetime.now()", "datetime.now(UTC)", "clock=time.time"]
)
def test_time_of_day_is_found(tmp_path: Path, source: str) -> None:
    text = f"f({source})" if source.startswith("clock") else source
    (tmp_path / "module.py").write_text(text)

    assert times_of_day(tmp_path / "module.py")
