"""What verdicts.md says in numbers: made of the manifests and of what verdicts.py has measured.

A table stands between `<!-- name -->` and `<!-- /name -->`, a number within a sentence between
`<!--=name-->` and `<!--/-->`.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from service.bundle.manifest import Evaluation, Manifest, OutlierFamily

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/verdicts.md"
MEASURED = ROOT / "docs/verdicts.json"
IN_WORDS = {"low_contrast": "faint", "low_contrast_inverted": "faint and inverted"}


def manifests() -> dict[str, Manifest]:
    """Return the manifest of each committed bundle by name."""
    paths = sorted(ROOT.glob("models/*/1/manifest.json"))
    found = (Manifest.model_validate_json(path.read_bytes()) for path in paths)
    return {manifest.name: manifest for manifest in found}


def measured() -> Any:
    """Return what verdicts.py has measured."""
    return json.loads(MEASURED.read_text())


def evaluation_of(manifest: Manifest) -> Evaluation:
    """Return the evaluation, which every committed bundle has."""
    assert manifest.evaluation is not None
    return manifest.evaluation


def family_of(manifest: Manifest, name: str) -> OutlierFamily:
    """Return what the card tells of a family."""
    (found,) = (each for each in evaluation_of(manifest).outliers if each.name == name)
    return found


def default_risk(manifest: Manifest) -> tuple[float, float]:
    """Return the share answered and the error among it, as measured at the default threshold."""
    rows = evaluation_of(manifest).table
    (row,) = (each for each in rows if each.max_error == manifest.policy.max_error)
    return row.coverage.value, row.risk.value


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in words."""
    return "" if value is None else f"{value:.{digits}%}".replace("%", " %")


