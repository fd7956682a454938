from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import FRUIT, certified_policy, conformal_limits, fruit_bundle, novelty_tables
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import softmax

from service.bundle.manifest import Manifest, PowerMap, TailTable, TemperatureScaling
from service.decision import Answered, Assessment, Floor, Judge, Terms, Unknown, calibrated, tail
from service.errors import OptionInvalid, RiskNotCertifiable

FAMILIAR = 0.0
NOVEL = 10.0


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return fruit_bundle(
        tmp_path_factory.mktemp("models"), conformal=conformal_limits(len(FRUIT))
    ).manifest


def judge(models: Path, floor: Floor | None = None, **changes: Any) -> Judge:
    return Judge(fruit_bundle(models, **changes).manifest, floor)


def logits(*probabilities: float) -> NDArray[np.float32]:
    return np.log(np.array([probabilities], np.float32))


def verdict(judge: Judge, probabilities: tuple[float, ...], novelty: float = FAMILIAR) -> object:
    assessment = judge.assess(logits(*probabilities), np.array([[novelty]], np.float32))
    return judge.decide(assessment, judge.default_terms)[0]


def test_confident_row_is_answered(models: Path) -> None:
    assert verdict(judge(models), (0.95, 0.03, 0.02)) == Answered("apple")


def test_confidence_equal_to_the_threshold_is_answered(models: Path) -> None:
    assert verdict(judge(models), (0.9, 0.06, 0.04)) == Answered("apple")


def test_two_likely_labels_are_ambiguous(models: Path) -> None:
    assert verdict(judge(models), (0.5, 0.48, 0.02)) == Unknown("ambiguous")


def test_many_likely_labels_are_low_confidence(models: Path) -> None:
    assert verdict(judge(models), (0.4, 0.3, 0.3)) == Unknown("low_confidence")


def test_one_label_with_almost_all_probability_is_not_ambiguous(models: Path) -> None:
    strict = judge(
        models, policy=certified_policy(threshold=0.99, max_error=0.001, novelty_alpha=0.0)
    )

    assert verdict(strict, (0.96, 0.03, 0.01)) == Unknown("low_confidence")


def test_novel_row_is_out_of_distribution_however_confident(models: Path) -> None:
    gated = judge(models, policy=certified_policy(novelty_alpha=0.01))

    assert verdict(gated, (1.0, 1e-9, 1e-9), NOVEL) == Unknown("out_of_distribution")
    assert verdict(gated, (1.0, 1e-9, 1e-9), FAMILIAR) == Answered("apple")


def test_novelty_is_told_before_ambiguity(models: Path) -> None:
    gated = judge(models, policy=certified_policy(novelty_alpha=0.01))

    assert verdict(gated, (0.5, 0.48, 0.02), NOVEL) == Unknown("out_of_distribution")


def test_gate_that_is_off_lets_novel_rows_through(models: Path) -> None:
    assert verdict(judge(models), (1.0, 1e-9, 1e-9), NOVEL) == Answered("apple")


def test_rows_that_are_not_finite_are_marked(models: Path) -> None:
    rows = np.array([[1, 2, 3], [np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 0]], np.float32)
    scores = np.array([[0], [0], [0], [np.nan]], np.float32)

    assessment = judge(models).assess(rows, scores)

    assert assessment.finite.tolist() == [True, False, False, False]


def test_last_bits_do_not_turn_a_verdict(models: Path) -> None:
    below = Assessment(
        probabilities=np.array([[0.9 - 4e-7, 0.06, 0.04]]),
        confidence=np.array([0.9 - 4e-7]).round(6),
        novelty_p=None,
        finite=np.array([True]),
    )

    assert judge(models).decide(below, judge(models).default_terms) == [Answered("apple")]


@pytest.mark.parametrize(
    ("limit", "probabilities", "candidates"),
    [
        pytest.param(0.0, (0.01, 0.98, 0.01), ["pear"], id="one has almost all"),
        pytest.param(0.0, (0.48, 0.5, 0.02), ["pear", "apple"], id="two share almost all"),
        pytest.param(0.0, (0.3, 0.4, 0.3), ["pear", "apple", "plum"], id="all are needed"),
        pytest.param(0.985, (0.02, 0.97, 0.01), ["pear", "apple"], id="conformal set"),
        pytest.param(0.0, (1.0, 0.0, 0.0), ["apple"], id="certain"),
    ],
)
def test_candidates_are_the_conformal_set_filled_up_to_almost_all_probability(
    models: Path, limit: float, probabilities: tuple[float, ...], candidates: list[str]
) -> None:
    judged = judge(models, conformal=conformal_limits(3, limit=limit))
    row = np.array(probabilities)
    batch = Assessment(row[None], row[None].max(axis=1), None, np.array([True]))

    assert judged.candidates(row) == candidates
    assert judged.rows(batch)[0].candidates == candidates


def test_without_conformal_limits_candidates_share_almost_all_probability(models: Path) -> None:
    bare = judge(models, conformal=None)

    assert bare.candidates(np.array([0.5, 0.46, 0.04])) == ["apple", "pear"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({}, Terms(0.01, 0.9, 0.0, "certified"), id="default"),
        pytest.param({"max_error": 0.001}, Terms(0.001, 0.99, 0.0, "certified"), id="stricter"),
        pytest.param(
            {"max_error": 0.004}, Terms(0.001, 0.99, 0.0, "certified"), id="snaps to stricter row"
        ),
        pytest.param(
            {"min_confidence": 0.95}, Terms(0.01, 0.95, 0.0, "certified"), id="above the threshold"
        ),
        pytest.param(
            {"max_error": 0.001, "min_confidence": 0.5},
            Terms(0.001, 0.99, 0.0, "certified"),
            id="the stricter of both",
        ),
    ],
)
def test_stricter_terms_keep_their_guarantee(
    models: Path, asked: dict[str, float], expected: Terms
) -> None:
    assert judge(models).terms(**asked) == expected


