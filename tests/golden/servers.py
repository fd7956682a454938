"""The servers that requests are recorded of, and what is recorded of an answer."""

import contextlib
import json
import re
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import Server
from connections import Connection
from golden.cases import Case, cases
from keys import write_keys
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from waiting import wait_for

from service.api.guarded import GuardedProtocol
from service.api.hotpath import HotProtocol
from service.settings import Settings

DOORS = {"ways of all requests": GuardedProtocol, "shortcut": HotProtocol}
ANSWERS = Path(__file__).parent / "answers"
PATIENCE_S = 10.0
SMALL: dict[str, Any] = {
    "max_body_bytes": 4000,
    "max_request_rows": 20,
    "max_header_bytes": 2000,
    "max_headers": 20,
    "header_timeout_ms": 200,
    "body_timeout_ms": 200,
}
SERVERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "open": lambda _: {},
    "fresh": lambda _: {},
    "small": lambda _: SMALL,
    "keyed": lambda folder: {"keys": write_keys(folder)},
    "cloud": lambda _: {"default_model": "fruit"},
    "full": lambda _: {"max_connections": 1},
    "shop": lambda _: {"cors_origins": ("https://shop.example",)},
    "admin": lambda _: {"admin_port": free_port()},
}
_POLICY_ID = re.compile(r'("id": "\w+)-[0-9a-f]{6}"')
"""Hashes of bundle files, which differ between Python's minor releases (padding of `.npz`)."""

VERTEX = {"AIP_PREDICT_ROUTE": "/vertex/predict", "AIP_HEALTH_ROUTE": "/vertex/health"}


def record(
    server: str, door: type[HttpToolsProtocol], models: Path, folder: Path
) -> dict[str, str]:
    """Return what a server answers to its requests, by their names."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in VERTEX.items():
            patch.setenv(name, value if server == "cloud" else "")
        settings = Settings(models=models, **SERVERS[server](folder))
        address = stack.enter_context(Server(settings, door))
        if settings.admin_port is not None:
            address = f"http://127.0.0.1:{settings.admin_port}"
            wait_for(lambda: listens(address))
        if server == "full":
            stack.enter_context(closing(Connection(address)))
        return {
            each.name: shown(answer(address, each)) for each in cases() if each.server == server
        }


def free_port() -> int:
    """Return a TCP port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def listens(address: str) -> bool:
    """Return whether a server accepts connections at an address."""
    where = urlsplit(address)
    with contextlib.suppress(ConnectionError):
        socket.create_connection((where.hostname, where.port), PATIENCE_S).close()
        return True
    return False


def answer(address: str, asked: Case) -> bytes:
    """Return all bytes that come until the connection ends."""
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port), PATIENCE_S) as connection:
        connection.sendall(asked.sent)
        came = b""
        while piece := connection.recv(65_536):
            came += piece
    return came


def shown(came: bytes) -> str:
    """Return an answer as it is recorded: without what changes from run to run."""
    head, _, body = came.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    kept = (pair for pair in pairs if pair[0] not in {"date", "server"})
    told = sorted(f"{name}: {_masked(name, value, body)}" for name, value in kept)
    return "\n".join([status, *told, "", *_body(dict(pairs), body)])


def _masked(name: str, value: str, body: bytes) -> str:
    if name == "content-length" and value == str(len(body)):
        return "that of the body"
    if name == "etag":
        return "*"
    if name == "server-timing":
        return re.sub(r"[\d.]+", "*", value)
    return value if name != "x-request-id" or value == "golden" else "*"


def _body(headers: dict[str, str], body: bytes) -> list[str]:
    kind = headers.get("content-type", "")
    if not body:
        return []
    if kind.startswith("text/plain; version="):
        return _series(body.decode())
    if "inference-header-content-length" in headers:
        length = int(headers["inference-header-content-length"])
        return [*_json(body[:length]), *_floats(body[length:])]
    if "json" in kind:
        return _json(body)
    return body.decode("utf-8", "backslashreplace").splitlines()


def _json(body: bytes) -> list[str]:
    content = _rounded(json.loads(body))
    if isinstance(content, dict) and content.get("request_id") not in (None, "golden"):
        content["request_id"] = "*"
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return _POLICY_ID.sub(r'\1-*"', text).splitlines()


def _rounded(value: Any) -> Any:
    """Return numbers with four decimals: processors differ in the last bits."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return value


def _floats(body: bytes) -> list[str]:
    numbers = struct.unpack(f"<{len(body) // 4}f", body)
    return [" ".join(f"{number:.4f}" for number in numbers)]


def _series(text: str) -> list[str]:
    """Return names, labels and explanations of metrics, without their values."""
    lines = [
        line if line.startswith("#") else line.rpartition(" ")[0] for line in text.splitlines()
    ]
    facts = re.compile(r'(version|commit|python|onnxruntime|tensorflow|implementation|major|minor'
                       r'|patchlevel|sha256|policy)="[^"]*"')  # fmt: skip
    kept = (facts.sub(r'\1="*"', line) for line in lines)
    return [line for line in kept if not re.match(r"(# \w+ )?(process|python)_", line)]
