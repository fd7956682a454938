"""Weighted traffic split: which version answers the next request."""

import random
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

PARTS = 16
GOLDEN_SHARE = (5**0.5 - 1) / 2
"""Step around a circle that comes near every point equally often."""


class Turns:
    """Assigns requests to versions by weight, exact within a few of any 100 requests.

    Each version has an arc of a circle, as long as its weight. The circle has 16 parts. Every 16
    requests visit all parts once, in random order, so that clients cannot predict the version of
    their next request. In each round the point within the parts moves by the golden ratio.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Weights by version, at least one of them above 0."""
        self._parts: list[int] = []
        self._point = random.random()  # noqa: S311  no secret
        self.weights = dict(weights)
        self._share_out()

    def take(self) -> str:
        """Return the version of the next request."""
        if not self._parts:
            self._parts = random.sample(range(PARTS), PARTS)
            self._point = (self._point + GOLDEN_SHARE) % 1.0
        point = (self._parts.pop() + self._point) / PARTS
        return self._versions[bisect_right(self._bounds, point)]

    def drop(self, version: str) -> None:
        """Give a version no turn any more; the others share its weight."""
        self.weights[version] = 0.0
        self._share_out()

    def share(self, version: str) -> float:
        """Return the share of requests that a version gets, 0 to 1."""
        return self.weights.get(version, 0.0) / sum(self.weights.values())

    def _share_out(self) -> None:
        total = sum(self.weights.values())
        self._versions = [version for version, weight in self.weights.items() if weight > 0]
        arcs = accumulate(self.weights[version] / total for version in self._versions)
        self._bounds = list(arcs)[:-1]
