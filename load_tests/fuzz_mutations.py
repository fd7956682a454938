"""Seeded damage: to bytes as such, to JSON trees, to the chunks of a PNG."""

import contextlib
import json
import math
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson

INTEGERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000)
HUGE = (0xFFFFFFFF, 0xFFFFFFFE, 0x10000, 0x01000000)
MOST_BYTES = 400_000

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 255, 256, 0.5, -0.0, 1e308, -1e308, 5e-324, 3.5e38, 1e39),
    *(2**31, -(2**31) - 1, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**30, 10**400),
    *(10**4200, math.nan, math.inf, -math.inf, "", "0", " ", "NaN", "null", "\0", "\ud800"),
    *("\udfff\ud800", "é", "😀", "ß" * 300, "a" * 5000, "good film " * 3000, "AAAA", "=", "\n"),
    *([], {}, [[]], [None], [[[[[[[[[0]]]]]]]]], {"b64": ""}, {"b64": "AAAA"}, {"b64": 1}),
    *({"b64": "iVBORw0KGgo="}, {"b64": "a", "c": 1}, {"": 0}, {"instances": [[1]]}, [1] * 2000),
)
JSON_TOKENS = (
    *(b"NaN", b"Infinity", b"-Infinity", b"-NaN", b"nan", b"null", b"true", b"1e999", b"-1e999"),
    *(b"-0", b"00", b"01", b"1.", b".5", b"+1", b"0x10", b"1e", b"1_0", b"9" * 25, b"9" * 4400),
    *(b"[" * 1100, b'{"a":' * 1100, b"[" * 60_000, b"]" * 1100, b"[[", b"]]", b"{}", b"[]", b","),
    *(b",,", b":", b'"', b"\\", b'\\ud800"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"'),
    *(b'"instances":[],', b'"instances":', b'"inputs":', b'"examples":', b'"b64"', b'{"b64":"'),
    *(b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"\0", b"\x1f", b"\x7f", b"\xe2\x80\xa8", b"//", b"/*", b"'", b" " * 3000, b"\r\n", b"\t"),
    *(b"1" + b"0" * 400, b"0." + b"1" * 2000, b"1e-999", b"1e308", b"-1", b"256", b"0.5", b"255"),
)
"""What parsers of JSON stumble over."""


def mangled(
    rng: random.Random, content: bytes, tokens: Sequence[bytes] = (), most: int = 4
) -> bytes:
    """Return content with one to `most` random changes."""
    for _ in range(rng.randint(1, most)):
        change = rng.choice(_CHANGES if not tokens or rng.random() < 0.5 else [_token])
        content = change(rng, content, tokens)[:MOST_BYTES]
    return content


