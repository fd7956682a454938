"""The pictures that an evaluation counts answers on."""

from pathlib import Path

import numpy as np
import pytest

from training import outlier_tests, outliers
from training.fingerprints import reached_names
from training.recipe import Split
from training.recipes import mnist


def split() -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (300, 28, 28)).astype(np.uint8), np.arange(300) % 10)


def test_fitting_never_touches_what_is_measured() -> None:
    modules = {module for module, _ in reached_names(mnist.RECIPE.fit)}

    assert "training.outliers" in modules
    assert "training.outlier_tests" not in modules


def test_far_families_are_the_same_each_time() -> None:
    once, again = outlier_tests.far_families(), outlier_tests.far_families()

    assert len(once) == 6
    assert all(np.array_equal(rows, again[name]) for name, rows in once.items())
    assert {rows.shape for rows in once.values()} == {(2_000, 28, 28)}


def test_letters_come_without_look_alikes_and_in_a_digits_frame(tmp_path: Path) -> None:
    folder = tmp_path / "ood"
    folder.mkdir()
    np.savez(
        folder / "alphadigits_letters.npz",
        images=np.full((3, 20, 16), 255, np.uint8),
        labels=np.array([0, 1, 0]),
        label_names=np.array(["A", "O"]),
    )

    families = outlier_tests.real_families(tmp_path)

    assert list(families) == ["alphadigits letters"]
    letters = families["alphadigits letters"]
    assert letters.shape == (2, 28, 28)
    assert np.array_equal(np.argwhere(letters[0])[[0, -1]], [[4, 6], [23, 21]])


def test_photographs_are_seen_as_the_service_sees_them(tmp_path: Path) -> None:
    folder = tmp_path / "ood"
    folder.mkdir()
    colours = np.zeros((2, 32, 32, 3), np.uint8)
    colours[0] = (255, 0, 0)
    np.savez(folder / "cifar10.npz", images=colours)

    grey = outlier_tests.real_families(tmp_path)["cifar10, grey"]

    # Luma of red, ITU-R 601.
    assert (grey.shape, set(grey[0].ravel().tolist())) == ((2, 28, 28), {76})


def test_missing_files_leave_their_families_out(tmp_path: Path) -> None:
    assert outlier_tests.real_families(tmp_path) == {}


def test_means_and_pairs_show_two_different_labels() -> None:
    marked = Split(np.zeros((10, 28, 28), np.uint8), np.arange(10))
    marked.rows[:] = np.arange(10).reshape(-1, 1, 1) * 20

    pairs = outlier_tests.side_by_side(marked)

    assert len(pairs) == outlier_tests.MADE_ROWS
    assert (pairs[:, 0, 0] != pairs[:, 0, 27]).all()
    assert len(outlier_tests.averages(marked)) == outlier_tests.MADE_ROWS


def plain() -> Split:
    """Pictures of one grey level, twenty times the label."""
    rows = np.arange(10).reshape(-1, 1, 1) * 20 + np.zeros((10, 28, 28))
    return Split(rows.astype(np.uint8), np.arange(10))


@pytest.mark.parametrize("sign", [1, -1], ids=["as made", "negatives"])
def test_labels_behind_a_mean_are_known(sign: int) -> None:
    means = outlier_tests.averages(plain())

    pairs = outlier_tests.averaged_labels(plain(), means if sign > 0 else 255 - means)

    assert pairs is not None
    assert (pairs.astype(int).sum(axis=1) * 10 == means[:, 0, 0]).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_other_families_have_no_labels_behind_them() -> None:
    test = split()

    assert outlier_tests.averaged_labels(test, outlier_tests.side_by_side(test)) is None


def test_turned_pictures_are_of_the_asked_labels() -> None:
    marked = split()
    marked.rows[:] = 0
    marked.rows[:, 0, 0] = marked.targets

    turned = outlier_tests.turned(marked, (2, 4))

    assert set(turned.max(axis=(1, 2)).tolist()) == {2, 4}
    assert turned[:, 0, 0].max() == 0


def test_each_family_has_its_negatives_beside_it() -> None:
    families = outlier_tests.both_polarities({"dark": np.zeros((1, 28, 28), np.uint8)})

    assert list(families) == ["dark", "dark inverted"]
    assert families["dark inverted"].min() == 255


def test_outliers_of_training_are_made_from_training_pictures_alone() -> None:
    assert set(outliers.FROM_CODE) & set(outlier_tests.far_families()) == set()
