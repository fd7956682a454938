"""`dunno serve | check | predict`; other distributions and the training extra add commands."""

import ipaddress
import json
import logging
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from service import __version__
from service.errors import (
    BundleError,
    ClientError,
    DunnoError,
    InputInvalid,
    MediaTypeUnsupported,
)
from service.inputs.payload import Payload
from service.settings import (
    Settings,
    SettingsInvalid,
    read_settings,
    usable_cores,
    worker_count,
)

if TYPE_CHECKING:
    import uvicorn

COMMANDS = "dunno.commands"
CANNOT_SERVE = 2
"""Exit code when a setting, the catalogue or a bundle has to be mended first."""

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".csv": "text/csv",
    ".txt": "text/plain",
    ".json": "application/json",
    ".npy": "application/x-npy",
}
"""Suffix of a file -> what its content is posted as."""


class _Commands(click.Group):
    """Commands of this module and those that are registered under `dunno.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_registered()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        registered = _registered()
        if cmd_name in registered:
            command: click.Command = registered[cmd_name].load()
            return command
        return super().get_command(ctx, cmd_name)


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMANDS)}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dunno")
def main() -> None:
    """Serve models that know when they do not know."""


@main.command()
@click.option("--host", help="Address to listen on (DUNNO_HOST).")
@click.option("--port", type=int, help="Port to listen on, 0 for a free one (DUNNO_PORT).")
@click.option("--models", type=Path, help="Folder with catalogue.toml (DUNNO_MODELS).")
def serve(host: str | None, port: int | None, models: Path | None) -> None:
    """Serve the models of the catalogue until SIGTERM or Ctrl-C."""
    settings = _settings(host=host, port=port, models=models)
    from service.telemetry.logs import configure_logs  # noqa: PLC0415  keeps --help quick

    configure_logs(settings.log_level)
    _report_posture(settings)
    if worker_count(settings) == 1:
        _serve_here(settings)
    else:
        _serve_by_workers(settings)


def _serve_here(settings: Settings) -> None:
    import uvicorn  # noqa: PLC0415  only `serve` needs it

    from service.app import create_app  # noqa: PLC0415

    try:
        app = create_app(settings)
    except BundleError as error:
        _stop(str(error))
    server = uvicorn.Server(_server_config(app, settings))
    # uvicorn raises the signal again when it has stopped, for whoever had a handler before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run()


def _serve_by_workers(settings: Settings) -> None:
    """Serve by several processes behind one socket; one that dies is replaced."""
    from uvicorn.config import STARTUP_FAILURE  # noqa: PLC0415  only `serve` needs it
    from uvicorn.supervisors import Multiprocess  # noqa: PLC0415

    from service.telemetry.workers import FOLDER  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="dunno-") as folder:
        # Workers read the environment anew, and options of the command line are not in it.
        os.environ |= {FOLDER: folder, "DUNNO_MODELS": str(settings.models)}
        config = _server_config("service.app:create_worker", settings)
        supervisor = Multiprocess(config, [config.bind_socket()])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(CANNOT_SERVE)


def _server_config(app: Callable[..., Any] | str, settings: Settings) -> "uvicorn.Config":
    import uvicorn  # noqa: PLC0415  only `serve` needs it

    from service.api.hotpath import HotProtocol  # noqa: PLC0415

    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port,
        workers=worker_count(settings),
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=HotProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the protocol has to see the service itself
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_ms / 1000),
    )


@main.command()
@click.option("--models", type=Path, help="Folder with catalogue.toml (DUNNO_MODELS).")
def check(models: Path | None) -> None:
    """Check settings, bundles and posture; exit 2 if the service would not start."""
    from rich.console import Console  # noqa: PLC0415  a service has no use for tables
    from rich.table import Table  # noqa: PLC0415

    from service.prediction import load_catalogue  # noqa: PLC0415
    from service.telemetry.metrics import Metrics  # noqa: PLC0415

    settings = _settings(models=models)
    try:
        catalogue = load_catalogue(settings, Metrics())
    except BundleError as error:
        _stop(str(error))
    console = Console()
    table = Table("model", "version", "runtime", "device", "policy", "max error", "guarantee")
    for predictor in catalogue:
        terms = predictor.judge.default_terms
        table.add_row(
            predictor.name,
            predictor.manifest.version,
            predictor.runtime_name,
            predictor.runtime.device,
            predictor.judge.policy_id,
            "none" if terms.max_error is None else f"{terms.max_error:.1%}",
            terms.guarantee,
        )
    console.print(table)
    for name in type(settings).model_fields:
        console.print(f"DUNNO_{name.upper()}={getattr(settings, name)}", highlight=False)
    console.print(f"usable cores: {usable_cores():g}", highlight=False)
    for warning in _posture(settings):
        console.print(f"warning: {warning}", highlight=False)
    console.print("all bundles match their checksums, golden outputs and golden verdicts")


@main.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=Path)
@click.option("--max-error", type=float, help="Certified risk to answer at, such as 0.01.")
@click.option("--min-confidence", type=float, help="Least confidence to answer.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object a row.")
@click.option("--models", type=Path, help="Folder with catalogue.toml (DUNNO_MODELS).")
def predict(  # noqa: PLR0913  one parameter for each option of the command
    model: str,
    files: tuple[Path, ...],
    max_error: float | None,
    min_confidence: float | None,
    *,
    is_json: bool,
    models: Path | None,
) -> None:
    """Print the verdicts of MODEL on FILES, without a server."""
    from service.api.options import NO_OPTIONS  # noqa: PLC0415  keeps --help quick
    from service.api.schemas import encode_row  # noqa: PLC0415
    from service.prediction import load_catalogue  # noqa: PLC0415
    from service.telemetry.metrics import Metrics  # noqa: PLC0415

    settings = _settings(models=models)
    try:
        predictor = load_catalogue(settings, Metrics(), only=model).find(model)
        terms = predictor.judge.terms(max_error, min_confidence)
    except (BundleError, ClientError) as error:
        _stop(str(error))
    found: list[dict[str, object]] = []
    for file in files:
        try:
            rows = predictor.predict_now(_payload(file), terms)
        except DunnoError as error:
            rows = [error]
        found += [
            {"file": str(file), "row": number, **encode_row(row, predictor, NO_OPTIONS)}
            for number, row in enumerate(rows)
        ]
    _print_json(found) if is_json else _print_table(found)
    if any("error" in row for row in found):
        sys.exit(1)


def _settings(**overrides: object) -> Settings:
    try:
        return read_settings(
            **{name: value for name, value in overrides.items() if value is not None}
        )
    except SettingsInvalid as error:
        _stop(str(error))


def _stop(message: str) -> NoReturn:
    click.echo(f"dunno: {message}", err=True)
    sys.exit(CANNOT_SERVE)


def _payload(file: Path) -> Payload:
    media_type = MEDIA_TYPES.get(file.suffix.lower())
    if media_type is None:
        known = ", ".join(MEDIA_TYPES)
        raise MediaTypeUnsupported(f"{file}: expected a file ending in {known}")
    try:
        return Payload(file.read_bytes(), media_type)
    except OSError as error:
        raise InputInvalid(str(file), "a file that can be read", str(error.strerror)) from None


def _print_json(rows: list[dict[str, object]]) -> None:
    for row in rows:
        click.echo(json.dumps(row))


def _print_table(rows: list[dict[str, object]]) -> None:
    from rich.console import Console  # noqa: PLC0415  a service has no use for tables
    from rich.table import Table  # noqa: PLC0415

    table = Table("file", "row", "verdict", "label or reason", "confidence", "candidates")
    for row in rows:
        where = (str(row["file"]), str(row["row"]))
        error = row.get("error")
        if isinstance(error, dict):
            table.add_row(*where, "error", str(error["detail"]), "", "")
            continue
        candidates = row["candidates"]
        table.add_row(
            *where,
            "answer" if row["label"] else "don't know",
            str(row["label"] or row["reason"]),
            f"{row['confidence']:.4f}",
            ", ".join(candidates) if isinstance(candidates, list) else "",
        )
    Console().print(table)


def _posture(settings: Settings) -> list[str]:
    """Return what an operator should know before traffic, one sentence each."""
    warnings = []
    try:
        is_loopback = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        is_loopback = settings.host == "localhost"
    if not is_loopback:
        warnings.append(
            f"listening on {settings.host}: everybody who reaches this address can predict and "
            "read /metrics; put a proxy or a network policy in front"
        )
    return warnings


def _report_posture(settings: Settings) -> None:
    for warning in _posture(settings):
        logging.getLogger(__name__).warning(warning)


if __name__ == "__main__":
    main()
