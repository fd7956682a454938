"""A server that answers whoever it has let in: uvicorn's drops what waits to be accepted."""

import array
import asyncio
import os
import select
import socket
import struct
import sys
from collections.abc import Iterable

import uvicorn
from uvicorn.supervisors.multiprocess import Process

MOST_LOOKS = 1000
QUIET_LOOKS = 5
"""So many times in a row nothing waits before the server stops to listen: by then, connections that
are being made have sent their last packet."""

LOOK_EVERY_S = 0.001

_SO_ATTACH_FILTER = 26  # Linux; Python has no name for it
_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x54, 0, 0, 0x12),  # of these, SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # drop the packet
        (0x06, 0, 0, 0xFFFF_FFFF),  # take it
    )
)
"""A program of the classic packet filter: drops what asks for a new connection, and takes the rest
of those that are being made."""


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which accepts every connection that was made before it stops to listen."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, accept those that wait, and go on as uvicorn does.

        Clients whose connections wait in the kernel's queue may have sent a request already. The
        kernel resets these connections when the listening socket is closed.
        """
        descriptors = [each.fileno() for server in self.servers for each in server.sockets]
        for descriptor in descriptors:
            drop_new_connections(descriptor)
        quiet = 0
        for _ in range(MOST_LOOKS):
            quiet = 0 if has_waiting(descriptors) else quiet + 1
            if quiet == QUIET_LOOKS:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        await super().shutdown(sockets)


class WorkerProcess(Process):
    """A worker process of such a server."""

    @property
    def server(self) -> uvicorn.Server:
        """The server of this process, made when it is first asked for."""
        if self._server is None:
            self._server = DrainingServer(self.config)
        return self._server


def drop_new_connections(descriptor: int) -> None:
    """Let the kernel drop what asks to connect to a listening socket; clients try again.

    Without it the queue could fill again between the last `accept` and `close`. Where the system
    has no such filter, that moment remains.
    """
    if sys.platform != "linux":
        return
    program = array.array("B", _DROP_SYN)
    address, _ = program.buffer_info()
    instructions = len(_DROP_SYN) // 8
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        try:
            listening.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", instructions, address)
            )
        except OSError:
            return  # a container may forbid it


def has_waiting(descriptors: Iterable[int]) -> bool:
    """Tell whether a connection waits to be accepted."""
    waiting = select.poll()
    for descriptor in descriptors:
        waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))
