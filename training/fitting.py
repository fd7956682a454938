"""Fits Keras models epoch by epoch: a progress bar, and a start that carries on where one stopped.

The checkpoint is weights and optimizer in one file and a small state that names it. The state is
replaced by one rename after the weights are on disk, so an interruption at any moment costs at
most the epoch it fell into.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf
from tqdm.auto import tqdm

from training.recipe import Curves, Split, Workbench

STATE = "state.json"
_SERIES = {"train": "", "validation": "val_"}
_VALIDATION_BATCH_ROWS = 500


def fit_epochs(
    model: keras.Model,
    batches: Callable[[int], tf.data.Dataset],
    validation: Split | None,
    epochs: int,
    workbench: Workbench,
) -> Curves:
    """Fit `model` and return how it went.

    Args:
        model: compiled, with the metric `accuracy`.
        batches: epoch, from 0, -> its batches; the same for the same epoch.
        validation: measured after each epoch, chooses nothing here.
        epochs: how many in all, those of earlier starts included.
        workbench: keeps the checkpoints.
    """
    history = _resume(model, workbench.folder)
    measured = None if validation is None else _plain_batches(validation)
    left = range(len(history), epochs)
    for epoch in tqdm(left, initial=len(history), total=epochs, desc="epochs"):
        result = model.fit(
            batches(epoch),
            validation_data=measured,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,  # the batches are
            verbose=0,
            callbacks=[_Progress(f"epoch {epoch + 1}/{epochs}")],
        )
        history.append({name: float(values[-1]) for name, values in result.history.items()})
        _save(model, history, workbench.folder)
    return curves(history)


@contextmanager
def fast_arithmetic() -> Iterator[None]:
    """Let layers made inside multiply in bfloat16 where the processor can; weights stay float32.

    Half as long again to fit otherwise. What is exported is built anew outside, in float32.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if _has_bfloat16() else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _has_bfloat16() -> bool:
    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except FileNotFoundError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def curves(history: list[dict[str, float]]) -> Curves:
    """Return the curves of a history with one entry an epoch, named as Keras names them."""

    def series(measure: str) -> dict[str, tuple[float, ...]]:
        return {
            name: tuple(entry[prefix + measure] for entry in history)
            for name, prefix in _SERIES.items()
            if history and prefix + measure in history[0]
        }

    steps = tuple(float(epoch) for epoch in range(1, len(history) + 1))
    return Curves(axis="epoch", steps=steps, loss=series("loss"), accuracy=series("accuracy"))


def _plain_batches(split: Split) -> tf.data.Dataset:
    whole = tf.data.Dataset.from_tensor_slices((split.rows, split.targets))
    return whole.batch(_VALIDATION_BATCH_ROWS)


def _resume(model: keras.Model, folder: Path) -> list[dict[str, float]]:
    try:
        state = json.loads((folder / STATE).read_text())
    except FileNotFoundError:
        return []
    model.optimizer.build(model.trainable_variables)
    model.load_weights(folder / state["weights"])
    history: list[dict[str, float]] = state["history"]
    return history


def _save(model: keras.Model, history: list[dict[str, float]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"epoch_{len(history):04d}.weights.h5"
    model.save_weights(weights)
    unfinished = folder / f"{STATE}.part"
    unfinished.write_text(json.dumps({"weights": weights.name, "history": history}))
    unfinished.replace(folder / STATE)
    for other in folder.glob("epoch_*.weights.h5"):
        if other != weights:
            other.unlink()


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """A bar over the steps of one epoch, gone when it is over."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002  # Keras
        self._bar = tqdm(total=self.params["steps"], desc=self._title, unit=" batches", leave=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        self._bar.update()
        if self._bar.n % 20 == 0:
            self._bar.set_postfix({name: f"{value:.4f}" for name, value in logs.items()})

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._bar.close()
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
        tqdm.write(f"epoch {epoch + 1}: {numbers}")
