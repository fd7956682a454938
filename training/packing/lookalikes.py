"""Names that look the same and are not: a message says which characters differ."""

import unicodedata
from collections.abc import Iterable

_INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")
_COMBINING = ("Mn", "Mc", "Me")
_BYTE_ORDER_MARK = "\ufeff"
_LATIN = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u03bf\u03bd",
    "aeopcyxijsov",
)
"""Small letters of Cyrillic and Greek -> those of Latin that look like them."""


def look_alike(name: str, names: Iterable[str]) -> str:
    """Return how a name differs from one of `names` that looks like it; nothing if none does.

    It is the end of a sentence, such as `; it looks like 'ant' but has a byte order mark (U+FEFF)`.
    """
    shape = _shape(name)
    other = next((each for each in names if each != name and _shape(each) == shape), None)
    if other is None:
        return ""
    more, fewer = _odd(name, other), _odd(other, name)
    if more:
        return f"; it looks like {other!r} but has {more}"
    if fewer:
        return f"; it looks like {other!r}, which has {fewer}"
    return f"; it looks like {other!r} but differs in blanks, or in upper and lower case"


def _shape(name: str) -> str:
    """Return what is seen of a name, without its case and its blanks."""
    letters = unicodedata.normalize("NFKC", name).casefold().translate(_LATIN)
    seen = (each for each in letters if unicodedata.category(each) not in _INVISIBLE)
    return unicodedata.normalize("NFKC", "".join(seen))


def _odd(name: str, other: str) -> str:
    """Return what stands in a name, and not in the other one, beyond ASCII; in words."""
    odd = dict.fromkeys(each for each in name if each not in other and not each.isprintable())
    odd |= dict.fromkeys(each for each in name if each not in other and not each.isascii())
    return ", ".join(map(_told, odd))


def _told(character: str) -> str:
    code = f"U+{ord(character):04X}"
    if character == _BYTE_ORDER_MARK:
        return f"a byte order mark ({code})"
    category = unicodedata.category(character)
    named = f"{code} {unicodedata.name(character, '')}".rstrip()
    if category in _COMBINING:
        return f"a combining character ({named})"
    return f"an invisible character ({named})" if category in _INVISIBLE else named
