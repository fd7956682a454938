from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.prediction import Predictor, load_catalogue
from service.prediction.parity import compare_runtimes
from service.runtimes import Outputs
from service.settings import Settings
from service.telemetry.metrics import Metrics

ROWS = np.tile(np.array([[9, 0, 0]], np.float32), (100, 1))


class Shifted:
    """Answers as another runtime does, and adds to the first logit of every third row."""

    device = "cpu"
    has_buckets = False

    def __init__(self, predictor: Predictor, shift: float) -> None:
        self._run = predictor.runtime.run
        self._shift = shift

    def run(self, rows: NDArray[np.generic]) -> Outputs:
        logits, scores = self._run(rows)
        shifted = logits.copy()
        shifted[::3, 0] += self._shift
        return Outputs(shifted, scores)


@pytest.fixture(scope="module")
def predictor(models: Path) -> Predictor:
    return load_catalogue(Settings(models=models), Metrics(), only="fruit").find("fruit")


def test_runtimes_that_round_elsewhere_are_the_same(predictor: Predictor) -> None:
    parity = compare_runtimes(predictor, Shifted(predictor, 1e-4), ROWS)

    assert parity.is_same
    assert (parity.rows, parity.differing_verdicts) == (100, 0)
    assert 0 < parity.largest_difference < 1e-4


def test_rows_that_a_runtime_judges_otherwise_are_counted(predictor: Predictor) -> None:
    parity = compare_runtimes(predictor, Shifted(predictor, -20), ROWS)

    assert not parity.is_same
    assert parity.differing_verdicts == 34  # every third of them
    assert parity.largest_difference > 0.9
