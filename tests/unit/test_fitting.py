"""Fitting epoch by epoch, interrupted and not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from training_toys import batches_of, load

from training.fitting import curves, fit_epochs
from training.images import compile_classifier
from training.recipe import Data, Workbench

# Keras 3.15 writes weights by an `__array__` that numpy 2 finds old.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


@pytest.fixture(scope="module")
def data() -> Data:
    return load(Path())


def new_classifier() -> keras.Model:
    keras.utils.set_random_seed(3)
    rows = keras.Input((2,))
    classifier = keras.Model(rows, keras.layers.Dense(3)(rows))
    compile_classifier(classifier, keras.optimizers.Adam(0.02))
    return classifier


def weights_of(classifier: keras.Model) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in classifier.get_weights()])


class Interrupted(Exception):
    """Stands for a machine that is switched off."""


def interrupted_at(epoch: int, batches: Callable[[int], Any]) -> Callable[[int], Any]:
    def until(asked: int) -> Any:
        if asked == epoch:
            raise Interrupted
        return batches(asked)

    return until


@pytest.mark.slow
def test_interrupted_fit_carries_on_from_the_last_epoch(data: Data, tmp_path: Path) -> None:
    straight, resumed = new_classifier(), new_classifier()
    batches = batches_of(data)
    fit_epochs(straight, batches, None, 4, Workbench(tmp_path / "straight"))
    workbench = Workbench(tmp_path / "resumed")
    with pytest.raises(Interrupted):
        fit_epochs(resumed, interrupted_at(2, batches), None, 4, workbench)

    anew = new_classifier()
    drawn = fit_epochs(anew, batches, None, 4, workbench)

    # Weights and the optimizer's memory came back: the same numbers, not just similar ones.
    assert np.array_equal(weights_of(anew), weights_of(straight))
    assert drawn.steps == (1, 2, 3, 4)


def test_finished_fit_fits_nothing_more(data: Data, tmp_path: Path) -> None:
    batches = batches_of(data)
    first = fit_epochs(new_classifier(), batches, None, 2, Workbench(tmp_path))

    again = fit_epochs(new_classifier(), interrupted_at(0, batches), None, 2, Workbench(tmp_path))

    assert again == first


def test_only_the_last_checkpoint_is_kept(data: Data, tmp_path: Path) -> None:
    fit_epochs(new_classifier(), batches_of(data), None, 3, Workbench(tmp_path))

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch_0003.weights.h5",
        "state.json",
    ]


def test_validation_is_drawn_beside_training(data: Data, tmp_path: Path) -> None:
    drawn = fit_epochs(
        new_classifier(), batches_of(data), data.splits.validation, 2, Workbench(tmp_path)
    )

    assert set(drawn.loss) == set(drawn.accuracy) == {"train", "validation"}


def test_history_without_validation_has_one_curve() -> None:
    drawn = curves([{"loss": 2.0, "accuracy": 0.5}, {"loss": 1.0, "accuracy": 0.6}])

    assert drawn.loss == {"train": (2.0, 1.0)}
    assert drawn.accuracy == {"train": (0.5, 0.6)}
