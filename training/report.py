"""Writes MODEL_CARD.md: what the model is, what was measured, and what it cannot do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.bundle.manifest import (
    Baseline,
    Condition,
    Evaluation,
    Interval,
    Manifest,
    Measure,
    OutlierFamily,
    Reasons,
)
from training.outlier_tests import INVERTED, LOOK_ALIKES
from training.recipe import Data, Picture, Recipe

CARD = "MODEL_CARD.md"
_LOOK_ALIKES = " Letters that are written like a digit are left out by their label, before scoring."
_ONE_THRESHOLD = (
    " Here the one threshold that is served decides, above each fold's own, as its certificate "
    "came about."
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a card shows beside numbers."""

    pictures: Mapping[str, Picture]
    """By file name, in order."""

    examples: Mapping[str, Sequence[tuple[str, ...]]]
    """Lines of tables by title, the first line of each its head."""


def model_card(
    recipe: Recipe, data: Data, manifest: Manifest, shown: Shown, command: str = ""
) -> str:
    """Return the card of a bundle as Markdown.

    Args:
        recipe: what was made.
        data: what it was made from.
        manifest: all numbers.
        shown: pictures and examples.
        command: what makes the bundle; nothing: `dunno train` with the recipe's name.
    """
    evaluation = manifest.evaluation
    parts = [
        f"# {recipe.name}, version {manifest.version}",
        recipe.description,
        _facts(manifest, "packed in" if command else "trained in"),
        "## Data and splits",
        data.note,
        *(_evaluated(evaluation) if evaluation else ()),
        *_policy(manifest),
        *(_conditions(evaluation.conditions) if evaluation else ()),
        *(_outliers(evaluation.outliers) if evaluation else ()),
        *_reasons(manifest),
        *(_examples(shown.examples)),
        "## Pictures",
        *(
            f"**{picture.title}**\n\n![{picture.title}]({name})"
            for name, picture in shown.pictures.items()
        ),
        "## Limits",
        "\n".join(f"- {limit}" for limit in recipe.limits),
        *_reproduce(manifest, command),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(manifest: Manifest, timed: str) -> str:
    made, evaluation = manifest.provenance, manifest.evaluation
    rows = {
        "labels": ", ".join(manifest.labels),
        "network": made.network,
        **(evaluation.facts if evaluation else {}),
        "calibration": _calibration(manifest),
        timed: f"{made.seconds:,.0f} s on {made.machine}",
    }
    return _table(("", ""), ((f"**{name}**", value) for name, value in rows.items()))


def _calibration(manifest: Manifest) -> str:
    calibration = manifest.calibration
    where = f"on {calibration.n:,} rows ({calibration.split})"
    if calibration.kind == "temperature":
        return f"temperature {calibration.temperature:.3f}, {where}"
    numbers = f"a {calibration.a:.3f}, gamma {calibration.gamma:.3f}, b {calibration.b:.3f}"
    return f"signed power map: {numbers}, {where}"


def _evaluated(evaluation: Evaluation) -> Iterator[str]:
    yield f"## Numbers ({evaluation.split}, {evaluation.n:,} rows)"
    yield (
        "Brackets hold the 95 % interval: exact for shares of rows, by bootstrap for the rest. "
        "ECE: expected calibration error, 15 bins of equal mass; its noise floor is what perfectly "
        "calibrated confidences would show. AURC: area under the risk-coverage curve. Of all but "
        "accuracy, less is better."
    )
    head = ["", "this model", *(baseline.name for baseline in evaluation.baselines)]
    yield _table(head, _compared(evaluation))


def _compared(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    models: tuple[Evaluation | Baseline, ...] = (evaluation, *evaluation.baselines)
    yield ("accuracy", *(_measure(model.accuracy) for model in models))
    for condition in evaluation.conditions:
        others = (baseline.conditions.get(condition.name) for baseline in evaluation.baselines)
        yield (
            f"accuracy, {condition.name.replace('_', ' ')}",
            _measure(condition.accuracy),
            *("" if other is None else f"{other:.2%}" for other in others),
        )
    between = evaluation.intervals
    yield (
        "negative log-likelihood",
        f"{evaluation.nll:.4f}" + (f" {_number(between.nll)}" if between else ""),
        *(f"{baseline.nll:.4f}" for baseline in evaluation.baselines),
    )
    yield (
        "ECE",
        f"{evaluation.ece:.2%}"
        + (f" {_percents(between.ece)}" if between else "")
        + f", noise floor {evaluation.ece_floor:.2%}",
        *(f"{baseline.ece:.2%}" for baseline in evaluation.baselines),
    )
    yield (
        "AURC x 1000",
        f"{evaluation.aurc * 1000:.3f}" + (f" {_thousandths(between.aurc)}" if between else ""),
        *(f"{baseline.aurc * 1000:.3f}" for baseline in evaluation.baselines),
    )


def _policy(manifest: Manifest) -> Iterator[str]:
    policy, evaluation = manifest.policy, manifest.evaluation
    yield "## When it answers"
    if policy.max_error is None:
        yield 'No risk could be certified: by default every row is answered with "don\'t know".'
        return
    yield (
        f"With probability {policy.confidence:.0%} over the draw of {policy.n:,} rows "
        f"({policy.split}), for all lines at once: of the inputs that are answered at or above the "
        f"threshold, at most the risk is wrong. The promise is about inputs like these: "
        f"{policy.mixture}. Status: `{policy.status}`. The default is **{policy.max_error:.1%}**. "
        f"On the right is what happened on the test rows."
    )
    realised = {row.max_error: row for row in (evaluation.table if evaluation else ())}
    head = ("risk", "threshold", "answered", "errors", "test: answered", "test: error")
    yield _table(
        head,
        (
            (
                f"{row.max_error:.1%}",
                f"{row.threshold:.6f}",
                f"{row.coverage:.2%}",
                f"{row.errors} of {row.n:,}",
                _measure(realised[row.max_error].coverage) if row.max_error in realised else "",
                _measure(realised[row.max_error].risk) if row.max_error in realised else "",
            )
            for row in policy.table
        ),
    )


def _conditions(conditions: tuple[Condition, ...]) -> Iterator[str]:
    if not conditions:
        return
    yield "By default, under each condition of the test rows:"
    yield _table(
        ("condition", "accuracy", "ECE (noise floor)", "answered", "error among these"),
        (
            (
                part.name.replace("_", " "),
                _measure(part.accuracy),
                _beside_floor(part),
                _measure(part.answered),
                _measure(part.risk),
            )
            for part in conditions
        ),
    )


def _beside_floor(part: Condition) -> str:
    return f"{part.ece:.2%}" + ("" if part.ece_floor is None else f" ({part.ece_floor:.2%})")


def _outliers(measured: tuple[OutlierFamily, ...]) -> Iterator[str]:
    """Yield the share of each family that is answered, its negatives beside it."""
    families = {family.name: family for family in measured}
    if not families:
        return
    yield "## When it should not answer"
    yield (
        "Rows of none of the labels, and the share of each family that the default policy answers "
        "all the same. None of them trained or tuned anything."
        + (_LOOK_ALIKES if any(name.replace("_", " ") in families for name in LOOK_ALIKES) else "")
    )
    has_negatives = any(name.endswith(INVERTED) for name in families)
    head = ("family", "rows", "answered", "answered, inverted")
    rows = (
        (
            name,
            f"{family.n:,}",
            _measure(family.answered),
            _measure(families[name + INVERTED].answered) if name + INVERTED in families else "",
        )
        for name, family in families.items()
        if not name.endswith(INVERTED)
    )
    shown = len(head) if has_negatives else len(head) - 1
    yield _table(head[:shown], (row[:shown] for row in rows))


def _reasons(manifest: Manifest) -> Iterator[str]:
    """Yield how many rows of each kind are answered, and why the others are not."""
    evaluation = manifest.evaluation
    if evaluation is None or evaluation.reasons is None:
        return
    measured = [
        (evaluation.split, evaluation.reasons),
        *((part.name.replace("_", " "), part.reasons) for part in evaluation.conditions),
        *((family.name, family.reasons) for family in evaluation.outliers),
    ]
    is_crossed = manifest.policy.status == "cross_fitted"
    yield "## Why it does not answer"
    yield (
        'Share of the rows by verdict of the default policy: an answer, or "don\'t know" with its '
        "reason." + (_ONE_THRESHOLD if is_crossed else "")
    )
    yield _table(
        ("rows", *(name.replace("_", " ") for name in Reasons.model_fields)),
        (
            (name, *(f"{share:.2%}" for share in reasons.model_dump().values()))
            for name, reasons in measured
            if reasons is not None
        ),
    )
    for family in evaluation.outliers:
        if family.both_labels is not None:
            held = _measure(family.both_labels)
            yield f"{family.name}: the candidates hold both labels for {held} of the rows."


def _examples(examples: Mapping[str, Sequence[tuple[str, ...]]]) -> Iterator[str]:
    if examples:
        yield "## Examples"
    for title, (head, *lines) in examples.items():
        yield f"**{title}**"
        yield _table(head, iter(lines))


def _reproduce(manifest: Manifest, command: str) -> Iterator[str]:
    made = manifest.provenance
    yield "## Reproduce"
    if command:
        yield f"```\n{command}\n```"
    else:
        yield (
            f"```\ndunno train {made.recipe}       # makes the bundle\n"
            f"dunno evaluate {made.recipe}    # measures it again\n```"
        )
    files = "\n".join(f"- `{name}` sha256 `{digest}`" for name, digest in made.data_sha256.items())
    yield f"Seed {made.seed}, commit `{made.commit}`, {made.created}. Data:\n\n{files}"
    yield "Made with " + ", ".join(f"{name} {version}" for name, version in made.libraries.items())


def _measure(measure: Measure) -> str:
    return f"{measure.value:.2%} [{measure.low:.2%}, {measure.high:.2%}]"


def _percents(interval: Interval) -> str:
    return f"[{interval.low:.2%}, {interval.high:.2%}]"


def _number(interval: Interval) -> str:
    return f"[{interval.low:.4f}, {interval.high:.4f}]"


def _thousandths(interval: Interval) -> str:
    return f"[{interval.low * 1000:.3f}, {interval.high * 1000:.3f}]"


def _table(head: tuple[str, ...] | list[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
