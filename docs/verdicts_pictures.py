"""The pictures of verdicts.md, drawn from what verdicts.py has measured."""

import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from verdicts_page import ROOT, evaluation_of

from service.bundle.manifest import Manifest, Policy
from service.decision import Row
from training.evaluate import Reliability

FOLDER = ROOT / "docs/pictures"
DPI, WIDTH, FONT_SIZE, COLOURS_IN_PALETTE = 110, 7.6, 9, 255
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#c05621", "#2f855a", "#4a5568"
PURPLE, YELLOW, PALE = "#805ad5", "#d69e2e", "#ecc94b"
SOFTMAX_AT, VERDICT_AT = -0.1, -0.52
"""Where words stand below a picture, in its heights."""

LEAST_DOUBT, LEAST_P = 1e-6, 1e-4
"""What is smaller is drawn there."""

MARKS = ((BLUE, "o"), (GREEN, "^"), (YELLOW, "s"), (ORANGE, "D"), (PURPLE, "v"))

log = logging.getLogger("verdicts")


def draw_inputs(
    pictures: Sequence[NDArray[np.uint8]], facts: Sequence[Mapping[str, Any]]
) -> Figure:
    """Draw each input with the softmax's answer and the verdict below it."""
    figure = new_figure(2.1)
    grid = figure.add_gridspec(1, len(facts) + 1, width_ratios=[0.62] + [1] * len(facts))
    words = figure.add_subplot(grid[0])
    words.set_axis_off()
    words.set_box_aspect(1 / 0.62)
    words.text(0.5, SOFTMAX_AT, "softmax", **below(words, ORANGE))
    words.text(0.5, VERDICT_AT, "verdict", **below(words, BLUE))
    for place, (picture, said) in enumerate(zip(pictures, facts, strict=True), start=1):
        axes = figure.add_subplot(grid[place])
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(said["input"], fontsize=8)
        softmax = f"“{said['lecture_label']}”\n{said['lecture_confidence']:.0%}"
        axes.text(0.5, SOFTMAX_AT, softmax, **below(axes, ORANGE))
        axes.text(0.5, VERDICT_AT, verdict_words(said), **below(axes, BLUE))
    return figure


def verdict_words(facts: Mapping[str, Any]) -> str:
    """Return a verdict as it stands below a picture."""
    if reason := facts["reason"]:
        return f"don't know\n{reason}".replace("_of_", " of\n").replace("_", " ")
    return f"“{facts['label']}”\n{facts['confidence']:.0%}"


def below(axes: Axes, colour: str) -> dict[str, Any]:
    """Return how words stand below a picture."""
    return {
        "transform": axes.transAxes,
        "ha": "center",
        "va": "top",
        "fontsize": 7.5,
        "color": colour,
    }


def draw_axes(policy: Policy, families: Mapping[str, Sequence[Row]]) -> Figure:
    """Draw rows of families by confidence and novelty p-value, over the regions of verdicts."""
    figure = new_figure(4.4)
    axes = plain_axes(figure.add_subplot())
    for (name, rows), (colour, marker) in zip(families.items(), MARKS, strict=True):
        doubt = np.maximum([1 - row.confidence for row in rows], LEAST_DOUBT)
        p_values = np.maximum([row.novelty_p or 0.0 for row in rows], LEAST_P)
        axes.scatter(doubt, p_values, s=9, c=colour, marker=marker, label=name, lw=0, alpha=0.75)
    draw_regions(axes, policy)
    axes.set(xscale="log", yscale="log", xlim=(1, LEAST_DOUBT * 0.7), ylim=(LEAST_P * 0.6, 1.6))
    ticks = {
        0.5: "50 %",
        0.1: "90 %",
        0.01: "99 %",
        1e-3: "99.9 %",
        1e-4: "99.99 %",
        1e-6: "99.9999 %",
    }
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel("confidence")
    axes.set_ylabel("novelty p-value")
    axes.legend(loc="lower right", fontsize=7.5, markerscale=1.6, framealpha=0.9)
    return figure


def draw_regions(axes: Axes, policy: Policy) -> None:
    """Shade which rows get which verdict."""
    alpha, doubt_limit = policy.novelty_alpha, 1 - policy.threshold
    axes.axhspan(LEAST_P * 0.6, alpha, color=GREY, alpha=0.13, lw=0)
    axes.fill_between([1, doubt_limit], alpha, 1.6, color=PALE, alpha=0.2, lw=0)
    axes.fill_between([doubt_limit, LEAST_DOUBT * 0.7], alpha, 1.6, color=BLUE, alpha=0.08, lw=0)
    for place, words in (
        ((0.9, 1.1), "ambiguous or\nlow confidence"),
        ((doubt_limit * 0.85, 1.1), "answered"),
        ((0.02, LEAST_P * 2), "out of distribution"),
    ):
        axes.text(*place, words, va="top", fontsize=FONT_SIZE, weight="bold", color=GREY)


