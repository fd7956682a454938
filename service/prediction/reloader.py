"""Changes what is served while it is served: load in a thread, switch on the loop, let the old go.

Each name switches as a whole or stays as it was. What is new is checked and warm before anybody
finds it; what is old answers whatever it has taken in, and is freed then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from service.batching.threads import CallHangs, TimedThread
from service.errors import BundleCorrupt, BundleError, LoadTimedOut, ModelNotFound
from service.prediction.catalogue import (
    CATALOGUE,
    Catalogue,
    CatalogueFile,
    ModelEntry,
    Served,
    read_catalogue,
)
from service.prediction.file_stamps import Stamps, bundle_files, model_files, stamps_of
from service.prediction.loading import Loader, too_slow
from service.settings import Settings
from service.telemetry.metrics import UNKNOWN_MODEL, Metrics

LOOK_AT_CANARIES_S = 1.0

KEYS_LIMIT_S = 10.0
"""Time limit for reading a file of keys: a revoked key must not stay in force for long."""

MOST_HUNG = 4
"""Most threads that hang in a load; with more, nothing is loaded until the server is restarted."""

log = logging.getLogger(__name__)

Found = TypeVar("Found")
ReadAnew = Callable[[], Callable[[], None]]
"""Reads a file in a thread, and returns what puts it in force on the event loop."""


class Prepared(NamedTuple):
    """What was loaded, and why the rest was not."""

    served: dict[str, Served]
    failures: dict[str, BundleError]


class Work(NamedTuple):
    """What a load reads; unless this changes, one that hangs is not begun again."""

    name: str
    entry: ModelEntry | None = None
    stamps: Stamps | None = None


class HungLoad(NamedTuple):
    """A load that took too long, in a thread that was left behind."""

    work: Work
    future: "asyncio.Future[Any]"


class Reloader:
    """Reloads a catalogue, one change at a time, and takes traffic from canaries that fail."""

    def __init__(self, catalogue: Catalogue, settings: Settings, metrics: Metrics) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._metrics = metrics
        self.loader = Loader(settings, metrics)
        self._changing = asyncio.Lock()
        self._is_asked = False
        self._limit_s = settings.max_load_ms / 1000
        # API keys are read in a thread of their own: neither a bundle that hangs nor the disk of
        # the models may keep a revoked key in force.
        self._keys_limit_s = min(self._limit_s, KEYS_LIMIT_S)
        self._keys = TimedThread("keys", self._keys_limit_s, MOST_HUNG)
        self._looks = TimedThread("watch", self._limit_s, MOST_HUNG)
        # One thread for all: each would keep memory of its own for what it has loaded.
        self._loads = TimedThread("load", self._limit_s, MOST_HUNG)
        self._hung: list[HungLoad] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._watches: list[asyncio.Task[object]] = []
        self._others: dict[Path, ReadAnew] = {}
        self._seen: Stamps = catalogue.stamps
        self._seen_others: Stamps = {}

    def start(self) -> None:
        """Begin to watch canaries and, if the settings say so, files; on the running loop."""
        self._tell_weights()
        self._watch(LOOK_AT_CANARIES_S, self._look_at_canaries)
        if self._settings.watch_models_s:
            self._watch(self._settings.watch_models_s, self._look_at_models)
            self._watch(self._settings.watch_models_s, self._look_at_others)

    def read_also(self, path: Path, read: ReadAnew) -> None:
        """Read another file of the operator whenever the catalogue is read; also watch it."""
        self._others[path] = read
        self._seen_others = {**self._seen_others, **stamps_of([path])}

    async def close(self, timeout_s: float) -> None:
        """Stop watching and loading; what is being let go gets `timeout_s`."""
        self._is_asked = True  # who asks from now on, asks for nothing
        for watch in self._watches:
            watch.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        for thread in (self._keys, self._looks, self._loads):
            thread.stop()

    def reload_soon(self) -> None:
        """Reload when there is time, once for all who ask before it begins."""
        if self._is_asked:
            self._read_others_soon()  # the reload that was asked for may wait for one that hangs
        else:
            self._is_asked = True
            self._keep(self._quietly(self.reload))

    async def reload(self) -> dict[str, BundleError]:
        """Read the catalogue anew and serve what it says; return what failed, by name.

        Raises:
            CatalogueInvalid: if it cannot be read; then nothing changes.
        """
        # First: whoever loses a key shall not keep it for the sake of a bad bundle.
        await self._read_others()
        async with self._changing:
            self._is_asked = False
            try:
                prepared = await self._prepare()
            except BundleError as error:
                self._tell_failure(UNKNOWN_MODEL, error, CATALOGUE)
                raise
            before, names = self._catalogue.failures, {path.name for path in self._others}
            others = {name: error for name, error in before.items() if name in names}
            self._catalogue.failures = {**prepared.failures, **others}
            self._metrics.forget_failures(prepared.failures)
            for name, failure in prepared.failures.items():
                self._tell_failure(name, failure)
            self._switch(prepared.served)
            return self._catalogue.failures

    async def load(self, name: str) -> None:
        """Serve a name as the catalogue says now; the others stay as they are.

        Raises:
            ModelNotFound: if the catalogue does not name it.
            BundleError: if it cannot be served; then nothing changes.
        """
        async with self._changing:
            try:
                served = await self._prepare_one(name)
            except BundleError as error:
                self._catalogue.failures[name] = error
                self._tell_failure(name, error)
                raise
            self._catalogue.failures.pop(name, None)
            self._switch({**self._catalogue.served, name: served}, [name])

    async def unload(self, name: str) -> None:
        """Serve a name no more, until it is loaded or the catalogue is read anew.

        Raises:
            ModelNotFound: if it is not served.
        """
        async with self._changing:
            served = dict(self._catalogue.served)
            if served.pop(name, None) is None:
                raise ModelNotFound(name, self._catalogue.names)
            self._catalogue.failures.pop(name, None)
            self._switch(served, [name])

    def roll_back(self) -> None:
        """Take the weight of every canary that is worse than its catalogue entry allows."""
        for name, served in self._catalogue.served.items():
            for version, finding in served.find_faults().items():
                assert served.turns is not None  # noqa: S101  who has none has no canary
                served.turns.drop(version)
                self._metrics.rollbacks.labels(name, version, finding.reason).inc()
                self._tell_weights()
                log.error(
                    "canary rolled back",
                    extra={
                        "model": name,
                        "version": version,
                        "reason": finding.reason,
                        "detail": finding.detail,
                    },
                )

    async def _read_others(self) -> None:
        """Put in force what the other files say now; one that cannot be used changes nothing."""
        for path, read in self._others.items():
            try:
                await self._read_other(path, read)
            except BundleError as error:
                self._tell_failure(UNKNOWN_MODEL, error, path.name)
            else:
                self._catalogue.failures.pop(path.name, None)

    async def _read_other(self, path: Path, read: ReadAnew) -> None:
        """Read a file and put it in force.

        Raises:
            BundleError: if that cannot be done, for whatever reason.
        """
        try:
            use = await self._keys.run(read)
            use()
        except CallHangs as hang:
            if hang.future is not None:
                hang.future.add_done_callback(lambda _: self._forget_stamp(path))
            message = f"{path}: reading did not end within {self._keys_limit_s:g} s ({hang})"
            raise LoadTimedOut(message) from None
        except BundleError as error:
            if isinstance(error.__cause__, OSError):
                self._forget_stamp(path)
            raise
        except Exception as error:
            self._forget_stamp(path)
            raise BundleCorrupt(f"{path}: cannot be read: {error}") from error

    def _forget_stamp(self, path: Path) -> None:
        """Let the next look at the files read one again: what failed may have passed."""
        self._seen_others = {each: at for each, at in self._seen_others.items() if each != path}

    @property
    def hung(self) -> list[HungLoad]:
        """Loads that took too long and have not ended yet."""
        self._hung = [load for load in self._hung if not load.future.done()]
        return self._hung

    def _read_others_soon(self) -> None:
        """Read the other files at once, although a reload may be going on."""
        self._keep(self._quietly(self._read_others))

    async def _prepare(self) -> Prepared:
        """Load what the catalogue says; a name that fails stays as it is."""
        served: dict[str, Served] = {}
        failures: dict[str, BundleError] = {}
        catalogue = await self._read_catalogue()
        for name, entry in catalogue.models.items():
            before = self._catalogue.served.get(name)
            try:
                served[name] = await self._load(name, entry, before)
            except BundleError as error:
                failures[name] = error
                if before is not None:
                    served[name] = before
        return Prepared(served, failures)

    async def _prepare_one(self, name: str) -> Served:
        entries = (await self._read_catalogue()).models
        if name not in entries:
            raise ModelNotFound(name, tuple(entries))
        return await self._load(name, entries[name], self._catalogue.served.get(name))

    async def _read_catalogue(self) -> CatalogueFile:
        models = self._settings.models
        return await self._in_time(Work(CATALOGUE), lambda: read_catalogue(models))

    async def _load(self, name: str, entry: ModelEntry, before: Served | None) -> Served:
        """Load a name; one version after another.

        Raises:
            BundleError: naming the first file or setting that is wrong, or that it took too long.
        """
        folder = self._settings.models / (entry.bundle or name)
        stamps = await self._in_time(Work(name, entry), lambda: stamps_of(bundle_files(folder)))
        work = Work(name, entry, stamps)
        try:
            return await self._in_time(work, lambda: self.loader.load(name, entry, before))
        except LoadTimedOut:
            self.loader.give_up(name)
            raise

    async def _in_time(self, work: Work, call: Callable[[], Found]) -> Found:
        """Return what a call returns, and leave its thread behind if it does not come back.

        Raises:
            LoadTimedOut: if it takes too long, or the same work still hangs.
        """
        if any(load.work == work for load in self.hung):
            message = f"{work.name}: still being loaded by an earlier reload; replace its files"
            raise LoadTimedOut(message)
        if self._loads.is_lost:
            message = f"{work.name}: not loaded, as {MOST_HUNG} loads hang; restart the server"
            raise LoadTimedOut(message)
        try:
            return await self._loads.run(call)
        except CallHangs as hang:
            if hang.future is not None:
                self._hung.append(HungLoad(work, hang.future))
            raise LoadTimedOut(too_slow(work.name, self._limit_s)) from None

    def _switch(self, served: Mapping[str, Served], names: list[str] | None = None) -> None:
        before = self._catalogue.served
        for name in names or dict.fromkeys([*before, *served]):
            if name not in self._catalogue.failures:
                self._metrics.model_reloads.labels(name, _outcome(before, served, name)).inc()
        gone = self._catalogue.switch(served)
        for predictor in (predictor for each in gone for predictor in each.loaded):
            self._metrics.version_weight.remove(predictor.name, predictor.manifest.version)
        self._tell_weights()
        kept = {id(predictor) for each in served.values() for predictor in each.loaded}
        for each in gone:
            self._keep(self._retire(each, kept))
        log.info("catalogue switched", extra={"models": list(served), "replaced": len(gone)})

    async def _retire(self, served: Served, kept: set[int]) -> None:
        """Let go of the predictors of a name that nobody finds any more."""
        # A body may arrive that slowly, and an answer take that long.
        patience_s = (self._settings.body_timeout_ms + self._settings.deadline_ms) / 1000
        if served.shadow is not None and id(served.shadow.candidate) not in kept:
            await served.shadow.close(patience_s)
        gone = [predictor for predictor in served.loaded if id(predictor) not in kept]
        await asyncio.gather(*(predictor.retire(patience_s) for predictor in gone))

    async def _quietly(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except BundleError:
            pass  # told where it happened
        except Exception:
            log.exception("reload failed")

    def _watch(self, pause_s: float, look: Callable[[], Awaitable[None]]) -> None:
        """Call `look` again and again; one that fails is logged and does not end it."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(pause_s)
                try:
                    await look()
                except (OSError, CallHangs) as error:  # a folder that is being replaced
                    log.warning("files were not looked at", extra={"detail": str(error)})
                except Exception:
                    log.exception("a look failed; the next one follows")

        self._watches.append(asyncio.get_running_loop().create_task(watch()))

    async def _look_at_canaries(self) -> None:
        self.roll_back()

    async def _look_at_models(self) -> None:
        models = self._settings.models
        stamps = await self._looks.run(lambda: stamps_of(model_files(models, CATALOGUE)))
        if stamps != self._seen:
            self._seen = stamps
            self.reload_soon()  # the next look does not wait for a bundle that hangs

    async def _look_at_others(self) -> None:
        stamps = await self._keys.run(lambda: stamps_of(self._others))
        if stamps != self._seen_others:
            self._seen_others = stamps
            self._read_others_soon()

    def _keep(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell_failure(self, name: str, error: BundleError, file: str = "") -> None:
        """Report why a name, or a file that is not of one name, could not be read."""
        if file:
            self._catalogue.failures[file] = error
        self._metrics.model_reloads.labels(name, "failed").inc()
        log.error(
            "reload failed",
            exc_info=None if isinstance(error.__cause__, OSError) else error.__cause__,
            extra={"model": name, "detail": str(error)},
        )

    def _tell_weights(self) -> None:
        for name, served in self._catalogue.served.items():
            for version in served.predictors if served.turns is not None else ():
                assert served.turns is not None  # noqa: S101  looked at in the line above
                weight = self._metrics.version_weight.labels(name, version)
                weight.set(served.turns.share(version))


def _outcome(before: Mapping[str, Served], served: Mapping[str, Served], name: str) -> str:
    if name not in served:
        return "unloaded"
    return "unchanged" if before.get(name) is served[name] else "switched"
