"""HTTP by hand: requests as bytes, and what comes back on a socket."""

import json
import socket
from urllib.parse import urlsplit

BODY = b'{"instances": [[0.5, 0.2, 0.1]]}'
PATIENCE_S = 5.0


def request(
    body: bytes = BODY, *, path: str = "/predict/fruit", version: str = "1.1", **headers: str
) -> bytes:
    lines = {
        "Host": "dunno",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + body


class Connection:
    """A socket to the server, and the responses that come back on it."""

    def __init__(self, address: str, *, from_address: str = "") -> None:
        where = urlsplit(address)
        self.socket = socket.create_connection(
            (where.hostname, where.port), PATIENCE_S, (from_address, 0) if from_address else None
        )
        self._file = self.socket.makefile("rb")

    def send(self, *pieces: bytes) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            self.socket.sendall(piece)

    def status_line(self) -> bytes:
        return self._file.readline().rstrip()

    def response(self) -> tuple[int, dict[str, str], dict[str, object]]:
        status = int(self.status_line().split()[1])
        headers = {}
        while line := self._file.readline().rstrip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, json.loads(self._file.read(int(headers["content-length"])))

    def is_closed(self) -> bool:
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self.socket.close()
