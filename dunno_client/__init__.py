"""A client of a running Dunno: rows in, verdicts out; it shares no code with the server."""

from dunno_client.answers import Answer, Model, Policy, Prediction, RowError
from dunno_client.client import Dunno, Options
from dunno_client.errors import (
    DeadlineExceeded,
    DunnoError,
    KeyRefused,
    NotFound,
    Overloaded,
    RequestRefused,
    ServerFault,
    Unreachable,
)

__all__ = [
    "Answer",
    "DeadlineExceeded",
    "Dunno",
    "DunnoError",
    "KeyRefused",
    "Model",
    "NotFound",
    "Options",
    "Overloaded",
    "Policy",
    "Prediction",
    "RequestRefused",
    "RowError",
    "ServerFault",
    "Unreachable",
]
