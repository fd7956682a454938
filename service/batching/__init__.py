"""Rows of many callers are run together."""

from service.batching.batcher import Batcher, Delivery
from service.batching.limits import BatchLimits
from service.batching.waiting import Job, Lane, Receiver

__all__ = ["BatchLimits", "Batcher", "Delivery", "Job", "Lane", "Receiver"]
