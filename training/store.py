"""Results of a run between its steps, as files in the work folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.export import save_model
from training.recipe import Curves, Fitted, OutOfFold, Scores

_FACTS = "fitted.json"
_OUT_OF_FOLD = "out_of_fold.npz"
_SCORES = "scores.npz"
_FIELDS = ("logits", "novelty_scores", "targets")


@dataclass(frozen=True, slots=True)
class Kept:
    """A `Fitted` whose model has become a SavedModel."""

    saved_model: Path
    curves: Curves | None
    out_of_fold: OutOfFold | None
    facts: Mapping[str, str]


def keep_fitted(folder: Path, fitted: Fitted) -> None:
    """Write `fitted` to `folder`."""
    save_model(fitted.model, folder / "saved_model")
    if fitted.out_of_fold:
        arrays = _arrays(fitted.out_of_fold.scores)
        np.savez(folder / _OUT_OF_FOLD, folds=fitted.out_of_fold.folds, **arrays)
    facts = {"parameters": f"{fitted.model.count_params():,}", **fitted.facts}
    curves = asdict(fitted.curves) if fitted.curves else None
    (folder / _FACTS).write_text(json.dumps({"facts": facts, "curves": curves}))


def read_fitted(folder: Path) -> Kept:
    """Return what `keep_fitted` wrote."""
    content = json.loads((folder / _FACTS).read_text())
    curves = content["curves"]
    out_of_fold = None
    if (folder / _OUT_OF_FOLD).exists():
        with np.load(folder / _OUT_OF_FOLD) as arrays:
            scores = Scores(*(arrays[name] for name in _FIELDS))
            out_of_fold = OutOfFold(scores, arrays["folds"])
    return Kept(
        folder / "saved_model", Curves(**curves) if curves else None, out_of_fold, content["facts"]
    )


def keep_scores(folder: Path, scores: Mapping[str, Scores]) -> None:
    """Write the scores of each split to `folder`."""
    arrays = {
        f"{split}/{name}": array
        for split, part in scores.items()
        for name, array in _arrays(part).items()
    }
    np.savez(folder / _SCORES, **arrays)


def read_scores(folder: Path) -> dict[str, Scores]:
    """Return the scores of each split, by its name."""
    with np.load(folder / _SCORES) as arrays:
        splits = dict.fromkeys(name.rpartition("/")[0] for name in arrays.files)
        return {split: Scores(*(arrays[f"{split}/{name}"] for name in _FIELDS)) for split in splits}


def _arrays(scores: Scores) -> dict[str, Any]:
    return {name: getattr(scores, name) for name in _FIELDS}
