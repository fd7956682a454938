"""Logs as JSON lines on standard error; what is passed as `extra` becomes keys of the line."""

import datetime as dt
import json
import logging
import sys

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


def configure_logs(level: str) -> None:
    """Send all logs of at least `level` to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.captureWarnings(capture=True)  # those of libraries become lines of JSON as well
    # It warns of every malformed form; that is the caller's affair, and he is told.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
