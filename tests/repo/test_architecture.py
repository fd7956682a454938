"""The arrows of the architecture, read from the imports themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAVES = {
    "service.errors",
    "service.settings",
    "service.memory",
    "service.files",
    "service.leaving",
    "service.telemetry",
    "service",
}
MAY_IMPORT = {
    "service.errors": set(),
    "service.settings": set(),
    "service.memory": set(),
    "service.files": set(),
    "service.leaving": set(),
    "service.telemetry": set(),
    "service.bundle": {"service.bundle"},
    "service.decision": {"service.decision", "service.bundle"},
    "service.runtimes": {"service.runtimes", "service.bundle", "service.decision"},
    "service.inputs": {"service.inputs", "service.bundle"},
    "service.batching": {
        *("service.batching", "service.runtimes", "service.decision", "service.bundle"),
    },
    "service.prediction": {
        *("service.prediction", "service.batching", "service.runtimes", "service.inputs"),
        *("service.decision", "service.bundle"),
    },
    "service.api": {
        *("service.api", "service.prediction", "service.inputs", "service.decision"),
    },
    "service.app": {"service.api", "service.prediction"},
    "service.posture": {"service.api", "service.prediction"},
    "service.bench": {"service.bench"},
    "service.terminal": {"service.prediction"},
    "service.offline": {
        *("service.offline", "service.api", "service.prediction", "service.inputs"),
        *("service.decision", "service.terminal"),
    },
    "service.cli": {
        *("service.app", "service.api", "service.prediction", "service.inputs", "service.bench"),
        *("service.posture", "service.offline", "service.terminal"),
    },
    "training": {
        *("training", "service.inputs", "service.runtimes", "service.decision", "service.bundle"),
    },
}
"""Layer -> layers it may import, beside the leaves."""

ONLY_IN = {
    "fastapi": ("service/api/", "service/app.py"),
    "starlette": ("service/api/", "service/app.py"),
    "onnxruntime": ("service/runtimes/onnx.py", "training/quantize.py"),
    "tensorflow": ("service/runtimes/tensorflow.py", "training/"),
    "keras": ("training/",),
    "matplotlib": ("service/bench/plot.py", "training/"),
    "PIL": ("service/inputs/pictures.py", "service/inputs/webp.py", "training/"),
    "kornia_rs": ("service/inputs/images.py",),
    "cryptography": ("service/bundle/signatures.py", "training/signing.py"),
    "model_signing": ("training/signing.py",),
    "prometheus_client": ("service/telemetry/", "service/api/probes.py"),
    "httpx": ("dunno_client/",),
    "dunno_client": ("service/offline/engines.py", "dunno_client/"),
    "pyarrow": ("service/offline/", "training/"),
    "training": ("training/",),
    "scipy": ("training/",),
    "sklearn": ("training/",),
}
"""Package -> the only places that may import it."""

CLIENT = sorted(ROOT.glob("dunno_client/*.py"))
FILES = sorted([*ROOT.glob("service/**/*.py"), *ROOT.glob("training/**/*.py"), *CLIENT])


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == "training" else ".".join(parts[:2])


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_follow_the_arrows(path: Path) -> None:
    own = layer(relative(path).removesuffix(".py").replace("/", "."))
    allowed = MAY_IMPORT.get(own, set()) | LEAVES

    found = {layer(name) for name in imports(path) if name.startswith(("service.", "training."))}
    known = {each for each in found if each in MAY_IMPORT}

    assert known <= allowed, f"{relative(path)} imports {known - allowed}"


@pytest.mark.parametrize("path", CLIENT, ids=relative)
def test_client_shares_no_code_with_the_server(path: Path) -> None:
    others = [name for name in imports(path) if name.split(".")[0] in {"service", "training"}]

    assert others == []


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_package_is_imported_only_where_it_belongs(path: Path) -> None:
    for name in imports(path):
        places = ONLY_IN.get(name.split(".")[0])
        assert not places or relative(path).startswith(places), f"{relative(path)} imports {name}"


def test_service_knows_no_model_by_name() -> None:
    names = {path.parent.name for path in ROOT.glob("models/*/[0-9]*")}

    text = "\n".join(path.read_text().lower() for path in ROOT.glob("service/**/*.py"))

    assert names
    assert not [name for name in names if name in text]
