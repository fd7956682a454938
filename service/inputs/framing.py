"""Tensors <-> bytes, as the Open Inference Protocol has them; pure.

A body is a head of JSON and, behind it, the bytes of the tensors in the order in which the head
lists them. Every tensor is a slice of the body it came in. Its declared shape must account for
every byte of that slice, and the slices for every byte of the body.
"""

import itertools
import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import InputInvalid
from service.inputs.numbers import read_object, shown
from service.inputs.tensors import numbers_of

DATATYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Datatype -> how its elements lie in memory; BYTES have no fixed size."""

BYTES = "BYTES"
DATATYPE_OF = {dtype: name for name, dtype in DATATYPES.items()}
MOST_AXES = 8
LONGEST_HEAD_BYTES = 1 << 62
LONGEST_AXIS = 1 << 64  # a product of these still has a text; Python refuses that of huge numbers

_LENGTH = struct.Struct("<I")
_JSON_TYPES: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
_ONLY_BINARY = ("FP16",)  # Triton takes these in binary form only


class WireTensor(NamedTuple):
    """A tensor as it came, its bytes checked against its shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[np.generic] | list[bytes | str]
    """Of that shape; for BYTES a flat list, of text where it came as JSON."""

    parameters: dict[str, object]
    """As they came."""


class Reply(NamedTuple):
    """A tensor that goes out."""

    name: str
    values: NDArray[Any] | list[str]
    """Numbers of a known datatype, or texts, flat or of `shape`."""

    shape: tuple[int, ...]
    is_binary: bool


def split(body: bytes, head_length: str | None) -> tuple[bytes, memoryview]:
    """Return the head and the bytes behind it.

    Args:
        body: the whole of it.
        head_length: as the caller wrote it; None: there is nothing but the head.

    Raises:
        InputInvalid: if it is no number or more than there is.
    """
    if head_length is None:
        return body, memoryview(b"")
    place = "Inference-Header-Content-Length"
    text = head_length.strip()
    if not (text.isascii() and text.isdigit()):
        raise InputInvalid(place, "a number of bytes", repr(text[:40]))
    length = int(text) if len(text) < len(str(LONGEST_HEAD_BYTES)) else LONGEST_HEAD_BYTES
    if length > len(body):
        raise InputInvalid(place, f"at most the {len(body)} bytes of the body", text[:40])
    return body[:length], memoryview(body)[length:]


def read_head(head: bytes) -> dict[str, object]:
    """Return the object that a head is.

    Raises:
        InputInvalid: if it is none.
    """
    return read_object(head, 'an object {"inputs": [...]}')


def read_tensors(
    declared: object, behind: memoryview, *, takes_null: bool = False
) -> list[WireTensor]:
    """Return the tensors that a head lists under `inputs`.

    Args:
        declared: what the head says.
        behind: the bytes behind the head; all of them must belong to a tensor.
        takes_null: whether null is NaN among floats in JSON.

    Raises:
        InputInvalid: naming the first field that is not as it must be.
    """
    if not isinstance(declared, list) or not declared:
        raise InputInvalid("inputs", "a list of tensors", shown(declared))
    tensors: list[WireTensor] = []
    start = 0
    for position, tensor in enumerate(declared):
        place = f"inputs[{position}]"
        facts = _read_facts(tensor, place)
        size = facts.binary_size
        if size is None:
            values = _from_json(facts, place, takes_null=takes_null)
        else:
            if size > len(behind) - start:
                there = f"{len(behind) - start} bytes behind the head"
                raise InputInvalid(f"{place}.parameters.binary_data_size", there, str(size))
            values = _from_bytes(facts, behind[start : start + size], place)
            start += size
        tensors.append(
            WireTensor(facts.name, facts.datatype, facts.shape, values, facts.parameters)
        )
    if start != len(behind):
        expected = f"{start} bytes behind the head, as the tensors declare"
        raise InputInvalid("body", expected, str(len(behind)))
    return tensors


