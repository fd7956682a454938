"""Which bundles are served under which names: `catalogue.toml` becomes predictors."""

import logging
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from service.batching import BatchLimits
from service.bundle import Bundle, read_bundle
from service.bundle.manifest import Name
from service.decision import Floor
from service.errors import (
    BundleCorrupt,
    BundleMissing,
    CatalogueInvalid,
    ModelNotFound,
    OptionInvalid,
    VersionNotFound,
)
from service.inputs import InputLimits, create_decoder
from service.prediction.predictor import Predictor
from service.runtimes import RuntimeOptions, load_runtime
from service.settings import Settings, usable_cores, worker_count
from service.telemetry.metrics import Metrics

CATALOGUE = "catalogue.toml"

log = logging.getLogger(__name__)


class ModelEntry(BaseModel):
    """What the operator chooses for one name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str | None = None
    """Folder of the bundle's versions; the same as the name unless given."""

    versions: tuple[str, ...] = ()
    """Versions to serve, the first by default; the newest one unless given."""

    aliases: dict[str, str] = {}
    """Alias -> version, for `?alias=`."""

    runtime: str = "onnx"
    """Which runtime executes the graph."""

    variant: str | None = None
    """Which of the bundle's variants is served, such as `int8`; the graph itself unless given."""

    instances: int = Field(default=1, ge=1, le=64)
    """How many batches run at the same time, each by a session of its own."""

    max_error: float | None = Field(default=None, gt=0, lt=1)
    """Certified risk to serve by default, instead of the bundle's own."""

    allow_looser: bool = False
    """Whether a request may ask for less than the default."""


