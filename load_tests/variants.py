"""What a variant gains: the graph of a bundle against its variant, in turn, one thread.

    .venv-dev/bin/python load_tests/variants.py mnist

Alternates between the two so that noise hits both, and prints the ratio of medians for one row and
for 32. For a graph that is in no bundle: --graph model.int8.onnx.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from heads import medians, session_of

from service.bundle import Bundle, read_bundle
from service.prediction.predictor import GOLDEN

BATCHES = (1, 32)


def graphs_of(bundle: Bundle, extra: Path | None) -> dict[str, bytes]:
    """Return what is compared with the bundle's own graph, by name."""
    graphs = {name: bundle.read(each.file) for name, each in bundle.manifest.variants.items()}
    return graphs | ({extra.name: extra.read_bytes()} if extra else {})


def measure(bundle: Bundle, graphs: Mapping[str, bytes]) -> None:
    """Print one line for each graph and batch size."""
    manifest = bundle.manifest
    own = session_of(bundle.read("model.onnx"))
    with np.load(bundle.path / GOLDEN) as golden:
        some = golden["rows"]
    for name, graph in graphs.items():
        other = session_of(graph)
        for n in BATCHES:
            rows = {manifest.graph.input.name: np.resize(some, (n, *some.shape[1:]))}
            runs = [partial(session.run, None, rows) for session in (own, other)]
            own_s, other_s = medians(*runs)
            print(
                f"{manifest.name}, {n} rows: {own_s * 1e6:.0f} us in float32, "
                f"{other_s * 1e6:.0f} us as {name}: {own_s / other_s:.2f} times as fast"
            )


def main() -> None:
    """Measure the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="models with a variant")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--graph", type=Path, help="a further graph to compare with")
    arguments = parser.parse_args()
    for name in arguments.names:
        bundle = read_bundle(arguments.models / name / "1")
        graphs = graphs_of(bundle, arguments.graph)
        if not graphs:
            print(f"{name}: the bundle has no variant")
        measure(bundle, graphs)


if __name__ == "__main__":
    main()
