"""What the recipes of pictures share: splits, served conditions, blocks of a network.

Pictures are uint8, shape (rows, height, width), values 0-255, from the file to the graph.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import ImageInput
from training.augmentation import plain_batches
from training.datasets import PictureFiles, load_pictures
from training.fitting import fit_epochs
from training.layers import serving_model
from training.recipe import Data, Fitted, Split, Splits, Workbench

PictureArray = NDArray[np.uint8]
Condition = Callable[[PictureArray], PictureArray]
Build = Callable[[], keras.Model]

NOTE = """Of the official 60,000 training pictures 50,000 train, 5,000 validate (calibration of the
probabilities, conformal limits, grid of thresholds) and 5,000 certify the thresholds, touched once.
The last two are {mixture}; each picture stands under one condition only. The official 10,000 test
pictures chose nothing."""


def inverted(pictures: PictureArray) -> PictureArray:
    """Return the negatives."""
    return 255 - pictures


def clean(pictures: PictureArray) -> PictureArray:
    """Return the pictures as they are."""
    return pictures


def flat(least: int, span: float) -> Condition:
    """Return the condition of low contrast: `least` + `span` * grey level."""

    def apply(pictures: PictureArray) -> PictureArray:
        return (least + span * pictures.astype(np.float32)).round().astype(np.uint8)

    return apply


SERVED: Mapping[str, Condition] = {
    "inverted": inverted,
    "low_contrast": flat(90, 0.3),
    "low_contrast_inverted": flat(165, -0.3),
}
"""Conditions that pictures are served under besides the data set's own, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Which conditions the rows of validation and calibration are served under."""

    words: str
    conditions: Sequence[Condition]
    """Each picture gets one of them, in equal shares."""

    def apply(self, split: Split, rng: np.random.Generator) -> Split:
        """Return the split with one condition drawn for each picture."""
        drawn = rng.permutation(np.arange(len(split.rows)) % len(self.conditions))
        rows: PictureArray = split.rows.astype(np.uint8)
        for number, condition in enumerate(self.conditions):
            rows[drawn == number] = condition(rows[drawn == number])
        return Split(rows, split.targets)


def load(
    folder: Path,
    files: PictureFiles,
    mixture: Mixture,
    conditions: Mapping[str, Condition],
    seed: int,
) -> Data:
    """Return 50,000 + 5,000 + 5,000 pictures of the official train split, and the test split.

    Args:
        folder: of the data sets.
        files: of this one.
        mixture: of the conditions in validation and calibration.
        conditions: name -> under which the test split is measured as well.
        seed: of the draw.
    """
    pictures = load_pictures(folder, files)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pictures.train_targets))
    parts = [
        Split(pictures.train_images[part], pictures.train_targets[part])
        for part in np.split(order, [50_000, 55_000])
    ]
    by_name = {name: condition(pictures.test_images) for name, condition in conditions.items()}
    splits = Splits(
        train=parts[0],
        validation=mixture.apply(parts[1], rng),
        calibration=mixture.apply(parts[2], rng),
        test=Split(pictures.test_images, pictures.test_targets),
        conditions={name: Split(rows, pictures.test_targets) for name, rows in by_name.items()},
    )
    return Data(
        splits=splits,
        input=ImageInput(height=28, width=28, channels=1),
        sha256={file.name: file.sha256 for file in files},
        mixture=mixture.words,
        note=NOTE.format(mixture=mixture.words),
    )


def convolution(pictures: keras.KerasTensor, filters: int, padding: str) -> keras.KerasTensor:
    """Return a 3x3 convolution, normalised over the batch, with ReLU."""
    layers = keras.layers
    mapped = layers.Conv2D(filters, 3, padding=padding, use_bias=False)(pictures)
    return layers.ReLU()(layers.BatchNormalization()(mapped))


def pooled_convolution(
    pictures: keras.KerasTensor, filters: int, padding: str
) -> keras.KerasTensor:
    """Return a 3x3 convolution, halved, then normalised, with ReLU.

    Halving comes first because it does not care, and the rest then has a quarter to do.
    """
    layers = keras.layers
    mapped = layers.Conv2D(filters, 3, padding=padding, use_bias=False)(pictures)
    return layers.ReLU()(layers.BatchNormalization()(layers.MaxPooling2D()(mapped)))


def both_ways(model: keras.Model) -> keras.Model:
    """Return a served model that looks at each picture and at its mirror image, and takes the mean.

    For what may face either way; the same weights run twice as many rows.
    """
    pictures = model.input
    outputs = model(keras.ops.concatenate([pictures, pictures[:, :, ::-1]], axis=0))
    means = {
        name: keras.ops.mean(keras.ops.reshape(values, (2, -1, values.shape[1])), axis=0)
        for name, values in outputs.items()
    }
    return keras.Model(pictures, means)


def compile_classifier(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Compile a network that returns logits."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Without XLA: on a CPU it costs a minute of compiling and gains nothing here.
    network.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LectureCourse:
    """How the networks of lectures are fitted: on pictures as they are."""

    epochs: int
    batch_rows: int
    seed: int


def fit_lecture(build: Build, course: LectureCourse, data: Data, workbench: Workbench) -> Fitted:
    """Fit what `build` returns, pictures -> logits, and return it for serving."""
    keras.utils.set_random_seed(course.seed)
    classifier = build()
    compile_classifier(classifier, keras.optimizers.Adam())
    batches = plain_batches(data.splits.train, course.batch_rows, course.seed)
    curves = fit_epochs(classifier, batches, data.splits.validation, course.epochs, workbench)
    return Fitted(model=serving_model(classifier.input, classifier.output), curves=curves)
