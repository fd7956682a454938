"""Makes the numbers and pictures of verdicts.md: `python docs/verdicts.py` from the repository.

It asks the committed bundles, and the convolutions that a lecture shows, fitted here, about real
rows. What it measures goes to verdicts.json; `verdicts_page` makes the tables of that and of the
manifests. Some minutes on two cores, with the data that training reads.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import verdicts_page as page
import verdicts_pictures as pictures
from numpy.typing import NDArray
from PIL import Image

from service.bundle import Bundle, read_bundle
from service.bundle.manifest import Calibration, PowerMap
from service.decision import Judge, Row
from service.runtimes import RuntimeOptions, load_runtime
from training.calibrate import DELTA_PER_RISK, Judged, certify, plan_tests, threshold_grid
from training.cli import data_folder
from training.evaluate import Reliability, ece, reliability
from training.export import run_rows
from training.measuring import judged_by
from training.pipeline import find_recipe
from training.recipe import Data, Scores, Split, Workbench

WORK = Path("build/verdicts")
BATCH_ROWS = 64
SURE = 0.9
"""A softmax that says so much is taken for an answer: that is how it is used without a verdict."""

RESPLITS = 1000
RISK = 0.02
"""Promised in the experiment with many draws: what `fashion_mnist` promises by default."""

SEED = 7
ANGLES = (0, 10, 20, 30, 40, 50, 60)
FAMILIES = (
    *("Fashion-MNIST", "cifar10, grey", "notmnist", "emnist letters", "alphadigits letters"),
    *("digits turned by a quarter", "two digits side by side", "means of two digits"),
    *("uniform noise", "gradients", "constants"),
)
"""Of the families that the card lists, those of this page."""

DRAWN_ROWS = 350
"""Most rows of one family in the picture of both axes."""


class Model:
    """A committed bundle, its recipe's data, and what its graph says of rows."""

    def __init__(self, name: str) -> None:
        self.bundle: Bundle = read_bundle(page.ROOT / f"models/{name}/1")
        self.manifest = self.bundle.manifest
        self.court = Judge(self.manifest)
        self.data: Data = find_recipe(name)[0].load(data_folder())
        self._runtime = load_runtime("onnx", self.bundle, RuntimeOptions(threads=2, device="cpu"))

    def scores(self, rows: NDArray[np.generic], targets: NDArray[np.int64]) -> Scores:
        """Return what the graph says of rows whose labels are known."""
        outputs = run_rows(self._runtime, rows, BATCH_ROWS)
        return Scores(outputs["logits"], outputs["novelty_scores"], targets)

    def judged(self, split: Split) -> Judged:
        """Return rows with calibrated probabilities and novelty p-values."""
        return judged_by(self.manifest, self.scores(split.rows, split.targets))

    def rows(self, rows: NDArray[np.generic]) -> list[Row]:
        """Return what verdicts are made of, one a row."""
        scores = self.scores(rows, np.zeros(len(rows), np.int64))
        return self.court.assess_rows(scores.logits, scores.novelty_scores)

    @cached_property
    def test_scores(self) -> Scores:
        """What the graph says of the official test rows."""
        return self.scores(self.test.rows, self.test.targets)

    @property
    def test(self) -> Split:
        """The official test rows, which chose nothing."""
        assert self.data.splits.test is not None
        return self.data.splits.test


