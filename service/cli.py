"""`dunno serve | check | predict | bench | tune`; more are added as entry points."""

import io
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service import __version__
from service.errors import (
    BundleError,
    ClientError,
    InputInvalid,
    MediaTypeUnsupported,
)
from service.inputs.payload import Payload
from service.leaving import end_on_signal, end_process
from service.offline.command import predict
from service.settings import (
    Settings,
    SettingsInvalid,
    usable_cores,
    worker_count,
)
from service.terminal import CANNOT_SERVE, MEDIA_TYPES, settings_or_stop, stop

if TYPE_CHECKING:
    import socket

    import uvicorn

    from service.bench.tuning import Trial
    from service.prediction import Catalogue

COMMANDS = "dunno.commands"
UNSAFE = 3
"""Exit code of `dunno check` when the service would start and had better not."""
A_DAY_S = 86_400
UVICORN_BACKLOG = 2048
STANDARD_ERROR = 2  # its file descriptor

log = logging.getLogger(__name__)


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
    for stream in (sys.stdout, sys.stderr):  # a terminal may know ASCII only
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


main.add_command(predict)


@main.command()
@click.option("--host", help="Address to listen on (DUNNO_HOST).")
@click.option("--port", type=int, help="Port to listen on, 0 for a free one (DUNNO_PORT).")
@click.option("--models", type=Path, help="Folder with catalogue.toml (DUNNO_MODELS).")
def serve(host: str | None, port: int | None, models: Path | None) -> None:
    """Serve the models of the catalogue until SIGTERM or Ctrl-C."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a server that starts reads the catalogue
    settings = settings_or_stop(host=host, port=port, models=models)
    from service.telemetry.logs import configure_logs  # noqa: PLC0415  keeps --help quick

    _open_standard_streams()
    configure_logs(settings.log_level)
    # The first process of a container would not even hear it while models are loaded.
    signal.signal(signal.SIGTERM, end_on_signal)
    sockets = _sockets(settings)
    _report_posture(settings)
    try:
        if worker_count(settings) == 1:
            _serve_here(settings, sockets)
        else:
            _serve_by_workers(settings, sockets)
    finally:
        for each in sockets:
            each.close()


def _sockets(settings: Settings) -> "list[socket.socket]":
    """Return sockets of the models' address, bound before models are loaded."""
    from service.api.listener import take  # noqa: PLC0415  only `serve` needs it

    try:
        return take("DUNNO", settings.host, settings.port)
    except SettingsInvalid as error:
        stop(str(error))


