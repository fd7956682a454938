"""The model server: what a request goes through."""

import os

__version__ = "0.1.0"

# This server calls nobody: ONNX Runtime would report its use to its makers. Set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
