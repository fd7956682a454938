"""What callers may do with connections, by raw bytes: every limit is met and told."""

import contextlib
import re
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server
from connections import BODY, Connection, request
from counting import value_at
from many_callers import serving

from service.api import admin
from service.api.doorway import RESERVED
from service.api.guarded import MOST_PIPELINED, GuardedProtocol
from service.api.hotpath import HotProtocol
from service.memory import MemoryPlan
from service.settings import Settings

PATIENCE_S = 5.0
SIZES: dict[str, Any] = {
    "max_header_bytes": 2048,
    "max_headers": 20,
    "max_body_bytes": 100_000,
}
TIMES: dict[str, Any] = {
    "header_timeout_ms": 300,
    "keep_alive_ms": 300,
    "write_timeout_ms": 300,
    "body_timeout_ms": 300,
}
HEAD = b"POST /predict/fruit HTTP/1.1\r\nHost: dunno\r\n"
READY = b"GET /readyz HTTP/1.1\r\nHost: dunno\r\n\r\n"


@pytest.fixture(scope="module", params=[GuardedProtocol, HotProtocol], ids=["asgi", "hot"])
def address(models: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that takes little, with and without the shortcut."""
    with Server(Settings(models=models, **SIZES), request.param) as address:
        yield address


@pytest.fixture
def connection(address: str) -> Iterator[Connection]:
    with closing(Connection(address)) as connection:
        yield connection


@pytest.fixture(scope="module", params=[GuardedProtocol, HotProtocol], ids=["asgi", "hot"])
def impatient(models: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that waits for nothing long, with and without the shortcut."""
    with Server(Settings(models=models, **TIMES), request.param) as address:
        yield address


@pytest.fixture
def few(models: Path) -> Iterator[str]:
    """Address of a server that takes three connections."""
    settings = Settings(models=models, max_connections=3)
    with Server(settings, HotProtocol) as address:
        yield address


def counted(address: str, cause: str) -> float:
    text = httpx.get(f"{address}/metrics").text
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith(f'dunno_connection_rejections_total{{cause="{cause}"}}')
    ]
    return float(line.split()[1])


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the server does by itself."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def is_reset(connection: Connection, piece: bytes) -> bool:
    """Send a piece, and tell whether the server has hung up."""
    try:
        connection.send(piece)
        time.sleep(0.01)
    except OSError:
        return True
    return False


