import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.telemetry.logs import MOST_LINES, JsonFormatter, LogLines, configure_logs

PATIENCE_S = 20.0
PIPE_BYTES = 65_536


def test_record_is_one_line_of_json_with_its_extras() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "hello %s", "args": ("you",), "model": "wine"}
    )

    content = json.loads(JsonFormatter().format(record))

    assert content["message"] == "hello you"
    assert content["level"] == "info"
    assert content["model"] == "wine"
    assert content["time"].endswith("+00:00")


def test_exception_stays_on_the_line() -> None:
    try:
        int("no")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})

    line = JsonFormatter().format(record)

    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


def test_level_is_obeyed(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning")

    logging.getLogger("service.test").info("quiet")
    logging.getLogger("service.test").warning("loud")

    logging.getLogger().handlers[-1].flush()
    assert [json.loads(line)["message"] for line in capfd.readouterr().err.splitlines()] == ["loud"]


@contextmanager
def lines_to(descriptor: int | None) -> Iterator[tuple[logging.Logger, LogLines]]:
    """A log of its own that is written to a descriptor."""
    lines = LogLines(descriptor)
    lines.setFormatter(JsonFormatter())
    log = logging.getLogger("service.test")
    log.setLevel("INFO")
    log.propagate = False
    log.addHandler(lines)
    yield log, lines
    log.removeHandler(lines)
    log.propagate = True
    lines.close()


def test_lines_that_nobody_reads_are_dropped_and_counted_and_nobody_waits() -> None:
    reader, writer = os.pipe()
    with lines_to(writer) as (log, lines):
        for number in range(2 * MOST_LINES):
            log.info("%d %s", number, "x" * 100)

        assert 0 < lines.dropped < 2 * MOST_LINES
        with os.fdopen(reader, "rb") as file:
            read = [json.loads(file.readline())["message"] for _ in range(MOST_LINES)]
    os.close(writer)

    assert [int(message.split()[0]) for message in read] == list(range(MOST_LINES))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_lines_that_cannot_be_written_are_counted() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with lines_to(descriptor) as (log, lines):
        log.info("hello")
        lines.flush()

        assert lines.dropped == 1
    os.close(descriptor)


def test_process_without_standard_error_counts_its_lines() -> None:
    with lines_to(None) as (log, lines):
        log.info("hello")
        lines.flush()

        assert lines.dropped == 1


def test_writer_waits_for_room_in_a_pipe_that_does_not_block() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = "x" * 2 * PIPE_BYTES
    with lines_to(writer) as (log, lines), os.fdopen(reader, "rb") as file:
        log.info(text)

        assert json.loads(file.readline())["message"] == text
        assert lines.dropped == 0
    os.close(writer)


def test_record_that_cannot_be_formatted_is_a_line_that_says_so() -> None:
    reader, writer = os.pipe()
    with lines_to(writer) as (log, _), os.fdopen(reader, "rb") as file:
        log.info("%d", "no number")

        assert "TypeError" in json.loads(file.readline())["message"]
    os.close(writer)
