"""`dunno train`: importable without the extra `training`, and then says how to install it."""

import logging
import os
import sys
from pathlib import Path

import click

from service.errors import DunnoError
from training.recipe import NETWORKS

INSTALL_LINE = "pip install 'dunno[training]'"
_SIBLING = Path("../shared/data")
_OWN = Path("data")
VERSION = "1"


def data_folder() -> Path:
    """Return the folder of the data sets: DUNNO_DATA, else one beside the repository, else ours."""
    if named := os.environ.get("DUNNO_DATA"):
        return Path(named)
    return _SIBLING if _SIBLING.is_dir() else _OWN


@click.command()
@click.argument("name")
@click.option("--data", type=click.Path(path_type=Path), help="Data folder; default: DUNNO_DATA.")
@click.option(
    "--network",
    type=click.Choice(NETWORKS),
    default=NETWORKS[0],
    show_default=True,
    help="Ours, or the ones that lectures show (their bundles stay below the work folder).",
)
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    default=Path("models"),
    show_default=True,
    help="Folder that the bundle is written below.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder of checkpoints and finished steps.",
)
def train(name: str, data: Path | None, network: str, models: Path, work: Path) -> None:
    """Train the model NAME and write its bundle; an interrupted run carries on where it was."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # TensorFlow greets with its build options; errors still come through.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from training import pipeline  # noqa: PLC0415  # needs the extra
        from training.packing.packed_recipe import PackedRecipe, make_packed  # noqa: PLC0415
    except ModuleNotFoundError as error:
        click.echo(f"training needs the package {error.name!r}; {INSTALL_LINE}", err=True)
        sys.exit(2)
    place = pipeline.Place(data or data_folder(), work, models / name / VERSION)
    try:
        own, _ = pipeline.find_recipe(name)
        if isinstance(own, PackedRecipe):
            bundle = make_packed(own, place.data, work / name, place.bundle)
        else:
            bundle = pipeline.train(name, network, place)
    except DunnoError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(f"wrote {bundle.path}")