def refused(connection: Connection, address: str, cause: str, before: float) -> str:
    """Return why a connection was refused; it is closed, and counted once."""
    status, headers, content = connection.response()
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/problem+json"
    assert content["status"] == status
    assert content["type"] == f"urn:dunno:{cause}"
    assert content["request_id"] == headers["x-request-id"]
    assert connection.is_closed()
    assert counted(address, cause) == before + 1
    return f"{status} {content['detail']}"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([HEAD + b"X-Long: " + b"x" * 3000 + b"\r\n\r\n"], id="whole"),
        pytest.param([HEAD, b"X-Endless: " + b"x" * 3000], id="a header without an end"),
        pytest.param([b"GET /" + b"x" * 3000], id="a target without an end"),
        pytest.param([b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\n\r\n"], id="a long target"),
        pytest.param([b"\r\n" * 1500], id="nothing but ends of lines"),
        pytest.param([request() + HEAD + b"X: " + b"x" * 400_000], id="behind another"),
        pytest.param([request() + HEAD + b"X: " + b"x" * 3000 + b"\r\n\r\n"], id="both at once"),
        pytest.param(
            [request() + HEAD + b"".join(b"X-%d: %0300d\r\n" % (n, n) for n in range(9)) + b"\r\n"],
            id="both at once, several headers",
        ),
        pytest.param(
            [HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: " + b"x" * 400_000],
            id="behind a body",
        ),
    ],
)
def test_head_larger_than_its_cap_is_refused_whether_it_ends_or_not(
    connection: Connection, address: str, pieces: list[bytes]
) -> None:
    before = counted(address, "header_size")
    connection.send(*pieces)
    if pieces[0].startswith(request()):
        assert connection.response()[0] == 200

    why = refused(connection, address, "header_size", before)

    assert why == "431 the head of the request is larger than the cap of 2,048 bytes"


def test_more_headers_than_allowed_are_refused(connection: Connection, address: str) -> None:
    before = counted(address, "header_count")
    connection.send(HEAD + b"".join(b"X-%d: 1\r\n" % n for n in range(20)) + b"\r\n")

    why = refused(connection, address, "header_count", before)

    assert why == "431 the request has 21 headers, more than the cap of 20"


def test_head_within_its_cap_is_read_however_large_the_body_behind_it(
    connection: Connection,
) -> None:
    rows = b'{"instances": [' + b",".join([b"[0.5, 0.2, 0.1]"] * 1000) + b"]}"
    connection.send(request(rows, X_Long="x" * 1500))

    assert connection.response()[0] == 200


@pytest.mark.parametrize(
    "pieces",
    [[HEAD], [bytes([byte]) for byte in HEAD[:20]]],
    ids=["in one piece", "byte by byte"],
)
def test_head_that_does_not_end_in_time_is_refused(impatient: str, pieces: list[bytes]) -> None:
    before = counted(impatient, "header_timeout")
    with closing(Connection(impatient)) as connection:
        for piece in pieces:
            connection.send(piece)
            time.sleep(0.2 / len(pieces))

        why = refused(connection, impatient, "header_timeout", before)

    assert why == "408 the head of the request was not complete after 0.3 s"


def test_connection_that_says_nothing_is_closed_silently(impatient: str) -> None:
    with closing(Connection(impatient)) as connection:
        assert connection.is_closed()


def test_idle_connection_is_closed_although_line_ends_keep_coming(impatient: str) -> None:
    with closing(Connection(impatient)) as connection:
        connection.send(request())
        assert connection.response()[0] == 200

        until(lambda: is_reset(connection, b"\r\n"))


def test_more_requests_at_once_than_may_wait_are_cut_off_behind_their_answers(
    connection: Connection, address: str
) -> None:
    before = counted(address, "pipelined")
    connection.send(READY * 100_000)

    answered = 0
    while (status := connection.response()[0]) == 200:
        answered += 1

    assert status == 429
    assert answered == MOST_PIPELINED + 1
    assert connection.is_closed()
    assert counted(address, "pipelined") == before + 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no http at all\r\n\r\n", id="rubbish"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
        pytest.param(b"CONNECT dunno:443 HTTP/1.1\r\nHost: dunno\r\n\r\n", id="CONNECT"),
        pytest.param(
            b"CONNECT dunno:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            id="CONNECT with a body",
        ),
        pytest.param(b"POST /predict/\xff HTTP/1.1\r\nHost: dunno\r\n\r\n", id="no ASCII"),
        pytest.param(
            b"POST /predict/\xff HTTP/1.1\r\nContent-Length: 9\r\n\r\n{", id="no ASCII, in pieces"
        ),
        pytest.param(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", id="two lengths"),
        pytest.param(
            HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", id="two framings"
        ),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n", id="a negative length"),
        pytest.param(HEAD + b"Content-Length: 9" + b"9" * 40 + b"\r\n\r\n", id="a huge length"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", id="a chunk without size"
        ),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30, id="a huge chunk"),
    ],
)
def test_what_is_no_request_is_a_problem_and_the_end(
    connection: Connection, address: str, content: bytes
) -> None:
    before = counted(address, "malformed")
    connection.send(content)

    assert refused(connection, address, "malformed", before).startswith("400 expected")


