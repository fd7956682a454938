"""Manifests that are enough to run a graph, for bundles that nobody will serve."""

from typing import Any

from service.bundle.manifest import (
    FeatureField,
    FeatureInput,
    Graph,
    Novelty,
    Policy,
    Provenance,
    TailTable,
    TemperatureScaling,
    Tensor,
)
from training.packing.heads import Entry

_TAIL = TailTable(values=(0, 1), tails=(1, 0.5))
_POLICY = Policy(
    max_error=None,
    threshold=1,
    novelty_alpha=0,
    status="uncertified",
    split="none",
    n=0,
    mixture="",
)
_ORIGIN = Provenance(
    recipe="draft",
    network="",
    seed=0,
    data_sha256={},
    libraries={},
    commit="unknown",
    created="",
    seconds=1,
    machine="",
)


def draft_manifest(entry: Entry, *, has_scores: bool) -> dict[str, Any]:
    """Return the facts of a manifest, all but `files`, for a graph that is only looked at.

    Shapes and labels stand for whatever there is: a runtime goes by names.
    """
    outputs = [Tensor(name="logits", dtype="float32", shape=(2,))]
    if has_scores:
        outputs.append(Tensor(name="novelty_scores", dtype="float32", shape=(1,)))
    novelty = Novelty(names=("any",), tables=(_TAIL,), combined=_TAIL, split="none", n=1)
    return {
        "name": "draft",
        "version": "1",
        "description": "",
        "labels": ("0", "1"),
        "input": FeatureInput(fields=(FeatureField(name="any"),)),
        "graph": Graph(
            input=Tensor(name="rows", dtype=entry.row_dtype, shape=(1,)),
            outputs=tuple(outputs),
        ),
        "calibration": TemperatureScaling(temperature=1, split="none", n=0),
        "novelty": novelty if has_scores else None,
        "conformal": None,
        "policy": _POLICY,
        "provenance": _ORIGIN,
    }
