"""A recipe whose model is packed as a stranger's would be: the files of `dunno pack`, then it."""

import csv
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.bundle import Bundle
from service.bundle.manifest import FeatureInput
from training.packing.classifiers import Choice
from training.packing.declared import InputOptions
from training.packing.pack import pack, remeasure
from training.packing.request import Notes, Request
from training.recipe import Curves, Data, Recipe, Split, Workbench

CALIBRATION = "calibration.csv"
FIELDS = "fields.toml"
_FACTS = {"minimum", "maximum", "unit", "nullable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRecipe(Recipe):
    """How a model of features is made and packed.

    `load` returns the splits `train` and `calibration`; `fit` returns a Keras model, or the bytes
    of an ONNX graph.
    """

    target: str
    """Column of the labels in the calibration file."""

    max_errors: tuple[float, ...]
    """Risks to certify, the default first."""

    feature_output: str | None = None
    """What novelty is measured over."""


def make_packed(recipe: PackedRecipe, data_folder: Path, work: Path, bundle: Path) -> Bundle:
    """Train, write what `dunno pack` takes into the folder `work`, and pack it.

    Args:
        recipe: what is made.
        data_folder: where its data are.
        work: where model, calibration file and fields are left for whoever wants to pack them.
        bundle: folder of the version; its name is the version.
    """
    return pack(*_request(recipe, data_folder, work, bundle))


def remeasure_packed(recipe: PackedRecipe, data_folder: Path, work: Path, bundle: Bundle) -> Bundle:
    """Measure a bundle that `make_packed` wrote, write its card anew, and return it.

    The model is trained again, in seconds: what novelty is measured over is not in the bundle.
    """
    return remeasure(*_request(recipe, data_folder, work, bundle.path), bundle)


def _request(
    recipe: PackedRecipe, data_folder: Path, work: Path, bundle: Path
) -> tuple[Request, Notes]:
    """Train, and leave in `work` what `dunno pack` takes."""
    started = time.monotonic()
    data = recipe.load(data_folder)
    work.mkdir(parents=True, exist_ok=True)
    fitted = recipe.fit(data, Workbench(work / "checkpoints"))
    model = _save(fitted.model, work)
    if not isinstance(data.input, FeatureInput) or data.splits.calibration is None:
        raise TypeError(f"{recipe.name}: a packed recipe has features and a calibration split")
    write_calibration(work / CALIBRATION, recipe, data.input, data.splits.calibration)
    write_fields(work / FIELDS, data.input)
    request = Request(
        model=model,
        name=recipe.name,
        labels=recipe.labels,
        calibration=work / CALIBRATION,
        target=recipe.target,
        input=InputOptions(fields=work / FIELDS),
        choice=Choice(features=recipe.feature_output),
        max_errors=recipe.max_errors,
        models=bundle.parents[1],
        version=bundle.name,
        is_replaced=True,
    )
    seconds = time.monotonic() - started
    return request, _notes(recipe, data, fitted.curves, seconds)


def _save(model: object, work: Path) -> Path:
    if isinstance(model, bytes):
        path = work / "model.onnx"
        path.write_bytes(model)
        return path
    path = work / "model.keras"
    model.save(path)  # type: ignore[attr-defined]  # Keras has no types
    return path


def _notes(recipe: PackedRecipe, data: Data, curves: Curves | None, seconds: float) -> Notes:
    return Notes(
        description=recipe.description,
        network=recipe.network,
        note=data.note,
        limits=recipe.limits,
        mixture=data.mixture,
        sha256=data.sha256,
        seed=recipe.seed,
        curves=curves,
        seconds=seconds,
    )


def write_calibration(
    path: Path, recipe: PackedRecipe, declared: FeatureInput, rows: Split
) -> None:
    """Write a split as CSV: a header, a column for each field and one of labels."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow([*(field.name for field in declared.fields), recipe.target])
        for row, target in zip(rows.rows, rows.targets.tolist(), strict=True):
            cells = ["" if math.isnan(value) else _shortest(value) for value in row]
            lines.writerow([*cells, recipe.labels[target]])


def _shortest(value: np.generic) -> str:
    """Return the shortest text that reads as the same float32."""
    return np.format_float_positional(np.float32(value), trim="-")


def write_fields(path: Path, declared: FeatureInput) -> None:
    """Write the fields as TOML, as `dunno pack --fields` reads them."""
    tables = []
    for field in declared.fields:
        facts = field.model_dump(include=_FACTS, exclude_defaults=True)
        lines = [f"{name} = {json.dumps(value)}" for name, value in facts.items()]
        tables.append("\n".join([f"[{json.dumps(field.name)}]", *lines]) + "\n")
    path.write_text("\n".join(tables), encoding="utf-8")
