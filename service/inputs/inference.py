"""A request of the Open Inference Protocol -> rows of one model, and what is asked about them."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.bundle import Manifest
from service.bundle.manifest import FeatureInput
from service.errors import InputInvalid
from service.inputs.compression import MOST_RATIO, inflated
from service.inputs.content_types import (
    BASE64,
    OUTPUT_TYPES,
    read_content_type,
    refuse_other_meanings,
)
from service.inputs.framing import (
    BYTES,
    DATATYPE_OF,
    WireTensor,
    read_array,
    read_head,
    read_parameters,
    read_tensors,
    split,
)
from service.inputs.numbers import decode_base64, shown
from service.inputs.payload import (
    LIGHT_BINARY_TEXT_BYTES,
    LIGHT_BYTES,
    LIGHT_NPY_BYTES,
    LIGHT_NUMBERS,
    LIGHT_TEXT_BYTES,
    LIGHT_VALUES,
    Decoded,
    Decoder,
    Payload,
)

_RAW = "body"
_MAYBE_PICTURES = (b"BYTES", b"\\u")  # the datatype, or a way to write it in other characters
_MICROSECONDS = 1e-6
_WHOLE_BITS = {4: 24, 8: 53}  # by the size of a float in bytes


class AskedOutput(NamedTuple):
    """An output that a request names."""

    name: str
    is_binary: bool
    classes: int | None
    """So many of the best labels as texts in place of numbers; None: the numbers."""


@dataclass(frozen=True, slots=True)
class Inference:
    """What one request asks."""

    decoded: Decoded
    id: str | None = None
    max_error: float | None = None
    min_confidence: float | None = None
    timeout_s: float | None = None
    outputs: tuple[AskedOutput, ...] = ()
    """In order; none: the request leaves it to us."""

    is_binary: bool = False
    """Whether outputs that do not say otherwise come as bytes."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The one input of a model, as callers see it."""

    name: str
    datatype: str
    row_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with -1 for the rows."""
        return (-1, *self.row_shape)


def input_spec(manifest: Manifest) -> InputSpec:
    """Return the input of a model; texts are texts, whatever the graph makes of them."""
    tensor = manifest.graph.input
    if manifest.input.kind == "text":
        return InputSpec(tensor.name, BYTES, ())
    return InputSpec(tensor.name, DATATYPE_OF[np.dtype(tensor.dtype)], tensor.shape)


class InferenceReader:
    """Reads one request for one model.

    Args:
        manifest: of the model.
        decoder: of the model.
        head_length: bytes of the head, as the caller wrote it; None: the whole body is the head.
        coding: of the body; nothing if it is not compressed.
        max_bytes: of the body when it is not compressed any more.
        max_ratio: of that to the body as it came.
    """

    def __init__(  # noqa: PLR0913  one for each limit
        self,
        manifest: Manifest,
        decoder: Decoder,
        *,
        head_length: str | None,
        coding: str,
        max_bytes: int,
        max_ratio: int = MOST_RATIO,
    ) -> None:
        self._spec = input_spec(manifest)
        self._kind = manifest.input.kind
        declared = manifest.input
        self._takes_null = isinstance(declared, FeatureInput) and any(
            field.nullable for field in declared.fields
        )
        self._decoder = decoder
        self._head_length = head_length
        self._coding = coding
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio

    def is_light(self, payload: Payload) -> bool:
        """Tell whether reading is quick enough for the event loop."""
        if self._coding not in ("", "identity"):
            return False
        size = len(payload.body)
        if self._kind == "text":
            is_binary = self._head_length is not None
            return size <= (LIGHT_BINARY_TEXT_BYTES if is_binary else LIGHT_TEXT_BYTES) and (
                payload.body.count(b",") <= LIGHT_VALUES
            )
        if not self._has_few_numbers(payload.body):
            return False
        if self._kind != "image":
            return size <= LIGHT_BYTES
        if any(word in payload.body for word in _MAYBE_PICTURES):
            return False
        return size <= LIGHT_BYTES or (size <= LIGHT_NPY_BYTES and self._has_light_head)

    def _has_few_numbers(self, body: bytes) -> bool:
        """Tell whether so few numbers are written in JSON that they are read quickly."""
        length = self._head_length or ""
        head = body[: int(length)] if length.isdecimal() and len(length) < 8 else body
        return head.count(b",") <= LIGHT_NUMBERS

    @property
    def _has_light_head(self) -> bool:
        length = self._head_length or ""
        return length.isdecimal() and len(length) < 8 and int(length) <= LIGHT_BYTES

    def decode(self, payload: Payload) -> Inference:
        """Return what a request asks.

        Raises:
            ClientError: naming the first field that is not as it must be.
        """
        body = inflated(payload.body, self._coding, self._max_bytes, self._max_ratio)
        payload.take_memory_of(body)
        head, behind = split(body, self._head_length)
        if not head and self._head_length is not None:
            return Inference(self._raw_row(behind, payload), is_binary=True)
        content = read_head(head)
        identity = content.get("id")
        if identity is not None and not isinstance(identity, str):
            raise InputInvalid("id", "a text", shown(identity))
        parameters = read_parameters(content.get("parameters"), "parameters")
        is_binary = _flag(parameters, "binary_data_output", "parameters") or False
        outputs = _read_outputs(content.get("outputs"), is_binary=is_binary)
        tensors = read_tensors(content.get("inputs"), behind, takes_null=self._takes_null)
        return Inference(
            self._rows(tensors, parameters, payload),
            identity,
            max_error=_share(parameters, "max_error"),
            min_confidence=_share(parameters, "min_confidence"),
            timeout_s=_timeout_s(parameters),
            outputs=outputs,
            is_binary=is_binary,
        )

    def _raw_row(self, content: memoryview, payload: Payload) -> Decoded:
        """Return the only row of a body that is nothing but the only input."""
        if self._spec.datatype == BYTES:
            return self._decoder.decode_contents([bytes(content)], _RAW, payload)
        shape = (1, *self._spec.row_shape)
        return self._decoder.decode_array(read_array(content, self._spec.datatype, shape, _RAW))

    def _rows(
        self, tensors: list[WireTensor], parameters: dict[str, object], payload: Payload
    ) -> Decoded:
        name = self._spec.name
        if len(tensors) != 1 or tensors[0].name != name:
            names = ", ".join(repr(tensor.name[:40]) for tensor in tensors[:4])
            raise InputInvalid("inputs", f"the one input {name!r}", names)
        (tensor,) = tensors
        if self._kind == "features" and tensor.datatype == BYTES:
            raise InputInvalid("inputs[0].datatype", self._spec.datatype, BYTES)
        content_type = read_content_type(self._kind, tensor, parameters)
        if isinstance(tensor.values, list):
            return self._rows_of_contents(tensor, tensor.values, content_type, payload)
        return self._decoder.decode_array(self._rows_of_numbers(tensor, tensor.values))

    def _rows_of_contents(
        self,
        tensor: WireTensor,
        values: list[bytes | str],
        content_type: str | None,
        payload: Payload,
    ) -> Decoded:
        if tensor.shape[1:] not in ((), (1,)):
            raise InputInvalid("inputs[0].shape", "[rows] or [rows, 1]", str(list(tensor.shape)))
        place = "inputs[0].data"
        is_base64 = content_type == BASE64
        contents = [
            self._content(value, f"{place}[{position}]", is_base64=is_base64)
            for position, value in enumerate(values)
        ]
        return self._decoder.decode_contents(contents, place, payload)

    def _content(self, value: bytes | str, place: str, *, is_base64: bool) -> bytes:
        """Return what an element stands for: a text itself, a picture in JSON in base64."""
        if isinstance(value, bytes):
            return decode_base64(value.decode("latin-1"), place) if is_base64 else value
        is_base64 = is_base64 or self._kind == "image"
        return decode_base64(value, place) if is_base64 else value.encode()

    def _rows_of_numbers(
        self, tensor: WireTensor, values: NDArray[np.generic]
    ) -> NDArray[np.generic]:
        spec = self._spec
        if spec.datatype == BYTES:
            raise InputInvalid("inputs[0].datatype", spec.datatype, tensor.datatype)
        bare = (*spec.row_shape, 1) if self._kind == "image" else spec.row_shape
        if tensor.shape[1:] not in (spec.row_shape, bare):
            expected = f"[rows, {', '.join(map(str, spec.row_shape))}]"
            raise InputInvalid("inputs[0].shape", expected, str(list(tensor.shape)))
        if self._kind == "features" and tensor.datatype != spec.datatype:
            _check_no_loss(values, spec.datatype)
        return values.reshape(tensor.shape[0], *spec.row_shape)


def _check_no_loss(values: NDArray[np.generic], datatype: str) -> None:
    """Refuse numbers that the graph's datatype cannot hold; floats may be rounded."""
    dtype = next(dtype for dtype, name in DATATYPE_OF.items() if name == datatype)
    kept = _is_kept(values, dtype)
    if not kept.all():
        first = tuple(int(axis[0]) for axis in np.nonzero(~kept))
        where = "".join(f"[{position}]" for position in first)
        expected = f"numbers that {datatype} holds without loss, or datatype {datatype}"
        raise InputInvalid(f"inputs[0].data{where}", expected, str(values[first]))


