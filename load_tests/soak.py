"""A million requests of every kind: does the server's memory stay where it was?

Starts a server of its own and lets `--callers` connections ask it as fast as it answers: JSON, PNG,
CSV, text, v1, v2, many rows, terms that nobody else has, bodies and names that are wrong; now and
then a connection is closed and another one opened. Each request has an id of its own and the status
of each answer is looked at. Memory, file descriptors and threads are read from /proc every
`--every` requests. Exits 1 if a status was another than expected, if after the first `--warm`
requests resident memory has grown by 2 % or more, or if there are more file descriptors or threads
than then.

    python load_tests/soak.py --requests 1000000
"""

import argparse
import asyncio
import collections
import io
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop
from chaos import State, state_of
from many_callers import RUBBISH, questions, serving
from PIL import Image

from service.bench.response import AnswerReader
from service.bundle.manifest import FeatureInput
from service.prediction.catalogue import find_bundles, read_catalogue

MOST_GROWTH = 0.02
POINTS = 12
"""Rows of the printed table."""

STAYS = 0.998
"""Share of answers after which a connection is kept."""

QUIET_S = 2.0


class Request(NamedTuple):
    """What is asked, and the status it should have."""

    kind: str
    path: str
    content_type: str
    body: bytes
    status: int
    weight: float = 1.0


@dataclass
class Soak:
    """What is asked, and what came of it."""

    port: int
    requests: list[Request]
    process: Any
    every: int
    asked: int = 0
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    curve: dict[int, State] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._rng = random.Random(7)
        self._weights = list(itertools.accumulate(each.weight for each in self.requests))
        self._until = 0

    def next(self) -> tuple[Request, bytes] | None:
        """Return a request and its bytes; None if enough was asked."""
        if self.asked >= self._until:
            return None
        self.asked += 1
        if self.asked % self.every == 0:
            self.curve[self.asked] = state = state_of(self.process)
            print(f"{self.asked:,}: {state}", file=sys.stderr)
        (request,) = self._rng.choices(self.requests, cum_weights=self._weights)
        terms = ""
        if request.kind == "JSON, own terms":
            terms = f"?min_confidence={self._rng.uniform(0.99, 1):.12f}"
        path = request.path.replace("NOBODY", f"nobody-{self.asked}") + terms
        head = (
            f"POST {path} HTTP/1.1\r\nHost: dunno\r\nContent-Type: {request.content_type}\r\n"
            f"Content-Length: {len(request.body)}\r\nX-Request-ID: soak-{self.asked}\r\n\r\n"
        )
        return request, head.encode() + request.body

    def take(self, request: Request, status: int) -> bool:
        """Note what came; return whether the connection is to be kept."""
        self.kinds[request.kind] += 1
        if status != request.status:
            self.wrong[f"{request.kind} got {status} instead of {request.status}"] += 1
        return self._rng.random() < STAYS

    async def run(self, until: int, callers: int) -> State:
        """Ask until there were so many; return what the server holds when nobody is connected."""
        started_s = time.perf_counter()
        self._until = until
        await asyncio.gather(*(self._call() for _ in range(callers)))
        self.seconds += time.perf_counter() - started_s
        await asyncio.sleep(QUIET_S)
        return state_of(self.process)

    async def _call(self) -> None:
        loop = asyncio.get_running_loop()
        while self.asked < self._until:
            ended: asyncio.Future[None] = loop.create_future()
            await loop.create_connection(partial(_Caller, self, ended), "127.0.0.1", self.port)
            await ended


class _Caller(asyncio.Protocol):
    """A connection that asks again as soon as it has its answer."""

    def __init__(self, soak: Soak, ended: "asyncio.Future[None]") -> None:
        self._soak = soak
        self._ended = ended
        self._reader = AnswerReader()
        self._request: Request | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        if not self._reader.feed(data):
            return
        request, self._request = self._request, None
        assert request is not None
        is_kept = self._soak.take(request, self._reader.status)
        self._ask() if is_kept and self._reader.is_kept_alive else self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  of the protocol
        if self._request is not None:
            self._soak.wrong[f"{self._request.kind} got no answer"] += 1
        self._ended.set_result(None)

    def _ask(self) -> None:
        found = self._soak.next()
        if found is None:
            self._transport.close()
            return
        self._request, content = found
        self._reader.start()
        self._transport.write(content)


# --- What is asked -----------------------------------------------------------------------------

JSON = "application/json"


def all_requests(models: Path) -> list[Request]:
    """Return requests of every kind, weighted so that plain ones are the most."""
    found = [*_native(models), *_pictures(models), *_protocols(models), *_bad()]
    sizes = collections.Counter(each.kind for each in found)
    return [each._replace(weight=each.weight / sizes[each.kind]) for each in found]


