"""Tools and files from elsewhere: a check that lacks its part fails in CI, and skips elsewhere."""

import importlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "k8s"
LINTERS = ROOT / ".venv-deployment/bin"
SCHEMAS = ROOT.parent / "shared/schemas"


def need(found: object, lacking: str) -> None:
    """Skip the test with what is lacking; where everything has to be there, fail."""
    if not found and "DUNNO_CHECK_DEPLOYMENT" not in os.environ:
        pytest.skip(lacking)
    assert found, f"{lacking}, and DUNNO_CHECK_DEPLOYMENT is set"


def installed(tool: str) -> str:
    """Return the path of a tool that `.ci/deployment` installs."""
    path = shutil.which(tool)
    need(path, f"{tool} is not installed: .ci/deployment does it on Debian")
    return str(path)


def linter(name: str) -> str:
    """Return the path of a tool of requirements/deployment.txt."""
    path = LINTERS / name
    need(path.exists(), f"{name} is not installed: `make .venv-deployment/installed` does it")
    return str(path)


def imported(module: str) -> Any:
    """Return a module that only tests import."""
    need(importlib.util.find_spec(module), f"{module} is not installed")
    return importlib.import_module(module)


def schema(name: str) -> Path:
    """Return the path of a schema that lies beside this repository."""
    path = SCHEMAS / name
    need(path.exists(), f"../shared/schemas/{name} is not there")
    return path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a tool in the repository, and return what it said."""
    return subprocess.run(  # noqa: S603  by its path
        command, capture_output=True, check=False, cwd=ROOT, text=True, timeout=120
    )


def rendered(folder: Path) -> str:
    """Return the documents of a folder as kustomize writes them."""
    done = run(installed("kubectl"), "kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    return done.stdout
