"""Examples of requests and answers, made of bundles that have little to offer."""

from pathlib import Path
from typing import Any

import pytest
from bundles import convolution_bundle, fruit_bundle, picture_bundle, review_bundle, write_catalogue

from service.api.openapi import samples
from service.api.openapi.samples import Sample, sample_of
from service.prediction import load_catalogue
from service.settings import Settings
from service.telemetry.metrics import Metrics


def samples_of(models: Path, *names: str) -> list[Sample]:
    write_catalogue(models, *names)
    catalogue = load_catalogue(Settings(models=models), Metrics())
    return [sample_of(predictor) for predictor in catalogue]


def sample(models: Path, name: str) -> Sample:
    (found,) = samples_of(models, name)
    return found


def reasons(examples: Any) -> set[str | None]:
    rows = [row for each in examples.values() for row in each["value"]["predictions"]]
    return {row["reason"] for row in rows if "reason" in row}


def test_example_is_a_golden_row_that_is_answered(tmp_path: Path) -> None:
    fruit_bundle(tmp_path)

    found = sample(tmp_path, "fruit")

    assert found.answer.verdict.label in found.predictor.manifest.labels
    assert found.row.tolist() in found.predictor.golden_rows.tolist()


def test_text_that_no_row_can_be_told_as_is_passed_over(tmp_path: Path) -> None:
    review_bundle(tmp_path)  # all but its first golden row begin with padding

    assert sample(tmp_path, "review").instances == ["good"]


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        pytest.param(fruit_bundle, "fruit", {"name": "rows", "datatype": "FP32"}, id="features"),
        pytest.param(picture_bundle, "picture", {"name": "rows", "datatype": "BYTES"}, id="image"),
        pytest.param(review_bundle, "review", {"name": "rows", "datatype": "BYTES"}, id="text"),
    ],
)
def test_row_is_told_as_a_tensor(tmp_path: Path, make: Any, name: str, value: Any) -> None:
    make(tmp_path)

    found = samples.version_2(samples_of(tmp_path, name))

    (tensor,) = found[f"{name}-tensor"]["value"]["inputs"]
    assert tensor | value == tensor
    assert tensor["shape"][0] == 1


def test_reason_that_no_golden_row_has_is_told_by_what_the_graph_could_return(
    tmp_path: Path,
) -> None:
    convolution_bundle(tmp_path)
    found = samples_of(tmp_path, "halves")
    golden = {answer.verdict.reason for answer in found[0].predictor.golden_answers}

    told = reasons(samples.answers(found))

    assert "ambiguous" not in golden
    assert "ambiguous" in told


def test_reason_that_no_model_can_give_is_not_told(tmp_path: Path) -> None:
    convolution_bundle(tmp_path)  # of two labels, and without a novelty gate

    told = reasons(samples.answers(samples_of(tmp_path, "halves")))

    assert not {"out_of_distribution", "low_confidence"} & told
    assert None in told


def test_without_models_there_are_no_examples() -> None:
    assert samples.answers([]) == {}
    assert samples.native([]) == {}
