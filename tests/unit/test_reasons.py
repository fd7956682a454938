"""Verdicts of rows that training judged are the service's own."""

from pathlib import Path

import numpy as np
from bundles import fruit_bundle
from training_toys import drawn_scores

from service.decision import Answered, Judge, Unknown, Verdict
from training import reasons
from training.calibrate import judge


def test_verdicts_are_those_of_the_service(tmp_path: Path) -> None:
    manifest = fruit_bundle(tmp_path).manifest
    court, scores = Judge(manifest), drawn_scores(500)

    found = reasons.verdicts(court, judge(scores, manifest.calibration, manifest.novelty))

    served = court.decide(court.assess(scores.logits, scores.novelty_scores), court.default_terms)
    assert found == served
    assert len(set(found)) > 2


def test_shares_sum_to_one() -> None:
    given: list[Verdict] = [
        Answered("pear"),
        Unknown("ambiguous"),
        Unknown("low_confidence"),
        Answered("plum"),
    ]

    shares = reasons.shares(given)

    assert (shares.answer, shares.ambiguous, shares.low_confidence) == (0.5, 0.25, 0.25)
    assert sum(shares.model_dump().values()) == 1


def test_candidates_hold_both_labels_of_a_pair(tmp_path: Path) -> None:
    court = Judge(fruit_bundle(tmp_path).manifest)
    probabilities = np.array([[0.49, 0.5, 0.01], [0.49, 0.5, 0.01], [0.98, 0.01, 0.01]])

    held = reasons.hold_both(court, probabilities, np.array([[0, 1], [0, 2], [0, 1]]))

    assert held.tolist() == [True, False, False]
