"""Certificates, policies and limits, on synthetic scores whose truth is known."""

import numpy as np
import pytest
from mapie.risk_control import BinaryRisk, MultiClassificationLTTController
from numpy.typing import NDArray
from training_toys import drawn_scores, toy_recipe

from service.bundle.manifest import TemperatureScaling
from training.calibrate import (
    Judged,
    calibrate,
    certify,
    conformal_limits,
    cross_calibrate,
    fewest_rows,
    judge,
    make_policy,
    threshold_grid,
)
from training.recipe import OutOfFold, Scores

LABELS = 3


def judged_rows(n: int, seed: int = 0) -> Judged:
    known = TemperatureScaling(temperature=1, split="known", n=n)
    return judge(drawn_scores(n, seed=seed), known, None)


def oracle_threshold(
    judged: Judged, grid: list[float], max_error: float, delta: float
) -> float | None:
    """What MAPIE certifies on the same rows and the same sequence."""
    # MAPIE marks an abstention by nan, the only value that is not itself.
    wrong = BinaryRisk(lambda y, p: y != p, lambda _, p: ~np.isnan(p), higher_is_better=False)
    controller = MultiClassificationLTTController(
        lambda rows: rows,
        [wrong],
        [max_error],
        confidence_level=1 - delta,
        list_predict_params=np.array(sorted(grid)),
        classes=np.arange(LABELS),
        fwer_method="fixed_sequence",
    )
    rows = judged.probabilities.copy()
    rows[np.arange(len(rows)), rows.argmax(axis=1)] = judged.confidence
    controller.calibrate(rows, judged.targets)
    valid: NDArray[np.float64] = controller.valid_predict_params
    return float(valid.min()) if len(valid) else None


# MAPIE warns that it does not check what the order of the sequence is for, and that it found none.
@pytest.mark.filterwarnings("ignore:Fixed sequence testing requires a monotonic risk:UserWarning")
@pytest.mark.filterwarnings("ignore:No predict parameters were found:UserWarning")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_error", [0.01, 0.02, 0.05])
def test_certified_threshold_is_that_of_mapie(max_error: float, seed: int) -> None:
    judged = judged_rows(3_000, seed=seed)
    delta = 0.05 / 6
    least = fewest_rows(max_error, delta, 3_000)
    grid = [
        threshold
        for threshold in threshold_grid(judged_rows(3_000, seed=99).confidence)
        if (judged.confidence >= threshold).sum() >= least
    ]

    row = certify(judged.confidence, judged.wrong, grid, max_error, delta)

    assert (row and row.threshold) == oracle_threshold(judged, grid, max_error, delta)


def test_certified_row_counts_what_it_answers() -> None:
    judged = judged_rows(3_000)

    row = certify(judged.confidence, judged.wrong, threshold_grid(judged.confidence), 0.05, 0.01)

    assert row is not None
    answered = judged.confidence >= row.threshold
    assert (row.n, row.errors) == (answered.sum(), judged.wrong[answered].sum())
    assert row.coverage == row.n / 3_000


def test_too_few_rows_certify_nothing() -> None:
    confidence, wrong = np.ones(298), np.zeros(298, np.bool_)

    row = certify(confidence, wrong, [1.0], 0.01, 0.05)

    assert row is None


def test_one_mislabelled_row_at_the_top_does_not_end_the_walk() -> None:
    confidence = np.linspace(1, 0.9, 2_000).round(6)
    wrong = np.zeros(2_000, np.bool_)
    wrong[0] = True

    row = certify(confidence, wrong, threshold_grid(confidence), 0.01, 0.05 / 6)

    assert row is not None
    assert row.coverage == 1


@pytest.mark.slow
def test_certificate_is_broken_no_more_often_than_promised() -> None:
    population = judged_rows(100_000, seed=1)
    all_confidence, all_wrong = population.confidence, population.wrong
    grid = threshold_grid(judged_rows(2_000, seed=2).confidence)
    rng = np.random.default_rng(3)
    delta, max_error, broken = 0.1, 0.05, 0

    for _ in range(400):
        chosen = rng.integers(0, len(all_wrong), 2_000)
        row = certify(all_confidence[chosen], all_wrong[chosen], grid, max_error, delta)
        answered = all_confidence >= (row.threshold if row else 2)
        broken += bool(answered.any() and all_wrong[answered].mean() > max_error)

    # Two standard deviations of a binomial above delta.
    assert broken / 400 <= delta + 2 * np.sqrt(delta * (1 - delta) / 400)


