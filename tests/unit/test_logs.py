import json
import logging
import sys

import pytest

from service.telemetry.logs import JsonFormatter, configure_logs


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


def test_level_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning")

    logging.getLogger("service.test").info("quiet")
    logging.getLogger("service.test").warning("loud")

    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == [
        "loud"
    ]
