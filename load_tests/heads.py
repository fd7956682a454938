"""What saying "don't know" costs: a graph with its novelty heads against the same graph without.

    .venv-dev/bin/python load_tests/heads.py mnist fashion_mnist

Alternates between the two so that noise hits both, one thread, and prints the ratio of medians for
one row and for 64; beside it what calibration, p-values, verdict and candidates cost in Python.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.utils import Extractor

from service.bundle import Bundle, read_bundle
from service.decision import Judge
from service.prediction.predictor import GOLDEN

ROUNDS = 300
BATCHES = (1, 64)


def session_of(graph: bytes) -> onnxruntime.InferenceSession:
    """Return a session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def without_heads(bundle: Bundle) -> bytes:
    """Return the graph up to its logits."""
    extractor = Extractor(onnx.load_model_from_string(bundle.read("model.onnx")))
    cut = extractor.extract_model([bundle.manifest.graph.input.name], ["logits"])
    return bytes(cut.SerializeToString())


def medians(*functions: Callable[[], object]) -> list[float]:
    """Return the median seconds of each function, called in turn."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, taken in zip(functions, seconds, strict=True):
            started_s = time.perf_counter()
            function()
            taken.append(time.perf_counter() - started_s)
    return [statistics.median(taken) for taken in seconds]


def measure(bundle: Bundle) -> None:
    """Print one line for each batch size."""
    manifest = bundle.manifest
    whole, cut = session_of(bundle.read("model.onnx")), session_of(without_heads(bundle))
    judge = Judge(manifest)
    with np.load(bundle.path / GOLDEN) as golden:
        some = golden["rows"]
    for n in BATCHES:
        rows = {manifest.graph.input.name: np.resize(some, (n, *some.shape[1:]))}
        outputs = whole.run(["logits", "novelty_scores"], rows)
        with_s, without_s, decide_s = medians(
            lambda rows=rows: whole.run(None, rows),  # type: ignore[misc]
            lambda rows=rows: cut.run(None, rows),  # type: ignore[misc]
            lambda outputs=outputs: [  # type: ignore[misc]
                judge.verdict(row, judge.default_terms) for row in judge.assess_rows(*outputs)
            ],
        )
        print(
            f"{manifest.name}, {n} rows: {with_s * 1e6:.0f} us with heads, {without_s * 1e6:.0f} "
            f"without, +{with_s / without_s - 1:.1%}; deciding {decide_s / n * 1e6:.1f} us a row"
        )


def main() -> None:
    """Measure the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="models with a novelty head")
    parser.add_argument("--models", type=Path, default=Path("models"))
    arguments = parser.parse_args()
    for name in arguments.names:
        measure(read_bundle(arguments.models / name / "1"))


if __name__ == "__main__":
    main()
