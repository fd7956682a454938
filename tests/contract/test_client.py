"""Our client in Python against a real server, and against one that says what we need said."""

import http.server
import io
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import ROOT, Server
from keys import NARROW, write_keys
from numpy.typing import NDArray
from PIL import Image

from dunno_client import (
    DeadlineExceeded,
    Dunno,
    DunnoError,
    KeyRefused,
    NotFound,
    Overloaded,
    Prediction,
    RequestRefused,
    RowError,
    ServerFault,
    Unreachable,
)
from dunno_client.bodies import body_of
from dunno_client.errors import failure_of
from service.api.hotpath import HotProtocol
from service.settings import Settings

ORIENTATION = 0x0112  # of EXIF
APPLE, PEAR = [9, 0, 0], [0, 9, 0]
NAMED = {"sweet": 9, "sour": 0, "firm": 0}
LIGHT, DARK = Image.new("L", (30, 20), 250), Image.new("L", (30, 20), 5)


@pytest.fixture
def dunno(address: str) -> Iterator[Dunno]:
    with Dunno(address) as dunno:
        yield dunno


def file_of(picture: Image.Image, file_format: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, file_format)
    return stream.getvalue()


def labels(dunno: Dunno, model: str, rows: Any) -> list[str | None]:
    return [each.label for each in dunno.predict(model, rows).predictions]


FRUITS = [
    pytest.param(APPLE, ["apple"], id="one list"),
    pytest.param(tuple(APPLE), ["apple"], id="one tuple"),
    pytest.param([APPLE, PEAR], ["apple", "pear"], id="lists"),
    pytest.param(NAMED, ["apple"], id="one object"),
    pytest.param([NAMED, {**NAMED, "sweet": 0, "sour": 9}], ["apple", "pear"], id="objects"),
    pytest.param([{**NAMED, "sweet": np.float32(9)}], ["apple"], id="numbers of numpy"),
    pytest.param(list(np.array(APPLE, np.float32)), ["apple"], id="one list of numpy's numbers"),
    pytest.param(np.array(APPLE), ["apple"], id="one array"),
    pytest.param([np.array(APPLE), np.array(PEAR)], ["apple", "pear"], id="list of arrays"),
    pytest.param(np.array([APPLE, PEAR], np.float32), ["apple", "pear"], id="array"),
    pytest.param(np.array([APPLE, PEAR], order="F"), ["apple", "pear"], id="array by columns"),
    pytest.param(
        pd.DataFrame({"firm": [0, 0], "sour": [0.5, 9.0], "sweet": [9, 0]}),
        ["apple", "pear"],
        id="frame",
    ),
    pytest.param(
        pa.table({"firm": [0, 0], "sour": [0.5, 9.0], "sweet": [9, 0]}),
        ["apple", "pear"],
        id="table of pyarrow",
    ),
    pytest.param(
        pa.record_batch({"firm": [0], "sour": [0.5], "sweet": [9]}),
        ["apple"],
        id="batch of pyarrow",
    ),
    pytest.param(
        np.array([(0, 9, 0.5)], [("firm", "f4"), ("sweet", "f4"), ("sour", "f4")]),
        ["apple"],
        id="array with names",
    ),
]


class PolarsFrame:
    """What of a frame of polars is asked for; polars itself is not among our packages."""

    def __init__(self, columns: dict[str, list[object]]) -> None:
        self._names = list(columns)
        self._rows = list(zip(*columns.values(), strict=True))

    @property
    def columns(self) -> list[str]:
        return self._names

    def iter_rows(self) -> Iterator[tuple[object, ...]]:
        return iter(self._rows)

    def to_dict(self) -> dict[str, object]:
        raise AssertionError("it gives columns of polars, not of Python")


class LazyFrame:
    """What polars and Spark have before anything is read."""

    @property
    def columns(self) -> list[str]:
        raise AssertionError("it is computed to know its columns")


class TrackedTensor:
    """What PyTorch has while it follows the gradients."""

    def __array__(self, dtype: object = None, copy: object = None) -> NDArray[Any]:
        raise RuntimeError("call detach() first")


