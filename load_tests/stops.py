"""Is a request lost while servers are stopped and started under clients that keep connections open?

Starts a server, lets `--callers` clients ask it one question after another, each on a connection
that it keeps until an answer says `Connection: close`, and stops it by SIGTERM; then the next one
on the same port, `--stops` times. A client that cannot connect tries again: there is no other
server here. A request is lost if it was sent and its connection ended without an answer. Exits 1 if
one was lost, or if a server did not end with exit code 0.

    python load_tests/stops.py --stops 20 --workers 2
"""

import argparse
import asyncio
import collections
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvloop

BODY = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
REQUEST = (
    b"POST /predict/iris HTTP/1.1\r\nHost: dunno\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
AGAIN_S = 0.02
START_S = 60.0


@dataclass
class Tally:
    """What clients got."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    lost: collections.Counter[str] = field(default_factory=collections.Counter)
    is_over: bool = False


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bool]:
    """Return the status of an answer, and whether the connection stays."""
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(head.split()[1]), b"connection: close" not in lines


async def call(port: int, pause_s: float, tally: Tally) -> None:
    """Ask until it is over, on one connection after another."""
    while not tally.is_over:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(AGAIN_S)
            continue
        try:
            stays = True
            while stays and not tally.is_over:
                status, stays = await ask(reader, writer)
                tally.statuses[status] += 1
                await asyncio.sleep(pause_s)
        except (OSError, asyncio.IncompleteReadError) as error:
            tally.lost[type(error).__name__] += 1
        finally:
            writer.close()


async def stop_again_and_again(options: argparse.Namespace, port: int, tally: Tally) -> list[int]:
    """Return the exit codes of the servers that were stopped."""
    calls = [asyncio.create_task(call(port, options.pause, tally)) for _ in range(options.callers)]
    codes = []
    for _ in range(options.stops):
        process = await asyncio.to_thread(start, options, port)
        await asyncio.sleep(options.seconds)
        process.send_signal(signal.SIGTERM)
        codes.append(await asyncio.to_thread(process.wait))
    tally.is_over = True
    await asyncio.gather(*calls)
    return codes


def start(options: argparse.Namespace, port: int) -> "subprocess.Popen[bytes]":
    """Return a server that is ready."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
    environment = os.environ | {"DUNNO_WORKERS": str(options.workers)}
    process = subprocess.Popen(  # noqa: S603  our own command
        [*command, "--models", str(options.models)], env=environment, stderr=subprocess.DEVNULL
    )
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return process
        except httpx.HTTPError:
            pass
        time.sleep(AGAIN_S)
    process.kill()
    raise SystemExit("the server did not start")


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def main() -> int:
    """Run and print what became of the requests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2, help="of each server before its end")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two questions")
    options = parser.parse_args()
    tally = Tally()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        codes = runner.run(stop_again_and_again(options, free_port(), tally))
    answers = sum(tally.statuses.values())
    print(
        f"{options.stops} stops, {options.workers} worker(s), {options.callers} clients: "
        f"{answers:,} answers {dict(tally.statuses)}, lost {dict(tally.lost) or 'none'}, "
        f"exit codes {dict(collections.Counter(codes))}"
    )
    return int(bool(tally.lost) or set(codes) != {0})


if __name__ == "__main__":
    sys.exit(main())
