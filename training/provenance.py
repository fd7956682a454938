"""Where a bundle comes from: code, data, libraries, machine, time."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path

from service.bundle.manifest import Provenance
from training.recipe import Data, Recipe

LIBRARIES = ("keras", "numpy", "onnxruntime", "scikit-learn", "tensorflow", "tf2onnx")
"""Those whose version may change a weight or an output."""


def provenance_of(
    recipe: Recipe, data: Data, seconds: float, producer: Mapping[str, str] | None = None
) -> Provenance:
    """Return the provenance of a bundle made just now.

    Args:
        recipe: what was made.
        data: what it was made from.
        seconds: of wall time.
        producer: library that wrote the graph elsewhere -> its version.
    """
    return Provenance(
        recipe=recipe.name,
        network=recipe.network,
        seed=recipe.seed,
        data_sha256=dict(data.sha256),
        libraries={name: version_of(name) for name in LIBRARIES} | dict(producer or {}),
        commit=_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(max(seconds, 1e-3), 3),
        machine=f"{os.cpu_count()} cores, {platform.machine().replace('_', '-')}",
    )


def _commit() -> str:
    """Return the commit of the code, or `unknown` outside of a repository with one."""
    command = ("git", "rev-parse", "--verify", "--quiet", "HEAD")
    try:
        answer = subprocess.run(  # noqa: S603  # a constant command
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return answer.stdout.strip() or "unknown"
