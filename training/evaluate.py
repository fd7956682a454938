"""Numbers on the test split, which chose nothing; every share with its 95 % interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from service.bundle.manifest import (
    Baseline,
    Condition,
    Evaluation,
    Measure,
    OutlierFamily,
    Policy,
    RealisedRow,
)
from service.decision import Answered, Verdict
from training import bootstrap, reasons
from training.calibrate import Judged
from training.mappings import mean_nll

BINS = 15
"""Bins of equal mass for the expected calibration error."""

_FLOOR_DRAWS = 200
_CURVE_POINTS = 101


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence against accuracy in bins of equal mass, each shape (bins,)."""

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    rows: NDArray[np.int64]


def share(count: int, n: int) -> Measure:
    """Return count / n with its exact 95 % interval (Clopper and Pearson 1934)."""
    if n == 0:
        return Measure(value=0, low=0, high=1)
    low = float(beta.ppf(0.025, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, n - count)) if count < n else 1.0
    return Measure(value=count / n, low=low, high=high)


def reliability(confidence: NDArray[np.float64], wrong: NDArray[np.bool_]) -> Reliability:
    """Return mean confidence and accuracy in bins of equal mass, sorted by confidence."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), BINS)
    parts = [part for part in parts if len(part)]
    return Reliability(
        np.array([confidence[part].mean() for part in parts]),
        np.array([1 - wrong[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def ece(confidence: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, 15 bins of equal mass."""
    bins = reliability(confidence, wrong)
    gaps = np.abs(bins.confidence - bins.accuracy)
    return float((gaps * bins.rows).sum() / bins.rows.sum())


def ece_floor(confidence: NDArray[np.float64], seed: int) -> float:
    """Return what `ece` gives on average if the confidences are exactly right."""
    rng = np.random.default_rng(seed)
    draws = [
        ece(confidence, rng.random(len(confidence)) >= confidence) for _ in range(_FLOOR_DRAWS)
    ]
    return float(np.mean(draws))


def risks_by_rank(confidence: NDArray[np.float64], wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the error among the k + 1 most confident rows, shape (rows,).

    Rows of equal confidence share their errors evenly: their order means nothing.
    """
    values, members = np.unique(-confidence, return_inverse=True)
    ends = np.cumsum(np.bincount(members, minlength=len(values)))
    errors = np.cumsum(np.bincount(members, weights=wrong, minlength=len(values)))
    ranks = np.arange(1, len(confidence) + 1)
    cumulative: NDArray[np.float64] = np.interp(ranks, [0, *ends], [0, *errors])
    return cumulative / ranks


def aurc(confidence: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """Return the area under the risk-coverage curve (Geifman, Uziel and El-Yaniv 2019)."""
    return float(risks_by_rank(confidence, wrong).mean())


def risk_coverage(
    confidence: NDArray[np.float64], wrong: NDArray[np.bool_]
) -> tuple[tuple[float, float], ...]:
    """Return (coverage, risk) at no more than 101 coverages, ascending."""
    risks = risks_by_rank(confidence, wrong)
    n = len(risks)
    ranks = np.unique(np.linspace(1, n, _CURVE_POINTS).round().astype(int))
    return tuple((float(rank / n), float(risks[rank - 1])) for rank in ranks)


def confusion(judged: Judged) -> tuple[tuple[int, ...], ...]:
    """Return counts; rows: true label, columns: best label."""
    labels = judged.probabilities.shape[1]
    counts = np.zeros((labels, labels), np.int64)
    np.add.at(counts, (judged.targets, judged.probabilities.argmax(axis=1)), 1)
    return tuple(tuple(row) for row in counts.tolist())


def answers(judged: Judged, policy: Policy) -> dict[float, NDArray[np.bool_]]:
    """Return, for each certified risk, which rows are answered."""
    passing = judged.passing(policy.novelty_alpha)
    return {row.max_error: passing >= row.threshold for row in policy.table}


def evaluate(
    judged: Judged,
    answered: Mapping[float, NDArray[np.bool_]],
    policy: Policy,
    *,
    split: str,
    seed: int,
) -> Evaluation:
    """Return the numbers of one split.

    Args:
        judged: its rows.
        answered: risk -> which of them are answered, for each row of the policy's table.
        policy: what is served.
        split: its name.
        seed: of the simulated noise floor and of the intervals.
    """
    confidence, wrong = judged.probabilities.max(axis=1), judged.wrong
    n = len(wrong)
    numbers = {
        "nll": mean_nll(judged.probabilities, judged.targets),
        "ece": ece(confidence, wrong),
        "aurc": aurc(confidence, wrong),
    }
    return Evaluation(
        split=split,
        n=n,
        accuracy=share(int((~wrong).sum()), n),
        **numbers,
        intervals=bootstrap.intervals(judged, numbers, BINS, seed),
        ece_floor=ece_floor(confidence, seed),
        risk_coverage=risk_coverage(confidence, wrong),
        confusion=confusion(judged),
        table=tuple(
            RealisedRow(max_error=row.max_error, **_selective(answered[row.max_error], wrong))
            for row in policy.table
        ),
    )


def _selective(answered: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> dict[str, Measure]:
    n = int(answered.sum())
    return {
        "coverage": share(n, len(answered)),
        "risk": share(int(wrong[answered].sum()), n),
    }


def condition(name: str, judged: Judged, verdicts: Sequence[Verdict], seed: int) -> Condition:
    """Return the numbers of the test split under one served condition.

    Args:
        name: of the condition.
        judged: its rows.
        verdicts: one for each row, by the default policy.
        seed: of the simulated noise floor.
    """
    confidence, wrong = judged.probabilities.max(axis=1), judged.wrong
    n = len(wrong)
    selective = _selective(_answered(verdicts), wrong)
    return Condition(
        name=name,
        n=n,
        accuracy=share(int((~wrong).sum()), n),
        ece=ece(confidence, wrong),
        ece_floor=ece_floor(confidence, seed),
        answered=selective["coverage"],
        risk=selective["risk"],
        reasons=reasons.shares(verdicts),
    )


def outlier_family(name: str, verdicts: Sequence[Verdict]) -> OutlierFamily:
    """Return how many rows of none of the labels the default policy answers; none should be."""
    answered, n = _answered(verdicts), len(verdicts)
    return OutlierFamily(
        name=name,
        n=n,
        answered=share(int(answered.sum()), n),
        reasons=reasons.shares(verdicts),
    )


def _answered(verdicts: Sequence[Verdict]) -> NDArray[np.bool_]:
    return np.array([isinstance(verdict, Answered) for verdict in verdicts])


def baseline(name: str, evaluation: Evaluation) -> Baseline:
    """Return another network's evaluation as a row to compare with."""
    return Baseline(
        name=name,
        accuracy=evaluation.accuracy,
        nll=evaluation.nll,
        ece=evaluation.ece,
        aurc=evaluation.aurc,
        conditions={part.name: part.accuracy.value for part in evaluation.conditions},
    )
