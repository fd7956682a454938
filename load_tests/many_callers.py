"""Many callers at once, some of whom hang up or send rubbish: does everybody get his own answer?

Starts a server of its own, asks it first row by row for the right answers, then lets `--callers`
ask at once for `--seconds`: one request in ten is given up half-way and one in ten is rubbish.
Exits 1 if one well-formed request got no answer, or another one than when it was alone.

    make load            or            python load_tests/many_callers.py --seconds 60
"""

import argparse
import asyncio
import collections
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from service.bundle.manifest import TextInput
from service.inputs.texts import FIRST_ID, read_vocabulary
from service.prediction.catalogue import find_bundles, read_catalogue

RUBBISH = (
    b"",
    b"{",
    b'{"instances": []}',
    b'{"instances": [[NaN]]}',
    b'{"rows": [1]}',
    b"\xff\xfe\x00",
    b'{"instances": ' + b"[" * 2000,
)
JSON = {"content-type": "application/json"}
EXPECTED_OF_RUBBISH = {400, 413, 415}


@dataclass(frozen=True)
class Question:
    """A request that has one right answer."""

    model: str
    body: bytes


@dataclass
class Tally:
    """What came of it all."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def questions(models: Path) -> list[Question]:
    """Return requests made from the golden rows of every model: unlike each other, and real."""
    found = []
    for name, entry in read_catalogue(models).models.items():
        bundle = find_bundles(models, name, entry)[0]
        with np.load(bundle.path / "golden.npz") as golden:
            rows = golden["rows"]
        # JSON has no NaN: what is missing is null.
        values = rows.astype(object)
        values[np.isnan(rows)] = None
        instances = values.tolist()
        declared = bundle.manifest.input
        if isinstance(declared, TextInput):
            vocabulary = read_vocabulary(bundle.read(declared.vocabulary))
            instances = [
                " ".join(vocabulary[token - FIRST_ID] for token in row if token >= FIRST_ID)
                for row in rows
            ]
        groups = [instances[start : start + size] for start, size in ((0, 3), (3, 2), (5, 3))]
        groups += [[instance] for instance in instances]
        found += [Question(name, json.dumps({"instances": group}).encode()) for group in groups]
    return found


@contextmanager
def serving(
    models: Path, wrapper: Sequence[str] = ()
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start a server of its own process and return it with its address.

    Args:
        models: the folder that is served.
        wrapper: a command that is followed by that of the server, such as one that limits it.
    """
    command = [*wrapper, sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    # Nobody has to look elsewhere, and all connections come from one address.
    defaults = {"DUNNO_STOP_DELAY_MS": "0", "DUNNO_MAX_CONNECTIONS_PER_PEER": "0"}
    environment = defaults | os.environ
    with subprocess.Popen(  # noqa: S603  our own command
        [*command, "--models", str(models)], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        lines = (re.search(r"running on (http://[\d.:]+)", line) for line in process.stderr)
        found = next((match for match in lines if match), None)
        assert found, "the server did not start"
        try:
            yield process, found.group(1)
        finally:
            process.terminate()
            process.stderr.read()


async def ask(client: httpx.AsyncClient, question: Question) -> object:
    """Return the predictions of a question."""
    response = await client.post(f"/predict/{question.model}", content=question.body, headers=JSON)
    response.raise_for_status()
    return response.json()["predictions"]


async def call(
    client: httpx.AsyncClient, rng: random.Random, answers: dict[Question, object], tally: Tally
) -> None:
    """Ask one question, give up half-way, or send rubbish."""
    question = rng.choice(list(answers))
    dice = rng.random()
    if dice < 0.1:
        try:
            async with asyncio.timeout(rng.uniform(0.0001, 0.01)):
                await ask(client, question)
            tally.outcomes["answered before giving up"] += 1
        except (TimeoutError, httpx.HTTPError):
            tally.outcomes["gave up"] += 1
        return
    if dice < 0.2:
        response = await client.post(
            f"/predict/{question.model}", content=rng.choice(RUBBISH), headers=JSON
        )
        tally.outcomes[f"rubbish: {response.status_code}"] += 1
        if response.status_code not in EXPECTED_OF_RUBBISH:
            tally.wrong.append(f"rubbish got {response.status_code}: {response.text[:200]}")
        return
    started_s = time.perf_counter()
    try:
        same = same_answers(await ask(client, question), answers[question])
    except httpx.HTTPError as error:
        tally.wrong.append(f"{question.model}: {error!r}")
        return
    tally.seconds.append(time.perf_counter() - started_s)
    tally.outcomes["right" if same else "WRONG"] += 1
    if not same:
        tally.wrong.append(f"{question.model}: another answer than alone")


def same_answers(found: object, expected: object) -> bool:
    """Compare predictions: verdicts exactly, numbers to 1e-5 (sums in another order)."""
    if isinstance(found, float) and isinstance(expected, float):
        return abs(found - expected) <= 1e-5
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            same_answers(found[key], expected[key]) for key in found
        )
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(same_answers, found, expected))
    return found == expected


async def run(address: str, models: Path, callers: int, seconds: float) -> Tally:
    """Let everybody ask at once, and return what came of it."""
    tally = Tally()
    limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=30) as client:
        answers = {question: await ask(client, question) for question in questions(models)}
        until_s = time.monotonic() + seconds

        async def caller(seed: int) -> None:
            rng = random.Random(seed)
            while time.monotonic() < until_s:
                await call(client, rng, answers, tally)

        await asyncio.gather(*(caller(seed) for seed in range(callers)))
        again = {question: await ask(client, question) for question in answers}
        if not all(same_answers(again[question], answers[question]) for question in answers):
            tally.wrong.append("afterwards the server answers differently")
    return tally


def main() -> int:
    """Run it, print the tally, and tell whether all was well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with serving(options.models) as (_, address):
        tally = asyncio.run(run(address, options.models, options.callers, options.seconds))
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"{count:8,}  {outcome}")
    if tally.seconds:
        p50, p99 = np.percentile(tally.seconds, [50, 99]) * 1000
        print(f"well-formed requests: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    for line in tally.wrong[:20]:
        print(f"WRONG  {line}")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
