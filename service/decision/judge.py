"""From the outputs of a model's graph to verdicts, by its manifest and the operator."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import Conformal, Manifest, Policy
from service.decision.arrays import DECIMALS, Assessment, Tails, calibrated, finite_rows
from service.decision.single import SingleRow, rounded_all
from service.errors import OptionInvalid, RiskNotCertifiable

FEW_NUMBERS = 64
"""Up to so many logits, rows are assessed one by one: NumPy spends 25 us on its calls alone."""

Reason = Literal["out_of_distribution", "ambiguous", "low_confidence"]
GuaranteeStatus = Literal["certified", "cross_fitted", "uncertified"]


class Answered(NamedTuple):
    """The model answers with this label."""

    label: str

    @property
    def reason(self) -> None:
        """There is none not to answer."""


class Unknown(NamedTuple):
    """The model says "don't know", for this reason."""

    reason: Reason

    @property
    def label(self) -> None:
        """There is none that the model would vouch for."""


Verdict = Answered | Unknown

_NOVEL = Unknown("out_of_distribution")
_AMBIGUOUS = Unknown("ambiguous")
_UNSURE = Unknown("low_confidence")


class Row(NamedTuple):
    """The same of one row, as an answer needs it."""

    best: int
    """Index of the best label."""

    confidence: float
    novelty_p: float | None
    probabilities: list[float]
    """One a label, rounded to 1e-6."""

    candidates: list[str]
    """What it may be, most probable first; the best label always is in it."""

    is_ambiguous: bool
    """Two labels share almost all probability, and neither has almost all of it."""

    is_finite: bool


@dataclass(frozen=True, slots=True)
class Terms:
    """What one request asks of the policy."""

    max_error: float | None
    """Risk that the threshold was certified for; None: no certificate."""

    min_confidence: float
    """Least confidence to answer."""

    novelty_alpha: float
    """Least novelty p-value to answer."""

    guarantee: GuaranteeStatus


class Judge:
    """Turns the outputs of one model's graph into verdicts, by its manifest and the operator."""

    def __init__(
        self, manifest: Manifest, floor: "Floor | None" = None, variant: str | None = None
    ) -> None:
        self.labels = manifest.labels
        self.policy_id = manifest.policy_id_of(variant)
        self._calibration = manifest.calibration
        self._tails = None if manifest.novelty is None else Tails(manifest.novelty)
        self._single = SingleRow(manifest.calibration, manifest.novelty)
        self._answers = [Answered(label) for label in manifest.labels]
        self._alone = [[label] for label in manifest.labels]
        limits = _candidate_limits(manifest.conformal, len(manifest.labels))
        self._least_of_candidates = [1 - limit for limit in limits]
        self._policy = manifest.policy
        # Compared with what is not rounded: the least number that would be rounded up to it.
        self._enough = manifest.policy.ambiguity_mass - 0.5 * 10**-DECIMALS
        # So confident, the best label leaves too little for any other to be a candidate.
        self._enough_alone = max(
            manifest.policy.ambiguity_mass, 1 - min(self._least_of_candidates) + 10**-DECIMALS
        )
        self._floor = floor or Floor()
        self.default_terms = _default_terms(manifest.policy, self._floor)

    def assess_rows(
        self, logits: NDArray[np.float32], novelty_scores: NDArray[np.float32]
    ) -> list[Row]:
        """Return `rows(assess(...))`, in the way that is quickest for so many rows."""
        if logits.size > FEW_NUMBERS:
            return self.rows(self.assess(logits, novelty_scores))
        rows: list[Row] = []
        for pair in zip(logits.tolist(), novelty_scores.tolist(), strict=True):
            row = self._row(*pair)
            if row is None:
                return self.rows(self.assess(logits, novelty_scores))
            rows.append(row)
        return rows

    def _row(self, logits: list[float], scores: list[float]) -> Row | None:
        """Return what `rows` does, for one row; None if a number is not finite."""
        assessed = self._single.assess(logits, scores)
        if assessed is None:
            return None
        probabilities, novelty_p = assessed
        shares = rounded_all(probabilities)
        best = probabilities.index(max(probabilities))
        confidence = shares[best]
        if confidence >= self._enough_alone:
            candidates, is_ambiguous = self._alone[best], False
        else:
            candidates, is_ambiguous = self._weigh(probabilities)
        return Row(best, confidence, novelty_p, shares, candidates, is_ambiguous, is_finite=True)

    def assess(
        self, logits: NDArray[np.float32], novelty_scores: NDArray[np.float32]
    ) -> Assessment:
        """Return probabilities and novelty of each row.

        Args:
            logits: shape (rows, labels); rows that are not finite are marked, not raised.
            novelty_scores: shape (rows, scores), in the order of the manifest's names.
        """
        finite = np.ones(len(logits), np.bool_)
        if not (np.isfinite(logits).all() and np.isfinite(novelty_scores).all()):
            finite = finite_rows(logits) & finite_rows(novelty_scores)
            logits, novelty_scores = np.nan_to_num(logits), np.nan_to_num(novelty_scores)
        novelty_p = None
        if self._tails is not None:
            novelty_p = self._tails.p_values(novelty_scores).round(DECIMALS)
        probabilities = calibrated(logits, self._calibration)
        confidence = probabilities.max(axis=1).round(DECIMALS)
        return Assessment(probabilities, confidence, novelty_p, finite)

    def rows(self, assessment: Assessment) -> list[Row]:
        """Return what each row's answer needs, whatever the terms."""
        probabilities, confidence = assessment.probabilities, assessment.confidence
        best = probabilities.argmax(axis=1)
        # Nearly always one label stands out, and nothing has to be sorted.
        is_alone = confidence >= self._enough_alone
        p_values = assessment.novelty_p
        rows = zip(
            best.tolist(),
            confidence.tolist(),
            [None] * len(best) if p_values is None else p_values.tolist(),
            probabilities.round(DECIMALS).tolist(),
            is_alone.tolist(),
            assessment.finite.tolist(),
            strict=True,
        )
        return [
            Row(label, share, p, shares, self._alone[label], is_ambiguous=False, is_finite=finite)
            if alone
            else Row(label, share, p, shares, *self._weigh(probabilities[number].tolist()), finite)
            for number, (label, share, p, shares, alone, finite) in enumerate(rows)
        ]

    def verdict(self, row: Row, terms: Terms) -> Verdict:
        """Return the verdict on a row: novelty first, then confidence, then why it is low."""
        if row.novelty_p is not None and row.novelty_p < terms.novelty_alpha:
            return _NOVEL
        if row.confidence >= terms.min_confidence:
            return self._answers[row.best]
        return _AMBIGUOUS if row.is_ambiguous else _UNSURE

    def terms(
        self,
        max_error: float | None = None,
        min_confidence: float | None = None,
    ) -> Terms:
        """Return the terms of a request that asks for these overrides.

        Raises:
            RiskNotCertifiable: if no row of the certified table is as strict as `max_error`.
            OptionInvalid: if the terms would be looser than the operator allows.
        """
        terms = self.default_terms
        if max_error is not None:
            terms = self._certified_terms(max_error)
        if min_confidence is not None:
            terms = _with_confidence(terms, min_confidence, is_replaced=max_error is None)
        if not self._floor.allow_looser:
            self._refuse_looser(terms, max_error, min_confidence)
        return terms

    def decide(self, assessment: Assessment, terms: Terms) -> list[Verdict]:
        """Return one verdict a row."""
        return [self.verdict(row, terms) for row in self.rows(assessment)]

    def candidates(self, probabilities: NDArray[np.float64]) -> list[str]:
        """Return what a row may be, most probable first; the best label always is in it.

        The conformal set, filled up until its labels share almost all probability: the sets of a
        model that is hardly ever wrong hold one label, also where two are as likely.

        Args:
            probabilities: shape (labels,), of one row of an assessment.
        """
        return self._weigh(probabilities.tolist())[0]

    def _weigh(self, values: list[float]) -> tuple[list[str], bool]:
        """Return the candidates of a row, and whether it is ambiguous."""
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)
        chosen: list[str] = []
        mass = 0.0
        for label in order:
            value = values[label]
            if not chosen or mass < self._enough or value >= self._least_of_candidates[label]:
                chosen.append(self.labels[label])
            mass += value
        first, second = values[order[0]], values[order[1]]
        return chosen, first + second >= self._enough > first

    def _certified_terms(self, max_error: float) -> Terms:
        rows = [row for row in self._policy.table if row.max_error <= max_error]
        if not rows:
            feasible = ", ".join(str(row.max_error) for row in self._policy.table)
            expected = f"at least one of the certified risks ({feasible or 'there are none'})"
            raise RiskNotCertifiable("max_error", expected, str(max_error))
        row = max(rows, key=lambda row: row.max_error)
        return Terms(row.max_error, row.threshold, self._policy.novelty_alpha, self._policy.status)

    def _refuse_looser(
        self, terms: Terms, max_error: float | None, min_confidence: float | None
    ) -> None:
        least = self.default_terms.min_confidence
        if terms.min_confidence >= least:
            return
        if min_confidence is not None:
            raise OptionInvalid("min_confidence", f"at least {least}", str(min_confidence))
        expected = f"at most {self.default_terms.max_error}"
        raise OptionInvalid("max_error", expected, str(max_error))


