"""How metrics are written for those who scrape them."""

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector


class Format(NamedTuple):
    """One way to write them."""

    name: str
    media_type: str
    write: Callable[[Collector], bytes]


TEXT = Format("text", CONTENT_TYPE_PLAIN_0_0_4, generate_latest)
"""Our names have been allowed since that version, which every scraper knows."""

OPEN_METRICS = Format("openmetrics", openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest)
"""The one that has exemplars."""

FORMATS = {each.name: each for each in (TEXT, OPEN_METRICS)}


def format_for(accept: str) -> Format:
    """Return the format that the header Accept asks for: Prometheus' text unless it says more."""
    return OPEN_METRICS if "application/openmetrics-text" in accept else TEXT