def draw_calibration(models: Mapping[str, Mapping[str, Reliability]]) -> Figure:
    """Draw accuracy over confidence, before and after, a panel for each model."""
    figure = new_figure(3.1)
    for place, (model, bins_by_name) in enumerate(models.items(), start=1):
        axes = plain_axes(figure.add_subplot(1, len(models), place))
        axes.plot([0.5, 1], [0.5, 1], color=GREY, ls=":", label="as right as it says")
        for (name, bins), colour in zip(bins_by_name.items(), (ORANGE, BLUE), strict=True):
            axes.plot(bins.confidence, bins.accuracy, marker="o", ms=4, color=colour, label=name)
        axes.set_title(model, fontsize=FONT_SIZE)
        axes.set(xlabel="confidence", ylabel="accuracy" if place == 1 else "")
        axes.legend(fontsize=8)
    return figure


def draw_risk_coverage(manifests: Sequence[Manifest]) -> Figure:
    """Draw the curve of each model with what its certified thresholds did."""
    figure = new_figure(4.6)
    for place, manifest in enumerate(manifests, start=1):
        evaluation = evaluation_of(manifest)
        axes = plain_axes(figure.add_subplot(2, 3, place))
        coverage, risk = np.array(evaluation.risk_coverage).T
        axes.plot(coverage, risk, color=BLUE)
        default = manifest.policy.max_error
        for row in sorted(evaluation.table, key=lambda row: row.max_error == default):
            is_default = row.max_error == default
            colour = ORANGE if is_default else GREY
            at, measured = row.coverage.value, row.risk.value
            axes.plot([at, at], [row.risk.low, row.risk.high], color=colour, lw=1)
            axes.plot(at, measured, marker="o", ms=4, color=colour)
            if is_default:
                axes.axhline(row.max_error, color=ORANGE, ls=":", lw=1)
        axes.set_title(f"{manifest.name}: at most {manifest.policy.max_error:.1%}", fontsize=8)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.locator_params(nbins=5)
        axes.tick_params(labelsize=7)
        axes.set_xlim(0, 1.03)
        axes.set_ylim(bottom=0)
    figure.supxlabel("share answered", fontsize=FONT_SIZE)
    figure.supylabel("wrong among the answered", fontsize=FONT_SIZE)
    return figure


def draw_promise(errors: Mapping[str, NDArray[np.float64]], max_error: float) -> Figure:
    """Draw how the errors of both ways to choose a threshold are spread."""
    figure = new_figure(2.7)
    axes = plain_axes(figure.add_subplot())
    edges = np.linspace(min(map(np.min, errors.values())), max(map(np.max, errors.values())), 45)
    for name, colour in (("by_eye", ORANGE), ("certified", BLUE)):
        label = name.replace("_", " ")
        axes.hist(errors[name], bins=edges.tolist(), color=colour, alpha=0.65, label=label)
    axes.axvline(max_error, color=GREY, ls=":", label="promised at most")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axes.set(xlabel="wrong among the answered of the other half", ylabel="draws")
    axes.legend(fontsize=8)
    return figure


def draw_turned(found: Sequence[Mapping[str, float]], max_error: float) -> Figure:
    """Draw how the share answered falls, and the error among the answered rises."""
    figure = new_figure(2.6)
    angles = [each["degrees"] for each in found]
    for place, (name, title) in enumerate(
        (("answered", "answered"), ("wrong", "wrong among the answered")), start=1
    ):
        axes = plain_axes(figure.add_subplot(1, 2, place))
        axes.plot(angles, [each[name] for each in found], marker="o", ms=4, color=BLUE)
        axes.set_title(title, fontsize=FONT_SIZE)
        axes.set_xlabel("degrees that the digits are turned by")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.set_ylim(bottom=0)
    axes.axhline(max_error, color=ORANGE, ls=":", label="promised for upright ones")
    axes.legend(fontsize=8)
    return figure


def new_figure(height: float) -> Figure:
    """Return an empty picture as wide as the page."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def plain_axes(axes: Axes) -> Axes:
    """Return axes without a frame, with a grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    return axes


def save(name: str, figure: Figure) -> None:
    """Write a picture of the page, in few colours, as it is drawn."""
    stream, path = io.BytesIO(), FOLDER / f"verdicts-{name}.png"
    figure.savefig(stream, format="png", facecolor="white")
    with Image.open(stream) as picture:
        few = picture.convert("RGB").quantize(COLOURS_IN_PALETTE)
        few.save(path, "PNG", optimize=True)
    log.info("%s: %s bytes", path.name, f"{path.stat().st_size:,}")
