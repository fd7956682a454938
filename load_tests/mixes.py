"""What `locustfile.py` asks: each model by each body kind and protocol, and what right answers are.

Nothing here knows of Locust. A `Way` is how a model is asked (`JSON`, `PNG`, `multipart`, `npy`,
`CSV`, `text`: our own route; `v1`, `v2`: those of TensorFlow Serving and of the Open Inference
Protocol). An `Ask` is one request: a real row (golden rows of the bundle), an outlier made from
one, or what no server may take.
"""

import io
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from many_callers import RUBBISH
from numpy.typing import NDArray
from PIL import Image

from service.bundle.manifest import Manifest, TextInput
from service.inputs.inference import input_spec
from service.inputs.texts import FIRST_ID, read_vocabulary
from service.prediction.catalogue import find_bundles, read_catalogue

REAL, OUTLIER, BAD = "real row", "outlier", "bad input"
JSON = "application/json"
SUM_TOLERANCE = 1e-3
"""Probabilities come with six digits."""

VERDICT_OUTPUTS = ("probabilities", "verdict", "label", "reason")
_BOUNDARY = "rows"

Rows = NDArray[Any]
"""Features (rows, fields), pictures (rows, height, width), or texts (rows,) of type object."""


@dataclass(frozen=True)
class Subject:
    """A model, and rows that it knows."""

    name: str
    manifest: Manifest
    rows: Rows

    @property
    def kind(self) -> str:
        """features, image or text."""
        return self.manifest.input.kind


class Body(NamedTuple):
    """What a way makes of rows."""

    path: str
    content_type: str
    content: bytes
    rows: int


class Ask(NamedTuple):
    """One request, and which kind of answer it must have."""

    intent: str
    body: Body


class Verdicts(NamedTuple):
    """What an answer says: the verdict of each row, or what is wrong with it."""

    verdicts: tuple[str, ...]
    problem: str | None


def subjects(models: Path) -> list[Subject]:
    """Return the models of a catalogue, each with its golden rows."""
    found = []
    for name, entry in read_catalogue(models).models.items():
        bundle = find_bundles(models, name, entry)[0]
        with np.load(bundle.path / "golden.npz") as golden:
            rows = golden["rows"]
        declared = bundle.manifest.input
        if isinstance(declared, TextInput):
            words = read_vocabulary(bundle.read(declared.vocabulary))
            texts = [
                " ".join(words[id_ - FIRST_ID] for id_ in row if id_ >= FIRST_ID) for row in rows
            ]
            rows = np.array(texts, object)
        found.append(Subject(name, bundle.manifest, rows))
    return found


# --- Ways to ask -------------------------------------------------------------------------------


def _json(subject: Subject, rows: Rows) -> Body:
    content = json.dumps({"instances": _instances(rows)}).encode()
    return Body(f"/predict/{subject.name}", JSON, content, len(rows))


def _instances(rows: Rows) -> Any:
    """Return rows as JSON has them: what is missing is null."""
    values = rows.astype(object)
    values[rows != rows] = None  # noqa: PLR0124  NaN alone differs from itself
    return values.tolist()


def _npy(subject: Subject, rows: Rows) -> Body:
    file = io.BytesIO()
    np.save(file, rows)
    return Body(f"/predict/{subject.name}", "application/x-npy", file.getvalue(), len(rows))


def _csv(subject: Subject, rows: Rows) -> Body:
    declared = subject.manifest.input
    assert declared.kind == "features"
    lines = [[field.name for field in declared.fields]]
    lines += [["" if cell is None else str(cell) for cell in row] for row in _instances(rows)]
    content = "".join(",".join(line) + "\n" for line in lines).encode()
    return Body(f"/predict/{subject.name}", "text/csv", content, len(rows))


def _text(subject: Subject, rows: Rows) -> Body:
    return Body(f"/predict/{subject.name}", "text/plain", str(rows[0]).encode(), 1)


def _picture(row: Rows) -> bytes:
    file = io.BytesIO()
    Image.fromarray(row.reshape(row.shape[:2])).save(file, "PNG")
    return file.getvalue()


def _png(subject: Subject, rows: Rows) -> Body:
    return Body(f"/predict/{subject.name}", "image/png", _picture(rows[0]), 1)


