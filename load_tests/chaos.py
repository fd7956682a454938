"""Everything that goes wrong, at once: is every request answered once, rightly, and nothing lost?

Starts a server of its own and, for `--seconds`, lets callers with rows that nobody else has ask it
in several ways, while others send rubbish, hang up, drip their bodies, come in bursts, or send rows
that make the runtime raise, sleep, hang or return NaN; while the catalogue is reloaded, the process
is stopped and continued, and its memory is limited where control groups allow it. Answers are
compared with those of the same models in this process, and every response must carry the id of its
request. Afterwards the server has to answer as before, with no more file descriptors and threads,
no rows in its queues, and little more memory.

    python load_tests/chaos.py --seconds 600
"""

import argparse
import asyncio
import collections
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from chaos_server import HANGS, IS_NAN, RAISES, SLEEPS
from many_callers import RUBBISH
from PIL import Image

from service.inputs import Payload
from service.prediction import Answer, Predictor, load_catalogue
from service.settings import Settings
from service.telemetry.metrics import Metrics

PATIENCE_S = 30.0
BODY_TIMEOUT_S = 1.0
MOST_GROWTH = 1.1
MEMORY_BYTES = 384 * 1024 * 1024
TOLERANCE = 1e-5
"""Of a confidence: sums in another order."""

_REST = '[models.mnist]\n[models.fragile]\nbundle = "wine"\nruntime = "chaos"\n'
CATALOGUES = (f"[models.wine]\n{_REST}", f'[models.wine]\nversions = ["1", "2"]\n{_REST}')
"""Before and after each reload; the second version of wine is a copy of the first."""

CROWDED = {429, 503, 504}
"""Statuses that a server under too much load may answer."""


class Question(NamedTuple):
    """A request that nobody else makes, and its answer."""

    path: str
    content_type: str
    body: bytes
    expected: Sequence[tuple[str | None, float]]
    """Label, None for "don't know", and confidence of each row."""


class Response(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class State(NamedTuple):
    """What a process holds."""

    descriptors: int
    threads: int
    resident_bytes: int


@dataclass
class Tally:
    """What came of it all."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)

    def expect(self, is_right: bool, what: str) -> None:  # noqa: FBT001  as assert has it
        """Note what is wrong if it is."""
        if not is_right:
            self.wrong.append(what)


class Connection:
    """One caller's way to the server."""

    numbers = itertools.count()

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect, and go on trying while the server does not take more."""
        for pause_s in (0.01, 0.1, 0.5, 1, 2):
            with suppress(OSError):
                return cls(*await asyncio.open_connection("127.0.0.1", port))
            await asyncio.sleep(pause_s)
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, path: str, content_type: str, body: bytes) -> Response:
        """Send a request with an id of its own and return the response, which has to carry it."""
        request_id = f"chaos-{next(self.numbers)}"
        self.writer.write(head(path, content_type, len(body), request_id) + body)
        async with asyncio.timeout(PATIENCE_S):
            response = await self.read()
        if response.headers.get("x-request-id") != request_id:
            raise AssertionError(f"{request_id} got {response}")
        return response

    async def read(self) -> Response:
        """Return the next response."""
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        fields = (line.partition(": ") for line in lines[1:] if line)
        headers = {name.lower(): value for name, _, value in fields}
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Response(int(lines[0].split()[1]), headers, body)

    def close(self) -> None:
        """Hang up."""
        self.writer.close()


def head(path: str, content_type: str, length: int, request_id: str) -> bytes:
    """Return the first lines of a request."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: dunno\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {length}\r\nX-Request-ID: {request_id}\r\n\r\n"
    ).encode()


# --- Questions ---------------------------------------------------------------------------------


def wine_questions(predictor: Predictor, rng: np.random.Generator) -> Iterator[Question]:
    """Yield rows of wine that were never bottled, alone and together, in two protocols."""
    golden = predictor.golden_rows.astype(float)
    for number in range(600):
        count = 1 if number % 3 else 5
        chosen = golden[rng.integers(len(golden), size=count)]
        rows = (chosen * rng.uniform(0.97, 1.03, chosen.shape)).round(6).tolist()
        body = json.dumps({"instances": rows}).encode()
        expected = answers(predictor, Payload(body, "application/json"))
        yield Question("/predict/wine", "application/json", body, expected)
        yield Question("/v1/models/wine:predict?verdict=true", "application/json", body, expected)
        yield Question("/predict/fragile", "application/json", body, expected)


