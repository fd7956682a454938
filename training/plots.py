"""Pictures of the model card: one function a picture, each returns the bytes of a PNG."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from service.bundle.manifest import Evaluation
from training.evaluate import Reliability
from training.recipe import Curves

_DPI = 90
_WIDTH, _HEIGHT = 6.0, 3.6  # inches; one column of a README
_SQUARE = (6.4, 5.4)
_FONT_SIZE = 9
_MANY_LABELS = 4
_MOST_NAMED = 40
_CELL_OF_CONFUSION = 0.4  # inches; of each label beyond the tenth
_LETTERS_OF_NAME = 24
_LETTERS_ACROSS = 40
_COLOURS_IN_PALETTE = 64
_GRID_COLUMNS = 5
_CELL = (1.5, 1.6)  # inches
_CAPTION_SIZE = 7
_COLOURS = {"red": "#a11d33", "white": "#d9b44a"}


def learning_curves(curves: Curves) -> bytes:
    """Draw loss and accuracy over epochs, or accuracy over training rows."""
    panels = {"loss": curves.loss, "accuracy": curves.accuracy}
    drawn = {name: series for name, series in panels.items() if series}
    figure = _new(_WIDTH if len(drawn) == 1 else 1.5 * _WIDTH)
    for place, (name, series) in enumerate(drawn.items(), start=1):
        axes = _axes(figure, curves.axis, name, (1, len(drawn), place))
        for label, values in series.items():
            axes.plot(curves.steps, values, label=label, marker=".")
        axes.legend()
    return _png(figure)


def confusion_matrix(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> bytes:
    """Draw counts, rows: true label, columns: best label; shades by share of the true label.

    With more labels than anybody could read there are only the shades.
    """
    matrix = np.array(counts)
    figure = _new(*_size_of_confusion(len(labels)))
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # A root, or the few confusions among thousands of right answers would all look white.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= _MOST_NAMED:
        for row, column in np.ndindex(*matrix.shape):
            colour = "white" if shares[row, column] > 0.4 else "black"
            number = f"{matrix[row, column]:,}"
            axes.text(column, row, number, ha="center", va="center", color=colour)
        _name_ticks(axes, labels)
    axes.set_xlabel("best label")
    axes.set_ylabel("true label")
    return _png(figure)


def _size_of_confusion(labels: int) -> tuple[float, float]:
    if labels <= _MANY_LABELS:
        return 4.4, _HEIGHT
    more = max(0, min(labels, _MOST_NAMED) - 10) * _CELL_OF_CONFUSION
    return _SQUARE[0] + more, _SQUARE[1] + more


def reliability_diagram(bins: Reliability, evaluation: Evaluation) -> bytes:
    """Draw accuracy over confidence in bins of equal mass."""
    figure = _new()
    axes = _axes(figure, "confidence", "accuracy")
    low = float(min(bins.confidence.min(), bins.accuracy.min()))
    axes.plot([low, 1], [low, 1], color="grey", linestyle="--", label="perfectly calibrated")
    axes.plot(bins.confidence, bins.accuracy, marker="o", label="15 bins of equal mass")
    title = f"ECE {evaluation.ece:.2%}, noise floor {evaluation.ece_floor:.2%}"
    axes.set_title(title, fontsize=_FONT_SIZE)
    axes.legend()
    return _png(figure)


def risk_coverage_curve(evaluation: Evaluation) -> bytes:
    """Draw the error among the answered rows over the share that is answered."""
    figure = _new()
    axes = _axes(figure, "share answered", "error among the answered")
    coverage, risk = np.array(evaluation.risk_coverage).T
    axes.plot(coverage, risk, label=f"AURC {evaluation.aurc * 1000:.2f} / 1000")
    # Several risks may have one threshold: the strictest names the point.
    points = {(row.coverage.value, row.risk.value): row for row in reversed(evaluation.table)}
    for point, row in points.items():
        axes.plot(*point, marker="o", color="black")
        words = f"certified {row.max_error:.1%}"
        axes.annotate(words, point, xytext=(-6, 4), textcoords="offset points", ha="right")
    axes.legend(loc="upper left")
    return _png(figure)


def histograms(values: Mapping[str, NDArray[np.float64]], axis: str) -> bytes:
    """Draw one histogram for each label over the same bins, each as share of its label."""
    figure = _new()
    axes = _axes(figure, axis, "share of the label")
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=40)
    for label, column in values.items():
        axes.hist(
            column,
            bins=edges.tolist(),
            weights=np.full(len(column), 1 / len(column)),
            alpha=0.6,
            label=label,
            color=_COLOURS.get(label),
        )
    axes.legend()
    return _png(figure)


def correlations(matrix: NDArray[np.float64], names: Sequence[str]) -> bytes:
    """Draw the lower half of a matrix of correlations with its numbers."""
    figure = _new(*_SQUARE)
    axes = figure.add_subplot()
    above = np.triu(np.ones_like(matrix, np.bool_), k=1)
    axes.imshow(np.ma.masked_array(matrix, above), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.spines[["top", "right"]].set_visible(False)
    for row, column in np.argwhere(~above):
        value = matrix[row, column]
        colour = "white" if abs(value) > 0.6 else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)
    _name_ticks(axes, names)
    return _png(figure)


def picture_grid(pictures: Sequence[NDArray[np.generic]], captions: Sequence[str]) -> bytes:
    """Draw pictures in rows of five, a caption of up to three lines above each.

    Args:
        pictures: shape (height, width) or (height, width, 3), values 0 to 255.
        captions: one for each.
    """
    rows = math.ceil(len(pictures) / _GRID_COLUMNS)
    figure = _new(_GRID_COLUMNS * _CELL[0], rows * _CELL[1])
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True), start=1):
        axes = figure.add_subplot(rows, _GRID_COLUMNS, place)
        axes.imshow(picture.astype(np.uint8), cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, fontsize=_CAPTION_SIZE, parse_math=False)
        axes.set_axis_off()
    return _png(figure)


def _new(width: float = _WIDTH, height: float = _HEIGHT) -> Figure:
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _axes(
    figure: Figure, across: str, upwards: str, place: tuple[int, int, int] = (1, 1, 1)
) -> Axes:
    axes = figure.add_subplot(*place)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel(across)
    axes.set_ylabel(upwards)
    return axes


def _name_ticks(axes: Axes, names: Sequence[str]) -> None:
    is_slanted = len("".join(names)) > _LETTERS_ACROSS
    alignment = "right" if is_slanted else "center"
    places, short = range(len(names)), [_shortened(name) for name in names]
    angle = 45 if is_slanted else 0
    axes.set_xticks(places, short, rotation=angle, ha=alignment, parse_math=False)
    axes.set_yticks(places, short, parse_math=False)


def _shortened(name: str) -> str:
    return name if len(name) <= _LETTERS_OF_NAME else f"{name[: _LETTERS_OF_NAME - 1]}…"


def _png(figure: Figure) -> bytes:
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    # A palette makes lines and areas a third as large; no tag with version or date: the same
    # numbers give the same bytes.
    with Image.open(drawn) as picture:
        palette = picture.convert("RGB").quantize(_COLOURS_IN_PALETTE, dither=Image.Dither.NONE)
    palette.save(reduced, format="png", optimize=True)
    return reduced.getvalue()
