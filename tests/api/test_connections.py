"""What happens on a connection, byte by byte: the same, whoever answers on it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Server
from connections import BODY, Connection, request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.hotpath import HotProtocol
from service.settings import Settings


@pytest.fixture
def connection(address: str) -> Iterator[Connection]:
    connection = Connection(address)
    yield connection
    connection.close()


def test_connection_is_kept_for_the_next_request(connection: Connection) -> None:
    for number in range(3):
        connection.send(request(X_Request_ID=f"call-{number}"))

        status, headers, content = connection.response()

        assert status == 200
        assert headers["x-request-id"] == content["request_id"] == f"call-{number}"


@pytest.mark.slow
@pytest.mark.parametrize("http", [HttpToolsProtocol, HotProtocol], ids=["asgi", "hot"])
def test_connection_is_closed_once_it_was_idle_for_long_enough(
    models: Path, http: type[HttpToolsProtocol]
) -> None:
    settings = Settings(models=models, keep_alive_ms=1500)
    with Server(settings, http, timeout_keep_alive=1.5) as address:
        connection = Connection(address)
        for _ in range(4):
            time.sleep(0.5)
            connection.send(request())
            assert connection.response()[0] == 200

        assert connection.is_closed()
        connection.close()


def test_requests_that_come_together_are_answered_in_their_order(connection: Connection) -> None:
    wanted = [f"call-{number}" for number in range(6)]
    connection.send(b"".join(request(X_Request_ID=name) for name in wanted))

    assert [connection.response()[2]["request_id"] for _ in wanted] == wanted


def test_bad_request_between_good_ones_is_answered_in_its_place(connection: Connection) -> None:
    connection.send(request() + request(b'{"instances": [[1]]}') + request())

    assert [connection.response()[0] for _ in range(3)] == [200, 400, 200]


@pytest.mark.parametrize("cut", [10, 60, -20, -1])
def test_request_in_pieces_is_put_together(connection: Connection, cut: int) -> None:
    whole = request()
    connection.send(whole[:cut])
    # A second connection: when it is answered, the server has seen the first piece of this one.
    other = Connection(f"http://127.0.0.1:{connection.socket.getpeername()[1]}")
    other.send(request())
    assert other.response()[0] == 200
    other.close()

    connection.send(whole[cut:])

    assert connection.response()[0] == 200


def test_caller_who_asks_first_is_told_to_go_on(connection: Connection) -> None:
    head, _, body = request(Expect="100-continue").partition(b"\r\n\r\n")
    connection.send(head + b"\r\n\r\n")

    assert connection.status_line() == b"HTTP/1.1 100 Continue"
    assert connection.status_line() == b""
    connection.send(body)
    assert connection.response()[0] == 200


def test_body_in_chunks_is_put_together(connection: Connection) -> None:
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    head = (
        b"POST /predict/fruit HTTP/1.1\r\nHost: dunno\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    connection.send(head + chunked)

    assert connection.response()[0] == 200


@pytest.mark.parametrize(
    "closing",
    [
        pytest.param(request(Connection="close"), id="the caller says so"),
        pytest.param(request(version="1.0"), id="HTTP/1.0"),
    ],
)
def test_connection_is_closed_when_the_caller_wants_it(
    connection: Connection, closing: bytes
) -> None:
    connection.send(closing)

    status, headers, _ = connection.response()

    assert status == 200
    assert headers["connection"] == "close"
    assert connection.is_closed()


def test_what_is_not_http_is_refused_and_the_connection_closed(connection: Connection) -> None:
    connection.send(b"POST /predict/fruit HTTP/1.1\r\nno header at all\r\n\r\n")

    assert connection.status_line().startswith(b"HTTP/1.1 400")


def test_every_answer_has_the_headers_that_harm_nobody(connection: Connection) -> None:
    for body in (BODY, b"{}"):
        connection.send(request(body))

        _, headers, content = connection.response()

        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"] == content["request_id"]
        assert "date" in headers
