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
        ├── LoadTimedOut        loading did not end in time
        ├── SignatureInvalid    no trusted key signed the bundle as it is
        ├── TrustedKeyInvalid   a file of DUNNO_TRUSTED_KEYS is no public key
        ├── ManifestInvalid     the manifest does not say what it must
        ├── CatalogueInvalid    catalogue.toml does not say what it must
        ├── KeysInvalid         the file of keys does not say what it must
        └── RuntimeUnavailable  the runtime named is not installed

The second paragraph of a docstring says what to do. No class here knows HTTP; `api/problems.py`
holds the one table from failure to status.
"""

import re
from functools import cache
from typing import TypeVar


def install_line(extra: str) -> str:
    """Return how to install an extra. There is no distribution on an index, so it needs a clone."""
    return f"run in the clone of Dunno: pip install -e '.[{extra}]'"


DunnoErrorT = TypeVar("DunnoErrorT", bound="DunnoError")


class DunnoError(Exception):
    """Base of every failure that this package raises on purpose.

    No request ends in it: what is raised is always one of those below.
    """


def without_traceback(error: DunnoErrorT) -> DunnoErrorT:
    """Return an error that refers to no frame any more, such as that of a parser and its input.

    An error that is kept, or raised again from a future, refers to itself by its own frames. Only a
    collection would free what they hold: a hundred MiB for a large body.
    """
    error.__traceback__ = error.__context__ = None
    return error


class ClientError(DunnoError):
    """The caller's request cannot be served as it is; sending it again will not help.

    Mend the request; the message says what is wrong with it.
    """


class InputInvalid(ClientError):
    """A place in the payload is not what the model expects.

    Mend that place. The message names it, what was expected and what came.
    """

    def __init__(self, place: str, expected: str, got: str) -> None:
        super().__init__(f"{place}: expected {expected}, got {got}")
        self.place = place
        self.expected = expected
        self.got = got


class PictureUnreadable(InputInvalid):
    """The bytes are no picture that an allowed decoder reads to its end.

    Send a PNG, JPEG, WebP or BMP; a damaged one has to be made anew.
    """


class Unauthorised(ClientError):
    """No key was shown, or one that is not known; which of both is not told.

    Show a key that the operator has given out, and see that it is complete.
    """

    def __init__(self) -> None:
        super().__init__("expected Authorization: Bearer <key> or X-API-Key: <key>")


class Forbidden(ClientError):
    """The key that was shown is not for this.

    Ask the operator to let the key have this model, or use the key that has.
    """


class BodyTimedOut(ClientError):
    """The request body did not arrive in the time that bodies get.

    Send the body at once; where the network is slow, the operator raises the time.
    """


class PayloadTooLarge(ClientError):
    """A cap on bytes, pixels or rows was passed; the message says which and how high it is.

    Send less at once: several requests of fewer rows, or smaller pictures.
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
    """The body passed its cap on bytes; the rest of it was not read.

    Send fewer rows or smaller pictures at once, or a shorter form, such as `.npy`.
    """


class MediaTypeUnsupported(ClientError):
    """The body's media type is none that the model takes; the message lists those it does.

    Say what the body is, and send one of those kinds.
    """


class ModelNotFound(ClientError):
    """No model of that name is served; carries the names that are.

    Ask for one of these names; where one is missing, the operator adds it to the catalogue.
    """

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(f"no model {name!r}; served here: {', '.join(names) or 'none'}")
        self.names = names


class VersionNotFound(ClientError):
    """The model is served, but not in that version or under that alias.

    Ask for one of those that the message names, or for none.
    """


class OptionInvalid(ClientError):
    """A query parameter is unknown, malformed or out of bounds.

    Mend the parameter that the message names, or leave it out.
    """

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(f"query parameter {name!r}: expected {expected}, got {got!r}")
        self.name = name


class RiskNotCertifiable(OptionInvalid):
    """No certified row of the policy is as strict as the `max_error` asked for.

    Ask for one of the risks that the message names; more calibration rows certify lower ones.
    """


