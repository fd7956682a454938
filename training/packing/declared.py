"""What the user says about the model's input becomes what the manifest declares."""

import io
import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from service.bundle.manifest import FeatureField, FeatureInput, ImageInput, TextInput
from service.errors import ClientError
from service.inputs.charsets import read_text
from service.inputs.texts import Tokenizer
from training.errors import PackRefused
from training.packing.lookalikes import look_alike

InputKind = Literal["features", "image", "text"]

VOCABULARY = "vocabulary.txt"
TYPICAL = (0.05, 0.95)
"""Quantiles that the manifest names for forms and examples."""

_SHOWN_COLUMNS = 12

log = logging.getLogger(__name__)


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
    tables = _read_toml(path)
    fields = []
    for name, facts in tables.items():
        if columns and name not in columns:
            alike = look_alike(name, columns)
            raise PackRefused(f"{path}: [{name}] is no column; there are: {shown(columns)}{alike}")
        if not isinstance(facts, dict):
            raise PackRefused(f"{path}: [{name}] expected a table")
        try:
            fields.append(FeatureField.model_validate({**facts, "name": name}))
        except pydantic.ValidationError as error:
            raise PackRefused(f"{path}: [{name}] {told(error)}") from None
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
    words = read_words(options.vocabulary)
    try:
        declared = TextInput(
            vocabulary=VOCABULARY,
            max_tokens=options.max_tokens,
            token_pattern=options.token_pattern,
        )
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]) if first["loc"] else "token_pattern"
        raise PackRefused(f"--{option.replace('_', '-')}: {first['msg']}") from None
    _check_words(options.vocabulary, declared, words)
    return declared, "\n".join([*words, ""]).encode()


def read_words(path: Path) -> list[str]:
    """Return the words of a vocabulary, whatever its line ends and its byte order mark.

    Raises:
        PackRefused: if it cannot be read.
    """
    try:
        text = read_text(path.read_bytes(), place=str(path))
    except (OSError, ClientError) as error:
        raise PackRefused(f"{path}: cannot be read ({error})") from None
    return io.StringIO(text, newline=None).read().removesuffix("\n").split("\n")


def _check_words(path: Path, declared: TextInput, words: Sequence[str]) -> None:
    """Refuse a vocabulary of which no word is a token; tell of one with some that are none.

    Raises:
        PackRefused: if the model would know no word of any text.
    """
    tokens = Tokenizer(declared, ())
    lost = [word for word in words if not tokens.is_token(word)]
    if not lost:
        return
    first = ", ".join(repr(word[:40]) for word in lost[:3])
    found = (
        f"{len(lost):,} of {len(words):,} words of {path} are no token of a text, such as {first}"
    )
    advice = "texts are put in lower case and cut by --token-pattern"
    if len(lost) == len(words):
        raise PackRefused(f"{found}: {advice}")
    log.info("%s: %s", found, advice)


def told(error: pydantic.ValidationError) -> str:
    """Return the first thing that a manifest cannot hold: where, what was expected, what came."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = f"{where}: {first['msg']}" if where else str(first["msg"])
    return f"{what}, got {str(first['input'])[:60]!r}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path.read_bytes(), place=str(path)))
    except (OSError, ClientError, tomllib.TOMLDecodeError) as error:
        raise PackRefused(f"{path}: cannot be read ({error})") from None


def shown(names: Sequence[str]) -> str:
    """Return names for a message, the first dozen of them."""
    return ", ".join(names[:_SHOWN_COLUMNS]) + (", ..." if len(names) > _SHOWN_COLUMNS else "")
