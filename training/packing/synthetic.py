"""Synthetic rows: made from calibration rows, and equal to none of them.

Every client of a model sees its golden rows as examples. Calibration rows are private, so the
golden rows of a packed bundle are averages of several of them (texts: draws of frequent words).
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import TextInput
from training.errors import PackRefused
from training.golden import spread
from training.packing.labelled import Labelled

MEMBERS = 10
"""Calibration rows that each synthetic row averages, fewer if a label has fewer.

Microaggregation: Domingo-Ferrer and Mateo-Sanz 2002, section 2.
"""

_PADDING = 0
_FIRST_WORD = 2
"""Id 1 stands for every unknown word."""

_MOST_DECIMALS = 6
_SEED = 1
_TRIES = 1000
_CHUNK_ROWS = 256

Rows = NDArray[Any]


def synthetic_rows(labelled: Labelled) -> Rows:
    """Return `training.golden.GOLDEN_ROWS` rows like the calibration rows, equal to none of them.

    A number is the mean of its column over the nearest rows of one label, rounded as the column
    is; a whole number is their median. A text has frequent words and about the length of a
    calibration row.

    Returns:
        Shape (GOLDEN_ROWS, *input), dtype of the calibration rows.

    Raises:
        PackRefused: if every possible row is a calibration row, or no text has a known word.
    """
    rows = labelled.rows
    rng = np.random.default_rng(_SEED)
    if isinstance(labelled.input, TextInput):
        return _drawn_texts(rows, rng)
    flat = rows.reshape(len(rows), -1)
    with warnings.catch_warnings():
        # A column may lack all values: then its spread and its bounds are NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        made = _averages(flat, labelled.targets, rng)
    return made.reshape(len(made), *rows.shape[1:])


def _averages(flat: Rows, targets: NDArray[np.int64], rng: np.random.Generator) -> Rows:
    steps = _steps(flat)
    known = {row.tobytes() for row in flat}
    bounds = (np.nanmin(flat, axis=0), np.nanmax(flat, axis=0))
    made = np.stack([_average(flat, targets, place, steps) for place in spread(len(flat))])
    for row in made:
        _move_away(row, known, steps, bounds, rng)
    return made


def _steps(flat: Rows) -> NDArray[np.float64]:
    """Return the unit in which each column is written down: 1, 0.1, ..., shape (columns,)."""
    if np.issubdtype(flat.dtype, np.integer):
        return np.ones(flat.shape[1])
    values = flat.astype(np.float64)
    steps = np.full(flat.shape[1], 10.0**-_MOST_DECIMALS)
    for decimals in reversed(range(_MOST_DECIMALS)):
        # float32 keeps seven digits: more differ by its own rounding.
        rounded = np.isclose(values, values.round(decimals), rtol=1e-6, atol=0, equal_nan=True)
        steps[rounded.all(axis=0)] = 10.0**-decimals
    return steps


def _average(flat: Rows, targets: NDArray[np.int64], place: int, steps: Rows) -> Rows:
    same_label = np.unique(flat[targets == targets[place]], axis=0)
    nearest = np.argsort(_distances(same_label, flat[place]), kind="stable")[:MEMBERS]
    members = same_label[nearest].astype(np.float64)
    if np.issubdtype(flat.dtype, np.integer):
        mean: Rows = members.mean(axis=0).round().astype(flat.dtype)
        return mean
    medians = np.nanquantile(members, 0.5, axis=0, method="lower")
    means = np.round(np.nanmean(members, axis=0) / steps) * steps
    average = np.where(steps == 1, medians, means)
    # Where most members lack a value, the average lacks it too.
    average[np.isnan(members).mean(axis=0) > 0.5] = np.nan
    return average.astype(flat.dtype)


def _distances(rows: Rows, origin: Rows) -> NDArray[np.float64]:
    """Return squared distances in units of each column's spread, shape (rows,)."""
    scale = np.nanstd(rows.astype(np.float32), axis=0)
    scale[~(scale > 0)] = 1
    parts = []
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS].astype(np.float32)
        difference = (chunk - origin.astype(np.float32)) / scale
        # One spread where only one of the two values is missing, nothing where both are.
        one_missing = np.isnan(chunk) != np.isnan(origin)
        parts.append(np.square(np.where(one_missing, 1, np.nan_to_num(difference))).sum(axis=1))
    return np.concatenate(parts).astype(np.float64)


def _move_away(
    row: Rows, known: set[bytes], steps: Rows, bounds: tuple[Rows, Rows], rng: np.random.Generator
) -> None:
    """Change numbers of `row` by single units, inside the bounds, until it is no known row.

    Raises:
        PackRefused: if no such row is found.
    """
    is_real = row.dtype.kind == "f"
    for tried in range(_TRIES):
        if row.tobytes() not in known:
            return
        column = int(rng.integers(len(row)))
        value, step = row[column].item(), steps[column]
        if is_real:
            # A table may hold every combination of its whole numbers: then between two of them.
            # A float32 of 2**24 or more has no neighbour at a distance of 1.
            step = max(step if tried < _TRIES / 2 else step / 2, float(np.spacing(row[column])))
        lowest, highest = (float(bound[column]) for bound in bounds)
        inside = [each for each in (value + step, value - step) if lowest <= each <= highest]
        if inside:
            row[column] = inside[0]
    raise _all_taken()


def _drawn_texts(rows: Rows, rng: np.random.Generator) -> Rows:
    """Return texts as long as some of `rows`, of words that several rows have."""
    words, texts = np.unique(
        np.concatenate([np.unique(row[row >= _FIRST_WORD]) for row in rows]), return_counts=True
    )
    if not len(words):
        raise PackRefused(
            "no calibration text has a word of --vocabulary; it needs one word a line, in UTF-8, "
            "with lines that end in a line feed alone"
        )
    is_frequent = texts >= min(MEMBERS, texts.max())
    words, texts = words[is_frequent], texts[is_frequent]
    known = {row.tobytes() for row in rows}
    made = rows[spread(len(rows))].copy()
    for row in made:
        _draw_words(row, known, words, texts / texts.sum(), rng)
    return made


def _draw_words(
    row: Rows, known: set[bytes], words: Rows, shares: Rows, rng: np.random.Generator
) -> None:
    """Replace the words of `row` until it is no known row.

    Raises:
        PackRefused: if no such row is found.
    """
    for _ in range(_TRIES):
        if row.tobytes() not in known:
            return
        is_word = row >= _FIRST_WORD
        row[is_word] = rng.choice(words, int(is_word.sum()), p=shares)
        # Every short text may be a calibration row: then the next one has a word more.
        row[np.flatnonzero(row == _PADDING)[:1]] = rng.choice(words)
    raise _all_taken()


def _all_taken() -> PackRefused:
    return PackRefused(
        "every row that a golden row could be is a calibration row; give rows with more columns, "
        "or --publish-examples if the calibration rows may be public"
    )
