"""One address, a listening socket for each worker process, connections dealt out by the kernel."""

import socket
import sys
from collections.abc import Callable


class Listener(socket.socket):
    """A bound address; whoever gets it in another process gets a socket of his own there.

    With one socket for all, the worker that wakes first takes every connection that waits: of 64
    opened at once one of two workers got 45 to 58. For sockets that share a port (Linux, option
    SO_REUSEPORT) the kernel deals connections out by their addresses.
    """

    def __reduce__(self) -> tuple[Callable[..., "Listener"], tuple[object, ...]]:
        """Return what a process has to call to have its own."""
        return listener_at, (self.family, self.getsockname())


def listener_at(family: socket.AddressFamily, address: tuple[str, int]) -> Listener:
    """Return a new socket bound to an address that others of this user may be bound to as well."""
    listener = Listener(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(address)
    return listener


def for_workers(bound: socket.socket) -> socket.socket:
    """Return what worker processes shall listen on in place of a socket bound for one process.

    That one proves that nobody else has the address, and is closed.
    """
    if sys.platform != "linux":
        return bound
    family, address = bound.family, bound.getsockname()
    bound.close()
    return listener_at(family, address)