def test_request_that_breaks_off_is_refused_behind_the_answers_to_those_before(
    connection: Connection, address: str
) -> None:
    before = counted(address, "malformed")
    connection.send(request() + READY + HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n")

    assert [connection.response()[0] for _ in range(2)] == [200, 200]
    assert refused(connection, address, "malformed", before).startswith("400")


def test_caller_that_leaves_amid_several_requests_is_no_fault_of_ours(
    connection: Connection, address: str
) -> None:
    before = outcomes(address)
    connection.send(request(path="/v1/models/fruit:predict") + request() + request())
    linger = struct.pack("ii", 1, 0)  # closing resets the connection
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()
    until(lambda: in_flight(address) == 0)

    assert outcomes(address)["error"] == before["error"]


def outcomes(address: str) -> Counter[str]:
    """Return how many requests had which outcome."""
    found: Counter[str] = Counter()
    pattern = r'^dunno_requests_total\{.*outcome="(\w+)".*\} (\S+)$'
    for name, number in re.findall(pattern, httpx.get(f"{address}/metrics").text, re.MULTILINE):
        found[name] += int(float(number))
    return found


def in_flight(address: str) -> float:
    pattern = r"^dunno_inflight_requests\{.*\} (\S+)$"
    return sum(map(float, re.findall(pattern, httpx.get(f"{address}/metrics").text, re.MULTILINE)))


def test_trailer_says_nothing(connection: Connection) -> None:
    body = b"%x\r\n%b\r\n0\r\nX-Request-ID: late\r\n\r\n" % (len(BODY), BODY)
    connection.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)

    status, headers, _ = connection.response()

    assert status == 200
    assert headers["x-request-id"] != "late"


def test_target_may_be_a_whole_address(connection: Connection) -> None:
    connection.send(request(path="http://dunno/predict/fruit"))

    assert connection.response()[0] == 200


