"""Named stand-ins for what cannot be made to happen on demand: slow, failing, wrong runtimes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.runtimes import Outputs

PATIENCE_S = 5.0
"""Far longer than anything here takes; only a defect waits so long."""

POISON = -1.0


@dataclass
class Doubled:
    """Outputs of a batch: twice its rows."""

    values: NDArray[np.generic]

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(self.values[rows])


class RecordingRun:
    """Doubles its rows and remembers every batch; a row of POISON makes the run raise."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def __call__(self, rows: NDArray[np.generic]) -> Doubled:
        self.batches.append(rows[:, 0].tolist())
        if (rows == POISON).any():
            raise ValueError("poison")
        return Doubled(rows * 2)


class GatedRun(RecordingRun):
    """The same, but every run waits for the gate; `has_begun` tells that one waits there."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.has_begun = threading.Event()

    def __call__(self, rows: NDArray[np.generic]) -> Doubled:
        self.has_begun.set()
        assert self.gate.wait(PATIENCE_S)
        return super().__call__(rows)


class NotANumberRuntime:
    """Returns NaN for rows whose first value is POISON."""

    device = "cpu"
    has_buckets = False

    def run(self, rows: NDArray[np.generic]) -> Outputs:
        logits = rows.astype(np.float32)
        logits[logits[:, 0] == POISON] = np.nan
        return Outputs(logits, logits[:, 2:])


class ShortRuntime:
    """Returns one row less than it was given."""

    device = "cpu"
    has_buckets = False

    def run(self, rows: NDArray[np.generic]) -> Outputs:
        logits = rows[1:].astype(np.float32)
        return Outputs(logits, logits[:, 2:])


class GatedRuntime:
    """Waits for its gate, then runs; returns the rows as logits unless told otherwise."""

    device = "cpu"
    has_buckets = False

    def __init__(self, run: Callable[[NDArray[np.generic]], Outputs] | None = None) -> None:
        self.gate = threading.Event()
        self.has_begun = threading.Event()
        self.batches: list[int] = []
        self._run = run

    def run(self, rows: NDArray[np.generic]) -> Outputs:
        self.has_begun.set()
        assert self.gate.wait(PATIENCE_S)
        self.batches.append(len(rows))
        if self._run is not None:
            return self._run(rows)
        logits = rows.astype(np.float32)
        return Outputs(logits, logits[:, 2:])
