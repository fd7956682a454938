"""A card's numbers beside those measured now."""

from bundles import certified_policy
from training_toys import drawn_scores

from service.bundle.manifest import Evaluation, Measure, TemperatureScaling
from service.decision import Unknown
from training import evaluate
from training.calibrate import judge
from training.comparison import as_text, compare


def evaluation(temperature: float = 4.0) -> Evaluation:
    """Numbers of rows whose confidences are right at temperature 4."""
    known = TemperatureScaling(temperature=temperature, split="known", n=2_000)
    judged = judge(drawn_scores(2_000, temperature=4), known, None)
    policy = certified_policy()
    answered = evaluate.answers(judged, policy)
    return evaluate.evaluate(judged, answered, policy, split="test", seed=1)


def test_same_numbers_do_not_differ() -> None:
    compared = compare(evaluation(), evaluation())

    assert not any(each.differs for each in compared)
    assert [each.name for each in compared][:4] == ["accuracy", "NLL", "ECE", "AURC"]


def test_numbers_outside_the_interval_differ() -> None:
    compared = compare(evaluation(), evaluation(temperature=1))

    differing = [each.name for each in compared if each.differs]
    assert {"NLL", "ECE"} <= set(differing)
    assert "accuracy" not in differing


def test_number_that_the_card_has_not_does_not_differ() -> None:
    compared = compare(None, evaluation())

    assert not any(each.differs for each in compared)


def test_table_marks_what_differs() -> None:
    lines = as_text(compare(evaluation(), evaluation(temperature=1))).splitlines()

    assert "in the card" in lines[0]
    marked = [line.split()[0] for line in lines if line.endswith("differs")]
    assert "NLL" in marked
    assert "accuracy" not in marked


def test_families_and_their_pairs_are_compared() -> None:
    family = evaluate.outlier_family("means", [Unknown("ambiguous")])
    both = Measure(value=0.9, low=0.8, high=0.95)
    now = evaluation().model_copy(
        update={"outliers": (family.model_copy(update={"both_labels": both}),)}
    )

    names = [each.name for each in compare(None, now)]

    assert names[-2:] == ["means, answered", "means, both labels are candidates"]