def test_wish_for_another_protocol_is_passed_over_and_the_connection_closed(
    connection: Connection,
) -> None:
    connection.send(READY[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")

    status, headers, _ = connection.response()

    assert status == 200
    assert headers["connection"] == "close"
    assert connection.is_closed()


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_request_with_a_body_that_wishes_for_another_protocol_is_answered_by_this_one(
    connection: Connection, protocol: str
) -> None:
    wish = request(Connection="Upgrade, HTTP2-Settings", Upgrade=protocol, HTTP2_Settings="AAMA")
    connection.send(wish + wish)
    connection.send(*(bytes([byte]) for byte in wish))
    connection.send(request())

    assert [connection.response()[0] for _ in range(4)] == [200] * 4


@pytest.mark.parametrize(
    ("behind", "status", "cause"),
    [
        pytest.param(HEAD + b"Transfer-Encoding: x\r\n\r\n", 501, "malformed", id="coding"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "host", id="host"),
        pytest.param(HEAD + b"X: 1\r\n" * 40 + b"\r\n", 431, "header_count", id="headers"),
        pytest.param(HEAD + b"X: " + b"x" * 3000 + b"\r\n\r\n", 431, "header_size", id="size"),
    ],
)
def test_refusal_behind_a_wish_for_another_protocol_says_what_it_would_say_without(
    connection: Connection, behind: bytes, status: int, cause: str
) -> None:
    connection.send(request(Connection="Upgrade", Upgrade="x") + behind)

    assert connection.response()[0] == 200
    answered, _, content = connection.response()
    assert (answered, content["type"]) == (status, f"urn:dunno:{cause}")


def test_target_that_is_no_path_is_not_found(connection: Connection) -> None:
    connection.send(b"OPTIONS * HTTP/1.1\r\nHost: dunno\r\n\r\n")

    assert connection.response()[0] == 404


def test_expectation_that_nobody_knows_is_passed_over(connection: Connection) -> None:
    connection.send(request(Expect="a miracle"))

    assert connection.response()[0] == 200


@pytest.mark.parametrize(
    "path", ["/readyz", "/livez", "/metrics", "/v1/models", "/v2", "/models", "/", "/nothing"]
)
def test_body_that_nobody_reads_ends_with_the_connection(impatient: str, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: dunno\r\nContent-Length: 10000000000\r\n\r\n"
    with closing(Connection(impatient)) as connection:
        connection.send(head.encode())
        assert connection.status_line().split()[1] in (b"200", b"404")

        until(lambda: is_reset(connection, b"x" * 10_000))


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["/predict/fruit", "/v1/models/fruit:predict", "/v2/models/fruit/infer"]
)
def test_body_that_does_not_arrive_ends_the_connection_on_every_route(
    impatient: str, path: str
) -> None:
    with closing(Connection(impatient)) as connection:
        connection.send(request(path=path, Content_Length="100"))

        status, headers, _ = connection.response()

        assert status == 408
        assert headers["connection"] == "close"
        assert connection.is_closed()


def test_caller_that_does_not_read_is_hung_up_on(models: Path) -> None:
    settings = Settings(models=models, write_timeout_ms=200, keep_alive_ms=200)
    rows = b'{"instances": [' + b",".join([b"[0.5, 0.2, 0.1]"] * 4000) + b"]}"
    with Server(settings, HotProtocol) as address, closing(Connection(address)) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.send(*[request(rows)] * 8)

        until(lambda: counted(address, "write_timeout") == 1)


def test_caller_that_reads_slowly_gets_its_answer(models: Path) -> None:
    settings = Settings(models=models, write_timeout_ms=300, keep_alive_ms=100)
    rows = b'{"instances": [' + b",".join([b"[0.5, 0.2, 0.1]"] * 4000) + b"]}"
    with Server(settings, HotProtocol) as address, closing(Connection(address)) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.send(request(rows))
        came = b""
        while piece := connection.socket.recv(30_000):
            came += piece
            time.sleep(0.01)

    head, _, body = came.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head


def test_connection_too_many_is_refused_and_told_when_to_try_again(few: str) -> None:
    held = [Connection(few) for _ in range(3)]
    for connection in held:
        connection.send(request())
        assert connection.response()[0] == 200
    with closing(Connection(few)) as surplus:
        surplus.send(request())

        status, headers, content = surplus.response()

        assert status == 503
        assert headers["retry-after"] == "1"
        assert content["detail"] == "connection limit reached (3)"
        assert surplus.is_closed()
    held[0].send(request())
    assert held[0].response()[0] == 200
    for connection in held:
        connection.close()
    assert httpx.post(f"{few}/predict/fruit", content=BODY).status_code == 200
    assert counted(few, "connections") == 1


def test_probes_are_answered_although_there_are_too_many_connections(few: str) -> None:
    held = [Connection(few) for _ in range(3)]
    for _ in range(RESERVED * 2):
        response = httpx.get(f"{few}/readyz")

        assert response.status_code == 200
        assert response.headers["connection"] == "close"
    for connection in held:
        connection.close()


def test_health_route_of_vertex_ai_is_answered_although_there_are_too_many_connections(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
    settings = Settings(models=models, max_connections=1)
    with Server(settings, HotProtocol) as address, closing(Connection(address)):
        assert httpx.get(f"{address}/vertex/health").status_code == 200
        assert httpx.get(f"{address}/models").status_code == 503


def test_connections_beyond_those_for_probes_are_turned_away_at_once(few: str) -> None:
    held = [Connection(few) for _ in range(3 + RESERVED)]
    with closing(Connection(few)) as surplus:
        assert surplus.response()[0] == 503
        assert surplus.is_closed()
    for connection in held:
        connection.close()
    until(lambda: is_ready(few))


def test_address_with_too_many_connections_is_refused_and_another_is_served(
    models: Path,
) -> None:
    settings = Settings(models=models, max_connections_per_peer=3)
    with Server(settings, HotProtocol) as address:
        held = [Connection(address) for _ in range(3 + RESERVED)]
        with closing(Connection(address)) as surplus:
            status, headers, content = surplus.response()

            assert (status, headers["retry-after"]) == (503, "1")
            assert "DUNNO_MAX_CONNECTIONS_PER_PEER" in str(content["detail"])
            assert surplus.is_closed()
        with closing(Connection(address, from_address="127.0.0.2")) as other:
            other.send(request())
            assert other.response()[0] == 200
        for connection in held:
            connection.close()
        until(lambda: is_ready(address))
        assert counted(address, "connections_of_peer") >= 1


HEAD_OF_CHUNKS = HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(
            b"%x;%b\r\n%b\r\n0\r\n\r\n" % (len(BODY), b"e" * 40_000, BODY), id="extension"
        ),
        pytest.param(
            b"%x\r\n%b\r\n0\r\nX: %b\r\n\r\n" % (len(BODY), BODY, b"t" * 40_000), id="trailer"
        ),
        pytest.param(
            b"".join(b"1;%b\r\n%c\r\n" % (b"e" * 1000, byte) for byte in BODY) + b"0\r\n\r\n",
            id="many extensions",
        ),
    ],
)
def test_extensions_and_trailers_count_although_they_come_with_the_body(
    connection: Connection, sent: bytes
) -> None:
    connection.send(HEAD_OF_CHUNKS + sent)

    status, _, content = connection.response()

    assert (status, content["type"]) == (431, "urn:dunno:header_size")


def test_body_of_many_small_chunks_is_read(connection: Connection) -> None:
    body = BODY + b" " * 20_000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    connection.send(HEAD_OF_CHUNKS + chunks + b"0\r\n\r\n")

    assert connection.response()[0] == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET /readyz HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET /readyz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, id="two hosts"),
        pytest.param(b"GET /readyz HTTP/2.0\r\nHost: a\r\n\r\n", 400, id="HTTP/2"),
        pytest.param(b"GET /readyz RTSP/1.0\r\nHost: a\r\n\r\n", 400, id="RTSP"),
        pytest.param(b"GET /readyz RTSP/1.1\r\nHost: a\r\n\r\n", 400, id="RTSP/1.1"),
        pytest.param(
            b"POST /predict/fruit RTSP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
            400,
            id="RTSP, hot",
        ),
        pytest.param(
            b"GET /readyz RTSP/1.0\r\nHost: a\r\nX: /readyz HTTP/1.1\r\n\r\n",
            400,
            id="RTSP, with a header like HTTP",
        ),
        pytest.param(
            b"GET / RTSP/1.0\r\nHost: a\r\nReferer: http://a/ HTTP/1.1\r\n\r\n",
            400,
            id="RTSP, with a referer like HTTP",
        ),
        pytest.param(b"DESCRIBE /readyz RTSP/1.1\r\nHost: a\r\n\r\n", 400, id="DESCRIBE"),
        pytest.param(b"SOURCE /readyz ICE/1.0\r\nHost: a\r\n\r\n", 400, id="ICE"),
        pytest.param(b"GET /readyz HTTP/1.1\r\nHost: a b\r\n\r\n", 400, id="a host that is none"),
        pytest.param(b"GET /readyz\r\n\r\n", 400, id="no version"),
        pytest.param(b"GET /readyz#a HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="fragment"),
        pytest.param(
            HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, id="gzip, chunked"
        ),
        pytest.param(
            HEAD + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            501,
            id="gzip and chunked",
        ),
        pytest.param(
            b"POST /predict/fruit HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            id="chunked in HTTP/1.0",
        ),
    ],
)
def test_head_that_a_server_must_refuse_ends_the_connection(
    connection: Connection, head: bytes, status: int
) -> None:
    connection.send(head)

    answered, headers, content = connection.response()

    assert (answered, content["type"]) == (status, "urn:dunno:malformed")
    assert headers["connection"] == "close"
    assert connection.is_closed()


