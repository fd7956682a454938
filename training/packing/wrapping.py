"""A user's graph between entry and exit, proved to say what the model says."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from service.bundle import Bundle, Manifest, write_bundle
from service.bundle.manifest import Graph, Tensor
from service.runtimes import RuntimeOptions, load_runtime
from training import export
from training.errors import ExportDiffers
from training.golden import GOLDEN, golden_file, spread
from training.packing.classifiers import Classifier, Look, open_classifier
from training.packing.drafts import draft_manifest
from training.packing.heads import Entry, Exit, Reading, fit_entry, read_scores
from training.packing.labelled import Labelled, read_labelled
from training.packing.request import Request
from training.packing.synthetic import synthetic_rows
from training.recipe import Scores

FILES = {"onnx": "model.onnx", "tensorflow": "saved_model/saved_model.pb"}
"""Runtime -> the file that it cannot do without."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A model, labelled rows, and what the one says of the other."""

    classifier: Classifier
    labelled: Labelled
    entry: Entry
    look: Look
    reading: Reading


def look_at(request: Request) -> Seen:
    """Return what the model of a request says of its calibration rows.

    Raises:
        PackRefused: if model, labels and rows do not go together.
    """
    choice = replace(request.choice, is_hardened=request.returns is None)
    classifier = open_classifier(request.model, choice)
    width = classifier.shape[0] if len(classifier.shape) == 1 else None
    labelled = read_labelled(
        request.calibration, request.labels, request.target, request.input, width
    )
    rows = labelled.rows
    model_shape = tuple(axis or 0 for axis in classifier.shape)
    entry = Entry(rows.shape[1:], rows.dtype.name, model_shape, classifier.dtype, request.scale)
    entry = fit_entry(entry, classifier.shape)
    look = classifier.look(entry, rows)
    reading = read_scores(look.scores, request.labels, request.returns, classifier.softened)
    log.info(reading.reason)
    return Seen(classifier, labelled, entry, look, reading)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A packed graph that says what the model says."""

    contents: dict[str, bytes]
    """Files of the bundle by name: graphs, golden rows, vocabulary."""

    graph: Graph
    scores: Scores
    """Of all calibration rows."""


def wrap(request: Request, seen: Seen, last: Exit) -> Wrapped:
    """Return the packed graph, and what it says of the calibration rows.

    Raises:
        ExportDiffers: if that is not what the model says.
    """
    entry, labelled = seen.entry, seen.labelled
    graph = Graph(
        input=Tensor(name=export.INPUT, dtype=entry.row_dtype, shape=entry.row_shape),
        outputs=tuple(
            Tensor(name=name, dtype="float32", shape=(width,))
            for name, width in last.widths.items()
        ),
    )
    facts = draft_manifest(entry, has_scores=True) | {
        "labels": request.labels,
        "input": labelled.input,
        "graph": graph,
    }
    contents = {**seen.classifier.wrap(entry, last), **labelled.files}
    with tempfile.TemporaryDirectory() as folder:
        draft = write_bundle(
            Path(folder) / "1",
            contents,
            lambda files: Manifest.model_validate({**facts, "files": files}),
        )
        expected = _expected(seen, last)
        outputs = verify(draft, labelled.rows, expected, are_logarithms=last.returns != "logits")
        contents[GOLDEN] = golden_file(draft, _examples(request, labelled))
    scores = Scores(outputs["logits"], outputs["novelty_scores"], labelled.targets)
    return Wrapped(contents, graph, scores)


def _examples(request: Request, labelled: Labelled) -> NDArray[np.generic]:
    """Return the golden rows, which every client of the model sees as examples."""
    if request.publish_examples:
        return labelled.rows[spread(len(labelled.rows))]
    return synthetic_rows(labelled)


def _expected(seen: Seen, last: Exit) -> dict[str, NDArray[np.float32]]:
    """Return what the bundle must return: the model's own numbers, and what is made of them."""
    outputs = last.apply(
        keras.ops,
        keras.ops.convert_to_tensor(seen.look.scores),
        None if seen.look.features is None else keras.ops.convert_to_tensor(seen.look.features),
    )
    return {name: np.asarray(value) for name, value in outputs.items()}


def runtimes_of(bundle: Bundle) -> tuple[str, ...]:
    """Return the runtimes whose files are in the bundle: a packed ONNX graph has no SavedModel."""
    return tuple(name for name, file in FILES.items() if file in bundle.manifest.files)


def verify(
    bundle: Bundle,
    rows: NDArray[np.generic],
    expected: Mapping[str, NDArray[np.float32]],
    *,
    are_logarithms: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Return what the packed graph says of all rows, the same on each runtime and batch size.

    Args:
        bundle: the draft.
        rows: shape (rows, *input).
        expected: outputs by name, of these rows.
        are_logarithms: of probabilities that the model returned, so that these are compared.

    Raises:
        ExportDiffers: if it is not what the model said; names runtime, batch size and output.
    """
    some = rows[: export.COMPARED_ROWS]
    for name in runtimes_of(bundle):
        runtime = load_runtime(name, bundle, RuntimeOptions(threads=2, device="cpu"))
        for batch_rows in export.BATCH_ROWS:
            outputs = export.run_rows(runtime, some, batch_rows)
            for output, values in outputs.items():
                told = expected[output][: len(some)]
                if are_logarithms and output == "logits":
                    values, told = softmax(values, axis=1), softmax(told, axis=1)  # noqa: PLW2901
                difference = np.abs(values - told).max(initial=0.0)
                if not difference <= export.TOLERANCE:
                    raise ExportDiffers(
                        f"{name}, batches of {batch_rows}: {output} differs by {difference:.2g} "
                        f"from what the model says, allowed is {export.TOLERANCE}; see whether it "
                        "depends on the other rows of a batch"
                    )
    runtime = load_runtime("onnx", bundle, RuntimeOptions(threads=2, device="cpu"))
    return export.run_rows(runtime, rows, export.BATCH_ROWS[0])