def test_frame_of_polars_is_taken_by_its_names(dunno: Dunno) -> None:
    frame = PolarsFrame({"firm": [0, 0], "note": ["a, b", None], "sour": [0, 9], "sweet": [9, 0]})

    answer = dunno.predict("fruit", frame)

    assert [row.label for row in answer.predictions] == ["apple", "pear"]
    assert answer.ignored_columns == ("note",)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        pytest.param(
            pd.DataFrame([NAMED]).assign(note='5" pipe; new\nline', when=pd.Timestamp(0)),
            ("note", "when"),
            id="texts and times",
        ),
        pytest.param(pd.DataFrame([NAMED]).assign(**{"a;b;c;d": 1}), ("a;b;c;d",), id="semicolons"),
        pytest.param(pd.DataFrame([NAMED]).rename(index=str), (), id="none"),
    ],
)
def test_columns_more_of_a_frame_are_ignored_and_told(
    dunno: Dunno, frame: pd.DataFrame, expected: tuple[str, ...]
) -> None:
    answer = dunno.predict("fruit", frame)

    assert [row.label for row in answer.predictions] == ["apple"]
    assert answer.ignored_columns == expected


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(pd.DataFrame({"sweet": [True], "sour": [False], "firm": [False]}), id="frame"),
        pytest.param(
            pd.DataFrame({"sweet": [True], "sour": [False], "firm": [False]}).astype("boolean"),
            id="frame of nullable booleans",
        ),
        pytest.param(np.array([[True, False, False]]), id="array"),
        pytest.param([True, False, False], id="one list"),
        pytest.param([{"sweet": np.True_, "sour": False, "firm": 0}], id="objects"),
    ],
)
def test_truths_are_numbers_in_every_form(dunno: Dunno, rows: Any) -> None:
    found = dunno.predict("fruit", rows).predictions

    assert found == dunno.predict("fruit", [1, 0, 0]).predictions


def test_mask_is_a_picture_in_black_and_white(dunno: Dunno) -> None:
    masks = np.array([np.ones((8, 8)), np.zeros((8, 8))], bool)

    assert labels(dunno, "picture", masks) == ["light", "dark"]


@pytest.mark.parametrize(("rows", "expected"), FRUITS)
def test_features_are_taken_in_every_form(dunno: Dunno, rows: Any, expected: list[str]) -> None:
    assert labels(dunno, "fruit", rows) == expected


def test_cell_that_misses_in_a_frame_is_missing_on_the_server(dunno: Dunno) -> None:
    frame = pd.DataFrame([NAMED, NAMED]).astype({"sour": "Int64"})
    frame.loc[1, "sour"] = pd.NA

    _, bad = dunno.predict("fruit", frame).predictions

    assert isinstance(bad, RowError)
    assert bad.detail == "line 3, column 'sour': expected a number, got the string '<NA>'"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP"])
def test_bytes_of_a_picture_are_sent_as_what_they_are(dunno: Dunno, file_format: str) -> None:
    assert labels(dunno, "picture", file_of(LIGHT, file_format)) == ["light"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(LIGHT, ["light"], id="of Pillow"),
        pytest.param(LIGHT.convert("CMYK"), ["light"], id="in a mode that PNG does not have"),
        pytest.param([LIGHT, DARK], ["light", "dark"], id="several"),
        pytest.param([DARK, file_of(LIGHT, "JPEG")], ["dark", "light"], id="mixed with bytes"),
        pytest.param(np.full((1, 8, 8), 250, np.uint8), ["light"], id="array"),
    ],
)
def test_pictures_are_taken_in_every_form(dunno: Dunno, rows: Any, expected: list[str]) -> None:
    assert labels(dunno, "picture", rows) == expected


def test_body_is_sent_as_it_is(dunno: Dunno) -> None:
    answer = dunno.predict_body("fruit", b"sweet,sour,firm\n9,0,0\n0,9,0\n", "text/csv", top_k=1)

    assert [row.label for row in answer.predictions] == ["apple", "pear"]


def test_picture_that_lies_on_its_side_says_so_on_the_way() -> None:
    picture = Image.new("L", (30, 20))
    picture.getexif()[ORIENTATION] = 6

    sent = Image.open(io.BytesIO(body_of(picture)["content"]))

    assert sent.getexif()[ORIENTATION] == 6


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param("good good good", ["positive"], id="one"),
        pytest.param(["good good good", "bad"], ["positive", None], id="several"),
        pytest.param(np.array(["good good good"]), ["positive"], id="array"),
    ],
)
def test_texts_are_taken_in_every_form(dunno: Dunno, rows: Any, expected: list[str]) -> None:
    assert labels(dunno, "review", rows) == expected


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        pytest.param(7, TypeError, id="number"),
        pytest.param([object()], TypeError, id="object of Python"),
        pytest.param(pd.Series(APPLE), TypeError, id="series, whose order means nothing"),
        pytest.param(b"what is this", ValueError, id="bytes of no picture"),
        pytest.param(TrackedTensor(), TypeError, id="tensor with gradients"),
        pytest.param(LazyFrame(), TypeError, id="frame that is not read yet"),
        pytest.param(
            pd.concat([pd.DataFrame([NAMED])] * 2, axis=1), ValueError, id="columns of one name"
        ),
        pytest.param(
            pa.table([[9], [0], [0], [1]], names=["sweet", "sour", "firm", "sweet"]),
            ValueError,
            id="columns of one name, of pyarrow",
        ),
    ],
)
def test_rows_that_cannot_be_sent_are_refused(
    dunno: Dunno, rows: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="expected"):
        dunno.predict("fruit", rows)


