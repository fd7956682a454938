"""Splits and served conditions of pictures."""

import gzip
import hashlib
from pathlib import Path

import keras
import numpy as np

from training import images
from training.datasets import DataFile, PictureFiles
from training.recipe import Split

HALF = images.Mixture(words="half and half", conditions=(images.clean, images.inverted))


def write_pictures(folder: Path, train_rows: int, test_rows: int) -> PictureFiles:
    """Four files in the format of MNIST; the first pixels of each picture hold its number."""
    arrays = []
    for rows in (train_rows, test_rows):
        pictures = np.zeros((rows, 28, 28), np.uint8)
        pictures[:, 0, 0], pictures[:, 0, 1] = np.divmod(np.arange(rows), 256)
        arrays += [pictures, (np.arange(rows) % 10).astype(np.uint8)]
    files = []
    for number, array in enumerate(arrays):
        head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes()
        content = gzip.compress(head + array.tobytes(), compresslevel=1)
        (folder / f"{number}.gz").write_bytes(content)
        files.append(DataFile(f"{number}.gz", hashlib.sha256(content).hexdigest(), ("nowhere",)))
    return PictureFiles(*files)


def numbers_of(split: Split) -> set[int]:
    """The numbers of the pictures, whichever condition they are served under."""
    rows = split.rows.astype(np.int64)
    rows = np.where(rows[:, 27:, 27:] > 0, 255 - rows, rows)
    return set((rows[:, 0, 0] * 256 + rows[:, 0, 1]).tolist())


def test_no_picture_stands_in_two_splits(tmp_path: Path) -> None:
    files = write_pictures(tmp_path, 60_000, 50)

    splits = images.load(tmp_path, files, HALF, {"inverted": images.inverted}, seed=1).splits

    assert splits.validation is not None
    assert splits.calibration is not None
    parts = [numbers_of(part) for part in (splits.train, splits.validation, splits.calibration)]
    assert [len(part) for part in parts] == [50_000, 5_000, 5_000]
    assert len(set.union(*parts)) == 60_000
    assert splits.test is not None
    assert np.array_equal(splits.conditions["inverted"].rows, 255 - splits.test.rows.astype(int))


def test_each_picture_stands_under_one_condition_in_equal_shares() -> None:
    split = Split(np.zeros((100, 28, 28), np.uint8), np.zeros(100, np.int64))

    mixed = HALF.apply(split, np.random.default_rng(0))

    by_picture = [set(np.unique(row).tolist()) for row in mixed.rows]
    assert by_picture.count({0}) == by_picture.count({255}) == 50


def test_low_contrast_keeps_its_range() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)

    flat, negative = images.flat(90, 0.3)(ramp), images.flat(165, -0.3)(ramp)

    assert (flat.min(), flat.max()) == (90, 166)
    assert (negative.min(), negative.max()) == (88, 165)


def test_picture_and_its_mirror_image_get_the_mean_of_both() -> None:
    pictures = keras.Input((4, 4), dtype="uint8")
    weights = np.arange(32, dtype=np.float32).reshape(16, 2)
    flat = keras.ops.reshape(keras.ops.cast(pictures, "float32"), (-1, 16))
    one_way = keras.Model(pictures, {"logits": keras.ops.matmul(flat, weights)})
    rows = np.random.default_rng(0).integers(0, 256, (5, 4, 4)).astype(np.uint8)

    seen = images.both_ways(one_way)(rows)["logits"]
    mirrored = images.both_ways(one_way)(rows[:, :, ::-1].copy())["logits"]

    expected = (one_way(rows)["logits"] + one_way(rows[:, :, ::-1].copy())["logits"]) / 2
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    np.testing.assert_allclose(mirrored, expected, rtol=1e-6)