def test_grid_descends_and_is_rounded() -> None:
    grid = threshold_grid(judged_rows(1_000).confidence)

    assert grid == sorted({round(threshold, 6) for threshold in grid}, reverse=True)


def test_closed_novelty_gate_is_below_every_threshold() -> None:
    rows = judged_rows(3)
    judged = Judged(rows.probabilities, rows.targets, np.array([0.001, 0.01, 0.5]))

    passing = judged.passing(0.01)

    assert passing.tolist() == [-1, *judged.confidence[1:]]


def test_conformal_sets_hold_each_label_as_often_as_they_say() -> None:
    limits = np.array(conformal_limits(judged_rows(20_000, seed=4), "validation").limits)
    fresh = judged_rows(20_000, seed=5)

    covered = (1 - fresh.probabilities <= limits)[np.arange(20_000), fresh.targets]

    by_label = [covered[fresh.targets == label].mean() for label in range(LABELS)]
    # Some 6,700 rows of each label on both sides: a standard deviation of 0.4 points.
    assert by_label == pytest.approx([0.95] * LABELS, abs=0.013)


def test_label_with_too_few_rows_is_always_a_candidate() -> None:
    rows = judged_rows(40)
    rare = Judged(rows.probabilities, np.where(np.arange(40) < 5, 0, 1), None)

    limits = conformal_limits(rare, "validation").limits

    assert limits[0] == limits[2] == 1


def test_default_is_the_next_larger_risk_that_could_be_certified() -> None:
    judged = judged_rows(3_000)
    grid = threshold_grid(judged.confidence)
    row = certify(judged.confidence, judged.wrong, grid, 0.05, 0.01)
    assert row is not None

    policy = make_policy(toy_recipe(max_error=0.001), (row,), 3_000, "toys", "calibration")

    assert (policy.max_error, policy.threshold, policy.status) == (0.05, row.threshold, "certified")


def test_nothing_is_answered_when_nothing_could_be_certified() -> None:
    policy = make_policy(toy_recipe(), (), 10, "toys", "calibration")

    assert (policy.max_error, policy.threshold, policy.status) == (None, 1, "uncertified")


def test_calibration_split_does_not_change_what_validation_chooses() -> None:
    recipe = toy_recipe(labels=("a", "b", "c"))
    validation = drawn_scores(2_000, seed=10)

    one = calibrate(recipe, validation, drawn_scores(2_000, seed=11), "toys")
    other = calibrate(recipe, validation, drawn_scores(2_000, seed=12), "toys")

    assert one.calibration == other.calibration
    assert one.conformal == other.conformal
    assert one.novelty == other.novelty
    assert one.policy.table != other.policy.table


def test_fold_is_judged_without_its_own_rows() -> None:
    recipe = toy_recipe(labels=("a", "b", "c"))
    scores = drawn_scores(1_500, temperature=2, seed=13)
    folds = np.arange(1_500) % 5
    # Other targets inside one fold must leave that fold's own probabilities alone.
    changed = Scores(
        scores.logits,
        scores.novelty_scores,
        np.where(folds == 0, (scores.targets + 1) % LABELS, scores.targets),
    )

    before = cross_calibrate(recipe, OutOfFold(scores, folds), "toys")
    after = cross_calibrate(recipe, OutOfFold(changed, folds), "toys")

    inside = folds == 0
    assert np.array_equal(before.judged.probabilities[inside], after.judged.probabilities[inside])
    assert not np.array_equal(
        before.judged.probabilities[~inside], after.judged.probabilities[~inside]
    )


def test_cross_fitted_policy_says_so() -> None:
    recipe = toy_recipe(labels=("a", "b", "c"), max_error=0.05)
    folds = np.arange(4_000) % 10

    crossed = cross_calibrate(recipe, OutOfFold(drawn_scores(4_000), folds), "toys")

    assert crossed.parts.policy.status == "cross_fitted"
    assert set(crossed.answered) == {row.max_error for row in crossed.parts.policy.table}


def test_no_threshold_of_the_grid_is_below_the_least_confidence() -> None:
    confidence = np.linspace(0.3, 1, 1_000)

    grid = threshold_grid(confidence, 0.9)

    assert grid[-1] == 0.9
    assert grid == [value for value in threshold_grid(confidence) if value > 0.9] + [0.9]
