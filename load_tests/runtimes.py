"""What our runtimes add to the engines they stand for: each against its engine alone.

    .venv-dev/bin/python load_tests/runtimes.py mnist imdb

Alternates between the two so that noise hits both, one thread, and prints the ratio of medians.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from heads import medians, session_of
from numpy.typing import NDArray

from service.bundle import Bundle, read_bundle
from service.prediction.predictor import GOLDEN
from service.runtimes import RuntimeOptions, load_runtime

BATCHES = (1, 64)
Run = Callable[[NDArray[np.generic]], object]


def onnx_alone(bundle: Bundle) -> Run:
    """Return ONNX Runtime's own call."""
    session = session_of(bundle.read("model.onnx"))
    name = bundle.manifest.graph.input.name
    return lambda rows: session.run(None, {name: rows})


def tensorflow_alone(bundle: Bundle) -> Run:
    """Return TensorFlow's own call, and its outputs as arrays."""
    import tensorflow as tf  # noqa: PLC0415  after the runtime has limited its threads

    model = tf.saved_model.load(str(bundle.path / "saved_model"))
    return lambda rows: [value.numpy() for value in model.serve(tf.constant(rows)).values()]


ENGINES: dict[str, Callable[[Bundle], Run]] = {
    "onnx": onnx_alone,
    "tensorflow": tensorflow_alone,
}


def measure(bundle: Bundle) -> None:
    """Print one line for each runtime and batch size."""
    with np.load(bundle.path / GOLDEN) as golden:
        some = golden["rows"]
    for name, alone_of in ENGINES.items():
        ours = load_runtime(name, bundle, RuntimeOptions(threads=1, device="cpu"))
        alone = alone_of(bundle)
        for n in BATCHES:
            rows = np.resize(some, (n, *some.shape[1:]))
            ours_s, alone_s = medians(partial(ours.run, rows), partial(alone, rows))
            print(
                f"{bundle.manifest.name}, {name}, {n} rows: {ours_s * 1e6:.0f} us by us, "
                f"{alone_s * 1e6:.0f} us alone, ratio {ours_s / alone_s:.2f}"
            )


def main() -> None:
    """Measure the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--models", type=Path, default=Path("models"))
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in arguments.names:
        measure(read_bundle(arguments.models / name / "1"))


if __name__ == "__main__":
    main()
