"""From logits to probabilities: the temperature or power map of least negative log-likelihood."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize, minimize_scalar
from scipy.special import expit

from service.bundle.manifest import Calibration, PowerMap, TemperatureScaling
from service.decision import DECIMALS, calibrated
from training.recipe import Scores

_TEMPERATURES = (0.05, 20.0)
_GAMMAS = (0.3, 2.0)


def fit_calibration(
    kind: Literal["temperature", "power"], scores: Scores, split: str
) -> Calibration:
    """Return the mapping that minimises the negative log-likelihood, or the identity.

    The identity is kept unless the mapping helps rows that it was not fitted on: each half of the
    rows is tried with what the other half gave.
    """
    n = len(scores.targets)
    even = np.arange(n) % 2 == 0
    halves = [(rows_of(scores, even), rows_of(scores, ~even))]
    halves.append(halves[0][::-1])
    identity = _identity(kind, split, n)
    fit = fit_temperature if kind == "temperature" else fit_power_map
    after = sum(nll(own, fit(other, split)) for other, own in halves)
    before = sum(nll(own, identity) for _, own in halves)
    return fit(scores, split) if after < before else identity


def _identity(kind: Literal["temperature", "power"], split: str, n: int) -> Calibration:
    if kind == "power":
        return PowerMap(a=1, gamma=1, b=0, split=split, n=n)
    return TemperatureScaling(temperature=1, split=split, n=n)


def fit_temperature(scores: Scores, split: str) -> TemperatureScaling:
    """Return the temperature of least negative log-likelihood. Guo et al. 2017, section 4.2."""
    n = len(scores.targets)

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        return nll(scores, TemperatureScaling(temperature=temperature, split=split, n=n))

    low, high = _TEMPERATURES
    best = minimize_scalar(loss, bounds=(math.log(low), math.log(high)), method="bounded")
    temperature = round(math.exp(best.x), DECIMALS)
    return TemperatureScaling(temperature=temperature, split=split, n=n)


def fit_power_map(scores: Scores, split: str) -> PowerMap:
    """Return the signed power map of least negative log-likelihood; it is monotone.

    For a given gamma the loss is convex in a and b, so only gamma is searched.
    """
    n = len(scores.targets)
    margin = scores.logits[:, 1].astype(np.float64) - scores.logits[:, 0]
    signs = np.where(scores.targets == 1, 1.0, -1.0)

    def best_line(gamma: float) -> OptimizeResult:
        return _fit_line(np.sign(margin) * np.abs(margin) ** gamma, signs)

    searched = minimize_scalar(lambda g: best_line(g).fun, bounds=_GAMMAS, method="bounded")
    gamma = round(float(searched.x), DECIMALS)
    a, b = (round(float(value), DECIMALS) for value in best_line(gamma).x)
    return PowerMap(a=max(a, 10.0**-DECIMALS), gamma=gamma, b=b, split=split, n=n)


def _fit_line(feature: NDArray[np.float64], signs: NDArray[np.float64]) -> OptimizeResult:
    """Return the logistic regression of `signs` on one feature, its slope positive."""

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        against = -signs * (line[0] * feature + line[1])
        pull = -signs * expit(against) / len(signs)
        gradient = np.array([(pull * feature).sum(), pull.sum()])
        return float(np.logaddexp(0, against).mean()), gradient

    start = np.array([1 / max(float(feature.std()), 1e-9), 0.0])
    return minimize(loss, start, jac=True, bounds=((1e-6, None), (None, None)))


def nll(scores: Scores, calibration: Calibration) -> float:
    """Return the mean negative log-likelihood of the true labels."""
    probabilities = calibrated(scores.logits, calibration)
    return mean_nll(probabilities, scores.targets)


def mean_nll(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Return the mean of -log p(true label); p below 1e-12 counts as 1e-12."""
    true = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(true, 1e-12)).mean())


def rows_of(scores: Scores, mask: NDArray[np.bool_]) -> Scores:
    """Return the scores of the rows of `mask`."""
    return Scores(scores.logits[mask], scores.novelty_scores[mask], scores.targets[mask])
