import numpy as np
import pytest
from numpy.typing import NDArray

from service.telemetry.drift import ALARM, FEWEST_ROWS, Drift, Martingale, Window, payouts


def rows_until_alarm(p_values: NDArray[np.float64], martingale: Martingale) -> int:
    for row, payout in enumerate(payouts(p_values).tolist(), start=1):
        if martingale.bet(payout):
            return row
    return 0


def test_bet_is_fair_on_familiar_rows() -> None:
    p = (np.arange(2_000_000) + 0.5) / 2_000_000

    # The payout's tail near 0 is heavy: the midpoint rule misses about two per cent of it.
    assert payouts(p).mean() == pytest.approx(1, abs=0.03)


def test_familiar_traffic_raises_no_alarm() -> None:
    rng = np.random.default_rng(0)

    assert rows_until_alarm(rng.random(300_000), Martingale()) == 0


@pytest.mark.parametrize("familiar_rows", [0, 100_000])
def test_drift_is_found_whenever_it_sets_in(familiar_rows: int) -> None:
    found = []
    for seed in range(7):
        rng = np.random.default_rng(seed)
        martingale = Martingale()
        rows_until_alarm(rng.random(familiar_rows), martingale)
        novel = rng.random(20_000) < 0.05
        p = np.where(novel, rng.uniform(0.0002, 0.002, 20_000), rng.random(20_000))
        found.append(rows_until_alarm(p, martingale))

    assert min(found) > 0
    # The goal: when a twentieth of the traffic turns novel, half of the time within 2,000 rows.
    assert np.median(found) <= 2000


def test_martingale_begins_anew_after_an_alarm() -> None:
    martingale = Martingale()

    assert rows_until_alarm(np.full(10_000, 1e-4), martingale) > 0
    assert martingale.capital == 1 < ALARM


def test_p_value_of_zero_is_no_infinite_evidence() -> None:
    at_zero, at_least = payouts([0.0, 1e-6])

    assert at_zero == at_least < 1e6


def test_distance_is_zero_on_the_reference_and_one_elsewhere() -> None:
    window = Window([0.5, 0.5, 0.0])
    window.count(np.arange(FEWEST_ROWS) % 2)
    assert window.distance() == 0

    other = Window([0.5, 0.5, 0.0])
    other.count(np.full(FEWEST_ROWS, 2))
    assert other.distance() == 1


def test_few_rows_are_no_distance() -> None:
    window = Window([1.0, 0.0])
    window.count(np.array([1]))

    assert window.distance() == 0


def test_old_rows_are_forgotten() -> None:
    window = Window([1.0, 0.0])
    window.count(np.repeat([1, 0], [5000, 10_000]))

    assert window.distance() == 0


def test_rows_are_seen_by_every_signal() -> None:
    drift = Drift([0.5, 0.5], [0.5, 0.5], [1.0, 0.0])

    for _ in range(FEWEST_ROWS):
        drift.see([1], [1.0], [0.99])

    assert drift.windows["label"].distance() == 1
    assert drift.windows["confidence"].distance() == 0.5
    assert drift.windows["novelty"].distance() == 0.5


def test_model_without_novelty_has_no_signal_of_it() -> None:
    drift = Drift([1.0], None, [1.0, 0.0])

    assert drift.see([0], [0.5], None) == 0
    assert "novelty" not in drift.windows