class CatalogueFile(BaseModel):
    """The content of `catalogue.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[Name, ModelEntry] = Field(min_length=1)


class Served:
    """One name: its versions and aliases."""

    def __init__(self, predictors: Mapping[str, Predictor], aliases: Mapping[str, str]) -> None:
        self.predictors = dict(predictors)
        self.aliases = dict(aliases)
        self.default = next(iter(self.predictors.values()))


class Catalogue:
    """The models that are served, by name."""

    def __init__(self, served: Mapping[str, Served]) -> None:
        self.served = dict(served)

    def __iter__(self) -> Iterator[Predictor]:
        for served in self.served.values():
            yield from served.predictors.values()

    @property
    def names(self) -> tuple[str, ...]:
        """Names that are served, in the order of the catalogue."""
        return tuple(self.served)

    @property
    def is_ready(self) -> bool:
        """Whether there are models and every one of them takes rows."""
        return bool(self.served) and all(predictor.is_ready for predictor in self)

    def find(self, name: str, version: str | None = None, alias: str | None = None) -> Predictor:
        """Return the predictor of a name, in its default version unless one is asked for.

        Raises:
            ModelNotFound: naming the models that are served.
            VersionNotFound: naming the versions or aliases there are.
        """
        served = self.served.get(name)
        if served is None:
            raise ModelNotFound(name, self.names)
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

    def start(self) -> None:
        """Begin to take rows, on the running event loop."""
        for predictor in self:
            predictor.start()

    async def close(self, timeout_s: float) -> None:
        """Let every predictor finish what waits, in at most `timeout_s` together."""
        until_s = time.monotonic() + timeout_s
        for predictor in self:
            await predictor.close(max(0.0, until_s - time.monotonic()))


def load_catalogue(settings: Settings, metrics: Metrics, only: str | None = None) -> Catalogue:
    """Load, check and warm every model of the catalogue, or `only` the one of that name.

    Raises:
        BundleError: naming the first file or setting that is wrong; nothing is served then.
        ModelNotFound: if `only` is not in the catalogue.
    """
    entries = read_catalogue(settings.models).models
    if only is not None and only not in entries:
        raise ModelNotFound(only, tuple(entries))
    served: dict[str, Served] = {}
    for name, entry in entries.items():
        if only not in (None, name):
            continue
        predictors = {
            bundle.manifest.version: _load_predictor(name, entry, bundle, settings, metrics)
            for bundle in find_bundles(settings.models, name, entry)
        }
        unknown = [alias for alias, version in entry.aliases.items() if version not in predictors]
        if unknown:
            message = (
                f"{settings.models / CATALOGUE}: alias {unknown[0]!r} of {name} has no version"
            )
            raise CatalogueInvalid(message)
        served[name] = Served(predictors, entry.aliases)
    return Catalogue(served)


def read_catalogue(models: Path) -> CatalogueFile:
    """Return the content of `catalogue.toml` in the folder `models`.

    Raises:
        CatalogueInvalid: naming the file and what is wrong with it.
    """
    path = models / CATALOGUE
    try:
        return CatalogueFile.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); set DUNNO_MODELS to its folder"
        raise CatalogueInvalid(message) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueInvalid(f"{path}: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CatalogueInvalid(f"{path}: {where}: {first['msg']}") from None


def find_bundles(models: Path, name: str, entry: ModelEntry) -> list[Bundle]:
    """Return the bundles of a catalogue entry, the default version first.

    Raises:
        BundleError: if a version is missing or corrupt.
    """
    folder = models / (entry.bundle or name)
    versions = entry.versions or (_newest_version(folder),)
    if len(set(versions)) != len(versions):
        raise CatalogueInvalid(f"{models / CATALOGUE}: {name}: a version is named twice")
    bundles = [read_bundle(folder / version) for version in versions]
    for version, bundle in zip(versions, bundles, strict=True):
        if bundle.manifest.version != version:
            raise BundleCorrupt(
                f"{bundle.path}: the manifest is of version {bundle.manifest.version}; "
                "a version's folder has its name"
            )
    return bundles


def _newest_version(folder: Path) -> str:
    try:
        versions = [path.name for path in folder.iterdir() if path.name.isdecimal()]
    except OSError:
        versions = []
    if not versions:
        raise BundleMissing(f"{folder}: holds no version; train or copy the bundle")
    return max(versions, key=int)


def runtime_threads(settings: Settings) -> int:
    """Return how many threads one run may use: the cores, shared by the workers."""
    return settings.runtime_threads or max(1, int(usable_cores()) // worker_count(settings))


def runtime_options(settings: Settings) -> RuntimeOptions:
    """Return what the machine allows a runtime."""
    return RuntimeOptions(runtime_threads(settings), settings.device)


def _load_predictor(
    name: str, entry: ModelEntry, bundle: Bundle, settings: Settings, metrics: Metrics
) -> Predictor:
    started_s = time.perf_counter()
    manifest = bundle.manifest
    options = replace(runtime_options(settings), variant=entry.variant)
    runtime, *more_instances = (
        load_runtime(entry.runtime, bundle, options) for _ in range(entry.instances)
    )
    limits = BatchLimits(
        max_rows=settings.max_batch_rows,
        max_queue_rows=settings.max_queue_rows,
        max_wait_s=settings.max_wait_ms / 1000,
        has_buckets=runtime.has_buckets,
    )
    try:
        predictor = Predictor(
            name,
            bundle,
            runtime=runtime,
            runtime_name=entry.runtime,
            decoder=create_decoder(bundle, input_limits(settings)),
            floor=Floor(entry.max_error, entry.allow_looser),
            limits=limits,
            metrics=metrics.of_model(name, manifest.version, manifest.labels),
            more_instances=more_instances,
            variant=entry.variant,
        )
    except OptionInvalid as error:
        # The judge speaks to callers; here it is the operator who asked for a risk.
        where = f"{settings.models / CATALOGUE}: {name}"
        message = f"{where}: {str(error).replace('query parameter ', '')}"
        raise CatalogueInvalid(message) from None
    loaded_s = time.perf_counter()
    predictor.check_golden_rows()
    predictor.warm()
    metrics.model_load_duration.labels(name).observe(loaded_s - started_s)
    metrics.model_warmup_duration.labels(name).observe(time.perf_counter() - loaded_s)
    metrics.model_state.labels(name, manifest.version, "available").set(1)
    digest = predictor.judge.policy_id.rpartition("-")[2]
    metrics.model_info.labels(name, manifest.version, entry.runtime, runtime.device, digest).set(1)
    log.info(
        "model ready",
        extra={
            "model": name,
            "version": manifest.version,
            "runtime": entry.runtime,
            "variant": entry.variant,
            "device": runtime.device,
            "seconds": round(time.perf_counter() - started_s, 3),
        },
    )
    return predictor


def input_limits(settings: Settings) -> InputLimits:
    """Return the caps on input that the settings allow."""
    return InputLimits(
        max_rows=settings.max_request_rows,
        max_picture_pixels=settings.max_picture_pixels,
        max_picture_side=settings.max_picture_side,
        max_request_pixels=settings.max_request_pixels,
    )