def _open_standard_streams() -> None:
    """Let the descriptors 0, 1 and 2 be no file or socket of ours: libraries write to them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        os.set_inheritable(descriptor, True)  # by workers
    os.close(descriptor)


def _serve_here(settings: Settings, sockets: "list[socket.socket]") -> None:
    from service.api.server import Server  # noqa: PLC0415  only `serve` needs it
    from service.app import create_app  # noqa: PLC0415

    try:
        app = create_app(settings)
    except (BundleError, SettingsInvalid) as error:
        stop(str(error), error)
    # uvicorn raises the signal again when it has stopped, for whoever had a handler before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    Server(_server_config(app, settings)).run(sockets)
    end_process(0)


def _serve_by_workers(settings: Settings, sockets: "list[socket.socket]") -> None:
    """Serve by several processes behind one port; one that dies is replaced."""
    from service.api.addresses import take_sides  # noqa: PLC0415  only `serve` needs it
    from service.api.listener import share, shown  # noqa: PLC0415
    from service.api.supervisor import Supervisor  # noqa: PLC0415
    from service.telemetry.workers import RUN, new_run  # noqa: PLC0415

    try:
        sides = take_sides(settings, is_worker=False)
    except SettingsInvalid as error:
        stop(str(error))
    with ExitStack() as held:
        # Workers read the environment anew, and options of the command line are not in it.
        os.environ |= {RUN: new_run(), "DUNNO_MODELS": str(settings.models)}
        config = _server_config("service.app:create_worker", settings)
        for side in sides.values():  # no other server gets it while a worker is replaced
            for each in share(side):
                held.enter_context(each)
        shared = [held.enter_context(each) for each in share(sockets)]
        for each in shared:
            log.info("workers running on http://%s", shown(each))
        supervisor = Supervisor(config, shared)
        supervisor.run()
    if supervisor.has_failed:
        sys.exit(CANNOT_SERVE)


def _server_config(app: Callable[..., Any] | str, settings: Settings) -> "uvicorn.Config":
    import uvicorn  # noqa: PLC0415  only `serve` needs it

    from service.api.hotpath import HotProtocol  # noqa: PLC0415

    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port,
        backlog=max(UVICORN_BACKLOG, settings.max_connections),  # the kernel has a limit of its own
        workers=worker_count(settings),
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=HotProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the protocol has to see the service itself
        # Importing takes long where processors are scarce, and a worker that starts is silent then.
        timeout_worker_healthcheck=math.ceil(settings.max_stall_ms / 1000) or A_DAY_S,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_ms / 1000),
    )


@main.command()
@click.option("--models", type=Path, help="Folder with catalogue.toml (DUNNO_MODELS).")
@click.option("--parity", is_flag=True, help="Compare each model's runtime with the others.")
@click.option(
    "--rows",
    "files",
    multiple=True,
    metavar="MODEL=FILE",
    help="With --parity: rows to compare on, instead of the bundle's golden rows.",
)
def check(models: Path | None, files: tuple[str, ...], *, parity: bool) -> None:
    """Check settings, bundles and posture.

    Exit 2 if the service would not start, 3 if it would and something about it is unsafe.
    """
    from rich.console import Console  # noqa: PLC0415  a service has no use for tables
    from rich.table import Table  # noqa: PLC0415

    from service.posture import find_posture  # noqa: PLC0415
    from service.prediction import load_catalogue  # noqa: PLC0415
    from service.telemetry.metrics import Metrics  # noqa: PLC0415

    settings = settings_or_stop(models=models)
    try:
        catalogue = load_catalogue(settings, Metrics())
        findings = find_posture(settings, os.environ)
    except BundleError as error:
        stop(str(error), error)
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
    for level, text in findings:
        console.print(f"{level}: {text}", highlight=False)
    console.print("all bundles match their checksums, golden outputs and golden verdicts")
    if parity and not _is_same_everywhere(catalogue, settings, _files_by_model(files)):
        sys.exit(1)
    if any(level == "UNSAFE" for level, _ in findings):
        sys.exit(UNSAFE)


@main.command()
@click.argument("name")
def key(name: str) -> None:
    """Print a new key for the caller NAME, and what DUNNO_KEYS has to say of it.

    The key goes to standard error, once, and is kept nowhere; the lines go to standard output, so
    that they can be appended to the file.
    """
    from service.api.keys import digest_of, is_key_name, new_key  # noqa: PLC0415

    if not is_key_name(name):
        stop(f"NAME: expected small letters, digits, '-' or '_', got {name!r}")
    made = new_key()
    click.echo(made, err=True)
    click.echo(f'[keys.{name}]\nsha256 = ["{digest_of(made)}"]')


@main.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and names of models.

    For bash: `dunno completion bash > ~/.local/share/bash-completion/completions/dunno`.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415  keeps --help quick

    complete = get_completion_class(shell)
    assert complete is not None  # noqa: S101  click has all three
    click.echo(complete(main, {}, "dunno", "_DUNNO_COMPLETE").source())


def _files_by_model(files: Sequence[str]) -> dict[str, Path]:
    pairs = [file.partition("=") for file in files]
    wrong = [name for name, _, path in pairs if not path]
    if wrong:
        stop(f"--rows: expected MODEL=FILE, got {wrong[0]!r}")
    return {name: Path(path) for name, _, path in pairs}


def _is_same_everywhere(
    catalogue: "Catalogue", settings: Settings, files: Mapping[str, Path]
) -> bool:
    """Print how the runtimes of each model compare, and tell whether all agree."""
    from service.prediction.loading import runtime_options  # noqa: PLC0415
    from service.prediction.parity import Parity, compare_all  # noqa: PLC0415

    is_same = True
    for predictor in catalogue:
        rows = predictor.golden_rows
        if predictor.name in files:
            try:
                rows = predictor.decoder.decode(_payload(files[predictor.name])).rows
            except ClientError as error:
                stop(f"{files[predictor.name]}: {error}")
        for name, found in compare_all(predictor, rows, runtime_options(settings)):
            title = f"{predictor.name} {predictor.manifest.version}, {predictor.runtime_name}"
            if isinstance(found, Parity):
                is_same = is_same and found.is_same
                said = (
                    f"{found.rows} rows, {found.differing_verdicts} other verdicts, "
                    f"probabilities differ by {found.largest_difference:.1e} at most"
                )
            else:
                said = f"not compared: {found}"
            click.echo(f"{title} and {name}: {said}")
    return is_same


@main.command()
@click.argument("url")
@click.option("--body", type=Path, help="File to POST; without one the request is a GET.")
@click.option("--content-type", help="Of the body; by the file's suffix unless given.")
@click.option("--header", "headers", multiple=True, help="One more, such as 'X-API-Key: …'.")
@click.option(
    "--concurrency",
    default="1,2,4,8,16,32,64,128,256",
    show_default=True,
    help="Numbers of connections, one step each.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Counted time of a step.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Client processes that share the connections.",
)
@click.option("--json", "json_file", type=Path, help="File for the numbers as JSON.")
@click.option("--plot", "plot_file", type=Path, help="Picture of the curve, a .png or .svg.")
def bench(  # noqa: PLR0913  one parameter for each option of the command
    url: str,
    body: Path | None,
    content_type: str | None,
    headers: tuple[str, ...],
    concurrency: str,
    *,
    seconds: float,
    processes: int,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure the saturation curve of the HTTP server at URL, ours or any other.

    Each connection asks again as soon as it has its answer. For each number of connections:
    requests/s, percentiles of the time to the complete answer, errors; and the knee, the fewest
    connections with 95 % of the best throughput. On the server's machine the client takes cores
    from the server.
    """
    from rich.console import Console  # noqa: PLC0415  a service has no use for tables

    from service.bench import BenchFailed, Plan, build_request, measure_curve  # noqa: PLC0415
    from service.bench.plot import curve_plot  # noqa: PLC0415
    from service.bench.report import (  # noqa: PLC0415
        curve_facts,
        curve_picture,
        curve_table,
        remarks,
    )

    plan = Plan(_connections(concurrency), seconds, processes)
    steps = []
    try:
        draw = curve_plot(plot_file) if plot_file else None
        request = build_request(url, *_content(body, content_type), headers)
        with Console(stderr=True).status("asking once") as status:
            for step in measure_curve(request, plan):
                steps.append(step)
                status.update(f"{step.connections} connections: {step.requests_per_s:,.0f}/s")
    except (BenchFailed, ClientError) as error:
        stop(str(error))
    console = Console()
    console.print(curve_table(steps))
    console.print(curve_picture(steps))
    for remark in remarks(steps, processes):
        console.print(remark, highlight=False)
    if json_file is not None:
        facts = json.dumps(curve_facts(request, plan, steps), indent=1)
        _write(json_file, f"{facts}\n".encode())
    if plot_file is not None and draw is not None:
        _write(plot_file, draw(url, steps))


