"""Keras models and SavedModels: wrapped as one Keras model, exported as every recipe's is."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training import export
from training.errors import PackRefused
from training.packing.classifiers import ROWS, Choice, Look, first_look, pick
from training.packing.heads import Around, Entry, Untouched

SIGNATURE = "serving_default"
_SOFTENING = {"softmax", "sigmoid"}
_LOOK_ROWS = 64


class KerasClassifier:
    """A function from one tensor to scores and features, built of Keras layers."""

    def __init__(self, model: Any, kind: str, softened: str, choice: Choice) -> None:
        self.kind = kind
        self.softened = softened
        self.shape = tuple(model.inputs[0].shape[1:])
        self.dtype = str(model.inputs[0].dtype)
        self.producer: Mapping[str, str] = {}
        self._model = model
        self._choice = choice

    def look(self, entry: Entry, rows: NDArray[np.generic]) -> Look:
        """Return what the model says of `rows`; see `Classifier.look`."""
        outputs = self._wrapped(entry, Untouched()).predict(rows, batch_size=_LOOK_ROWS, verbose=0)
        return first_look(outputs)

    def wrap(self, entry: Entry, around: Around) -> dict[str, bytes]:
        """Return both graphs; see `Classifier.wrap`."""
        with tempfile.TemporaryDirectory() as folder:
            saved_model = Path(folder) / "saved_model"
            try:
                export.save_model(self._wrapped(entry, around), saved_model)
                graph = export.to_onnx(saved_model)
            except Exception as error:
                # TensorFlow and tf2onnx raise what has no base class but Exception in common.
                raise PackRefused(
                    f"the {self.kind} cannot be turned into ONNX ({_first_line(error)}); if it "
                    "looks words up or reads strings, let it begin with numbers"
                ) from error
            return {
                "model.onnx": graph,
                **export.folder_contents(saved_model, "saved_model"),
            }

    def _wrapped(self, entry: Entry, around: Around) -> Any:
        rows = keras.Input(entry.row_shape, dtype=entry.row_dtype)
        scores, *others = self._model(entry.apply(keras.ops, rows))
        if self._choice.features == ROWS:
            others = [rows]
        features = others[0] if others else None
        return keras.Model(rows, around.apply(keras.ops, scores, features))


def open_keras(path: Path, choice: Choice) -> KerasClassifier:
    """Return the classifier in a `.keras` or `.h5` file.

    Raises:
        PackRefused: if it cannot be read or is built in a way that cannot be wrapped.
    """
    try:
        model = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PackRefused(
            f"{path}: Keras cannot load it ({_first_line(error)}); if it has layers of your own, "
            "export it as SavedModel with model.export(FOLDER) and pack that"
        ) from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise PackRefused(
            f"{path}: a subclassed model cannot be taken apart; export it as SavedModel with "
            "model.export(FOLDER) and pack that"
        )
    _refuse_many_inputs(path, [tensor.name for tensor in model.inputs])
    # A Sequential has one output and no name for it.
    names = getattr(model, "output_names", ["output"])
    by_name = dict(zip(names, model.outputs, strict=True))
    scores = by_name[pick(by_name, choice.scores, "--model-output", "outputs")]
    outputs = [scores]
    if choice.features not in {None, ROWS}:
        layers = {layer.name: layer for layer in model.layers}
        name = pick(layers, choice.features, "--feature-output", "layers")
        outputs.append(layers[name].output)
    softened = ""
    if choice.is_hardened:
        outputs[0], softened = _before_softening(scores)
    return KerasClassifier(keras.Model(model.inputs, outputs), "Keras model", softened, choice)


def _before_softening(scores: Any) -> tuple[Any, str]:
    """Return what goes into the softmax or sigmoid that ends a model, and its name."""
    layer = scores._keras_history.operation  # noqa: SLF001  # Keras keeps it nowhere else
    if isinstance(layer, keras.layers.Softmax):
        return layer.input, "softmax"
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", "")
    if name not in _SOFTENING:
        return scores, ""
    # The model was loaded for this purpose alone, so its layer may change.
    layer.activation = keras.activations.linear
    return layer(layer.input), name


def open_saved_model(path: Path, choice: Choice) -> KerasClassifier:
    """Return the classifier in a SavedModel folder, by its signature for serving.

    Raises:
        PackRefused: if it has no such signature or takes more than one tensor.
    """
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise PackRefused(
            f"{path}: TensorFlow cannot load it ({_first_line(error)}); export it anew"
        ) from error
    if SIGNATURE not in loaded.signatures:
        found = ", ".join(loaded.signatures) or "none"
        raise PackRefused(
            f"{path}: expected the signature {SIGNATURE!r}, found: {found}; export the model with "
            "model.export(FOLDER)"
        )
    specs = loaded.signatures[SIGNATURE].structured_input_signature[1]
    _refuse_many_inputs(path, list(specs))
    ((name, spec),) = specs.items()
    rows = keras.Input(tuple(spec.shape[1:]), dtype=spec.dtype.name, name=name)
    by_name = keras.layers.TFSMLayer(path, call_endpoint=SIGNATURE)(rows)
    scored = [name for name in by_name if name != choice.features]
    outputs = [by_name[pick(scored, choice.scores, "--model-output", "outputs")]]
    if choice.features not in {None, ROWS}:
        outputs.append(by_name[pick(by_name, choice.features, "--feature-output", "outputs")])
    return KerasClassifier(keras.Model(rows, outputs), "SavedModel", "", choice)


def _refuse_many_inputs(path: Path, names: list[str]) -> None:
    if len(names) != 1:
        raise PackRefused(
            f"{path}: the model takes {len(names)} tensors ({', '.join(names)}); join them in "
            "front of it, so that it takes one tensor of rows"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
