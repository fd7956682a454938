"""A catalogue entry -> predictors that are checked, warm, and not started yet."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from service.batching import BatchLimits
from service.bundle import Bundle, Manifest, TrustedKeys
from service.decision import Floor
from service.errors import (
    BundleCorrupt,
    BundleError,
    CatalogueInvalid,
    LoadTimedOut,
    ModelNotFound,
    OptionInvalid,
)
from service.inputs import InputLimits, create_decoder
from service.inputs.payload import UNBOUNDED
from service.leaving import expect_end
from service.memory import fitting_rows
from service.prediction.catalogue import (
    CATALOGUE,
    Catalogue,
    ModelEntry,
    Served,
    find_versions,
    open_version,
    read_catalogue,
)
from service.prediction.file_stamps import Stamps, model_files, stamps_of
from service.prediction.predictor import Predictor
from service.prediction.shadow import Shadow
from service.runtimes import RuntimeOptions, load_runtime
from service.settings import Settings, usable_cores, usable_memory_bytes, worker_count
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

Returned = TypeVar("Returned")


def load_catalogue(settings: Settings, metrics: Metrics, only: str | None = None) -> Catalogue:
    """Load, check and warm every model of the catalogue, or `only` the one of that name.

    Raises:
        BundleError: naming the first file or setting that is wrong; nothing is served then.
        ModelNotFound: if `only` is not in the catalogue.
    """
    limit_s = settings.max_load_ms / 1000
    stamps, entries = _in_time(lambda: _look(settings.models), limit_s, CATALOGUE)
    if only is not None and only not in entries:
        raise ModelNotFound(only, tuple(entries))
    loader = Loader(settings, metrics)
    served = {
        name: _in_time(partial(loader.load, name, entry), limit_s, name)
        for name, entry in entries.items()
        if only in (None, name)
    }
    return Catalogue(served, stamps)


def too_slow(name: str, limit_s: float) -> str:
    """Return the sentence about a load that was given up."""
    return f"{name}: loading did not end within {limit_s:g} s (DUNNO_MAX_LOAD_MS)"


def _look(models: Path) -> tuple[Stamps, Mapping[str, ModelEntry]]:
    # Stamps first: what changes while models are loaded is noticed afterwards.
    return stamps_of(model_files(models, CATALOGUE)), read_catalogue(models).models


def _in_time(call: Callable[[], Returned], limit_s: float, name: str) -> Returned:
    """Return what a call returns, by a thread that is left behind if it does not come back."""
    future: Future[Returned] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  it is for whoever waits
            future.set_exception(error)

    thread = threading.Thread(target=work, name="dunno-load", daemon=True)
    expect_end(thread)
    thread.start()
    done, _ = wait([future], timeout=limit_s)
    if not done:
        raise LoadTimedOut(too_slow(name, limit_s))
    return future.result()


class Loader:
    """Loads names of the catalogue, and keeps what did not change."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loading: dict[str, str] = {}

    def give_up(self, name: str) -> None:
        """Count the version of a name that is being loaded as failed."""
        version = self._loading.get(name)
        if version is not None:
            self._metrics.model_state.labels(name, version, "failed").set(1)

    def load(self, name: str, entry: ModelEntry, before: Served | None = None) -> Served:
        """Return a name with all its versions checked and warm; `before` itself if it is the same.

        A predictor of `before` is kept if its folder, manifest, runtime and risk are the same.

        Raises:
            BundleError: naming the first file or setting that is wrong.
        """
        paths = find_versions(self._settings.models, name, entry)
        old = () if before is None else before.predictors.values()
        predictors = {path.name: self._predictor(name, entry, path, old) for path in paths}
        unknown = [alias for alias, version in entry.aliases.items() if version not in predictors]
        if unknown:
            message = f"{self._place(name)}: alias {unknown[0]!r} has no version"
            raise CatalogueInvalid(message)
        served = Served(predictors, entry.aliases, entry)
        if entry.shadow is not None:
            path = paths[0].parent / entry.shadow
            served.shadow = self._shadow(name, entry, path, served.default, before)
        return before if before is not None and _is_same(before, served) else served

    def _predictor(
        self, name: str, entry: ModelEntry, path: Path, old: Iterable[Predictor]
    ) -> Predictor:
        failed = self._metrics.model_state.labels(name, path.name, "failed")
        self._loading[name] = path.name
        try:
            bundle = open_version(path, trusted_keys(self._settings))
            for predictor in old:
                if _serves(predictor, bundle, entry):
                    break
            else:
                predictor = self._load(name, entry, bundle)
        except BundleError:
            failed.set(1)
            raise
        except Exception as error:
            failed.set(1)
            message = f"{path}: cannot be loaded ({type(error).__name__}: {error})"
            raise BundleCorrupt(message) from error
        failed.set(0)
        return predictor

    def _load(self, name: str, entry: ModelEntry, bundle: Bundle) -> Predictor:
        started_s = time.perf_counter()
        bundle.verify()
        predictor = self._create(name, entry, bundle)
        loaded_s = time.perf_counter()
        predictor.check_golden_rows()
        predictor.warm()
        now_s = time.perf_counter()
        self._metrics.model_load_duration.labels(name).observe(loaded_s - started_s)
        self._metrics.model_warmup_duration.labels(name).observe(now_s - loaded_s)
        log.info(
            "model ready",
            extra={
                "model": name,
                "version": bundle.manifest.version,
                "runtime": entry.runtime,
                "variant": entry.variant,
                "device": predictor.runtime.device,
                "signed_by": bundle.signed_by,
                "seconds": round(now_s - started_s, 3),
            },
        )
        return predictor

    def _create(self, name: str, entry: ModelEntry, bundle: Bundle) -> Predictor:
        settings, manifest = self._settings, bundle.manifest
        options = replace(runtime_options(settings), variant=entry.variant)
        create = partial(load_runtime, entry.runtime, bundle, options)
        runtime, *more_instances = (create() for _ in range(entry.instances))
        limits = BatchLimits(
            max_rows=settings.max_batch_rows,
            max_queue_rows=self._fitting(name, settings.max_queue_rows, manifest),
            max_wait_s=settings.max_wait_ms / 1000,
            max_run_s=settings.max_run_ms / 1000,
            has_buckets=runtime.has_buckets,
        )
        try:
            return Predictor(
                name,
                bundle,
                runtime=runtime,
                runtime_name=entry.runtime,
                decoder=create_decoder(bundle, self._input_limits(name, manifest)),
                floor=_floor(entry),
                limits=limits,
                metrics=self._metrics.of_model(name, manifest.version, manifest.labels),
                more_instances=more_instances,
                variant=entry.variant,
                reload=create,
            )
        except OptionInvalid as error:
            # The judge speaks to callers; here it is the operator who asked for a risk.
            message = str(error).replace("query parameter ", "")
            raise CatalogueInvalid(f"{self._place(name)}: {message}") from None

    def _shadow(
        self, name: str, entry: ModelEntry, path: Path, live: Predictor, before: Served | None
    ) -> Shadow:
        # A runtime runs for one at a time: a candidate is kept with its shadow, or loaded anew.
        old = before.shadow if before is not None and before.default is live else None
        candidate = self._predictor(name, entry, path, [] if old is None else [old.candidate])
        if old is not None and candidate is old.candidate:
            return old
        if _rows_of(candidate) != _rows_of(live):
            raise CatalogueInvalid(
                f"{self._place(name)}: shadow {candidate.manifest.version!r} takes other rows "
                f"than version {live.manifest.version!r}; their inputs have to be declared alike"
            )
        version = candidate.manifest.version
        metrics = self._metrics.of_shadow(name, version, live.manifest.labels)
        return Shadow(candidate, live, metrics)

    def _input_limits(self, name: str, manifest: Manifest) -> InputLimits:
        limits = input_limits(self._settings)
        if limits.max_request_pixels == UNBOUNDED:  # offline: parts of a file, one at a time
            return limits
        return replace(limits, max_rows=self._fitting(name, limits.max_rows, manifest))

    def _fitting(self, name: str, wanted: int, manifest: Manifest) -> int:
        """Return how many rows of a model fit into memory, and log if they are fewer than set."""
        tensor = manifest.graph.input
        row_bytes = math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        rows = fitting_rows(wanted, row_bytes, self._settings, usable_memory_bytes())
        if rows < wanted:
            log.info(
                "%s: %d rows at most, not %d: each takes %d bytes", name, rows, wanted, row_bytes
            )
        return rows

    def _place(self, name: str) -> str:
        return f"{self._settings.models / CATALOGUE}: {name}"


