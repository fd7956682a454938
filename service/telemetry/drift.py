"""Does today's traffic look like the rows that calibrated the model?

Two answers. The martingale bets that novelty p-values are not uniform; by Ville's inequality its
capital passes `ALARM` with probability 1 / ALARM at most, ever, while nothing drifts. The distances
compare what the last rows looked like with the reference profile of the manifest.
"""

import math
from collections.abc import Sequence

ALARM = 1000.0
"""Capital at which drift is called proven; one false alarm in a thousand deployments."""

EXPONENTS = (0.2, 0.4, 0.6, 0.8)
"""Bets on small p-values, mixed: Vovk, Nouretdinov and Gammerman 2003, power martingale."""

PATIENCE_ROWS = 10_000
"""About so many rows the capital waits before most of it has been bet. A martingale that bets
everything from the first row on has lost it all when drift sets in a week later."""

WINDOW_ROWS = 5000
"""Distances look at the last one to two windows."""

FEWEST_ROWS = 500
"""Below this a distance is noise and reported as 0."""

LEAST_P = 1e-6


class Martingale:
    """Capital of somebody who bets against familiar traffic; starts at 1, and again at an alarm.

    Part of it sleeps and joins the bet little by little, so that drift is found whenever it sets
    in. Sleeping and betting are both martingales, and so is their sum.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._rows = 0
        self._sleeping = 1.0
        self._betting = 0.0

    @property
    def capital(self) -> float:
        """How much the evidence against "nothing drifts" has won, in units of the stake."""
        return self._sleeping + self._betting

    def bet(self, novelty_p: float) -> bool:
        """Bet on one row and return whether drift is proven; if so, begin anew.

        Args:
            novelty_p: uniform in (0, 1] on familiar rows.
        """
        share = 1 / (self._rows + PATIENCE_ROWS)
        self._rows += 1
        woken = self._sleeping * share
        self._sleeping -= woken
        self._betting = (self._betting + woken) * payout(novelty_p)
        if self.capital < ALARM:
            return False
        self._begin()
        return True


def payout(novelty_p: float) -> float:
    """Return what a bet of 1 pays; its mean over uniform p-values is 1."""
    p = max(novelty_p, LEAST_P)
    return math.fsum(exponent * p ** (exponent - 1) for exponent in EXPONENTS) / len(EXPONENTS)


class Window:
    """Shares of the last rows by bin, and how far they are from the reference."""

    def __init__(self, reference: Sequence[float]) -> None:
        self._reference = reference
        self._recent = [0] * len(reference)
        self._before = [0] * len(reference)
        self._recent_rows = 0

    def count(self, position: int) -> None:
        """Count one row in a bin."""
        self._recent[position] += 1
        self._recent_rows += 1
        if self._recent_rows == WINDOW_ROWS:
            self._before, self._recent = self._recent, [0] * len(self._reference)
            self._recent_rows = 0

    def distance(self) -> float:
        """Return the total variation distance to the reference, 0 to 1; 0 for too few rows."""
        counts = [new + old for new, old in zip(self._recent, self._before, strict=True)]
        rows = sum(counts)
        if rows < FEWEST_ROWS:
            return 0.0
        differences = (
            abs(count / rows - share) for count, share in zip(counts, self._reference, strict=True)
        )
        return math.fsum(differences) / 2


class Drift:
    """All signals of one version of one model."""

    def __init__(
        self,
        confidence_shares: Sequence[float],
        novelty_shares: Sequence[float] | None,
        label_shares: Sequence[float],
    ) -> None:
        """Shares of the reference rows: by equal bins of [0, 1], and by label."""
        self.martingale = Martingale()
        self.windows = {"confidence": Window(confidence_shares), "label": Window(label_shares)}
        if novelty_shares is not None:
            self.windows["novelty"] = Window(novelty_shares)
        self._bins = len(confidence_shares)

    def see(
        self, best: Sequence[int], confidence: Sequence[float], novelty_p: Sequence[float] | None
    ) -> int:
        """Take note of rows and return how many alarms they raised.

        Args:
            best: index of the best label, one a row.
            confidence: one a row, 0 to 1.
            novelty_p: one a row, 0 to 1; None if the model measures no novelty.
        """
        for label, value in zip(best, confidence, strict=True):
            self.windows["label"].count(label)
            self.windows["confidence"].count(min(int(value * self._bins), self._bins - 1))
        alarms = 0
        for p in novelty_p or ():
            self.windows["novelty"].count(min(int(p * self._bins), self._bins - 1))
            alarms += self.martingale.bet(p)
        return alarms
