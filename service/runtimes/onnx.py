"""ONNX Runtime, on the CPU or, where a CUDA provider is installed and works, on a GPU."""

import logging

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.bundle import Bundle
from service.errors import BundleCorrupt, CatalogueInvalid
from service.runtimes.onnx_file import check_onnx
from service.runtimes.protocol import Outputs, RuntimeOptions

MODEL = "model.onnx"

log = logging.getLogger(__name__)


class OnnxRuntime:
    """A session created from bytes, so that no external file can be reached from the graph."""

    def __init__(self, bundle: Bundle, options: RuntimeOptions) -> None:
        graph = bundle.manifest.graph
        self._input_name = graph.input.name
        names = {tensor.name for tensor in graph.outputs}
        self._output_names = [name for name in Outputs._fields if name in names]
        providers = _providers(options.device)
        self._session = _create_session(bundle, options, providers)
        on_cuda = self._session.get_providers()[0] == "CUDAExecutionProvider"
        self.device = "cuda" if on_cuda else "cpu"
        self.has_buckets = on_cuda
        if not on_cuda and (options.device == "cuda" or "CUDAExecutionProvider" in providers):
            log.warning(
                "CUDA was asked for and cannot be used; running on the CPU",
                extra={"model": bundle.manifest.name, "providers": providers},
            )

    def run(self, rows: NDArray[np.generic]) -> Outputs:
        """Return the outputs for `rows`; see `Runtime.run`."""
        outputs = self._session.run(self._output_names, {self._input_name: rows})
        if len(outputs) < len(Outputs._fields):
            outputs.append(np.empty((len(rows), 0), np.float32))
        return Outputs(*outputs)


def _create_session(
    bundle: Bundle, options: RuntimeOptions, providers: list[str]
) -> onnxruntime.InferenceSession:
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = 3
    # Spinning threads would eat the CPU quota of the container between requests.
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session_options.add_session_config_entry("session.load_model_format", "ONNX")
    name = _file_of(bundle, options.variant)
    content = bundle.read(name)
    check_onnx(content, str(bundle.path / name))
    try:
        return onnxruntime.InferenceSession(content, session_options, providers=providers)
    except Exception as error:
        # ONNX Runtime's exceptions share no base class but Exception.
        message = f"{bundle.path / name}: ONNX Runtime cannot load it ({type(error).__name__})"
        raise BundleCorrupt(message) from error


def _file_of(bundle: Bundle, variant: str | None) -> str:
    if variant is None:
        return MODEL
    variants = bundle.manifest.variants
    if variant not in variants:
        there = ", ".join(variants) or "none"
        raise CatalogueInvalid(f"{bundle.path}: no variant {variant!r}; there are: {there}")
    return variants[variant].file


def _providers(device: str) -> list[str]:
    wanted = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        wanted.insert(0, "CUDAExecutionProvider")
    return wanted
