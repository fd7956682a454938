"""An int8 variant is written into a bundle if verdicts stay the same, and otherwise nothing is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import certified_policy, convolution_bundle, halves
from click.testing import CliRunner
from numpy.typing import NDArray

from service.bundle import Bundle, read_bundle
from service.bundle.manifest import CertifiedRow, ImageInput
from service.decision import Judge
from service.runtimes import RuntimeOptions, load_runtime
from training.cli import train
from training.errors import QuantizationRefused
from training.recipe import Data, Split, Splits
from training.variants import quantize_bundle

ROOT = Path(__file__).parents[2]


def split(n: int, seed: int) -> Split:
    return Split(halves(n, seed), np.arange(n) % 2)


def faint(n: int, seed: int) -> NDArray[np.uint8]:
    """Halves of any contrast: many lie at the threshold."""
    contrast = np.random.default_rng(seed).uniform(0, 0.5, (n, 1, 1))
    return (halves(n, seed) * contrast).astype(np.uint8)


def halves_data(
    test: Split | None = None,
    outliers: NDArray[np.uint8] | None = None,
    calibration: Split | None = None,
) -> Data:
    test = test or split(300, seed=4)
    return Data(
        splits=Splits(
            train=split(400, seed=1),
            validation=split(200, seed=2),
            calibration=calibration or split(200, seed=3),
            test=test,
            conditions={"dim": Split(test.rows // 2, test.targets)},
        ),
        input=ImageInput(height=8, width=8, channels=1),
        sha256={},
        mixture="as they come",
        outliers={"blank": np.zeros((31, 8, 8), np.uint8) if outliers is None else outliers},
    )


def refusal(bundle: Bundle, data: Data) -> str:
    with pytest.raises(QuantizationRefused) as caught:
        quantize_bundle(bundle, data)
    return str(caught.value)


def test_variant_is_written_with_how_often_it_agrees(tmp_path: Path) -> None:
    bundle = convolution_bundle(tmp_path)

    quantize_bundle(bundle, halves_data())

    variant = read_bundle(bundle.path).manifest.variants["int8"]
    assert variant.file == "model.int8.onnx"
    assert [each.rows for each in variant.agreements] == [
        "test split and its conditions",
        "outliers",
    ]
    assert [each.identical for each in variant.agreements] == [1, 1]
    assert "0 of 3 convolutions float32" in variant.made


def test_variant_is_measured_on_rows_that_did_not_choose_it(tmp_path: Path) -> None:
    quantize_bundle(convolution_bundle(tmp_path), halves_data())

    agreements = read_bundle(tmp_path / "halves" / "1").manifest.variants["int8"].agreements
    assert [each.n for each in agreements] == [2 * 300, 31 // 2]


def test_variant_changes_nothing_else_of_a_bundle(tmp_path: Path) -> None:
    before = convolution_bundle(tmp_path)
    contents = {name: before.read(name) for name in before.manifest.files}

    after = quantize_bundle(before, halves_data())

    assert {name: after.read(name) for name in contents} == contents
    assert after.manifest.policy_id == before.manifest.policy_id
    assert after.manifest.policy_id_of("int8") != before.manifest.policy_id


def test_convolutions_that_suffer_most_stay_float32(tmp_path: Path) -> None:
    bundle = quantize_bundle(convolution_bundle(tmp_path, glare=3000), halves_data())

    assert "2 of 3 convolutions float32" in bundle.manifest.variants["int8"].made


def test_variant_of_other_verdicts_is_not_written(tmp_path: Path) -> None:
    bundle = convolution_bundle(tmp_path)
    uncertain = Split(faint(2000, seed=5), np.arange(2000) % 2)

    message = refusal(bundle, halves_data(test=uncertain))

    assert "99.900 % are wanted" in message
    assert "nothing is written" in message
    assert read_bundle(bundle.path).manifest == bundle.manifest
    assert not (bundle.path / "model.int8.onnx").exists()


def test_outliers_count_as_much_as_familiar_rows(tmp_path: Path) -> None:
    message = refusal(convolution_bundle(tmp_path), halves_data(outliers=faint(2000, seed=6)))

    assert "nothing is written" in message


def test_variant_that_loses_a_certificate_is_not_written(tmp_path: Path) -> None:
    row = CertifiedRow(max_error=0.002, threshold=0.9, coverage=0.8, n=1000, errors=0)
    policy = certified_policy(max_error=0.002, threshold=0.9, table=(row,))
    bundle = convolution_bundle(tmp_path, policy=policy)
    rows = np.concatenate([halves(3000, seed=7), faint(2000, seed=8)])
    judge = Judge(bundle.manifest)
    outputs = load_runtime("onnx", bundle, RuntimeOptions(1, "cpu")).run(rows)
    assessed = judge.assess(*outputs)
    best = assessed.probabilities.argmax(axis=1)
    # Right wherever the graph itself answers, wrong wherever it does not: any row more is an error.
    targets = np.where(assessed.confidence >= 0.9, best, 1 - best)

    message = refusal(bundle, halves_data(calibration=Split(rows, targets)))

    assert "the certificate for errors of at most 0.2% is lost" in message
    assert read_bundle(bundle.path).manifest == bundle.manifest


def test_graph_without_convolutions_is_refused_in_a_sentence(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models" / "wine", tmp_path / "wine")

    folders = ["--models", str(tmp_path), "--work", str(tmp_path / "build")]
    result = CliRunner().invoke(train, ["wine", "--quantize", *folders])

    assert result.exit_code == 1
    assert "no convolution to quantise" in result.stderr
    assert not (tmp_path / "wine" / "1" / "model.int8.onnx").exists()
    assert not (tmp_path / "build").exists()
