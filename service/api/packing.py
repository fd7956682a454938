"""Answers that are compressed for callers who take that."""

import asyncio
from contextlib import suppress

from service.inputs.compression import CODINGS, deflated

WORTH_PACKING_BYTES = 1400
"""What fits into one packet is sent as it is."""

LIGHT_PACKING_BYTES = 65_536
"""More is compressed beside the event loop."""


async def packed(body: bytes, coding: str) -> bytes:
    """Return a body compressed, beside the event loop if it is large."""
    if len(body) <= LIGHT_PACKING_BYTES:
        return deflated(body, coding)
    return await asyncio.to_thread(deflated, body, coding)


def accepted_coding(accepted: str) -> str:
    """Return the first coding that a caller takes and we write; nothing if there is none."""
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in CODINGS and _is_above_zero(weight):
            return name.strip()
    return ""


def _is_above_zero(weight: str) -> bool:
    """Tell whether a weight, such as `q=0.5`, lets a coding be used; without one it may."""
    name, _, value = weight.partition("=")
    with suppress(ValueError):
        return name.strip() != "q" or float(value) > 0
    return True
