"""What is asked of `dunno pack`, and what people may know of the model beside it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from training.errors import PackRefused
from training.packing.classifiers import Choice
from training.packing.declared import InputOptions
from training.packing.heads import Returns
from training.recipe import Curves

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be packed, and how; the options of `dunno pack`."""

    model: Path
    name: str
    labels: tuple[str, ...]
    """In the order of the model's numbers."""

    calibration: Path
    """Labelled rows that the model has not been fitted on."""

    target: str = "label"
    input: InputOptions = field(default_factory=InputOptions)
    scale: float = 1.0
    choice: Choice = field(default_factory=Choice)
    returns: Returns | None = None
    """None: found out from the graph's end or from what it says of the calibration rows."""

    max_errors: tuple[float, ...] = ()
    """Risks to certify, the default first; none: those of every recipe, 5 % by default."""

    novelty_alpha: float | None = None
    models: Path = Path("models")
    version: str = "1"
    is_replaced: bool = False
    """Whether a bundle that is there may be written over."""

    publish_examples: bool = False
    """Whether card and golden rows may show calibration rows as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What is known of a model beside its files; all of it for people."""

    description: str = ""
    network: str = ""
    note: str = ""
    """Markdown for the card: where the rows come from."""

    limits: tuple[str, ...] = ()
    mixture: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)
    curves: Curves | None = None
    seed: int = 0
    seconds: float = 0.0
    """Of training, before packing."""

    command: str = ""
    """What makes the bundle again; nothing: `dunno train` with the name."""


def bundle_folder(request: Request) -> Path:
    """Return the folder of the bundle, after a look at what needs no model.

    Raises:
        PackRefused: if name, version or labels will not do, or a bundle is there.
    """
    if not _NAME.fullmatch(request.name):
        raise PackRefused(f"--name {request.name!r}: expected lower case, digits, `_`, `.` or `-`")
    if len(request.labels) < 2 or len(set(request.labels)) != len(request.labels):
        raise PackRefused(
            f"--labels: expected at least two different labels, got {', '.join(request.labels)!r}"
        )
    if not _VERSION.fullmatch(request.version):
        raise PackRefused(f"--version {request.version!r}: expected a whole number from 1 on")
    path = request.models / request.name / request.version
    if path.exists() and not request.is_replaced:
        raise PackRefused(f"{path}: is there already; choose another --version or say --replace")
    return path
