"""Composition root: the only module that knows every layer."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as RoutingException
from starlette.middleware import Middleware
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from service import __version__
from service.api import catalogue as catalogue_routes
from service.api import probes
from service.api.addresses import SideAddress, SideAddresses, take_sides
from service.api.admin import create_admin
from service.api.clouds import PREDICT_VARIABLE
from service.api.cors import Cors
from service.api.doorway import HEALTH_VARIABLE, Doorway
from service.api.fastlane import Fastlane
from service.api.gate import Gate
from service.api.keys import Keys
from service.api.middleware import RequestIds, ShortQueries
from service.api.openapi import Documents, Surroundings
from service.api.pages import page_routes
from service.api.problems import MEDIA_TYPE, problem, refusal
from service.api.protocols import protocol_routes
from service.api.stopping import Stopping
from service.errors import BundleError, DunnoError, LoadTimedOut
from service.leaving import end_process
from service.memory import give_large_blocks_back
from service.prediction import Catalogue, Reloader, load_catalogue
from service.prediction.loading import runtime_threads
from service.settings import Settings, SettingsInvalid, read_settings, usable_cores, worker_count
from service.telemetry.devices import watch_devices
from service.telemetry.heartbeat import Heartbeat
from service.telemetry.logs import configure_logs
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import start_tracing
from service.telemetry.workers import RUN, Workers

if TYPE_CHECKING:
    from service.telemetry.spans import Traces

YOUNG_OBJECTS = 5000
"""So many new objects between two collections, where Python has 700 or 2000: few of ours are ever
garbage that only a collection finds."""

log = logging.getLogger(__name__)


class Process(NamedTuple):
    """Parts of the service that exist once for a process, where the settings ask for them."""

    workers: Workers | None = None
    traces: "Traces | None" = None
    sides: Mapping[str, list[socket.socket]] = MappingProxyType({})
    """Sockets of the admin and metrics addresses, of `take_sides`."""


def create_worker() -> ASGIApp:
    """Return the service of one worker process, by the environment that its parent set.

    What keeps it from serving keeps its successors as well: it exits so that none is started.
    """
    settings = read_settings()
    configure_logs(settings.log_level)
    try:
        return create_app(settings)
    except (BundleError, SettingsInvalid) as error:
        log.critical(str(error))
        if isinstance(error, LoadTimedOut):
            end_process(STARTUP_FAILURE)
        sys.exit(STARTUP_FAILURE)


def create_app(settings: Settings) -> ASGIApp:
    """Return the service with every model of the catalogue loaded, checked and warm.

    Raises:
        BundleError: naming the first bundle or setting of the catalogue that cannot be served.
        SettingsInvalid: if the address of admin or metrics cannot be had.
    """
    give_large_blocks_back()
    run = os.environ.get(RUN)
    sides = take_sides(settings, is_worker=run is not None)
    metrics = Metrics()
    versions = {
        "version": __version__,
        "commit": settings.revision,
        "onnxruntime": _version_of("onnxruntime", "onnxruntime-gpu"),
        "tensorflow": _version_of("tensorflow"),
    }
    metrics.describe_process(versions, runtime_threads(settings), usable_cores())
    catalogue = load_catalogue(settings, metrics)
    if any(predictor.runtime.device == "cuda" for predictor in catalogue):
        watch_devices(metrics.device_memory)
    workers = Workers(run, worker_count(settings), metrics) if run else None
    process = Process(workers, start_tracing(os.environ), sides)
    return compose(catalogue, settings, metrics, process)


def compose(
    catalogue: Catalogue,
    settings: Settings,
    metrics: Metrics,
    process: Process = Process(),  # noqa: B008  a constant
) -> ASGIApp:
    """Return the service for a catalogue that is loaded but not started.

    Raises:
        BundleError: if the file of keys cannot be used.
    """
    workers, traces, _ = process
    reloader = Reloader(catalogue, settings, metrics)
    keys = _read_keys(settings, metrics, reloader)
    stall_s = settings.max_stall_ms / 1000
    heartbeat = Heartbeat(metrics.event_loop_lag, stall_s, usable_cores())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sides.start()
        catalogue.start()
        reloader.start()
        _reload_on_hangup(reloader)
        ends = (catalogue.announce_end, fastlane.doorway.announce_end)
        Stopping(settings.stop_delay_ms / 1000, ends).listen()
        if workers is not None:
            await workers.start()
        heartbeat.start()
        gc.collect()
        gc.freeze()  # what is loaded stays; collections need not walk it again
        gc.set_threshold(YOUNG_OBJECTS)
        log.info("ready", extra={"models": catalogue.names})
        yield
        await sides.close()
        patience_s = settings.drain_timeout_ms / 1000
        await asyncio.gather(reloader.close(patience_s), catalogue.close(patience_s))
        heartbeat.stop()
        if workers is not None:
            await workers.close()
        fastlane.close()
        if traces is not None:
            await traces.close()
        log.info("stopped")

    app = FastAPI(
        title="Dunno",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,
        middleware=[Middleware(ShortQueries)],
    )
    app.include_router(catalogue_routes.router)
    app.include_router(probes.router)
    if settings.metrics_port is None:
        app.include_router(probes.metrics_router)
    app.add_exception_handler(DunnoError, _refuse)
    app.add_exception_handler(RoutingException, _refuse_route)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(Exception, _fail)
    app.state.catalogue = catalogue
    app.state.has_keys = keys is not None
    app.state.metrics = metrics
    app.state.workers = workers
    fastlane = Fastlane(RequestIds(app), catalogue, settings, metrics, traces)
    sides = _side_addresses(reloader, fastlane, process)
    app.router.routes.extend(protocol_routes(fastlane.resources, fastlane, os.environ))
    pages = page_routes(has_playground=settings.playground, has_reference=settings.docs_page)
    app.router.routes.extend([*pages, _documents(catalogue, settings).route])
    return _guarded(fastlane, keys, settings, metrics)


def _documents(catalogue: Catalogue, settings: Settings) -> Documents:
    surroundings = Surroundings(
        has_keys=settings.keys is not None,
        has_metrics=settings.metrics_port is None,
        has_playground=settings.playground,
        has_reference=settings.docs_page,
        default_model=settings.default_model,
        vertex_health=os.environ.get(HEALTH_VARIABLE, ""),
        vertex_predict=os.environ.get(PREDICT_VARIABLE, ""),
    )
    return Documents(catalogue, surroundings)


def _read_keys(settings: Settings, metrics: Metrics, reloader: Reloader) -> Keys | None:
    if settings.keys is None:
        return None
    keys = Keys(settings.keys, metrics)
    reloader.read_also(settings.keys, keys.read_anew)
    return keys


def _side_addresses(reloader: Reloader, fastlane: Fastlane, process: Process) -> SideAddresses:
    """Return the servers of the admin and the metrics address."""
    catalogue, settings, metrics, *_ = fastlane.resources
    has_keys = settings.keys is not None
    unsent = fastlane.doorway.unsent
    sides = []
    for name, bound in process.sides.items():
        if name == "admin":
            app, host = create_admin(catalogue, reloader, settings), settings.admin_host
        else:
            app = probes.create_metrics(catalogue, metrics, process.workers, has_keys=has_keys)
            host = settings.metrics_host
        sides.append(SideAddress(name, app, bound, Doorway(settings, metrics, host, unsent)))
    return SideAddresses(sides)


def _guarded(
    fastlane: Fastlane, keys: Keys | None, settings: Settings, metrics: Metrics
) -> ASGIApp:
    """Return the service behind what the settings put in front of it."""
    guarded: ASGIApp = fastlane
    if keys is not None:
        fastlane.keys = keys
        guarded = Gate(guarded, keys, metrics, os.environ, has_log=settings.access_log)
    return Cors(guarded, settings.cors_origins) if settings.cors_origins else guarded


def _reload_on_hangup(reloader: Reloader) -> None:
    """Let SIGHUP reload the catalogue; only the main thread of a process gets signals."""
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.reload_soon)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # it may wait in a worker


def _version_of(*distributions: str) -> str:
    """Return the version of the first of these that is installed, nothing if none is."""
    for name in distributions:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return ""


def _request_id(request: Request) -> str:
    return str(request.scope["state"]["request_id"])


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, DunnoError)  # noqa: S101  registered for nothing else
    status, headers, content = refusal(error, _request_id(request))
    return Response(content, status, {name.decode(): value.decode() for name, value in headers})


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, RoutingException)  # noqa: S101  registered for nothing else
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    content = problem(error.status_code, code, detail, _request_id(request))
    return Response(content, error.status_code, error.headers, MEDIA_TYPE.decode())


async def _refuse_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for nothing else
    first = error.errors()[0]
    detail = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    content = problem(422, "option_invalid", detail, _request_id(request))
    return Response(content, 422, media_type=MEDIA_TYPE.decode())


async def _fail(request: Request, error: Exception) -> Response:
    request_id = _request_id(request)
    log.error("request failed", exc_info=error, extra={"request_id": request_id})
    content = problem(500, "internal", "a fault of ours; quote the request id", request_id)
    return Response(content, 500, media_type=MEDIA_TYPE.decode())