def test_answer_says_all_that_the_response_says(dunno: Dunno, client: httpx.Client) -> None:
    response = client.post("/predict/fruit", json={"instances": [APPLE]}).json()

    answer = dunno.predict("fruit", [APPLE])

    (prediction,) = answer.predictions
    (expected,) = response["predictions"]
    assert isinstance(prediction, Prediction)
    assert {name: getattr(prediction, name) for name in expected} == {
        **expected,
        "candidates": tuple(expected["candidates"]),
    }
    policy = response["policy"]
    assert {name: getattr(answer.policy, name) for name in policy} == policy
    assert (answer.model, answer.version) == (response["model"], response["version"])
    assert answer.request_id


def test_dont_know_is_no_failure(dunno: Dunno) -> None:
    (prediction,) = dunno.predict("fruit", [1, 1, 1]).predictions

    assert isinstance(prediction, Prediction)
    assert not prediction.is_answered
    assert prediction.reason == "low_confidence"


def test_row_that_cannot_be_read_has_its_error_in_its_place(dunno: Dunno) -> None:
    good, bad = dunno.predict("fruit", [APPLE, [1, 2]]).predictions

    assert good.is_answered
    assert isinstance(bad, RowError)
    assert not bad.is_answered
    assert (bad.label, bad.reason) == (None, "input_invalid")
    assert bad.code == "input_invalid"


def test_options_are_asked_for(dunno: Dunno) -> None:
    answer = dunno.predict("fruits", APPLE, max_error=0.001, top_k=1, alias=None, version="1")

    (prediction,) = answer.predictions
    assert isinstance(prediction, Prediction)
    assert (answer.version, answer.policy.max_error) == ("1", 0.001)
    assert list(prediction.probabilities) == ["apple"]


def test_version_may_be_chosen_by_its_alias(dunno: Dunno) -> None:
    assert dunno.predict("fruits", APPLE, alias="stable").version == "1"


def test_models_are_listed(dunno: Dunno) -> None:
    assert {model.name for model in dunno.models()} == {"fruit", "fruits", "picture", "review"}


def test_model_tells_its_input(dunno: Dunno) -> None:
    model = dunno.model("fruit")

    assert model.labels == ("apple", "pear", "plum")
    assert [each["name"] for each in model.details["input"]["fields"]] == list(NAMED)


@pytest.mark.parametrize(
    ("ask", "kind", "code", "status"),
    [
        pytest.param(
            lambda dunno: dunno.predict("a/b", APPLE), NotFound, "model_not_found", 404, id="model"
        ),
        pytest.param(
            lambda dunno: dunno.model("nobody"), NotFound, "model_not_found", 404, id="its facts"
        ),
        pytest.param(
            lambda dunno: dunno.predict("fruit", [1]),
            RequestRefused,
            "input_invalid",
            400,
            id="row",
        ),
        pytest.param(
            lambda dunno: dunno.predict("fruit", APPLE, max_error=2),
            *(RequestRefused, "option_invalid", 422),
            id="option",
        ),
        pytest.param(
            lambda dunno: dunno.predict("fruit", LIGHT),
            *(RequestRefused, "media_type_unsupported", 415),
            id="media type",
        ),
    ],
)
def test_refusal_says_what_the_problem_says(
    dunno: Dunno, ask: Callable[[Dunno], object], kind: type[DunnoError], code: str, status: int
) -> None:
    with pytest.raises(kind) as raised:
        ask(dunno)

    assert type(raised.value) is kind
    assert (raised.value.code, raised.value.status) == (code, status)
    assert raised.value.detail in str(raised.value)
    assert raised.value.request_id


def test_key_is_shown(models: Path, tmp_path: Path) -> None:
    settings = Settings(models=models, keys=write_keys(tmp_path))
    with (
        Server(settings, HotProtocol) as address,
        Dunno(address, key=f"{NARROW}\n") as dunno,
        Dunno(address) as stranger,
    ):
        seen = [model.name for model in dunno.models()]
        with pytest.raises(KeyRefused, match="Authorization"):
            stranger.predict("fruit", APPLE)
        with pytest.raises(DunnoError) as raised:
            dunno.predict("review", "good")

    assert seen == ["fruit"]
    assert isinstance(raised.value, KeyRefused | NotFound)


