"""`dunno train` and `dunno evaluate`; without the extra `training` they say how to install it."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from service.bundle.store import MANIFEST
from service.errors import DunnoError, install_line
from training.recipe import NETWORKS

_SIBLING = Path("../shared/data")
_OWN = Path("data")
VERSION = "1"


def data_folder() -> Path:
    """Return the folder of the data sets: DUNNO_DATA, else one beside the repository, else ours."""
    if named := os.environ.get("DUNNO_DATA"):
        return Path(named)
    return _SIBLING if _SIBLING.is_dir() else _OWN


def _folders(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where things are."""
    for option in (
        click.option(
            "--work",
            type=click.Path(path_type=Path),
            default=Path("build"),
            show_default=True,
            help="Folder of checkpoints and finished steps.",
        ),
        click.option(
            "--models",
            type=click.Path(path_type=Path),
            default=Path("models"),
            show_default=True,
            help="Folder that the bundle lies below.",
        ),
        click.option(
            "--data", type=click.Path(path_type=Path), help="Data folder; default: DUNNO_DATA."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@click.option(
    "--network",
    type=click.Choice(NETWORKS),
    default=NETWORKS[0],
    show_default=True,
    help="Ours, or the ones that lectures show (their bundles stay below the work folder).",
)
@click.option(
    "--quantize",
    "is_quantized",
    is_flag=True,
    help="Add an int8 variant, if verdicts stay the same; a bundle that is there is not refitted.",
)
@_folders
def train(  # noqa: PLR0913  one parameter for each option of the command
    name: str,
    network: str,
    data: Path | None,
    models: Path,
    work: Path,
    *,
    is_quantized: bool,
) -> None:
    """Train the model NAME and write its bundle; an interrupted run carries on where it was."""
    with _told_in_a_sentence():
        from training import pipeline  # noqa: PLC0415  # needs the extra

        place = pipeline.Place(data or data_folder(), work, models / name / VERSION)
        if not (is_quantized and (place.bundle / MANIFEST).exists()):
            place = replace(place, bundle=pipeline.train(name, network, place).path)
        if is_quantized:
            from training.variants import add_int8  # noqa: PLC0415

            add_int8(name, place)
    click.echo(f"wrote {place.bundle}")


@click.command()
@click.argument("name", metavar="MODEL")
@_folders
def evaluate(name: str, data: Path | None, models: Path, work: Path) -> None:
    """Measure the bundle of MODEL as it is, and write its numbers, card and pictures anew.

    Nothing that decides is changed. Exit code 1: a number differs from the card's by more than its
    95 % interval.
    """
    with _told_in_a_sentence():
        from training.comparison import as_text  # noqa: PLC0415  # needs the extra
        from training.pipeline import Place  # noqa: PLC0415
        from training.remeasure import remeasure  # noqa: PLC0415

        place = Place(data or data_folder(), work, models / name / VERSION)
        measured = remeasure(name, place)
    click.echo(as_text(measured.compared))
    click.echo(f"wrote {measured.bundle.path}")
    differing = [each.name for each in measured.compared if each.differs]
    if differing:
        click.echo(f"not what the card said: {'; '.join(differing)}", err=True)
        sys.exit(1)


@contextmanager
def _told_in_a_sentence() -> Iterator[None]:
    """End with one sentence and exit code 1, or 2 without the extra."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # TensorFlow greets with its build options; errors still come through.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        yield
    except ModuleNotFoundError as error:
        needed = f"training needs the package {error.name!r}"
        click.echo(f"{needed}; {install_line('training')}", err=True)
        sys.exit(2)
    except DunnoError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
