"""What can go wrong, divided by who must act; built from the server's problem documents.

DunnoError
├── RequestRefused      the same request will be refused again
│   ├── KeyRefused          no key, an unknown one, or one that is not for this
│   └── NotFound            no such model, version or alias
├── Overloaded          right request, wrong moment; retried, and this came of the last try
├── Unreachable         no connection, or one that broke; retried likewise
├── DeadlineExceeded    no answer in time, by the server's clock or by ours
└── ServerFault         a fault of the server, or an answer that is none of Dunno
"""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx


class DunnoError(Exception):
    """Base of every failure of this package; fields that nobody told are None."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Say what went wrong.

        Args:
            code: stable name, such as `input_invalid`.
            detail: for people: the place, what was expected and what came.
            status: of the response, if there was one.
            request_id: under which the server's log has it.
            retry_after_s: how long the server asked to wait.
        """
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class RequestRefused(DunnoError):
    """The request cannot be served as it is; sending it again will not help."""


class KeyRefused(RequestRefused):
    """No key was shown, an unknown one, or one that is not for this."""


class NotFound(RequestRefused):
    """No such model, version or alias."""


class Overloaded(DunnoError):
    """The server could not take the request, as often as it was tried."""


class Unreachable(DunnoError):
    """There was no connection, or it broke before the answer was there."""


class DeadlineExceeded(DunnoError):
    """The answer was not there in time."""


class ServerFault(DunnoError):
    """A fault of the server, or an answer that is none of Dunno."""


_BY_STATUS: dict[int, type[DunnoError]] = {
    401: KeyRefused,
    403: KeyRefused,
    404: NotFound,
    429: Overloaded,
    503: Overloaded,
    504: DeadlineExceeded,
}


def failure_of(response: httpx.Response) -> DunnoError:
    """Return the failure that a response without an answer tells, whoever wrote it."""
    kind = _BY_STATUS.get(
        response.status_code, RequestRefused if response.is_client_error else ServerFault
    )
    try:
        problem = json.loads(response.content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    return kind(
        str(problem.get("type", "")).removeprefix("urn:dunno:") or f"http_{response.status_code}",
        str(problem.get("detail") or _said_of(response)),
        status=response.status_code,
        request_id=problem.get("request_id") or response.headers.get("x-request-id"),
        retry_after_s=_seconds(response),
    )


def _said_of(response: httpx.Response) -> str:
    """Return what a response without a problem document says: of a redirect, where it leads to."""
    if response.next_request is None:
        return response.reason_phrase
    # Without the query, which only says what is asked.
    asked, there = (
        request.url.copy_with(query=None) for request in (response.request, response.next_request)
    )
    advice = "redirects are not followed: give the url of the server behind it"
    return f"{response.reason_phrase}: {asked} is redirected to {there}; {advice}"


def _seconds(response: httpx.Response) -> float | None:
    """Return the seconds of a Retry-After; a date is reckoned from that of the response."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    at = _time_of(text)
    if at is None:
        return None
    now = _time_of(response.headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (at - now).total_seconds())


def _time_of(text: str) -> datetime | None:
    """Return the time that a header tells; None if it is none."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
