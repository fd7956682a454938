"""Fixtures that several folders of tests share."""

import asyncio
import logging
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from bundles import fruit_bundle, picture_bundle, review_bundle, write_catalogue
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.hotpath import HotProtocol
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parents[1]


# A shell without job control starts background jobs with SIGINT ignored, and so would every program
# that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    left_out: Counter[str] = Counter()
    config.stash[LEFT_OUT] = left_out


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the tests that `-m "not slow"` leaves out, by folder."""
    for item in items:
        item.config.stash[LEFT_OUT][item.path.relative_to(ROOT / "tests").parts[0]] += 1


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a process of pytest-xdist over to the one that reports."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        left_out = session.config.stash[LEFT_OUT]
        output["left_out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the counts over: each process leaves out the same tests."""
    left_out: Counter[str] = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))
    node.config.stash[LEFT_OUT] = left_out


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    left_out = config.stash[LEFT_OUT]
    if left_out and config.option.markexpr == "not slow":
        folders = ", ".join(f"{folder} {n}" for folder, n in sorted(left_out.items()))
        terminalreporter.write_line(
            f"`make check` also runs {left_out.total()} slow tests ({folders}), linters and types."
        )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _logging_is_left_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one bundle for each kind of input and their catalogue."""
    folder = tmp_path_factory.mktemp("models")
    fruit_bundle(folder)
    fruit_bundle(folder, version="2")
    picture_bundle(folder)
    review_bundle(folder)
    more = """
        [models.fruits]
        bundle = "fruit"
        versions = ["2", "1"]
        aliases = { stable = "1" }
        allow_looser = true
    """
    return write_catalogue(folder, "fruit", "picture", "review", more=more)


class Server:
    """A real server on a free port, in a thread of this process."""

    def __init__(self, settings: Settings, http: type[asyncio.Protocol], **options: Any) -> None:
        app = create_app(settings)
        config = uvicorn.Config(
            app, port=0, log_config=None, http=http, loop="uvloop", proxy_headers=False, **options
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> str:
        """Start and return the address."""
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            self._thread.join(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture(scope="session", params=[HttpToolsProtocol, HotProtocol], ids=["asgi", "hot"])
def address(models: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a server with small limits, so that tests can reach them.

    Once with uvicorn's own protocol and once with ours: nobody should be able to tell.
    """
    settings = Settings(
        models=models,
        max_body_bytes=100_000,
        max_request_rows=200,
        max_picture_pixels=1_000_000,
        max_picture_side=2000,
        body_timeout_ms=600,
    )
    with Server(settings, request.param) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address) as client:
        yield client
