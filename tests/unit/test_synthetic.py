"""Synthetic rows look like calibration rows, and none of them is one."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle.manifest import FeatureField, FeatureInput, ImageInput, TextInput
from training.errors import PackRefused
from training.golden import GOLDEN_ROWS
from training.packing.labelled import Labelled
from training.packing.synthetic import synthetic_rows

RNG = np.random.default_rng(3)


def labelled(rows: NDArray[Any], declared: FeatureInput | ImageInput | TextInput) -> Labelled:
    """Rows of two labels in turn."""
    targets = np.arange(len(rows)) % 2
    return Labelled(rows=rows, targets=targets, input=declared, sha256="", files={})


def features(rows: NDArray[Any]) -> Labelled:
    names = [f"x{number}" for number in range(rows.shape[1])]
    return labelled(rows, FeatureInput(fields=tuple(FeatureField(name=name) for name in names)))


def texts() -> NDArray[np.int32]:
    rows = RNG.integers(2, 40, (60, 12), dtype=np.int32)
    rows[:, :3] = 0
    rows[::5, 3:6] = 1
    return rows


WORDS = TextInput(vocabulary="v", max_tokens=4, token_pattern=r"\w+")
TINY = ImageInput(height=2, width=2, channels=1)
CASES = {
    "real numbers": features(RNG.normal(5, 2, (80, 3)).round(2).astype(np.float32)),
    "whole numbers": features(RNG.integers(0, 90, (80, 3)).astype(np.float32)),
    "every combination": features(np.array([*product((0, 1), repeat=5)] * 6, np.float32)),
    "one column": features(np.arange(60, dtype=np.float32).reshape(-1, 1)),
    "numbers that float32 has at distances of 128": features(
        RNG.integers(13_000_000, 14_000_000, (60, 1)).astype(np.float32) * 128
    ),
    "one row many times": features(np.repeat(np.arange(12.0).reshape(6, 2), 30, axis=0)),
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
def test_no_synthetic_row_is_a_calibration_row(given: Labelled) -> None:
    known = {row.tobytes() for row in given.rows}

    made = synthetic_rows(given)

    assert [row.tobytes() in known for row in made] == [False] * GOLDEN_ROWS


@each_case
def test_synthetic_rows_have_the_shape_type_and_range_of_calibration_rows(given: Labelled) -> None:
    made = synthetic_rows(given)

    assert made.shape == (GOLDEN_ROWS, *given.rows.shape[1:])
    assert made.dtype == given.rows.dtype
    assert made.min() >= given.rows.min()
    assert made.max() <= given.rows.max()


def test_synthetic_rows_are_the_same_each_time() -> None:
    given = CASES["real numbers"]

    assert np.array_equal(synthetic_rows(given), synthetic_rows(given))


def test_numbers_are_rounded_as_their_column_is() -> None:
    made = synthetic_rows(CASES["real numbers"]).astype(np.float64)

    # float32 keeps seven digits.
    assert made == pytest.approx(made.round(2), rel=1e-6)


def test_value_that_most_rows_lack_is_missing_in_synthetic_rows() -> None:
    rows = RNG.normal(0, 1, (80, 2)).astype(np.float32)
    rows[5:, 1] = np.nan

    made = synthetic_rows(features(rows))

    assert np.isnan(made[:, 1]).sum() >= 7
    assert not np.isnan(made[:, 0]).any()


def test_value_of_one_row_alone_is_in_no_synthetic_row() -> None:
    rows = np.zeros((60, 2), np.float32)
    rows[:, 0] = np.arange(60) / 100
    rows[17, 1] = 1_000_000.5

    made = synthetic_rows(features(rows))

    assert made[:, 1].max() < 1_000_000


def test_synthetic_texts_have_frequent_words_only() -> None:
    rows = texts()
    rows[0, 6:] = 999

    made = synthetic_rows(labelled(rows, CASES["texts"].input))

    assert 999 not in made


@pytest.mark.parametrize("labels", [1, 2], ids=["every label", "one label"])
def test_column_may_lack_all_values(labels: int) -> None:
    rows = RNG.normal(0, 1, (80, 2)).astype(np.float32)
    rows[::2, 1] = np.nan
    rows[1::2, 1] = np.nan if labels == 1 else 1

    made = synthetic_rows(features(rows))

    assert not np.isnan(made[:, 0]).any()
    assert np.isnan(made[:, 1]).any()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(
            labelled(np.array([*product(range(3), repeat=4)], np.uint8).reshape(-1, 2, 2), TINY),
            "every row that a golden row could be is a calibration row",
            id="every possible picture",
        ),
        pytest.param(
            features(np.array([[1.7e9 + 128 * each] for each in range(60)], np.float32)),
            "every row that a golden row could be is a calibration row",
            id="every possible number",
        ),
        pytest.param(
            labelled(np.tile(np.array([1, 1, 0, 0], np.int32), (30, 1)), WORDS),
            "no calibration text has a word of --vocabulary",
            id="texts without a known word",
        ),
    ],
)
def test_rows_that_leave_no_other_row_are_refused(given: Labelled, said: str) -> None:
    with pytest.raises(PackRefused, match=said):
        synthetic_rows(given)
