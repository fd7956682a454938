"""Compression of answers, for clients that accept it."""

import asyncio
from contextlib import suppress

from service.inputs.compression import CODINGS, deflated

WORTH_PACKING_BYTES = 1400
"""Smaller answers are not compressed: they fit into one packet."""

LIGHT_PACKING_BYTES = 65_536
"""Larger answers are compressed in a thread."""


async def packed(body: bytes, coding: str) -> bytes:
    """Return a body compressed, in a thread if it is large."""
    if len(body) <= LIGHT_PACKING_BYTES:
        return deflated(body, coding)
    return await asyncio.to_thread(deflated, body, coding)


def accepted_coding(accepted: str) -> str:
    """Return the first coding of Accept-Encoding that is supported, else an empty text."""
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in CODINGS and _is_above_zero(weight):
            return name.strip()
    return ""


def _is_above_zero(weight: str) -> bool:
    """Return whether a weight, such as `q=0.5`, allows a coding; no weight allows it."""
    name, _, value = weight.partition("=")
    with suppress(ValueError):
        return name.strip() != "q" or float(value) > 0
    return True