def _multipart(subject: Subject, rows: Rows) -> Body:
    head = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    mark = f"--{_BOUNDARY}".encode()
    parts = [mark + b"\r\n" + head + _picture(row) + b"\r\n" for row in rows]
    kind = f"multipart/form-data; boundary={_BOUNDARY}"
    content = b"".join(parts) + mark + b"--\r\n"
    return Body(f"/predict/{subject.name}", kind, content, len(rows))


def _v1(subject: Subject, rows: Rows) -> Body:
    content = json.dumps({"instances": _instances(rows)}).encode()
    return Body(f"/v1/models/{subject.name}:predict?verdict=1", JSON, content, len(rows))


def _v2(subject: Subject, rows: Rows) -> Body:
    spec = input_spec(subject.manifest)
    data = _instances(rows.ravel())
    tensor = {"name": spec.name, "datatype": spec.datatype, "shape": list(rows.shape), "data": data}
    content = {"inputs": [tensor], "outputs": [{"name": name} for name in VERDICT_OUTPUTS]}
    path = f"/v2/models/{subject.name}/infer"
    return Body(path, JSON, json.dumps(content).encode(), len(rows))


Way = Callable[[Subject, Rows], Body]

WAYS: dict[str, dict[str, Way]] = {
    "features": {"JSON": _json, "CSV": _csv, "npy": _npy, "v1": _v1, "v2": _v2},
    "image": {"JSON": _json, "PNG": _png, "multipart": _multipart, "npy": _npy}
    | {"v1": _v1, "v2": _v2},
    "text": {"JSON": _json, "text": _text, "v1": _v1, "v2": _v2},
}
"""The ways of each kind of input."""


# --- What is asked -----------------------------------------------------------------------------


def asks(subject: Subject, way: str, rng: random.Random) -> dict[str, list[Ask]]:
    """Return requests of a model by one way: real rows, outliers and bad input."""
    write = WAYS[subject.kind][way]
    rows = subject.rows
    if way == "v2" and subject.kind == "features":  # a tensor in JSON has no word for NaN
        rows = rows[np.isfinite(rows).all(axis=1)]
    groups = [rows[at : at + 1] for at in range(len(rows))] + [rows[:3], rows[1:6]]
    outliers = list(_outliers(subject.kind, rows, rng))
    return {
        REAL: [Ask(REAL, write(subject, group)) for group in groups],
        OUTLIER: [Ask(OUTLIER, write(subject, row)) for row in outliers],
        BAD: [Ask(BAD, body) for body in _bad(write(subject, groups[0]))],
    }


def _outliers(kind: str, rows: Rows, rng: random.Random) -> Iterator[Rows]:
    """Yield rows that are well-formed and of no known kind, one by one."""
    numbers = np.random.default_rng(rng.getrandbits(32))
    for row in rows:
        match kind:
            case "image":
                yield numbers.integers(0, 256, (1, *row.shape)).astype(np.uint8)
                yield numbers.permutation(row.ravel()).reshape(1, *row.shape)
            case "text":
                words = row.split()
                rng.shuffle(words)
                letters = [*row.replace(" ", "")[:200]]
                rng.shuffle(letters)
                yield np.array([" ".join(words)], object)
                yield np.array(["".join(letters)], object)
            case _:
                yield (row * 1000)[None].astype(rows.dtype)
                yield numbers.permutation(row)[None]
                between = numbers.uniform(np.nanmin(rows, axis=0), np.nanmax(rows, axis=0))
                yield between[None].astype(rows.dtype)  # each cell possible, together not