def _serves(predictor: Predictor, bundle: Bundle, entry: ModelEntry) -> bool:
    return (
        predictor.path == bundle.path
        and predictor.manifest == bundle.manifest
        and predictor.runtime_name == entry.runtime
        and predictor.variant == entry.variant
        and predictor.instances == entry.instances
        and predictor.floor == _floor(entry)
    )


def _is_same(before: Served, served: Served) -> bool:
    return before.entry == served.entry and before.loaded == served.loaded


def _rows_of(predictor: Predictor) -> tuple[object, ...]:
    """Return all that decides which rows a payload becomes."""
    manifest = predictor.manifest
    vocabulary: str | None = getattr(manifest.input, "vocabulary", None)
    return manifest.input, manifest.graph.input, manifest.files.get(vocabulary or "")


def _floor(entry: ModelEntry) -> Floor:
    return Floor(entry.max_error, entry.allow_looser)


def runtime_threads(settings: Settings) -> int:
    """Return how many threads one run may use: the cores, shared by the workers."""
    return settings.runtime_threads or max(1, int(usable_cores()) // worker_count(settings))


def runtime_options(settings: Settings) -> RuntimeOptions:
    """Return what the machine allows a runtime."""
    return RuntimeOptions(runtime_threads(settings), settings.device)


def trusted_keys(settings: Settings) -> TrustedKeys | None:
    """Return the keys of which one has to have signed a bundle; None: nobody has to."""
    return TrustedKeys(settings.trusted_keys) if settings.trusted_keys else None


def input_limits(settings: Settings) -> InputLimits:
    """Return the caps on input that the settings allow."""
    return InputLimits(
        max_rows=settings.max_request_rows,
        max_picture_pixels=settings.max_picture_pixels,
        max_picture_side=settings.max_picture_side,
        max_request_pixels=settings.max_request_pixels,
        max_request_tokens=settings.max_request_tokens,
        max_row_errors=settings.max_row_errors,
    )
