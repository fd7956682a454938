"""Golden rows: a few rows of a bundle with what its graph makes of them."""

import io

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle
from service.runtimes import RuntimeOptions, load_runtime
from training import export

GOLDEN = "golden.npz"
GOLDEN_ROWS = 8


def spread(count: int) -> NDArray[np.int64]:
    """Return the positions of `GOLDEN_ROWS` rows, evenly spread over `count` rows."""
    return np.linspace(0, count - 1, GOLDEN_ROWS).astype(np.int64)


def golden_file(bundle: Bundle, rows: NDArray[np.generic]) -> bytes:
    """Return the content of `GOLDEN`: rows and their outputs, run as one batch."""
    runtime = load_runtime("onnx", bundle, RuntimeOptions(threads=1, device="cpu"))
    outputs = export.run_rows(runtime, rows, len(rows))
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, rows=rows, **outputs)
    return stream.getvalue()
