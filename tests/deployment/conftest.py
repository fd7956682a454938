"""What an operator would apply, read as data."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def read_documents(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each document of each YAML file below `folder`, with the file's path."""
    if "DUNNO_CHECK" not in os.environ:
        pytest.importorskip("yaml", reason="`make test` installs PyYAML")
    import yaml  # noqa: PLC0415  only where it is installed

    for path in sorted(folder.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield str(path.relative_to(folder)), document


@pytest.fixture(scope="session")
def manifests() -> Mapping[str, list[dict[str, Any]]]:
    """Documents by path below k8s/."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, document in read_documents(ROOT / "k8s"):
        found.setdefault(path, []).append(document)
    return found


@pytest.fixture(scope="session")
def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in pairs]
