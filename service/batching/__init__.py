"""Rows of many callers are run together."""

from service.batching.batcher import Batcher
from service.batching.limits import BatchLimits

__all__ = ["BatchLimits", "Batcher"]
