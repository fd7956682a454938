"""Pictures of none of the labels, made by code: what a classifier has to know it does not know.

No picture of another data set is ever used: those stay an honest test. What a family returns has
the range 0-1; contrast, polarity, place and size are changed later, by the same augmentation as
that of the training pictures, so that none of them tells an outlier.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training import strokes
from training.glyphs import printed_glyphs
from training.recipe import Split

SIZE = 28
FloatArray = NDArray[np.floating]
Draw = Callable[[int, np.random.Generator], FloatArray]
_BLOCK = 500  # pictures; some draws are shared by a family's pictures of one block


class Outliers(NamedTuple):
    """A pool of pictures that must not be answered."""

    pictures: NDArray[np.uint8]
    """Shape (rows, 28, 28)."""

    guesses: NDArray[np.float32]
    """Shape (rows, labels): what the labels' probabilities should be, each row summing to 1. Even,
    but for two overlaid pictures of different labels: half and half."""

    is_none: NDArray[np.float32]
    """Shape (rows,), 1: none of the labels; 0: two of them at once, and nobody can tell which."""


def textures(n: int, rng: np.random.Generator) -> FloatArray:
    """Return noise whose spectrum falls like 1 / f^a, a from 0.5 to 3, shape (n, 28, 28)."""
    across, down = np.fft.rfftfreq(SIZE), np.fft.fftfreq(SIZE)
    frequency = np.sqrt(across**2 + down[:, None] ** 2)
    frequency[0, 0] = 1 / SIZE
    spectrum = np.fft.rfft2(rng.normal(0, 1, (n, SIZE, SIZE)))
    falling = frequency ** -rng.uniform(0.5, 3, (n, 1, 1))
    return _stretched(np.fft.irfft2(spectrum * falling, s=(SIZE, SIZE)))


def blobs(n: int, rng: np.random.Generator) -> FloatArray:
    """Return textures cut off at a level, with hard or soft edges."""
    level = rng.uniform(0.35, 0.7, (n, 1, 1))
    sharpness = rng.uniform(4, 30, (n, 1, 1))
    return np.clip((textures(n, rng) - level) * sharpness, 0, 1).astype(np.float32)


def noise(n: int, rng: np.random.Generator) -> FloatArray:
    """Return noise from one pixel to the next: uniform, Gaussian, two-valued, sparse, in blocks."""
    kind = rng.integers(0, 5, (n, 1, 1))
    uniform = rng.random((n, SIZE, SIZE))
    gauss = np.clip(rng.normal(0.5, 0.2, uniform.shape), 0, 1)
    share = rng.uniform(0.02, 0.5, (n, 1, 1))
    coarse = np.stack([_blocks(one, rng) for one in uniform])
    kinds = (uniform, gauss, uniform < 0.5, (uniform < share) * rng.random(uniform.shape), coarse)
    return np.choose(kind, kinds).astype(np.float32)


def plain(n: int, rng: np.random.Generator) -> FloatArray:
    """Return constants, faint noise on constants, gradients, steps and vignettes."""
    x, y = _coordinates()
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    slope = np.cos(angle) * x + np.sin(angle) * y
    middle = rng.uniform(-0.7, 0.7, (2, n, 1, 1))
    radius = np.sqrt((x - middle[0]) ** 2 + (y - middle[1]) ** 2)
    step = np.clip((slope - middle[0]) * rng.uniform(2, 30, (n, 1, 1)), 0, 1)
    level = rng.random((n, 1, 1))
    faint = rng.uniform(0, 0.04, (n, 1, 1))
    base = np.choose(
        rng.integers(0, 5, (n, 1, 1)),
        (level + 0 * slope, level + 0 * slope, (slope + 1.5) / 3, radius / 2, step),
    )
    return np.clip(base + faint * rng.normal(0, 1, base.shape), 0, 1).astype(np.float32)


def leaves(n: int, rng: np.random.Generator) -> FloatArray:
    """Return dead leaves: shapes of all sizes over each other, shaded, as photographs are.

    The model of natural pictures of Lee, Mumford and Huang 2001.
    """
    x, y = _coordinates()
    pictures = textures(n, rng)
    for _ in range(rng.integers(6, 16)):
        middle = rng.uniform(-1, 1, (2, n, 1, 1))
        size = 1 / rng.uniform(1, 12, (2, n, 1, 1))
        angle = rng.uniform(0, np.pi, (n, 1, 1))
        right, down = x - middle[0], y - middle[1]
        u = (np.cos(angle) * right + np.sin(angle) * down) / size[0]
        v = (np.cos(angle) * down - np.sin(angle) * right) / size[1]
        is_round = rng.random((n, 1, 1)) < 0.5
        inside = np.where(is_round, u**2 + v**2 < 1, np.maximum(np.abs(u), np.abs(v)) < 1)
        shade = rng.random((n, 1, 1)) + 0.2 * rng.normal(0, 1, (n, 1, 1)) * u
        pictures = np.where(inside, shade, pictures)
    blurred = ndimage.gaussian_filter(pictures, (0, 0.5, 0.5))
    clipped: FloatArray = np.clip(blurred, 0, 1)
    return clipped


def silhouettes(n: int, rng: np.random.Generator) -> FloatArray:
    """Return filled outlines on plain ground, half of them symmetric, some with a texture."""
    x, y = _coordinates()
    x = np.where(rng.random((n, 1, 1)) < 0.5, np.abs(x), x)
    angle, radius = np.arctan2(y, x), np.sqrt(x**2 + y**2)
    outline = rng.uniform(0.4, 0.8, (n, 1, 1))
    for wave in range(1, 6):
        phase = rng.uniform(0, 2 * np.pi, (n, 1, 1))
        outline = outline + rng.normal(0, 0.2 / wave, (n, 1, 1)) * np.cos(wave * angle + phase)
    inside = np.clip((outline - radius) * rng.uniform(6, 20, (n, 1, 1)), 0, 1)
    depth = rng.uniform(0, 1, (n, 1, 1)) * (rng.random((n, 1, 1)) < 0.7)
    return (inside * (1 - depth * textures(n, rng))).astype(np.float32)


FROM_CODE: Mapping[str, Draw] = {
    "letters": strokes.letters,
    "invented letters": strokes.invented_letters,
    "scribbles": strokes.scribbles,
    "line figures": strokes.line_figures,
    "printed glyphs": printed_glyphs,
    "textures": textures,
    "blobs": blobs,
    "noise": noise,
    "plain": plain,
    "leaves": leaves,
    "silhouettes": silhouettes,
}
"""Families that know nothing of the training pictures."""


def side_by_side(split: Split, n: int, rng: np.random.Generator) -> FloatArray:
    """Return two pictures next to each other, moved together or squeezed into one frame."""
    left, right = (_some(split, n, rng)[0] for _ in range(2))
    squeezed = np.concatenate([left, right], axis=2)
    squeezed = squeezed.reshape(n, SIZE, SIZE, 2).mean(axis=3)
    distance = int(rng.integers(7, 13))
    moved = np.maximum(_moved(left, -distance), _moved(right, distance))
    return np.where(rng.random((n, 1, 1)) < 0.4, squeezed, moved)


def half_swapped(split: Split, n: int, rng: np.random.Generator) -> FloatArray:
    """Return half of one picture and the other half of another, which does not fit: it is moved."""
    one, other = (_some(split, n, rng)[0] for _ in range(2))
    # Sides are the upper and lower half of pictures that lie on their side.
    is_beside = rng.random((n, 1, 1)) < 0.5
    one, other = (np.where(is_beside, half.swapaxes(1, 2), half) for half in (one, other))
    other = _moved(other, int(rng.integers(5, 9)) * int(rng.choice((-1, 1))))
    is_first = (np.arange(SIZE) < rng.integers(11, 18, (n, 1)))[:, :, None]
    halves = np.where(is_first, one, other)
    return np.where(is_beside, halves.swapaxes(1, 2), halves)


def shuffled(split: Split, n: int, rng: np.random.Generator) -> FloatArray:
    """Return pictures whose 2 x 2 or 4 x 4 patches changed places."""
    pictures, _ = _some(split, n, rng)
    half = n // 2
    return np.concatenate([_shuffled(pictures[:half], 2, rng), _shuffled(pictures[half:], 4, rng)])


def overlaid(split: Split, n: int, rng: np.random.Generator) -> FloatArray:
    """Return two or three pictures over each other, the second turned on its side or moved."""
    first, second, third = (_some(split, n, rng)[0] for _ in range(3))
    side = _moved(second.swapaxes(1, 2), int(rng.integers(-5, 6)))
    moved = _moved(second, int(rng.integers(4, 8)) * int(rng.choice((-1, 1))))
    second = np.where(rng.random((n, 1, 1)) < 0.5, side, moved)
    is_three = rng.random((n, 1, 1)) < 0.3
    return np.maximum(np.maximum(first, second), np.where(is_three, third, 0))


def averaged(
    split: Split, labels: int, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return means of two labels' pictures, and half the probability to each of the two."""
    (one, targets), (other, other_targets) = _some(split, n, rng), _some(split, n, rng)
    guesses = (np.eye(labels)[targets] + np.eye(labels)[other_targets]) / 2
    differ = targets != other_targets
    return ((one + other) / 2)[differ], guesses[differ].astype(np.float32)


