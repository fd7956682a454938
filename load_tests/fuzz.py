"""A million requests that are almost right: is each refused or answered, and nothing worse?

Everything runs in this process, from the bytes of a connection to the bytes of its answer: see
`fuzz_wire.py`. Requests come in blocks of one family, each made from the seed, the family and the
number of the block alone; behind every block each model is asked questions whose answers are known.
What fails is kept as a file under `--keep`, to the byte, and belongs into `tests/corpus`.

Exits 1 on a 5xx (but 503 and 504, which are documented), on no answer, on one that takes too long
or is not well-formed, on lanes that disagree, on a known answer that changed, on memory that grows.

    python load_tests/fuzz.py --inputs 1000000 --seed 1
    python load_tests/fuzz.py --family png --block 17 --blocks 1        (one block again)
"""

import argparse
import asyncio
import collections
import faulthandler
import gc
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import uvloop
from fuzz_checks import fault_of, is_same
from fuzz_inputs import FAMILIES, subjects_of
from fuzz_wire import Connection, ConnectionClosed, Lane, Request, Response, Service, serving

from service.settings import Settings

BLOCK_INPUTS = 250
CONNECTIONS = 8
COMPARED = 8
"""One in so many requests of the hot lane is asked on the general one as well."""

PATIENCE_S = 30.0
LONE_PATIENCE_S = 0.5
"""For a request that may be waited for in vain: it promises more than comes."""

STUCK_S = 90.0
MEBIBYTE = 1 << 20
MOST_OBJECTS = 0.05
"""Share by which the number of Python's objects may grow; what is kept of each request shows."""

_LANES: tuple[Lane, ...] = ("hot", "general")
JSON = (("Content-Type", "application/json"),)


@dataclass
class Tally:
    """What came of one family."""

    inputs: int = 0
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest_s: float = 0.0
    seconds: float = 0.0
    resident_before: int = 0
    resident_after: int = 0


@dataclass(frozen=True)
class Finding:
    """A request that got what nobody should get."""

    family: str
    block: int
    why: str
    request: Request | None = None


def resident_bytes() -> int:
    """Return how much memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def living_objects() -> int:
    """Return how many objects Python's collector knows, without garbage."""
    gc.collect()
    return len(gc.get_objects())


def settings_of(models: Path) -> Settings:
    """Return the default settings, but for bodies that never come: they need not take seconds."""
    return Settings(models=models, body_timeout_ms=200)


class Fuzz:
    """One service and what is asked of it."""

    def __init__(self, service: Service, seed: int, slow_s: float) -> None:
        self.findings: list[Finding] = []
        self.tallies: dict[str, Tally] = collections.defaultdict(Tally)
        self.asked_s = time.monotonic()
        """When the last request was sent; who watches sees whether the loop still turns."""

        self.now: list[Request] = []
        """Requests of the block that runs."""

        self._service = service
        self._seed = seed
        self._slow_s = slow_s
        self._subjects = subjects_of(service)
        self._questions = [
            Request(f"/predict/{each.name}", orjson.dumps({"instances": [row]}), JSON, lane=lane)
            for each in self._subjects
            for row in each.instances[:2]
            for lane in _LANES
        ]
        self._answers: list[object] = []
        asyncio.get_running_loop().set_exception_handler(self._on_stray_exception)

    async def learn(self) -> None:
        """Ask the questions whose answers have to stay the same."""
        self._answers = [await self._answer(question) for question in self._questions]

    async def block(self, family: str, number: int) -> None:
        """Ask one block of requests, and then the questions whose answers are known."""
        rng = random.Random(f"{self._seed} {family} {number}")
        make = FAMILIES[family][1]
        self.now = [make(rng, self._subjects) for _ in range(BLOCK_INPUTS)]
        tally = self.tallies[family]
        started_s = time.monotonic()
        waiting = iter(list(enumerate(self.now)))
        await asyncio.gather(*(self._caller(family, number, waiting) for _ in range(CONNECTIONS)))
        tally.seconds += time.monotonic() - started_s
        tally.inputs += len(self.now)
        await self._check_known(family, number)
        if number % 16 == 0:
            await self._check_connections(family, number)

    async def _caller(
        self, family: str, number: int, waiting: Iterator[tuple[int, Request]]
    ) -> None:
        lines: dict[Lane, Connection] = {}
        for position, request in waiting:
            response = await self._ask(lines, request, family, number)
            if response is not None and request.lane == "hot" and position % COMPARED == 0:
                other = Request(
                    *(request.target, request.body, request.headers, request.method, request.raw),
                    lane="general",
                )
                general = await self._ask(lines, other, family, number)
                if general is not None and not is_same(request, response, general):
                    self._find(family, number, _difference(response, general), request)
        for line in lines.values():
            line.hang_up()

    async def _ask(
        self, lines: dict[Lane, Connection], request: Request, family: str, number: int
    ) -> Response | None:
        """Return the answer to a request, counted and checked, or None."""
        tally = self.tallies[family]
        line = self._line(lines, request)
        started_s = self.asked_s = time.monotonic()
        response, why = await _exchange(line, request)
        seconds = time.monotonic() - started_s
        tally.statuses[str(response.status) if response else "closed"] += 1
        tally.slowest_s = max(tally.slowest_s, seconds)
        if response is not None:
            why = why or fault_of(request, response)
        if why is None and seconds > self._slow_s:
            why = f"took {seconds:.1f} s"
        if why is not None:
            self._find(family, number, why, request)
        return response

    def _line(self, lines: dict[Lane, Connection], request: Request) -> Connection:
        """Return a connection that is open; to itself, for a request whose framing may lie."""
        if request.raw is not None:
            return self._service.connect(request.lane)
        line = lines.get(request.lane)
        if line is None or line.is_closing():
            line = lines[request.lane] = self._service.connect(request.lane)
        return line

    async def _answer(self, question: Request) -> object:
        line = self._service.connect(question.lane)
        async with asyncio.timeout(PATIENCE_S):
            response = await line.ask(question)
        line.hang_up()
        assert response.status == 200, response
        return orjson.loads(response.body)["predictions"]

    async def _check_known(self, family: str, number: int) -> None:
        for at, question in enumerate(self._questions):
            try:
                answer = await self._answer(question)
            except Exception as error:  # noqa: BLE001  any failure of a known question is a finding
                self._find(family, number, f"a known question failed: {error!r}", question)
            else:
                if answer != self._answers[at]:
                    self._find(family, number, f"another answer to {question.target}", question)

    async def _check_connections(self, family: str, number: int) -> None:
        left = await self._service.settle()
        await asyncio.sleep(0)
        if left:
            await asyncio.sleep(0.05)
            left = await self._service.settle()
        if left:
            self._find(family, number, f"{left} connections are still known", None)

    def _find(self, family: str, number: int, why: str, request: Request | None) -> None:
        self.findings.append(Finding(family, number, why, request))

    def _on_stray_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        why = f"stray: {context.get('message')} {context.get('exception')!r}"
        self.findings.append(Finding("any", 0, why))


