"""Intervals by bootstrap, on rows whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from training_toys import drawn_scores

from service.bundle.manifest import TemperatureScaling
from training import bootstrap
from training.calibrate import Judged, judge
from training.evaluate import BINS, aurc, ece
from training.mappings import mean_nll


def judged(n: int, seed: int = 0) -> Judged:
    known = TemperatureScaling(temperature=4, split="known", n=n)
    return judge(drawn_scores(n, temperature=4, seed=seed), known, None)


def values(rows: Judged) -> dict[str, float]:
    confidence: NDArray[np.float64] = rows.probabilities.max(axis=1)
    return {
        "nll": mean_nll(rows.probabilities, rows.targets),
        "ece": ece(confidence, rows.wrong),
        "aurc": aurc(confidence, rows.wrong),
    }


@pytest.mark.parametrize("name", ["nll", "ece", "aurc"])
def test_interval_holds_the_number(name: str) -> None:
    rows = judged(2_000)

    found = getattr(bootstrap.intervals(rows, values(rows), BINS, seed=1), name)

    assert 0 <= found.low < values(rows)[name] < found.high


# Of a standard deviation: from 40 draws it is known to 11 %, and three of those are allowed. A
# calibration error at its floor is all noise, and resampling doubles the variance of noise.
@pytest.mark.parametrize(
    ("name", "factor"), [("nll", 1.0), ("aurc", 1.0), ("ece", 2**0.5)], ids=["nll", "aurc", "ece"]
)
def test_interval_is_as_wide_as_other_rows_make_it(name: str, factor: float) -> None:
    rows = judged(2_000)

    found = getattr(bootstrap.intervals(rows, values(rows), BINS, seed=1), name)

    spread = np.std([values(judged(2_000, seed))[name] for seed in range(1, 41)], ddof=1)
    half = found.high - values(rows)[name]
    assert half == pytest.approx(1.96 * factor * spread, rel=0.35)


def test_same_seed_gives_the_same_intervals() -> None:
    rows = judged(300)

    one, other = (bootstrap.intervals(rows, values(rows), BINS, seed=3) for _ in range(2))

    assert one == other


def test_fewer_rows_than_bins_have_intervals() -> None:
    rows = judged(9)

    found = bootstrap.intervals(rows, values(rows), BINS, seed=1)

    assert found.ece.low < found.ece.high
