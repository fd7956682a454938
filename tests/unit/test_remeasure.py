"""A bundle is measured again: a new card, the same numbers, and nothing that decides changes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_toys import fit, load, moved, toy_recipe

from service.bundle import Bundle, read_bundle
from service.bundle.manifest import Baseline, ImageInput
from training import evaluate
from training.comparison import compare
from training.errors import RecipeDiffers
from training.pipeline import Place, lecture_baselines, lecture_folder, make, own_work
from training.recipe import Data, Fitted, Split, Workbench
from training.remeasure import remeasure_recipe

# Keras 3.15 writes weights by an `__array__` that numpy 2 finds old.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

LECTURE = Baseline(name="lecture", accuracy=evaluate.share(7, 10), nll=0.9, ece=0.1, aurc=0.2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("trained")
    return make(toy_recipe(), Place(folder, folder / "build", folder / "toy" / "1"), [LECTURE])


@pytest.fixture
def place(trained: Bundle, tmp_path: Path) -> Place:
    """A copy of the bundle, and a work folder with nothing in it."""
    shutil.copytree(trained.path, tmp_path / "toy" / "1")
    return Place(tmp_path, tmp_path / "build", tmp_path / "toy" / "1")


@pytest.mark.slow
def test_measured_again_the_numbers_are_the_same(trained: Bundle, place: Place) -> None:
    after = remeasure_recipe(toy_recipe(), place, read_bundle(place.bundle))

    assert after.manifest.evaluation == trained.manifest.evaluation
    assert after.read("MODEL_CARD.md") == trained.read("MODEL_CARD.md")


def test_all_that_decides_stays(trained: Bundle, place: Place) -> None:
    remeasure_recipe(toy_recipe(), place, read_bundle(place.bundle))

    after = read_bundle(place.bundle)
    assert after.manifest.policy_id == trained.manifest.policy_id
    assert after.read("golden.npz") == trained.read("golden.npz")
    assert after.manifest.provenance == trained.manifest.provenance
    assert set(after.manifest.files) == set(trained.manifest.files)


def test_other_rows_give_other_numbers(trained: Bundle, place: Place) -> None:
    def load_moved(folder: Path) -> Data:
        data = load(folder)
        test = data.splits.test
        assert test is not None
        return replace(data, splits=replace(data.splits, test=moved(test, 2)))

    after = remeasure_recipe(toy_recipe(load=load_moved), place, read_bundle(place.bundle))

    assert after.manifest.evaluation is not None
    compared = compare(trained.manifest.evaluation, after.manifest.evaluation)
    assert "accuracy" in [each.name for each in compared if each.differs]


@pytest.mark.slow
def test_scores_are_kept_for_the_next_time(place: Place) -> None:
    remeasure_recipe(toy_recipe(), place, read_bundle(place.bundle))
    stamp = place.work / "toy" / "evaluation" / "stamp.json"
    before = stamp.stat().st_mtime_ns

    remeasure_recipe(toy_recipe(), place, read_bundle(place.bundle))

    assert stamp.stat().st_mtime_ns == before


def test_nothing_is_fitted_again(place: Place) -> None:
    remeasure_recipe(toy_recipe(), place, read_bundle(place.bundle))

    assert not own_work("toy", place).exists()


def test_card_of_before_is_no_hindrance(place: Place) -> None:
    bundle = read_bundle(place.bundle)
    bare = bundle.manifest.model_copy(update={"evaluation": None})

    after = remeasure_recipe(toy_recipe(), place, Bundle(bundle.path, bare))

    assert after.manifest.evaluation is not None
    assert after.manifest.evaluation.baselines == ()


def test_card_takes_over_baselines_that_were_measured_again(place: Place) -> None:
    better = LECTURE.model_copy(update={"nll": 0.5})

    after = remeasure_recipe(toy_recipe(), place, read_bundle(place.bundle), [better])

    assert after.manifest.evaluation is not None
    assert after.manifest.evaluation.baselines == (better,)


def test_only_the_lecture_networks_of_the_recipe_are_baselines(place: Place) -> None:
    folder = lecture_folder("toy", place)
    for number in ("1", "2"):  # an older recipe had a second one
        shutil.copytree(place.bundle, folder / number)

    found = lecture_baselines("toy", (toy_recipe(),), place)

    assert [each.name for each in found] == [toy_recipe().network]


def test_bundle_of_another_input_is_refused(place: Place) -> None:
    def load_pictures(folder: Path) -> Data:
        return replace(load(folder), input=ImageInput(height=1, width=2, channels=1))

    with pytest.raises(RecipeDiffers, match="train the model again"):
        remeasure_recipe(toy_recipe(load=load_pictures), place, read_bundle(place.bundle))


def test_bundle_of_another_vocabulary_is_refused(place: Place) -> None:
    def load_words(folder: Path) -> Data:
        return replace(load(folder), files={"words.txt": b"of another day\n"})

    with pytest.raises(RecipeDiffers, match="train the model again"):
        remeasure_recipe(toy_recipe(load=load_words), place, read_bundle(place.bundle))


def load_small_pictures(folder: Path) -> Data:
    """The blobs as pictures of two pixels; no outliers."""
    data = load(folder)

    def pictured(split: Split | None) -> Split | None:
        if split is None:
            return None
        rows = (split.rows.astype(np.float64) * 20 + 128).clip(0, 255)
        return Split(rows.reshape(-1, 1, 2).astype(np.uint8), split.targets)

    splits = data.splits
    train = pictured(splits.train)
    assert train is not None
    return replace(
        data,
        splits=replace(
            splits,
            train=train,
            validation=pictured(splits.validation),
            calibration=pictured(splits.calibration),
            test=pictured(splits.test),
            conditions={},
        ),
        input=ImageInput(height=1, width=2, channels=1),
        outliers={},
    )


def fit_small_pictures(_: Data, workbench: Workbench) -> Fitted:
    import keras  # noqa: PLC0415  # slow

    from training.layers import serving_model  # noqa: PLC0415

    inner = fit(load(Path()), workbench).model
    rows = keras.Input((1, 2), dtype="uint8")
    flat = keras.layers.Reshape((2,))(keras.layers.Rescaling(1 / 20, offset=-6.4)(rows))
    return Fitted(model=serving_model(rows, inner(flat)["logits"]))


@pytest.mark.slow
def test_pictures_are_shown_and_told_by_reason(tmp_path: Path) -> None:
    recipe = toy_recipe(load=load_small_pictures, fit=fit_small_pictures)

    bundle = make(recipe, Place(tmp_path, tmp_path / "build", tmp_path / "toy" / "1"))

    card = bundle.read("MODEL_CARD.md").decode()
    assert "(worst_errors.png)" in card
    assert "(dont_know.png)" in card
    assert bundle.manifest.files["dont_know.png"].size_bytes < 100_000
    assert "## Examples" not in card
