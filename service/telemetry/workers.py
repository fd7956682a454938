"""Metrics of all worker processes, whichever of them is asked.

Behind one port a scrape reaches any worker. It asks the others, each on an abstract Unix socket
(Linux: a name without a file, which ends with its process), and returns all their series, told
apart by the label `worker`. Nothing is added up: a worker that is replaced begins at 0, and
`rate()` understands that of a series, but not of a sum.
"""

import asyncio
import errno
import logging
import os
import secrets
import socket
import struct
import sys
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.telemetry.exposition import FORMATS, TEXT, Format
from service.telemetry.metrics import Metrics

RUN = "DUNNO_WORKERS_RUN"
"""Environment variable in which the parent process passes the name of the run to its workers."""

_END = b"# EOF\n"  # of an exposition in OpenMetrics

PATIENCE_S = 0.5
"""So long a worker may take to tell its series; one that is late is left out of this scrape."""

_CREDENTIALS = struct.Struct("3i")  # process id, user id, group id

log = logging.getLogger(__name__)


def new_run() -> str:
    """Return a random name, different from that of any other server on this machine."""
    return secrets.token_hex(16)


class Workers:
    """The worker processes of this server, seen from one of them."""

    def __init__(self, run: str, workers: int, metrics: Metrics) -> None:
        """Take the least number that no living worker has.

        Args:
            run: the same for all workers of a server.
            workers: how many there are, as a rule; uvicorn starts one more for each SIGTTIN.
            metrics: of this worker.
        """
        self._run = run
        self._workers = workers
        self._metrics = metrics
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self.number = os.getpid()
        if sys.platform == "linux":
            self.number, self._socket = _claim_number(run)

    async def start(self) -> None:
        """Start to answer other workers that ask for metrics."""
        if self._socket is None:
            log.warning("metrics of other workers are told on Linux only")
        else:
            self._server = await asyncio.start_unix_server(self._tell, sock=self._socket)

    async def close(self) -> None:
        """Stop telling the others."""
        if self._server is not None:
            self._server.close()
        self.release()

    def release(self) -> None:
        """Let another worker have the number; the end of the process does as well."""
        if self._socket is not None:
            self._socket.close()

    async def exposition(self, form: Format = TEXT) -> bytes:
        """Return the series of all workers as a scrape wants them written."""
        others = [number for number in range(self._workers) if number != self.number]
        told = await asyncio.gather(*(self._ask(number, form) for number in others))
        series = [await self._own(form), *told]
        number = self._workers
        while number == self.number or (more := await self._ask(number, form)):
            if number != self.number:
                series.append(more)
            number += 1
        return merged(series)

    async def _own(self, form: Format) -> bytes:
        labelled = _Labelled(self._metrics, str(self.number))
        return await asyncio.to_thread(form.write, labelled)

    async def _ask(self, number: int, form: Format) -> bytes:
        """Return the metrics of another worker; empty if it does not answer."""
        if self._socket is None:
            return b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await _told(_name(self._run, number), form)
        except ConnectionRefusedError:  # there is no such worker, or not yet
            return b""
        except (OSError, TimeoutError) as error:
            told = {"worker": number, "detail": str(error) or "it is late"}
            log.warning("a worker does not tell its metrics", extra=told)
            return b""

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if _is_ours(writer.get_extra_info("socket")):
            form = FORMATS.get((await reader.readline()).decode("ascii", "replace").strip(), TEXT)
            writer.write(await self._own(form))
            await writer.drain()
        writer.close()


class _Labelled(Collector):
    """A registry whose samples carry the number of the worker."""

    def __init__(self, metrics: Metrics, number: str) -> None:
        self._metrics = metrics
        self._number = number

    def collect(self) -> Iterable[Metric]:
        """Yield all series; see prometheus_client."""
        for metric in self._metrics.registry.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, "worker": self._number})
                for sample in metric.samples
            ]
            yield metric


def merged(expositions: Iterable[bytes]) -> bytes:
    """Return several expositions as one: each family once, with the samples of all."""
    heads: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    end = b""
    for exposition in expositions:
        family = b""
        for line in exposition.splitlines(keepends=True):
            if line.startswith(b"# HELP "):
                family = line.split(b" ", 3)[2]
                heads.setdefault(family, [])
                samples.setdefault(family, [])
            if line == _END:
                end = _END
            elif not line.startswith(b"#"):
                samples[family].append(line)
            elif line not in heads[family]:
                heads[family].append(line)
    families = (b"".join(heads[family] + samples[family]) for family in heads)
    return b"".join(families) + end


async def _told(name: str, form: Format) -> bytes:
    """Return the metrics of the worker that has this socket name."""
    asking = socket.socket(socket.AF_UNIX)
    try:
        asking.setblocking(False)
        asking.connect(name)  # uvloop takes no abstract name
        if not _is_ours(asking):
            message = "another user has its socket"
            raise PermissionError(message)  # noqa: TRY301  closed like after other errors
        reader, writer = await asyncio.open_unix_connection(sock=asking)
    except BaseException:
        asking.close()
        raise
    try:
        writer.write(f"{form.name}\n".encode())
        return await reader.read()
    finally:
        writer.close()


def _claim_number(run: str) -> tuple[int, socket.socket]:
    """Return the least number that no living worker has, and the socket that is the claim."""
    number = 0
    while True:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(_name(run, number))
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
            number += 1
        else:
            return number, claim


def _name(run: str, number: int) -> str:
    """Return the name of a worker's socket; the first character makes it abstract."""
    return f"\0dunno-{run}-{number}"


def _is_ours(connected: socket.socket) -> bool:
    """Return whether the peer runs as our user: any user can connect to an abstract socket."""
    told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(told)
    return bool(user == os.geteuid())
