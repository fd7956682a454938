"""Certificates, policies and limits, on synthetic scores whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.risk_control import BinaryRisk, MultiClassificationLTTController
from numpy.typing import NDArray
from scipy.stats import binom
from training_toys import drawn_scores, toy_recipe

from service.bundle.manifest import CertifiedRow, TemperatureScaling
from training.calibrate import (
    Judged,
    calibrate,
    certified_table,
    certify,
    conformal_limits,
    count_passing,
    cross_calibrate,
    even_levels,
    judge,
    make_policy,
    passed,
    plan_tests,
    plan_tests_blindly,
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
    grid = threshold_grid(judged_rows(3_000, seed=99).confidence)
    n, errors = count_passing(judged.confidence, judged.wrong, grid)
    # MAPIE gives the whole level to its first threshold: let that one have rows enough.
    grid = [threshold for threshold, rows in zip(grid, n, strict=True) if rows >= 1_000]
    p_values = binom.cdf(errors, n, max_error)[-len(grid) :]

    passes = passed(p_values, np.array([delta, *[0.0] * (len(grid) - 1)]))

    loosest = grid[np.flatnonzero(passes)[-1]] if passes.any() else None
    assert loosest == oracle_threshold(judged, grid, max_error, delta)


def test_certified_row_counts_what_it_answers() -> None:
    judged = judged_rows(3_000)

    grid = threshold_grid(judged.confidence)
    levels = even_levels(len(grid), 0.01)

    row = certify(judged.confidence, judged.wrong, grid, 0.05, levels)

    assert row is not None
    answered = judged.confidence >= row.threshold
    assert (row.n, row.errors) == (answered.sum(), judged.wrong[answered].sum())
    assert row.coverage == row.n / 3_000


def test_too_few_rows_certify_nothing() -> None:
    confidence, wrong = np.ones(298), np.zeros(298, np.bool_)

    row = certify(confidence, wrong, [1.0], 0.01, even_levels(1, 0.05))

    assert row is None


def test_one_mislabelled_row_at_the_top_does_not_end_the_walk() -> None:
    confidence = np.linspace(1, 0.9, 2_000).round(6)
    wrong = np.zeros(2_000, np.bool_)
    wrong[0] = True

    grid = threshold_grid(confidence)
    row = certify(confidence, wrong, grid, 0.01, even_levels(len(grid), 0.05 / 6))

    assert row is not None
    assert row.coverage == 1


@pytest.mark.parametrize("more", [0, 1], ids=["rows", "one row more"])
@pytest.mark.parametrize(
    ("rows", "max_error"), [(152, 0.05), (385, 0.02), (772, 0.01), (1_548, 0.005)]
)
def test_one_more_row_at_a_round_number_keeps_the_certificate(
    rows: int, max_error: float, more: int
) -> None:
    """At 773 rows, 39 of them novel and none wrong, nothing was certified at 1 %."""
    confidence = np.linspace(1, 0.9, rows + more).round(6)
    grid = threshold_grid(confidence)
    confidence[-rows // 20 :] = -1

    levels = even_levels(len(grid), 0.05)

    row = certify(confidence, np.zeros(rows + more, np.bool_), grid, max_error, levels)

    assert row is not None
    assert row.n == (confidence > 0).sum()


@st.composite
def answers(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidences and errors of some hundred rows, errors more frequent where confidence is low."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    confidence = rng.beta(draw(st.floats(2, 40)), 1, draw(st.integers(50, 900))).round(6)
    return confidence, rng.random(len(confidence)) < draw(st.floats(0, 0.5)) * (1 - confidence)


def threshold_of(row: CertifiedRow | None) -> float:
    """Return the certified threshold; above every confidence if no row was certified."""
    return row.threshold if row else 2.0


@given(
    rows=answers(),
    max_error=st.sampled_from([0.005, 0.01, 0.02, 0.05, 0.1]),
    added=st.integers(1, 50),
    likely=st.floats(0, 1),
    likely_level=st.sampled_from([0.0, 0.04, 0.05]),
)
def test_more_rows_that_are_right_never_lose_a_certificate(
    rows: tuple[NDArray[np.float64], NDArray[np.bool_]],
    max_error: float,
    added: int,
    likely: float,
    likely_level: float,
) -> None:
    confidence, wrong = rows
    grid = threshold_grid(judged_rows(500, seed=98).confidence)
    levels = even_levels(len(grid), 0.05 - likely_level)
    levels[round(likely * (len(grid) - 1))] += likely_level

    before = certify(confidence, wrong, grid, max_error, levels)
    after = certify(
        np.append(confidence, np.ones(added)),
        np.append(wrong, np.zeros(added, np.bool_)),
        grid,
        max_error,
        levels,
    )

    assert threshold_of(after) <= threshold_of(before)


@pytest.mark.parametrize("rows", [50, 500, 5_000])
def test_levels_of_all_thresholds_sum_to_the_level_of_the_test(rows: int) -> None:
    seen = judged_rows(rows, seed=5)
    grid = threshold_grid(seen.confidence)

    planned = plan_tests(seen, 0, grid).levels(0.02, 0.05)

    assert planned.sum() == pytest.approx(0.05)
    assert even_levels(len(grid), 0.05).sum() == pytest.approx(0.05)
    assert even_levels(1, 0.05).tolist() == [0.05]


def test_few_rows_give_the_whole_level_to_one_threshold() -> None:
    """67 rows without an error certify 5 % at a level of 0.05, and nothing at 0.01."""
    seen = judged_rows(80, seed=5)
    grid = threshold_grid(seen.confidence)

    planned = plan_tests_blindly(seen, 0, grid).levels(0.05, 0.05)

    assert planned.max() == pytest.approx(0.05)


def test_test_that_passes_hands_its_level_on() -> None:
    p_values = np.array([0.02, 0.03, 0.5, 0.02, 0.01])

    passes = passed(p_values, np.array([0.02, 0.01, 0.01, 0.0, 0.01]))

    assert passes.tolist() == [True, True, False, False, True]


def test_nothing_passes_without_a_level() -> None:
    assert passed(np.zeros(3), np.array([0.0, 0.0, 0.0])).tolist() == [False] * 3


def noisy_rows(n: int, seed: int) -> Judged:
    """Rows of which 4 % have a wrong label, whatever the confidence."""
    rows = judged_rows(n, seed)
    is_changed = np.random.default_rng(seed).random(n) < 0.04
    targets = np.where(is_changed, (rows.targets + 1) % LABELS, rows.targets)
    return Judged(rows.probabilities, targets, None)


def test_wrong_labels_among_the_most_confident_rows_do_not_empty_the_table() -> None:
    certified = 0
    for seed in range(100):
        seen, judged = noisy_rows(1_000, seed + 1_000), noisy_rows(1_000, seed)
        plan = plan_tests(seen, 0, threshold_grid(seen.confidence))
        table = certified_table(judged, plan, 0, (0.1,))
        certified += bool(table)

    assert certified >= 95


def test_testing_starts_where_a_test_is_most_likely_to_pass() -> None:
    seen = judged_rows(3_000, seed=5)
    grid = threshold_grid(seen.confidence)
    levels = plan_tests(seen, 0, grid).levels(0.02, 0.05)
    start = levels.argmax()
    draws = [judged_rows(3_000, seed) for seed in range(100, 140)]

    counted = [count_passing(each.confidence, each.wrong, grid) for each in draws]
    p_values = [binom.cdf(errors, n, 0.02) for n, errors in counted]
    passes = np.mean([each <= levels[start] for each in p_values], axis=0)

    # Forty draws: a standard deviation of at most 0.08.
    assert passes[start] >= passes.max() - 0.16


def test_blind_start_ignores_which_rows_are_wrong() -> None:
    seen = judged_rows(3_000, seed=5)
    grid = threshold_grid(seen.confidence)
    other = Judged(seen.probabilities, (seen.targets + 1) % LABELS, None)

    one, two = (plan_tests_blindly(each, 0, grid).levels(0.05, 0.05) for each in (seen, other))

    assert one.tolist() == two.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("is_noisy", [False, True], ids=["clean labels", "wrong labels"])
def test_certificate_is_broken_no_more_often_than_promised(*, is_noisy: bool) -> None:
    draw = noisy_rows if is_noisy else judged_rows
    population, seen = draw(100_000, 1), draw(2_000, 2)
    all_confidence, all_wrong = population.confidence, population.wrong
    grid = threshold_grid(seen.confidence)
    rng = np.random.default_rng(3)
    delta, max_error, broken = 0.1, 0.1 if is_noisy else 0.05, 0
    levels = plan_tests(seen, 0, grid).levels(max_error, delta)

    for _ in range(400):
        chosen = rng.integers(0, len(all_wrong), 2_000)
        row = certify(all_confidence[chosen], all_wrong[chosen], grid, max_error, levels)
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
    row = certify(judged.confidence, judged.wrong, grid, 0.05, even_levels(len(grid), 0.01))
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
