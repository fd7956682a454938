"""Which version takes the next request, when weights share out the traffic of a name."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

GOLDEN_SHARE = (5**0.5 - 1) / 2
"""Step around a circle that comes near every point equally often, whoever asks in what rhythm."""


class Turns:
    """Versions in turn, each as often as its weight says: exact within a few of any 100 requests.

    The same order in every process, and no dice: each request goes a golden share further around a
    circle, on which every version has an arc as long as its weight.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Weights by version, at least one of them above 0."""
        self._point = 0.0
        self.weights = dict(weights)
        self._share_out()

    def take(self) -> str:
        """Return the version of the next request."""
        self._point = (self._point + GOLDEN_SHARE) % 1.0
        return self._versions[bisect_right(self._bounds, self._point)]

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
