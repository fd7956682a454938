"""Certificates over many re-splits, on synthetic scores whose rows are exchangeable."""

import numpy as np
import pytest
from training_toys import drawn_scores

from service.bundle.manifest import TemperatureScaling
from training.calibrate import (
    DELTA,
    DELTA_PER_RISK,
    RISKS,
    Judged,
    certify,
    judge,
    plan_tests,
    threshold_grid,
)
from training.resplits import RESPLITS, Violations, certified_positions, violations

TWO_DEVIATIONS = 2 * np.sqrt(DELTA * (1 - DELTA) / RESPLITS)


def judged_rows(n: int, seed: int) -> Judged:
    known = TemperatureScaling(temperature=1, split="known", n=n)
    return judge(drawn_scores(n, seed=seed), known, None)


SEEN = judged_rows(3_000, seed=1)
GRID = threshold_grid(SEEN.confidence)
PLAN = plan_tests(SEEN, 0, GRID)


@pytest.fixture(scope="module")
def found() -> Violations:
    return violations(judged_rows(15_000, seed=0), PLAN, 0.0, 5_000, seed=2)


def test_table_breaks_its_promise_no_more_often_than_it_says(found: Violations) -> None:
    assert found.broken <= DELTA + TWO_DEVIATIONS


def test_every_risk_that_is_broken_was_certified_first(found: Violations) -> None:
    assert [row.max_error for row in found.promises] == list(RISKS)
    assert all(row.broken <= row.certified for row in found.promises)
    assert found.promises[-1].certified == 1


@pytest.mark.parametrize("position", [3, 4, 5], ids=lambda position: str(RISKS[position]))
def test_threshold_chosen_by_eye_breaks_it_about_every_other_time(
    found: Violations, position: int
) -> None:
    by_eye = found.promises[position].broken_by_eye

    # Half, but for the steps of the grid: the loosest one that fits leaves some room.
    assert by_eye == pytest.approx(0.5, abs=0.15)
    assert by_eye > DELTA + TWO_DEVIATIONS


@pytest.mark.parametrize("max_error", RISKS)
@pytest.mark.parametrize("rows", [300, 3_000])
def test_position_is_that_of_the_threshold_that_training_certifies(
    max_error: float, rows: int
) -> None:
    parts = [judged_rows(rows, seed) for seed in range(10, 20)]
    levels = PLAN.levels(max_error, DELTA_PER_RISK)
    passes = np.array([[part.confidence >= least for least in GRID] for part in parts])
    errors = (passes & np.array([part.wrong for part in parts])[:, None]).sum(axis=2)

    positions = certified_positions(passes.sum(axis=2), errors, max_error, levels)

    certified = [certify(part.confidence, part.wrong, GRID, max_error, levels) for part in parts]
    found = [None if position < 0 else GRID[position] for position in positions.tolist()]
    assert found == [row and row.threshold for row in certified]


def test_closed_novelty_gate_leaves_nothing_to_promise() -> None:
    rows = judged_rows(2_000, seed=3)
    novel = Judged(rows.probabilities, rows.targets, np.zeros(2_000))

    found = violations(novel, plan_tests(novel, 0.01, GRID), 0.01, 1_000, seed=0)

    assert [(row.certified, row.broken) for row in found.promises] == [(0, 0)] * len(RISKS)
