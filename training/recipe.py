"""What a recipe provides, and nothing about how: the contract between a recipe and the pipeline.

A recipe is one module in `training/recipes/`; the pipeline finds it by its file name and reads two
names from it:

    RECIPE: Recipe                  the model that is served
    LECTURE: tuple[Recipe, ...]     the networks that lectures show for it; may be empty

The flow is  load -> Data -> fit -> Fitted -> (export, verify, calibrate, evaluate, write).
Everything behind `fit` is the pipeline's. What a model does to its rows belongs inside the graph.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import FeatureInput, ImageInput, TextInput

NETWORKS = ("dunno", "lecture")
"""What `dunno train --network` takes: our own, or the ones that lectures show."""


@dataclass(frozen=True, slots=True)
class Split:
    """Rows as the graph takes them, with the truth."""

    rows: NDArray[np.generic]
    """Shape (rows, *input), dtype of the graph's input."""

    targets: NDArray[np.int64]
    """Shape (rows,), index into the recipe's labels."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Each split serves one purpose; no example stands in two of them.

    A recipe whose `fit` returns scores out of fold needs `train` only; a `test` split beside it
    then gives the numbers of the card.
    """

    train: Split
    """Fits the weights."""

    validation: Split | None = None
    """Chooses everything else: epochs, calibration, conformal limits, novelty, the grid."""

    calibration: Split | None = None
    """Touched once: certifies the thresholds and describes familiar traffic."""

    test: Split | None = None
    """Reported, never used to choose."""

    conditions: Mapping[str, Split] = field(default_factory=dict)
    """The test split as it may be served: `inverted`, `low_contrast`, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture for the model card."""

    title: str
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What `load` returns."""

    splits: Splits
    input: FeatureInput | ImageInput | TextInput
    """What the manifest declares; it may depend on the training split (a vocabulary)."""

    sha256: Mapping[str, str]
    """Data file, relative to the data folder -> sha256 of its content."""

    mixture: str
    """What the calibration rows are, in words: the guarantee is about inputs like these."""

    outliers: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Rows of none of the labels by the name of their family, only to be measured; those of a name
    that ends with ` inverted` are the negatives of the others."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files of the bundle, such as the vocabulary, by name."""

    note: str = ""
    """Markdown for the card: where the rows come from and how they were split."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a graph returns for rows whose labels are known."""

    logits: NDArray[np.float32]
    """Shape (rows, labels)."""

    novelty_scores: NDArray[np.float32]
    """Shape (rows, scores), higher = less like the training data; no columns if there are none."""

    targets: NDArray[np.int64]
    """Shape (rows,)."""


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Scores of the training rows, each by a model that has not seen its fold."""

    scores: Scores
    folds: NDArray[np.int64]
    """Shape (rows,), which fold a row belongs to; equal rows share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """How fitting went, for the pictures; every series is as long as `steps`."""

    axis: str
    """What is counted: `epoch`, `training rows`."""

    steps: tuple[float, ...]
    loss: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Series by name, `train` and `validation`; empty if nothing has a loss."""

    accuracy: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What `fit` returns."""

    model: Any
    """A Keras model: rows -> {"logits": (rows, labels) float32, "novelty_scores": (rows, scores)
    float32}; the second is left out if there are no scores. It has one input, and is not compiled
    (an optimizer would be exported with it)."""

    curves: Curves | None = None
    out_of_fold: OutOfFold | None = None
    """Set by a recipe that cross-validates; it then plays validation and calibration, and test as
    well if there is no such split."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """Further lines for the card's table, such as the number of n-grams."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """What a `fit` may use of its surroundings."""

    folder: Path
    """For checkpoints; empty at first, kept when training is interrupted, wiped when the recipe
    or its data have changed. What lies in it comes from an earlier start of the same `fit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one network of one model is made."""

    name: str
    """Name of the model and of the recipe's module."""

    network: str
    """Few words for the network: `CNN 3x3 32-32-64-64`, `RBF-SVM`."""

    description: str
    """One sentence for the manifest and the top of the card."""

    labels: tuple[str, ...]
    seed: int
    load: Callable[[Path], Data]
    """Data folder -> data; raises `training.errors.DataMissing` or `DataCorrupt`."""

    fit: Callable[[Data, Workbench], Fitted]
    """Deterministic by the recipe's seed; resumes from what it left in the workbench."""

    max_error: float
    """Default row of the policy. If it cannot be certified, the next larger risk that can."""

    calibration: Literal["temperature", "power"] = "temperature"
    """Family of the calibration; `power` is for two labels."""

    novelty_names: tuple[str, ...] = ("energy",)
    """What the columns of `novelty_scores` measure; empty if the graph returns none."""

    novelty_alpha: float = 0.0
    """Least novelty p-value to answer; 0 turns the gate off."""

    least_confidence: float = 0.0
    """No threshold is looser, however small the risk: inputs between two labels are rare among
    familiar ones and hardly count in their error, and nobody should answer them."""

    explore: Callable[[Data], Mapping[str, Picture]] | None = None
    """File name -> picture of the data, for the card."""

    limits: tuple[str, ...] = ()
    """What the model cannot do, one honest sentence each, for the card."""
