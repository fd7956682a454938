"""What happens on connections from the moment that the server is told to stop."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from connections import Connection, request
from many_callers import serving
from waiting import wait_for

from service.api.draining import has_waiting, refuse_new_connections

ROOT = Path(__file__).parents[2]
GET = b"GET /models HTTP/1.1\r\nHost: dunno\r\n\r\n"


@pytest.fixture
def stopping(models: Path) -> Iterator[tuple["subprocess.Popen[str]", Connection]]:
    """A server that was told to stop and goes on for a while, and a connection from before."""
    os.environ["DUNNO_STOP_DELAY_MS"] = "3000"
    try:
        with serving(models) as (process, address), closing(Connection(address)) as connection:
            connection.send(request())
            assert "connection" not in connection.response()[1]
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: not is_ready(address))
            yield process, connection
    finally:
        del os.environ["DUNNO_STOP_DELAY_MS"]


def is_ready(address: str) -> bool:
    with closing(Connection(address)) as connection:
        connection.send(b"GET /readyz HTTP/1.1\r\nHost: dunno\r\nConnection: close\r\n\r\n")
        return connection.status_line().endswith(b"200 OK")


@pytest.mark.parametrize("asked", [request(), GET], ids=["fast path", "other routes"])
def test_every_answer_after_sigterm_says_that_the_connection_closes(
    stopping: tuple["subprocess.Popen[str]", Connection], asked: bytes
) -> None:
    _, connection = stopping
    connection.send(asked)

    status, headers, _ = connection.response()

    assert (status, headers["connection"]) == (200, "close")
    assert connection.is_closed()


def test_requests_that_wait_behind_each_other_are_all_answered_after_sigterm(
    stopping: tuple["subprocess.Popen[str]", Connection],
) -> None:
    _, connection = stopping
    connection.send(request() + GET + request())

    answers = [connection.response() for _ in range(3)]

    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert ["connection" in headers for _, headers, _ in answers] == [False, False, True]


def test_new_connection_is_answered_as_long_as_the_server_listens(
    stopping: tuple["subprocess.Popen[str]", Connection],
) -> None:
    process, connection = stopping
    host, port = connection.socket.getpeername()
    with closing(Connection(f"http://{host}:{port}")) as other:
        other.send(request())

        assert other.response()[0] == 200
    assert process.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="an option of Linux")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connection_that_waits_is_accepted_and_later_ones_are_refused(host: str) -> None:
    with listening_at(host) as listening:
        address = listening.getsockname()[:2]
        with socket.create_connection(address) as waiting:
            refuse_new_connections(listening.fileno())

            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            assert has_waiting([listening.fileno()])
            accepted, _ = listening.accept()
            with accepted:
                waiting.sendall(b"asked")
                assert accepted.recv(5) == b"asked"
                accepted.sendall(b"answered")
                assert waiting.recv(8) == b"answered"
            assert not has_waiting([listening.fileno()])


def listening_at(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6")


def test_connection_without_a_request_gets_its_answer_although_the_server_drains(
    models: Path,
) -> None:
    with serving(models) as (process, address), closing(Connection(address)) as connection:
        wait_for(lambda: is_ready(address))
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(address))
        connection.send(request())

        status, headers, _ = connection.response()

        assert (status, headers["connection"]) == (200, "close")


def listens(address: str) -> bool:
    where = urlsplit(address)
    try:
        socket.create_connection((where.hostname, where.port)).close()
    except ConnectionError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_clients_that_keep_connections_open_lose_no_request_when_servers_stop(
    workers: str,
) -> None:
    done = subprocess.run(  # noqa: S603  our own command
        [sys.executable, "load_tests/stops.py", "--stops", "3", "--workers", workers],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost none" in done.stdout
