"""How much faster is it than others? Ours, plain FastAPI and any further server, in one run.

    python load_tests/compare.py --concurrency 1,64,256 --rounds 3 --seconds 5
    python load_tests/compare.py --peers OTHER/bin/python    # Mosec and LitServe as well
    python load_tests/compare.py --server 'other/inference=python app.py --port $PORT'

OTHER is a virtual environment with `pip install mosec litserve onnxruntime orjson pyzmq`. All serve
the same small network, get the same body (one picture of 28 by 28 as JSON) and are loaded by the
client of `dunno bench` on the same machine, one after the other, in interleaved rounds
(A B C A B C), each time as fresh processes. What counts are the ratios of medians, not the numbers.

    python load_tests/compare.py --reviews models/imdb/1

compares ours and plain FastAPI on reviews of 230 words instead, by a bundle of texts.

A server is NAME=COMMAND or NAME/PATH=COMMAND; the path is /predict unless given. COMMAND is a line
for bash that serves until SIGTERM; its environment has

    PORT     where to listen, on 127.0.0.1
    MODEL    ONNX file: `input` float32 (rows, 28, 28, 1), 0 to 1; `output` probabilities (rows, 10)
    WORKERS  how many processes to compute in
    WORK     an empty folder
    BODY     json: it gets POST PATH with {"instances": [28 lists of 28 numbers from 0 to 1]}

The first list of so many numbers in its JSON answer has to be the probabilities, which is checked
before anything is measured. Exits 1 if a server does not start, answers wrongly, or fails under
load.
"""

import argparse
import itertools
import json
import math
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich import box
from rich.console import Console
from rich.table import Table

from service.bench import (
    BenchFailed,
    Plan,
    Request,
    Step,
    ask_once,
    build_request,
    measure_curve,
)
from service.bundle import read_bundle
from service.bundle.manifest import TextInput
from service.decision import calibrated
from service.inputs.texts import Tokenizer, read_vocabulary
from service.runtimes import RuntimeOptions, load_runtime
from service.settings import usable_cores

PEERS = Path(__file__).parent / "bench_peers"
SEED = 7
SAMPLES = 8
REVIEW_WORDS = 230
TOLERANCE = 1e-3
"""Answers are rounded, to four places at the least."""

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Server:
    """A server of the comparison: how it is started and where it answers."""

    name: str
    path: str
    command: str


@dataclass(frozen=True)
class Task:
    """What every server has to do: rows as bodies, and their probabilities, (rows, labels)."""

    model: Path
    bodies: Sequence[bytes]
    expected: NDArray[np.floating]


class Medians(NamedTuple):
    """What the rounds brought at one number of connections."""

    requests_per_s: float
    p50_s: float
    p99_s: float
    is_limited_by_client: bool
    """Whether the client used up its core in one of the rounds."""


def own_servers() -> list[Server]:
    """Return ours and plain FastAPI, run by the Python that runs this."""
    ours, prefix = shlex.quote(str(PEERS / "ours")), shlex.quote(sys.prefix)
    return [
        Server(
            "ours",
            "/predict/mnist?probabilities=list",
            f"export PEER={ours} VENV={prefix}; exec bash {ours}/start.sh",
        ),
        _plain_fastapi("plain_fastapi"),
    ]


def review_servers() -> list[Server]:
    """Return the same two for a bundle of texts."""
    serve = f"{shlex.quote(sys.executable)} -m service.cli serve --port $PORT --models $WORK"
    ours = (
        "mkdir $WORK/reviews && ln -s $MODEL $WORK/reviews/$(basename $MODEL) && "
        "echo '[models.reviews]' > $WORK/catalogue.toml && "
        f"DUNNO_WORKERS=$WORKERS DUNNO_LOG_LEVEL=warning exec {serve}"
    )
    return [
        Server("ours", "/predict/reviews?probabilities=list", ours),
        _plain_fastapi("plain_reviews"),
    ]


def _plain_fastapi(folder: str) -> Server:
    command = (
        f"exec {shlex.quote(sys.executable)} -m uvicorn app:app "
        f"--app-dir {shlex.quote(str(PEERS / folder))} --host 127.0.0.1 --port $PORT "
        "--workers $WORKERS --no-access-log --log-level warning"
    )
    return Server("plain FastAPI", "/predict", command)


def peer_servers(python: str) -> list[Server]:
    """Return Mosec and LitServe, run by a Python that has them."""
    mosec, litserve = (shlex.quote(str(PEERS / name / "app.py")) for name in ("mosec", "litserve"))
    return [
        Server(
            "Mosec",
            "/inference",
            f"exec {shlex.quote(python)} {mosec} --address 127.0.0.1 --port $PORT "
            "--log-level warning --path $WORK/ipc",
        ),
        Server("LitServe", "/predict", f"exec {shlex.quote(python)} {litserve}"),
    ]


