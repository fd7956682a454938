"""Asks a running Dunno, again if it may help, and never beyond the deadline."""

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx

from dunno_client.answers import Answer, Model, answer_of, model_of
from dunno_client.bodies import body_of
from dunno_client.errors import DeadlineExceeded, Overloaded, ServerFault, Unreachable, failure_of

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
"""Bounds of what is waited between two tries, beside what the server asks for."""

SHORTEST_S = 0.001
_PROXIES = tuple(
    name
    for each in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (each.upper(), each)
)
Content = TypeVar("Content")


class Options(TypedDict, total=False):
    """What a prediction may ask for; None or absent: as the model's policy says."""

    max_error: float | None
    min_confidence: float | None
    top_k: int | None
    version: str | None
    alias: str | None


class Dunno:
    """A server, and the connections to it; threads may share one. Close it, or use `with`."""

    def __init__(
        self, url: str, key: str | None = None, *, deadline_s: float = 30.0, retries: int = 3
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: of the server, such as `http://127.0.0.1:8000`.
            key: shown with every request.
            deadline_s: from the call on, all tries and pauses together; none begins later, and
                none waits longer for the next byte.
            retries: how often at most a request is sent again.

        Raises:
            ValueError: if one of these, or a proxy in the environment, cannot be used.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected http://… or https://…, got {url!r}")
        if deadline_s <= 0:
            raise ValueError(f"deadline_s: expected seconds above 0, got {deadline_s}")
        if retries < 0:
            raise ValueError(f"retries: expected 0 or more, got {retries}")
        headers = {} if key is None else {"Authorization": f"Bearer {key.strip()}"}
        self._client = _connected(url, headers)
        self._deadline_s = deadline_s
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def predict(self, model: str, rows: Any, **options: Unpack[Options]) -> Answer:
        """Return the verdicts on rows.

        Args:
            model: a model that is served.
            rows: see `body_of`: objects, lists, texts, arrays, frames, pictures, bytes of pictures.
            options: `max_error`, `min_confidence`, `top_k`, and `version` or `alias`.

        Raises:
            DunnoError: if there is no answer; that of a bad row among others is in its place.
            TypeError, ValueError, OSError: if rows are nothing that can be sent.
        """
        return self._predict(model, body_of(rows), options)

    def predict_body(
        self, model: str, content: bytes, media_type: str, **options: Unpack[Options]
    ) -> Answer:
        """Return the verdicts on the rows of a body as it is, such as a CSV file.

        Args:
            model: a model that is served.
            content: of the request.
            media_type: such as `text/csv`.
            options: see `predict`.

        Raises:
            DunnoError: as `predict` does.
        """
        body = {"content": content, "headers": {"Content-Type": media_type}}
        return self._predict(model, body, options)

    def _predict(self, model: str, body: Mapping[str, Any], options: Options) -> Answer:
        asked = {name: value for name, value in options.items() if value is not None}
        path = f"/predict/{quote(model, safe='')}"
        return _read(answer_of, self._ask("POST", path, params=asked, **body))

    def models(self) -> tuple[Model, ...]:
        """Return the models that are served, as far as the key goes; raises as `predict` does."""
        response = self._ask("GET", "/models")
        return _read(lambda found: tuple(map(model_of, found["models"])), response)

    def model(self, name: str) -> Model:
        """Return all that the server says of a model; raises as `predict` does."""
        return _read(model_of, self._ask("GET", f"/models/{quote(name, safe='')}"))

    def _ask(self, method: str, path: str, **asked: Any) -> httpx.Response:
        """Return the response with an answer; the same rows have the same one, however often."""
        deadline = time.monotonic() + self._deadline_s
        for tried in range(self._retries + 1):
            left_s = max(deadline - time.monotonic(), SHORTEST_S)
            if "params" in asked:
                asked["params"]["deadline_ms"] = f"{left_s * 1000:.3f}"
            try:
                return self._try(method, path, left_s, asked)
            except (Overloaded, Unreachable) as failure:
                pause_s = _pause_s(tried, failure.retry_after_s)
                if tried == self._retries or time.monotonic() + pause_s >= deadline:
                    raise
            time.sleep(pause_s)
        raise AssertionError  # the last try returns or raises

    def _try(
        self, method: str, path: str, left_s: float, asked: Mapping[str, Any]
    ) -> httpx.Response:
        try:
            response = self._client.request(method, path, timeout=left_s, **asked)
        except httpx.TimeoutException as error:
            detail = f"no answer to {method} {path} in {self._deadline_s:g} s"
            raise DeadlineExceeded("deadline_exceeded", detail) from error
        except httpx.DecodingError as error:
            detail = f"{self._client.base_url}: the body of the answer cannot be unpacked ({error})"
            raise ServerFault("answer_unreadable", detail) from error
        except httpx.TransportError as error:
            detail = f"{self._client.base_url}: {str(error) or type(error).__name__}"
            raise Unreachable("unreachable", detail) from error
        if response.status_code != httpx.codes.OK:
            raise failure_of(response)
        return response


def _connected(url: str, headers: Mapping[str, str]) -> httpx.Client:
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"url: expected http://… or https://…, got {url!r} ({error})") from None
    try:
        return httpx.Client(base_url=url, headers=headers)
    except (httpx.InvalidURL, ImportError, ValueError) as error:
        # It reads them as it is made; those of a host in IPv6 have no brackets.
        there = [f"{name}={os.environ[name]}" for name in _PROXIES if name in os.environ]
        expected = "proxies that httpx can use, hosts without brackets in NO_PROXY"
        raise ValueError(
            f"environment: expected {expected}, got {', '.join(there) or 'others'} ({error})"
        ) from None


def _read(read: Callable[[Any], Content], response: httpx.Response) -> Content:
    try:
        return read(response.json())
    except (KeyError, TypeError, ValueError) as error:
        detail = f"{response.url}: expected an answer of Dunno, got something else"
        raise ServerFault("answer_unreadable", detail, status=response.status_code) from error


def _pause_s(tried: int, told_s: float | None) -> float:
    """Return how long to wait: never less than told, and not all callers to the same moment."""
    most_s = min(FIRST_PAUSE_S * 2**tried, LONGEST_PAUSE_S)
    return (told_s or 0.0) + random.uniform(0.0, most_s)  # noqa: S311  jitter is no secret
