"""Measures: the saturation curve of any HTTP server, and batch settings for a latency goal."""

from service.bench.curve import Plan, Step, knee, measure_curve
from service.bench.failures import BenchFailed
from service.bench.request import Request, Sample, ask_once, build_request

__all__ = [
    "BenchFailed",
    "Plan",
    "Request",
    "Sample",
    "Step",
    "ask_once",
    "build_request",
    "knee",
    "measure_curve",
]