class _Facts(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: object
    binary_size: int | None
    parameters: dict[str, object]


def _read_facts(tensor: object, place: str) -> _Facts:
    if not isinstance(tensor, dict):
        raise InputInvalid(place, "an object", shown(tensor))
    name = tensor.get("name")
    if not isinstance(name, str):
        raise InputInvalid(f"{place}.name", "a text", shown(name))
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or not (datatype in DATATYPES or datatype == BYTES):
        expected = f"one of {', '.join((*DATATYPES, BYTES))}"
        raise InputInvalid(f"{place}.datatype", expected, shown(datatype))
    shape = _read_shape(tensor.get("shape"), f"{place}.shape")
    parameters = read_parameters(tensor.get("parameters"), f"{place}.parameters")
    size = _read_size(parameters, f"{place}.parameters")
    if (size is None) == ("data" not in tensor):
        got = "neither" if size is None else "both"
        raise InputInvalid(place, "either data or parameters.binary_data_size", got)
    return _Facts(name, datatype, shape, tensor.get("data"), size, parameters)


def _read_shape(shape: object, place: str) -> tuple[int, ...]:
    if not isinstance(shape, list) or not 0 < len(shape) <= MOST_AXES:
        raise InputInvalid(place, f"a list of 1 to {MOST_AXES} lengths", shown(shape))
    for position, length in enumerate(shape):
        # Without a 0 every length is proved by the elements that are there.
        if type(length) is not int or not 0 < length <= LONGEST_AXIS:
            raise InputInvalid(f"{place}[{position}]", "a whole number from 1 on", shown(length))
    return tuple(shape)


def read_parameters(parameters: object, place: str) -> dict[str, object]:
    """Return parameters, none if there are none; raises InputInvalid if they are no object."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InputInvalid(place, "an object", shown(parameters))
    return parameters


def _read_size(parameters: dict[str, object], place: str) -> int | None:
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or not 0 <= size <= LONGEST_AXIS):
        expected = "a whole number from 0 on"
        raise InputInvalid(f"{place}.binary_data_size", expected, shown(size))
    return size


def _from_bytes(
    facts: _Facts, content: memoryview, place: str
) -> NDArray[np.generic] | list[bytes | str]:
    if facts.datatype == BYTES:
        return list(unpack_texts(content, math.prod(facts.shape), place))
    return read_array(content, facts.datatype, facts.shape, place)


def read_array(
    content: memoryview, datatype: str, shape: tuple[int, ...], place: str
) -> NDArray[np.generic]:
    """Return the elements of a tensor, without a copy.

    Raises:
        InputInvalid: if there are more or fewer bytes than that shape has.
    """
    dtype = DATATYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(content):
        what = f"{expected} bytes for {datatype} of shape {list(shape)}"
        raise InputInvalid(place, what, str(len(content)))
    return numbers_of(content, dtype).reshape(shape)


def unpack_texts(content: memoryview, number: int, place: str) -> list[bytes]:
    """Return elements of which each has its length in front of it, 4 bytes, little-endian.

    Raises:
        InputInvalid: if there are not exactly so many, to the last byte.
    """
    if number * _LENGTH.size > len(content):
        expected = f"{number} elements of BYTES, each with its length in front"
        raise InputInvalid(place, expected, f"{len(content)} bytes")
    elements: list[bytes] = []
    start = 0
    for position in range(number):
        begin = start + _LENGTH.size
        if begin > len(content):
            raise InputInvalid(f"{place}[{position}]", "a length of 4 bytes", "the end")
        (length,) = _LENGTH.unpack_from(content, start)
        start = begin + length
        if start > len(content):
            there = f"at most the {len(content) - begin} bytes that are left"
            raise InputInvalid(f"{place}[{position}]", there, f"a length of {length}")
        elements.append(bytes(content[begin:start]))
    if start != len(content):
        expected = f"{number} elements of BYTES and nothing behind them"
        raise InputInvalid(place, expected, f"{len(content) - start} bytes more")
    return elements


def pack_texts(texts: Sequence[bytes]) -> bytes:
    """Return texts as the bytes of a tensor of BYTES."""
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)


def _from_json(
    facts: _Facts, place: str, *, takes_null: bool
) -> NDArray[np.generic] | list[bytes | str]:
    place = f"{place}.data"
    if facts.datatype in _ONLY_BINARY:
        raise InputInvalid(place, f"{facts.datatype} in binary form", "JSON")
    flat = _flattened(facts.data, facts.shape, place)
    if facts.datatype == BYTES:
        _check_types(flat, {str}, "texts", place)
        return flat
    dtype = DATATYPES[facts.datatype]
    allowed = _JSON_TYPES.get(dtype.kind, {int})
    if takes_null and dtype.kind == "f":
        allowed = allowed | {type(None)}  # NumPy makes it NaN
    _check_types(flat, allowed, f"elements of {facts.datatype}", place)
    # A decimal number stands for the float next to it: it is read in full and rounded once, later.
    read_as = np.dtype(np.float64) if dtype.kind == "f" else dtype
    try:
        return np.array(flat, read_as).reshape(facts.shape)
    except OverflowError:
        raise InputInvalid(place, f"elements of {facts.datatype}", "one out of range") from None


def _flattened(data: object, shape: tuple[int, ...], place: str) -> list[Any]:
    """Return data, which is flat or nested as the shape says, as a flat list."""
    if not isinstance(data, list):
        raise InputInvalid(place, "a list", shown(data))
    size = math.prod(shape)
    if not data or not isinstance(data[0], list):
        if len(data) != size:
            raise InputInvalid(place, f"{size} elements for shape {list(shape)}", str(len(data)))
        return data
    level: list[Any] = [data]
    for length in shape:
        for part in level:
            if not isinstance(part, list) or len(part) != length:
                raise InputInvalid(place, f"lists nested to shape {list(shape)}", shown(part))
        level = list(itertools.chain.from_iterable(level))
    return level


def _check_types(flat: list[Any], allowed: set[type], what: str, place: str) -> None:
    if not set(map(type, flat)) <= allowed:
        wrong = next(at for at, element in enumerate(flat) if type(element) not in allowed)
        raise InputInvalid(f"{place}[{wrong}]", what, shown(flat[wrong]))


def write_tensors(replies: Sequence[Reply]) -> tuple[list[dict[str, object]], bytes]:
    """Return what a head says of tensors that go out, and the bytes behind the head."""
    declared: list[dict[str, object]] = []
    behind: list[bytes] = []
    for reply in replies:
        is_text = isinstance(reply.values, list)
        datatype = BYTES if isinstance(reply.values, list) else DATATYPE_OF[reply.values.dtype]
        content: dict[str, object] = {
            "name": reply.name,
            "datatype": datatype,
            "shape": list(reply.shape),
        }
        if not reply.is_binary:
            content["data"] = reply.values if is_text else np.ravel(reply.values)
        else:
            packed = _packed(reply.values)
            content["parameters"] = {"binary_data_size": len(packed)}
            behind.append(packed)
        declared.append(content)
    return declared, b"".join(behind)


def _packed(values: NDArray[Any] | list[str]) -> bytes:
    if isinstance(values, list):
        return pack_texts([text.encode() for text in values])
    return values.tobytes()