def _bad(good: Body) -> Iterator[Body]:
    """Yield bodies that are to be refused, made from one that is good."""
    if good.content_type == JSON:
        yield from (good._replace(content=content) for content in RUBBISH)
    elif good.content_type == "text/plain":
        yield from (good._replace(content=content) for content in (b"", b"\xff\xfe\x00"))
    else:
        yield from (
            good._replace(content=content) for content in (b"", b"\x89PNG\r\n\x1a\n0", b"x")
        )
        yield good._replace(content=good.content[: len(good.content) // 3])
    if good.path.startswith("/predict/"):  # other people's protocols do not ask for the type
        yield good._replace(content_type="application/x-nothing")
    yield good._replace(path="/predict/nobody")


# --- What is answered --------------------------------------------------------------------------


def judge(subject: Subject, ask: Ask, status: int, content: bytes) -> Verdicts:
    """Return the verdicts of an answer, or what is wrong with it.

    Bad input must be refused with a status of 4xx, a real row answered. An outlier may be answered,
    whatever the verdict, or be refused where the manifest says what a row may hold.
    """
    is_refused = 400 <= status < 500 and status != 429
    if is_refused and ask.intent != REAL:
        return Verdicts((), None)
    if status != 200 or ask.intent == BAD:
        return Verdicts((), f"{ask.intent} got {status}: {content[:200]!r}")
    try:
        rows = list(_rows(json.loads(content)))
        problems = [_problem(row, subject.manifest.labels) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Verdicts((), f"{ask.intent}: no well-formed answer: {error!r}")
    if len(rows) != ask.body.rows:
        problems.append(f"{len(rows)} verdicts for {ask.body.rows} rows")
    verdicts = tuple(row["verdict"] for row in rows)
    return Verdicts(verdicts, next((each for each in problems if each), None))


def _rows(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of an answer in one form: verdict, label, reason, list of probabilities."""
    if "outputs" in answer:
        outputs = {each["name"]: each["data"] for each in answer["outputs"]}
        number = len(outputs["verdict"])
        wide = np.reshape(outputs["probabilities"], (number, -1)).tolist()
        for at in range(number):
            label, reason = (outputs[name][at] or None for name in ("label", "reason"))
            verdict = outputs["verdict"][at]
            yield {"verdict": verdict, "label": label, "reason": reason, "probabilities": wide[at]}
        return
    for row in answer.get("verdicts", answer["predictions"]):
        yield row | {"probabilities": list(row["probabilities"].values())}


def _problem(row: dict[str, Any], labels: tuple[str, ...]) -> str | None:
    """Return what is wrong with one row of an answer."""
    match row["verdict"]:
        case "answer":
            is_whole = row["label"] in labels and row["reason"] is None
        case "dont_know":
            is_whole = row["label"] is None and bool(row["reason"])
        case _:
            is_whole = False
    if not is_whole:
        return f"verdict {row['verdict']!r}, label {row['label']!r}, reason {row['reason']!r}"
    values = row["probabilities"]
    is_sum = math.isclose(sum(values), 1, abs_tol=SUM_TOLERANCE)
    if len(values) != len(labels) or not is_sum:
        return f"{len(values)} probabilities for {len(labels)} labels, sum {sum(values)}"
    return None


# --- How many ask, and what is too bad ---------------------------------------------------------

SHAPES = ("flat", "steps", "spike", "soak")
STEPS = 5
SPIKE = (0.4, 0.6)
"""Part of a spike's time in which all ask; before and after, it is a tenth of them."""

SOAK_RISE = 0.05


def users_at(shape: str, elapsed: float, users: int) -> int:
    """Return how many users ask when that share of the time, 0 to 1, has gone by; at least one."""
    match shape:
        case "steps":
            share = min(math.floor(elapsed * STEPS) + 1, STEPS) / STEPS
        case "spike":
            share = 1.0 if SPIKE[0] <= elapsed < SPIKE[1] else 0.1
        case "soak":
            share = min(1.0, elapsed / SOAK_RISE)
        case _:
            share = 1.0
    return max(1, round(share * users))


class Bounds(NamedTuple):
    """What a run may not exceed."""

    p99_ms: float
    most_dont_know: float


class Outcome(NamedTuple):
    """What came of a run."""

    failures: int
    p99_ms: float
    answered_rows: int
    dont_know_rows: int


def exceeded(outcome: Outcome, bounds: Bounds) -> list[str]:
    """Return a sentence for each threshold that a run has not kept."""
    found = []
    if outcome.failures:
        found.append(f"{outcome.failures:,} requests failed, expected none")
    if outcome.p99_ms > bounds.p99_ms:
        found.append(f"p99 of real rows: {outcome.p99_ms:g} ms, expected {bounds.p99_ms:g} at most")
    rows = outcome.answered_rows + outcome.dont_know_rows
    share = outcome.dont_know_rows / rows if rows else 1.0
    if not rows:
        found.append("no real row got a verdict")
    elif share > bounds.most_dont_know:
        bound = f"{bounds.most_dont_know:.1%}"
        found.append(f'"don\'t know" to {share:.1%} of real rows, expected {bound} at most')
    return found