def _is_kept(values: NDArray[np.generic], dtype: "np.dtype[np.generic]") -> NDArray[np.bool_]:
    if dtype.kind == "f" and values.dtype.kind in "iu":
        most = 1 << _WHOLE_BITS[dtype.itemsize]  # up to here every whole number has its float
        numbers = values.astype(np.float64)  # rounding keeps order: what is beyond stays beyond
        return np.asarray(np.abs(numbers) <= most)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = values.astype(dtype)
        if dtype.kind == "f" and values.dtype.kind == "f":  # rounded, as decimal numbers are
            return np.asarray(np.isfinite(converted) | ~np.isfinite(values))
        return np.asarray((converted == values) | (values != values))  # noqa: PLR0124  NaN is NaN


def _flag(parameters: dict[str, object], name: str, place: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputInvalid(f"{place}.{name}", "true or false", shown(value))
    return value


def _share(parameters: dict[str, object], name: str) -> float | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputInvalid(f"parameters.{name}", "a number above 0, at most 1", shown(value))
    return float(value)


def _timeout_s(parameters: dict[str, object]) -> float | None:
    value = parameters.get("timeout")
    if value is None or value == 0:
        return None  # to Triton's clients 0 says nothing
    if type(value) is not int or not 0 < value < 1 << 62:
        raise InputInvalid("parameters.timeout", "microseconds, a whole number", shown(value))
    return value * _MICROSECONDS


def _read_outputs(outputs: object, *, is_binary: bool) -> tuple[AskedOutput, ...]:
    if outputs is None:
        return ()
    if not isinstance(outputs, list):
        raise InputInvalid("outputs", "a list of outputs", shown(outputs))
    asked: dict[str, AskedOutput] = {}
    for position, output in enumerate(outputs):
        place = f"outputs[{position}]"
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str):
            raise InputInvalid(place, "an object with a name", shown(output))
        if name in asked:
            raise InputInvalid(f"{place}.name", "each output once", shown(name))
        place = f"{place}.parameters"
        parameters = read_parameters(output.get("parameters"), place)
        own = _flag(parameters, "binary_data", place)
        classes = _classes(parameters.get("classification"), f"{place}.classification")
        refuse_other_meanings(parameters, place, OUTPUT_TYPES)
        asked[name] = AskedOutput(name, is_binary if own is None else own, classes)
    return tuple(asked.values())


def _classes(value: object, place: str) -> int | None:
    if value is None or (type(value) is int and value == 0):
        return None
    if type(value) is not int or not 0 < value < math.inf:
        raise InputInvalid(place, "a whole number from 1 on", shown(value))
    return value
