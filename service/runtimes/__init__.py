"""Engines by name; one file each, imported only when it is chosen."""

import importlib
from collections.abc import Callable
from typing import cast

from service.bundle import Bundle
from service.errors import RuntimeUnavailable, install_line
from service.runtimes.protocol import Outputs, Runtime, RuntimeOptions

__all__ = ["RUNTIMES", "Outputs", "Runtime", "RuntimeOptions", "load_runtime"]

RUNTIMES = {
    "onnx": "service.runtimes.onnx:OnnxRuntime",
    "tensorflow": "service.runtimes.tensorflow:TensorFlowRuntime",
}
"""Runtime name -> "module:Class"; the class takes (bundle, options)."""


def load_runtime(name: str, bundle: Bundle, options: RuntimeOptions) -> Runtime:
    """Return a runtime of that name with the bundle's graph loaded.

    Raises:
        RuntimeUnavailable: if there is no such runtime or its packages are not installed.
        BundleCorrupt: if the graph cannot be loaded.
        CatalogueInvalid: if the bundle has no such variant, or the runtime serves none.
    """
    if name not in RUNTIMES:
        raise RuntimeUnavailable(f"no runtime {name!r}; there are: {', '.join(RUNTIMES)}")
    module_name, _, class_name = RUNTIMES[name].partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(
            f"runtime {name!r} needs the package {error.name!r}; {install_line(name)}"
        ) from error
    create = cast("Callable[[Bundle, RuntimeOptions], Runtime]", getattr(module, class_name))
    return create(bundle, options)
