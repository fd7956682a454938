"""HTTP/1.1 answers read as they arrive: the status and where the answer ends; bodies are skipped.

Reading must cost little, because the client shares the machine with the server it measures.
"""

import math
import re

MAX_HEAD_BYTES = 65_536
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?:\r\n|$)")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*\bchunked[ \t]*(?:\r\n|$)")
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*\bclose\b")
_KEEP_ALIVE = re.compile(rb"\r\nconnection:[^\r]*\bkeep-alive\b")


class AnswerBroken(Exception):
    """Bytes that are no HTTP answer, or more of them than one answer has."""


class AnswerReader:
    """Reads one answer after the other of a connection, in whatever pieces they arrive."""

    __slots__ = ("_in_chunks", "_in_trailer", "_missing_bytes", "_rest", "is_kept_alive", "status")

    def __init__(self) -> None:
        self.status = 0
        self.is_kept_alive = True
        self._rest = b""
        self._missing_bytes: float = 0
        self._in_chunks = False
        self._in_trailer = False

    @property
    def ends_by_close(self) -> bool:
        """Whether the end of the connection is the end of the answer, so that it is complete."""
        return self._missing_bytes == math.inf

    def feed(self, data: bytes) -> bool:
        """Return whether the answer is complete with `data`; then `status` is its status.

        Raises:
            AnswerBroken: if that is not HTTP, or somebody answers more than was asked.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self.status:
            head, end, data = data.partition(_HEAD_END)
            if not end:
                return self._wait_for_more(head)
            self._read_head(head)
            if self.status < 200:  # "100 Continue" precedes the answer
                self.status = 0
                return bool(data) and self.feed(data)
        return self._read_chunks(data) if self._in_chunks else self._skip_body(data)

    def start(self) -> None:
        """Expect the next answer."""
        self.status = 0

    def _wait_for_more(self, head: bytes) -> bool:
        if len(head) > MAX_HEAD_BYTES:
            raise AnswerBroken("headers without an end")
        self._rest = head
        return False

    def _read_head(self, head: bytes) -> None:
        version, _, behind = head.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not behind[:3].isdigit():
            raise AnswerBroken(f"no status line: {head[:40]!r}")
        self.status = int(behind[:3])
        fields = head.lower()
        is_new = version != b"HTTP/1.0"
        self.is_kept_alive = (
            not _CLOSE.search(fields) if is_new else bool(_KEEP_ALIVE.search(fields))
        )
        self._in_chunks = self._in_trailer = False
        if self.status in (204, 304) or self.status < 200:
            self._missing_bytes = 0
        elif _CHUNKED.search(fields):
            self._in_chunks, self._missing_bytes = True, 0
        elif length := _LENGTH.search(fields):
            self._missing_bytes = int(length[1])
        else:
            self._missing_bytes, self.is_kept_alive = math.inf, False

    def _skip_body(self, data: bytes) -> bool:
        self._missing_bytes -= len(data)
        if self._missing_bytes < 0:
            raise AnswerBroken("more bytes than the answer has")
        return self._missing_bytes == 0

    def _read_chunks(self, data: bytes) -> bool:
        while True:
            skipped = min(int(self._missing_bytes), len(data))
            self._missing_bytes -= skipped
            data = data[skipped:]
            line, end, behind = data.partition(b"\r\n")
            if self._missing_bytes or not end:
                return self._wait_for_more(data)
            data = behind
            if not self._in_trailer:
                self._read_chunk_size(line)
            elif not line:
                if data:
                    raise AnswerBroken("more bytes than the answer has")
                return True

    def _read_chunk_size(self, line: bytes) -> None:
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise AnswerBroken(f"no length of a chunk: {line[:40]!r}") from None
        self._in_trailer = size == 0
        self._missing_bytes = size + len(b"\r\n") if size else 0
