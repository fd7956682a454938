"""Conformal sets and the drift martingale beside those of crepes; MAPIE: `test_calibrate`."""

import itertools
from pathlib import Path

import crepes
import numpy as np
import pytest
from bundles import certified_policy, fruit_bundle
from crepes.martingales import BettingFunction, SimpleJumper, SleeperStayer
from numpy.typing import NDArray
from training_toys import drawn_scores

from service.bundle.manifest import TemperatureScaling
from service.decision import DECIMALS, Judge
from service.telemetry.drift import ALARM, EXPONENTS, PATIENCE_ROWS, Martingale, payouts
from training.calibrate import CONFORMAL_LEVEL, Judged, conformal_limits, judge

LABELS = 3


def judged_rows(n: int, seed: int) -> Judged:
    """Rows whose probabilities are as round as the limits."""
    known = TemperatureScaling(temperature=1, split="known", n=n)
    judged = judge(drawn_scores(n, seed=seed), known, None)
    return Judged(judged.probabilities.round(DECIMALS), judged.targets, None)


def crepes_sets(calibration: Judged, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return Mondrian conformal sets, a category for each label, shape (rows, labels)."""
    true = calibration.probabilities[np.arange(len(calibration.targets)), calibration.targets]
    mondrian = crepes.ConformalClassifier().fit((1 - true).round(DECIMALS), calibration.targets)
    columns = [
        mondrian.predict_set(
            (1 - probabilities[:, label]).round(DECIMALS),
            bins=np.full(len(probabilities), label),
            confidence=CONFORMAL_LEVEL,
            smoothing=False,
        )
        for label in range(LABELS)
    ]
    return np.stack(columns, axis=1).astype(np.bool_)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows", [50, 1_000])
def test_conformal_sets_are_those_of_crepes(rows: int, seed: int) -> None:
    calibration, fresh = judged_rows(rows, seed), judged_rows(400, seed=99)

    limits = np.array(conformal_limits(calibration, "validation").limits)
    sets = (1 - fresh.probabilities).round(DECIMALS) <= limits

    np.testing.assert_array_equal(sets, crepes_sets(calibration, fresh.probabilities))


def test_candidates_are_the_set_of_crepes_and_the_best_label(tmp_path: Path) -> None:
    calibration, fresh = judged_rows(1_000, seed=5), judged_rows(400, seed=99)
    # A mass of almost nothing: candidates are not filled up beyond the conformal set.
    bundle = fruit_bundle(
        tmp_path,
        conformal=conformal_limits(calibration, "validation"),
        policy=certified_policy(ambiguity_mass=1e-6),
    )
    labels = np.array(bundle.manifest.labels)
    expected = crepes_sets(calibration, fresh.probabilities)
    expected[np.arange(400), fresh.probabilities.argmax(axis=1)] = True

    served = Judge(bundle.manifest)
    candidates = [set(served.candidates(row)) for row in fresh.probabilities]

    assert candidates == [set(labels[row]) for row in expected]


class PowerBets(BettingFunction):  # type: ignore[misc]  # crepes has no types
    """Bets e * p^(e - 1), mixed anew at each row: crepes has linear and step bets only."""

    def apply(self, p_values: NDArray[np.float64]) -> NDArray[np.float64]:
        exponents = np.array(EXPONENTS)
        bets = exponents * p_values[:, None] ** (exponents - 1)
        mean: NDArray[np.float64] = bets.mean(axis=1, keepdims=True)
        return mean


def drifting(rows: int, seed: int) -> NDArray[np.float64]:
    """Return p-values, a fifth of them of novel rows."""
    rng = np.random.default_rng(seed)
    novel = rng.random(rows) < 0.2
    return np.where(novel, rng.uniform(0.0005, 0.002, rows), rng.uniform(0.01, 1, rows))


@pytest.mark.parametrize("seed", range(3))
def test_payouts_multiply_as_a_martingale_of_crepes(seed: int) -> None:
    p_values = drifting(100, seed)

    product = np.cumprod(payouts(p_values))

    # One account has nobody to jump to: the jumper is the plain product of its bets.
    np.testing.assert_allclose(product, SimpleJumper(bf=PowerBets()).apply(p_values), rtol=1e-9)


def capitals(p_values: NDArray[np.float64]) -> list[float]:
    """Return our capital after each row before the first alarm."""
    martingale = Martingale()
    pays = payouts(p_values).tolist()
    before = itertools.takewhile(lambda payout: not martingale.bet(payout), pays)
    return [martingale.capital for _ in before]


@pytest.mark.parametrize("seed", range(3))
def test_alarm_is_that_of_a_sleeper_of_crepes(seed: int) -> None:
    """The sleeper of crepes wakes at one rate for ever, ours ever more slowly.

    They agree while few rows of the patience have gone by.
    """
    p_values = drifting(300, seed)
    sleeper = SleeperStayer(R=1 / PATIENCE_ROWS, bf=PowerBets())

    found = capitals(p_values)

    rows = len(found)
    assert rows == sleeper.apply(p_values, c=ALARM) < 300
    # Twice the rows gone by over the patience: by so much the shares differ that wake.
    expected = sleeper.apply(p_values)[:rows]
    np.testing.assert_allclose(found, expected, rtol=2 * rows / PATIENCE_ROWS)
