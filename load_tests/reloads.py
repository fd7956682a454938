"""Reloads under load: is every request answered, by a version that was live, in flat memory?

Copies one bundle as versions 1 and 2, starts a server of its own, lets `--callers` ask without a
pause, and switches `--reloads` times between the two over the admin address. Exits 1 if a request
was lost or answered by a version that nobody served at that time.

    python load_tests/reloads.py --model mnist --reloads 1000
"""

import argparse
import asyncio
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from many_callers import JSON, Question, questions

from service.prediction.catalogue import find_bundles, read_catalogue

START_S = 60.0
WARM_RELOADS = 100
"""After so many, memory is compared with that at the end."""


@dataclass
class Tally:
    """What came of it all."""

    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    reloads: int = 0
    resident_bytes: dict[int, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)


def write_versions(models: Path, name: str, folder: Path) -> None:
    """Write the bundle of a model to `folder` as versions 1 and 2, of which 1 is served."""
    (bundle,) = find_bundles(models, name, read_catalogue(models).models[name])[:1]
    for version in ("1", "2"):
        target = folder / name / version
        shutil.copytree(bundle.path, target)
        manifest = json.loads((target / "manifest.json").read_text())
        (target / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
    serve_version(folder, name, "1")


def serve_version(folder: Path, name: str, version: str) -> None:
    """Let the catalogue name one version."""
    (folder / "catalogue.toml").write_text(f'[models.{name}]\nversions = ["{version}"]\n')


@contextmanager
def serving(models: Path) -> Iterator[tuple[int, str, str]]:
    """Start a server and return its process id, its address and that of its admin."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--models", str(models)]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(  # noqa: S603  our own command
            command, stderr=log, env={**os.environ, "DUNNO_ADMIN_PORT": "0"}
        ) as process,
    ):
        try:
            yield process.pid, *_addresses(log.fileno())
        finally:
            process.terminate()


def _addresses(log: int) -> tuple[str, str]:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        text = os.pread(log, 1_000_000, 0).decode()
        service = re.search(r"running on (http://[\d.:]+)", text)
        admin = re.search(r"admin address (http://[\d.:]+)", text)
        if service and admin:
            return service.group(1), admin.group(1)
        time.sleep(0.05)
    raise TimeoutError(text)


def resident_bytes(process: int) -> int:
    """Return the memory of a process that is in use, as Linux counts it."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Switches:
    """Callers who ask, and an operator who switches versions meanwhile."""

    def __init__(self, models: Path, question: Question, process: int) -> None:
        self.tally = Tally()
        self._models = models
        self._question = question
        self._process = process
        # Versions that may answer, a new entry for each change; a request may see several.
        self._live = [{"1"}]
        self._is_over = False

    async def run(self, address: str, admin: str, reloads: int, callers: int) -> Tally:
        """Switch `reloads` times while `callers` ask."""
        limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
        async with (
            httpx.AsyncClient(base_url=address, limits=limits, timeout=30) as client,
            httpx.AsyncClient(base_url=admin, timeout=60) as operator,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(callers):
                group.create_task(self._call(client))
            await self._operate(operator, reloads)
            self._is_over = True
        return self.tally

    async def _operate(self, operator: httpx.AsyncClient, reloads: int) -> None:
        now = "1"
        for number in range(1, reloads + 1):
            before, now = now, "2" if now == "1" else "1"
            serve_version(self._models, self._question.model, now)
            self._live.append({before, now})
            started_s = time.perf_counter()
            response = await operator.post("/reload")
            self.tally.seconds.append(time.perf_counter() - started_s)
            self._live.append({now})
            if response.status_code != httpx.codes.OK:
                self.tally.wrong.append(f"reload {number}: {response.text[:200]}")
            self.tally.reloads += 1
            if number in (WARM_RELOADS, reloads):
                self.tally.resident_bytes[number] = resident_bytes(self._process)

    async def _call(self, client: httpx.AsyncClient) -> None:
        path = f"/predict/{self._question.model}"
        while not self._is_over:
            first = len(self._live) - 1
            try:
                response = await client.post(path, content=self._question.body, headers=JSON)
                version = response.raise_for_status().json()["version"]
            except httpx.HTTPError as error:
                self.tally.wrong.append(f"lost: {error!r}")
                continue
            self.tally.answers[version] += 1
            if version not in set().union(*self._live[first:]):
                self.tally.wrong.append(f"version {version} was not live")


def main() -> int:
    """Run it, print the tally, and tell whether all was well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--callers", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        write_versions(options.models, options.model, models)
        question = questions(models)[0]
        with serving(models) as (process, address, admin):
            switches = Switches(models, question, process)
            tally = asyncio.run(switches.run(address, admin, options.reloads, options.callers))
    print(f"{tally.reloads:8,}  reloads, {sum(tally.seconds) / tally.reloads * 1000:.0f} ms each")
    for version, count in sorted(tally.answers.items()):
        print(f"{count:8,}  answers by version {version}")
    for number, size in tally.resident_bytes.items():
        print(f"{size / 2**20:8.1f}  MiB resident after {number} reloads")
    print(f"{len(tally.wrong):8,}  requests lost or answered by a version that was not live")
    for line in tally.wrong[:20]:
        print(f"WRONG  {line}")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
