"""The repository's models behind a real server, and Debian's Chromium in front of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from browser_page import Playground, miss
from conftest import Server

from service.api.hotpath import HotProtocol
from service.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Address of a server of all models."""
    with Server(Settings(models=ROOT / "models"), HotProtocol) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium, for one file: Playwright's event loop would be in the way of other tests' own."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415  may be missing
    except ImportError:
        miss("playwright is not installed: `make test` does that")
    path = shutil.which("chromium")
    if path is None:
        miss("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def playground(browser: "Browser", server: str) -> Iterator[Playground]:
    """A fresh page that must not complain of anything, nor ask another host."""
    context = browser.new_context(
        viewport={"width": 1180, "height": 900},
        permissions=["clipboard-read", "clipboard-write", "camera"],
    )
    playground = Playground(context.new_page(), server)
    yield playground
    context.close()
    assert playground.complaints == []
    assert playground.hosts <= {urlsplit(server).netloc, ""}
