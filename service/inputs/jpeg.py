"""JPEG files -> the same without metadata, and how much work and memory they take to decode."""

import re
import struct
from typing import NamedTuple

from service.errors import PayloadTooLarge

MOST_SCANS = 100
"""Most scans of a JPEG: cameras and encoders write up to a dozen, and each costs a pass over the
whole picture, however few bytes it has."""

MOST_SEGMENTS = 4096
"""Most segments between the scans of a JPEG."""

JPEG_SIGNATURE = b"\xff\xd8\xff"
END = b"\xff\xd9"

_MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])").search
_SOS, _EOI, _APP0, _APP1, _APP14, _COM = 0xDA, 0xD9, 0xE0, 0xE1, 0xEE, 0xFE
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF0 to SOF15
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_METADATA = frozenset({*range(0xE0, 0xF0), _COM})
_LEAST_BYTES = {_APP0: 14, _APP14: 12}  # of JFIF and Adobe, which tell what the colours are
_COEFFICIENT_BYTES = 2


class Jpeg(NamedTuple):
    """A JPEG as it is handed to the decoder."""

    content: bytes
    """The file without the segments that say nothing of its pixels."""

    exif: bytes
    """The EXIF block, or nothing."""

    has_end: bool
    """Whether the end marker is there."""

    coefficient_bytes: int
    """What the decoder keeps of the whole picture while it reads; 0 if it goes line by line."""


def read_jpeg(content: bytes) -> Jpeg:
    """Return a JPEG with what its markers say of it; no pixel is decoded.

    Raises:
        PayloadTooLarge: if it has more scans or segments than any picture needs.
        Exception: an IndexError or struct.error, if it is damaged before its first scan.
    """
    walk = _Walk(content)
    walk.to_first_scan()
    walk.through_scans()
    return Jpeg(walk.cleaned(), walk.exif, walk.has_end, walk.coefficient_bytes())


class _Walk:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._kept: list[bytes] = [content[:2]]
        self._at = 2
        self._segments = 0
        self._scans = 0
        self._frame = b""
        self._is_multiscan = False
        self._first_scan_at = len(content)
        self.exif = b""
        self.has_end = False

    def to_first_scan(self) -> None:
        while True:
            marker, start, end = self._segment()
            if marker == _SOS:
                self._first_scan_at = start
                self._count_scan(start, end)
                return
            self._look_at(marker, start, end)
            if self._is_needed(marker, start, end):
                self._kept.append(self._content[start:end])

    def through_scans(self) -> None:
        while found := _MARKER_IN_SCAN(self._content, self._at):
            if found[1][0] == _EOI:
                self.has_end = True
                return
            self._at = found.start()
            try:
                marker, start, end = self._segment()
            except (IndexError, struct.error):
                return  # cut off: the decoder says so
            if marker == _SOS:
                self._count_scan(start, end)

    def cleaned(self) -> bytes:
        return b"".join([*self._kept, self._content[self._first_scan_at :]])

    def coefficient_bytes(self) -> int:
        """Return the bytes of the coefficients of all components, if they are kept."""
        if not self._is_multiscan or len(self._frame) < 6:
            return 0
        height, width = (int.from_bytes(self._frame[at : at + 2]) for at in (1, 3))
        components = self._frame[5]
        factors = [self._frame[6 + 3 * each + 1] for each in range(components)]
        sampling = [(max(1, factor >> 4), max(1, factor & 15)) for factor in factors]
        across, down = max(h for h, _ in sampling), max(v for _, v in sampling)
        columns, lines = -(-width // (8 * across)), -(-height // (8 * down))
        blocks = sum(columns * h * lines * v for h, v in sampling)
        return blocks * 64 * _COEFFICIENT_BYTES

    def _segment(self) -> tuple[int, int, int]:
        """Return marker, start and end of the segment at hand, and go behind it."""
        self._segments += 1
        if self._segments > MOST_SEGMENTS:
            raise PayloadTooLarge("the JPEG", MOST_SEGMENTS, "segments")
        start = self._at
        while self._content[self._at + 1] == 0xFF:  # fill bytes
            self._at += 1
        marker = self._content[self._at + 1]
        (length,) = struct.unpack_from(">H", self._content, self._at + 2)
        self._at += 2 + length
        return marker, start, self._at

    def _look_at(self, marker: int, start: int, end: int) -> None:
        body = self._content[start + 4 : end]
        if marker in _FRAMES:
            self._frame = body
            self._is_multiscan = marker in _PROGRESSIVE
        elif marker == _APP1 and body.startswith(b"Exif\0\0") and not self.exif:
            self.exif = body

    def _is_needed(self, marker: int, start: int, end: int) -> bool:
        if marker in _LEAST_BYTES:
            name = b"JFIF\0" if marker == _APP0 else b"Adobe"
            is_whole = end - start - 4 >= _LEAST_BYTES[marker]
            return is_whole and self._content.startswith(name, start + 4)
        return marker not in _METADATA

    def _count_scan(self, start: int, end: int) -> None:
        self._scans += 1
        if self._scans > MOST_SCANS:
            raise PayloadTooLarge("the JPEG", MOST_SCANS, "scans")
        components = self._content[start + 4] if start + 4 < end else 0
        if len(self._frame) >= 6 and components < self._frame[5]:
            self._is_multiscan = True