class Script(http.server.BaseHTTPRequestHandler):
    """Answers each request with the next part of a script; a status of 0 hangs up."""

    script: ClassVar[list["Response"]] = []
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.path)
        status, headers, body = self.script.pop(0)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Response = tuple[int, dict[str, str], bytes]
ANSWER = {
    "model": "fruit",
    "version": "1",
    "request_id": "1",
    "predictions": [],
    "policy": {
        "id": "a",
        "max_error": None,
        "min_confidence": 0.5,
        "novelty_alpha": 0,
        "guarantee": "uncertified",
        "something_new": 1,
    },
}
GOOD: Response = (200, {}, json.dumps(ANSWER).encode())
BUSY: Response = (
    503,
    {"Retry-After": "0"},
    b'{"type": "urn:dunno:draining", "detail": "stopping"}',
)
FULL: Response = (429, {"Retry-After": "0"}, b"")
SLOW: Response = (503, {"Retry-After": "60"}, b"")
GONE: Response = (0, {}, b"")


@pytest.fixture
def scripted() -> Iterator[type[Script]]:
    """Return what a server in a thread goes by; its address is `scripted.address`."""

    class Own(Script):
        script: ClassVar = []
        asked: ClassVar = []
        address = ""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        Own.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield Own
        server.shutdown()


@pytest.mark.parametrize(
    "before",
    [
        pytest.param([BUSY, BUSY], id="503 twice"),
        pytest.param([FULL, BUSY], id="429 and 503"),
        pytest.param([GONE, GONE], id="no answer twice"),
        pytest.param([(503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, b"")], id="a date"),
    ],
)
def test_request_is_sent_again(scripted: Any, before: list[Response]) -> None:
    scripted.script[:] = [*before, GOOD]

    with Dunno(scripted.address) as dunno:
        answer = dunno.predict("fruit", APPLE)

    assert answer.policy.guarantee == "uncertified"
    assert len(scripted.asked) == len(before) + 1


def test_what_is_left_of_the_deadline_is_sent_along(scripted: Any) -> None:
    scripted.script[:] = [(503, {"Retry-After": "1"}, b""), GOOD]

    with Dunno(scripted.address, deadline_s=20) as dunno:
        dunno.predict("fruit", APPLE)

    queries = [parse_qs(urlsplit(path).query) for path in scripted.asked]
    first, second = (float(query["deadline_ms"][0]) for query in queries)
    assert 19_000 < first <= 20_000
    assert second <= first - 1000  # not before the server said


@pytest.mark.parametrize(
    ("date", "told", "seconds"),
    [
        ("Fri, 31 Dec 1999 23:59:57 GMT", "Fri, 31 Dec 1999 23:59:59 GMT", 2),
        ("Fri, 31 Dec 1999 23:59:57 GMT", "Fri, 31 Dec 1999 23:59:00 GMT", 0),
        ("Fri, 31 Dec 1999 23:59:57 GMT", "Fri Dec 31 23:59:59 1999", 2),
        ("Fri, 31 Dec 1999 23:59:57 GMT", "Friday, 31-Dec-99 23:59:58 GMT", 1),
        ("Fri, 31 Dec 1999 23:59:57 GMT", "7", 7),
        ("Fri, 31 Dec 1999 23:59:57 GMT", "soon", None),
        ("never", "Fri, 31 Dec 1999 23:59:59 GMT", 0),
    ],
)
def test_date_to_ask_again_at_is_reckoned_from_that_of_the_response(
    date: str, told: str, seconds: float | None
) -> None:
    response = httpx.Response(503, headers={"Date": date, "Retry-After": told})

    assert failure_of(response).retry_after_s == seconds


def test_request_is_not_sent_again_before_the_date_that_was_told(scripted: Any) -> None:
    now = datetime.now(UTC)
    told = format_datetime(now + timedelta(seconds=60), usegmt=True)
    scripted.script[:] = [(503, {"Retry-After": told}, b"")]

    with Dunno(scripted.address, deadline_s=5) as dunno, pytest.raises(Overloaded):
        dunno.predict("fruit", APPLE)

    assert len(scripted.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://models.example/predict/fruit?a=b", "https://models.example/predict/fruit;"),
        ("/base/predict/fruit", "/base/predict/fruit;"),
    ],
)
def test_redirect_says_where_it_leads_to(
    scripted: Any, status: int, location: str, expected: str
) -> None:
    scripted.script[:] = [(status, {"Location": location}, b"")]

    with Dunno(scripted.address) as dunno, pytest.raises(ServerFault) as raised:
        dunno.predict("fruit", APPLE)

    assert raised.value.code == f"http_{status}"
    start = "" if "//" in expected else scripted.address
    assert f"is redirected to {start}{expected}" in raised.value.detail


