"""The playground as somebody uses it, for the tests in browser/."""

import os
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

Point = tuple[float, float]


def miss(reason: str) -> NoReturn:
    """Skip where a tool is missing; fail where everything has to be there."""
    if "DUNNO_CHECK_DEPLOYMENT" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


class Playground:
    """The page as somebody uses it; whatever it complains of or asks others for is kept."""

    def __init__(self, page: "Page", address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda told: self.complaints.append(f"{told.type}: {told.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def open(self, model: str) -> None:
        """Open the page of a model, or of the tab `-live`."""
        self.page.goto("about:blank")  # else another fragment would not load it anew
        self.page.goto(f"{self.address}/#{model}")
        self.page.wait_for_selector("#live h2" if model == "-live" else "#examples .chip")

    def draw(self, *points: Point) -> None:
        """Draw a line with the mouse; points are shares of the drawing area."""
        box = self.page.locator("#drawing").bounding_box()
        assert box
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        mouse = self.page.mouse
        mouse.move(*places[0])
        mouse.down()
        for place in places[1:]:
            mouse.move(*place, steps=8)
        mouse.up()

    def button(self, name: str) -> "Locator":
        return self.page.get_by_role("button", name=name, exact=True)

    def says(self, text: str) -> None:
        """Wait until the verdict begins with a text."""
        from playwright.sync_api import expect  # noqa: PLC0415  there, or there were no page

        expect(self.page.locator("#verdict .says")).to_have_text(text, timeout=10_000)

    def code_has(self, text: str) -> None:
        """Wait until the request as code holds a text."""
        from playwright.sync_api import expect  # noqa: PLC0415  there, or there were no page

        expect(self.page.locator("#code code")).to_contain_text(text, timeout=10_000)

    def tab_to(self, selector: str) -> None:
        """Press the tabulator until something has the focus, as somebody without a mouse does."""
        for _ in range(80):
            self.page.keyboard.press("Tab")
            if self.page.evaluate(f"document.activeElement.matches({selector!r})"):
                return
        pytest.fail(f"the tabulator never comes to {selector}")
