"""Examples of requests and answers, made of what each served model's bundle holds."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.openapi.failures import REQUEST_ID
from service.api.openapi.parts import FORM, JSON, Json
from service.api.options import NO_OPTIONS
from service.api.schemas import encode
from service.decision import Reason
from service.errors import DunnoError
from service.inputs import BodyExample, Payload, bodies_of
from service.inputs.examples import instances_of
from service.inputs.framing import BYTES
from service.inputs.images import PICTURE_FIELD
from service.inputs.inference import input_spec
from service.prediction import Answer, Prediction, Predictor, Stages, outcome_of

REASONS: tuple[Reason, ...] = ("out_of_distribution", "ambiguous", "low_confidence")
_NO_TIME = Stages(0.0, 0.0, 0.0, 0.0)
_BAD_INSTANCE = True  # no model takes that for a row
_FAR = 1e9  # a novelty score as nothing familiar has it; less it: as all that is familiar
_LOW = -60.0  # a logit of what is out of the question


class Sample(NamedTuple):
    """One golden row of a model, and the bodies that ask for it."""

    predictor: Predictor
    row: NDArray[np.generic]
    answer: Answer
    bodies: list[BodyExample]

    @property
    def name(self) -> str:
        """Of the model."""
        return self.predictor.name

    @property
    def instances(self) -> list[object]:
        """The row as an element of `instances`, in each form that it has in JSON."""
        contents = [body.value for body in self.bodies if body.media_type == JSON]
        return [each["instances"][0] for each in contents if isinstance(each, dict)]

    @property
    def verdict(self) -> str:
        """What is said of the row, in words."""
        label, reason = self.answer.verdict.label, self.answer.verdict.reason
        return f"answered {label!r}" if reason is None else f"don't know: {reason}"


def sample_of(predictor: Predictor) -> Sample:
    """Return a golden row that is short to tell and, if there is one, answered."""
    rows, answers = predictor.golden_rows, predictor.golden_answers
    order = sorted(range(len(rows)), key=lambda at: _length(rows[at], answers[at]))
    for at in order:
        bodies = bodies_of(rows[at], predictor.manifest.input, predictor.decoder)
        if any(body.value is not None for body in bodies):
            break
    return Sample(predictor, rows[at], answers[at], bodies)


def _length(row: NDArray[np.generic], answer: Answer) -> tuple[bool, bool, int]:
    has_missing = row.dtype.kind == "f" and bool(np.isnan(row).any())
    return answer.verdict.reason is not None, has_missing, int(np.count_nonzero(row))


def native(samples: Iterable[Sample]) -> dict[str, Json]:
    """Return examples of bodies of the native route: media type -> name -> example."""
    found: dict[str, Json] = {}
    for sample in samples:
        for body in sample.bodies:
            end = f"; {sample.verdict}" if body.is_exact else ""
            example: Json = {"summary": f"{sample.name}: {body.text}{end}"}
            if body.value is None:
                example["description"] = _sending(body.media_type)
            else:
                example["value"] = body.value
            found.setdefault(body.media_type, {})[f"{sample.name}-{body.form}"] = example
    return found


def _sending(media_type: str) -> str:
    """Return how bytes are sent that no document can show."""
    if media_type == FORM:
        return f"`curl -F {PICTURE_FIELD}=@FILE`, with one more `-F` for each further picture."
    return f"`curl --data-binary @FILE -H 'Content-Type: {media_type}'`"


def version_1(samples: Iterable[Sample]) -> Json:
    """Return examples of bodies of `:predict`."""
    found: Json = {}
    for sample in samples:
        for instance in sample.instances[-1:]:
            found |= _named(sample, "rows", "row form", {"instances": [instance]})
            found |= _named(sample, "columns", "column form", {"inputs": [instance]})
    return found


def classify(samples: Iterable[Sample]) -> Json:
    """Return examples of bodies of `:classify`."""
    found: Json = {}
    for sample in samples:
        for instance in sample.instances[:1]:
            is_named = sample.predictor.manifest.input.kind == "features"
            example = instance if is_named else {_input_of(sample): instance}
            found |= _named(sample, "examples", "one example", {"examples": [example]})
    return found


def version_2(samples: Iterable[Sample]) -> Json:
    """Return examples of bodies of `/infer`, in JSON."""
    found: Json = {}
    for sample in samples:
        tensor = _tensor(sample)
        if tensor is not None:
            text = f"one row of {tensor['datatype']}"
            found |= _named(sample, "tensor", text, {"inputs": [tensor]})
    return found


def _named(sample: Sample, form: str, text: str, value: Json) -> Json:
    return {f"{sample.name}-{form}": {"summary": f"{sample.name}: {text}", "value": value}}


def _input_of(sample: Sample) -> str:
    return input_spec(sample.predictor.manifest).name


def _tensor(sample: Sample) -> Json | None:
    """Return a row as a tensor of JSON; None if it has none, as with a number that misses."""
    if not sample.instances:
        return None
    name, instance = _input_of(sample), sample.instances[0]
    encoded = instance.get("b64") if isinstance(instance, dict) else instance
    if isinstance(encoded, str):
        return {"name": name, "shape": [1], "datatype": BYTES, "data": [encoded]}
    values = sample.row.reshape(1, -1)
    (data,) = instances_of(values, sample.predictor.decoder)
    if not isinstance(data, list) or None in data:
        return None
    datatype = input_spec(sample.predictor.manifest).datatype
    return {"name": name, "shape": [1, *sample.row.shape], "datatype": datatype, "data": data}


def answers(samples: Iterable[Sample]) -> Json:
    """Return examples of answers: one, a "don't know" of each reason, and a row's error.

    A reason that no served model can give is not told.
    """
    samples = list(samples)
    found: Json = {}
    for sample in (each for each in samples if each.answer.verdict.reason is None):
        name = f"{sample.name}-answer"
        found.setdefault("answer", (name, "The model answers", sample, [sample.answer]))
        mixed = _mixed(sample)
        if mixed is not None:
            text = "Two rows, the second of which cannot be read"
            found.setdefault("mixed", (f"{sample.name}-row-error", text, sample, mixed))
    for reason in REASONS:
        for sample, answer in _unknown(samples, reason):
            name = f"{sample.name}-{reason.replace('_', '-')}"
            text = f'The model says "don\'t know": {reason.replace("_", " ")}'
            found.setdefault(reason, (name, text, sample, [answer]))
    return {name: _told(*rest) for name, *rest in found.values()}


def _told(text: str, sample: Sample, rows: list[Answer | DunnoError]) -> Json:
    predictor = sample.predictor
    prediction = Prediction(rows, predictor.judge.default_terms, _NO_TIME, (), outcome_of(rows))
    content = encode(predictor, prediction, NO_OPTIONS, REQUEST_ID)
    return {"summary": f"{sample.name}: {text}", "value": orjson.loads(content)}


def _mixed(sample: Sample) -> list[Answer | DunnoError] | None:
    """Return the answers to a good row and a bad one."""
    if not sample.instances:
        return None
    instances = [sample.instances[0], _BAD_INSTANCE]
    payload = Payload(b"", JSON)
    decoded = sample.predictor.decoder.decode_instances(instances, "instances", payload)
    return [sample.answer, decoded.errors[1]] if 1 in decoded.errors else None


def _unknown(samples: Iterable[Sample], reason: Reason) -> Iterator[tuple[Sample, Answer]]:
    """Yield rows of models with that verdict: golden ones, then what its graph could return."""
    for made in (_golden, _conceivable):
        for sample in samples:
            for answer in made(sample.predictor):
                if answer.verdict.reason == reason:
                    yield sample, answer


def _golden(predictor: Predictor) -> list[Answer]:
    return predictor.golden_answers


def _conceivable(predictor: Predictor) -> list[Answer]:
    """Return what would be said of some outputs: surely one label, one of two, anything; novel."""
    judge, novelty = predictor.judge, predictor.manifest.novelty
    labels = len(judge.labels)
    logits = np.full((4, labels), _LOW, np.float32)
    logits[0, 0] = logits[1, :2] = logits[2] = logits[3, 0] = 0
    scores = np.full((4, 0 if novelty is None else len(novelty.names)), -_FAR, np.float32)
    scores[3] = _FAR
    rows = judge.assess_rows(logits, scores)
    return [Answer(judge.verdict(row, judge.default_terms), row) for row in rows]
