"""Which bundles are served under which names: `catalogue.toml`, and the predictors it led to."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.bundle import Bundle, TrustedKeys, open_bundle
from service.bundle.manifest import Name
from service.errors import (
    BundleCorrupt,
    BundleError,
    BundleMissing,
    CatalogueInvalid,
    ModelNotFound,
    SignatureInvalid,
    VersionNotFound,
)
from service.files import read_toml
from service.prediction.file_stamps import Stamps
from service.prediction.predictor import Predictor
from service.prediction.rollback import Finding, Rollback, find_fault
from service.prediction.shadow import Shadow
from service.prediction.turns import Turns
from service.telemetry.recent import Recent

CATALOGUE = "catalogue.toml"
CANARY_SHARE = 0.5
"""A version with a smaller share of the traffic than this is a canary."""


class ModelEntry(BaseModel):
    """The settings of one model name in the catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bundle: str | None = None
    """Folder with the versions of the bundle. Default: the model name."""

    versions: tuple[str, ...] = ()
    """Versions to serve; the first is the default version. If empty, the newest one is served."""

    aliases: dict[str, str] = {}
    """Version for each alias, for `?alias=` and the labels of `/v1`."""

    weights: dict[str, float] = {}
    """Traffic split: weight of each version for requests that name no version. The version with the
    largest weight is the default version."""

    shadow: str | None = None
    """Shadow version: it gets a copy of each row, and its answers are only compared."""

    rollback: Rollback | None = None
    """Limits of the canary analysis: beyond them a canary gets no more traffic."""

    runtime: str = "onnx"
    """Runtime that runs the model: `onnx` or `tensorflow`."""

    variant: str | None = None
    """Variant of the bundle to serve, such as `int8`. Default: the original model."""

    instances: int = Field(default=1, ge=1, le=64)
    """Number of model instances: batches that run at the same time."""

    max_error: float | None = Field(default=None, gt=0, lt=1)
    """Default certified risk. If unset, the default of the bundle is used."""

    allow_looser: bool = False
    """Allows requests with a larger `max_error` or a lower `min_confidence` than the default."""

    @model_validator(mode="after")
    def _versions_are_named(self) -> Self:
        unknown = [version for version in self.weights if version not in self.versions]
        if unknown:
            raise ValueError(f"weights: version {unknown[0]!r} is not in versions")
        if self.weights and (min(self.weights.values()) < 0 or not sum(self.weights.values()) > 0):
            raise ValueError("weights: expected numbers from 0 on, one of them above 0")
        if not math.isfinite(sum(self.weights.values())):
            raise ValueError("weights: expected numbers whose sum is finite")
        if self.shadow is not None and (not self.versions or self.shadow in self.versions):
            raise ValueError("shadow: expected a version beside those in versions")
        if self.rollback is not None and not self.weights:
            raise ValueError("rollback: needs weights, of which a canary could lose its own")
        return self


