"""How rare a novelty score is among familiar rows."""

import numpy as np
import pytest
from training_toys import drawn_scores

from service.bundle.manifest import TemperatureScaling
from service.decision import tail
from training.calibrate import judge
from training.tails import novelty_tables, tail_table


def test_tail_table_agrees_with_counting() -> None:
    scores = np.random.default_rng(6).normal(size=5_000).round(6)
    table = tail_table(scores)
    asked = np.quantile(scores, [0.1, 0.5, 0.9, 0.99, 0.999])

    counted = (1 + (scores[:, None] >= asked).sum(axis=0)) / 5_001

    # Between 200 knots the interpolation may be off by 2 % of the tail, or by one row.
    assert tail(asked, table) == pytest.approx(counted, rel=0.02, abs=1 / 5_001)


def test_scores_beyond_the_largest_have_the_least_tail() -> None:
    table = tail_table(np.random.default_rng(7).normal(size=999))

    assert tail(np.array([1e9]), table) == pytest.approx(1 / 1_000)
    assert tail(np.array([-1e9]), table) == pytest.approx(1)


def test_tail_table_of_one_value_is_a_tail() -> None:
    table = tail_table(np.zeros(100))

    assert table.tails == pytest.approx((1, 1 / 101))


def test_novelty_p_value_is_uniform_on_familiar_rows() -> None:
    scores = drawn_scores(10_000, seed=8)
    novelty = novelty_tables(scores, ("energy",), "validation")
    fresh = drawn_scores(10_000, seed=9)
    known = TemperatureScaling(temperature=1, split="known", n=1)

    novelty_p = judge(fresh, known, novelty).novelty_p

    assert novelty_p is not None
    # Kolmogorov's distance of two samples of 10,000 passes 0.023 once in a hundred times.
    uniform = (np.arange(10_000) + 0.5) / 10_000
    assert np.abs(np.sort(novelty_p) - uniform).max() < 0.023