def picture_questions(predictor: Predictor, rng: np.random.Generator) -> Iterator[Question]:
    """Yield digits with noise of their own, as pictures."""
    golden = predictor.golden_rows
    for _ in range(200):
        noise = rng.integers(0, 12, golden.shape[1:])
        picture = np.clip(golden[rng.integers(len(golden))].astype(int) + noise, 0, 255)
        content = io.BytesIO()
        Image.fromarray(picture.astype(np.uint8).squeeze()).save(content, "PNG")
        body = content.getvalue()
        expected = answers(predictor, Payload(body, "image/png"))
        yield Question("/predict/mnist", "image/png", body, expected)


def answers(predictor: Predictor, payload: Payload) -> list[tuple[str | None, float]]:
    """Return what the server has to say of each row."""
    found = predictor.predict_now(payload, predictor.judge.default_terms)
    assert all(isinstance(each, Answer) for each in found)
    return [
        (getattr(each.verdict, "label", None), each.row.confidence)
        for each in found
        if isinstance(each, Answer)
    ]


def is_right(question: Question, body: bytes) -> bool:
    """Whether a response holds the answers to the question."""
    content = json.loads(body)
    rows = content["verdicts"] if "verdicts" in content else content["predictions"]
    got = [(row["label"], row["confidence"]) for row in rows]
    return len(got) == len(question.expected) and all(
        label == expected and abs(confidence - expected_confidence) < TOLERANCE
        for (label, confidence), (expected, expected_confidence) in zip(
            got, question.expected, strict=True
        )
    )


# --- Who does what -----------------------------------------------------------------------------