def _flip(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    for _each in range(rng.choice((1, 1, 2, 8)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = rng.randint(0, len(content))
    new = rng.randbytes(rng.choice((1, 2, 4, 16)))
    return content[:at] + new + content[at + len(new) :]


def _insert(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = rng.randint(0, len(content))
    return content[:at] + rng.randbytes(rng.choice((1, 1, 3, 50))) + content[at:]


def _delete(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = rng.randint(0, len(content))
    return content[:at] + content[at + rng.choice((1, 1, 2, 8, 100)) :]


def _truncate(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return content[: rng.randint(0, len(content))]


def _repeat(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randint(0, len(content))
    end = start + rng.choice((1, 4, 16, 64))
    return content[:end] + content[start:end] * rng.choice((1, 2, 50, 1000)) + content[end:]


def _swap(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    first, second, third = sorted(rng.randint(0, len(content)) for _ in range(3))
    return content[:first] + content[second:third] + content[first:second] + content[third:]


def _number(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = rng.randint(0, min(len(content), rng.choice((64, 1 << 30))))
    kind = rng.choice(("<H", ">H", "<I", ">I"))
    value = rng.choice(INTEGERS + HUGE) & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)
    new = struct.pack(kind, value)
    return content[:at] + new + content[at + len(new) :]


def _token(rng: random.Random, content: bytes, tokens: Sequence[bytes]) -> bytes:
    at = rng.randint(0, len(content))
    gone = rng.choice((0, 0, 1, 3))
    return content[:at] + rng.choice(tokens) + content[at + gone :]


_CHANGES: list[Callable[[random.Random, bytes, Sequence[bytes]], bytes]] = [
    *(_flip, _overwrite, _insert, _delete, _truncate, _repeat, _swap, _number)
]


def tweaked(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """Return a JSON value with one place changed; the rest is shared with the old one."""
    if depth < 6 and isinstance(value, list | dict) and value and rng.random() < 0.8:
        return _tweaked_inside(rng, value, depth)
    dice = rng.random()
    if dice < 0.1:
        return [value]
    if dice < 0.15:
        return {"value": value}
    if dice < 0.25 and isinstance(value, list):
        return value * rng.choice((0, 2, 3, 70 if len(value) < 30 else 0))
    return rng.choice(ODD_VALUES)


def _tweaked_inside(rng: random.Random, value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        name = rng.choice(list(value))
        rest = {key: each for key, each in value.items() if key != name}
        dice = rng.random()
        if dice < 0.1:
            return rest
        if dice < 0.2:
            return {**rest, rng.choice((name + "x", "", "b64", "\0", "parameters")): value[name]}
        return {**value, name: tweaked(rng, value[name], depth + 1)}
    at = rng.randrange(len(value))
    dice = rng.random()
    if dice < 0.1:
        return value[:at] + value[at + 1 :]
    if dice < 0.2:
        return [*value, value[at]]
    return [*value[:at], tweaked(rng, value[at], depth + 1), *value[at + 1 :]]


def as_json(rng: random.Random, value: Any) -> bytes:
    """Return a value as JSON, the way one of many clients writes it."""
    if rng.random() < 0.6:
        with contextlib.suppress(TypeError):  # it takes no half surrogates and no huge numbers
            return orjson.dumps(value)  # a tenth of the time; NaN comes out as null
    separators = rng.choice(((",", ":"), (", ", ": "), (" ,\n", "\t: ")))
    text = json.dumps(value, separators=separators, ensure_ascii=rng.random() < 0.7)
    return text.encode("utf-8", "surrogatepass")


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks_of(picture: bytes) -> list[tuple[bytes, bytes]]:
    """Return names and contents of the chunks of a sound PNG."""
    chunks, at = [], len(PNG_SIGNATURE)
    while at + 12 <= len(picture):
        (size,) = struct.unpack_from(">I", picture, at)
        chunks.append((picture[at + 4 : at + 8], picture[at + 8 : at + 8 + size]))
        at += 12 + size
    return chunks


def png_of(chunks: Sequence[tuple[bytes, bytes]], *, are_right: bool = True) -> bytes:
    """Return a PNG of these chunks, each with its checksum or with a wrong one."""
    parts = [PNG_SIGNATURE]
    for name, content in chunks:
        checksum = zlib.crc32(name + content) ^ (0 if are_right else 1)
        parts.append(struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum))
    return b"".join(parts)


_ODD_CHUNKS = (
    (b"tRNS", b"\0"),
    (b"tRNS", b"\0\1\0\2\0\3"),
    (b"tRNS", b"\0" * 300),
    (b"acTL", struct.pack(">II", 2, 0)),
    (b"acTL", struct.pack(">II", 0xFFFFFFFF, 0)),
    (b"fcTL", struct.pack(">IIIIIHHBB", 0, 28, 28, 0, 0, 1, 10, 0, 0)),
    (b"fdAT", struct.pack(">I", 1) + zlib.compress(b"\0" * 812)),
    (b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    (b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    (b"iCCP", b"p\0\0" + zlib.compress(b"\0" * 2_000_000)),
    (b"zTXt", b"k\0\0" + zlib.compress(b"a" * 2_000_000)),
    (b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"a" * 2_000_000)),
    (b"PLTE", b"\0" * 3),
    (b"PLTE", b"\0" * 769),
    (b"gAMA", b"\0\0\0\0"),
    (b"sBIT", b"\0"),
    (b"bKGD", b""),
    (b"IDAT", b""),
    (b"IEND", b""),
    (b"IDAT", zlib.compress(b"\0" * 4_000_000)),
    (b"XYZW", b"critical"),
    (b"\0\0\0\0", b""),
)


def png_mangled(rng: random.Random, picture: bytes) -> bytes:
    """Return a PNG with its chunks changed, whose checksums are mostly right all the same."""
    chunks = chunks_of(picture)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(chunks)) if chunks else 0
        dice = rng.randrange(7)
        if dice == 0 and chunks:
            chunks[0] = (chunks[0][0], _odd_header(rng, chunks[0][1]))
        elif dice == 1:
            chunks.insert(at, rng.choice(_ODD_CHUNKS))
        elif dice == 2 and chunks:
            chunks[at] = (chunks[at][0], mangled(rng, chunks[at][1]))
        elif dice == 3 and chunks:
            chunks.insert(rng.randrange(len(chunks)), chunks.pop(at))
        elif dice == 4 and chunks:
            chunks[at : at + 1] = []
        elif dice == 5 and chunks:
            chunks.insert(at, chunks[at])
        else:
            chunks = _repacked(rng, chunks)
    return png_of(chunks, are_right=rng.random() < 0.9)


def _odd_header(rng: random.Random, header: bytes) -> bytes:
    fields = (
        list(struct.unpack(">IIBBBBB", header)) if len(header) == 13 else [28, 28, 8, 0, 0, 0, 0]
    )
    at = rng.randrange(7)
    sides = (0, 1, 2, 3, 4, 27, 28, 29, 400, 2800, 2801, 16_384, 16_385, 65_535, 1 << 31)
    small = (0, 1, 2, 3, 4, 6, 7, 8, 16, 255)
    fields[at] = rng.choice((*sides, 0xFFFFFFFF) if at < 2 else small)
    return struct.pack(">IIBBBBB", *fields)


def _repacked(
    rng: random.Random, chunks: Sequence[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Return chunks whose pixels are changed before they are compressed."""
    packed = b"".join(content for name, content in chunks if name == b"IDAT")
    try:
        pixels = zlib.decompressobj().decompress(packed, MOST_BYTES)
    except zlib.error:
        pixels = b""
    again = zlib.compress(mangled(rng, pixels), rng.choice((0, 1, 9)))
    cut = rng.randint(0, len(again))
    new = [(b"IDAT", again[:cut]), (b"IDAT", again[cut:])]
    kept = [(name, content) for name, content in chunks if name != b"IDAT"]
    return [*kept[:1], *kept[1:-1], *new, *kept[-1:]]
