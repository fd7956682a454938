"""Strokes of a pen as pictures: letters, invented letters, scribbles, line figures.

A figure is a path of points in pixels, shape (points, 2), x before y; a picture's ink falls off
with the distance to the nearest of them, as that of a pen does. Everything is drawn by formula from
a seeded generator: no picture of a data set is looked at.
"""

import numpy as np
from numpy.typing import NDArray

SIZE = 28
POINTS = 112  # on all strokes of one picture: a point a pixel on the longest figures
_CHUNK = 128  # pictures; distances to all pixels then take 45 MB
_GRID = 9  # letters are written on a 10 x 10 grid

# x and y on the grid, top left is 00; `~` begins a curve, anything else has corners. Left out are
# letters that are written like a digit: O I l S Z B Q G and b o s z i g q.
LETTERS = {
    "A": "09 40 89|16 76",
    "A round": "~09 03 40 83 89|05 85",
    "C": "~91 50 13 06 48 98",
    "D": "00 09|~00 61 95 68 09",
    "E": "90 00 09 99|05 75",
    "E round": "~81 30 12 44 64 24 06 28 68 97",
    "F": "90 00 09|04 64",
    "H": "00 09|90 99|05 95",
    "J": "10 90|~60 65 58 39 08 06",
    "K": "00 09|80 05 99",
    "L": "00 09 89",
    "M": "09 00 46 90 99",
    "M round": "~09 21 35 46 61 80 99",
    "N": "09 00 99 90",
    "P": "00 09|~00 60 83 55 05",
    "R": "00 09|~00 60 82 44 05|44 99",
    "T": "00 90|50 59",
    "U": "~00 05 28 69 85 80",
    "V": "00 49 80",
    "W": "00 29 44 69 90",
    "W round": "~00 06 28 46 42 46 68 86 90",
    "X": "00 99|90 09",
    "X round": "~00 32 58 99|~91 64 37 08",
    "Y": "00 45 90|45 49",
    "a": "~71 30 05 38 75 71|~71 75 89",
    "d": "~74 33 06 38 76|80 78 99",
    "e": "~05 75 72 31 05 29 87",
    "f": "~91 60 33 39|15 75",
    "h": "00 09|~05 34 65 79",
    "h loop": "~05 62 40 24 09|~06 34 65 79",
    "j": "~60 66 49 18",
    "k": "10 09|74 16 89",
    "m": "03 09|~05 24 45 49|~45 64 85 89",
    "n": "02 09|~04 33 74 89",
    "p": "00 09|~01 50 83 46 05",
    "r": "02 09|~05 33 72",
    "t": "30 39|03 73",
    "t hook": "~40 34 38 69 87|03 83",
    "u": "~01 06 38 76 71|71 79",
    "v": "~01 25 48 65 81",
    "w": "~01 18 38 45 58 78 91",
    "x": "~01 23 67 89|~91 64 36 09",
    "y": "~00 04 45 74 70|~80 75 58 19",
    "y straight": "00 45|90 19",
    "alpha": "~91 66 29 06 23 54 99",
    "gamma": "~00 34 48 39 26 54 90",
    "lambda": "~00 22 46 89|46 09",
    "mu": "00 09|~05 37 66 80 89",
    "pi": "00 90|20 29|70 79",
    "phi": "~42 14 27 66 74 42|40 49",
    "psi": "~00 15 47 75 80|40 49",
    "hash": "30 29|70 69|03 93|06 96",
    "plus": "50 59|05 95",
    "star": "50 59|12 97|92 17",
    "arrow": "05 95|62 95 68",
    "question": "~02 31 63 45 47|48 49",
    "ampersand": "~98 43 31 53 16 39 75",
    "at": "~64 35 57 65 63 66 84 50 05 59 98",
    "house": "09 04 40 84 89 09",
    "fork": "00 02 82 80|40 49",
    "tree": "40 49|03 40 83|06 43 86",
    "ladder": "00 09|70 79|03 73|06 76",
    "wave": "~05 12 36 52 76 93",
    "spring": "~05 31 65 27 41 95 67 99",
}
FloatArray = NDArray[np.floating]


