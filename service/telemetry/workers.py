"""Metrics of all worker processes, whichever of them is asked.

Behind one port a scrape reaches any worker. It asks the others, each on a Unix socket in a folder
that only this server's user may enter, and returns all their series, told apart by the label
`worker`. Nothing is added up: a worker that is replaced begins at 0, and `rate()` understands that
of a series, but not of a sum.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.telemetry.exposition import FORMATS, TEXT, Format
from service.telemetry.metrics import Metrics

FOLDER = "DUNNO_WORKERS_FOLDER"
"""Environment variable that the parent process sets for its workers."""

_END = b"# EOF\n"  # of an exposition in OpenMetrics

PATIENCE_S = 0.5
"""So long a worker may take to tell its series; one that is late is left out of this scrape."""

log = logging.getLogger(__name__)


class Workers:
    """The worker processes of this server, seen from one of them."""

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self._folder = folder
        self._metrics = metrics
        self.number, self._claim = _claim_number(folder)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to tell the others; where that is not to be, this worker is left out of scrapes."""
        path = self._socket_of(self.number)
        try:
            path.unlink(missing_ok=True)  # of the worker that had the number before
            self._server = await asyncio.start_unix_server(self._tell, path)
        except OSError as error:  # a full disk is no reason not to answer
            log.error("other workers cannot see these metrics", extra={"detail": str(error)})  # noqa: TRY400

    async def close(self) -> None:
        """Stop telling the others."""
        if self._server is not None:
            self._server.close()
        self.release()

    def release(self) -> None:
        """Let another worker have the number; the end of the process does as well."""
        os.close(self._claim)

    async def exposition(self, form: Format = TEXT) -> bytes:
        """Return the series of all workers as a scrape wants them written."""
        others = sorted(set(self._folder.glob("*.socket")) - {self._socket_of(self.number)})
        told = await asyncio.gather(*(_ask(path, form) for path in others))
        return merged([await self._own(form), *told])

    async def _own(self, form: Format) -> bytes:
        labelled = _Labelled(self._metrics, str(self.number))
        return await asyncio.to_thread(form.write, labelled)

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        form = FORMATS[(await reader.readline()).decode().strip()]
        writer.write(await self._own(form))
        await writer.drain()
        writer.close()

    def _socket_of(self, number: int) -> Path:
        return self._folder / f"{number}.socket"


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


async def _ask(path: Path, form: Format) -> bytes:
    """Return the exposition of another worker; nothing if it does not answer."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(f"{form.name}\n".encode())
            told = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return b""
    return told


def _claim_number(folder: Path) -> tuple[int, int]:
    """Return the least number that no living worker has, and the file that holds the claim."""
    number = 0
    while True:
        claim = os.open(folder / f"{number}.lock", os.O_CREAT | os.O_RDONLY, 0o600)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(claim)
            number += 1
        else:
            return number, claim
