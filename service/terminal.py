"""What commands share: settings or a sentence, exit codes, names to complete."""

import sys
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from service.errors import BundleError, LoadTimedOut
from service.leaving import end_process
from service.settings import Settings, SettingsInvalid, read_settings

CANNOT_SERVE = 2
"""Exit code when a setting, the catalogue or a bundle has to be mended first."""

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".pjpeg": "image/jpeg",
    ".pjp": "image/jpeg",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".dib": "image/bmp",
    ".csv": "text/csv",
    ".tsv": "text/csv",
    ".txt": "text/plain",
    ".json": "application/json",
    ".npy": "application/x-npy",
}
"""Suffix of a file -> what its content is posted as."""


def stop(message: str, cause: Exception | None = None) -> NoReturn:
    """End with one sentence, which says what to do."""
    click.echo(f"dunno: {message}", err=True)
    if isinstance(cause, LoadTimedOut):
        end_process(CANNOT_SERVE)
    sys.exit(CANNOT_SERVE)


def settings_or_stop(**overrides: object) -> Settings:
    """Return the settings of the environment; options that were not given override nothing."""
    try:
        return read_settings(
            **{name: value for name, value in overrides.items() if value is not None}
        )
    except SettingsInvalid as error:
        stop(str(error))


def complete_model(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the models of the catalogue whose names begin so, for the shell."""
    from service.prediction.catalogue import read_catalogue  # noqa: PLC0415  keeps --help quick

    models = ctx.params.get("models")
    try:
        settings = read_settings(**({} if models is None else {"models": models}))
        names = read_catalogue(settings.models).models
    except (SettingsInvalid, BundleError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
