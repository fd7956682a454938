"""Pictures of the playground in docs/pictures: made anew where DUNNO_PICTURES is set."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_page import Playground
from PIL import Image

from service.prediction.catalogue import read_catalogue

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/pictures"
MODELS = list(read_catalogue(ROOT / "models").models)
MOST_BYTES = 80_000
WIDTH = 1080


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_its_picture(
    browser: "Browser", server: str, model: str, theme: str
) -> None:
    path = FOLDER / f"{model}-{theme}.png"
    if "DUNNO_PICTURES" in os.environ:
        path.write_bytes(taken(browser, server, model, theme))

    with Image.open(path) as picture:
        assert picture.width == WIDTH
    assert path.stat().st_size <= MOST_BYTES


def taken(browser: "Browser", server: str, model: str, theme: str) -> bytes:
    """Return a picture of a model's page: answered in light, refused in dark."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": 800},
        color_scheme="dark" if theme == "dark" else "light",
        reduced_motion="reduce",
    )
    playground = Playground(context.new_page(), server)
    playground.open(model)
    group = playground.page.locator("#examples .examples").nth(int(theme == "dark"))
    group.locator(".chip").first.click()
    wanted = "#verdict.is-unknown" if theme == "dark" else "#verdict.is-answered"
    playground.page.wait_for_selector(wanted)
    playground.page.mouse.move(0, 0)
    playground.page.evaluate("scrollTo(0, 0)")
    content = playground.page.screenshot(full_page=True)
    context.close()
    return with_few_colours(content)


def with_few_colours(content: bytes) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(content)) as picture:
        picture.convert("RGB").quantize(64).save(stream, "PNG", optimize=True)
    return stream.getvalue()
