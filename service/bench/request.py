"""The one request that a load repeats, as bytes, and what the server says to it once."""

import http.client
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from service.bench.failures import BenchFailed

_is_header = re.compile(r"[A-Za-z0-9-]+: *[\x21-\x7e][\x20-\x7e]*").fullmatch

PATIENCE_S = 10.0
"""Longest wait for the first answer, which may have to load or compile something."""


@dataclass(frozen=True, slots=True)
class Request:
    """Where to connect and what to send there, again and again."""

    url: str
    host: str
    port: int
    content: bytes


class Sample(NamedTuple):
    """An answer read in full."""

    status: int
    body: bytes


def build_request(
    url: str, body: bytes | None, content_type: str, headers: Sequence[str] = ()
) -> Request:
    """Return the request as bytes: POST with a body, GET without one.

    Args:
        url: where to.
        body: of the request, or None.
        content_type: of the body.
        headers: more lines, such as `X-API-Key: …`.

    Raises:
        BenchFailed: if the address is no plain `http://` address, or a header is none.
    """
    for line in headers:
        if not _is_header(line):
            raise BenchFailed(f"expected a header such as 'X-API-Key: …', got {line!r}")
    try:
        where = urlsplit(url)
        port = where.port or 80
    except ValueError as error:
        raise BenchFailed(f"{url}: {error}") from None
    if where.scheme != "http" or not where.hostname:
        raise BenchFailed(f"{url}: expected an address such as http://127.0.0.1:8000/predict/name")
    target = (where.path or "/") + (f"?{where.query}" if where.query else "")
    host = where.netloc.rpartition("@")[2]
    lines = [f"{'GET' if body is None else 'POST'} {target} HTTP/1.1", f"Host: {host}"]
    lines += headers
    if body is not None:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    try:
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
    except UnicodeEncodeError:
        raise BenchFailed(f"{url}: expected an address in ASCII, percent-encoded") from None
    return Request(url, where.hostname, port, head + (body or b""))


def ask_once(request: Request) -> Sample:
    """Return the answer to the request on a connection of its own, by Python's own client.

    Raises:
        BenchFailed: if there is no server, or no HTTP answer in `PATIENCE_S`.
    """
    connection = http.client.HTTPConnection(request.host, request.port, timeout=PATIENCE_S)
    try:
        connection.connect()
        connection.sock.sendall(request.content)
        with http.client.HTTPResponse(connection.sock) as response:
            response.begin()
            return Sample(response.status, response.read())
    except TimeoutError:
        raise BenchFailed(f"{request.url}: no answer in {PATIENCE_S:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        raise BenchFailed(f"{request.url}: {_one_line(reason)}") from None
    finally:
        connection.close()


def check_request(request: Request) -> None:
    """Ask once, so that no load is spent on a request that the server refuses.

    Raises:
        BenchFailed: as `ask_once`, and if the answer is not 2xx, with its first words.
    """
    status, body = ask_once(request)
    if not 200 <= status < 300:
        words = _one_line(body[:200].decode(errors="replace"))
        raise BenchFailed(f"{request.url}: the server answers {status} to this request: {words}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
