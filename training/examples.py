"""Reported rows that a reader should see: the most confident errors, and rows without an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import FeatureInput, ImageInput, Manifest, TextInput
from service.decision import Answered, Judge, Verdict
from service.inputs.texts import PAD_ID, UNKNOWN_ID, read_vocabulary
from training import reasons
from training.measuring import Reported

WORDS = 25
"""Of a text, from its start."""

_VOCABULARY_STARTS = UNKNOWN_ID + 1
_STRANGE_WORD = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row, its true label and what is said of it."""

    row: NDArray[np.generic]
    label: str
    best: str
    confidence: float
    reason: str
    """Why there is no answer; empty if there is one."""

    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows worth a look, the same each time."""

    worst_errors: tuple[Example, ...]
    """Whose best label is wrong, most confident first; answered or not."""

    dont_know: tuple[Example, ...]
    """Not answered, in the order of the split, evenly spread over it."""


def find_examples(manifest: Manifest, reported: Reported, most: int) -> Examples:
    """Return no more than `most` rows of each kind."""
    judge = Judge(manifest)
    judged = reported.judged
    given = reasons.verdicts(judge, judged)
    wrong = np.flatnonzero(judged.wrong)
    worst = wrong[np.argsort(-judged.probabilities.max(axis=1)[wrong], kind="stable")][:most]
    silent = np.flatnonzero([not isinstance(verdict, Answered) for verdict in given])
    spread = np.linspace(0, max(len(silent) - 1, 0), min(most, len(silent))).round().astype(int)
    return Examples(
        tuple(_example(judge, reported, given, place) for place in worst.tolist()),
        tuple(_example(judge, reported, given, place) for place in silent[spread].tolist()),
    )


def _example(judge: Judge, reported: Reported, given: Sequence[Verdict], place: int) -> Example:
    judged, verdict = reported.judged, given[place]
    probabilities = judged.probabilities[place]
    return Example(
        row=reported.rows[place],
        label=judge.labels[judged.targets[place]],
        best=judge.labels[probabilities.argmax()],
        confidence=float(probabilities.max()),
        reason="" if isinstance(verdict, Answered) else verdict.reason.replace("_", " "),
        candidates=tuple(judge.candidates(probabilities)),
    )


def in_words(
    row: NDArray[np.generic],
    declared: FeatureInput | TextInput | ImageInput,
    files: Mapping[str, bytes],
) -> str:
    """Return a row as people read it: the start of a text, or fields with their values.

    Args:
        row: shape (*input,).
        declared: what it is.
        files: of the bundle; the vocabulary is looked up in them.
    """
    if isinstance(declared, TextInput):
        words = read_vocabulary(files[declared.vocabulary])
        ids = [number for number in row.tolist() if number != PAD_ID]
        known = [
            _STRANGE_WORD if number == UNKNOWN_ID else words[number - _VOCABULARY_STARTS]
            for number in ids[:WORDS]
        ]
        return " ".join(known) + (" …" if len(ids) > WORDS else "")
    if isinstance(declared, FeatureInput):
        pairs = zip(declared.fields, row.tolist(), strict=True)
        return ", ".join(f"{field.name} {value:.4g}" for field, value in pairs)
    raise TypeError("a picture is shown, not told")
