"""How a camera was held: the one tag of EXIF that matters here, read without the others.

Other tags are often malformed, and a picture that has one is as good as any other.
"""

import struct

_UPRIGHT = 1
_ORIENTATION = 0x0112
_MOST_ENTRIES = 1024  # the tag stands among the first: they are in ascending order
_ENTRY_BYTES = 12
_ORDER = {b"II": "<", b"MM": ">"}
_FORMAT = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # by the type of the entry


def orientation(exif: bytes) -> int:
    """Return how a picture is turned, 1 to 8 as EXIF numbers it; 1 if that cannot be read.

    Args:
        exif: the block as a file has it, with or without the prefix of JPEG.

    Exif 3.0 (CIPA DC-008), section 4.6.5, tag 0x0112.
    """
    block = exif.removeprefix(b"Exif\0\0")
    order = _ORDER.get(block[:2])
    if order is None:
        return _UPRIGHT
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, start)
        for entry in range(min(entries, _MOST_ENTRIES)):
            at = start + 2 + entry * _ENTRY_BYTES
            tag, kind = struct.unpack_from(order + "HH", block, at)
            if tag == _ORIENTATION:
                (value,) = struct.unpack_from(order + _FORMAT[kind], block, at + 8)
                return int(value) if 1 <= value <= 8 else _UPRIGHT
    except (struct.error, KeyError):
        pass
    return _UPRIGHT