def parse_server(text: str) -> Server:
    """Return the server of NAME/PATH=COMMAND."""
    where, found, command = text.partition("=")
    name, _, path = where.partition("/")
    if not found or not name or not command:
        raise argparse.ArgumentTypeError(f"expected NAME=COMMAND or NAME/PATH=COMMAND, got {text}")
    return Server(name, "/" + (path or "predict"), command)


def write_network(path: Path) -> None:
    """Write the small network that lectures show for digits, with random weights."""
    rng = np.random.default_rng(SEED)

    def weights(name: str, fan_in: int, *shape: int) -> onnx.TensorProto:
        values = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        return numpy_helper.from_array(values.astype(np.float32), name)

    def convolution(number: int, source: str) -> list[onnx.NodeProto]:
        kernel, same = {"kernel_shape": [5, 5]}, {"auto_pad": "SAME_UPPER"}
        pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
        return [
            helper.make_node("Conv", [source, f"k{number}"], [f"c{number}"], **kernel, **same),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
            helper.make_node("MaxPool", [f"r{number}"], [f"p{number}"], **pool),
        ]

    nodes = [
        helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]),
        *convolution(1, "planes"),
        *convolution(2, "p1"),
        helper.make_node("Flatten", ["p2"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["m3"]),
        helper.make_node("Relu", ["m3"], ["r3"]),
        helper.make_node("MatMul", ["r3", "w4"], ["m4"]),
        helper.make_node("Softmax", ["m4"], ["output"], axis=-1),
    ]
    constants = [
        weights("k1", 25, 16, 1, 5, 5),
        weights("k2", 400, 32, 16, 5, 5),
        weights("w3", 1568, 1568, 128),
        weights("w4", 128, 128, 10),
    ]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 28, 28, 1])
    target = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "network", [source], [target], constants)
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def make_task(folder: Path) -> Task:
    """Write the network, draw pictures with the empty border of digits, and run them."""
    model = folder / "model.onnx"
    write_network(model)
    pictures = np.zeros((SAMPLES, 28, 28), np.uint8)
    pictures[:, 7:21, 7:21] = np.random.default_rng(SEED).integers(0, 256, (SAMPLES, 14, 14))
    scaled = pictures / 255
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": scaled.astype(np.float32)[..., None]})
    bodies = [
        json.dumps({"instances": [picture.tolist()]}, separators=(",", ":")).encode()
        for picture in scaled
    ]
    return Task(model, bodies, expected)


def make_review_task(path: Path) -> Task:
    """Write reviews of words that a bundle of texts knows, and judge them."""
    bundle = read_bundle(path.resolve())
    declared = bundle.manifest.input
    if not isinstance(declared, TextInput):
        raise BenchFailed(f"{path}: not a bundle of texts")
    vocabulary = read_vocabulary(bundle.read(declared.vocabulary))
    rng = np.random.default_rng(SEED)
    texts = [" ".join(rng.choice(vocabulary[:2000], REVIEW_WORDS)) for _ in range(SAMPLES)]
    tokenizer = Tokenizer(declared, vocabulary)
    rows = np.stack([tokenizer.ids(text) for text in texts])
    runtime = load_runtime("onnx", bundle, RuntimeOptions(threads=1, device="cpu"))
    expected = calibrated(runtime.run(rows).logits, bundle.manifest.calibration)
    return Task(
        path.resolve(), [json.dumps({"instances": [text]}).encode() for text in texts], expected
    )


def first_numbers(answer: object, length: int) -> list[float] | None:
    """Return the first list of so many numbers in a JSON value."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if not isinstance(answer, list):
        return None
    if len(answer) == length and all(isinstance(number, int | float) for number in answer):
        return answer
    found = (first_numbers(part, length) for part in answer)
    return next((numbers for numbers in found if numbers is not None), None)


def check_answers(server: Server, requests: Sequence[Request], task: Task) -> None:
    """Raise `BenchFailed` unless every row comes back with its own probabilities."""
    for request, expected in zip(requests, task.expected, strict=True):
        status, body = ask_once(request)
        try:
            found = first_numbers(json.loads(body), len(expected))
        except ValueError:
            found = None
        if found is None or not np.allclose(found, expected, atol=TOLERANCE):
            raise BenchFailed(f"{server.name} answers wrongly: {status} {body[:200]!r}")


@contextmanager
def serving(server: Server, task: Task, workers: int) -> Iterator[list[Request]]:
    """Start a server, and yield one request for each body when it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as work:
        about = {"PORT": port, "WORKERS": workers, "MODEL": task.model, "WORK": work}
        process = subprocess.Popen(  # noqa: S603  who runs this names the commands
            ["bash", "-c", server.command],  # noqa: S607
            env=os.environ | {name: str(value) for name, value in about.items()} | {"BODY": "json"},
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}{server.path}"
        requests = [build_request(url, body, "application/json") for body in task.bodies]
        try:
            _wait_for(server, process, requests[0])
            yield requests
        finally:
            _stop(process)


