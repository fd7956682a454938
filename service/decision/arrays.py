"""The mathematics of verdicts for many rows at once; `service.decision.single` has it for one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import Calibration, Novelty, PowerMap, TailTable

DECIMALS = 6
"""Numbers are rounded so before they are compared with a threshold or answered."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the model makes of each row, whoever asks; arrays are (rows, ...), float64."""

    probabilities: NDArray[np.float64]
    """Shape (rows, labels), calibrated, each row summing to 1 within 1e-6."""

    confidence: NDArray[np.float64]
    """Shape (rows,), the largest probability."""

    novelty_p: NDArray[np.float64] | None
    """Shape (rows,), near 0 on novel input; None: the model measures no novelty."""

    finite: NDArray[np.bool_]
    """Shape (rows,), False where the graph returned NaN or infinity: there is no verdict."""


def calibrated(logits: NDArray[np.floating], calibration: Calibration) -> NDArray[np.float64]:
    """Return calibrated probabilities, shape (rows, labels), each row summing to 1.

    Args:
        logits: shape (rows, labels), finite.
        calibration: fitted on a split that trained nothing.

    Temperature scaling: Guo et al. 2017, section 4.2.
    """
    if isinstance(calibration, PowerMap):
        return _power_mapped(logits, calibration)
    scaled = logits.astype(np.float64) / calibration.temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def _power_mapped(logits: NDArray[np.floating], power: PowerMap) -> NDArray[np.float64]:
    margin = logits[:, 1].astype(np.float64) - logits[:, 0]
    mapped = power.a * np.sign(margin) * np.abs(margin) ** power.gamma + power.b
    second = 1 / (1 + np.exp(-np.clip(mapped, -700, 700)))
    return np.stack([1 - second, second], axis=1)


def finite_rows(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which rows hold neither NaN nor infinity, shape (rows,)."""
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(values), axis=1)
    return finite


def tail(scores: NDArray[np.floating], table: TailTable) -> NDArray[np.float64]:
    """Return P(score on familiar rows >= `scores`), interpolated in the logarithm of the tail."""
    values, log_tails = table_arrays(table)
    return _tail(scores, values, log_tails)


class Tails:
    """The tables of `Novelty` as arrays, made once."""

    def __init__(self, novelty: Novelty) -> None:
        self._tables = [table_arrays(table) for table in novelty.tables]
        self._combined = table_arrays(novelty.combined)

    def p_values(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return one p-value a row, uniform on familiar rows; Fisher's method."""
        fisher = np.zeros(len(scores))
        for column, (values, log_tails) in enumerate(self._tables):
            fisher -= np.interp(scores[:, column], values, log_tails)
        return _tail(fisher, *self._combined)


def _tail(
    scores: NDArray[np.floating], values: NDArray[np.float64], log_tails: NDArray[np.float64]
) -> NDArray[np.float64]:
    tails: NDArray[np.float64] = np.exp(np.interp(scores, values, log_tails))
    return tails


def table_arrays(table: TailTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of a table and the logarithms of their tails."""
    return np.array(table.values), np.log(table.tails)
