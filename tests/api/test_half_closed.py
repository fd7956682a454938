"""A client that closes its sending side has said all that it has to say, and still listens."""

import io
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import Server
from connections import BODY, Connection, request
from PIL import Image

from service.api.hotpath import HotProtocol
from service.settings import Settings


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    with Server(Settings(models=models), HotProtocol) as address:
        yield address


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: dunno\r\n\r\n".encode()


def post(path: str, content_type: str, body: bytes) -> bytes:
    return request(body, path=path, Content_Type=content_type)


def picture() -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


TABLE = b"sweet,sour,firm\n" + b"0.5,0.2,0.1\n" * 500
ASKED = {
    "rows of numbers": request(),
    "picture": post("/predict/picture", "image/png", picture()),
    "table": post("/predict/fruit", "text/csv", TABLE),
    "pixels of npy": post("/predict/fruit", "application/x-npy", b""),
    "TensorFlow Serving": request(path="/v1/models/fruit:predict"),
    "Open Inference": get("/v2/models/fruit"),
    "models": get("/models"),
    "metrics": get("/metrics"),
    "readiness": get("/readyz"),
    "document": get("/openapi.json"),
    "unknown path": get("/nothing"),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_client_that_has_closed_its_sending_side_gets_its_answer(
    address: str, asked: bytes
) -> None:
    for _ in range(10):
        with closing(Connection(address)) as connection:
            connection.send(asked)
            connection.socket.shutdown(socket.SHUT_WR)

            answer = connection.socket.makefile("rb").read()

        assert answer.startswith(b"HTTP/1.1 ")
        assert answer.count(b"HTTP/1.1 ") == 1


def test_all_requests_that_came_before_the_end_are_answered_in_order(address: str) -> None:
    with closing(Connection(address)) as connection:
        asked = [request(X_Request_ID="a"), get("/models"), request(X_Request_ID="c")]
        connection.send(b"".join(asked))
        connection.socket.shutdown(socket.SHUT_WR)

        first, second, third = (connection.response() for _ in asked)

        assert first[1]["x-request-id"] == "a"
        assert "connection" not in first[1]
        assert "models" in second[2]
        assert (third[1]["x-request-id"], third[1]["connection"]) == ("c", "close")
        assert connection.is_closed()


@pytest.mark.parametrize("sent", [BODY[:5], b""], ids=["in its body", "in its head"])
def test_client_that_leaves_within_a_request_is_hung_up_on(address: str, sent: bytes) -> None:
    asked = request()
    with closing(Connection(address)) as connection:
        connection.send(asked[: len(asked) - len(BODY) - 4 + len(sent)] if sent else asked[:20])
        connection.socket.shutdown(socket.SHUT_WR)

        assert connection.is_closed()
