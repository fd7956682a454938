"""Finds keys that stand twice in one object of JSON: parsers take the last one and say nothing."""

import json

MOST_SHOWN = 200


class DuplicateKey(ValueError):
    """A key stands twice in one object."""


def refuse_duplicate_keys(content: bytes) -> None:
    """Refuse JSON, which another parser has accepted, if an object of it has a key twice.

    Raises:
        DuplicateKey: with the name of the key.
    """
    # Numbers stay texts: one of a thousand digits is no matter of keys.
    json.loads(content, object_pairs_hook=_refuse, parse_int=str, parse_float=str, strict=False)


def _refuse(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise DuplicateKey(f"the key {json.dumps(key[:MOST_SHOWN])} stands twice; keep one")
        seen.add(key)