def _native(models: Path) -> Iterator[Request]:
    for question in questions(models):
        rows = json.loads(question.body)["instances"]
        kind, weight = ("JSON", 30.0) if len(rows) == 1 else ("JSON, several rows", 5.0)
        path = f"/predict/{question.model}"
        yield Request(kind, path, JSON, question.body, 200, weight)
        if len(rows) == 1 and question.model in ("wine", "iris"):
            yield Request("JSON, own terms", path, JSON, question.body, 200, 5)
            lines = [_fields(models, question.model), [str(cell) for cell in rows[0]]]
            text = "".join(",".join(line) + "\n" for line in lines)
            yield Request("CSV", path, "text/csv", text.encode(), 200, 3)
        if len(rows) == 1 and question.model == "imdb":
            yield Request("text", path, "text/plain", rows[0].encode(), 200, 3)


def _fields(models: Path, name: str) -> list[str]:
    entry = read_catalogue(models).models[name]
    declared = find_bundles(models, name, entry)[0].manifest.input
    assert isinstance(declared, FeatureInput)
    return [field.name for field in declared.fields]


def _golden(models: Path, name: str) -> "np.ndarray[Any, Any]":
    (version,) = sorted((models / name).iterdir())[-1:]
    with np.load(version / "golden.npz") as golden:
        rows: np.ndarray[Any, Any] = golden["rows"]
    return rows


def _pictures(models: Path) -> Iterator[Request]:
    for row in _golden(models, "mnist"):
        picture = Image.fromarray(row.reshape(28, 28).astype(np.uint8))
        for form, media_type, weight in (("PNG", "image/png", 25), ("JPEG", "image/jpeg", 4)):
            file = io.BytesIO()
            picture.save(file, form)
            yield Request(form, "/predict/mnist", media_type, file.getvalue(), 200, weight)
    rows = io.BytesIO()
    np.save(rows, np.tile(_golden(models, "mnist"), (4, *[1] * (row.ndim)))[:48])
    yield Request("npy of 48", "/predict/mnist", "application/x-npy", rows.getvalue(), 200, 0.5)


def _protocols(models: Path) -> Iterator[Request]:
    golden = _golden(models, "wine").astype(np.float32)
    rows = golden[np.isfinite(golden).all(axis=1)]
    for row in rows:
        body = json.dumps({"instances": [row.tolist()]}).encode()
        yield Request("v1", "/v1/models/wine:predict", JSON, body, 200, 6)
        tensor = {"name": "rows", "shape": [1, len(row)], "datatype": "FP32"}
        body = json.dumps({"inputs": [tensor | {"data": row.tolist()}]}).encode()
        yield Request("v2", "/v2/models/wine/infer", JSON, body, 200, 6)


def _bad() -> Iterator[Request]:
    for body in RUBBISH:
        yield Request("rubbish", "/predict/wine", JSON, body, 413 if b"[" * 99 in body else 400, 2)
    yield Request("unknown model", "/predict/NOBODY", JSON, b"{}", 404)
    yield Request("unknown model, v1", "/v1/models/NOBODY:predict", JSON, b"{}", 404)
    yield Request("unknown path", "/NOBODY", JSON, b"{}", 404)
    yield Request(
        "no picture", "/predict/mnist", "image/png", b"\x89PNG\r\n\x1a\n" + b"0" * 90, 400
    )


# -----------------------------------------------------------------------------------------------


def table(curve: dict[int, State]) -> str:
    """Return the curve in a few points, as a table."""
    points = list(curve.items())
    chosen = {round(at) for at in np.geomspace(1, len(points), POINTS)}
    lines = [
        f"| {requests:,} | {state.resident_bytes / 2**20:.1f} |"
        for number, (requests, state) in enumerate(points, 1)
        if number in chosen
    ]
    return "\n".join(["| requests | resident MiB |", "| --- | --- |", *lines])


async def run(soak: Soak, warm: int, requests: int, callers: int) -> tuple[State, State]:
    """Ask; return what the server holds after the first `warm` requests, and after all."""
    return await soak.run(warm, callers), await soak.run(requests, callers)


def main() -> int:
    """Run it, print the curve, and tell whether all was well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--warm", type=int, default=50_000)
    parser.add_argument("--every", type=int, default=10_000)
    parser.add_argument("--callers", type=int, default=32)
    options = parser.parse_args()
    with serving(options.models) as (process, address):
        port = int(address.rpartition(":")[2])
        soak = Soak(port, all_requests(options.models), process, options.every)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            work = run(soak, options.warm, options.requests, options.callers)
            before, after = runner.run(work)
        process.terminate()
        process.wait()
    growth = after.resident_bytes / before.resident_bytes - 1
    print(table(soak.curve))
    for kind, count in soak.kinds.most_common():
        print(f"{count:9,}  {kind}")
    print(f"{soak.asked:,} requests in {soak.seconds:.0f} s, {soak.asked / soak.seconds:,.0f}/s")
    print(f"quiet after {options.warm:,}: {before}\nquiet at the end:  {after}")
    print(f"resident memory {growth:+.2%}")
    for what, count in soak.wrong.most_common(20):
        print(f"WRONG  {count:,} times: {what}")
    has_leaked = after[:2] > before[:2] or growth >= MOST_GROWTH
    return 1 if soak.wrong or has_leaked or process.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