@dataclass(frozen=True, slots=True)
class Floor:
    """What the operator chooses over the bundle's default policy."""

    max_error: float | None = None
    """Certified risk to serve by default; None: the bundle's own."""

    allow_looser: bool = False
    """Whether a request may ask for less than the default."""


def _candidate_limits(conformal: Conformal | None, labels: int) -> list[float]:
    if conformal is None:
        return [-1.0] * labels  # nobody but the best label
    return [round(limit, DECIMALS) for limit in conformal.limits]


def _default_terms(policy: Policy, floor: Floor) -> Terms:
    if floor.max_error is None:
        return Terms(policy.max_error, policy.threshold, policy.novelty_alpha, policy.status)
    for row in policy.table:
        if row.max_error == floor.max_error:
            return Terms(row.max_error, row.threshold, policy.novelty_alpha, policy.status)
    feasible = ", ".join(str(row.max_error) for row in policy.table) or "none"
    raise OptionInvalid("max_error", f"a certified risk ({feasible})", str(floor.max_error))


def _with_confidence(terms: Terms, min_confidence: float, *, is_replaced: bool) -> Terms:
    """A threshold above a certified one is certified with it; one below is not."""
    if min_confidence >= terms.min_confidence:
        return Terms(terms.max_error, min_confidence, terms.novelty_alpha, terms.guarantee)
    if not is_replaced:
        return terms
    return Terms(None, min_confidence, terms.novelty_alpha, "uncertified")
