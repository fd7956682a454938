"""A measured bundle gets its card and pictures, whoever measured it."""

from dataclasses import dataclass
from pathlib import Path

from service.bundle import Bundle, write_bundle
from service.bundle.manifest import DESCRIBING, Evaluation, ImageInput, Manifest
from training import evaluate, plots
from training.examples import Example, Examples, find_examples, in_words
from training.measuring import Reported
from training.recipe import Data, Picture, Recipe
from training.report import CARD, Shown, model_card

CURVES = "curves.png"
_CAPTION_LETTERS = 24
_PICTURED = 25
_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a card tells beside the facts of the manifest."""

    recipe: Recipe
    data: Data
    reported: Reported
    curves: bytes | None = None
    """PNG of how fitting went."""

    command: str = ""
    """What makes the bundle; nothing: `dunno train` with the recipe's name."""

    shows_rows: bool = True
    """Whether the card may show rows of the data, as it does where the data are public."""


def undescribed(bundle: Bundle) -> dict[str, bytes]:
    """Return the files of a bundle that do more than describe it, by name."""
    return {
        name: bundle.read(name) for name in bundle.manifest.files if not name.endswith(DESCRIBING)
    }


def write_described(
    path: Path, contents: dict[str, bytes], manifest: Manifest, subject: Subject
) -> Bundle:
    """Write a bundle with card and pictures to the folder `path` and return it.

    Args:
        path: of the version.
        contents: all other files by name.
        manifest: all facts but the entries of the files.
        subject: what the card tells beside them.
    """
    evaluation = manifest.evaluation
    if evaluation is None:
        raise TypeError("a card is about a measured bundle")
    shown = _shown(manifest, evaluation, subject)
    card = model_card(subject.recipe, subject.data, manifest, shown, subject.command)
    described = {name: picture.png for name, picture in shown.pictures.items()}
    return write_bundle(
        path,
        contents | described | {CARD: card.encode()},
        lambda files: Manifest.model_validate({**manifest.model_dump(), "files": files}),
    )


def _shown(manifest: Manifest, evaluation: Evaluation, subject: Subject) -> Shown:
    recipe, data = subject.recipe, subject.data
    drawn = dict(recipe.explore(data)) if recipe.explore else {}
    if subject.curves:
        drawn[CURVES] = Picture(title="How fitting went", png=subject.curves)
    drawn |= _number_pictures(evaluation, subject)
    if not subject.shows_rows:
        return Shown(drawn, {})
    if isinstance(data.input, ImageInput):
        examples = find_examples(manifest, subject.reported, _PICTURED)
        return Shown(drawn | _example_pictures(examples), {})
    return Shown(drawn, _example_tables(find_examples(manifest, subject.reported, _TOLD), data))


def _number_pictures(evaluation: Evaluation, subject: Subject) -> dict[str, Picture]:
    judged = subject.reported.judged
    bins = evaluate.reliability(judged.probabilities.max(axis=1), judged.wrong)
    return {
        "confusion.png": Picture(
            title="Confusion matrix",
            png=plots.confusion_matrix(evaluation.confusion, subject.recipe.labels),
        ),
        "reliability.png": Picture(
            title="Reliability: does 90 % mean 90 %?",
            png=plots.reliability_diagram(bins, evaluation),
        ),
        "risk_coverage.png": Picture(
            title="Risk and coverage: what abstaining buys",
            png=plots.risk_coverage_curve(evaluation),
        ),
    }


def _example_pictures(examples: Examples) -> dict[str, Picture]:
    drawn = {}
    if examples.worst_errors:
        drawn["worst_errors.png"] = Picture(
            title="Worst errors: wrong, and most confident of it",
            png=plots.picture_grid(
                [example.row for example in examples.worst_errors],
                [_error_caption(example) for example in examples.worst_errors],
            ),
        )
    if examples.dont_know:
        drawn["dont_know.png"] = Picture(
            title='A sample of what it answers with "don\'t know"',
            png=plots.picture_grid(
                [example.row for example in examples.dont_know],
                [_silent_caption(example) for example in examples.dont_know],
            ),
        )
    return drawn


def _error_caption(example: Example) -> str:
    taken = f"taken for {example.best}, {_percent(example.confidence)}"
    return f"is {example.label}\n{taken}\n{example.reason or 'answered'}"


def _silent_caption(example: Example) -> str:
    named = ", ".join(example.candidates)
    if len(named) > _CAPTION_LETTERS:
        named = f"{example.candidates[0]}, {len(example.candidates) - 1} more"
    return f"is {example.label}\n{example.reason}\n{named}"


def _example_tables(examples: Examples, data: Data) -> dict[str, list[tuple[str, ...]]]:
    """Return the lines of each table by its title, the first one its head."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    if examples.worst_errors:
        tables["Worst errors: wrong, and most confident of it"] = [
            ("row", "is", "best label", "confidence", "verdict"),
            *(
                (
                    in_words(example.row, data.input, data.files),
                    example.label,
                    example.best,
                    _percent(example.confidence),
                    example.reason or "answered",
                )
                for example in examples.worst_errors
            ),
        ]
    if examples.dont_know:
        tables['A sample of what it answers with "don\'t know"'] = [
            ("row", "is", "reason", "candidates"),
            *(
                (
                    in_words(example.row, data.input, data.files),
                    example.label,
                    example.reason,
                    ", ".join(example.candidates),
                )
                for example in examples.dont_know
            ),
        ]
    return tables


def _percent(confidence: float) -> str:
    """Return a share that is not rounded up to certainty."""
    return f"{min(confidence, 0.9999):.2%}" if confidence > 0.99 else f"{confidence:.0%}"
