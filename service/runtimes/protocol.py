"""What the rest of the service may expect of an engine that executes a graph."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Outputs(NamedTuple):
    """What a graph returns for a batch."""

    logits: NDArray[np.float32]
    """Shape (rows, labels)."""

    novelty_scores: NDArray[np.float32]
    """Shape (rows, scores), higher = less like the training data; no columns if there are none."""


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """What the machine allows."""

    threads: int
    """Threads that one run may use, at least 1."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    variant: str | None = None
    """Which of the bundle's variants to load; None: the graph itself."""


class Runtime(Protocol):
    """One instance of an engine with one graph loaded."""

    device: str
    """Where it really runs, `cpu` or `cuda`."""

    has_buckets: bool
    """Whether it gains by seeing few batch sizes, so that padding pays."""

    def run(self, rows: NDArray[np.generic]) -> Outputs:
        """Return the outputs for `rows`, shape (rows, *input), dtype as the manifest declares.

        Raises whatever the engine raises. Never called twice at a time.
        """
        ...