def test_request_of_another_protocol_behind_one_of_http_is_refused(connection: Connection) -> None:
    connection.send(READY + b"GET /readyz RTSP/1.0\r\nHost: a\r\n\r\n")

    assert [connection.response()[0] for _ in range(2)] == [200, 400]


@pytest.mark.parametrize("name", ["RTSP/1.0", "RTSP/1.1"])
def test_request_of_another_protocol_that_comes_in_pieces_is_refused(
    connection: Connection, address: str, name: str
) -> None:
    whole = f"GET /readyz {name}\r\nHost: a\r\n\r\n".encode()
    for cut in (5, 14, 20):
        other = Connection(address)
        with closing(other):
            other.send(whole[:cut])
            connection.send(request())  # once it is answered, the first piece was read
            assert connection.response()[0] == 200
            other.send(whole[cut:])

            assert other.response()[0] == 400


@pytest.mark.parametrize("before", [b"", request()], ids=["alone", "behind another"])
@pytest.mark.parametrize("place", ["extension", "last extension", "trailer"])
@pytest.mark.parametrize("http", [GuardedProtocol, HotProtocol], ids=["asgi", "hot"])
def test_limit_of_extensions_and_trailers_is_kept_at_its_default(
    models: Path, http: type[GuardedProtocol], place: str, before: bytes
) -> None:
    size, long = b"%x" % len(BODY), b"x" * 40_000
    extension = b";e=" + long if place == "extension" else b""
    last = b";e=" + long if place == "last extension" else b""
    trailer = b"X: " + long + b"\r\n" if place == "trailer" else b""
    body = size + extension + b"\r\n" + BODY + b"\r\n0" + last + b"\r\n" + trailer + b"\r\n"
    with Server(Settings(models=models), http) as address, closing(Connection(address)) as caller:
        caller.send(before + HEAD_OF_CHUNKS + body)

        statuses = [caller.response()[0] for _ in range(1 + bool(before))]

        assert statuses[-1] == 431