class CapacityError(DunnoError):
    """The request is right and the moment is wrong; try again after `retry_after_s`.

    Many of these are want of capacity: the operator adds replicas.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(CapacityError):
    """The model's share of the queue has no room for these rows.

    Try again later; the operator adds replicas, for a longer queue only makes later answers.
    """


class RateExceeded(CapacityError):
    """The caller's key has been shown more often than it may.

    Ask less often; the operator may give the key a higher rate.
    """

    def __init__(self, requests_per_s: float, retry_after_s: float) -> None:
        super().__init__(f"this key may ask {requests_per_s:g} times a second", retry_after_s)


class ConcurrencyExceeded(CapacityError):
    """As many requests of the caller's key are worked on as may be at once.

    Wait for an answer before the next question, or ask for several rows at once.
    """

    def __init__(self, most: int, retry_after_s: float) -> None:
        message = f"this key may have {most} requests at once, and that many are being answered"
        super().__init__(message, retry_after_s)


class Draining(CapacityError):
    """The server is stopping and takes no new work.

    Ask another replica; in front of several, whoever balances them should have done so.
    """


class DeadlineExceeded(CapacityError):
    """The rows were still waiting when their answer became worthless.

    Give a longer deadline, or try again later; where it is frequent, add replicas.
    """


class BodiesFull(CapacityError):
    """Bodies of all callers that are on their way hold as much as they may together.

    Try again later, with smaller bodies if these are large.
    """


class DeadlineUnreachable(CapacityError):
    """So many rows wait already that the deadline would pass before these had their turn.

    Give a longer deadline, or try again later; nothing was computed in vain.
    """


class NotReady(CapacityError):
    """The model takes no rows at the moment: its runtime was lost and is being built anew.

    Try again later, at another replica if there is one; the operator looks at the log.
    """


class ServiceError(DunnoError):
    """A fault of ours or of the model; the caller can do nothing about it.

    Report it with the request's id, which stands in the log beside the reason.
    """


class RunFailed(ServiceError):
    """The runtime raised, or returned what its manifest does not declare.

    Report it with the request's id; if a version is new, the operator goes back to the old one.
    """


class BundleError(DunnoError):
    """A bundle or the catalogue cannot be served; an operator has to look.

    Mend what the message names; what was served before a reload still is.
    """


class BundleMissing(BundleError):
    """There is no such bundle folder, or no manifest in it.

    Copy the bundle to where the message says, or correct the catalogue.
    """


class BundleCorrupt(BundleError):
    """A file differs from its checksum, or a golden row from its recorded output.

    Copy the bundle anew, or make it anew; never edit its files.
    """


class LoadTimedOut(BundleError):
    """Loading did not end within `DUNNO_MAX_LOAD_MS`; what was served before a reload still is.

    Look at the graph (a loop without end?) and at the disk, replace the bundle, and reload.
    """


class SignatureInvalid(BundleError):
    """Keys are trusted, and none of them signed the bundle as it is.

    Sign it by a trusted key, as it lies there; ask who changed it if it was signed before.
    """


class TrustedKeyInvalid(BundleError):
    """A file of DUNNO_TRUSTED_KEYS cannot be read, or is no public key that signs bundles.

    Give the public keys, as PEM, not the private ones.
    """


class ManifestInvalid(BundleError):
    """The manifest is no JSON, of another format, or misses a fact.

    Make the bundle anew by the version of this package that serves it.
    """


class CatalogueInvalid(BundleError):
    """The catalogue file names what does not exist or says what it may not.

    Mend the place that the message names.
    """


class KeysInvalid(BundleError):
    """The file of keys cannot be read or says what it may not; the keys before stay in force.

    Mend the place that the message names.
    """


class RuntimeUnavailable(BundleError):
    """The runtime that the catalogue names is not installed; the message has the install line.

    Run that line, or name another runtime in the catalogue.
    """


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
    return _in_snake_case(kind.__name__)


@cache
def _in_snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
