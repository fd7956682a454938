"""Rows that a reader should see, and how they read."""

from pathlib import Path

import numpy as np
from bundles import fruit_bundle, review_bundle

from service.bundle.manifest import FeatureField, FeatureInput
from training import evaluate
from training.calibrate import judge
from training.examples import find_examples, in_words
from training.measuring import Reported
from training.recipe import Scores

LOGITS = np.array(
    [[9, 0, 0], [8, 0, 0], [4, 3.9, 0], [1, 1, 1], [0, 7, 0], [0, 0, 9.5]], np.float32
)
TARGETS = np.array([0, 1, 1, 2, 0, 2])


def reported(models: Path) -> Reported:
    manifest = fruit_bundle(models).manifest
    scores = Scores(LOGITS, np.zeros((6, 1), np.float32), TARGETS)
    judged = judge(scores, manifest.calibration, manifest.novelty)
    return Reported(
        rows=LOGITS,
        judged=judged,
        answered=evaluate.answers(judged, manifest.policy),
        split="test",
    )


def test_worst_errors_are_the_most_confident_ones(tmp_path: Path) -> None:
    manifest = fruit_bundle(tmp_path).manifest

    worst = find_examples(manifest, reported(tmp_path), most=2).worst_errors

    assert [(example.label, example.best) for example in worst] == [
        ("pear", "apple"),
        ("apple", "pear"),
    ]
    assert worst[0].confidence > worst[1].confidence


def test_rows_without_answer_tell_reason_and_candidates(tmp_path: Path) -> None:
    manifest = fruit_bundle(tmp_path).manifest

    silent = find_examples(manifest, reported(tmp_path), most=5).dont_know

    assert silent[0].reason == "ambiguous"
    assert silent[0].candidates[:2] == ("apple", "pear")
    assert silent[1].reason == "low confidence"


def test_features_read_as_names_and_values() -> None:
    declared = FeatureInput(fields=(FeatureField(name="alcohol"), FeatureField(name="pH")))

    assert in_words(np.array([12.25, 3], np.float32), declared, {}) == "alcohol 12.25, pH 3"


def test_texts_read_as_their_words(tmp_path: Path) -> None:
    bundle = review_bundle(tmp_path)
    declared = bundle.manifest.input
    files = {"vocabulary.txt": bundle.read("vocabulary.txt")}

    assert in_words(np.array([3, 1, 4, 0, 0]), declared, files) == "good … film"
    assert in_words(np.array([2] * 30), declared, files) == "bad " * 25 + "…"
