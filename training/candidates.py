"""Int8 graphs of one bundle, and how they compare with its own graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, Manifest, write_bundle
from service.bundle.manifest import Agreement, CertifiedRow, Variant
from service.decision import Judge, Verdict
from service.runtimes import Outputs, Runtime, RuntimeOptions, load_runtime
from training.calibrate import (
    DELTA_PER_RISK,
    Judged,
    certify,
    judge,
    plan_tests,
    threshold_grid,
)
from training.errors import QuantizationRefused
from training.golden import GOLDEN
from training.quantize import convolutions, prepare, quantized
from training.recipe import Data, Scores, Split

VARIANT = "int8"
FILE = "model.int8.onnx"
GRAPH = "model.onnx"
RANGE_ROWS = 1000
"""Training rows that give the ranges of activations."""

_BATCH_ROWS = 64

_NOBODY = Agreement(rows="not measured yet", n=0, identical=0)


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows of one kind and the verdicts of the graph itself."""

    what: str
    rows: NDArray[np.generic]
    verdicts: list[Verdict]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A quantised graph in a bundle of its own."""

    graph: bytes
    runtime: Runtime
    kept: tuple[str, ...]
    """Convolutions that stay float32."""


class Workshop:
    """Makes candidates of one bundle and compares them with its graph."""

    def __init__(self, bundle: Bundle, data: Data, folder: Path) -> None:
        self.bundle = bundle
        self.graph = prepare(bundle.read(GRAPH))
        self.layers = convolutions(self.graph)
        self._folder = folder
        self._judge = Judge(bundle.manifest)
        self._own = load_runtime("onnx", bundle, _options(None))
        rows = data.splits.train.rows
        order = np.random.default_rng(bundle.manifest.provenance.seed).permutation(len(rows))
        self.range_rows = rows[np.sort(order[:RANGE_ROWS])]

    def ask(self, what: str, rows: NDArray[np.generic]) -> Asked:
        """Return rows with the verdicts of the graph itself."""
        return Asked(what, rows, self._verdicts(self._own, rows))

    def candidate(self, kept: Sequence[str]) -> Candidate:
        """Return the graph with all convolutions in int8 but those that are `kept`."""
        nodes = [name for name in self.layers if name not in kept]
        graph = quantized(self.graph, nodes, self.range_rows)
        draft = Variant(file=FILE, tolerance=1, agreements=(_NOBODY,), made="")
        bundle = with_variant(self.bundle, self._folder / "draft", graph, draft)
        return Candidate(graph, load_runtime("onnx", bundle, _options(VARIANT)), tuple(kept))

    def compare(self, candidate: Candidate, asked: Asked) -> Agreement:
        """Return how often a candidate gives the same verdict."""
        given = self._verdicts(candidate.runtime, asked.rows)
        same = sum(one == other for one, other in zip(given, asked.verdicts, strict=True))
        return Agreement(rows=asked.what, n=len(given), identical=same / len(given))

    def damage(self, layer: str, rows: NDArray[np.generic]) -> float:
        """Return by how much probabilities change on average if this layer alone is int8."""
        runtime = self.candidate([name for name in self.layers if name != layer]).runtime
        one, other = (self._judge.assess(*_run(each, rows)) for each in (self._own, runtime))
        return float(np.abs(one.probabilities - other.probabilities).max(axis=1).mean())

    def lost_risks(self, candidate: Candidate, data: Data) -> list[float]:
        """Return the risks of the certified table that hold for the graph but not for a candidate.

        Learn-then-Test, over the thresholds that the validation split gave, must certify each
        threshold of the table again, with what the candidate says of the calibration split.
        """
        validation, calibration = data.splits.validation, data.splits.calibration
        if validation is None or calibration is None:
            return []
        seen = self._judged(self._own, validation)
        own, other = (self._judged(each, calibration) for each in (self._own, candidate.runtime))
        return [
            row.max_error
            for row in self.bundle.manifest.policy.table
            if self._reaches(row, own, seen) and not self._reaches(row, other, seen)
        ]

    def golden_difference(self, candidate: Candidate) -> float:
        """Return the largest difference of a golden output.

        Raises:
            QuantizationRefused: if a golden verdict differs: such a variant is never served.
        """
        with np.load(self.bundle.path / GOLDEN) as golden:
            rows, expected = golden["rows"], (golden["logits"], golden["novelty_scores"])
        got = candidate.runtime.run(rows)
        terms = self._judge.default_terms
        first, second = (self._judge.decide(self._judge.assess(*o), terms) for o in (got, expected))
        if first != second:
            raise QuantizationRefused(
                f"{self.bundle.path}: a golden verdict differs in int8; nothing is written"
            )
        return max(
            float(np.abs(one - other).max(initial=0))
            for one, other in zip(got, expected, strict=True)
        )

    def _reaches(self, row: CertifiedRow, judged: Judged, seen: Judged) -> bool:
        """Return whether `judged` certifies a row of the table; `seen` chooses the thresholds."""
        grid = threshold_grid(seen.confidence)
        grid = [*(each for each in grid if each > row.threshold), row.threshold]
        alpha = self.bundle.manifest.policy.novelty_alpha
        levels = plan_tests(seen, alpha, grid).levels(row.max_error, DELTA_PER_RISK)
        found = certify(judged.passing(alpha), judged.wrong, grid, row.max_error, levels)
        return found is not None and found.threshold == row.threshold

    def _judged(self, runtime: Runtime, split: Split) -> Judged:
        scores = Scores(*_run(runtime, split.rows), split.targets)
        manifest = self.bundle.manifest
        return judge(scores, manifest.calibration, manifest.novelty)

    def _verdicts(self, runtime: Runtime, rows: NDArray[np.generic]) -> list[Verdict]:
        assessed = self._judge.assess(*_run(runtime, rows))
        return self._judge.decide(assessed, self._judge.default_terms)


def _options(variant: str | None) -> RuntimeOptions:
    return RuntimeOptions(threads=2, device="cpu", variant=variant)


def _run(runtime: Runtime, rows: NDArray[np.generic]) -> Outputs:
    parts = [
        runtime.run(np.ascontiguousarray(rows[start : start + _BATCH_ROWS]))
        for start in range(0, len(rows), _BATCH_ROWS)
    ]
    return Outputs(*map(np.concatenate, zip(*parts, strict=True)))


def with_variant(bundle: Bundle, path: Path, graph: bytes, variant: Variant) -> Bundle:
    """Write a bundle with one variant more to the folder `path` and return it."""
    manifest = bundle.manifest
    contents = {name: bundle.read(name) for name in manifest.files} | {FILE: graph}
    variants = {**manifest.variants, VARIANT: variant}
    return write_bundle(
        path,
        contents,
        lambda files: Manifest.model_validate(
            {**manifest.model_dump(), "files": files, "variants": variants}
        ),
    )
