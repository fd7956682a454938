"""Does today's traffic look like the rows that calibrated the model?

Two answers. The martingale bets that novelty p-values are not uniform; by Ville's inequality its
capital passes `ALARM` with probability 1 / ALARM at most, ever, while nothing drifts. The distances
compare what the last rows looked like with the reference profile of the manifest.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

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

    def bet(self, payout: float) -> bool:
        """Bet on one row and return whether drift is proven; if so, begin anew.

        Args:
            payout: of the row, from `payouts`.
        """
        share = 1 / (self._rows + PATIENCE_ROWS)
        self._rows += 1
        woken = self._sleeping * share
        self._sleeping -= woken
        self._betting = (self._betting + woken) * payout
        if self.capital < ALARM:
            return False
        self._begin()
        return True


def payouts(novelty_p: ArrayLike) -> NDArray[np.float64]:
    """Return what a bet of 1 pays on each row; its mean over uniform p-values is 1.

    Args:
        novelty_p: shape (rows,), uniform in (0, 1] on familiar rows.
    """
    p = np.maximum(np.asarray(novelty_p, np.float64), LEAST_P)
    exponents = np.array(EXPONENTS)
    pays: NDArray[np.float64] = (exponents * p[:, None] ** (exponents - 1)).mean(axis=1)
    return pays


class Window:
    """Shares of the last rows by bin, and how far they are from the reference."""

    def __init__(self, reference: Sequence[float]) -> None:
        self._reference = np.array(reference)
        self._recent = np.zeros(len(reference), np.int64)
        self._before = np.zeros(len(reference), np.int64)
        self._recent_rows = 0

    def count(self, bins: NDArray[np.int64]) -> None:
        """Count rows by their bins, shape (rows,)."""
        while len(bins):
            now, bins = np.split(bins, [WINDOW_ROWS - self._recent_rows])
            self._recent = self._recent + np.bincount(now, minlength=len(self._reference))
            self._recent_rows += len(now)
            if self._recent_rows == WINDOW_ROWS:
                self._before, self._recent = self._recent, np.zeros_like(self._recent)
                self._recent_rows = 0

    def distance(self) -> float:
        """Return the total variation distance to the reference, 0 to 1; 0 for too few rows."""
        counts = self._recent + self._before
        rows = int(counts.sum())
        if rows < FEWEST_ROWS:
            return 0.0
        return float(np.abs(counts / rows - self._reference).sum()) / 2


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
        self.windows["label"].count(np.asarray(best))
        self.windows["confidence"].count(self._binned(confidence))
        if novelty_p is None:
            return 0
        self.windows["novelty"].count(self._binned(novelty_p))
        return sum(self.martingale.bet(payout) for payout in payouts(novelty_p).tolist())

    def _binned(self, shares: ArrayLike) -> NDArray[np.int64]:
        bins: NDArray[np.int64] = (np.asarray(shares) * self._bins).astype(np.int64)
        return np.minimum(bins, self._bins - 1)