async def _exchange(line: Connection, request: Request) -> tuple[Response | None, str | None]:
    """Return the answer to a request, or why there is none if there should be one."""
    is_alone = request.raw is not None
    response: Response | None = None
    why: str | None = None
    try:
        async with asyncio.timeout(LONE_PATIENCE_S if is_alone else PATIENCE_S):
            response = await line.ask(request)
    except TimeoutError:
        why = f"no answer in {PATIENCE_S} s"
    except ConnectionClosed as error:
        why = f"closed without an answer: {error}"
    except Exception as error:  # noqa: BLE001  whatever gets out of the protocol is a finding
        return None, f"the protocol raised {error!r}"
    finally:
        if is_alone or response is None or response.headers.get("connection") == "close":
            line.hang_up()
    # What promises more than comes may well get no answer.
    return response, _fault_behind(line) if is_alone else why


def _fault_behind(line: Connection) -> str | None:
    """Return what is wrong with answers behind the first, where requests follow each other."""
    if b"HTTP/1.1 500" in line.received:
        return f"500 behind the first answer: {bytes(line.received[:300])!r}"
    return None


def _difference(hot: Response, general: Response) -> str:
    return f"hot {hot.status} {hot.body[:300]!r}, general {general.status} {general.body[:300]!r}"


class Watch(threading.Thread):
    """Tells what was asked when the event loop stands still, and ends the process."""

    def __init__(self, fuzz: Fuzz, keep: Path) -> None:
        super().__init__(daemon=True)
        self._fuzz = fuzz
        self._keep = keep

    def run(self) -> None:
        """Look now and then."""
        while True:
            time.sleep(5)
            if time.monotonic() - self._fuzz.asked_s > STUCK_S:
                faulthandler.dump_traceback()
                stuck = [Finding("stuck", 0, "the loop stands still", r) for r in self._fuzz.now]
                keep_files(stuck, self._keep)
                os._exit(3)


def keep_files(findings: Sequence[Finding], folder: Path) -> None:
    """Write the requests of findings, to the byte."""
    folder.mkdir(parents=True, exist_ok=True)
    for position, finding in enumerate(findings):
        if finding.request is not None:
            name = f"{finding.family}-{finding.block}-{position}.http"
            (folder / name).write_bytes(finding.request.content)


def plan(inputs: int, families: Sequence[str]) -> dict[str, int]:
    """Return how many blocks each family gets."""
    total = sum(FAMILIES[family][0] for family in families)
    return {
        family: max(1, round(inputs * FAMILIES[family][0] / total / BLOCK_INPUTS))
        for family in families
    }


