"""Numbers on a test split, on rows whose truth is known."""

import numpy as np
import pytest

from service.decision import Answered, Unknown, Verdict
from training.calibrate import Judged
from training.evaluate import (
    aurc,
    condition,
    confusion,
    ece,
    ece_floor,
    outlier_family,
    risk_coverage,
    risks_by_rank,
    share,
)


def test_share_has_the_exact_interval() -> None:
    measure = share(5, 100)

    # Clopper and Pearson's table for 5 of 100.
    assert (measure.low, measure.high) == pytest.approx((0.0164, 0.1128), abs=1e-4)


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        pytest.param(0, 0, 0, 1, id="nothing counted"),
        pytest.param(0, 10, 0, 0.3085, id="none of ten"),
        pytest.param(10, 10, 0.6915, 1, id="all of ten"),
    ],
)
def test_share_at_the_edges_stays_inside(count: int, n: int, low: float, high: float) -> None:
    measure = share(count, n)

    assert (measure.low, measure.high) == pytest.approx((low, high), abs=1e-4)


def test_calibration_error_of_a_constant_is_its_gap() -> None:
    confidence = np.full(300, 0.9)
    wrong = np.arange(300) % 5 == 0

    assert ece(confidence, wrong) == pytest.approx(0.1)


def test_noise_floor_falls_with_the_rows() -> None:
    confidence = np.random.default_rng(0).uniform(0.5, 1, 20_000)

    few, many = ece_floor(confidence[:500], seed=1), ece_floor(confidence, seed=1)

    # The error of a mean falls with the root of the rows: sqrt(40) is 6.3.
    assert few / many == pytest.approx(6.3, rel=0.15)


def test_calibrated_rows_lie_at_the_floor() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.5, 1, 20_000)
    wrong = rng.random(20_000) >= confidence

    assert ece(confidence, wrong) < 2 * ece_floor(confidence, seed=3)


def test_risk_counts_the_most_confident_rows_first() -> None:
    risks = risks_by_rank(np.array([0.7, 0.9, 0.8]), np.array([True, False, True]))

    assert risks == pytest.approx([0, 1 / 2, 2 / 3])


def test_rows_of_equal_confidence_share_their_errors() -> None:
    one = risks_by_rank(np.array([0.9, 0.9]), np.array([True, False]))
    other = risks_by_rank(np.array([0.9, 0.9]), np.array([False, True]))

    assert one == pytest.approx([0.5, 0.5])
    assert other == pytest.approx(one)


def test_area_is_the_mean_risk() -> None:
    confidence, wrong = np.array([0.7, 0.9, 0.8]), np.array([True, False, True])

    assert aurc(confidence, wrong) == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)


def test_curve_has_no_more_than_a_hundred_and_one_points() -> None:
    confidence = np.random.default_rng(4).random(2_345)

    curve = risk_coverage(confidence, confidence < 0.1)

    assert len(curve) == 101
    assert curve[-1] == pytest.approx((1, (confidence < 0.1).mean()))


def test_confusion_counts_true_labels_in_rows() -> None:
    judged = Judged(
        np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), np.array([0, 0, 1]), novelty_p=None
    )

    assert confusion(judged) == ((1, 1), (1, 0))


def test_outlier_family_counts_answers_and_reasons() -> None:
    verdicts: list[Verdict] = [
        Answered("left"),
        Unknown("ambiguous"),
        Unknown("out_of_distribution"),
    ]

    family = outlier_family("letters", verdicts)

    assert (family.name, family.n) == ("letters", 3)
    assert family.answered.value == pytest.approx(1 / 3)
    assert family.answered.low < 1 / 3 < family.answered.high
    assert family.reasons is not None
    assert family.reasons.ambiguous == pytest.approx(1 / 3)
    assert family.reasons.low_confidence == 0


def test_condition_counts_errors_among_its_answers() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    judged = Judged(probabilities, np.array([0, 1, 1, 1]), novelty_p=None)
    verdicts: list[Verdict] = [
        Answered("left"),
        Answered("left"),
        Unknown("ambiguous"),
        Answered("right"),
    ]

    part = condition("dim", judged, verdicts, seed=1)

    assert part.accuracy.value == pytest.approx(1 / 2)
    assert part.answered.value == pytest.approx(3 / 4)
    assert part.risk.value == pytest.approx(1 / 3)
    assert part.ece_floor is not None
