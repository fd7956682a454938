"""What the served policy says of judged rows, by the service's own `Judge`."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import Reasons
from service.decision import Answered, Assessment, Judge, Verdict
from training.calibrate import Judged


def verdicts(judge: Judge, judged: Judged) -> list[Verdict]:
    """Return one verdict a row, on the default terms."""
    finite = np.ones(len(judged.targets), np.bool_)
    assessment = Assessment(judged.probabilities, judged.confidence, judged.novelty_p, finite)
    return judge.decide(assessment, judge.default_terms)


def shares(given: Sequence[Verdict]) -> Reasons:
    """Return the share of the verdicts that are an answer, and of each reason for none."""
    counts = Counter("answer" if isinstance(one, Answered) else one.reason for one in given)
    return Reasons(**{name: counts[name] / len(given) for name in Reasons.model_fields})


def hold_both(
    judge: Judge, probabilities: NDArray[np.float64], pairs: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Return whether the candidates of each row hold both labels of its pair.

    Args:
        judge: of the model.
        probabilities: shape (rows, labels), calibrated.
        pairs: shape (rows, 2), indices of labels.
    """
    return np.array(
        [
            {judge.labels[label] for label in pair} <= set(judge.candidates(row))
            for row, pair in zip(probabilities, pairs.tolist(), strict=True)
        ]
    )
