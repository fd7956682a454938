"""Does the server live within its memory limit, whatever is sent to it?

Starts a server in a control group of `--limit` MiB (the kernel kills what needs more) and sends it
the requests that need most memory and are within the default limits: pictures of 16 megapixels in a
few bytes, photographs of a phone, bodies of 8 MiB of brackets, numbers, cells and words, compressed
and not. First each kind twice at once, then all kinds from `--callers` connections for `--seconds`.
Meanwhile a client asks small questions.

Exits 1 if the server was killed, if a photograph was not answered, or if a small question got
another answer than 200; with 3 if there are no control groups that this user may write (root may).

    python load_tests/memory.py --limit 512
"""

import argparse
import asyncio
import collections
import contextlib
import gzip
import io
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from many_callers import serving
from PIL import Image

MEBIBYTE = 1024 * 1024
BODY_BYTES = 8 * MEBIBYTE
SIDE = 4000
JSON = "application/json"
SMALL = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]]}).encode()
FLAT_WEBP = bytes.fromhex("524946461a000000574542505650384c0d0000002f9fcfe713071011118888fe0700")
"""A lossless WebP of 4000 x 4000 pixels of one colour, 34 bytes."""


class Request(NamedTuple):
    """What is sent, and whether it must be answered with 200."""

    path: str
    content_type: str
    body: bytes
    is_normal: bool = False
    coding: str = ""


class Group(NamedTuple):
    """A control group with a memory limit, and where the kernel tells its highest use."""

    folder: Path
    peak_file: str

    @property
    def peak_bytes(self) -> int:
        """Highest use of memory so far; 0 if this kernel does not say."""
        with contextlib.suppress(OSError):
            return int((self.folder / self.peak_file).read_text())
        return 0


@contextlib.contextmanager
def limited(limit_bytes: int, root: Path = Path("/sys/fs/cgroup")) -> Iterator[Group | None]:
    """Make a control group for the time of a block; None if this user may make none."""
    is_version_1 = (root / "memory").is_dir()
    folder = (root / "memory" if is_version_1 else root) / f"dunno-memory-{os.getpid()}"
    limit, swap, peak = (
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes")
        if is_version_1
        else ("memory.max", "memory.swap.max", "memory.peak")
    )
    try:
        folder.mkdir()
        (folder / limit).write_text(str(limit_bytes))
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        yield None
        return
    with contextlib.suppress(OSError):  # not every kernel counts swap
        (folder / swap).write_text(str(limit_bytes) if is_version_1 else "0")
    try:
        yield Group(folder, peak)
    finally:
        while (folder / "cgroup.procs").read_text():
            time.sleep(0.05)
        folder.rmdir()


def filled(piece: bytes, head: bytes = b'{"instances":[', tail: bytes = b"]}") -> bytes:
    """Return a body of as many equal elements as fit into the largest body."""
    pieces = (BODY_BYTES - len(head) - len(tail) - len(piece)) // (len(piece) + 1)
    return head + b",".join([piece] * pieces) + tail


