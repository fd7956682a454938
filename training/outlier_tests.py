"""Pictures of none of the labels: an evaluation counts the answers to them, nothing is tuned.

Far families are made here, anew; the others are real data sets, `ood/` below the data folder. Those
whose file is missing are left out, and then the card does not speak of them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.bundle.manifest import ImageInput
from service.inputs.pictures import fitted
from training.datasets import PictureFiles, load_pictures
from training.recipe import Split

PictureArray = NDArray[np.uint8]
SIZE = 28
MADE_ROWS = 2_000
SEED = 28
INVERTED = " inverted"
"""Ends the name of a family whose pictures are the negatives of another's."""

# Letters that are written like a digit, fixed before anything was scored. EMNIST's labels hold
# both cases, the others capitals.
CAPITAL_LOOK_ALIKES = frozenset("OILSZBQG")
LOOK_ALIKES: Mapping[str, frozenset[str]] = {
    "notmnist": CAPITAL_LOOK_ALIKES,
    "alphadigits_letters": CAPITAL_LOOK_ALIKES,
    "emnist_letters": CAPITAL_LOOK_ALIKES | {"J"},
}


def far_families() -> dict[str, PictureArray]:
    """Return noise, constants and gradients, the same each time, shape (rows, 28, 28)."""
    rng = np.random.default_rng(SEED)
    shape = (MADE_ROWS, SIZE, SIZE)
    levels = np.linspace(0, 255, MADE_ROWS).reshape(-1, 1, 1)
    angle = rng.uniform(0, 2 * np.pi, (MADE_ROWS, 1, 1))
    line = np.linspace(-0.5, 0.5, SIZE)
    slope = np.cos(angle) * line + np.sin(angle) * line[:, None]
    gradient = rng.uniform(0, 255, (MADE_ROWS, 1, 1)) + rng.uniform(10, 255, angle.shape) * slope
    made = {
        "uniform noise": rng.uniform(0, 256, shape),
        "Gaussian noise": rng.normal(127.5, 60, shape),
        "black and white noise": 255.0 * (rng.random(shape) < 0.5),
        "constants": levels + np.zeros(shape),
        "almost constants": levels + rng.normal(0, 2, shape),
        "gradients": gradient,
    }
    return {name: np.clip(rows, 0, 255).astype(np.uint8) for name, rows in made.items()}


def real_families(folder: Path) -> dict[str, PictureArray]:
    """Return letters without look-alikes, and small photographs in grey, by name."""
    families = {}
    for name, look_alikes in LOOK_ALIKES.items():
        path = folder / "ood" / f"{name}.npz"
        if path.exists():
            with np.load(path) as archive:
                letters = archive["label_names"][archive["labels"]]
                kept = ~np.isin(letters, list(look_alikes))
                families[name.replace("_", " ")] = _framed(archive["images"][kept])
    path = folder / "ood" / "cifar10.npz"
    if path.exists():
        with np.load(path) as archive:
            families["cifar10, grey"] = _as_posted(archive["images"])
    return families


def other_pictures(folder: Path, files: PictureFiles) -> PictureArray:
    """Return the test pictures of another data set in the format of MNIST."""
    return load_pictures(folder, files).test_images


def averages(test: Split, seed: int = SEED) -> PictureArray:
    """Return means of two test pictures of different labels: nobody can tell which it is."""
    one, other = _two_of(test, seed)
    mean: PictureArray = ((one.astype(np.uint16) + other) // 2).astype(np.uint8)
    return mean


def averaged_labels(
    test: Split, family: NDArray[np.generic], seed: int = SEED
) -> NDArray[np.uint8] | None:
    """Return the labels behind each row of `averages`, or of its negatives, shape (rows, 2).

    None if the family is another one: it is known by its pictures, whatever a recipe calls it.
    """
    means = averages(test, seed)
    if not (np.array_equal(family, means) or np.array_equal(family, 255 - means)):
        return None
    # Labels in place of the rows: the same draws choose them.
    return np.stack(_two_of(Split(test.targets, test.targets), seed), axis=1)


def side_by_side(test: Split, seed: int = SEED) -> PictureArray:
    """Return two test pictures of different labels, squeezed into one frame."""
    one, other = _two_of(test, seed)
    wide = np.concatenate([one, other], axis=2).astype(np.uint16)
    squeezed: PictureArray = ((wide[:, :, ::2] + wide[:, :, 1::2]) // 2).astype(np.uint8)
    return squeezed


def turned(test: Split, labels: tuple[int, ...]) -> PictureArray:
    """Return the test pictures of `labels`, turned by a quarter, half of them each way."""
    chosen = test.rows[np.isin(test.targets, labels)]
    half = len(chosen) // 2
    parts = (np.rot90(chosen[:half], 1, (1, 2)), np.rot90(chosen[half:], -1, (1, 2)))
    return np.concatenate(parts).astype(np.uint8)


def both_polarities(families: Mapping[str, PictureArray]) -> dict[str, PictureArray]:
    """Return each family, and its negatives under a name that says so."""
    return {
        named: pictures
        for name, rows in families.items()
        for named, pictures in ((name, rows), (name + INVERTED, 255 - rows))
    }


def _two_of(test: Split, seed: int) -> tuple[PictureArray, PictureArray]:
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, len(test.targets), (2, 2 * MADE_ROWS))
    differ = np.flatnonzero(test.targets[one] != test.targets[other])[:MADE_ROWS]
    rows = test.rows.astype(np.uint8)
    return rows[one[differ]], rows[other[differ]]


def _framed(pictures: PictureArray) -> PictureArray:
    """Return the pictures in the middle of 28 x 28 black pixels, as MNIST frames its own."""
    down, across = SIZE - pictures.shape[1], SIZE - pictures.shape[2]
    edges = ((0, 0), (down // 2, down - down // 2), (across // 2, across - across // 2))
    return np.pad(pictures, edges)


def _as_posted(pictures: PictureArray) -> PictureArray:
    """Return colour pictures as the service takes them in."""
    declared = ImageInput(height=SIZE, width=SIZE, channels=1)
    return np.stack([fitted(Image.fromarray(one).convert("L"), declared) for one in pictures])