class CatalogueFile(BaseModel):
    """The content of `catalogue.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[Name, ModelEntry] = Field(min_length=1)
    """Settings for each model name. An empty table uses the defaults."""


NO_CHOICE = ModelEntry()


class Choice(NamedTuple):
    """The predictor that answers a request, and where its result is recorded for canaries."""

    predictor: Predictor
    windows: tuple[Recent, ...] = ()
    """Empty unless a canary is compared and the version was assigned by weight: requests that name
    a version say nothing about a canary, as clients choose them."""


class Compared:
    """The windows of one canary: its own requests, and those of the default version.

    Once the default version's window is full, it records as few requests as the canary's, so that
    both cover the same time. Otherwise a burst of unusual requests would be forgotten sooner for
    the default version than for the canary.
    """

    def __init__(self, most: int) -> None:
        """Remember `most` requests, and as many rows, of each version."""
        self.canary = Recent(most)
        self.default = Recent(most)
        self._most = most
        self._due = 0.0

    def takes_default(self, ratio: float) -> bool:
        """Return whether the next request of the default version is recorded.

        Args:
            ratio: of the canary's requests to those of the default version.
        """
        self._due += 1 if self.default.requests < self._most else ratio
        is_due = self._due >= 1
        self._due -= is_due
        return is_due


class Served:
    """One name: its versions, aliases, and who gets the requests that name no version."""

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        aliases: Mapping[str, str],
        entry: ModelEntry = NO_CHOICE,
        shadow: Shadow | None = None,
    ) -> None:
        self.predictors = dict(predictors)
        self.aliases = dict(aliases)
        self.entry = entry
        self.shadow = shadow
        self.turns = Turns(entry.weights) if entry.weights else None
        self.default = next(iter(self.predictors.values()))
        if entry.weights:
            self.default = self.predictors[max(entry.weights, key=entry.weights.__getitem__)]
        rule = entry.rollback
        self._compared = {
            version: Compared(rule.rows)
            for version, predictor in self.predictors.items()
            if rule is not None and predictor is not self.default
        }

    @property
    def loaded(self) -> list[Predictor]:
        """All predictors, also the candidate that answers nobody."""
        candidates = [] if self.shadow is None else [self.shadow.candidate]
        return [*self.predictors.values(), *candidates]

    def start(self) -> None:
        """Begin to take rows, on the running event loop; who does already goes on."""
        for predictor in self.predictors.values():
            predictor.copy = None
            if not predictor.is_ready:
                predictor.start()
        if self.shadow is not None:
            self.default.copy = self.shadow.copy
            self.shadow.candidate.describe("shadow")

    def take(self) -> Choice:
        """Return who answers the next request that names no version."""
        if self.turns is None:
            return Choice(self.default)
        version = self.turns.take()
        return Choice(self.predictors[version], self._windows_of(version))

    def _windows_of(self, version: str) -> tuple[Recent, ...]:
        """Return where the result of a request that was assigned by weight is recorded."""
        if self.turns is None or not self._compared:
            return ()
        if version in self._compared:
            return (self._compared[version].canary,)
        usual = self.turns.share(version)
        return tuple(
            compared.default
            for canary, compared in self._compared.items()
            if compared.takes_default(self.turns.share(canary) / usual)
        )

    def find_faults(self) -> dict[str, Finding]:
        """Return what is wrong with canaries that have traffic, by version."""
        rule, turns = self.entry.rollback, self.turns
        if rule is None or turns is None:
            return {}
        found = {
            version: find_fault(compared.canary, compared.default, rule)
            for version, compared in self._compared.items()
            if 0 < turns.share(version) < CANARY_SHARE
        }
        return {version: finding for version, finding in found.items() if finding is not None}


class Catalogue:
    """The models that are served, by name; what is served can be switched while it is."""

    def __init__(self, served: Mapping[str, Served], stamps: Stamps | None = None) -> None:
        self.served = dict(served)
        self.stamps = stamps or {}
        """Of the files that say what is served, before they were read."""
        self.failures: dict[str, BundleError] = {}
        """Why a name is not served as its files say, since the catalogue was read last."""
        self._listeners: list[Callable[[], None]] = []
        self.is_ending = False
        """Whether the server is about to stop; it answers, and asks for no more requests."""

    def __iter__(self) -> Iterator[Predictor]:
        for served in self.served.values():
            yield from served.predictors.values()

    @property
    def names(self) -> tuple[str, ...]:
        """Names that are served, in the order of the catalogue."""
        return tuple(self.served)

    @property
    def is_ready(self) -> bool:
        """Whether there are models, every one of them takes rows, and will go on to."""
        takes_rows = bool(self.served) and all(predictor.is_ready for predictor in self)
        return takes_rows and not self.is_ending

    def announce_end(self) -> None:
        """Be ready no more, and go on answering."""
        self.is_ending = True

    def find(self, name: str, version: str | None = None, alias: str | None = None) -> Predictor:
        """Return who answers a request: the version whose turn it is unless one is asked for.

        Who awaits before the rows are submitted has to `hold` it meanwhile.

        Raises:
            ModelNotFound: naming the models that are served.
            VersionNotFound: naming the versions or aliases there are.
        """
        return self.choose(name, version, alias).predictor

    def choose(self, name: str, version: str | None = None, alias: str | None = None) -> Choice:
        """Return the same, and where the result of the request is recorded.

        Raises:
            ModelNotFound: naming the models that are served.
            VersionNotFound: naming the versions or aliases there are.
        """
        if version is None and alias is None:
            return self._name(name).take()
        return Choice(self.look(name, version, alias))

    def look(self, name: str, version: str | None = None, alias: str | None = None) -> Predictor:
        """Return the same without taking a turn: the default version unless one is asked for.

        Raises:
            ModelNotFound: naming the models that are served.
            VersionNotFound: naming the versions or aliases there are.
        """
        served = self._name(name)
        if alias is not None:
            if alias not in served.aliases:
                there = ", ".join(served.aliases) or "none"
                raise VersionNotFound(f"{name} has no alias {alias!r}; there are: {there}")
            version = served.aliases[alias]
        if version is None:
            return served.default
        if version not in served.predictors:
            there = ", ".join(served.predictors)
            raise VersionNotFound(f"{name} has no version {version!r}; served are: {there}")
        return served.predictors[version]

    def _name(self, name: str) -> Served:
        served = self.served.get(name)
        if served is None:
            raise ModelNotFound(name, self.names)
        return served

    def is_shared_out(self, name: str) -> bool:
        """Whether requests that name no version go to several in turn."""
        served = self.served.get(name)
        return served is not None and served.turns is not None

    def limited_to(self, names: Collection[str] | None) -> "Catalogue":
        """Return what there is for a caller who may know of these names only; None: of all."""
        if names is None:
            return self
        part = Catalogue({name: each for name, each in self.served.items() if name in names})
        part.failures = {name: error for name, error in self.failures.items() if name in names}
        part.is_ending = self.is_ending
        return part

    def on_switch(self, listener: Callable[[], None]) -> None:
        """Let `listener` know whenever other predictors may be found than before."""
        self._listeners.append(listener)

    def switch(self, served: Mapping[str, Served]) -> list[Served]:
        """Serve these from now on, on the running event loop, and return those that are gone.

        Nobody finds the old ones any more; what they have taken in, they answer.
        """
        before, self.served = self.served, dict(served)
        kept = {id(predictor) for each in served.values() for predictor in each.loaded}
        gone = [each for name, each in before.items() if served.get(name) is not each]
        for each in gone:
            for predictor in each.loaded:
                if id(predictor) not in kept:
                    predictor.metrics.retire()
        for name, each in self.served.items():
            if before.get(name) is not each:
                each.start()
        for listener in self._listeners:
            listener()
        return gone

    def start(self) -> None:
        """Begin to take rows, on the running event loop."""
        for served in self.served.values():
            served.start()

    async def close(self, timeout_s: float) -> None:
        """Let every predictor finish what waits, in at most `timeout_s` together."""
        until_s = time.monotonic() + timeout_s
        for predictor in self:
            await predictor.close(max(0.0, until_s - time.monotonic()))
        for served in self.served.values():
            if served.shadow is not None:
                await served.shadow.close(max(0.0, until_s - time.monotonic()))


def read_catalogue(models: Path) -> CatalogueFile:
    """Return the content of `catalogue.toml` in the folder `models`.

    Raises:
        CatalogueInvalid: naming the file and what is wrong with it.
    """
    path = models / CATALOGUE
    try:
        return CatalogueFile.model_validate(read_toml(path))
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); set DUNNO_MODELS to its folder"
        raise CatalogueInvalid(message) from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CatalogueInvalid(f"{path}: {where}: {first['msg']}") from None
    except ValueError as error:
        raise CatalogueInvalid(f"{path}: {error}") from None


def find_bundles(models: Path, name: str, entry: ModelEntry) -> list[Bundle]:
    """Return the bundles of a catalogue entry, verified, the default version first.

    Raises:
        BundleError: if a version is missing or corrupt.
    """
    bundles = [open_version(path) for path in find_versions(models, name, entry)]
    for bundle in bundles:
        bundle.verify()
    return bundles


def find_versions(models: Path, name: str, entry: ModelEntry) -> list[Path]:
    """Return the folders of the versions that a catalogue entry serves, in its order.

    Raises:
        BundleError: if there is none, or one is named twice.
    """
    folder = models / (entry.bundle or name)
    versions = entry.versions or (_newest_version(folder),)
    if len(set(versions)) != len(versions):
        raise CatalogueInvalid(f"{models / CATALOGUE}: {name}: a version is named twice")
    return [folder / version for version in versions]


def open_version(path: Path, keys: TrustedKeys | None = None) -> Bundle:
    """Return the bundle in a version's folder; its files are verified when they are read.

    Raises:
        BundleError: if it is missing, of another version, or not signed by one of `keys`.
    """
    bundle = open_bundle(path, keys)
    manifest = bundle.manifest
    if manifest.version != path.name:
        raise BundleCorrupt(
            f"{bundle.path}: the manifest is of version {manifest.version}; "
            "a version's folder has its name"
        )
    if keys is not None and manifest.name != path.parent.name:
        raise SignatureInvalid(
            f"{bundle.path}: what was signed is a version of {manifest.name!r}; "
            "a signed bundle lies in a folder of its name"
        )
    return bundle


def _newest_version(folder: Path) -> str:
    try:
        versions = [path.name for path in folder.iterdir() if path.name.isdecimal()]
    except (OSError, ValueError):  # the latter of a NUL in its name
        versions = []
    if not versions:
        raise BundleMissing(f"{folder}: holds no version; train or copy the bundle")
    return max(versions, key=int)
