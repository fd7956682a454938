"""docs/verdicts.md says what the manifests say, and what was measured with today's bundles."""

import re
from pathlib import Path

import pytest
import verdicts_page as page

TEXT = page.PAGE.read_text()
MOST_BYTES = 60_000
PICTURES = sorted((page.ROOT / "docs/pictures").glob("verdicts-*.png"))
NOT_MEASURED = {
    "95 %",  # interval of the plots
}
"""Numbers in sentences that belong to no bundle."""


def without_generated(text: str) -> str:
    """Return what somebody has written by hand."""
    for name in page.TABLES:
        text = re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", "", text, flags=re.DOTALL)
    return re.sub(r"<!--=\w+-->.*?<!--/-->", "", text, flags=re.DOTALL)


def test_page_has_the_numbers_of_the_manifests_and_of_what_was_measured() -> None:
    assert page.rendered(TEXT) == TEXT, "run `make verdicts`"


def test_page_uses_every_table_and_every_number_once_at_least() -> None:
    tables = set(re.findall(r"<!-- (\w+) -->", TEXT))
    named = set(re.findall(r"<!--=(\w+)-->", TEXT))

    assert tables == page.TABLES.keys()
    assert named == page.numbers().keys()


def test_sentences_have_no_number_of_their_own() -> None:
    written = without_generated(TEXT)

    found = set(re.findall(r"\d[\d,.]* ?%|\d\.\d+", written))

    assert found == NOT_MEASURED


@pytest.mark.parametrize("name", page.measured()["graphs"])
def test_what_was_measured_is_of_the_bundle_as_it_is(name: str) -> None:
    manifest = page.manifests()[name]

    known = page.measured()["graphs"][name]

    assert manifest.files["model.onnx"].sha256 == known, "run `make verdicts`"


@pytest.mark.parametrize("name", page.measured()["calibration"])
def test_calibration_after_is_that_of_the_manifest(name: str) -> None:
    evaluation = page.evaluation_of(page.manifests()[name])

    after = page.measured()["calibration"][name]["after"]

    assert after == pytest.approx(evaluation.ece, abs=1e-6)  # rounded


def test_digits_that_are_not_turned_are_answered_as_the_manifest_says() -> None:
    upright = page.measured()["turned"][0]

    answered, wrong = page.default_risk(page.manifests()["mnist"])

    assert upright["degrees"] == 0
    assert upright["answered"] == pytest.approx(answered, abs=1e-6)  # rounded
    assert upright["wrong"] == pytest.approx(wrong, abs=1e-6)


def test_promise_that_is_certified_is_broken_less_often_than_one_by_eye() -> None:
    resplits = page.measured()["resplits"]

    assert resplits["certified"] < resplits["by_eye"] / 10


@pytest.mark.parametrize("other", ["sure", "without_gate"])
def test_verdicts_answer_no_more_of_any_family_than_confidence_alone(other: str) -> None:
    manifest, others = page.manifests()["mnist"], page.measured()["others"]

    answered = {name: page.family_of(manifest, name).answered.value for name in others}

    assert {name for name in others if answered[name] > others[name][other] + 1e-6} == set()


def test_page_shows_every_picture_of_its_own() -> None:
    shown = set(re.findall(r"\]\(pictures/(verdicts-[\w-]+\.png)\)", TEXT))

    assert shown == {path.name for path in PICTURES}


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_picture_is_light(path: Path) -> None:
    assert path.stat().st_size <= MOST_BYTES


def test_metrics_of_the_page_exist() -> None:
    source = (page.ROOT / "service/telemetry/metrics.py").read_text()

    named = re.findall(r"`(dunno_\w+?)(?:_total)?`", TEXT)

    assert named
    assert [name for name in named if f'"{name}"' not in source] == []


def test_reasons_of_the_page_are_those_of_the_service() -> None:
    rows = re.findall(r"^\| `(\w+)` \| the ", TEXT, re.MULTILINE)

    assert rows == ["out_of_distribution", "ambiguous", "low_confidence"]
