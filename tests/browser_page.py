"""The playground as somebody uses it, for the tests in browser/."""

import itertools
import os
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

Point = tuple[float, float]
STEPS = 8
"""Moves from one point to the next."""


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
            mouse.move(*place, steps=STEPS)
        mouse.up()

    def draw_by_finger(self, *points: Point) -> None:
        """Draw a line by touch; points are shares of the drawing area, which has to be in view."""
        box = self.page.locator("#drawing").bounding_box()
        assert box
        corners = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.touch(*corners)

    def touch(self, *points: Point) -> None:
        """Put a finger down at the first point, move it over the others, and lift it."""
        session = self.page.context.new_cdp_session(self.page)
        path = [points[0]]
        for start, end in itertools.pairwise(points):
            path += [_between(start, end, step / STEPS) for step in range(1, STEPS + 1)]
        for number, (x, y) in enumerate(path):
            kind = "touchMove" if number else "touchStart"
            at = [{"x": x, "y": y}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        session.detach()

    def scrolled(self) -> float:
        """Return how far down the page is."""
        return float(self.page.evaluate("window.scrollY"))

    def scrolls_soon(self) -> bool:
        """Return whether the page is scrolled, or will be within seconds."""
        script = """() => new Promise((resolve) => {
            if (window.scrollY > 0) resolve(true);
            window.addEventListener("scroll", () => resolve(true), { once: true });
            setTimeout(() => resolve(false), 5000);
        })"""
        return bool(self.page.evaluate(script))

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


def _between(start: Point, end: Point, share: float) -> Point:
    return (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
