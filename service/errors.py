"""Everything that can go wrong, as one tree, divided by who must act.

    payload --decode--> rows --submit--> batch --run--> logits --decide--> verdict
              |               |                  |
        ClientError     CapacityError       ServiceError            BundleError
        caller fixes    retry later         we fix                  operator fixes; no start

    DunnoError
    ├── ClientError             the caller's request cannot be served as it is
    │   ├── InputInvalid        a place in the payload is not what the model expects
    │   │   └── PictureUnreadable   bytes that no allowed decoder reads
    │   ├── Unauthorised        no key was shown, or one that is not known
    │   ├── Forbidden           the key is not for this
    │   ├── BodyTimedOut        the body did not arrive in time
    │   ├── PayloadTooLarge     a cap on pixels, rows or parts was passed
    │   │   └── BodyTooLarge        the cap on bytes, before all of them were read
    │   ├── MediaTypeUnsupported    a body kind the model does not take
    │   ├── ModelNotFound       no such model
    │   ├── VersionNotFound     no such version or alias of the model
    │   └── OptionInvalid       a query parameter is out of bounds
    │       └── RiskNotCertifiable  no certified row for this max_error
    ├── CapacityError           right request, wrong moment; carries `retry_after_s`
    │   ├── QueueFull           the model's share of the queue is taken
    │   ├── BodiesFull          bodies on their way hold as much as they may
    │   ├── DeadlineUnreachable too many rows wait for the deadline to be met
    │   ├── NotReady            the model's runtime is being built anew
    │   ├── RateExceeded        the caller's key has been shown too often
    │   ├── ConcurrencyExceeded as many requests of that key are worked on as may be
    │   ├── Draining            the server is stopping
    │   └── DeadlineExceeded    the answer would have come too late
    ├── ServiceError            a fault of ours or of the model
    │   └── RunFailed           the runtime raised, or returned what it had not declared
    └── BundleError             a bundle, the catalogue or the keys cannot be used
        ├── BundleMissing       no such folder or manifest
        ├── BundleCorrupt       a file differs from its checksum, or a golden row from its output
        ├── SignatureInvalid    no trusted key signed the bundle as it is
        ├── TrustedKeyInvalid   a file of DUNNO_TRUSTED_KEYS is no public key
        ├── ManifestInvalid     the manifest does not say what it must
        ├── CatalogueInvalid    catalogue.toml does not say what it must
        ├── KeysInvalid         the file of keys does not say what it must
        └── RuntimeUnavailable  the runtime named is not installed

No class here knows HTTP; `api/problems.py` holds the one table from failure to status.
"""

import re


class DunnoError(Exception):
    """Base of every failure that this package raises on purpose."""


class ClientError(DunnoError):
    """The caller's request cannot be served as it is; sending it again will not help."""


class InputInvalid(ClientError):
    """A place in the payload is not what the model expects.

    The message names the place, what was expected and what came.
    """

    def __init__(self, place: str, expected: str, got: str) -> None:
        super().__init__(f"{place}: expected {expected}, got {got}")
        self.place = place
        self.expected = expected
        self.got = got


class PictureUnreadable(InputInvalid):
    """The bytes are no picture that an allowed decoder reads to its end."""


class Unauthorised(ClientError):
    """No key was shown, or one that is not known; which of both is not told."""

    def __init__(self) -> None:
        super().__init__("expected Authorization: Bearer <key> or X-API-Key: <key>")


class Forbidden(ClientError):
    """The key that was shown is not for this."""


class BodyTimedOut(ClientError):
    """The request body did not arrive in the time that bodies get."""


class PayloadTooLarge(ClientError):
    """A cap on bytes, pixels or rows was passed; the message says which and how high it is."""

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
    """The body passed its cap on bytes; the rest of it was not read."""


class MediaTypeUnsupported(ClientError):
    """The body's media type is none that the model takes; the message lists those it does."""


class ModelNotFound(ClientError):
    """No model of that name is served; carries the names that are."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(f"no model {name!r}; served here: {', '.join(names) or 'none'}")
        self.names = names


class VersionNotFound(ClientError):
    """The model is served, but not in that version or under that alias."""


class OptionInvalid(ClientError):
    """A query parameter is unknown, malformed or out of bounds."""

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(f"query parameter {name!r}: expected {expected}, got {got!r}")
        self.name = name


class RiskNotCertifiable(OptionInvalid):
    """No certified row of the policy is as strict as the `max_error` asked for."""


class CapacityError(DunnoError):
    """The request is right and the moment is wrong; try again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(CapacityError):
    """The model's share of the queue has no room for these rows."""


class RateExceeded(CapacityError):
    """The caller's key has been shown more often than it may."""

    def __init__(self, requests_per_s: float, retry_after_s: float) -> None:
        super().__init__(f"this key may ask {requests_per_s:g} times a second", retry_after_s)


class ConcurrencyExceeded(CapacityError):
    """As many requests of the caller's key are worked on as may be at once."""

    def __init__(self, most: int, retry_after_s: float) -> None:
        message = f"this key may have {most} requests at once, and that many are being answered"
        super().__init__(message, retry_after_s)


class Draining(CapacityError):
    """The server is stopping and takes no new work."""


class DeadlineExceeded(CapacityError):
    """The rows were still waiting when their answer became worthless."""


class BodiesFull(CapacityError):
    """Bodies of all callers that are on their way hold as much as they may together."""


class DeadlineUnreachable(CapacityError):
    """So many rows wait already that the deadline would pass before these had their turn."""


class NotReady(CapacityError):
    """The model takes no rows at the moment: its runtime was lost and is being built anew."""


class ServiceError(DunnoError):
    """A fault of ours or of the model; the caller can do nothing about it."""


class RunFailed(ServiceError):
    """The runtime raised, or returned what its manifest does not declare."""


class BundleError(DunnoError):
    """A bundle or the catalogue cannot be served; an operator has to look."""


class BundleMissing(BundleError):
    """There is no such bundle folder, or no manifest in it."""


class BundleCorrupt(BundleError):
    """A file differs from its checksum, or a golden row from its recorded output."""


class SignatureInvalid(BundleError):
    """Keys are trusted, and none of them signed the bundle as it is."""


class TrustedKeyInvalid(BundleError):
    """A file of DUNNO_TRUSTED_KEYS cannot be read, or is no public key that signs bundles."""


class ManifestInvalid(BundleError):
    """The manifest is no JSON, of another format, or misses a fact."""


class CatalogueInvalid(BundleError):
    """The catalogue file names what does not exist or says what it may not."""


class KeysInvalid(BundleError):
    """The file of keys cannot be read or says what it may not; the keys before stay in force."""


class RuntimeUnavailable(BundleError):
    """The runtime that the catalogue names is not installed; the message has the install line."""


def reason_of(error: ClientError) -> str:
    """Return what a refusal is counted as: its code, and of caps that of which too much came."""
    if isinstance(error, PayloadTooLarge):
        return f"too_many_{error.unit.replace(' ', '_')}"
    return code_of(error)


def code_of(error: DunnoError) -> str:
    """Return the stable name of a failure on the wire and in metrics, such as `input_invalid`."""
    return code_of_kind(type(error))


def code_of_kind(kind: type[DunnoError]) -> str:
    """Return the same of all failures of a kind."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
