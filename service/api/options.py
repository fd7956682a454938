"""Query string -> what a predict request asks for."""

import math
from dataclasses import dataclass
from urllib.parse import parse_qsl

from service.errors import OptionInvalid

OPTIONS = {
    "version": "a version that is served",
    "alias": "an alias of the catalogue",
    "max_error": "a risk between 0 and 1",
    "min_confidence": "a probability between 0 and 1",
    "top_k": "a whole number from 1 on",
    "include": "best_guess",
    "probabilities": "object or list",
    "deadline_ms": "a number of milliseconds above 0",
}
"""Query parameter -> what it takes, in words."""


@dataclass(frozen=True, slots=True)
class Options:
    """What one request asks for; None: as the model's policy and the settings say."""

    version: str | None = None
    alias: str | None = None
    max_error: float | None = None
    min_confidence: float | None = None
    top_k: int | None = None
    has_best_guess: bool = False
    is_list: bool = False
    """Whether probabilities are a list in the order of the model's labels, not an object."""

    deadline_s: float | None = None

    @property
    def has_version(self) -> bool:
        """Whether it says which version shall answer."""
        return self.version is not None or self.alias is not None


NO_OPTIONS = Options()
MOST_PARAMETERS = 32
"""Parameters of a query. 31 KB of `a&a&a` took 50 ms to parse."""

MOST_LABELS = 1_000_000_000  # more than any model has


def read_options(query: bytes) -> Options:
    """Return the options of a query string.

    Raises:
        OptionInvalid: naming the first parameter that is unknown, repeated or out of bounds.
    """
    if not query:
        return NO_OPTIONS
    refuse_too_many(query)
    values: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in OPTIONS:
            raise OptionInvalid(name[:40], f"only {', '.join(OPTIONS)}", value[:40])
        if name in values:
            raise OptionInvalid(name, "one value", "several")
        values[name] = value
    deadline_ms = _number(values, "deadline_ms", math.inf)
    return Options(
        version=values.get("version"),
        alias=values.get("alias"),
        max_error=_number(values, "max_error", 1.0),
        min_confidence=_number(values, "min_confidence", 1.0),
        top_k=_top_k(values),
        has_best_guess=_has_best_guess(values),
        is_list=_is_list(values),
        deadline_s=None if deadline_ms is None else deadline_ms / 1000,
    )


def refuse_too_many(query: bytes) -> None:
    """Raise if a query has more parameters than are parsed.

    Raises:
        OptionInvalid: with their number.
    """
    parameters = query.count(b"&") + 1
    if parameters > MOST_PARAMETERS:
        raise OptionInvalid("(33rd)", f"at most {MOST_PARAMETERS} parameters", str(parameters))


def _number(values: dict[str, str], name: str, maximum: float) -> float | None:
    if name not in values:
        return None
    try:
        # Python also reads `1_0`, and digits of every script.
        number = float(values[name] if values[name].isascii() and "_" not in values[name] else "?")
    except ValueError:
        number = math.nan
    if not 0 < number <= maximum or math.isinf(number):
        raise OptionInvalid(name, OPTIONS[name], values[name][:40])
    return number


def _top_k(values: dict[str, str]) -> int | None:
    text = values.get("top_k")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and text.strip("0")):
        raise OptionInvalid("top_k", OPTIONS["top_k"], text[:40])
    return min(int(text[:4000]), MOST_LABELS)


def _has_best_guess(values: dict[str, str]) -> bool:
    text = values.get("include")
    if text not in (None, "best_guess"):
        raise OptionInvalid("include", OPTIONS["include"], str(text)[:40])
    return text is not None


def _is_list(values: dict[str, str]) -> bool:
    text = values.get("probabilities", "object")
    if text not in ("object", "list"):
        raise OptionInvalid("probabilities", OPTIONS["probabilities"], text[:40])
    if text == "list" and "top_k" in values:
        raise OptionInvalid("probabilities", "object with top_k: a list has all labels", text)
    return text == "list"
