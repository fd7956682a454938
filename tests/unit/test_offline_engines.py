"""A model in this process, asked for one payload: each row has an answer or its own error."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.errors import ClientError
from service.inputs import Payload
from service.offline.engines import Local, load_local
from service.offline.parts import rows_of_json
from service.runtimes.onnx import OnnxRuntime
from service.settings import Settings


@pytest.fixture
def fruit(models: Path) -> Local:
    return load_local("fruit", Settings(models=models))


def codes(rows: list[dict[str, Any]]) -> list[str | None]:
    return [row["error"]["code"] if "error" in row else None for row in rows]


def test_row_that_cannot_be_read_has_its_error_in_its_place(fruit: Local) -> None:
    rows = fruit.verdicts_on(rows_of_json([[9, 0, 0], ["x", 0, 0], [0, 9, 0]]))

    assert codes(rows) == [None, "input_invalid", None]
    assert rows[2]["label"] == "pear"


@pytest.mark.parametrize("rows", [1, 300], ids=["one row", "more than a batch"])
def test_rows_that_cannot_be_read_have_their_errors_even_if_no_other_is_left(
    fruit: Local, rows: int
) -> None:
    found = fruit.verdicts_on(rows_of_json([["x", 0, 0]] * rows))

    assert codes(found) == ["input_invalid"] * rows
    assert f"instances[{rows - 1}]" in found[-1]["error"]["detail"]


def test_rows_that_make_runs_fail_have_their_errors_even_if_no_other_is_left(
    fruit: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(OnnxRuntime, "run", broken)

    assert codes(fruit.verdicts_on(rows_of_json([[9, 0, 0]] * 3))) == ["run_failed"] * 3


@pytest.mark.parametrize(
    ("body", "media_type"), [(b"sweet,sour\n1,2\n", "text/csv"), (b"x", "application/json")]
)
def test_payload_that_does_not_tell_its_rows_is_refused(
    fruit: Local, body: bytes, media_type: str
) -> None:
    with pytest.raises(ClientError):
        fruit.verdicts_on(Payload(body, media_type))


def test_pictures_of_a_table_have_no_bound_of_pixels_together(models: Path) -> None:
    picture = load_local("picture", Settings(models=models, max_request_pixels=4096))
    content = io.BytesIO()
    Image.new("L", (60, 60), 250).save(content, "PNG")
    row = {"b64": base64.b64encode(content.getvalue()).decode()}

    assert codes(picture.verdicts_on(rows_of_json([row, row]))) == [None, None]