@pytest.mark.parametrize("asked", [{"max_error": 0.05}, {"min_confidence": 0.5}])
def test_looser_terms_are_refused(models: Path, asked: dict[str, float]) -> None:
    with pytest.raises(OptionInvalid, match=next(iter(asked))):
        judge(models).terms(**asked)


def test_operator_may_allow_looser_terms_without_a_guarantee(models: Path) -> None:
    loose = judge(models, Floor(allow_looser=True))

    assert loose.terms(min_confidence=0.5) == Terms(None, 0.5, 0.0, "uncertified")
    assert loose.terms(max_error=0.05) == Terms(0.05, 0.6, 0.0, "certified")


def test_risk_below_every_certified_row_is_refused_with_those_there_are(models: Path) -> None:
    with pytest.raises(RiskNotCertifiable, match=r"0\.001, 0\.01, 0\.05"):
        judge(models).terms(max_error=0.0001)


def test_operator_chooses_another_certified_row(models: Path) -> None:
    assert judge(models, Floor(max_error=0.05)).default_terms.min_confidence == 0.6


def test_operator_cannot_choose_what_was_not_certified(models: Path) -> None:
    with pytest.raises(OptionInvalid, match="certified risk"):
        judge(models, Floor(max_error=0.02))


def test_policy_without_certificate_says_so(models: Path) -> None:
    bare = certified_policy(max_error=None, threshold=0.7, table=(), status="uncertified")

    assert judge(models, policy=bare).default_terms == Terms(None, 0.7, 0.0, "uncertified")


FINITE = arrays(np.float32, (5, 4), elements=st.floats(-100, 100, width=32))


@given(FINITE, st.floats(0.1, 10))
def test_temperature_scaling_is_softmax_of_scaled_logits(
    values: NDArray[np.float32], temperature: float
) -> None:
    calibration = TemperatureScaling(temperature=temperature, split="validation", n=1)

    probabilities = calibrated(values, calibration)

    # 1e-12: both in float64, they differ in the order of operations only.
    expected = softmax(values.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-12)


def test_huge_logits_do_not_overflow() -> None:
    calibration = TemperatureScaling(temperature=0.01, split="validation", n=1)

    probabilities = calibrated(np.array([[3e38, -3e38]], np.float32), calibration)

    assert probabilities.tolist() == [[1.0, 0.0]]


@given(st.floats(-50, 50), st.floats(0.01, 50), st.floats(0.3, 2), st.floats(-3, 3))
def test_power_map_is_monotone_in_the_margin(
    margin: float, step: float, gamma: float, b: float
) -> None:
    power = PowerMap(a=1.0, gamma=gamma, b=b, split="validation", n=1)
    values = np.array([[0, margin], [0, margin + step]])

    lower, upper = calibrated(values, power)[:, 1]

    assert lower <= upper


def test_power_map_of_exponent_one_is_a_sigmoid() -> None:
    power = PowerMap(a=2.0, gamma=1.0, b=0.5, split="validation", n=1)

    second = calibrated(np.array([[1.0, 4.0]]), power)[0, 1]

    assert second == pytest.approx(1 / (1 + np.exp(-6.5)))


def test_tail_is_interpolated_in_its_logarithm() -> None:
    table = TailTable(values=(0.0, 1.0), tails=(1.0, 0.01))

    tails = tail(np.array([-5.0, 0.0, 0.5, 1.0, 99.0]), table)

    np.testing.assert_allclose(tails, [1.0, 1.0, 0.1, 0.01, 0.01])


def test_novelty_p_combines_scores_by_fishers_method(models: Path) -> None:
    assessment = judge(models, novelty=novelty_tables()).assess(
        np.zeros((2, 3), np.float32), np.array([[0], [10]], np.float32)
    )

    assert assessment.novelty_p is not None
    assert assessment.novelty_p.tolist() == [1.0, 0.001]


EIGHTHS = st.integers(-400, 400).map(lambda number: number / 8)
STRANGE = st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38])
NUMBERS = st.one_of(EIGHTHS, EIGHTHS, EIGHTHS, EIGHTHS, STRANGE)


@given(has_two_labels=st.booleans(), has_novelty=st.booleans(), data=st.data())
def test_few_rows_are_assessed_as_many_are(
    manifest: Manifest, *, has_two_labels: bool, has_novelty: bool, data: st.DataObject
) -> None:
    changes: dict[str, Any] = {"novelty": novelty_tables() if has_novelty else None}
    if has_two_labels:
        power = PowerMap(a=1.3, b=-0.2, gamma=1.7, split="validation", n=1)
        changes |= {"labels": ("apple", "pear"), "conformal": None, "calibration": power}
    judge = Judge(manifest.model_copy(update=changes))
    shape = (data.draw(st.integers(1, 4)), len(judge.labels))
    drawn = data.draw(arrays(np.float32, shape, elements=NUMBERS))
    scores = data.draw(arrays(np.float32, (shape[0], int(has_novelty)), elements=NUMBERS))

    few = judge.assess_rows(drawn, scores)

    with np.errstate(over="ignore"):
        many = judge.rows(judge.assess(drawn, scores))
    assert [row.is_finite for row in few] == [row.is_finite for row in many]
    assert [row for row in few if row.is_finite] == [row for row in many if row.is_finite]
