"""Do two runtimes say the same of the same rows?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle
from service.errors import BundleError
from service.prediction.predictor import Predictor
from service.runtimes import RUNTIMES, Runtime, RuntimeOptions, load_runtime

TOLERANCE = 1e-4
"""Largest difference of a probability: runtimes round elsewhere, and no more than that."""

_BATCH_ROWS = 64


class Parity(NamedTuple):
    """How a model's own runtime and another one compare."""

    rows: int
    largest_difference: float
    """Of a probability, on any row."""

    differing_verdicts: int
    """Rows with another verdict, at the default terms."""

    @property
    def is_same(self) -> bool:
        """Whether nobody could tell them apart."""
        return self.differing_verdicts == 0 and self.largest_difference <= TOLERANCE


def compare_all(
    predictor: Predictor, rows: NDArray[np.generic], options: RuntimeOptions
) -> Iterator[tuple[str, Parity | BundleError]]:
    """Yield how every other runtime compares, by name, or why it cannot be compared."""
    for name in RUNTIMES:
        if name == predictor.runtime_name:
            continue
        try:
            # By the manifest that was checked: the one on the disk may be another by now.
            other = load_runtime(name, Bundle(predictor.path, predictor.manifest), options)
        except BundleError as error:
            yield name, error
        else:
            yield name, compare_runtimes(predictor, other, rows)


def compare_runtimes(predictor: Predictor, other: Runtime, rows: NDArray[np.generic]) -> Parity:
    """Run the same rows on both, row by row compared.

    Args:
        predictor: with its own runtime.
        other: with the graph of the same bundle.
        rows: shape (rows, *input), of any number.
    """
    judge = predictor.judge
    largest, differing = 0.0, 0
    for start in range(0, len(rows), _BATCH_ROWS):
        part = rows[start : start + _BATCH_ROWS]
        ours, theirs = (judge.assess(*runtime.run(part)) for runtime in (predictor.runtime, other))
        difference = np.abs(ours.probabilities - theirs.probabilities).max()
        largest = max(largest, float(difference))
        verdicts = zip(
            judge.decide(ours, judge.default_terms),
            judge.decide(theirs, judge.default_terms),
            strict=True,
        )
        differing += sum(one != another for one, another in verdicts)
    return Parity(len(rows), largest, differing)