def clockwise(pictures: FloatArray) -> FloatArray:
    """Return the pictures turned by a quarter."""
    return np.rot90(pictures, -1, axes=(1, 2))


def anticlockwise(pictures: FloatArray) -> FloatArray:
    """Return the pictures turned back by a quarter."""
    return np.rot90(pictures, axes=(1, 2))


def upside_down(pictures: FloatArray) -> FloatArray:
    """Return the pictures turned by a half."""
    return pictures[:, ::-1, ::-1]


def mirrored(pictures: FloatArray) -> FloatArray:
    """Return the pictures as a mirror shows them."""
    return pictures[:, :, ::-1]


Turns = Mapping[Callable[[FloatArray], FloatArray], tuple[int, ...]]


def turned(turns: Turns, split: Split, n: int, rng: np.random.Generator) -> FloatArray:
    """Return pictures turned or mirrored, of those labels that are none of ours afterwards."""
    parts = []
    for turn, labels in turns.items():
        possible = np.flatnonzero(np.isin(split.targets, labels))
        parts.append(turn(_scaled(split.rows[rng.choice(possible, -(-n // len(turns)))])))
    return rng.permutation(np.concatenate(parts))[:n]


FROM_PICTURES: Mapping[str, Callable[[Split, int, np.random.Generator], FloatArray]] = {
    "side by side": side_by_side,
    "half swapped": half_swapped,
    "shuffled": shuffled,
    "overlaid": overlaid,
}
"""Families made of training pictures of the labels themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How much of which family a pool holds."""

    shares: Mapping[str, float]
    """Family -> share; those of `FROM_CODE`, `FROM_PICTURES`, `turned` and `averaged`."""

    labels: int
    """How many there are."""

    turns: Turns
    """Turn -> targets whose pictures are no label any more when turned."""


def pool(split: Split, mix: Mix, n: int, seed: int) -> Outliers:
    """Return some `n` outliers in random order, the same for the same seed.

    Args:
        split: training pictures, for the families that are made of them.
        mix: which families, how much of each.
        n: how many outliers; a few less come, as the mean of a label with itself is none.
        seed: of every draw.
    """
    rng = np.random.default_rng(seed)
    names, shares = list(mix.shares), np.array(list(mix.shares.values()))
    blocks = []
    for _ in range(-(-n // _BLOCK)):
        counts = rng.multinomial(_BLOCK, shares / shares.sum()).tolist()
        for name, count in zip(names, counts, strict=True):
            blocks.append(_family(name, split, mix, count, rng))
    order = rng.permutation(sum(len(block.is_none) for block in blocks))[:n]
    return Outliers(*(np.concatenate(parts)[order] for parts in zip(*blocks, strict=True)))


def _family(name: str, split: Split, mix: Mix, n: int, rng: np.random.Generator) -> Outliers:
    guesses = np.full((n, mix.labels), 1 / mix.labels, np.float32)
    is_none = np.ones(n, np.float32)
    if name == "averaged":
        pictures, guesses = averaged(split, mix.labels, n, rng)
        is_none = np.zeros(len(pictures), np.float32)
    elif name == "turned":
        pictures = turned(mix.turns, split, n, rng)
    elif name in FROM_PICTURES:
        pictures = FROM_PICTURES[name](split, n, rng)
    else:
        pictures = FROM_CODE[name](n, rng)
    return Outliers((pictures * 255).round().astype(np.uint8), guesses, is_none)


def _some(split: Split, n: int, rng: np.random.Generator) -> tuple[FloatArray, NDArray[np.int64]]:
    chosen = rng.integers(0, len(split.targets), n)
    return _scaled(split.rows[chosen]), split.targets[chosen]


def _scaled(pictures: NDArray[np.generic]) -> FloatArray:
    return pictures.astype(np.float32) / 255


def _moved(pictures: FloatArray, pixels: int) -> FloatArray:
    """Return the pictures moved to the right; what leaves the frame is lost."""
    wide = np.pad(pictures, ((0, 0), (0, 0), (SIZE, SIZE)))
    return wide[:, :, SIZE - pixels : 2 * SIZE - pixels]


def _shuffled(pictures: FloatArray, parts: int, rng: np.random.Generator) -> FloatArray:
    side, n = SIZE // parts, len(pictures)
    patches = pictures.reshape(n, parts, side, parts, side).swapaxes(2, 3)
    patches = patches.reshape(n, parts * parts, side, side)
    # A permutation with few fixed points: rolled before it is drawn.
    order = rng.permuted(np.tile(np.arange(parts * parts), (n, 1)), axis=1)
    still = (order == np.arange(parts * parts)).mean(axis=1) > 0.4
    order[still] = np.roll(order[still], 1, axis=1)
    mixed: FloatArray = patches[np.arange(n)[:, None], order]
    mixed = mixed.reshape(n, parts, parts, side, side)
    return mixed.swapaxes(2, 3).reshape(n, SIZE, SIZE)


def _blocks(picture: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    side = int(rng.choice((2, 4, 7, 14)))
    return picture[::side, ::side].repeat(side, axis=0).repeat(side, axis=1)


def _coordinates() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the pixels from -1 to 1, shapes (1, 1, 28) and (1, 28, 1)."""
    line = np.linspace(-1, 1, SIZE)
    return line[None, None, :], line[None, :, None]


def _stretched(pictures: NDArray[np.float64]) -> FloatArray:
    low = pictures.min(axis=(1, 2), keepdims=True)
    span = pictures.max(axis=(1, 2), keepdims=True) - low
    stretched: FloatArray = (pictures - low) / np.maximum(span, 1e-9)
    return stretched