def letters(n: int, rng: np.random.Generator) -> FloatArray:
    """Return letters and signs as people write them, shape (n, 28, 28), values 0-1."""
    skeletons = [_strokes(text) for text in LETTERS.values()]
    paths = [_written(skeletons[number], rng) for number in rng.integers(0, len(skeletons), n)]
    return _inked(_boxed(np.stack(paths), rng), rng)


def invented_letters(n: int, rng: np.random.Generator) -> FloatArray:
    """Return signs of two to five strokes and arcs that no alphabet has, as `letters`."""
    paths = [
        _shared_points([_invented_stroke(rng) for _ in range(count)])
        for count in rng.integers(2, 6, n)
    ]
    return _inked(_boxed(np.stack(paths), rng), rng)


def scribbles(n: int, rng: np.random.Generator) -> FloatArray:
    """Return one long winding line in each picture, as `letters`."""
    knots = np.cumsum(rng.normal(0, 1, (n, rng.integers(5, 12), 2)), axis=1)
    paths = np.stack([_curve(one, POINTS) for one in knots])
    return _inked(_boxed(paths, rng), rng)


def line_figures(n: int, rng: np.random.Generator) -> FloatArray:
    """Return polygons, stars, grids, zigzags and parallel lines, as `letters`."""
    kinds = (_polygon, _star, _parallels, _zigzag, _spiral)
    paths = [kinds[kind](rng) for kind in rng.integers(0, len(kinds), n)]
    return _inked(_boxed(np.stack(paths), rng), rng)


def _strokes(text: str) -> list[tuple[bool, FloatArray]]:
    strokes: list[tuple[bool, FloatArray]] = []
    for part in text.split("|"):
        pairs = part.removeprefix("~").split()
        points = np.array([[int(pair[0]), int(pair[1])] for pair in pairs]) / _GRID
        strokes.append((part.startswith("~"), points))
    return strokes


def _written(skeleton: list[tuple[bool, FloatArray]], rng: np.random.Generator) -> FloatArray:
    """Return a skeleton by an unsteady hand, shape (POINTS, 2)."""
    unsteadiness = rng.uniform(0.02, 0.1)
    narrowness = rng.uniform((0.5, 0.8), (1.0, 1.0))
    strokes = []
    for is_curved, points in skeleton:
        moved = points + rng.normal(0, unsteadiness, points.shape) + rng.normal(0, 0.02, 2)
        roundness = 1.0 if is_curved else rng.choice((0.0, 0.0, 0.5))
        curve, corners = _curve(moved, POINTS), _polyline(moved, POINTS)
        strokes.append((roundness * curve + (1 - roundness) * corners) * narrowness)
    return _shared_points(strokes)


def _invented_stroke(rng: np.random.Generator) -> FloatArray:
    """Return a line, an arc or a bent curve somewhere in the unit square."""
    kind = rng.integers(0, 4)
    if kind == 0:
        return _polyline(rng.random((rng.integers(2, 4), 2)), POINTS)
    if kind == 1:
        start, sweep = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 2.2) * np.pi
        angles = start + np.linspace(0, sweep, POINTS)
        radii = rng.uniform(0.1, 0.5, 2)
        arc: FloatArray = radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return arc + rng.random(2)
    if kind == 2:
        # Upright and level strokes are what most scripts are made of.
        ends = rng.random((2, 2))
        axis = rng.integers(0, 2)
        ends[1, axis] = ends[0, axis]
        return _polyline(ends, POINTS)
    return _curve(rng.random((rng.integers(3, 6), 2)), POINTS)


def _polygon(rng: np.random.Generator) -> FloatArray:
    corners = rng.integers(3, 6)  # with more of them it is a nought
    angles = 2 * np.pi * np.arange(corners + 1) / corners + rng.uniform(0, 2 * np.pi)
    radii = np.append(radii := rng.uniform(0.6, 1, corners), radii[:1])[:, None]
    outline = _polyline(radii * np.stack([np.cos(angles), np.sin(angles)], axis=1), POINTS)
    return outline * rng.uniform(0.5, 1, 2)


def _star(rng: np.random.Generator) -> FloatArray:
    rays = rng.integers(3, 8)
    angles = rng.uniform(0, 2 * np.pi) + np.pi * np.arange(rays) / rays
    ends = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.5, 1, (rays, 1))
    return _shared_points([_polyline(np.stack([-end, end]), POINTS) for end in ends])


