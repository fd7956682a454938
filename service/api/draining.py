"""A server that answers whoever it has let in: uvicorn's drops what waits to be accepted."""

import asyncio
import contextlib
import os
import select
import socket
import struct
import sys
from collections.abc import Iterable

import uvicorn
from uvicorn.supervisors.multiprocess import Process

from service.leaving import sigterm_ends

MOST_LOOKS = 1000
QUIET_LOOKS = 5
"""So many times in a row nothing waits before the server stops to listen: by then, connections that
are being made have sent their last packet."""

LOOK_EVERY_S = 0.001

_SO_BINDTOIFINDEX = 62  # Linux; Python has no name for it
_NO_INTERFACE = struct.pack("i", 2**31 - 1)


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which accepts every connection that was made before it stops to listen."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, accept those that wait, and go on as uvicorn does.

        Clients whose connections wait in the kernel's queue may have sent a request already. The
        kernel resets these connections when the listening socket is closed.
        """
        descriptors = [each.fileno() for server in self.servers for each in server.sockets]
        for descriptor in descriptors:
            refuse_new_connections(descriptor)
        quiet = 0
        for _ in range(MOST_LOOKS):
            quiet = 0 if has_waiting(descriptors) else quiet + 1
            if quiet == QUIET_LOOKS:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        await super().shutdown(sockets)


class WorkerServer(DrainingServer):
    """The server of a worker process."""

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the models, then serve.

        uvicorn loads the app after it has captured signals, so that SIGTERM had to wait for the end
        of a load. A load may hang.
        """
        with sigterm_ends():
            self.config.load()
        super().run(sockets)


class WorkerProcess(Process):
    """A worker process of such a server."""

    @property
    def server(self) -> uvicorn.Server:
        """The server of this process, made when it is first asked for."""
        if self._server is None:
            self._server = WorkerServer(self.config)
        return self._server


def refuse_new_connections(descriptor: int) -> None:
    """Let the kernel refuse new connections of a listening socket; those that wait stay.

    Without it the queue could fill again between the last `accept` and `close`. The socket is bound
    to a network interface that there is not, which takes no rights (Linux 5.7). Where the system
    cannot do it, that moment remains.
    """
    if sys.platform != "linux":
        return
    with socket.socket(fileno=os.dup(descriptor)) as listening, contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)


def has_waiting(descriptors: Iterable[int]) -> bool:
    """Tell whether a connection waits to be accepted."""
    waiting = select.poll()
    for descriptor in descriptors:
        waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))