def _wait_for(server: Server, process: "subprocess.Popen[bytes]", request: Request) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            if ask_once(request).status == 200:
                return
        except BenchFailed:
            pass  # it does not listen yet
        time.sleep(0.1)
    raise BenchFailed(f"{server.name} does not answer: {server.command}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop a server with all processes of its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        return


def measure(
    servers: Sequence[Server], task: Task, plan: Plan, *, rounds: int, workers: int
) -> dict[str, list[Step]]:
    """Return the steps of every server, of all rounds.

    Raises:
        BenchFailed: if a server does not start, answers wrongly or fails under load.
    """
    steps: dict[str, list[Step]] = {server.name: [] for server in servers}
    for number, server in itertools.product(range(rounds), servers):
        print(f"round {number + 1} of {rounds}: {server.name}", file=sys.stderr)
        with serving(server, task, workers) as requests:
            check_answers(server, requests, task)
            for step in measure_curve(requests[0], plan):
                if step.errors:
                    where = f"{server.name} at {step.connections} connections"
                    raise BenchFailed(f"{where}: {step.errors} errors under load")
                steps[server.name].append(step)
    return steps


def medians(steps: Sequence[Step], connections: int) -> Medians:
    """Return the medians over the rounds at this number of connections."""
    found = [step for step in steps if step.connections == connections]
    return Medians(
        statistics.median(step.requests_per_s for step in found),
        statistics.median(step.p50_s for step in found),
        statistics.median(step.p99_s for step in found),
        any(step.is_limited_by_client for step in found),
    )


def comparison(steps: Mapping[str, Sequence[Step]]) -> Table:
    """Return a line for each number of connections and server, with ratios to the first server."""
    table = Table(box=box.SIMPLE_HEAD)
    reference, *_ = steps
    for heading in ("connections", "server"):
        table.add_column(heading, no_wrap=True)
    for heading in ("requests/s", "p50 ms", "p99 ms", f"{reference} / this"):
        table.add_column(heading, justify="right", no_wrap=True)
    for connections in sorted({step.connections for step in steps[reference]}):
        first = medians(steps[reference], connections)
        for name, found in steps.items():
            here = medians(found, connections)
            table.add_row(
                str(connections),
                name + (" (limited by the client)" if here.is_limited_by_client else ""),
                f"{here.requests_per_s:,.0f}",
                f"{here.p50_s * 1000:.2f}",
                f"{here.p99_s * 1000:.2f}",
                f"{first.requests_per_s / here.requests_per_s:.2f}",
            )
        table.add_section()
    return table


def least_ratio(steps: Mapping[str, Sequence[Step]]) -> float:
    """Return the first server's requests/s by another's, where it is least."""
    reference, *others = steps
    ratios = (
        medians(steps[reference], step.connections).requests_per_s
        / medians(steps[name], step.connections).requests_per_s
        for name in others
        for step in steps[name]
    )
    return min(ratios, default=math.inf)


def main() -> int:
    """Measure, print the table, and tell whether all answered rightly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", metavar="PYTHON", help="one that has mosec and litserve")
    parser.add_argument("--reviews", type=Path, metavar="BUNDLE", help="texts, not pictures")
    parser.add_argument("--server", action="append", type=parse_server, default=[])
    parser.add_argument("--concurrency", default="1,64,256", help="numbers of connections")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="counted of each step")
    parser.add_argument("--workers", type=int, default=max(1, int(usable_cores())))
    parser.add_argument("--processes", type=int, default=1, help="of the client")
    parser.add_argument("--least-ratio", type=float, default=0.0, help="to each, or exit code 1")
    options = parser.parse_args()
    connections = tuple(int(number) for number in options.concurrency.split(","))
    plan = Plan(connections, options.seconds, options.processes)
    servers = review_servers() if options.reviews else own_servers()
    servers += peer_servers(options.peers) if options.peers else []
    servers += options.server
    with tempfile.TemporaryDirectory() as folder:
        try:
            task = make_review_task(options.reviews) if options.reviews else make_task(Path(folder))
            steps = measure(servers, task, plan, rounds=options.rounds, workers=options.workers)
        except BenchFailed as error:
            print(error, file=sys.stderr)
            return 1
    Console().print(comparison(steps))
    return 0 if least_ratio(steps) >= options.least_ratio else 1


if __name__ == "__main__":
    sys.exit(main())
