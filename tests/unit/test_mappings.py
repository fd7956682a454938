"""Temperature and power map, on scores that follow known ones exactly."""

import numpy as np
import pytest
from training_toys import drawn_scores

from service.bundle.manifest import PowerMap, TemperatureScaling
from service.decision import calibrated
from training.mappings import fit_calibration, fit_power_map, fit_temperature
from training.recipe import Scores


def drawn_margins(n: int, known: PowerMap, seed: int = 0) -> Scores:
    """Two logits whose targets follow the power map exactly."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 3, n).astype(np.float32)
    logits = np.stack([-margin / 2, margin / 2], axis=1).astype(np.float32)
    targets = (rng.random(n) < calibrated(logits, known)[:, 1]).astype(np.int64)
    return Scores(logits, np.empty((n, 0), np.float32), targets)


@pytest.mark.parametrize("temperature", [0.5, 1.7, 4.0])
def test_temperature_is_recovered(temperature: float) -> None:
    scores = drawn_scores(20_000, temperature=temperature)

    fitted = fit_temperature(scores, "validation")

    # Three standard errors of the maximum-likelihood estimate at this n.
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)


def test_power_map_is_recovered() -> None:
    known = PowerMap(a=1.3, gamma=0.7, b=-0.2, split="known", n=1)

    fitted = fit_power_map(drawn_margins(40_000, known), "validation")

    assert (fitted.a, fitted.gamma, fitted.b) == pytest.approx((1.3, 0.7, -0.2), abs=0.08)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_power_map_is_monotone_in_the_margin(gamma: float) -> None:
    known = PowerMap(a=0.8, gamma=gamma, b=0.1, split="known", n=1)
    fitted = fit_power_map(drawn_margins(5_000, known), "validation")
    margin = np.linspace(-20, 20, 401)

    second = calibrated(np.stack([-margin / 2, margin / 2], axis=1), fitted)[:, 1]

    assert (np.diff(second) >= 0).all()


def test_identity_is_kept_when_the_map_does_not_help_other_rows() -> None:
    # Every second row is as much too sure as its neighbours are too unsure.
    sure, unsure = drawn_scores(500, temperature=4), drawn_scores(500, temperature=0.25, seed=1)
    order = np.arange(1_000).reshape(2, -1).T.ravel()
    scores = Scores(
        *(
            np.concatenate([getattr(sure, name), getattr(unsure, name)])[order]
            for name in ("logits", "novelty_scores", "targets")
        )
    )

    fitted = fit_calibration("temperature", scores, "validation")

    assert fitted == TemperatureScaling(temperature=1, split="validation", n=1_000)


def test_map_is_fitted_when_it_helps() -> None:
    fitted = fit_calibration("temperature", drawn_scores(5_000, temperature=3), "validation")

    assert isinstance(fitted, TemperatureScaling)
    assert fitted.temperature == pytest.approx(3, rel=0.1)
