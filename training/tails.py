"""How rare a novelty score is among familiar rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import Novelty, TailTable
from service.decision import DECIMALS, tail
from training.recipe import Scores

_BODY_KNOTS = 100
_TAIL_KNOTS = 100
_TAIL_STARTS = 0.05


def novelty_tables(scores: Scores, names: tuple[str, ...], split: str) -> Novelty | None:
    """Return the tail of each novelty score on familiar rows, and of Fisher's sum over them."""
    if not names:
        return None
    tables = tuple(
        tail_table(scores.novelty_scores[:, column].astype(np.float64))
        for column in range(len(names))
    )
    combined = tail_table(fisher(scores.novelty_scores, tables))
    n = len(scores.targets)
    return Novelty(names=names, tables=tables, combined=combined, split=split, n=n)


def fisher(novelty_scores: NDArray[np.float32], tables: Sequence[TailTable]) -> NDArray[np.float64]:
    """Return Fisher's -sum(log p) over the scores, shape (rows,)."""
    tails = [tail(novelty_scores[:, column], table) for column, table in enumerate(tables)]
    total: NDArray[np.float64] = -np.log(tails).sum(axis=0)
    return total


def tail_table(scores: NDArray[np.float64]) -> TailTable:
    """Return P(score >= value) as (1 + count) / (n + 1), at some 200 values.

    Beyond the largest score seen it is 1 / (n + 1), the least that n rows can tell.
    """
    n = len(scores)
    ascending = np.sort(scores.round(DECIMALS))
    body = np.linspace(1, _TAIL_STARTS, _BODY_KNOTS)
    rare = np.geomspace(_TAIL_STARTS, 1 / n, _TAIL_KNOTS)
    ranks = np.unique(n - np.ceil(np.concatenate([body, rare]) * n).astype(int))
    values = np.unique(ascending[ranks])
    tails = (1 + n - np.searchsorted(ascending, values, side="left")) / (n + 1)
    beyond = float(values[-1]) + 10.0**-DECIMALS
    return TailTable(values=(*values.tolist(), beyond), tails=(*tails.tolist(), 1 / (n + 1)))