def _parallels(rng: np.random.Generator) -> FloatArray:
    """Return lines side by side, half of the time crossed by others: a grid."""
    places = np.linspace(0, 1, rng.integers(2, 6))
    lines = [np.array([[place, 0.0], [place, 1.0]]) for place in places]
    if rng.random() < 0.5:
        lines += [np.array([[0.0, place], [1.0, place]]) for place in places]
    elif rng.random() < 0.5:
        lines = [line[:, ::-1] for line in lines]
    return _shared_points([_polyline(line, POINTS) for line in lines])


def _zigzag(rng: np.random.Generator) -> FloatArray:
    corners = rng.integers(4, 9)
    across = np.linspace(0, 1, corners)
    path = np.stack([across, np.arange(corners) % 2 * rng.uniform(0.3, 1)], axis=1)
    return _polyline(path[:, :: rng.choice((-1, 1))], POINTS)


def _spiral(rng: np.random.Generator) -> FloatArray:
    angles = np.linspace(0, rng.uniform(3, 6) * np.pi, POINTS) * rng.choice((-1, 1))
    radii = np.linspace(0.1, 1, POINTS)
    turned = angles + rng.uniform(0, 2 * np.pi)
    return np.stack([radii * np.cos(turned), radii * np.sin(turned)], axis=1)


def _polyline(knots: FloatArray, points: int) -> FloatArray:
    """Return points at even distances along straight lines."""
    lengths = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(lengths)])
    places = np.linspace(0, along[-1], points)
    return np.stack([np.interp(places, along, knots[:, axis]) for axis in (0, 1)], axis=1)


def _curve(knots: FloatArray, points: int) -> FloatArray:
    """Return points along a smooth curve through the knots (Catmull and Rom 1974)."""
    padded = np.concatenate([knots[:1], knots, knots[-1:]])
    places = np.linspace(0, len(knots) - 1 - 1e-6, 2 * points)
    first = places.astype(int)
    t = (places - first)[:, None]
    a, b, c, d = (padded[first + shift] for shift in range(4))
    smooth = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return _polyline(smooth, points)


def _shared_points(strokes: list[FloatArray]) -> FloatArray:
    """Return POINTS points, shared out among the strokes by their lengths."""
    lengths = [np.linalg.norm(np.diff(stroke, axis=0), axis=1).sum() + 1e-3 for stroke in strokes]
    ends = np.round(np.cumsum(lengths) / sum(lengths) * POINTS).astype(int)
    parts = []
    for stroke, start, stop in zip(strokes, [0, *ends[:-1]], ends, strict=True):
        parts.append(stroke[np.linspace(0, len(stroke) - 1, stop - start).astype(int)])
    return np.concatenate(parts).astype(np.float32)


def _boxed(paths: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the paths slanted, their longer side 12 to 20 pixels, in the middle."""
    slant = rng.normal(0, 0.15, (len(paths), 1))
    paths = np.stack([paths[..., 0] - slant * paths[..., 1], paths[..., 1]], axis=2)
    low, high = paths.min(axis=1, keepdims=True), paths.max(axis=1, keepdims=True)
    longest = np.maximum((high - low).max(axis=2, keepdims=True), 1e-3)
    sides = rng.uniform(12, 20, (len(paths), 1, 1))
    scaled: FloatArray = (paths - (low + high) / 2) * sides / longest + (SIZE - 1) / 2
    return scaled.astype(np.float32)


def _inked(paths: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return ink around the paths: full near the line, fading over a pixel or so."""
    n = len(paths)
    half_width = rng.uniform(0.5, 2.0, (n, 1, 1)).astype(np.float32)
    softness = rng.uniform(0.7, 1.6, (n, 1, 1)).astype(np.float32)
    pictures = np.empty((n, SIZE, SIZE), np.float32)
    pixels = np.arange(SIZE, dtype=np.float32)
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        across = np.square(paths[part, :, 0, None] - pixels)[:, :, None, :]
        down = np.square(paths[part, :, 1, None] - pixels)[:, :, :, None]
        distance = np.sqrt((across + down).min(axis=1))
        pictures[part] = (half_width[part] - distance) / softness[part] + 0.5
    return np.clip(pictures, 0, 1, out=pictures)
