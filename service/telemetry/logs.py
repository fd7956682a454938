"""Logs as JSON lines on standard error; what is passed as `extra` becomes keys of the line.

Whoever reads them may be slow or gone, and their disk full. No answer waits for that: lines are
written by a thread of their own, and those for which there is no room are dropped and counted.
"""

import contextlib
import datetime as dt
import json
import logging
import os
import select
import sys
import threading
from queue import SimpleQueue

MOST_LINES = 4096
"""So many lines wait for whoever reads them; more are dropped."""

FLUSH_S = 1.0
"""So long the end of the process waits for lines to be read."""

log = logging.getLogger(__name__)

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """One line a record: time (UTC), level, logger, message, extras, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        time = dt.datetime.fromtimestamp(record.created, dt.UTC)
        content: dict[str, object] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        content |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


class LogLines(logging.Handler):
    """Writes lines in a thread of its own, so that whoever logs never waits."""

    def __init__(self, descriptor: int | None) -> None:
        """Store where to write; None: nowhere, as the process has no standard error."""
        super().__init__()
        self.dropped = 0
        self._descriptor = descriptor
        # Other than locks it may be asked for by a signal that comes while it is asked already.
        self._lines: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        self._has_begun = False
        self._is_torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Let a record be written when its turn comes."""
        if not self._has_begun:
            self._has_begun = True
            threading.Thread(target=self._work, name="dunno-log", daemon=True).start()
        if self._lines.qsize() >= MOST_LINES:
            self.dropped += 1
        else:
            self._lines.put(self._line(record))

    def flush(self) -> None:
        """Wait until all is written, but not for long."""
        if self._has_begun:
            written = threading.Event()
            self._lines.put(written)
            written.wait(FLUSH_S)

    def close(self) -> None:
        """Write what waits, and then no more."""
        self._lines.put(None)
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            return self.format(record).encode() + b"\n"
        except Exception as error:  # noqa: BLE001  of whatever is to be logged
            content = {"level": "error", "logger": record.name, "message": repr(error)}
            return json.dumps(content).encode() + b"\n"

    def _work(self) -> None:
        told = 0
        while (line := self._lines.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
            elif self._write(line) and self.dropped != told:
                told = self.dropped
                log.warning("lines of this log were dropped", extra={"lines": told})

    def _write(self, line: bytes) -> bool:
        """Write a line; whether it could be."""
        if self._is_torn:
            line = b"\n" + line
        left = line
        while left and self._descriptor is not None:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # whoever has the same file open made it so
                select.select((), (self._descriptor,), ())
            except OSError:
                break
        if left:
            self.dropped += 1
        self._is_torn = len(left) not in (0, len(line))
        return not left


def dropped_lines() -> int:
    """Return how many lines of this process's log were lost."""
    handlers = logging.getLogger().handlers
    return sum(each.dropped for each in handlers if isinstance(each, LogLines))


def configure_logs(level: str) -> None:
    """Send all logs of at least `level` to standard error as JSON lines."""
    handler = LogLines(_standard_error())
    handler.setFormatter(JsonFormatter())
    logging.captureWarnings(capture=True)  # those of libraries become lines of JSON as well
    # It warns of every malformed form; that is the caller's affair, and he is told.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def _standard_error() -> int | None:
    with contextlib.suppress(OSError, AttributeError):
        return sys.stderr.fileno()
    return None
