"""Pictures of the model card: small, and the same for the same numbers."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from service.bundle.manifest import CertifiedRow, Evaluation, Policy
from training import evaluate, plots
from training.calibrate import Judged
from training.recipe import Curves

MOST_BYTES = 60_000


def drawn_evaluation(labels: int = 10) -> tuple[Judged, Evaluation]:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(labels, 0.1), 2_000)
    targets = (rng.random((2_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    judged = Judged(probabilities, targets.clip(0, labels - 1), None)
    table = tuple(
        CertifiedRow(max_error=risk, threshold=0.9, coverage=0.6, n=1_200, errors=9)
        for risk in (0.01, 0.02)
    )
    policy = Policy(
        max_error=0.01,
        threshold=0.9,
        novelty_alpha=0,
        table=table,
        status="certified",
        split="calibration",
        n=2_000,
        mixture="drawn",
    )
    answered = evaluate.answers(judged, policy)
    return judged, evaluate.evaluate(judged, answered, policy, split="test", seed=1)


def reliability() -> bytes:
    judged, evaluation = drawn_evaluation()
    bins = evaluate.reliability(judged.probabilities.max(axis=1), judged.wrong)
    return plots.reliability_diagram(bins, evaluation)


def curves() -> bytes:
    series = tuple(np.linspace(1, 0.1, 40).tolist())
    both = {"train": series, "validation": series}
    steps = tuple(float(step) for step in range(40))
    return plots.learning_curves(Curves(axis="epoch", steps=steps, loss=both, accuracy=both))


def learning_curve() -> bytes:
    accuracy = {"train": (0.8, 0.9)}
    return plots.learning_curves(Curves(axis="rows", steps=(10, 20), accuracy=accuracy))


def confusion() -> bytes:
    _, evaluation = drawn_evaluation()
    return plots.confusion_matrix(evaluation.confusion, [f"label {n}" for n in range(10)])


def risk_coverage() -> bytes:
    return plots.risk_coverage_curve(drawn_evaluation()[1])


def histograms() -> bytes:
    rng = np.random.default_rng(1)
    return plots.histograms({"red": rng.normal(size=900), "white": rng.normal(size=90)}, "x (g)")


def correlations() -> bytes:
    matrix = np.corrcoef(np.random.default_rng(2).normal(size=(11, 40)))
    return plots.correlations(np.asarray(matrix), [f"measurement {n}" for n in range(11)])


def confusion_of_many() -> bytes:
    names = ["a name that is longer than any picture has room for", "$x^$", *map(str, range(28))]
    return plots.confusion_matrix(np.eye(30, dtype=int).tolist(), names)


def confusion_of_more_than_can_be_named() -> bytes:
    return plots.confusion_matrix(np.eye(500, dtype=int).tolist(), ["label"] * 500)


def grid() -> bytes:
    pictures = np.random.default_rng(3).integers(0, 256, (25, 28, 28))
    return plots.picture_grid(list(pictures), ["is 4\nout of distribution\n4, 9"] * 25)


def colour_grid() -> bytes:
    pictures = np.random.default_rng(3).integers(0, 256, (3, 16, 16, 3))
    return plots.picture_grid(list(pictures), ["is a $x^$"] * 3)


DRAWERS = [
    grid,
    colour_grid,
    reliability,
    curves,
    learning_curve,
    confusion,
    confusion_of_many,
    confusion_of_more_than_can_be_named,
    risk_coverage,
    histograms,
    correlations,
]


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAWERS)
def test_picture_is_a_small_png(draw: Callable[[], bytes]) -> None:
    png = draw()

    assert len(png) < MOST_BYTES
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"


def test_same_numbers_give_the_same_bytes() -> None:
    assert histograms() == histograms()
