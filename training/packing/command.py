"""`dunno pack`: importable without the extra `training`, and then says how to install it."""

import logging
import os
import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from service.errors import DunnoError, install_line

if TYPE_CHECKING:
    from training.packing.request import Request

CANNOT_PACK = 2
"""Exit code when an option or a file has to be mended first."""

_NOISY = ("absl", "tensorflow", "tf2onnx")


def _ratio(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    """Return a number, or a fraction such as 1/255."""
    try:
        return float(Fraction(value))
    except (ValueError, ZeroDivisionError):
        message = f"expected a number or a fraction such as 1/255, got {value!r}"
        raise click.BadParameter(message) from None


def _names(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    """Return names with commas between, or from @FILE with one a line."""
    if not value.startswith("@"):
        return tuple(label.strip() for label in value.split(","))
    from service.inputs.charsets import read_text  # noqa: PLC0415  --help is quick

    try:
        lines = read_text(Path(value[1:]).read_bytes(), place=value[1:]).splitlines()
    except (OSError, DunnoError) as error:
        raise click.BadParameter(f"{value[1:]}: cannot be read ({error})") from None
    return tuple(line.strip() for line in lines if line.strip())


_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_FILE)
@click.option("--name", required=True, help="Name to serve it under: lower case, digits, `_.-`.")
@click.option(
    "--labels",
    required=True,
    callback=_names,
    help="Labels in the order of the model's numbers, commas between; or @FILE, one a line.",
)
@click.option(
    "--calibration",
    required=True,
    type=_FILE,
    help="Labelled rows that the model was not fitted on: a CSV with a header, or an .npz with "
    "`rows` and `targets`.",
)
@click.option("--target", default="label", show_default=True, help="Column of labels in the CSV.")
@click.option(
    "--input",
    "kind",
    type=click.Choice(["features", "image", "text"]),
    default="features",
    show_default=True,
    help="What a row is.",
)
@click.option("--fields", type=_FILE, help="TOML: columns, bounds, units, which may be missing.")
@click.option("--vocabulary", type=_FILE, help="For texts: one token a line, id 2 first.")
@click.option("--token-pattern", default=r"\w+", show_default=True, help="For texts: a token.")
@click.option("--max-tokens", type=click.IntRange(1), help="For texts, if the model takes any.")
@click.option(
    "--scale",
    callback=_ratio,
    default="1",
    show_default=True,
    help="Times this, then the model: 1/255.",
)
@click.option(
    "--returns",
    type=click.Choice(["logits", "probabilities"]),
    help="What the model's numbers are; found out unless given.",
)
@click.option("--model-output", help="Output with the numbers, if there are several.")
@click.option(
    "--feature-output",
    help="Layer, tensor or output to measure novelty over; `rows`: the rows themselves.",
)
@click.option(
    "--max-error",
    "max_errors",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    help="Share of answers that may be wrong; several are certified together, which takes more "
    "rows than one alone; the first is the default. Unless given: 0.1 % to 5 %, 5 % by default.",
)
@click.option("--novelty-alpha", type=click.FloatRange(0, 1), help="Rarer than this: don't know.")
@click.option("--description", default="", help="One sentence for the card.")
@click.option("--models", type=_FILE, default=Path("models"), show_default=True, help="Folder.")
@click.option("--version", default="1", show_default=True, help="Version, a number.")
@click.option("--replace", "is_replaced", is_flag=True, help="Write over a bundle that is there.")
@click.option(
    "--publish-examples",
    is_flag=True,
    help="Show calibration rows as they are, to every client of the model and in the card. "
    "Without it, examples are averages of ten rows and the card has none.",
)
def pack(description: str, **options: Any) -> None:
    """Make a bundle of MODEL: a Keras file, a SavedModel folder or an ONNX graph.

    The bundle gets calibrated probabilities, a threshold that keeps the share of wrong answers
    below --max-error, candidates and a novelty score. Nothing of the model is changed.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # TensorFlow greets with its build options; errors still come through.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from training.errors import ExportDiffers  # noqa: PLC0415  # needs the extra
        from training.packing.pack import pack as make_bundle  # noqa: PLC0415
        from training.packing.request import Notes  # noqa: PLC0415
    except ModuleNotFoundError as error:
        _stop(f"packing needs the package {error.name!r}; {install_line('training')}")
    notes = Notes(description=description, command=_command_line(click.get_current_context()))
    try:
        bundle = make_bundle(_request(options), notes)
    except ExportDiffers as error:
        click.echo(f"dunno: {error}", err=True)
        sys.exit(1)
    except DunnoError as error:
        _stop(str(error))
    name = bundle.manifest.name
    click.echo(f"wrote {bundle.path}; to serve it, write [models.{name}] into catalogue.toml")


def _request(options: dict[str, Any]) -> "Request":
    from training.packing.classifiers import Choice  # noqa: PLC0415  # needs the extra
    from training.packing.declared import InputOptions  # noqa: PLC0415
    from training.packing.request import Request  # noqa: PLC0415

    described = {name: options.pop(name) for name in _INPUT_OPTIONS}
    chosen = Choice(scores=options.pop("model_output"), features=options.pop("feature_output"))
    return Request(input=InputOptions(**described), choice=chosen, **options)


_INPUT_OPTIONS = ("kind", "fields", "vocabulary", "token_pattern", "max_tokens")


def _command_line(context: click.Context) -> str:
    """Return the command with the options that were given, for the card."""
    words = ["dunno", "pack"]
    for param in context.command.params:
        name, value = str(param.name), context.params[str(param.name)]
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if isinstance(param, click.Argument):
            words.append(str(value))
        elif value is True:
            words.append(param.opts[0])
        elif name == "labels":
            words += [param.opts[0], ",".join(value)]
        else:
            for each in value if isinstance(value, tuple) else (value,):
                words += [param.opts[0], str(each)]
    return shlex.join(words)


def _stop(message: str) -> NoReturn:
    click.echo(f"dunno: {message}", err=True)
    sys.exit(CANNOT_PACK)