def picture(file_format: str, mode: str, **options: object) -> bytes:
    """Return a picture of 16 megapixels that is cheap to send."""
    ramp = np.add.outer(np.arange(SIDE) // 125, np.arange(SIDE) // 125).astype(np.uint8)
    made = Image.fromarray(ramp.astype(np.uint16) * 257) if mode == "I;16" else None
    stream = io.BytesIO()
    (made or Image.fromarray(ramp).convert(mode)).save(stream, file_format, **options)
    return stream.getvalue()


def photograph() -> bytes:
    """Return what a phone of 12 megapixels takes: a noisy JPEG that lies on its side."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (30, 40, 3), np.uint8)
    scene = Image.fromarray(coarse).resize((4000, 3000), Image.Resampling.BICUBIC)
    noise = rng.integers(-8, 9, (3000, 4000, 1))
    pixels = np.clip(np.asarray(scene).astype(np.int16) + noise, 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=92, exif=exif)
    return stream.getvalue()


def npy(values: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> bytes:
    """Return an array as a file."""
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def requests() -> dict[str, Request]:
    """Return the requests by what they are."""
    pixels = b"[" + b",".join([b"[" + b",".join([b"7"] * 28) + b"]"] * 28) + b"]"
    deep = b"[" + b",".join([b"[" + b",".join([b"[7]"] * 28) + b"]"] * 28) + b"]"
    fruit = b"[5.1,3.5,1.4,0.2]"
    images = {
        "photograph of a phone": (photograph(), "image/jpeg", True),
        "WebP of 34 bytes": (FLAT_WEBP, "image/webp", True),
        "WebP, lossless": (picture("WEBP", "RGBA", lossless=True, quality=0), "image/webp", True),
        "WebP, lossy": (picture("WEBP", "RGB"), "image/webp", True),
        "PNG of 16 bits": (picture("PNG", "I;16"), "image/png", True),
        "PNG with transparency": (picture("PNG", "RGBA"), "image/png", True),
        "PNG with a palette": (picture("PNG", "P"), "image/png", True),
        "JPEG, progressive": (
            picture("JPEG", "RGB", progressive=True, subsampling=0),
            "image/jpeg",
            True,
        ),
        "JPEG, CMYK": (picture("JPEG", "CMYK", progressive=True), "image/jpeg", True),
        "BMP of one bit": (picture("BMP", "1"), "image/bmp", True),
    }
    found = {
        name: Request("/predict/mnist", content_type, body, is_normal)
        for name, (body, content_type, is_normal) in images.items()
    }
    bodies = {
        "empty lists": ("/predict/iris", filled(b"[]")),
        "lists in lists": ("/predict/iris", filled(b"[" * 900 + b"]" * 900)),
        "ones": ("/predict/iris", filled(b"1")),
        "empty objects": ("/predict/iris", filled(b"{}")),
        "not a number": ("/predict/iris", filled(b"NaN")),
        "short texts": ("/predict/imdb", filled(b'"ab"')),
        "rows of iris": ("/predict/iris", filled(fruit)),
        "pixels": ("/predict/mnist", filled(pixels)),
        "pixels, one of them wrong": ("/predict/mnist", filled(pixels).replace(b"7", b"-1", 1)),
        "pixels in lists": ("/predict/mnist", filled(deep)),
        "v1: lists in lists": ("/v1/models/iris:predict", filled(b"[" * 900 + b"]" * 900)),
        "v1: ones": ("/v1/models/iris:predict", filled(b"1")),
        "v2: ones": (
            "/v2/models/mnist/infer",
            filled(
                b"1",
                b'{"inputs":[{"name":"x","datatype":"FP32","shape":[5000,28,28],"data":[',
                b"]}]}",
            ),
        ),
    }
    found |= {name: Request(path, JSON, body) for name, (path, body) in bodies.items()}
    text = b"good film. " * (BODY_BYTES // 11)
    table = b"a,b,c,d\n" + b"1,2,3,4\n" * (BODY_BYTES // 8 - 1)
    found["text"] = Request("/predict/imdb", "text/plain", text)
    found["text of wide characters"] = Request(
        "/predict/imdb", "text/plain", text[:-8] + "\U0001f600".encode()
    )
    found["CSV"] = Request("/predict/iris", "text/csv", table)
    whole = np.zeros((BODY_BYTES // 784 - 1, 28, 28), np.uint8)
    wide = np.zeros((BODY_BYTES // 784 // 8, 28, 28), np.float64)
    for name, values in (("npy of bytes", whole), ("npy of floats", wide)):
        found[name] = Request("/predict/mnist", "application/x-npy", npy(values))
    packed = gzip.compress(filled(fruit), 9)
    found["v1: compressed rows"] = Request("/v1/models/iris:predict", JSON, packed, coding="gzip")
    return found


async def send(client: httpx.AsyncClient, request: Request) -> int:
    """Return the status of a request; 0 if there was no answer."""
    headers = {"Content-Type": request.content_type}
    if request.coding:
        headers["Content-Encoding"] = request.coding
    try:
        response = await client.post(request.path, content=request.body, headers=headers)
    except httpx.HTTPError:
        return 0
    return response.status_code


async def ask_small(client: httpx.AsyncClient, statuses: collections.Counter[int]) -> None:
    """Ask small questions until cancelled."""
    while True:
        statuses[await send(client, Request("/predict/iris", JSON, SMALL))] += 1
        await asyncio.sleep(0.02)


async def measure(
    address: str, callers: int, seconds: float, report: Callable[[str, list[int]], None]
) -> collections.Counter[int]:
    """Send everything, and return the statuses of the small questions beside it."""
    kinds = requests()
    small: collections.Counter[int] = collections.Counter()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        asking = asyncio.create_task(ask_small(client, small))
        for name, request in kinds.items():
            report(name, await asyncio.gather(*(send(client, request) for _ in range(2))))
        end_s = time.monotonic() + seconds
        rng = random.Random(0)

        async def call() -> list[int]:
            found = []
            while time.monotonic() < end_s:
                found.append(await send(client, rng.choice(list(kinds.values()))))
            return found

        mixed = await asyncio.gather(*(call() for _ in range(callers)))
        report("all kinds", [status for found in mixed for status in found])
        asking.cancel()
    return small


def main() -> int:
    """Run and print one line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--limit", type=int, default=512, help="MiB that the server may take")
    parser.add_argument("--callers", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    is_right = True
    with limited(options.limit * MEBIBYTE) as group:
        if group is None:
            print(
                "no control group could be made: run as root, where they are mounted to be written"
            )
            return 3
        enter = ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group.folder / "cgroup.procs"))
        normal = {name for name, request in requests().items() if request.is_normal}

        def report(name: str, statuses: list[int]) -> None:
            nonlocal is_right
            counts = dict(sorted(collections.Counter(statuses).items()))
            print(f"{name:28} peak {group.peak_bytes / MEBIBYTE:5.0f} MiB  {counts}", flush=True)
            is_right &= 0 not in counts and (name not in normal or list(counts) == [200])

        with serving(options.models, enter) as (process, address):
            small = asyncio.run(measure(address, options.callers, options.seconds, report))
            killed = process.poll() is not None
    print(f"small questions meanwhile: {dict(small)}; {'KILLED' if killed else 'alive'}")
    return int(killed or not is_right or set(small) != {200})


if __name__ == "__main__":
    sys.exit(main())