def test_client_of_http_1_0_is_not_told_to_continue(connection: Connection) -> None:
    connection.send(request(version="1.0", Expect="100-continue"))

    assert connection.response()[0] == 200


def test_expectation_with_blanks_behind_it_is_heard(connection: Connection) -> None:
    whole = request(Expect="100-continue ")
    connection.send(whole[: -len(BODY)])

    assert connection.status_line() == b"HTTP/1.1 100 Continue"
    connection.status_line()
    connection.send(BODY)
    assert connection.response()[0] == 200


def test_head_of_an_answer_has_the_length_of_its_body(connection: Connection) -> None:
    connection.send(b"HEAD /models HTTP/1.1\r\nHost: dunno\r\nConnection: close\r\n\r\n")

    assert connection.status_line() == b"HTTP/1.1 200 OK"
    assert int(dict(iter_headers(connection))["content-length"]) > 100
    assert connection.is_closed()


def iter_headers(connection: Connection) -> Iterator[tuple[str, str]]:
    while line := connection.status_line().decode():
        name, _, value = line.partition(": ")
        yield name.lower(), value


def test_page_of_an_allowed_origin_may_read_why_its_request_was_refused(models: Path) -> None:
    settings = Settings(models=models, cors_origins=("https://shop.example",), **SIZES)
    with Server(settings, HotProtocol) as address, closing(Connection(address)) as connection:
        connection.send(request(Origin="https://shop.example", X="x" * 3000))

        status, headers, _ = connection.response()

        assert status == 431
        assert headers["access-control-allow-origin"] == "https://shop.example"


