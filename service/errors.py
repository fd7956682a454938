"""All failures as one tree of exceptions, grouped by who has to act.

    payload --decode--> rows --submit--> batch --run--> logits --decide--> verdict
              |               |                  |
        ClientError     CapacityError       ServiceError            BundleError
        client fixes    client retries      we fix                  operator fixes

    DunnoError
    ├── ClientError             the request cannot be served as it is
    │   ├── InputInvalid        a value in the body is not what the model expects
    │   │   └── PictureUnreadable   a picture that cannot be decoded
    │   ├── Unauthorised        API key missing or unknown
    │   ├── Forbidden           the API key has no access
    │   ├── BodyTimedOut        the body did not arrive in time
    │   ├── PayloadTooLarge     a limit on pixels, rows or parts was exceeded
    │   │   └── BodyTooLarge        the limit on bytes
    │   ├── MediaTypeUnsupported    a Content-Type that the model does not accept
    │   ├── ModelNotFound       unknown model
    │   ├── VersionNotFound     unknown version or alias of the model
    │   └── OptionInvalid       a query parameter is invalid
    │       └── RiskNotCertifiable  no certified threshold for this max_error
    ├── CapacityError           valid request, no capacity; has `retry_after_s`
    │   ├── QueueFull           the queue of the model is full
    │   ├── BodiesFull          arriving bodies use up their memory budget
    │   ├── DeadlineUnreachable the queue is too long for the deadline
    │   ├── NotReady            the runtime of the model is being rebuilt
    │   ├── RateExceeded        rate limit of the API key exceeded
    │   ├── ConcurrencyExceeded concurrency limit of the API key exceeded
    │   ├── Draining            the server is shutting down
    │   └── DeadlineExceeded    the request timed out
    ├── ServiceError            an internal error of server or model
    │   └── RunFailed           the model failed, or returned wrong outputs
    └── BundleError             bundle, catalogue or API keys cannot be used
        ├── BundleMissing       folder or manifest does not exist
        ├── BundleCorrupt       a file differs from its checksum, or a golden row from its output
        ├── LoadTimedOut        loading took too long
        ├── SignatureInvalid    no trusted key signed the bundle
        ├── TrustedKeyInvalid   a file of DUNNO_TRUSTED_KEYS is not a public key
        ├── ManifestInvalid     the manifest is invalid
        ├── CatalogueInvalid    catalogue.toml is invalid
        ├── KeysInvalid         the file of API keys is invalid
        └── RuntimeUnavailable  the runtime is not installed

The second paragraph of each docstring says what to do. The HTTP status of each class is in
`api/problems.py`.
"""

import re
from functools import cache
from typing import TypeVar