class Lecture:
    """The lecture's convolutions, fitted on digits as they are; their only output is a softmax."""

    def __init__(self) -> None:
        recipe = find_recipe("mnist")[1][-1]
        fitted = recipe.fit(recipe.load(data_folder()), Workbench(WORK / "lecture"))
        self.network = recipe.network
        self._model = fitted.model

    def probabilities(self, rows: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the softmax of each row, shape (rows, labels)."""
        logits = self._model.predict(rows, batch_size=500, verbose=0)["logits"].astype(np.float64)
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
        return shares


@dataclass(frozen=True, slots=True)
class Shown:
    """An input of the first picture, and what both say of it."""

    picture: NDArray[np.uint8]
    facts: dict[str, Any]


def shown_inputs(model: Model, lecture: Lecture) -> Iterator[Shown]:
    """Yield of each family the row that the lecture is as sure of as of half of the others."""
    for name, rows in shown_families(model).items():
        said = lecture.probabilities(rows)
        sure = said.max(axis=1)
        place = int(np.argsort(sure, kind="stable")[len(sure) // 2])
        (row,) = model.rows(rows[place : place + 1])
        verdict = model.court.verdict(row, model.court.default_terms)
        yield Shown(
            rows[place].astype(np.uint8),
            {
                "input": name,
                "lecture_label": str(said[place].argmax()),
                "lecture_confidence": round(float(sure[place]), 4),
                "label": getattr(verdict, "label", None),
                "reason": getattr(verdict, "reason", None),
                "confidence": row.confidence,
                "novelty_p": row.novelty_p,
                "candidates": list(row.candidates),
            },
        )


def shown_families(model: Model) -> dict[str, NDArray[np.generic]]:
    """Return what one row each is shown of."""
    outliers, conditions = model.data.outliers, model.data.splits.conditions
    with np.load(data_folder() / "ood/cifar10.npz") as archive:
        is_cat = archive["label_names"][archive["labels"]] == "cat"
    return {
        "a digit": model.test.rows,
        "inverted": conditions["inverted"].rows,
        "faint": conditions["low_contrast"].rows,
        "two digits, mixed": outliers["means of two digits"],
        "a letter": outliers["emnist letters"],
        "clothing": outliers["Fashion-MNIST"],
        "a cat": outliers["cifar10, grey"][is_cat],
        "noise": outliers["uniform noise"],
    }


def measured_families(model: Model, lecture: Lecture) -> dict[str, Any]:
    """Return how often the softmax is sure and wrong, and what our confidence alone would do."""
    digits = {"as MNIST has them": model.test, **model.data.splits.conditions}
    return {
        "digits": {name: sure_of(lecture, split) for name, split in digits.items()},
        "others": {
            name: {
                "sure": share(lecture.probabilities(rows).max(axis=1) >= SURE),
                "without_gate": share(confidences(model, rows) >= model.manifest.policy.threshold),
            }
            for name, rows in ((name, model.data.outliers[name]) for name in FAMILIES)
        },
    }


def confidences(model: Model, rows: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the confidence of rows, shape (rows,)."""
    return np.array([row.confidence for row in model.rows(rows)])


def sure_of(lecture: Lecture, split: Split) -> dict[str, float]:
    """Return the share that the lecture is sure of, and the error among it; 0 if it is empty."""
    said = lecture.probabilities(split.rows)
    is_sure = said.max(axis=1) >= SURE
    return {
        "sure": share(is_sure),
        "wrong": share(said.argmax(axis=1)[is_sure] != split.targets[is_sure])
        if is_sure.any()
        else 0,
    }


def share(chosen: NDArray[np.bool_]) -> float:
    """Return the share that is true, to six decimals."""
    return round(float(chosen.mean()), 6)


def drawn_rows(model: Model) -> dict[str, list[Row]]:
    """Return some rows of five families."""
    outliers = model.data.outliers
    rng = np.random.default_rng(SEED)
    return {
        name: model.rows(rows[np.sort(rng.permutation(len(rows))[:DRAWN_ROWS])])
        for name, rows in (
            ("digits (test)", model.test.rows),
            ("means of two digits", outliers["means of two digits"]),
            ("letters by hand", outliers["emnist letters"]),
            ("clothing", outliers["Fashion-MNIST"]),
            ("photographs", outliers["cifar10, grey"]),
        )
    }


def uncalibrated(model: Model) -> Calibration:
    """Return the calibration that changes nothing."""
    kind = model.manifest.calibration
    if isinstance(kind, PowerMap):
        return kind.model_copy(update={"a": 1.0, "gamma": 1.0, "b": 0.0})
    return kind.model_copy(update={"temperature": 1.0})


def before_and_after(model: Model) -> dict[str, Judged]:
    """Return the test rows without calibration and with it."""
    raw = model.manifest.model_copy(update={"calibration": uncalibrated(model)})
    return {
        "before": judged_by(raw, model.test_scores),
        "after": judged_by(model.manifest, model.test_scores),
    }


def calibration_errors(model: Model) -> dict[str, float]:
    """Return the expected calibration error before and after."""
    return {
        name: round(ece(judged.probabilities.max(axis=1), judged.wrong), 6)
        for name, judged in before_and_after(model).items()
    }


def calibration_bins(model: Model) -> dict[str, Reliability]:
    """Return confidence and accuracy before and after."""
    return {
        name: reliability(judged.probabilities.max(axis=1), judged.wrong)
        for name, judged in before_and_after(model).items()
    }


def resplits(model: Model) -> dict[str, NDArray[np.float64]]:
    """Return the error on one half of the test rows of thresholds that the other half chose.

    `certified`: by the rule of training. `by_eye`: the loosest with an error that seems small
    enough.
    """
    validation = model.data.splits.validation
    assert validation is not None
    seen = model.judged(validation)
    grid = threshold_grid(seen.confidence)
    alpha = model.manifest.policy.novelty_alpha
    levels = plan_tests(seen, alpha, grid).levels(RISK, DELTA_PER_RISK)
    judged = judged_by(model.manifest, model.test_scores)
    confidence, wrong = judged.passing(alpha), judged.wrong
    rng = np.random.default_rng(SEED)
    errors: dict[str, list[float]] = {"certified": [], "by_eye": []}
    for _ in range(RESPLITS):
        order = rng.permutation(len(wrong))
        half, other = np.array_split(order, 2)
        row = certify(confidence[half], wrong[half], grid, RISK, levels)
        chosen = {
            "certified": row.threshold if row else None,
            "by_eye": loosest(confidence[half], wrong[half], grid),
        }
        for name, threshold in chosen.items():
            if threshold is not None:
                errors[name].append(float(wrong[other][confidence[other] >= threshold].mean()))
    return {name: np.array(values) for name, values in errors.items()}


def loosest(
    confidence: NDArray[np.float64], wrong: NDArray[np.bool_], grid: Sequence[float]
) -> float | None:
    """Return the loosest threshold at which no more than `RISK` of these rows are wrong."""
    for threshold in reversed(grid):
        passing = confidence >= threshold
        if passing.any() and wrong[passing].mean() <= RISK:
            return threshold
    return None


def turned_digits(model: Model) -> list[dict[str, float]]:
    """Return what is answered, and wrong among that, when the test digits lean to the left."""
    found = []
    for angle in ANGLES:
        rows = np.stack(
            [
                np.asarray(Image.fromarray(row).rotate(angle, Image.Resampling.BILINEAR))
                for row in model.test.rows.astype(np.uint8)
            ]
        )
        judged = model.judged(Split(rows, model.test.targets))
        policy = model.manifest.policy
        passing = judged.passing(policy.novelty_alpha) >= policy.threshold
        found.append(
            {"degrees": angle, "answered": share(passing), "wrong": share(judged.wrong[passing])}
        )
    return found


def main() -> None:
    """Measure, draw, and write the page's numbers."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    digits, clothes, reviews = Model("mnist"), Model("fashion_mnist"), Model("imdb")
    lecture = Lecture()
    shown = list(shown_inputs(digits, lecture))
    errors = resplits(clothes)
    turned = turned_digits(digits)
    measured: dict[str, Any] = {
        "graphs": {
            each.manifest.name: each.manifest.files["model.onnx"].sha256
            for each in (digits, clothes, reviews)
        },
        "lecture": {"network": lecture.network, "sure": SURE},
        "inputs": [each.facts for each in shown],
        **measured_families(digits, lecture),
        "calibration": {
            each.manifest.name: calibration_errors(each) for each in (clothes, reviews)
        },
        "resplits": {
            "draws": RESPLITS,
            "risk": RISK,
            "delta": DELTA_PER_RISK,
            **{name: share(values > RISK) for name, values in errors.items()},
        },
        "turned": turned,
    }
    policy = digits.manifest.policy
    bins = {each.manifest.name: calibration_bins(each) for each in (clothes, reviews)}
    for name, figure in {
        "inputs": pictures.draw_inputs([each.picture for each in shown], measured["inputs"]),
        "two-axes": pictures.draw_axes(policy, drawn_rows(digits)),
        "calibration": pictures.draw_calibration(bins),
        "risk-coverage": pictures.draw_risk_coverage(list(page.manifests().values())),
        "promise": pictures.draw_promise(errors, RISK),
        "turned": pictures.draw_turned(turned, policy.max_error or 0.0),
    }.items():
        pictures.save(name, figure)
    page.MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
    page.write_page()


if __name__ == "__main__":
    main()