def test_server_that_may_open_no_more_files_goes_on(models: Path) -> None:
    with serving(models) as (process, address), closing(Connection(address)) as kept:
        kept.send(request())
        assert kept.response()[0] == 200
        open_files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_files + 5, hard))

        held = [Connection(address) for _ in range(20)]
        assert held[-1].is_closed()
        kept.send(request())
        assert kept.response()[0] == 200
        for connection in held:
            connection.close()
        until(lambda: is_ready(address))


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_admin_address_has_the_same_limits(
    models: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(admin, "BODY_TIMEOUT_S", 0.1)
    settings = Settings(models=models, admin_port=0, **SIZES)
    with Server(settings, HotProtocol) as address:
        found = re.search(r"admin address (\S+)", caplog.text)
        assert found
        with closing(Connection(found.group(1))) as connection:
            connection.send(b"GET /" + b"x" * 3000)

            assert refused(connection, address, "header_size", 0).startswith("431")
        with closing(Connection(found.group(1))) as connection:
            connection.send(request(path="/reload", Content_Length="100"))

            assert connection.response()[0] == 408


def test_open_connections_are_counted(few: str) -> None:
    def number() -> float:
        lines = httpx.get(f"{few}/metrics").text.splitlines()
        return next(
            float(line.split()[1]) for line in lines if line.startswith("dunno_connections ")
        )

    assert number() == 1  # the scrape's own
    with closing(Connection(few)) as connection:
        connection.send(request())
        assert connection.response()[0] == 200
        assert number() == 2
    until(lambda: number() == 1)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("evil.example.", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost", 200),
        ("LocalHost:8000", 200),
        ("app.localhost", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("dunno", 200),
        ("shop.example", 200),
        ("SHOP.example:80", 200),
    ],
)
@pytest.mark.parametrize("path", ["/predict/fruit", "/models"])
def test_host_that_a_page_of_the_internet_may_have_is_refused_on_loopback(
    models: Path, host: str, status: int, path: str
) -> None:
    settings = Settings(models=models, allowed_hosts=("shop.example",))
    method, body = ("GET", b"") if path == "/models" else ("POST", BODY)
    with Server(settings, HotProtocol) as address, closing(Connection(address)) as connection:
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        found, _, content = connection.response()

        assert found == status
        if status == 421:
            assert content["type"] == "urn:dunno:host"
            assert "DUNNO_ALLOWED_HOSTS" in str(content["detail"])
            assert counted(address, "host") == 1


@pytest.mark.parametrize("chosen", [{"host": "::"}, {"allowed_hosts": ("*",)}], ids=["wide", "any"])
def test_host_is_not_looked_at_unless_it_has_to_be(models: Path, chosen: dict[str, Any]) -> None:
    with Server(Settings(models=models, **chosen), HotProtocol) as address:
        asked = httpx.get(f"{address}/models", headers={"Host": "evil.example"})

    assert asked.status_code == 200


def test_metrics_are_compressed_for_scrapers_that_take_it(few: str) -> None:
    with httpx.Client(base_url=few) as client:
        packed = client.get("/metrics", headers={"Accept-Encoding": "gzip"})
        plain = client.get("/metrics", headers={"Accept-Encoding": "gzip;q=0, identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "accept-encoding"
    assert packed.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(packed.headers["content-length"]) < len(packed.content) / 5
    assert "content-encoding" not in plain.headers
    assert int(plain.headers["content-length"]) == len(plain.content)


MANY_ROWS = b'{"instances": [%b]}' % b",".join([b"[9, 0, 0]"] * 4096)


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> int:
    """Room for unsent answers of less than two requests of many rows, in bytes."""
    room = 1_000_000
    plan = MemoryPlan(100_000_000, 100_000_000, room)
    monkeypatch.setattr("service.api.doorway.plan_process_memory", lambda _: plan)
    return room


def test_caller_who_does_not_read_for_longest_is_hung_up_on_when_room_is_scarce(
    models: Path, little_room: int
) -> None:
    assert little_room < 2_000_000
    with (
        Server(Settings(models=models), HotProtocol) as address,
        contextlib.ExitStack() as unread,
    ):
        for _ in range(4):
            connection = unread.enter_context(closing(slow_reader(address)))
            connection.send(request(MANY_ROWS) * 8)

        until(lambda: counted(address, "unsent_answers") >= 1)
        until(lambda: value_at(address, "dunno_connections") < 5)  # of which one asks for it
        assert httpx.post(f"{address}/predict/fruit", content=MANY_ROWS).status_code == 200


def test_one_answer_may_be_larger_than_all_room(models: Path, little_room: int) -> None:
    del little_room
    rows = b'{"instances": [%b]}' % b",".join([b"[9, 0, 0]"] * 4096)
    with Server(Settings(models=models), HotProtocol) as address:
        answer = httpx.post(f"{address}/predict/fruit?include=best_guess", content=rows)

        assert answer.status_code == 200
        assert len(answer.json()["predictions"]) == 4096
        assert counted(address, "unsent_answers") == 0


def slow_reader(address: str) -> Connection:
    """Return a connection with little room for what is not read, here and in the kernel."""
    connection = Connection(address)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return connection
