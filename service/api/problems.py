"""Failure -> status, in ONE table; and the problem document of RFC 9457 that says so."""

import math

import orjson

from service import errors
from service.errors import (
    CapacityError,
    DunnoError,
    InputInvalid,
    ModelNotFound,
    Unauthorised,
    code_of,
)

STATUS: dict[type[DunnoError], int] = {
    errors.ClientError: 400,
    errors.InputInvalid: 400,
    errors.PictureUnreadable: 400,
    errors.Unauthorised: 401,
    errors.Forbidden: 403,
    errors.BodyTimedOut: 408,
    errors.PayloadTooLarge: 413,
    errors.BodyTooLarge: 413,
    errors.MediaTypeUnsupported: 415,
    errors.ModelNotFound: 404,
    errors.VersionNotFound: 404,
    errors.OptionInvalid: 422,
    errors.RiskNotCertifiable: 422,
    errors.CapacityError: 503,
    errors.QueueFull: 429,
    errors.RateExceeded: 429,
    errors.ConcurrencyExceeded: 429,
    errors.BodiesFull: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
    errors.DeadlineUnreachable: 503,
    errors.NotReady: 503,
    errors.ServiceError: 500,
    errors.RunFailed: 500,
    errors.BundleError: 500,
    errors.BundleMissing: 500,
    errors.BundleCorrupt: 500,
    errors.LoadTimedOut: 500,
    errors.SignatureInvalid: 500,
    errors.TrustedKeyInvalid: 500,
    errors.ManifestInvalid: 500,
    errors.CatalogueInvalid: 500,
    errors.KeysInvalid: 500,
    errors.RuntimeUnavailable: 500,
    errors.DunnoError: 500,
}
OUTCOME: dict[int, str] = {
    404: "not_found",
    413: "too_large",
    429: "rejected",
    503: "rejected",
    504: "expired",
    500: "error",
}
"""Status -> outcome of `dunno_requests_total`; every other failure is `invalid`."""

MEDIA_TYPE = b"application/problem+json"


def status_of(error: DunnoError) -> int:
    """Return the HTTP status of a failure."""
    return STATUS[type(error)]


def problem(status: int, code: str, detail: str, request_id: str, **more: object) -> bytes:
    """Return a problem document; `type` is stable, `detail` is for people."""
    return orjson.dumps(
        {
            "type": f"urn:dunno:{code}",
            "title": code.replace("_", " ").capitalize(),
            "status": status,
            "detail": detail,
            "request_id": request_id,
            **more,
        }
    )


def problem_of(error: DunnoError, request_id: str) -> bytes:
    """Return the problem document of a failure."""
    return problem(status_of(error), code_of(error), str(error), request_id, **_facts(error))


def headers_of(error: DunnoError) -> list[tuple[bytes, bytes]]:
    """Return what a failure adds to the headers of its response."""
    if isinstance(error, CapacityError):
        # Whole seconds, rounded up: who comes when he was told to is not sent away again.
        return [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s)))]
    if isinstance(error, Unauthorised):
        return [(b"www-authenticate", b"Bearer")]
    return []


def refusal(error: DunnoError, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body of the response to a failure."""
    headers = [(b"content-type", MEDIA_TYPE), *headers_of(error)]
    return status_of(error), headers, problem_of(error, request_id)


def _facts(error: DunnoError) -> dict[str, object]:
    if isinstance(error, InputInvalid):
        return {"place": error.place, "expected": error.expected, "got": error.got}
    if isinstance(error, ModelNotFound):
        return {"models": error.names}
    return {}
