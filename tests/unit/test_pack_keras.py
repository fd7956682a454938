"""Keras models and SavedModels are packed for both runtimes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packing_toys import BIAS, WEIGHTS, linear, request, run, softmax
from training_toys import blobs

from training.errors import PackRefused
from training.packing.classifiers import Choice
from training.packing.pack import pack
from training.packing.wrapping import runtimes_of

# Keras 3.15 writes weights by an `__array__` that numpy 2 finds old.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

ROWS = blobs(50, seed=9).rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one network as `blobs.keras` and as SavedModel `blobs`."""
    import keras  # noqa: PLC0415  # slow; only these tests need it

    folder = tmp_path_factory.mktemp("keras")
    # Its mean and variance are captured constants, which tf2onnx leaves open.
    standardised = keras.layers.Normalization(name="standardised")
    standardised.adapt(blobs(100, seed=1).rows)
    spread = np.sqrt(np.asarray(standardised.variance)[0])
    last = keras.layers.Dense(3, activation="softmax", name="last")
    network = keras.Sequential([keras.Input((2,)), standardised, last])
    kernel = WEIGHTS * spread[:, None]
    last.set_weights([kernel, BIAS + np.asarray(standardised.mean)[0] @ WEIGHTS])
    network.save(folder / "blobs.keras")
    network.export(folder / "blobs", verbose=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("features", [None, "rows", "standardised"])
def test_keras_model_is_packed_for_both_runtimes(
    folder: Path, tmp_path: Path, features: str | None
) -> None:
    choice = Choice(features=features)

    bundle = pack(request(tmp_path, model=folder / "blobs.keras", choice=choice))

    assert runtimes_of(bundle) == ("onnx", "tensorflow")
    first, second = (run(bundle, ROWS, name) for name in runtimes_of(bundle))
    # 1e-4: what training allows between SavedModel and ONNX.
    np.testing.assert_allclose(first.logits, linear(ROWS), atol=1e-4)
    np.testing.assert_allclose(second.logits, first.logits, atol=1e-4)
    np.testing.assert_allclose(second.novelty_scores, first.novelty_scores, atol=1e-4)


@pytest.mark.slow
def test_saved_model_is_packed_for_both_runtimes(folder: Path, tmp_path: Path) -> None:
    bundle = pack(request(tmp_path, model=folder / "blobs"))

    assert runtimes_of(bundle) == ("onnx", "tensorflow")
    for name in runtimes_of(bundle):
        probabilities = softmax(run(bundle, ROWS, name).logits)
        np.testing.assert_allclose(probabilities, softmax(linear(ROWS)), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "features", "message"),
    [
        ("blobs.keras", "hidden", "it has: standardised, last"),
        ("blobs", "hidden", "--feature-output hidden"),
    ],
)
def test_pack_refuses_features_that_are_not_there(
    folder: Path, tmp_path: Path, model: str, features: str, message: str
) -> None:
    with pytest.raises(PackRefused, match=message):
        pack(request(tmp_path, model=folder / model, choice=Choice(features=features)))


def test_file_that_is_no_keras_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.keras").write_bytes(b"nothing")

    with pytest.raises(PackRefused, match="Keras cannot load it"):
        pack(request(tmp_path, model=tmp_path / "broken.keras"))


def two_input_model(path: Path) -> Path:
    import keras  # noqa: PLC0415

    parts: list[Any] = [keras.Input((1,)), keras.Input((1,))]
    keras.Model(parts, keras.layers.Concatenate()(parts)).save(path)
    return path


def test_model_of_several_tensors_is_refused(tmp_path: Path) -> None:
    model = two_input_model(tmp_path / "two.keras")

    with pytest.raises(PackRefused, match="takes 2 tensors"):
        pack(request(tmp_path, model=model))