class Chaos:
    """The callers, and those who disturb them."""

    def __init__(self, port: int, questions: Sequence[Question], tally: Tally) -> None:
        self.port = port
        self.questions = questions
        self.tally = tally
        self.until_s = 0.0

    async def asker(self, rng: random.Random) -> None:
        """Ask what nobody else asks and look at the answer."""
        connection = await Connection.open(self.port)
        while time.monotonic() < self.until_s:
            await self._ask(connection, rng.choice(self.questions))
            if rng.random() < 0.02:
                connection.close()
                connection = await Connection.open(self.port)
        connection.close()

    async def _ask(self, connection: Connection, question: Question) -> None:
        response = await connection.ask(question.path, question.content_type, question.body)
        name = question.path.split("?")[0]
        allowed = CROWDED | ({500} if "fragile" in name else set())
        if response.status == 200:
            self.tally.outcomes[f"{name}: answered"] += 1
            self.tally.expect(is_right(question, response.body), f"{name}: another's answer")
        else:
            self.tally.outcomes[f"{name}: {response.status}"] += 1
            self.tally.expect(response.status in allowed, f"{name}: {response}")

    async def vandal(self, rng: random.Random) -> None:
        """Send what cannot be read."""
        connection = await Connection.open(self.port)
        while time.monotonic() < self.until_s:
            question = rng.choice(self.questions)
            body = rng.choice([*RUBBISH, question.body[: rng.randrange(len(question.body) // 2)]])
            response = await connection.ask(question.path, question.content_type, body)
            self.tally.outcomes[f"rubbish: {response.status}"] += 1
            is_told = 400 <= response.status < 500 or response.status in CROWDED
            self.tally.expect(is_told, f"rubbish: {response}")
            await asyncio.sleep(0.005)
        connection.close()

    async def leaver(self, rng: random.Random) -> None:
        """Hang up at any moment."""
        while time.monotonic() < self.until_s:
            connection = await Connection.open(self.port)
            question = rng.choice(self.questions)
            content = head(question.path, question.content_type, len(question.body), "left")
            content += question.body
            connection.writer.write(content[: rng.randrange(1, len(content) + 1)])
            await asyncio.sleep(rng.choice([0, 0.001, 0.01]))
            if rng.random() < 0.5:
                connection.writer.transport.abort()
            connection.close()
            self.tally.outcomes["hung up"] += 1

    async def dripper(self, rng: random.Random) -> None:
        """Send a body in drops, now and then too slowly."""
        while time.monotonic() < self.until_s:
            connection = await Connection.open(self.port)
            question = rng.choice(self.questions)
            is_late = rng.random() < 0.2
            writer = connection.writer
            writer.write(head(question.path, question.content_type, len(question.body), "drip"))
            pieces = [
                question.body[start : start + 64] for start in range(0, len(question.body), 64)
            ]
            for piece in pieces[:-1] if is_late else pieces:
                writer.write(piece)
                await asyncio.sleep(0.002)
            async with asyncio.timeout(PATIENCE_S):
                response = await connection.read()
            self.tally.outcomes[f"dripped: {response.status}"] += 1
            if response.status == 200:
                self.tally.expect(is_right(question, response.body), "dripped: another's answer")
            else:
                allowed = CROWDED | {408, 500 if "fragile" in question.path else 408}
                self.tally.expect(response.status in allowed, f"dripped: {response}")
            connection.close()

    async def crowd(self, rng: random.Random) -> None:
        """Come ten times as many as usual, all at once, every few seconds."""
        while time.monotonic() < self.until_s:
            await asyncio.sleep(4)
            connections = [await Connection.open(self.port) for _ in range(160)]
            await asyncio.gather(
                *(self._ask(connection, rng.choice(self.questions)) for connection in connections)
            )
            for connection in connections:
                connection.close()
            self.tally.outcomes["bursts"] += 1

    async def saboteur(self, rng: random.Random) -> None:
        """Send rows that do harm to the run of their batch."""
        row = json.loads(self.questions[1].body)["instances"][0]
        connection = await Connection.open(self.port)
        while time.monotonic() < self.until_s:
            wish = rng.choices([RAISES, IS_NAN, SLEEPS, HANGS], [10, 10, 10, 1])[0]
            body = json.dumps({"instances": [[wish, *row[1:]]]}).encode()
            response = await connection.ask("/predict/fragile", "application/json", body)
            self.tally.outcomes[f"sabotage: {response.status}"] += 1
            allowed = CROWDED | {500} | ({200} if wish in (SLEEPS, HANGS) else set())
            self.tally.expect(response.status in allowed, f"sabotage {wish}: {response}")
            await asyncio.sleep(0.2)
        connection.close()


async def disturb(process: "subprocess.Popen[bytes]", models: Path, until_s: float) -> int:
    """Reload and stop the process, again and again; return how often it was reloaded."""
    reloads = 0
    while time.monotonic() < until_s:
        (models / "catalogue.toml").write_text(CATALOGUES[reloads % 2])
        process.send_signal(signal.SIGHUP)
        reloads += 1
        await asyncio.sleep(1.5)
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(1.0)
    return reloads


# --- Before and after --------------------------------------------------------------------------


def write_models(source: Path, folder: Path) -> None:
    """Copy the bundles that are asked."""
    for name in ("wine", "mnist"):
        shutil.copytree(source / name / "1", folder / name / "1")
    shutil.copytree(source / "wine/1", folder / "wine/2")
    manifest = folder / "wine/2/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": "2"}))
    (folder / "catalogue.toml").write_text(CATALOGUES[0])


@contextmanager
def serving(models: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int, list[str]]]:
    """Start the server; yields its process, its port and the lines of its log."""
    script = Path(__file__).with_name("chaos_server.py")
    environment = os.environ | {
        "DUNNO_BODY_TIMEOUT_MS": str(BODY_TIMEOUT_S * 1000),
        "DUNNO_MAX_RUN_MS": "1000",
        "DUNNO_STOP_DELAY_MS": "0",
    }
    command = [sys.executable, str(script), "serve", "--port", "0", "--models", str(models)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:  # noqa: S603
        assert process.stderr is not None
        lines: list[str] = []
        found = None
        for line in process.stderr:
            lines.append(line.decode())
            if found := re.search(r"running on http://[\d.]+:(\d+)", lines[-1]):
                break
        assert found, "".join(lines)
        reader = threading.Thread(
            target=lambda stream: lines.extend(line.decode() for line in stream),
            args=(process.stderr,),
        )
        reader.start()
        try:
            yield process, int(found[1]), lines
        finally:
            process.terminate()
            reader.join()


@contextmanager
def memory_limit(process: "subprocess.Popen[bytes]", limit_bytes: int) -> Iterator[bool]:
    """Let the process have no more memory, by a control group; yields whether there is one."""
    group = Path(f"/sys/fs/cgroup/memory/dunno-chaos-{process.pid}")
    try:
        group.mkdir()
    except OSError:
        yield False
        return
    (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
    (group / "cgroup.procs").write_text(str(process.pid))
    yield True
    process.wait()
    group.rmdir()


def state_of(process: "subprocess.Popen[bytes]") -> State:
    """Return what the process holds."""
    folder = Path(f"/proc/{process.pid}")
    resident = re.search(r"VmRSS:\s+(\d+) kB", (folder / "status").read_text())
    assert resident
    return State(
        len(list((folder / "fd").iterdir())),
        len(list((folder / "task").iterdir())),
        int(resident[1]) * 1024,
    )


async def gauges(port: int) -> dict[str, float]:
    """Return what the server says that it still has to do."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: dunno\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    names = r"dunno_inflight_requests|dunno_queue_rows"
    return {
        found[1]: float(found[2])
        for found in re.finditer(rf"^((?:{names})\{{.*\}}) (\S+)$", text, re.MULTILINE)
    }


def questions_of(models: Path) -> list[Question]:
    """Return what is asked, with the answers of this process."""
    rng = np.random.default_rng(7)
    metrics = Metrics()
    settings = Settings(models=models, runtime_threads=1)
    wine = load_catalogue(settings, metrics, only="wine").find("wine")
    mnist = load_catalogue(settings, metrics, only="mnist").find("mnist")
    return [*wine_questions(wine, rng), *picture_questions(mnist, rng)]


async def settle(chaos: Chaos, process: "subprocess.Popen[bytes]") -> State:
    """Ask everything once, alone, and return what the process holds when all is quiet."""
    connection = await Connection.open(chaos.port)
    for question in chaos.questions:
        response = await connection.ask(question.path, question.content_type, question.body)
        is_answered = response.status == 200 and is_right(question, response.body)
        chaos.tally.expect(is_answered, f"alone: {question.path} {response}")
    connection.close()
    await asyncio.sleep(7)  # connections that nobody uses are closed by then
    busy = {name: value for name, value in (await gauges(chaos.port)).items() if value}
    # The scrape itself is no predict request.
    chaos.tally.expect(not busy, f"still busy: {busy}")
    return state_of(process)


Role = Callable[[random.Random], Coroutine[Any, Any, None]]


async def run(
    process: "subprocess.Popen[bytes]", chaos: Chaos, models: Path, seconds: float
) -> tuple[State, State]:
    """Let chaos reign for so long; return what the process held before and after."""
    numbers: dict[Role, int] = {chaos.asker: 16, chaos.vandal: 3, chaos.leaver: 3}
    numbers |= {chaos.dripper: 3, chaos.crowd: 1, chaos.saboteur: 1}
    roles = [role for role, number in numbers.items() for _ in range(number)]

    async def reign(for_s: float) -> None:
        chaos.until_s = time.monotonic() + for_s
        async with asyncio.TaskGroup() as group:
            for seed, role in enumerate(roles):
                group.create_task(role(random.Random(seed)))
            group.create_task(disturb(process, models, chaos.until_s))

    await reign(max(6.0, seconds / 10))  # what is made once is made
    before = await settle(chaos, process)
    await reign(seconds)
    after = await settle(chaos, process)
    if has_grown(before, after):
        # Arenas of threads fill up once; a leak goes on.
        print(f"grown to {after.resident_bytes / 2**20:.1f} MiB; once more")
        await reign(seconds)
        before, after = after, await settle(chaos, process)
    return before, after


def has_grown(before: State, after: State) -> bool:
    """Tell whether more memory is held than what goes up and down."""
    return after.resident_bytes > before.resident_bytes * MOST_GROWTH


def main() -> int:
    """Run it, print the tally, and tell whether all was well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        write_models(options.models, models)
        questions = questions_of_served(models)
        with ExitStack() as stack:
            process, port, lines = stack.enter_context(serving(models))
            limited = stack.enter_context(memory_limit(process, MEMORY_BYTES))
            chaos = Chaos(port, questions, Tally())
            before, after = asyncio.run(run(process, chaos, models, options.seconds))
            process.terminate()
        tally = chaos.tally
        tally.expect(process.returncode == 0, f"ended with {process.returncode}")
        tally.expect(after.descriptors <= before.descriptors + 2, "file descriptors leaked")
        tally.expect(not has_grown(before, after), "memory leaked")
        for line in lines:
            told = ("never retrieved", "was destroyed", "request failed", "batches stopped")
            tally.expect(not any(words in line for words in told), f"log: {line}")
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"{count:8,}  {outcome}")
    print(f"before {before}\nafter  {after}")
    print(f"memory was limited to {MEMORY_BYTES:,} bytes" if limited else "memory was not limited")
    for line in tally.wrong[:20]:
        print(f"WRONG  {line[:500]}")
    return 1 if tally.wrong else 0


def questions_of_served(models: Path) -> list[Question]:
    """Return the questions, by the models that need no runtime `chaos`."""
    served = (models / "catalogue.toml").read_text()
    (models / "catalogue.toml").write_text("[models.wine]\n[models.mnist]\n")
    try:
        return questions_of(models)
    finally:
        (models / "catalogue.toml").write_text(served)


if __name__ == "__main__":
    sys.exit(main())
