"""Golden rows of packed bundles look like calibration rows, and none of them is one."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle.manifest import FeatureField, FeatureInput, ImageInput, TextInput
from training.packing.golden import GOLDEN_ROWS, synthetic_rows
from training.packing.labelled import Labelled

RNG = np.random.default_rng(3)


def labelled(
    rows: NDArray[Any], declared: FeatureInput | ImageInput | TextInput | None = None
) -> Labelled:
    """Rows of two labels in turn; of features unless something else is declared."""
    if declared is None:
        names = [f"x{number}" for number in range(rows.shape[1])]
        declared = FeatureInput(fields=tuple(FeatureField(name=name) for name in names))
    targets = np.arange(len(rows)) % 2
    return Labelled(rows=rows, targets=targets, input=declared, sha256="", files={})


def texts() -> NDArray[np.int32]:
    rows = RNG.integers(2, 40, (60, 12), dtype=np.int32)
    rows[:, :3] = 0
    rows[::5, 3:6] = 1
    return rows


CASES = {
    "real numbers": labelled(RNG.normal(5, 2, (80, 3)).round(2).astype(np.float32)),
    "whole numbers": labelled(RNG.integers(0, 90, (80, 3)).astype(np.float32)),
    "every combination": labelled(np.array([*product((0, 1), repeat=5)] * 6, np.float32)),
    "one row many times": labelled(np.repeat(np.arange(12.0).reshape(6, 2), 30, axis=0)),
    "grey pictures": labelled(
        RNG.integers(0, 256, (60, 6, 5), dtype=np.uint8),
        ImageInput(height=6, width=5, channels=1),
    ),
    "black and white pictures": labelled(
        RNG.integers(0, 2, (60, 3, 3), dtype=np.uint8) * 255,
        ImageInput(height=3, width=3, channels=1),
    ),
    "colour pictures": labelled(
        RNG.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8),
        ImageInput(height=4, width=4, channels=3),
    ),
    "texts": labelled(texts(), TextInput(vocabulary="v", max_tokens=12, token_pattern=r"\w+")),
}
each_case = pytest.mark.parametrize("given", CASES.values(), ids=CASES)


@each_case
def test_no_golden_row_is_a_calibration_row(given: Labelled) -> None:
    known = {row.tobytes() for row in given.rows}

    made = synthetic_rows(given)

    assert [row.tobytes() in known for row in made] == [False] * GOLDEN_ROWS


@each_case
def test_golden_rows_have_the_shape_type_and_range_of_calibration_rows(given: Labelled) -> None:
    made = synthetic_rows(given)

    assert made.shape == (GOLDEN_ROWS, *given.rows.shape[1:])
    assert made.dtype == given.rows.dtype
    assert made.min() >= given.rows.min()
    assert made.max() <= given.rows.max()


def test_golden_rows_are_the_same_each_time() -> None:
    given = CASES["real numbers"]

    assert np.array_equal(synthetic_rows(given), synthetic_rows(given))


def test_numbers_are_rounded_as_their_column_is() -> None:
    made = synthetic_rows(CASES["real numbers"]).astype(np.float64)

    # float32 keeps seven digits.
    assert made == pytest.approx(made.round(2), rel=1e-6)


def test_value_that_most_rows_lack_is_missing_in_golden_rows() -> None:
    rows = RNG.normal(0, 1, (80, 2)).astype(np.float32)
    rows[5:, 1] = np.nan

    made = synthetic_rows(labelled(rows))

    assert np.isnan(made[:, 1]).sum() >= 7
    assert not np.isnan(made[:, 0]).any()


def test_value_of_one_row_alone_has_no_golden_row_of_its_own() -> None:
    rows = np.zeros((60, 2), np.float32)
    rows[:, 0] = np.arange(60) / 100
    rows[17, 1] = 1_000_000.5

    made = synthetic_rows(labelled(rows))

    assert made[:, 1].max() < 1_000_000


def test_golden_texts_have_frequent_words_only() -> None:
    rows = texts()
    rows[0, 6:] = 999

    made = synthetic_rows(labelled(rows, CASES["texts"].input))

    assert 999 not in made
