"""TensorFlow, serving the SavedModel of a bundle; needs the extra `tensorflow`."""

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.bundle import Bundle
from service.errors import BundleCorrupt, CatalogueInvalid
from service.runtimes.protocol import Outputs, RuntimeOptions
from service.runtimes.saved_model import GRAPH, check_saved_model

SAVED_MODEL = "saved_model"


class TensorFlowRuntime:
    """The SavedModel's `serve` function."""

    def __init__(self, bundle: Bundle, options: RuntimeOptions) -> None:
        if options.variant is not None:
            raise CatalogueInvalid(
                f"{bundle.path}: the runtime 'tensorflow' serves no variant "
                f"({options.variant!r} was asked for); 'onnx' does"
            )
        _limit_threads(options.threads)
        contents = _read_files(bundle)
        try:
            self._model = _load(contents)
            # Bound to one signature, so that no call has to look for it.
            rows = bundle.manifest.graph.input
            spec = tf.TensorSpec((None, *rows.shape), rows.dtype)
            self._serve = self._model.serve.get_concrete_function(spec)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            message = f"{bundle.path / SAVED_MODEL}: TensorFlow cannot load it"
            raise BundleCorrupt(message) from error
        on_gpu = options.device != "cpu" and bool(tf.config.list_physical_devices("GPU"))
        self.device = "cuda" if on_gpu else "cpu"
        self.has_buckets = True  # a new batch size is traced or tuned anew
        self._placement = "/GPU:0" if on_gpu else "/CPU:0"

    def run(self, rows: NDArray[np.generic]) -> Outputs:
        """Return the outputs for `rows`; see `Runtime.run`."""
        with tf.device(self._placement):
            outputs = self._serve(tf.constant(rows))
        scores = outputs.get("novelty_scores")
        return Outputs(
            outputs["logits"].numpy(),
            np.empty((len(rows), 0), np.float32) if scores is None else scores.numpy(),
        )


def _read_files(bundle: Bundle) -> dict[str, bytes]:
    """Return the files of the SavedModel, checked, by their names in its folder."""
    prefix = f"{SAVED_MODEL}/"
    names = [name for name in bundle.manifest.files if name.startswith(prefix)]
    if f"{prefix}{GRAPH}" not in names:
        raise BundleCorrupt(f"{bundle.path}: holds no SavedModel, only ONNX")
    contents = {name.removeprefix(prefix): bundle.read(name) for name in names}
    check_saved_model(contents[GRAPH], contents, str(bundle.path / SAVED_MODEL))
    return contents


def _load(contents: Mapping[str, bytes]) -> Any:
    """Return the SavedModel in these files.

    TensorFlow reads folders only. It gets one in its own memory, made of the bytes that were
    checked: whoever can write to the bundle's folder cannot change them after the check.
    """
    folder = f"ram://dunno-{uuid.uuid4()}"
    try:
        for name, content in contents.items():
            path = f"{folder}/{name}"
            tf.io.gfile.makedirs(path.rpartition("/")[0])
            with tf.io.gfile.GFile(path, "wb") as file:
                file.write(content)
        return tf.saved_model.load(folder)
    finally:
        tf.io.gfile.rmtree(folder)


def _limit_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # TensorFlow has one thread pool a process, sized by the first model that ran.
        return
