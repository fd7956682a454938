"""Writes MODEL_CARD.md: what the model is, what was measured, and what it cannot do."""

from collections.abc import Iterator, Mapping

from service.bundle.manifest import (
    Baseline,
    Condition,
    Evaluation,
    Manifest,
    Measure,
    OutlierFamily,
)
from training.outlier_tests import INVERTED
from training.recipe import Data, Picture, Recipe

CARD = "MODEL_CARD.md"
_LOOK_ALIKES = " Letters that are written like a digit are left out by their label, before scoring."


def model_card(
    recipe: Recipe,
    data: Data,
    fitted_facts: Mapping[str, str],
    manifest: Manifest,
    pictures: Mapping[str, Picture],
) -> str:
    """Return the card of a bundle as Markdown.

    Args:
        recipe: what was made.
        data: what it was made from.
        fitted_facts: further lines for the first table.
        manifest: all numbers.
        pictures: by file name, in order.
    """
    parts = [
        f"# {recipe.name}, version {manifest.version}",
        recipe.description,
        _facts(manifest, fitted_facts),
        "## Data and splits",
        data.note,
        *(_evaluated(manifest.evaluation) if manifest.evaluation else ()),
        *_policy(manifest),
        *(_conditions(manifest.evaluation.conditions) if manifest.evaluation else ()),
        *(_outliers(manifest.evaluation.outliers) if manifest.evaluation else ()),
        "## Pictures",
        *(
            f"**{picture.title}**\n\n![{picture.title}]({name})"
            for name, picture in pictures.items()
        ),
        "## Limits",
        "\n".join(f"- {limit}" for limit in recipe.limits),
        *_reproduce(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(manifest: Manifest, fitted_facts: Mapping[str, str]) -> str:
    made = manifest.provenance
    rows = {
        "labels": ", ".join(manifest.labels),
        "network": made.network,
        **fitted_facts,
        "calibration": _calibration(manifest),
        "trained in": f"{made.seconds:,.0f} s on {made.machine}",
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
        "Brackets hold the exact 95 % interval. ECE: expected calibration error, 15 bins of equal "
        "mass. AURC: area under the risk-coverage curve. Of all but accuracy, less is better."
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
    yield ("negative log-likelihood", *(f"{model.nll:.4f}" for model in models))
    floor = f" (noise floor {evaluation.ece_floor:.2%})"
    yield ("ECE", *(f"{m.ece:.2%}{floor if m is evaluation else ''}" for m in models))
    yield ("AURC x 1000", *(f"{model.aurc * 1000:.3f}" for model in models))


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
        ("condition", "accuracy", "ECE", "answered", "error among these"),
        (
            (
                part.name.replace("_", " "),
                _measure(part.accuracy),
                f"{part.ece:.2%}",
                _measure(part.answered),
                _measure(part.risk),
            )
            for part in conditions
        ),
    )


def _outliers(measured: tuple[OutlierFamily, ...]) -> Iterator[str]:
    """Yield the share of each family that is answered, its negatives beside it."""
    families = {family.name: family for family in measured}
    if not families:
        return
    yield "## When it should not answer"
    yield (
        "Rows of none of the labels, and the share of each family that the default policy answers "
        "all the same. None of them trained or tuned anything."
        + (_LOOK_ALIKES if any("letters" in name for name in families) else "")
    )
    yield _table(
        ("family", "rows", "answered", "answered, inverted"),
        (
            (
                name,
                f"{family.n:,}",
                _measure(family.answered),
                _measure(families[name + INVERTED].answered) if name + INVERTED in families else "",
            )
            for name, family in families.items()
            if not name.endswith(INVERTED)
        ),
    )


def _reproduce(manifest: Manifest) -> Iterator[str]:
    made = manifest.provenance
    yield "## Reproduce"
    yield f"```\ndunno train {made.recipe}\n```"
    files = "\n".join(f"- `{name}` sha256 `{digest}`" for name, digest in made.data_sha256.items())
    yield f"Seed {made.seed}, commit `{made.commit}`, {made.created}. Data:\n\n{files}"
    yield "Made with " + ", ".join(f"{name} {version}" for name, version in made.libraries.items())


def _measure(measure: Measure) -> str:
    return f"{measure.value:.2%} [{measure.low:.2%}, {measure.high:.2%}]"


def _table(head: tuple[str, ...] | list[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
