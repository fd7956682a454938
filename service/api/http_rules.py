"""What RFC 9112 has a server refuse in the head of a request, and the parser passes."""

import re
from collections.abc import Container, Sequence

_VERSIONS = frozenset({"1.0", "1.1"})
_CLIP = 40
_is_host = re.compile(
    rb"(\[[0-9A-Za-z:.%_-]*\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?[ \t]*"
).fullmatch


class Refused(Exception):
    """The connection ends here; carries what its client is told."""

    def __init__(self, status: int, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.cause = cause
        self.detail = detail


def check_head(version: str, target: bytes, hosts: int, codings: Sequence[bytes]) -> None:
    """See that the head of a request is one of HTTP/1.1 or HTTP/1.0.

    Args:
        version: of the request line.
        target: of the request line.
        hosts: how many Host headers there are.
        codings: values of Transfer-Encoding headers.

    Raises:
        Refused: with 400 if it is malformed, with 501 for a coding that is not known.
    """
    if version not in _VERSIONS:
        raise _malformed(f"expected HTTP/1.1 or HTTP/1.0, got version {version}")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise _malformed(f"expected one Host header, got {hosts}")
    if b"#" in target:
        raise _malformed("expected a target without a fragment, got one with '#'")
    if codings:
        _check_codings(version, codings)


def check_name(method: bytes, target: bytes, came: bytes, start: int) -> int:
    """Check that a request is one of HTTP: the parser also passes RTSP and ICE.

    Args:
        method: of the request line.
        target: of the request line.
        came: what arrived since the first byte of the head, at least.
        start: where in `came` the request line is looked for: after that of the request before.

    Returns:
        Where the target ends in `came`.

    Raises:
        Refused: with 400.
    """
    line = b"%b %b" % (method, target)
    at = came.find(line + b" HTTP/1.", start)
    if at < 0:
        found = came[max(0, came.find(line, start)) :].partition(b"\r")[0]
        got = found[len(line) :].strip()[:_CLIP].decode("latin-1")
        raise _malformed(f"expected HTTP/1.1 or HTTP/1.0 behind one blank, got {got!r}")
    return at + len(line)


def check_host(value: bytes) -> None:
    """See that a Host header holds the name or the address of a host, and a port if any.

    Raises:
        Refused: with 400.
    """
    if not _is_host(value):
        got = value[:_CLIP].decode("latin-1")
        raise _malformed(f"expected a host and its port in the Host header, got {got!r}")


def is_safe_host(value: bytes, allowed: Container[bytes]) -> bool:
    """Return whether a Host header is safe against DNS rebinding.

    An attacker's host name can resolve to this machine. The browser then lets the attacker's page
    read our answers. IP addresses and names without a dot cannot be used for this.

    Args:
        value: of a Host header that is sound.
        allowed: other host names that are safe, in lower case.
    """
    host = _without_port(value.strip().lower()).removesuffix(b".")
    is_address = host.startswith(b"[") or host.rpartition(b".")[2].isdigit()
    is_ours = b"." not in host or host.endswith(b".localhost") or host in allowed
    return is_address or is_ours


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    return name if colon and (not port or port.isdigit()) else host


def _check_codings(version: str, codings: Sequence[bytes]) -> None:
    if version == "1.0":
        raise _malformed("expected no Transfer-Encoding in a request of HTTP/1.0, got one")
    coding = b", ".join(codings).strip().lower()
    if coding != b"chunked":
        got = coding[:_CLIP].decode("latin-1")
        raise Refused(501, "malformed", f"expected Transfer-Encoding: chunked, got {got!r}")


def _malformed(detail: str) -> Refused:
    return Refused(400, "malformed", detail)
