"""Sockets of the addresses that the server listens on, bound before models are loaded."""

import errno
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, TypeAlias

from service.settings import SettingsInvalid

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""Errors for an address that this machine does not have, such as one of IPv6 without IPv6."""

ADVICE = {
    errno.EADDRINUSE: "; stop the other server or set another port",
    errno.EADDRNOTAVAIL: "; set an address of this machine",
    errno.EAFNOSUPPORT: "; this machine has no IPv6: set an IPv4 address, such as 0.0.0.0",
    errno.EACCES: "; set a port of 1024 or above",
}


class Listener(socket.socket):
    """A bound address. A process that receives this object gets a socket of its own.

    With one socket for all, the worker that wakes first takes every connection that waits: of 64
    opened at once one of two workers got 45 to 58. For sockets that share a port (Linux, option
    SO_REUSEPORT) the kernel deals connections out by their addresses.
    """

    def __reduce__(self) -> tuple[Callable[["Place"], socket.socket], tuple["Place"]]:
        """Return the call that makes the socket of another process."""
        return listener_at, (place_of(self),)


class Place(NamedTuple):
    """Where a socket is bound."""

    family: socket.AddressFamily
    address: Address
    has_ipv4: bool
    """Whether a socket of IPv6 takes connections of IPv4 as well."""


def place_of(bound: socket.socket) -> Place:
    """Return where a socket is bound."""
    is_ipv6 = bound.family == socket.AF_INET6
    has_ipv4 = is_ipv6 and not bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return Place(bound.family, bound.getsockname(), has_ipv4)


def listener_at(place: Place) -> socket.socket:
    """Return a socket of a worker; other sockets of this user may share its address."""
    return _bound(Listener, place, is_alone=False)


def take(setting: str, host: str, port: int) -> list[socket.socket]:
    """Return sockets bound to an address, which no other server can bind then.

    They do not listen yet: until the server is ready, connections are refused.

    Args:
        setting: DUNNO, DUNNO_METRICS or DUNNO_ADMIN, for the error.
        host: an address, or a name, which may have several addresses.
        port: 0 for a free one.

    Raises:
        SettingsInvalid: if the address cannot be bound.
    """
    return _all_of(setting, host, port, partial(_bound, socket.socket, is_alone=True))


def share(taken: Iterable[socket.socket]) -> list[socket.socket]:
    """Return sockets that the parent holds for its workers, in place of those that were taken."""
    if sys.platform != "linux":
        return list(taken)
    shared: list[socket.socket] = []
    for each in taken:
        place = place_of(each)
        each.close()
        shared.append(_bound(Listener, place, is_alone=True))
    return shared


def join(setting: str, host: str, port: int) -> list[socket.socket]:
    """Return sockets of a worker for an address that its parent holds.

    Raises:
        SettingsInvalid: if the address cannot be bound.
    """
    return _all_of(setting, host, port, partial(_bound, Listener, is_alone=False))


def let_listen(sockets: Iterable[socket.socket]) -> None:
    """Prepare sockets for listening, right before it."""
    for each in sockets:
        # Else closed connections of the last server, which linger for a minute, keep the port.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def shown(bound: socket.socket) -> str:
    """Return the host and the port of a socket as a URL has them."""
    host, port = bound.getsockname()[:2]
    return f"{_bracketed(host)}:{port}"


def _all_of(
    setting: str, host: str, port: int, bind: Callable[[Place], socket.socket]
) -> list[socket.socket]:
    """Return a socket for each address of a host that this machine has."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for place in _places(host, port):
            if sockets:  # a name with several addresses gets the same free port on each
                address = (place.address[0], sockets[0].getsockname()[1], *place.address[2:])
                place = place._replace(address=address)  # noqa: PLW2901
            try:
                sockets.append(bind(place))
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except (OSError, UnicodeError) as error:
        for each in sockets:
            each.close()
        where = f"{setting}_HOST, {setting}_PORT: cannot listen on {_bracketed(host)}:{port}"
        raise SettingsInvalid(f"{where}: {_reason(host, error)}") from None
    return sockets


def _places(host: str, port: int) -> list[Place]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found = dict.fromkeys((family, address) for family, *_, address in infos)
    is_alone = len(found) == 1  # else IPv4 has an address of its own
    return [Place(*each, has_ipv4=is_alone and _is_dual(str(each[1][0]))) for each in found]


def _is_dual(host: str) -> bool:
    return host == "::" or host.startswith("::ffff:")


def _bound(kind: type[socket.socket], place: Place, *, is_alone: bool) -> socket.socket:
    bound = kind(place.family)
    try:
        if kind is Listener:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if place.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not place.has_ipv4)
        if is_alone:
            _bind_alone(bound, place.address)
        else:
            let_listen([bound])
            bound.bind(place.address)
    except OSError:
        bound.close()
        raise
    return bound


def _bind_alone(bound: socket.socket, address: Address) -> None:
    """Bind a socket so that other servers are refused even before this one listens.

    Two sockets with SO_REUSEADDR can have the same address while neither listens. Without the
    option, connections of a server that has just stopped, which linger for a minute, are in the
    way; with it for a moment they are not.
    """
    try:
        bound.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _reason(host: str, error: OSError | UnicodeError) -> str:
    if host.startswith("["):
        return "write an IPv6 address without brackets"
    if isinstance(error, socket.gaierror | UnicodeError):
        said = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
        return f"{said}; set an address of this machine, such as 127.0.0.1, 0.0.0.0 or ::"
    return f"{error.strerror}{ADVICE.get(error.errno or 0, '')}"