async def run(options: argparse.Namespace) -> int:
    """Run it all, print the table, and tell whether all was well."""
    async with serving(settings_of(options.models)) as service:
        fuzz = Fuzz(service, options.seed, options.slow_s)
        await fuzz.learn()
        Watch(fuzz, options.keep).start()
        families = [options.family] if options.family else list(FAMILIES)
        if options.warm_up:  # by negative numbers: afterwards what is bought once has been bought
            for family, number in mixed(plan(options.warm_up, families)):
                await fuzz.block(family, -1 - number)
        fuzz.tallies.clear()
        before, objects_before = resident_bytes(), living_objects()
        blocks = plan(options.inputs, families)
        if options.blocks:
            blocks = dict.fromkeys(families, options.blocks)
        until_s = time.monotonic() + options.seconds
        await (_ask_mixed if options.mixed else _ask_by_family)(fuzz, blocks, until_s, options)
        after, objects_after = resident_bytes(), living_objects()
    print_end(fuzz, before, after, options)
    print(f"objects {objects_before:,} -> {objects_after:,}")
    has_grown = after - before > options.most_growth_mib * MEBIBYTE
    has_kept = objects_after > objects_before * (1 + MOST_OBJECTS)
    return 1 if fuzz.findings or has_grown or has_kept else 0


async def _ask_by_family(
    fuzz: Fuzz, blocks: dict[str, int], until_s: float, options: argparse.Namespace
) -> None:
    for family, number_of_blocks in blocks.items():
        tally = fuzz.tallies[family]
        tally.resident_before = resident_bytes()
        for number in range(options.block, options.block + number_of_blocks):
            if time.monotonic() < until_s:
                await fuzz.block(family, number)
        tally.resident_after = resident_bytes()
        print_line(family, tally)
        keep_files(fuzz.findings, options.keep)


async def _ask_mixed(
    fuzz: Fuzz, blocks: dict[str, int], until_s: float, options: argparse.Namespace
) -> None:
    """Ask all families in turns, and tell now and then how much memory there is."""
    step = max(1, sum(blocks.values()) // 10)
    for position, (family, number) in enumerate(mixed(blocks)):
        if position % step == 0:
            resident = f"{resident_bytes() / MEBIBYTE:.1f} MiB, {living_objects():,} objects"
            print(f"{position * BLOCK_INPUTS:,} inputs: {resident}", flush=True)
        if time.monotonic() < until_s:
            await fuzz.block(family, options.block + number)
    keep_files(fuzz.findings, options.keep)


def mixed(blocks: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Yield families and numbers of blocks so that each family is spread over the whole."""
    numbered = [
        ((number + 0.5) / of_family, family, number)
        for family, of_family in blocks.items()
        for number in range(of_family)
    ]
    yield from ((family, number) for _, family, number in sorted(numbered))


def print_line(family: str, tally: Tally) -> None:
    """Print one line of the table."""
    statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(tally.statuses.items()))
    print(
        f"| {family} | {tally.inputs:,} | {statuses} | {tally.slowest_s * 1000:.0f} ms "
        f"| {tally.seconds:.0f} s "
        f"| {tally.resident_before / MEBIBYTE:.1f} -> {tally.resident_after / MEBIBYTE:.1f} MiB |",
        flush=True,
    )


def print_end(fuzz: Fuzz, before: int, after: int, options: argparse.Namespace) -> None:
    """Print what all families together came to."""
    inputs = sum(tally.inputs for tally in fuzz.tallies.values())
    seconds = sum(tally.seconds for tally in fuzz.tallies.values())
    print(f"seed {options.seed}: {inputs:,} inputs in {seconds:.0f} s")
    print(f"resident {before / MEBIBYTE:.1f} -> {after / MEBIBYTE:.1f} MiB after the warm-up")
    for finding in fuzz.findings[:40]:
        print(f"FOUND  {finding.family} block {finding.block}: {finding.why[:600]}")
    print(f"{len(fuzz.findings)} findings" + (f", kept in {options.keep}" if fuzz.findings else ""))


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--warm-up", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=86_400.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--family", choices=list(FAMILIES))
    parser.add_argument("--block", type=int, default=0, help="first block of each family")
    parser.add_argument("--blocks", type=int, default=0, help="so many of each family")
    parser.add_argument("--mixed", action="store_true", help="all families in turns")
    parser.add_argument("--slow-s", type=float, default=5.0)
    parser.add_argument("--most-growth-mib", type=float, default=128.0)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    faulthandler.enable()
    logging.disable(logging.WARNING)
    return int(uvloop.run(run(options)))


if __name__ == "__main__":
    sys.exit(main())
