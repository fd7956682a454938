"""Golden rows of a packed bundle: made from its calibration rows, and none of them is one.

Every client of a model sees its golden rows as examples. Calibration rows are private, so each
golden row is an average of several of them (for texts: a draw of frequent tokens).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import TextInput
from training.packing.labelled import Labelled

GOLDEN_ROWS = 8

MEMBERS = 10
"""Calibration rows behind each golden row, fewer if a label has fewer.

Microaggregation: Domingo-Ferrer and Mateo-Sanz 2002, section 2.
"""

_PADDING = 0
_FIRST_WORD = 2
"""Id 1 stands for every unknown word."""

_MOST_DECIMALS = 6
_SEED = 1
_DRAWS = 1000
_CHUNK_ROWS = 256

Rows = NDArray[Any]


def spread(rows: Rows) -> NDArray[np.int64]:
    """Return the positions of `GOLDEN_ROWS` rows, evenly spread over all of them."""
    return np.linspace(0, len(rows) - 1, GOLDEN_ROWS).astype(np.int64)


def synthetic_rows(labelled: Labelled) -> Rows:
    """Return `GOLDEN_ROWS` rows like the calibration rows, but equal to none of them.

    A number is the mean of its column over the nearest rows of one label, rounded as the column
    is; a whole number is their median. A text has frequent words and about the length of a
    calibration row.

    Returns:
        Shape (GOLDEN_ROWS, *input), dtype of the calibration rows.
    """
    rows = labelled.rows
    rng = np.random.default_rng(_SEED)
    if isinstance(labelled.input, TextInput):
        return _drawn_texts(rows, rng)
    flat = rows.reshape(len(rows), -1)
    steps = _steps(flat)
    made = np.stack([_average(flat, labelled.targets, place, steps) for place in spread(rows)])
    known = {row.tobytes() for row in flat}
    bounds = (np.nanmin(flat, axis=0), np.nanmax(flat, axis=0))
    for row in made:
        _move_away(row, known, steps, bounds, rng)
    return made.reshape(len(made), *rows.shape[1:])


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
    is_whole = steps == 1
    average = np.full(flat.shape[1], np.nan)
    # Where most members lack a value, the average lacks it too.
    has_value = np.isnan(members).mean(axis=0) <= 0.5
    whole, real = has_value & is_whole, has_value & ~is_whole
    average[whole] = np.nanquantile(members[:, whole], 0.5, axis=0, method="lower")
    average[real] = np.nanmean(members[:, real], axis=0)
    average[real] = np.round(average[real] / steps[real]) * steps[real]
    if np.issubdtype(flat.dtype, np.integer):
        average = members.mean(axis=0).round()
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
    """Change numbers of `row` by single units, inside the bounds, until it is no known row."""
    moves = 0
    lowest, highest = bounds
    while row.tobytes() in known:
        column = int(rng.integers(len(row)))
        # A table may hold every combination of its whole numbers: then between two of them.
        step = (
            steps[column] if moves < len(row) * 10 or row.dtype.kind in "iu" else steps[column] / 2
        )
        sign = 1 if row[column] + step <= highest[column] else -1
        if row[column] + sign * step >= lowest[column]:
            row[column] += row.dtype.type(sign * step)
        moves += 1


def _drawn_texts(rows: Rows, rng: np.random.Generator) -> Rows:
    """Return texts as long as some of `rows`, of words that several rows have."""
    words, texts = np.unique(
        np.concatenate([np.unique(row[row >= _FIRST_WORD]) for row in rows]), return_counts=True
    )
    is_frequent = texts >= min(MEMBERS, texts.max(initial=0))
    words, texts = words[is_frequent], texts[is_frequent]
    known = {row.tobytes() for row in rows}
    made = rows[spread(rows)].copy()
    for row in made:
        for _ in range(_DRAWS):
            if row.tobytes() not in known:
                break
            is_word = row >= _FIRST_WORD
            row[is_word] = rng.choice(words, int(is_word.sum()), p=texts / texts.sum())
            # Every short text may be a calibration row: then the next one has a word more.
            row[np.flatnonzero(row == _PADDING)[:1]] = rng.choice(words)
    return made
