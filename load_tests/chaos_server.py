"""`dunno` with one more runtime, `chaos`: it does to a run what its rows ask for.

python load_tests/chaos_server.py serve --models FOLDER
"""

import time

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle
from service.cli import main
from service.runtimes import RUNTIMES, Outputs, RuntimeOptions
from service.runtimes.onnx import OnnxRuntime

RAISES, IS_NAN, SLEEPS, HANGS = 1.25, 1.5, 1.75, 2.25
"""Values of a row's first feature, exact in binary, and what the run of its batch does."""

SLEEP_S = 0.05
HANG_S = 3.0
SLOW_ROW_S = 0.001
"""So slow a model runs in a thread, where a hang can be given up."""


class ChaosRuntime:
    """ONNX Runtime, but for rows that ask for trouble."""

    device = "cpu"
    has_buckets = False

    def __init__(self, bundle: Bundle, options: RuntimeOptions) -> None:
        self._runtime = OnnxRuntime(bundle, options)

    def run(self, rows: NDArray[np.generic]) -> Outputs:
        """Return what ONNX Runtime does, unless a row wants something else."""
        wishes = rows[:, 0]
        if (wishes == RAISES).any():
            raise RuntimeError("as a row wished")
        if (wishes == HANGS).any():
            time.sleep(HANG_S)
        time.sleep(SLEEP_S if (wishes == SLEEPS).any() else SLOW_ROW_S * len(rows))
        outputs = self._runtime.run(rows)
        outputs.logits[wishes == IS_NAN] = np.nan
        return outputs


if __name__ == "__main__":
    RUNTIMES["chaos"] = "chaos_server:ChaosRuntime"
    main()