def _connections(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
        stop(f"--concurrency: expected numbers from 1 on such as 1,8,64, got {text!r}")
    return tuple(sorted({int(number) for number in numbers}))


def _content(body: Path | None, content_type: str | None) -> tuple[bytes | None, str]:
    if body is None:
        return None, ""
    if content_type is None:
        payload = _payload(body)
        return payload.body, payload.media_type
    return _read(body), content_type


@main.command()
@click.argument("model")
@click.option(
    "--p99-ms",
    type=click.FloatRange(0, min_open=True),
    required=True,
    help="Latency goal; the largest batch takes at most half of it.",
)
@click.option("--models", type=Path, help="Folder with catalogue.toml (DUNNO_MODELS).")
@click.option("--write", "env_file", type=Path, help="Env file to write the settings to.")
def tune(model: str, p99_ms: float, models: Path | None, env_file: Path | None) -> None:
    """Print the batch settings with which MODEL can keep a latency goal on this machine.

    Times runs of 1 to 256 rows, by 1 thread to all cores, and fits seconds = a + b * rows. A
    request may wait for one batch and run in the next one, so the largest batch takes at most half
    of the goal.
    """
    from rich.console import Console  # noqa: PLC0415  a service has no use for tables

    from service.bench import tuning  # noqa: PLC0415
    from service.bench.report import TUNING_LIMITS, tuning_table  # noqa: PLC0415

    trials = _trials(model, p99_ms / 1000, models)
    candidates = [found for trial in trials if (found := tuning.tuned(trial, p99_ms / 1000))]
    if not candidates:
        quickest_s = min(trial.seconds_by_rows[1] for trial in trials)
        stop(
            f"{model}: one row alone takes {quickest_s * 1000:.3g} ms, more than half of "
            f"{p99_ms:g} ms; no setting keeps that goal here"
        )
    best = tuning.best(candidates)
    console = Console()
    console.print(tuning_table(trials, candidates, best))
    for name, value in best.variables.items():
        console.print(f"{name}={value}", highlight=False)
    console.print(TUNING_LIMITS, highlight=False)
    if env_file is not None:
        remark = f"dunno tune {model} --p99-ms {p99_ms:g}"
        _write(env_file, tuning.environment_file(best, remark).encode())


def _trials(model: str, goal_s: float, models: Path | None) -> "list[Trial]":
    """Time the model by several numbers of threads; on a GPU they do not matter."""
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415  only `tune` needs it
    from multiprocessing import get_context  # noqa: PLC0415

    from service.bench import BenchFailed  # noqa: PLC0415
    from service.bench.tuning import thread_counts  # noqa: PLC0415

    trials: list[Trial] = []
    for threads in thread_counts(max(1, int(usable_cores()))):
        settings = settings_or_stop(models=models, runtime_threads=threads, workers=1)
        # A process for each: TensorFlow sizes its threads once, for the first model that runs.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            try:
                trials.append(pool.submit(_trial, model, settings, goal_s).result())
            except BenchFailed as error:
                stop(str(error))
        if trials[-1].device != "cpu":
            break
    return trials


def _trial(model: str, settings: Settings, goal_s: float) -> "Trial":
    from service.bench import BenchFailed  # noqa: PLC0415  keeps --help quick
    from service.bench.tuning import Trial, time_runs  # noqa: PLC0415
    from service.prediction import load_catalogue  # noqa: PLC0415
    from service.telemetry.metrics import Metrics  # noqa: PLC0415

    try:
        predictor = load_catalogue(settings, Metrics(), only=model).find(model)
    except (BundleError, ClientError) as error:
        raise BenchFailed(str(error)) from None  # it has to travel between processes
    return Trial(
        device=predictor.runtime.device,
        threads=settings.runtime_threads,
        workers=max(1, int(usable_cores()) // settings.runtime_threads),
        seconds_by_rows=time_runs(predictor.assess, predictor.golden_rows, goal_s),
    )


def _payload(file: Path) -> Payload:
    media_type = MEDIA_TYPES.get(file.suffix.lower())
    if media_type is None:
        known = ", ".join(MEDIA_TYPES)
        raise MediaTypeUnsupported(f"{file}: expected a file ending in {known}")
    return Payload(_read(file), media_type)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputInvalid(str(file), "a file that can be read", str(error.strerror)) from None


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        stop(f"{file}: cannot be written ({error.strerror})")


def _report_posture(settings: Settings) -> None:
    from service.posture import find_posture  # noqa: PLC0415  keeps --help quick

    try:
        findings = find_posture(settings, os.environ)
    except (BundleError, OSError):
        return  # whoever loads it says so better
    for level, text in findings:
        if level not in ("ok", "note"):
            logging.getLogger(__name__).warning(text, extra={"posture": level})


if __name__ == "__main__":
    main()
