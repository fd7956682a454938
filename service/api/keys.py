"""API keys: who may ask, for which models and how often, by the operator's file `DUNNO_KEYS`.

The file holds digests only; a key itself is seen once, by whoever made it. It is read anew whenever
the catalogue is, so that keys come and go while the server runs.
"""

import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.types import Scope

from service.api.middleware import Headers
from service.api.problems import OUTCOME
from service.errors import ConcurrencyExceeded, KeysInvalid, RateExceeded
from service.files import read_toml
from service.prediction import Catalogue
from service.telemetry.metrics import KEY_OUTCOMES, UNKNOWN_MODEL, Metrics

MARK = "dunno_"
"""What every key of ours begins with, so that scanners of sources find those that got lost."""

RANDOM_BYTES = 32
MOST_DIGESTS = 2
"""Of one name: the key of today, and the one before or after it."""

_GRACE_S = 1e-6  # what sums of floats may be off; no caller can tell
_SCHEME = b"bearer "
_NEWEST_SHARE = 0.1

_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
KeyName = Annotated[str, Field(pattern=_NAME)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeyEntry(BaseModel):
    """The API keys and limits of one client."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sha256: tuple[Digest, ...] = Field(min_length=1, max_length=MOST_DIGESTS)
    """SHA-256 digests of the client's API keys. Two digests allow a change of keys."""

    models: tuple[str, ...] | None = None
    """Models that the client may use. If unset, all models."""

    requests_per_s: float | None = Field(default=None, ge=1e-6, le=1e6)
    """Rate limit: requests per second to each worker. If unset, there is no limit."""

    burst: float | None = Field(default=None, ge=1, le=1e6)
    """Requests that may come at once after a pause. Default: the requests of one second."""

    concurrent_requests: int | None = Field(default=None, ge=1, le=1_000_000)
    """Maximum concurrent requests to each worker. If unset, there is no limit."""

    metrics: bool = False
    """Access to /metrics on the models' address."""

    @model_validator(mode="after")
    def _burst_has_a_rate(self) -> Self:
        if self.burst is not None and self.requests_per_s is None:
            raise ValueError("burst: needs requests_per_s")
        return self


class KeyFile(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: dict[KeyName, KeyEntry] = Field(min_length=1)
    """Settings for each client name. Metrics and logs contain the name."""

    @model_validator(mode="after")
    def _nobody_shares_a_key(self) -> Self:
        names: dict[str, str] = {}
        for name, entry in self.keys.items():
            for digest in entry.sha256:
                if digest in names:
                    raise ValueError(f"{name}.sha256: one of {names[digest]} as well")
                names[digest] = name
        return self


def read_key_file(path: Path) -> KeyFile:
    """Return the content of a file of keys.

    Raises:
        KeysInvalid: naming the file and what is wrong with it.
    """
    try:
        return KeyFile.model_validate(read_toml(path))
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); set DUNNO_KEYS to a file of keys"
        raise KeysInvalid(message) from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "keys"
        reason = first["msg"].removeprefix("Value error, ")
        raise KeysInvalid(f"{path}: {where}: {reason}") from None
    except ValueError as error:
        raise KeysInvalid(f"{path}: {error}") from None


def is_key_name(text: str) -> bool:
    """Whether a text can be a caller's name: one that TOML takes without quotes."""
    return re.match(_NAME, text) is not None and not text.endswith("\n")


def new_key() -> str:
    """Return a key that nobody can guess: 256 random bits."""
    return MARK + secrets.token_urlsafe(RANDOM_BYTES)


def digest_of(key: str) -> str:
    """Return what a file says of a key.

    Nothing slower is needed than SHA-256: what has 256 random bits is in no dictionary.
    """
    return hashlib.sha256(key.encode()).hexdigest()


class Key:
    """One caller by name: what there is for him, and how much of his share he has taken.

    Plain numbers, changed on the event loop only. Whoever enters has to leave or to give back.
    """

    __slots__ = (
        "_ahead_s",
        "_counted",
        "_due_s",
        "_interval_s",
        "_mean_s",
        "_most_in_flight",
        "in_flight",
        "may_read_metrics",
        "models",
        "name",
    )

    def __init__(self, name: str, entry: KeyEntry, metrics: Metrics) -> None:
        self.name = name
        self.in_flight = 0
        self._counted = {
            outcome: metrics.key_requests.labels(name, outcome) for outcome in KEY_OUTCOMES
        }
        self._due_s = -math.inf
        self._mean_s = 0.0
        self.allow(entry)

    def allow(self, entry: KeyEntry) -> None:
        """Allow from now on what an entry says; what was taken before stays taken."""
        self.models = None if entry.models is None else frozenset(entry.models)
        self.may_read_metrics = entry.metrics
        self._most_in_flight = entry.concurrent_requests or math.inf
        rate = entry.requests_per_s
        self._interval_s = 0.0 if rate is None else 1 / rate
        burst = 1.0 if rate is None else entry.burst or max(1.0, rate)
        self._ahead_s = (burst - 1) * self._interval_s
        # A debt by the former rate is no larger than one by this.
        most_s = time.monotonic() + self._ahead_s + self._interval_s
        self._due_s = min(self._due_s, most_s)

    def sees(self, model: str) -> bool:
        """Whether there is such a model for this caller."""
        return self.models is None or model in self.models

    def enter(self, now_s: float) -> None:
        """Take a place for one request.

        A bucket of tokens, told by when it will be full: the generic cell rate algorithm (ITU-T
        I.371), which is one number and no timer.

        Args:
            now_s: `time.monotonic()`.

        Raises:
            ConcurrencyExceeded: if as many are worked on as may be.
            RateExceeded: if he has asked too often.
        """
        if self.in_flight >= self._most_in_flight:
            raise ConcurrencyExceeded(self.in_flight, self._mean_s / self.in_flight)
        if self._interval_s:
            due_s = max(self._due_s, now_s)
            wait_s = due_s - self._ahead_s - now_s
            if wait_s > _GRACE_S:
                raise RateExceeded(1 / self._interval_s, wait_s)
            self._due_s = due_s + self._interval_s
        self.in_flight += 1

    def give_back(self) -> None:
        """Undo the last `enter`: the request goes another way and will enter there."""
        self._due_s -= self._interval_s
        self.in_flight -= 1

    def leave(self, status: int, seconds: float) -> None:
        """Give the place up and count what became of the request; status 0: he hung up."""
        self.in_flight -= 1
        self._mean_s += _NEWEST_SHARE * (seconds - self._mean_s)
        self.count("ok" if 0 < status < 400 else outcome_of(status))

    def count(self, outcome: str) -> None:
        """Count a request that did not enter."""
        self._counted[outcome].inc()


def outcome_of(status: int) -> str:
    """Return how a request that was not answered is counted with its key."""
    return OUTCOME.get(status, "invalid") if status else "cancelled"


class Keys:
    """All callers that are let in, found by the key that they show."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        """Read the file.

        Raises:
            KeysInvalid: naming what is wrong with it.
        """
        self._path = path
        self._metrics = metrics
        self._by_name: dict[str, Key] = {}
        self._by_digest: dict[bytes, Key] = {}
        for cause in ("rate", "concurrency"):
            metrics.rejections.labels(UNKNOWN_MODEL, cause)
        self._use(read_key_file(path))

    def read_anew(self) -> Callable[[], None]:
        """Read the file, in any thread, and return what puts it in force on the event loop.

        Raises:
            KeysInvalid: if it cannot be used.
        """
        file = read_key_file(self._path)
        return lambda: self._use(file)

    def find(self, headers: Headers) -> Key | None:
        """Return whose key a request shows; None if it shows none of ours."""
        shown = shown_key(headers)
        # How long a look into a dictionary takes may tell how far two digests agree. Nobody learns
        # a key from that: he would have to find texts with digests of his choice.
        return self._by_digest.get(hashlib.sha256(shown).digest()) if shown else None

    def _use(self, file: KeyFile) -> None:
        before, self._by_name = self._by_name, {}
        for name, entry in file.keys.items():
            key = before.pop(name, None)
            if key is None:
                key = Key(name, entry, self._metrics)
            key.allow(entry)
            self._by_name[name] = key
        self._by_digest = {
            bytes.fromhex(digest): self._by_name[name]
            for name, entry in file.keys.items()
            for digest in entry.sha256
        }
        for name in before:
            for outcome in KEY_OUTCOMES:
                self._metrics.key_requests.remove(name, outcome)


def shown_key(headers: Headers) -> bytes:
    """Return the key that a request shows as its bearer's or as X-API-Key; nothing if none."""
    other = b""
    for name, value in headers:
        if name == b"authorization":
            if value[:7].lower() == _SCHEME:
                return value[7:].strip()
        elif name == b"x-api-key":
            other = other or value
    return other


def key_of(scope: Scope) -> Key | None:
    """Return whose request this is; None where nobody needs a key."""
    key: Key | None = scope.get("state", {}).get("key")
    return key


def seen_by(scope: Scope, catalogue: Catalogue) -> Catalogue:
    """Return the models that there are for the caller of a request."""
    key = key_of(scope)
    return catalogue if key is None else catalogue.limited_to(key.models)