def install_line(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"run in the clone of Dunno: pip install -e '.[{extra}]'"


DunnoErrorT = TypeVar("DunnoErrorT", bound="DunnoError")


class DunnoError(Exception):
    """Base class of every failure that Dunno raises on purpose.

    Requests always end in one of its subclasses.
    """


def without_traceback(error: DunnoErrorT) -> DunnoErrorT:
    """Return an error without references to stack frames, such as that of a parser and its input.

    An error that is stored, or raised from a future, is in a reference cycle with its frames. These
    may hold a large body, up to 100 MiB, until the garbage collector runs.
    """
    error.__traceback__ = error.__context__ = None
    return error


class ClientError(DunnoError):
    """The request cannot be served as it is. Sending it again will not help.

    Fix the request. The message names the fault.
    """


class InputInvalid(ClientError):
    """A value in the request body is not what the model expects.

    Fix that value. The message names its place, what was expected and what came.
    """

    def __init__(self, place: str, expected: str, got: str) -> None:
        super().__init__(f"{place}: expected {expected}, got {got}")
        self.place = place
        self.expected = expected
        self.got = got


class PictureUnreadable(InputInvalid):
    """The picture cannot be decoded.

    Send a complete PNG, JPEG, WebP or BMP file.
    """


class Unauthorised(ClientError):
    """API key missing or unknown (deliberately not distinguished).

    Send the API key that the operator gave you, and check that it is complete.
    """

    def __init__(self) -> None:
        super().__init__("expected Authorization: Bearer <key> or X-API-Key: <key>")


class Forbidden(ClientError):
    """The API key has no access to this model or path.

    Ask the operator for access, or use another key.
    """


class BodyTimedOut(ClientError):
    """The request body did not arrive within `DUNNO_BODY_TIMEOUT_MS`.

    Send the body at once. On a slow network the operator can raise the timeout.
    """


class PayloadTooLarge(ClientError):
    """A limit on bytes, pixels or rows was exceeded. The message names the limit.

    Send less at a time: fewer rows a request, or smaller pictures.
    """

    def __init__(self, what: str, cap: int, unit: str) -> None:
        """Say what is too large.

        Args:
            what: of the request.
            cap: the most there may be of it.
            unit: what is counted, one of a few words; the metrics tell refusals apart by it.
        """
        super().__init__(f"{what} is larger than the cap of {cap:,} {unit}")
        self.what = what
        self.cap = cap
        self.unit = unit


class BodyTooLarge(PayloadTooLarge):
    """The request body exceeds `DUNNO_MAX_BODY_BYTES`. The rest of it was not read.

    Send fewer rows, smaller pictures, or a more compact format such as `.npy`.
    """


class MediaTypeUnsupported(ClientError):
    """The model does not accept this Content-Type. The message lists those it accepts.

    Set the right Content-Type, and send one of these formats.
    """


class ModelNotFound(ClientError):
    """No model of this name is served. The answer lists the names that are.

    Use one of these names. If one is missing, the operator adds it to the catalogue.
    """

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(f"no model {name!r}; served here: {', '.join(names) or 'none'}")
        self.names = names


class VersionNotFound(ClientError):
    """The model is served, but not in this version or under this alias.

    Use a version or alias that the message names, or leave it out.
    """


class OptionInvalid(ClientError):
    """A query parameter is unknown, malformed or out of range.

    Fix the parameter that the message names, or leave it out.
    """

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(f"query parameter {name!r}: expected {expected}, got {got!r}")
        self.name = name


class RiskNotCertifiable(OptionInvalid):
    """The policy has no certified threshold as strict as this `max_error`.

    Use a `max_error` that the message names. More calibration rows certify lower ones.
    """


class CapacityError(DunnoError):
    """The request is valid, but the server cannot serve it now. Retry after `Retry-After`.

    If this is frequent, the operator adds replicas.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(CapacityError):
    """The queue of the model has no room for these rows.

    Retry later. The operator adds replicas; a longer queue only makes answers later.
    """


class RateExceeded(CapacityError):
    """Rate limit of the API key exceeded.

    Send requests less often. The operator can raise the limit of the key.
    """

    def __init__(self, requests_per_s: float, retry_after_s: float) -> None:
        super().__init__(f"this key may ask {requests_per_s:g} times a second", retry_after_s)


class ConcurrencyExceeded(CapacityError):
    """Too many concurrent requests with this API key.

    Wait for an answer before the next request, or send several rows in one request.
    """

    def __init__(self, most: int, retry_after_s: float) -> None:
        message = f"this key may have {most} requests at once, and that many are being answered"
        super().__init__(message, retry_after_s)


class Draining(CapacityError):
    """The server is shutting down and accepts no new requests.

    Retry at another replica. A load balancer should have stopped sending requests here.
    """


class DeadlineExceeded(CapacityError):
    """The request timed out while its rows waited or ran.

    Use a longer deadline, or retry later. If this is frequent, add replicas.
    """


class BodiesFull(CapacityError):
    """Request bodies that are arriving use up their memory budget.

    Retry later, with smaller bodies if possible.
    """


class DeadlineUnreachable(CapacityError):
    """The queue is so long that the deadline would pass before these rows ran.

    Use a longer deadline, or retry later. Nothing was computed.
    """


class NotReady(CapacityError):
    """The model cannot take requests: its runtime was lost and is being rebuilt.

    Retry later, or at another replica. The operator looks at the log.
    """


class ServiceError(DunnoError):
    """An internal error of the server or the model. The client cannot fix it.

    Report it with the request id, which is in the log next to the reason.
    """


class RunFailed(ServiceError):
    """The model raised an error, or returned other outputs than its manifest declares.

    Report it with the request id. If the version is new, the operator rolls it back.
    """


class BundleError(DunnoError):
    """A bundle, the catalogue or the file of API keys cannot be used.

    Fix what the message names. After a failed reload the previous state stays in service.
    """


class BundleMissing(BundleError):
    """The folder of the bundle, or the manifest in it, does not exist.

    Copy the bundle to the folder in the message, or correct the catalogue.
    """


class BundleCorrupt(BundleError):
    """A file differs from its checksum, or a golden row from its recorded output.

    Copy the bundle again, or make it again. Never edit its files.
    """


class LoadTimedOut(BundleError):
    """Loading took longer than its time limit, such as `DUNNO_MAX_LOAD_MS`.

    Check the model (an endless loop?) and the disk, replace the bundle, and reload.
    """


class SignatureInvalid(BundleError):
    """No trusted key signed the bundle in its present state.

    Sign it with a trusted key. If it was signed before, find out who changed it.
    """


class TrustedKeyInvalid(BundleError):
    """A file in `DUNNO_TRUSTED_KEYS` cannot be read, or is not a public key.

    Use public keys in PEM format, not private ones.
    """


class ManifestInvalid(BundleError):
    """The manifest is not valid JSON, has another format, or is incomplete.

    Make the bundle again with the version of Dunno that serves it.
    """


class CatalogueInvalid(BundleError):
    """`catalogue.toml` is invalid, or names something that does not exist.

    Fix the place that the message names.
    """


class KeysInvalid(BundleError):
    """The file of API keys cannot be read or is invalid. The previous keys stay in force.

    Fix the place that the message names.
    """


class RuntimeUnavailable(BundleError):
    """The runtime that the catalogue names is not installed.

    Run the install command in the message, or name another runtime in the catalogue.
    """


def reason_of(error: ClientError) -> str:
    """Return the label of a refusal in metrics: its code, or `too_many_<unit>` for a limit."""
    if isinstance(error, PayloadTooLarge):
        return f"too_many_{error.unit.replace(' ', '_')}"
    return code_of(error)


def code_of(error: DunnoError) -> str:
    """Return the stable name of a failure on the wire and in metrics, such as `input_invalid`."""
    return code_of_kind(type(error))


def code_of_kind(kind: type[DunnoError]) -> str:
    """Return the stable name of a class of failures."""
    return _in_snake_case(kind.__name__)


@cache
def _in_snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
