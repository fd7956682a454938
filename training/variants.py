"""`dunno train --quantize`: a bundle gets an int8 variant, if that is of the same mind.

Three sets of rows, three purposes. Training rows give the ranges of activations. The validation
split and every other row of each outlier family choose which convolutions stay float32. The test
split, its conditions and the remaining outliers measure what was chosen, once. The calibration
split then certifies the same thresholds for the variant. Nothing is fitted.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, read_bundle
from service.bundle.manifest import Agreement, Variant
from training.candidates import FILE, GRAPH, Asked, Candidate, Workshop, with_variant
from training.errors import QuantizationRefused
from training.pipeline import Place, find_recipe
from training.quantize import convolutions, multiplications
from training.recipe import Data, Split
from training.remeasure import refuse_other_data, refuse_other_labels

LEAST_IDENTICAL = 0.999
"""Share of rows whose verdict must not change, of each kind of rows."""

CHOOSING_IDENTICAL = 0.9993
"""The same where layers are chosen: the best of several looks better than it is."""

_MARGIN = 2
"""Golden outputs may differ by so many times what they do here: processors round elsewhere."""

log = logging.getLogger(__name__)


def add_int8(name: str, place: Place) -> Bundle:
    """Write an int8 variant into the bundle of the recipe `name` and return it.

    Raises:
        RecipeMissing: if there is no such recipe.
        BundleMissing, ManifestInvalid, BundleCorrupt: if the bundle cannot be trusted.
        RecipeDiffers: if the recipe has other labels or another input than the bundle.
        DataMissing, DataCorrupt: if the data cannot be had.
        QuantizationRefused: if verdicts differ too often; nothing is written.
    """
    recipe, _ = find_recipe(name)
    bundle = read_bundle(place.bundle)
    refuse_other_labels(recipe, bundle)
    if not convolutions(bundle.read(GRAPH)):
        raise QuantizationRefused(f"{bundle.path}: the graph has no convolution to quantise")
    data = recipe.load(place.data)
    refuse_other_data(bundle, data)
    return quantize_bundle(bundle, data)


def quantize_bundle(bundle: Bundle, data: Data) -> Bundle:
    """Write an int8 variant into a bundle whose recipe has loaded `data`, and return it.

    Raises:
        QuantizationRefused: if verdicts differ too often; nothing is written.
    """
    validation, test = data.splits.validation, data.splits.test
    if validation is None or test is None:
        raise QuantizationRefused(f"{bundle.path}: a variant needs a validation and a test split")
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(bundle, data, Path(folder))
        candidate = _choose(workshop, validation, data)
        agreements = _measure(workshop, candidate, test, data)
        if lost := workshop.lost_risks(candidate, data):
            raise QuantizationRefused(
                f"{bundle.path}: in int8 the certificate for errors of at most "
                f"{', '.join(f'{risk:.1%}' for risk in lost)} is lost; nothing is written"
            )
        tolerance = max(_MARGIN * workshop.golden_difference(candidate), 1e-6)
    kept = f"{len(candidate.kept)} of {len(workshop.layers)} convolutions float32"
    made = f"uint8 activations, int8 weights, ranges of {len(workshop.range_rows)} training rows"
    variant = Variant(file=FILE, tolerance=tolerance, agreements=agreements, made=f"{made}; {kept}")
    return with_variant(bundle, bundle.path, candidate.graph, variant)


def _choose(workshop: Workshop, validation: Split, data: Data) -> Candidate:
    """Return the first candidate that passes, in float32 one convolution more each time.

    First those that cost most for the products they save: quantised alone, on the validation split.
    """
    log.info("measuring what each of %d convolutions costs in int8", len(workshop.layers))
    work = multiplications(workshop.graph, validation.rows[:1])
    price = {name: workshop.damage(name, validation.rows) / work[name] for name in workshop.layers}
    order = sorted(workshop.layers, key=price.__getitem__, reverse=True)
    asked = [workshop.ask("validation split", validation.rows)]
    if data.outliers:
        asked.append(workshop.ask("outliers", _outliers(data, 0)))
    best = 0.0
    for count in range(len(order)):
        candidate = workshop.candidate(order[:count])
        agreement = _first_failing(workshop, candidate, asked)
        log.info("%d of them in float32: %s", count, _in_words([agreement]))
        if agreement.identical >= CHOOSING_IDENTICAL:
            return candidate
        best = max(best, agreement.identical)
    raise _refusal(workshop.bundle, best, "rows that choose", CHOOSING_IDENTICAL)


def _first_failing(workshop: Workshop, candidate: Candidate, asked: Sequence[Asked]) -> Agreement:
    """Return the first agreement that is too low to be chosen, or else the last."""
    *first, last = asked
    for each in first:
        agreement = workshop.compare(candidate, each)
        if agreement.identical < CHOOSING_IDENTICAL:
            return agreement
    return workshop.compare(candidate, last)


def _measure(
    workshop: Workshop, candidate: Candidate, test: Split, data: Data
) -> tuple[Agreement, ...]:
    """Return how often the verdict is the same, on rows that chose nothing.

    Raises:
        QuantizationRefused: if it is too seldom.
    """
    familiar = np.concatenate([test.rows, *(each.rows for each in data.splits.conditions.values())])
    asked = [workshop.ask("test split and its conditions", familiar)]
    if data.outliers:
        asked.append(workshop.ask("outliers", _outliers(data, 1)))
    agreements = tuple(workshop.compare(candidate, each) for each in asked)
    log.info("measured: %s", _in_words(agreements))
    for each in agreements:
        if each.identical < LEAST_IDENTICAL:
            rows = f"{each.n:,} rows ({each.rows})"
            raise _refusal(workshop.bundle, each.identical, rows, LEAST_IDENTICAL)
    return agreements


def _refusal(bundle: Bundle, share: float, rows: str, least: float) -> QuantizationRefused:
    return QuantizationRefused(
        f"{bundle.path}: in int8 the verdict is the same for {_percent(share)} of the {rows}; "
        f"{_percent(least)} are wanted, so nothing is written"
    )


def _outliers(data: Data, first: int) -> NDArray[np.generic]:
    """Return every other row of each family, from the row `first` on."""
    return np.concatenate([rows[first::2] for rows in data.outliers.values()])


def _in_words(agreements: Sequence[Agreement]) -> str:
    return ", ".join(f"{_percent(each.identical)} of {each.n:,} {each.rows}" for each in agreements)


def _percent(share: float) -> str:
    """Return a share that is not rounded up to what is wanted."""
    return f"{np.floor(share * 1e5) / 1e3:.3f} %"
