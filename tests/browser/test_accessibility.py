"""axe-core looks at every page, in light and in dark, as wide as a desk and as a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser_page import Playground, miss

from service.prediction.catalogue import read_catalogue

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
AXE = ROOT / "build/node_modules/axe-core/axe.min.js"
PLACES = [*(f"#{name}" for name in read_catalogue(ROOT / "models").models), "#-live", "docs"]


@pytest.fixture(scope="session")
def axe() -> str:
    if not AXE.exists():
        miss("axe-core is missing: npm install --no-save --prefix build axe-core@4.14.1")
    return AXE.read_text()


@pytest.fixture(params=["light", "dark"])
def themed(browser: "Browser", server: str, request: pytest.FixtureRequest) -> Iterator[Playground]:
    context = browser.new_context(color_scheme=request.param, reduced_motion="reduce")
    yield Playground(context.new_page(), server)
    context.close()


@pytest.mark.parametrize("width", [360, 1180])
@pytest.mark.parametrize("place", PLACES)
def test_nobody_is_kept_out(themed: Playground, axe: str, place: str, width: int) -> None:
    page = themed.page
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{themed.address}/{place}")
    page.wait_for_selector("main h2:visible")
    page.wait_for_load_state("networkidle")
    for chip in page.locator("#examples .chip:visible").all()[-3:-2]:
        chip.click()
        page.wait_for_selector("#verdict .says")

    page.evaluate(axe)
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run()).violations")

    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found] == []
