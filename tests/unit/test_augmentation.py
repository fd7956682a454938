"""Random changes of pictures: repeatable, bounded, and none where none is asked."""

import numpy as np
import pytest
import tensorflow as tf

from training.augmentation import Augmentation, augment, augmented, augmented_batches, plain_batches
from training.recipe import Split

STRONG = Augmentation(
    rotation_degrees=20,
    log_scale=0.2,
    shear=0.2,
    shift_pixels=3,
    flip_share=0.5,
    least_span=0.3,
    noise=10,
    erased_share=0.5,
    untouched_share=0.25,
)


@pytest.fixture
def split() -> Split:
    rng = np.random.default_rng(0)
    rows = np.zeros((200, 28, 28), np.uint8)
    rows[:, 6:22, 6:22] = rng.integers(0, 256, (200, 16, 16))
    return Split(rows, np.arange(200))


@pytest.mark.slow
def test_same_epoch_gives_the_same_batches(split: Split) -> None:
    batches = augmented_batches(split, STRONG, 50, seed=1)

    once, again, later = (
        np.concatenate([rows.numpy() for rows, _ in batches(epoch)]) for epoch in (3, 3, 4)
    )

    assert np.array_equal(once, again)
    assert not np.array_equal(once, later)


def test_epoch_holds_every_row_once(split: Split) -> None:
    batches = plain_batches(split, 50, seed=1)

    seen = {
        int(target): rows[place].numpy()
        for rows, targets in batches(0)
        for place, target in enumerate(targets)
    }

    assert sorted(seen) == list(range(200))
    assert all(np.array_equal(seen[row], split.rows[row]) for row in seen)


def test_asked_share_of_the_pictures_stays_untouched(split: Split) -> None:
    rows = tf.constant(np.repeat(split.rows, 10, axis=0))

    changed = augment(rows, STRONG, tf.constant([1, 2])).numpy()

    untouched = (changed == rows.numpy()).all(axis=(1, 2)).mean()
    # Three standard deviations of 2,000 draws.
    assert untouched == pytest.approx(0.25, abs=0.03)


def test_mirror_alone_mirrors(split: Split) -> None:
    mirror = Augmentation(flip_share=1)

    changed = augment(tf.constant(split.rows), mirror, tf.constant([1, 2])).numpy()

    assert np.array_equal(changed, split.rows[:, :, ::-1])


def test_shift_moves_ink_no_further_than_asked(split: Split) -> None:
    shift = Augmentation(shift_pixels=3)

    changed = augment(tf.constant(split.rows), shift, tf.constant([1, 2])).numpy()

    inked = np.argwhere(changed.max(axis=0) > 0)
    # Ink lies in 6..21; a fraction of a pixel spreads over two.
    assert inked.min() >= 6 - 4
    assert inked.max() <= 21 + 4


@pytest.mark.parametrize(
    "light",
    [
        pytest.param(Augmentation(blur=1), id="blur"),
        pytest.param(Augmentation(shade=0.5), id="shade"),
        pytest.param(Augmentation(least_span=0.3, noise=10), id="contrast and noise"),
    ],
)
def test_light_changes_what_is_seen_and_not_the_shape(light: Augmentation, split: Split) -> None:
    shape, seen = augmented(tf.constant(split.rows), light, tf.constant([1, 2]))

    assert np.array_equal(shape, split.rows)
    assert not np.array_equal(seen, split.rows)


def test_strokes_become_a_pixel_thicker_or_thinner_at_most(split: Split) -> None:
    square = np.zeros_like(split.rows)
    square[:, 10:20, 10:20] = 255

    shape, _ = augmented(tf.constant(square), Augmentation(thickness=1), tf.constant([1, 2]))

    extreme = np.argwhere(np.asarray(shape).max(axis=0) > 0)
    assert extreme.min() == 9
    assert extreme.max() == 20
    assert np.asarray(shape)[:, 11:19, 11:19].min() == 255
    assert len(np.unique(np.asarray(shape).sum(axis=(1, 2)).round())) > 100


def test_picture_that_fills_the_frame_gets_no_dark_corners() -> None:
    bright = tf.fill((50, 28, 28), tf.constant(200, tf.uint8))

    changed = augment(bright, Augmentation(rotation_degrees=30, log_scale=0.5), tf.constant([1, 2]))

    assert set(np.unique(changed).tolist()) == {200}
