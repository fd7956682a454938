"""The saturation curve as a picture in a file, by matplotlib, which a service does not install."""

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from service.bench.curve import Step, knee
from service.bench.failures import BenchFailed
from service.errors import install_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw: TypeAlias = Callable[[str, Sequence[Step]], bytes]

SUFFIXES = (".png", ".svg")

_WIDTH, _HEIGHT, _DPI = 10.0, 4.2, 100  # inches, dots per inch
_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "#4a5568"
_MS_PER_S = 1000


def curve_plot(file: Path) -> Draw:
    """Return what draws a curve, with the URL in its title, as the content of such a file.

    Raises:
        BenchFailed: if the file's suffix is none of `SUFFIXES`, or matplotlib is missing.
    """
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        known = " or ".join(SUFFIXES)
        raise BenchFailed(f"--plot: expected a file ending in {known}, got {str(file)!r}")
    try:
        import matplotlib.figure  # noqa: F401, PLC0415  only measured here if it can be drawn
    except ImportError:
        raise BenchFailed(f"--plot draws with matplotlib: {install_line('training')}") from None
    return lambda url, steps: _draw(url, steps, suffix.removeprefix("."))


def _draw(url: str, steps: Sequence[Step], kind: str) -> bytes:
    from matplotlib.figure import Figure  # noqa: PLC0415  an extra has it

    today = datetime.now(UTC).date().isoformat()
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    figure.suptitle(f"{url}, {today}", fontsize=10, parse_math=False)
    left, right = figure.subplots(1, 2)
    _throughput(left, steps)
    _latency(right, [step for step in steps if step.answers])
    stream = io.BytesIO()
    # Without the moment in its metadata the same numbers of a day are the same file.
    figure.savefig(stream, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return stream.getvalue()


def _throughput(axes: "Axes", steps: Sequence[Step]) -> None:
    bend = knee(steps)
    connections = [step.connections for step in steps]
    axes.plot(connections, [step.requests_per_s for step in steps], color=_BLUE, marker="o")
    axes.axvline(bend.connections, color=_GREY, linestyle=":")
    axes.plot(
        bend.connections, bend.requests_per_s, color=_GREY, marker="o", markersize=12, mfc="none"
    )
    is_left = bend.connections**2 <= connections[0] * connections[-1]
    axes.annotate(
        f"knee: {bend.connections} connections,\n{bend.requests_per_s:,.0f} requests/s",
        (bend.connections, 0.06),
        xycoords=("data", "axes fraction"),
        xytext=(6 if is_left else -6, 0),
        textcoords="offset points",
        ha="left" if is_left else "right",
        color=_GREY,
        fontsize=9,
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(connections, [str(number) for number in connections])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _name(axes, "connections", "requests/s")


def _latency(axes: "Axes", steps: Sequence[Step]) -> None:
    bend = knee(steps)
    throughput = [step.requests_per_s for step in steps]
    for name, colour, times_s in (
        ("p99", _ORANGE, [step.p99_s for step in steps]),
        ("p50", _BLUE, [step.p50_s for step in steps]),
    ):
        times_ms = [time_s * _MS_PER_S for time_s in times_s]
        axes.plot(throughput, times_ms, color=colour, marker="o", label=name)
    axes.axvline(bend.requests_per_s, color=_GREY, linestyle=":", label="knee")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend()
    _name(axes, "requests/s", "ms to the complete answer")


def _name(axes: "Axes", across: str, upwards: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(upwards)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