def test_answer_that_cannot_be_unpacked_is_a_fault_of_the_server(scripted: Any) -> None:
    scripted.script[:] = [(200, {"Content-Encoding": "gzip"}, b"no gzip")]

    with Dunno(scripted.address) as dunno, pytest.raises(ServerFault, match="cannot be unpacked"):
        dunno.predict("fruit", APPLE)


def test_last_failure_is_raised_when_all_tries_are_spent(scripted: Any) -> None:
    scripted.script[:] = [BUSY] * 3

    with Dunno(scripted.address, retries=2) as dunno, pytest.raises(Overloaded) as raised:
        dunno.predict("fruit", APPLE)

    assert (raised.value.code, raised.value.status) == ("draining", 503)
    assert scripted.script == []


def test_pause_beyond_the_deadline_is_not_made(scripted: Any) -> None:
    scripted.script[:] = [SLOW]

    with Dunno(scripted.address, deadline_s=5) as dunno, pytest.raises(Overloaded) as raised:
        dunno.predict("fruit", APPLE)

    assert (raised.value.code, raised.value.retry_after_s) == ("http_503", 60)
    assert len(scripted.asked) == 1


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        pytest.param((400, {}, b"<html>"), RequestRefused, id="400"),
        pytest.param((500, {}, b"[]"), ServerFault, id="500"),
        pytest.param((504, {}, b""), DeadlineExceeded, id="504"),
        pytest.param((302, {"Location": "/"}, b""), ServerFault, id="redirect"),
        pytest.param((200, {}, b"{}"), ServerFault, id="200 without an answer"),
        pytest.param((200, {}, b"hello"), ServerFault, id="200 without JSON"),
    ],
)
def test_other_failures_are_raised_at_once(
    scripted: Any, response: Response, kind: type[DunnoError]
) -> None:
    scripted.script[:] = [response]

    with Dunno(scripted.address) as dunno, pytest.raises(kind) as raised:
        dunno.predict("fruit", APPLE)

    assert raised.value.status == response[0]
    assert len(scripted.asked) == 1


def test_nobody_there_is_a_failure_of_its_own() -> None:
    with socket.socket() as bound:  # and not listening: whoever connects is refused
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with Dunno(address, retries=1) as dunno, pytest.raises(Unreachable):
            dunno.models()


def test_server_that_is_silent_exceeds_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Dunno(address, deadline_s=0.05) as dunno, pytest.raises(DeadlineExceeded):
            dunno.predict("fruit", APPLE)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        pytest.param("127.0.0.1:8000", {}, id="no scheme"),
        pytest.param("http://[::1", {}, id="half of an address"),
        pytest.param("http://x:y", {}, id="no port"),
        pytest.param("http://x", {"deadline_s": 0}, id="no time"),
        pytest.param("http://x", {"retries": -1}, id="less than no retry"),
    ],
)
def test_client_that_cannot_ask_is_refused(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Dunno(url, **options)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("NO_PROXY", "[::1]"),
        ("HTTP_PROXY", "ftp://x"),
        ("HTTPS_PROXY", "http://[::1"),
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
    ],
)
def test_proxy_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    monkeypatch.setenv(name, content)

    with pytest.raises(ValueError, match="environment: expected proxies") as raised:
        Dunno("http://127.0.0.1:8000")

    assert f"{name}={content}" in str(raised.value)


def test_import_brings_none_of_the_libraries_of_rows() -> None:
    heavy = "{'numpy', 'pandas', 'PIL', 'service'}"
    script = f"import sys, dunno_client; print({heavy} & set(sys.modules))"

    done = subprocess.run(  # noqa: S603  our own line
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"


def test_example_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "mnist").symlink_to(ROOT / "models/mnist")
    (tmp_path / "catalogue.toml").write_text("[models.mnist]\n")

    with Server(Settings(models=tmp_path), HotProtocol) as address:
        done = subprocess.run(  # noqa: S603  our own README
            [sys.executable, "-c", script.replace("http://127.0.0.1:8000", address)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )

    assert done.stdout == "7\n"
