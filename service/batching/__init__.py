"""Rows of many callers are run together."""

from service.batching.batcher import Batcher, Delivery, Job, Receiver
from service.batching.limits import BatchLimits

__all__ = ["BatchLimits", "Batcher", "Delivery", "Job", "Receiver"]
