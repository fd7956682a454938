"""The model card says what was measured, and what was not reached."""

from pathlib import Path

import numpy as np
import pytest
from training_toys import load, toy_recipe

from service.bundle.manifest import (
    Baseline,
    Graph,
    Manifest,
    OutlierFamily,
    Provenance,
    Tensor,
)
from training import evaluate
from training.calibrate import Calibrated, calibrate
from training.recipe import Picture, Scores
from training.report import Shown, model_card


def scores(n: int, skill: float) -> Scores:
    """Three labels, the right one ahead by `skill` on average."""
    rng = np.random.default_rng(n)
    targets = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), targets] += skill
    energy = -np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return Scores(logits.astype(np.float32), energy.astype(np.float32), targets)


def manifest_of(parts: Calibrated, test: Scores) -> Manifest:
    judged = parts.judge(test)
    evaluation = evaluate.evaluate(
        judged, evaluate.answers(judged, parts.policy), parts.policy, split="test", seed=1
    )
    lecture = Baseline(
        name="lecture net", accuracy=evaluate.share(70, 100), nll=0.9, ece=0.1, aurc=0.2
    )
    recipe, data = toy_recipe(), load(Path())
    return Manifest(
        name="toy",
        version="1",
        description=recipe.description,
        labels=recipe.labels,
        input=data.input,
        files={},
        graph=Graph(
            input=Tensor(name="rows", dtype="float32", shape=(2,)),
            outputs=(
                Tensor(name="logits", dtype="float32", shape=(3,)),
                Tensor(name="novelty_scores", dtype="float32", shape=(1,)),
            ),
        ),
        calibration=parts.calibration,
        novelty=parts.novelty,
        conformal=parts.conformal,
        policy=parts.policy,
        reference=parts.reference,
        evaluation=evaluation.model_copy(
            update={"baselines": (lecture,), "facts": {"parameters": "51"}}
        ),
        provenance=Provenance(
            recipe="toy",
            network="dense 8",
            seed=5,
            data_sha256={"blobs": "0" * 64},
            libraries={"numpy": "2"},
            commit="unknown",
            created="2026-01-01T00:00:00+00:00",
            seconds=3,
            machine="2 cores, x86-64",
        ),
    )


def card(skill: float, command: str = "") -> str:
    recipe = toy_recipe()
    parts = calibrate(recipe, scores(1_500, skill), scores(2_000, skill), "drawn rows")
    shown = Shown(
        {"one.png": Picture(title="One", png=b"")}, {"Worst": [("row", "is"), ("x 1, y 2", "left")]}
    )
    manifest = manifest_of(parts, scores(1_000, skill))
    return model_card(recipe, load(Path()), manifest, shown, command)


def test_card_puts_the_lecture_beside_our_model() -> None:
    lines = card(skill=4).splitlines()

    assert "|  | this model | lecture net |" in lines
    accuracy = next(line for line in lines if line.startswith("| accuracy"))
    assert "70.00% [" in accuracy


def test_card_puts_realised_risk_beside_the_certified_one() -> None:
    written = card(skill=4)

    assert "| risk | threshold | answered | errors | test: answered | test: error |" in written
    assert "| 5.0% |" in written
    assert "inputs like these: drawn rows" in written


def test_card_says_when_nothing_could_be_certified() -> None:
    assert "No risk could be certified" in card(skill=0.1)


@pytest.mark.parametrize(
    "words",
    [
        "![One](one.png)",
        "- It is a toy.",
        "dunno train toy",
        "dunno evaluate toy",
        "| **parameters** | 51 |",
        "| x 1, y 2 | left |",
        "| **trained in** |",
    ],
)
def test_card_shows(words: str) -> None:
    assert words in card(skill=4)


def test_card_of_a_packed_model_shows_its_own_command() -> None:
    written = card(skill=4, command="dunno pack toy.onnx --name toy")

    assert "dunno pack toy.onnx --name toy" in written
    assert "dunno train" not in written
    assert "| **packed in** |" in written


def test_card_puts_an_interval_behind_every_number() -> None:
    lines = card(skill=4).splitlines()

    for name in ("accuracy", "negative log-likelihood", "ECE", "AURC x 1000"):
        (line,) = [line for line in lines if line.startswith(f"| {name} |")]
        assert "[" in line.split(" | ")[1]


def test_family_without_negatives_has_no_column_for_them() -> None:
    manifest = manifest_of(
        calibrate(toy_recipe(), scores(1_500, 4), scores(2_000, 4), "drawn rows"), scores(1_000, 4)
    )
    assert manifest.evaluation is not None
    family = OutlierFamily(name="beer", n=50, answered=evaluate.share(1, 50))
    evaluation = manifest.evaluation.model_copy(update={"outliers": (family,)})

    text = model_card(
        toy_recipe(),
        load(Path()),
        manifest.model_copy(update={"evaluation": evaluation}),
        Shown({}, {}),
    )

    assert "| family | rows | answered |" in text.splitlines()


def test_card_puts_the_negatives_of_a_family_beside_it() -> None:
    manifest = manifest_of(
        calibrate(toy_recipe(), scores(1_500, 4), scores(2_000, 4), "drawn rows"), scores(1_000, 4)
    )
    assert manifest.evaluation is not None
    families = tuple(
        OutlierFamily(name=name, n=50, answered=evaluate.share(count, 50))
        for name, count in (("letters", 1), ("letters inverted", 2), ("noise", 0))
    )
    evaluation = manifest.evaluation.model_copy(update={"outliers": families})

    text = model_card(
        toy_recipe(),
        load(Path()),
        manifest.model_copy(update={"evaluation": evaluation}),
        Shown({}, {}),
    )

    rows = [
        line.split(" | ") for line in text.splitlines() if line.startswith(("| letters", "| noise"))
    ]
    assert [row[0] for row in rows] == ["| letters", "| noise"]
    assert rows[0][2].startswith("2.00%")
    assert rows[0][3].startswith("4.00%")
    assert rows[1][3] == " |"
