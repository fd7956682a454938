"""A request of TensorFlow Serving's REST interface -> rows of one model."""

from typing import NamedTuple

from service.bundle import Manifest
from service.bundle.manifest import FeatureInput
from service.errors import InputInvalid
from service.inputs.charsets import read_text
from service.inputs.compression import MOST_RATIO, inflated
from service.inputs.numbers import read_base64, read_object, shown
from service.inputs.payload import LIGHT_BYTES, Decoded, Decoder, Payload

SIGNATURE = "serving_default"
_FORMS = ("instances", "inputs")


class Instances(NamedTuple):
    """What one request asks."""

    decoded: Decoded
    is_column: bool
    """Whether it came in column form, and is answered in it."""

    parameters: dict[str, object]
    """What stands beside the rows; only Vertex AI's callers send it."""


class InstancesReader:
    """Reads the body of one `:predict` or `:classify` for one model."""

    def __init__(
        self,
        manifest: Manifest,
        decoder: Decoder,
        *,
        coding: str,
        max_bytes: int,
        max_ratio: int = MOST_RATIO,
    ) -> None:
        self._input = manifest.graph.input.name
        self._kind = manifest.input.kind
        declared = manifest.input
        self._most_features = len(declared.fields) if isinstance(declared, FeatureInput) else 1
        self._decoder = decoder
        self._coding = coding
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._numbers: Decoded | None = None
        """Rows that were found when it was asked whether they are light."""

    def is_light(self, payload: Payload) -> bool:
        """Tell whether reading is quick enough for the event loop."""
        if self._coding not in ("", "identity"):
            return False
        if self._decoder.is_light(payload):
            return True
        if len(payload.body) <= LIGHT_BYTES:
            self._numbers = self._decoder.decode_numbers(payload.body)
        return self._numbers is not None

    def _content(self, payload: Payload) -> bytes:
        content = inflated(payload.body, self._coding, self._max_bytes, self._max_ratio)
        payload.take_memory_of(content)
        return content

    def decode(self, payload: Payload) -> Instances:
        """Return the rows of `:predict`, and in which form they came.

        Raises:
            ClientError: naming the first place that is not as it must be.
        """
        body = self._content(payload)
        decoded = self._numbers or self._decoder.decode_numbers(body)
        if decoded is not None:
            return Instances(decoded, is_column=False, parameters={})
        content = read_object(body)
        check_signature(content)
        forms = [form for form in _FORMS if form in content]
        if len(forms) != 1:
            got = "both" if forms else "neither"
            raise InputInvalid("body", 'exactly one of "instances" and "inputs"', got)
        (form,) = forms
        parameters = content.get("parameters", {})
        if not isinstance(parameters, dict):
            raise InputInvalid("parameters", "an object", shown(parameters))
        value = content[form]
        rows = self._unwrapped(value) if form == "instances" else self._column(value)
        decoded = self._decoder.decode_instances(self._elements(rows, form), form, payload)
        return Instances(decoded, form == "inputs", parameters)

    def _unwrapped(self, instances: object) -> list[object]:
        """Return the values of rows that are all bare or all objects by input name."""
        if not isinstance(instances, list):
            raise InputInvalid("instances", "a list of rows", shown(instances))
        wrapped = [isinstance(row, dict) and row.keys() == {self._input} for row in instances]
        if not any(wrapped):
            return instances
        if not all(wrapped):
            place = f"instances[{wrapped.index(not wrapped[0])}]"
            raise InputInvalid(place, "rows of one form", "bare values and objects by input name")
        return [row[self._input] for row in instances]

    def _column(self, inputs: object) -> list[object]:
        if isinstance(inputs, dict):
            if self._input not in inputs:
                raise InputInvalid("inputs", f"the input {self._input!r}", shown(inputs))
            inputs = inputs[self._input]
        if not isinstance(inputs, list):
            raise InputInvalid("inputs", "a list of rows", shown(inputs))
        return inputs

    def _elements(self, rows: list[object], place: str) -> list[object]:
        """Return rows of shape [n, 1] as rows of shape [n], and texts in base64 as texts.

        What else there is, is left to the decoder.
        """
        if self._kind == "features":
            return rows
        bare = [_single_element(row) for row in rows]
        if self._kind == "image":
            return bare
        return [
            _text(row, f"{place}[{position}]") if isinstance(row, dict) else row
            for position, row in enumerate(bare)
        ]


class ExamplesReader(InstancesReader):
    """Reads the body of one `:classify` for one model."""

    def is_light(self, payload: Payload) -> bool:
        """Tell whether reading is quick enough for the event loop."""
        return self._coding in ("", "identity") and self._decoder.is_light(payload)

    def decode(self, payload: Payload) -> Instances:
        """Return the rows of `:classify`.

        Raises:
            ClientError: naming the first place that is not as it must be.
        """
        content = read_object(self._content(payload))
        check_signature(content)
        examples = content.get("examples")
        if not isinstance(examples, list) or not examples:
            raise InputInvalid("examples", "a list of at least one example", shown(examples))
        context = content.get("context", {})
        if not isinstance(context, dict):
            raise InputInvalid("context", "an object", shown(context))
        if len(context) > self._most_features:  # it is copied into each example
            most = f"at most {self._most_features} features, as the model has"
            raise InputInvalid("context", most, shown(context))
        rows = [
            self._row(example, context, f"examples[{position}]")
            for position, example in enumerate(examples)
        ]
        rows = self._elements(rows, "examples")
        return Instances(
            self._decoder.decode_instances(rows, "examples", payload),
            is_column=False,
            parameters={},
        )

    def _row(self, example: object, context: dict[str, object], place: str) -> object:
        if not isinstance(example, dict):
            raise InputInvalid(place, "an object from feature to value", shown(example))
        twice = next((name for name in context if name in example), None)
        if twice is not None:
            raise InputInvalid(place, "no feature of the context", f"{twice[:40]!r} as well")
        features = {**context, **example}
        if features.keys() == {self._input}:
            return _single(features[self._input]) if self._kind == "text" else features[self._input]
        return {name: _single(value) for name, value in features.items()}


def check_signature(content: dict[str, object]) -> None:
    """Refuse any signature but the one there is."""
    name = content.get("signature_name", SIGNATURE)
    if not isinstance(name, str):
        raise InputInvalid("signature_name", "a text", shown(name))
    if name not in ("", SIGNATURE):
        raise InputInvalid("signature_name", f"the signature {SIGNATURE!r}", shown(name))


def _single_element(row: object) -> object:
    """Return the element of a row of one string; any other row as it is."""
    if isinstance(row, list) and len(row) == 1 and isinstance(row[0], str | dict):
        return row[0]
    return row


def _single(value: object) -> object:
    """Return a value that may stand alone in a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _text(row: object, place: str) -> str:
    return read_text(read_base64(row, place, 'a text or {"b64": "..."}'), place=place)
