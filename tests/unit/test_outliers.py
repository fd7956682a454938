"""Pictures of none of the labels, made by code."""

import numpy as np
import pytest

from training import glyphs, outliers, strokes
from training.recipe import Split
from training.recipes import mnist

ALL = tuple(mnist.MIX.shares)


@pytest.fixture(scope="module")
def split() -> Split:
    """Noise in the middle of the frame, ten labels."""
    rng = np.random.default_rng(0)
    rows = np.zeros((500, 28, 28), np.uint8)
    rows[:, 6:22, 6:22] = rng.integers(0, 256, (500, 16, 16))
    return Split(rows, np.arange(500) % 10)


def only(family: str) -> outliers.Mix:
    return outliers.Mix(shares={family: 1}, labels=10, turns=mnist.MIX.turns)


@pytest.mark.slow
@pytest.mark.parametrize("family", ALL)
def test_outliers_are_the_same_for_the_same_seed(family: str, split: Split) -> None:
    once, again, other = (outliers.pool(split, only(family), 40, seed) for seed in (1, 1, 2))

    assert [part.tobytes() for part in once] == [part.tobytes() for part in again]
    assert not np.array_equal(once.pictures[:20], other.pictures[:20])


@pytest.mark.parametrize("family", ALL)
def test_family_fills_its_share_with_different_pictures(family: str, split: Split) -> None:
    pictures = outliers.pool(split, only(family), 200, seed=3).pictures

    assert pictures.dtype == np.uint8
    assert pictures.shape[1:] == (28, 28)
    # A tenth of the means show one label twice and are dropped; glyphs are drawn with repetition.
    assert len(np.unique(pictures.reshape(len(pictures), -1), axis=0)) > 150


def test_every_family_of_the_recipe_is_known() -> None:
    known = {*outliers.FROM_CODE, *outliers.FROM_PICTURES, "turned", "averaged"}

    assert set(ALL) == known


def test_mean_of_two_labels_is_either_of_them_and_not_none(split: Split) -> None:
    pool = outliers.pool(split, only("averaged"), 100, seed=4)

    assert set(pool.is_none.tolist()) == {0.0}
    assert np.array_equal(
        np.sort(pool.guesses, axis=1)[:, -3:], [[0, 0.5, 0.5]] * len(pool.guesses)
    )


def test_outlier_gives_no_hint_of_a_label(split: Split) -> None:
    pool = outliers.pool(split, only("letters"), 100, seed=4)

    assert set(pool.is_none.tolist()) == {1.0}
    assert np.allclose(pool.guesses, 0.1)


def test_only_labels_that_lose_their_meaning_are_turned() -> None:
    marked = Split(np.zeros((10, 28, 28), np.uint8), np.arange(10))
    marked.rows[:, 0, 0] = np.arange(10)

    turned = outliers.turned({outliers.clockwise: (3, 4)}, marked, 50, np.random.default_rng(0))

    # The first pixel of a row goes to the end of it.
    assert set((turned[:, 0, 27] * 255).round().astype(int).tolist()) == {3, 4}
    assert len(turned) == 50


def test_shuffled_picture_keeps_its_ink_and_loses_its_shape(split: Split) -> None:
    before = split.rows[:1].repeat(40, axis=0).astype(np.uint8)

    after = outliers.shuffled(Split(before, np.zeros(40, int)), 40, np.random.default_rng(0)) * 255

    assert np.allclose(after.sum(axis=(1, 2)), before.sum(axis=(1, 2)))
    assert not (np.abs(after - before).max(axis=(1, 2)) == 0).any()


@pytest.mark.parametrize(
    "draw",
    [strokes.letters, strokes.invented_letters, strokes.scribbles, strokes.line_figures],
)
def test_strokes_stay_inside_the_frame_of_a_digit(draw: outliers.Draw) -> None:
    pictures = draw(100, np.random.default_rng(5))

    # 20 pixels in the middle, and half of the widest pen.
    assert pictures[:, 0].max() == pictures[:, :, 27].max() == 0
    assert 0 <= pictures.min() < pictures.max() <= 1


def test_letters_leave_out_what_is_written_like_a_digit() -> None:
    assert not set("OIlSZBQGbosizgq0123456789") & {
        name[0] for name in strokes.LETTERS if len(name) == 1
    }
    assert not set("OIlSZBQGbosizgq|0123456789") & set(glyphs.CHARACTERS)


def test_printed_glyphs_come_from_several_typefaces() -> None:
    assert len(glyphs.FONTS) > 10
    assert len(glyphs._bank()) > 5 * len(glyphs.CHARACTERS)  # noqa: SLF001  # most fonts have most
