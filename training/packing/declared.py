"""What the user says about the model's input becomes what the manifest declares."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from service.bundle.manifest import FeatureField, FeatureInput, ImageInput, TextInput
from training.errors import PackRefused

InputKind = Literal["features", "image", "text"]

VOCABULARY = "vocabulary.txt"
TYPICAL = (0.05, 0.95)
"""Quantiles that the manifest names for forms and examples."""

_SHOWN_COLUMNS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """What the user says about the model's input."""

    kind: InputKind = "features"
    fields: Path | None = None
    """TOML file of bounds, units and missing values of the columns."""

    vocabulary: Path | None = None
    """One token a line, for texts."""

    token_pattern: str = r"\w+"  # noqa: S105  # no password
    max_tokens: int | None = None
    """None: as many as the model takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a calibration file holds."""

    rows: NDArray[np.generic]
    """Shape (rows, *input), as the service hands them to a graph."""

    names: Sequence[str]
    """The label of each row, as the file has it."""

    input: FeatureInput | ImageInput | TextInput
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files of the bundle, by name."""


def read_fields(columns: Sequence[str], path: Path | None) -> tuple[FeatureField, ...]:
    """Return the columns of a row: those of the TOML file in its order, or all of them.

    Raises:
        PackRefused: if the file names other columns or says what is no fact of one.
    """
    if path is None:
        return tuple(FeatureField(name=name) for name in columns)
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PackRefused(f"{path}: cannot be read ({error})") from None
    fields = []
    for name, facts in tables.items():
        if columns and name not in columns:
            raise PackRefused(f"{path}: [{name}] is no column; there are: {shown(columns)}")
        try:
            fields.append(FeatureField.model_validate({"name": name, **facts}))
        except (pydantic.ValidationError, TypeError) as error:
            cause = error.errors()[0] if isinstance(error, pydantic.ValidationError) else None
            what = f"{cause['loc'][0]}: {cause['msg']}" if cause else "expected a table"
            raise PackRefused(f"{path}: [{name}] {what}") from None
    if not fields:
        raise PackRefused(f"{path}: expected one table for each column, such as [age]")
    return tuple(fields)


def with_typical(
    fields: tuple[FeatureField, ...], rows: NDArray[np.generic]
) -> tuple[FeatureField, ...]:
    """Return the fields with the range of most values."""
    values = rows.astype(np.float64)
    typical = []
    for column, each in enumerate(fields):
        known = values[:, column][np.isfinite(values[:, column])]
        low, high = np.quantile(known, TYPICAL).round(4).tolist() if len(known) else (0.0, 0.0)
        typical.append(each.model_copy(update={"typical": each.typical or (low, high)}))
    return tuple(typical)


def read_text_input(options: InputOptions) -> tuple[TextInput, bytes]:
    """Return how texts are cut into tokens, and the vocabulary.

    Raises:
        PackRefused: if an option is missing or wrong.
    """
    if options.vocabulary is None:
        raise PackRefused("texts need --vocabulary FILE, one token a line, id 2 in the first line")
    if options.max_tokens is None:
        raise PackRefused("the model takes any number of tokens; say how many with --max-tokens")
    try:
        words = options.vocabulary.read_bytes()
        words.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise PackRefused(f"{options.vocabulary}: cannot be read ({error})") from None
    try:
        declared = TextInput(
            vocabulary=VOCABULARY,
            max_tokens=options.max_tokens,
            token_pattern=options.token_pattern,
        )
    except pydantic.ValidationError as error:
        raise PackRefused(f"--token-pattern: {error.errors()[0]['msg']}") from None
    return declared, words


def shown(names: Sequence[str]) -> str:
    """Return names for a message, the first dozen of them."""
    return ", ".join(names[:_SHOWN_COLUMNS]) + (", ..." if len(names) > _SHOWN_COLUMNS else "")