def table(head: str, lines: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown; `head` has its cells, divided by bars."""
    columns = head.count("|") + 1
    rule = "| --- " * columns + "|"
    return "\n".join([f"| {head} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def inputs_table() -> str:
    """Return the first picture in words."""

    def verdict(facts: Any) -> str:
        if facts["label"]:
            return f"`answer`: {facts['label']}"
        return f"`dont_know`: `{facts['reason']}`"

    return table(
        "input | softmax of the lecture | verdict | confidence | novelty p-value | candidates",
        (
            (
                each["input"],
                f"{each['lecture_label']}, {percent(each['lecture_confidence'], 0)}",
                verdict(each),
                percent(each["confidence"]),
                f"{each['novelty_p']:.4f}",
                ", ".join(each["candidates"]) if len(each["candidates"]) < 10 else "all ten",
            )
            for each in measured()["inputs"]
        ),
    )


def families_table() -> str:
    """Return what both do with whole families of rows."""
    found, manifest = measured(), manifests()["mnist"]
    conditions = {each.name: each for each in evaluation_of(manifest).conditions}
    answered, wrong = default_risk(manifest)
    lines = []
    for name, softmax in found["digits"].items():
        if condition := conditions.get(name):
            answered, wrong = condition.answered.value, condition.risk.value
        both = ((softmax["sure"], softmax["wrong"]), (answered, wrong))
        cells = [
            cell for sure, error in both for cell in (percent(sure), percent(error) if sure else "")
        ]
        lines.append([f"digits, {IN_WORDS.get(name, name)}", *cells])
    for name, softmax in found["others"].items():
        answers = (softmax["sure"], family_of(manifest, name).answered.value)
        cells = [cell for each in answers for cell in (percent(each), "all" if each else "")]
        lines.append([name, *cells])
    return table(
        "rows | softmax: surer than 90 % | of these wrong | verdict: answered | of these wrong",
        lines,
    )


def gate_table() -> str:
    """Return what the confidence of `mnist` alone would answer, and with novelty."""
    manifest = manifests()["mnist"]
    lines = [
        (
            name,
            percent(each["without_gate"], 2),
            percent(family_of(manifest, name).answered.value, 2),
        )
        for name, each in measured()["others"].items()
    ]
    return table("rows | answered by confidence alone | by confidence and novelty", lines)


def models_table() -> str:
    """Return the promise of each model, and what became of it."""

    def line(manifest: Manifest) -> Iterable[str]:
        policy, evaluation = manifest.policy, evaluation_of(manifest)
        answered, wrong = default_risk(manifest)
        return (
            f"`{manifest.name}`",
            percent(policy.max_error),
            f"`{policy.status}`",
            f"{policy.n:,}",
            f"{policy.threshold:.4f}",
            percent(policy.novelty_alpha),
            percent(answered),
            percent(wrong, 2),
            percent(1 - evaluation.accuracy.value, 2),
            f"{evaluation.n:,}, {evaluation.split}",
        )

    return table(
        "model | promised: wrong at most | status | rows that certify | threshold "
        "| `novelty_alpha` | answered | wrong among these | wrong if it answered all | measured on",
        map(line, manifests().values()),
    )


def calibration_table() -> str:
    """Return the calibration error before and after."""
    found = manifests()
    return table(
        "model | calibration error before | after | of a perfect one, by chance",
        (
            (
                f"`{name}`",
                percent(errors["before"], 2),
                percent(errors["after"], 2),
                percent(evaluation_of(found[name]).ece_floor, 2),
            )
            for name, errors in measured()["calibration"].items()
        ),
    )


def turned_table() -> str:
    """Return what becomes of digits that are turned."""
    return table(
        "turned by | answered | wrong among these",
        (
            (f"{each['degrees']}°", percent(each["answered"]), percent(each["wrong"], 2))
            for each in measured()["turned"]
        ),
    )


TABLES: dict[str, Callable[[], str]] = {
    "inputs": inputs_table,
    "families": families_table,
    "gate": gate_table,
    "calibration": calibration_table,
    "models": models_table,
    "turned": turned_table,
}


def numbers() -> dict[str, str]:
    """Return the numbers within sentences, by name."""
    found = measured()
    manifest = manifests()["mnist"]
    policy, evaluation = manifest.policy, evaluation_of(manifest)
    means = family_of(manifest, "means of two digits")
    resplits = found["resplits"]
    assert evaluation.reasons is not None
    assert means.reasons is not None
    assert means.both_labels is not None
    fashion = manifests()["fashion_mnist"].policy
    return {
        "alpha": percent(policy.novelty_alpha),
        "threshold": percent(policy.threshold, 0),
        "mass": percent(policy.ambiguity_mass, 0),
        "novel_digits": percent(evaluation.reasons.out_of_distribution),
        "means_ambiguous": percent(means.reasons.ambiguous, 0),
        "means_both": percent(means.both_labels.value, 0),
        "means_answered": percent(means.answered.value),
        "letters": percent(family_of(manifest, "alphadigits letters").answered.value),
        "promise": percent(policy.max_error),
        "belief": percent(policy.confidence, 0),
        "rows": f"{policy.n:,}",
        "mixture": policy.mixture,
        "draws": f"{resplits['draws']:,}",
        "risk": percent(resplits["risk"], 0),
        "delta": percent(resplits["delta"], 2),
        "by_eye": percent(resplits["by_eye"]),
        "certified": percent(resplits["certified"]),
        "fashion_risks": ", ".join(percent(row.max_error) for row in fashion.table),
        "sure": percent(found["lecture"]["sure"], 0),
        "network": found["lecture"]["network"],
    }


def rendered(text: str) -> str:
    """Return the page with every table and number as it is now; KeyError: there is none such."""
    words = numbers()
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        text = _between(begin, make() + "\n", end, text)
    for name in set(re.findall(r"<!--=(\w+)-->", text)):
        text = _between(f"<!--={name}-->", words[name], "<!--/-->", text)
    return text


def _between(begin: str, content: str, end: str, text: str) -> str:
    """Return a text with `content` wherever something stood between two marks."""
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    return re.sub(pattern, lambda _: f"{begin}{content}{end}", text, flags=re.DOTALL)


def write_page() -> None:
    """Write tables and numbers into the page."""
    PAGE.write_text(rendered(PAGE.read_text()))
