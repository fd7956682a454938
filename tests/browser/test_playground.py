"""The playground in Chromium: what is drawn, dropped, typed and moved, and what it then says."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from browser_page import Playground
from bundles import fruit_bundle, write_catalogue
from conftest import Server
from keys import WHOLE, write_keys
from PIL import Image

from dunno_client import Prediction
from service.api.hotpath import HotProtocol
from service.prediction.catalogue import read_catalogue
from service.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MODELS = list(read_catalogue(ROOT / "models").models)
PAGES = [*(f"#{name}" for name in MODELS), "#-live", "docs"]
SEVEN = [(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)]
SCRIBBLE = [
    *((0.1, 0.2), (0.9, 0.8), (0.2, 0.9), (0.8, 0.1), (0.5, 0.95), (0.1, 0.5)),
    *((0.9, 0.45), (0.3, 0.1)),
]
DONT_KNOW = "I don’t know"  # noqa: RUF001  as the page sets it


def photograph() -> bytes:
    """Return a PNG of a sky over a meadow, with the grain of a camera."""
    down, across = np.mgrid[0:240, 0:320] / [[[240]], [[320]]]
    sky = np.stack([90 + 120 * down, 140 + 70 * down, 220 - 40 * across], axis=-1)
    meadow = np.stack([60 + 60 * across, 110 + 50 * np.sin(9 * across), 40 + 30 * down], axis=-1)
    horizon = 0.55 + 0.08 * np.sin(5 * across)
    scene = np.where((down < horizon)[..., None], sky, meadow)
    grain = np.random.default_rng(0).normal(0, 6, scene.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(scene + grain, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def drop(playground: Playground, content: bytes, media_type: str) -> None:
    script = """([text, type]) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const dropped = new DataTransfer();
        dropped.items.add(new File([bytes], "dropped", { type }));
        return dropped;
    }"""
    dropped = playground.page.evaluate_handle(
        script, [base64.b64encode(content).decode(), media_type]
    )
    playground.page.dispatch_event(".pictures", "drop", {"dataTransfer": dropped})


def copied(playground: Playground, language: str) -> str:
    playground.page.get_by_label(language, exact=True).check(force=True)
    playground.button("Copy").click()
    playground.page.get_by_text("Copied").wait_for()
    return str(playground.page.evaluate("navigator.clipboard.readText()"))


def shown_verdict(playground: Playground) -> str:
    return playground.page.locator("#verdict .says").inner_text()


def test_drawn_seven_is_a_seven(playground: Playground) -> None:
    playground.open("mnist")

    playground.draw(*SEVEN)

    playground.says("7")


def test_seven_that_a_finger_draws_is_a_seven_and_scrolls_nothing(
    browser: "Browser", server: str
) -> None:
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 640})
    playground = Playground(context.new_page(), server)
    playground.open("mnist")
    playground.page.locator("#drawing").scroll_into_view_if_needed()
    before = playground.scrolled()

    playground.draw_by_finger(*SEVEN)

    playground.says("7")
    assert playground.scrolled() == before
    assert playground.complaints == []
    context.close()


def test_verdict_out_of_sight_is_told_at_the_lower_edge(playground: Playground) -> None:
    page = playground.page
    page.set_viewport_size({"width": 390, "height": 640})
    playground.open("mnist")
    glance = page.locator("#glance")

    playground.draw(*SEVEN)
    playground.button("7").wait_for()
    glance.click()

    glance.wait_for(state="hidden")
    playground.says("7")


def test_verdict_stays_in_sight_beside_a_long_form(playground: Playground) -> None:
    from playwright.sync_api import expect  # noqa: PLC0415  there, or there were no page

    page = playground.page
    page.set_viewport_size({"width": 1180, "height": 600})
    playground.open("wine")
    playground.says("red")
    lower = page.locator("#verdict").bounding_box()
    assert lower

    page.evaluate("(y) => window.scrollTo(0, y)", lower["y"] + lower["height"])

    assert playground.scrolled() > lower["y"]
    expect(page.locator("#verdict .says")).to_be_in_viewport(ratio=1)


def test_verdict_in_sight_is_told_once(playground: Playground) -> None:
    playground.open("mnist")
    playground.draw(*SEVEN)
    playground.says("7")

    playground.page.keyboard.press("End")
    playground.page.locator("#code").scroll_into_view_if_needed()

    assert not playground.page.locator("#glance").is_visible()


def test_finger_beside_the_drawing_scrolls(browser: "Browser", server: str) -> None:
    """Else the test above would show nothing."""
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 640})
    playground = Playground(context.new_page(), server)
    playground.open("mnist")

    playground.touch((200, 280), (200, 160), (200, 40))  # on the words above it

    assert playground.scrolls_soon()
    context.close()


def test_drawn_scribble_is_not_known(playground: Playground) -> None:
    playground.open("mnist")

    playground.draw(*SCRIBBLE)

    playground.says(DONT_KNOW)
    assert "unlike what the model has learnt" in playground.page.inner_text("#verdict")


def test_what_is_undone_is_gone(playground: Playground) -> None:
    playground.open("mnist")
    playground.draw(*SEVEN)
    playground.says("7")
    playground.draw(*SCRIBBLE)
    playground.says(DONT_KNOW)

    playground.button("Undo").click()

    playground.says("7")


def test_dropped_photograph_is_not_known(playground: Playground) -> None:
    playground.open("mnist")

    drop(playground, photograph(), "image/png")

    playground.says(DONT_KNOW)


def test_pasted_picture_is_judged(playground: Playground) -> None:
    playground.open("mnist")
    playground.page.evaluate(
        """async (text) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const blob = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode((ROOT / "docs/examples/seven.png").read_bytes()).decode(),
    )

    playground.page.keyboard.press("Control+V")

    playground.says("7")


def test_chosen_file_is_judged(playground: Playground) -> None:
    playground.open("mnist")

    playground.page.set_input_files("#file", ROOT / "docs/examples/seven.png")

    playground.says("7")


def test_file_that_is_no_picture_is_told(playground: Playground) -> None:
    playground.open("mnist")

    playground.page.set_input_files("#file", ROOT / "docs/examples/review.txt")

    playground.page.get_by_text("That is no picture.").wait_for()


def test_picture_of_the_camera_is_judged(playground: Playground) -> None:
    playground.open("mnist")

    playground.button("Camera").click()
    playground.button("Take the picture").click()

    playground.says(DONT_KNOW)


def test_camera_that_is_allowed_too_late_is_let_go(playground: Playground) -> None:
    playground.open("mnist")
    playground.page.evaluate("""() => {
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        const allowed = new Promise((resolve) => { window.allow = resolve; });
        navigator.mediaDevices.getUserMedia = async (wish) => {
            await allowed;
            window.track = (await ask(wish)).getTracks()[0];
            return new MediaStream([window.track]);
        };
    }""")
    playground.button("Camera").click()
    playground.page.locator(".pill", has_text="wine").click()
    playground.says("red")

    is_let_go = playground.page.evaluate("""() => new Promise((resolve) => {
        setTimeout(() => resolve(false), 5000);
        setInterval(() => window.track?.readyState === "ended" && resolve(true), 10);
        window.allow();
    })""")

    assert is_let_go


@pytest.mark.parametrize("model", MODELS)
def test_examples_get_the_verdict_that_is_written_on_them(
    playground: Playground, server: str, model: str
) -> None:
    playground.open(model)
    told = httpx.get(f"{server}/models/{model}?examples=true").json()["examples"]
    chips = playground.page.locator("#examples .examples").first.locator(".chip")

    for number, example in enumerate(told):
        chips.nth(number).click()
        playground.says(example["label"] or DONT_KNOW)

    assert chips.count() == len(told) == 8


@pytest.mark.parametrize(
    ("model", "button"),
    [
        ("mnist", "Scribble"),
        ("mnist", "Noise"),
        ("mnist", "Landscape"),
        ("fashion_mnist", "Scribble"),
        ("wine", "Values × 1000"),  # noqa: RUF001  as the page has it
        ("wine", "Columns reversed"),
        ("iris", "All zeros"),
        ("imdb", "Words shuffled"),
        ("imdb", "Random letters"),
        ("imdb", "Source code"),
    ],
)
def test_strange_inputs_are_refused(playground: Playground, model: str, button: str) -> None:
    playground.open(model)

    playground.button(button).click()

    playground.says(DONT_KNOW)


def test_inverted_digit_is_the_same_digit(playground: Playground) -> None:
    playground.open("mnist")
    playground.draw(*SEVEN)
    playground.says("7")

    playground.button("Inverted").click()

    playground.page.wait_for_selector(".hint", state="hidden")
    playground.says("7")


def test_stricter_risk_makes_an_answer_a_refusal(playground: Playground) -> None:
    playground.open("imdb")
    playground.says("negative")
    before = playground.page.locator("#risk svg").get_attribute("aria-label")

    playground.page.get_by_label("Errors among the answers").fill("0")

    playground.says(DONT_KNOW)
    after = playground.page.locator("#risk svg").get_attribute("aria-label")
    assert (before, after) == (
        "Risk–coverage curve: at most 5 % wrong, 88 % answered.",  # noqa: RUF001  a dash
        "Risk–coverage curve: at most 1 % wrong, 45 % answered.",  # noqa: RUF001  a dash
    )


def test_looser_risk_than_the_operator_allows_is_shown_and_not_asked_for(
    playground: Playground,
) -> None:
    playground.open("fashion_mnist")

    playground.page.get_by_label("Errors among the answers").fill("3")

    words = playground.page.locator("#risk-words")
    assert "This server does not go beyond 2 %" in words.inner_text()
    assert "max_error" not in copied_after_an_example(playground)


def copied_after_an_example(playground: Playground) -> str:
    playground.page.locator("#examples .chip").first.click()
    playground.says("Ankle boot")
    return copied(playground, "curl")


@pytest.mark.parametrize("model", ["mnist", "wine", "imdb", "titanic"])
def test_copied_curl_line_gives_the_same_verdict_in_a_shell(
    playground: Playground, model: str
) -> None:
    playground.open(model)
    playground.page.locator("#examples .chip").first.click()
    playground.page.wait_for_selector("#verdict .says")

    line = copied(playground, "curl")

    command = ["bash", "-c", line]
    answer = subprocess.run(command, capture_output=True, check=True)  # noqa: S603  our own line
    assert verdict_of(json.loads(answer.stdout)["predictions"][0]) == shown_verdict(playground)


def verdict_of(row: dict[str, Any]) -> str:
    return row["label"] or DONT_KNOW


def test_copied_line_of_a_drawing_gives_the_same_verdict_in_a_shell(
    playground: Playground,
) -> None:
    playground.open("mnist")
    playground.draw(*SEVEN)
    playground.says("7")

    line = copied(playground, "curl")

    command = ["bash", "-c", line]
    answer = subprocess.run(command, capture_output=True, check=True)  # noqa: S603  our own line
    assert json.loads(answer.stdout)["predictions"][0]["label"] == "7"


def test_copied_line_of_a_text_with_quotes_is_what_was_typed(playground: Playground) -> None:
    playground.open("imdb")
    playground.page.get_by_label("Text", exact=True).fill("It's \"bad\" $HOME `ls` \\ \n'really'")
    playground.code_has("really")

    line = copied(playground, "curl").replace("curl -s", "printf '%s|'", 1)

    command = ["bash", "-c", line]
    words = subprocess.run(command, capture_output=True, check=True)  # noqa: S603  our own line
    body = words.stdout.decode().split("|")[-2]
    assert json.loads(body) == {"instances": ["It's \"bad\" $HOME `ls` \\ \n'really'"]}


@pytest.mark.parametrize("model", ["mnist", "wine", "imdb", "titanic"])
def test_copied_python_gives_the_same_verdict(playground: Playground, model: str) -> None:
    playground.open(model)
    playground.page.locator("#examples .chip").first.click()
    playground.page.wait_for_selector("#verdict .says")

    code = copied(playground, "Python")

    first = "# in the clone of Dunno: pip install -e '.[client]'\nfrom dunno_client import Dunno\n"
    assert code.startswith(first)
    assert run(code).label == shown_verdict(playground)


def run(code: str) -> Prediction:
    """Return what the code prints, a `Prediction` as Python writes it."""
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, check=True)  # noqa: S603  our own code
    found = eval(told.stdout, {"Prediction": Prediction})  # noqa: S307  printed by our own code
    assert isinstance(found, Prediction)
    return found


def test_copied_python_asks_for_the_risk_that_is_shown(playground: Playground) -> None:
    playground.open("imdb")
    playground.says("negative")
    playground.page.get_by_label("Errors among the answers").fill("0")
    playground.says(DONT_KNOW)

    code = copied(playground, "Python")

    assert ", max_error=0.01)" in code
    assert not run(code).is_answered


def test_copied_javascript_gives_the_same_verdict(playground: Playground) -> None:
    playground.open("wine")
    playground.says("red")

    code = copied(playground, "JavaScript").replace("console.log(", "return (")

    row = playground.page.evaluate(f"async () => {{ {code} }}")
    assert row["label"] == "red"


def test_field_that_may_be_missing_is_sent_as_null(playground: Playground) -> None:
    playground.open("titanic")

    playground.page.get_by_label("age years").fill("")
    playground.code_has('"age":null')

    playground.page.wait_for_selector("#verdict.is-answered, #verdict.is-unknown")


def test_field_that_must_be_there_is_asked_for(playground: Playground) -> None:
    playground.open("wine")

    playground.page.get_by_label("density g/mL").fill("")

    playground.page.get_by_text("Fill in density.").wait_for()


def test_slider_and_number_of_a_field_are_one(playground: Playground) -> None:
    playground.open("wine")

    playground.page.get_by_label("alcohol, slider").fill("12")

    assert playground.page.get_by_label("alcohol % by volume").input_value() == "12"


def test_value_out_of_bounds_is_told_in_the_servers_words(playground: Playground) -> None:
    playground.open("wine")

    playground.page.get_by_label("density g/mL").fill("996")

    playground.says("Not taken")
    assert "density" in playground.page.inner_text("#verdict .why")
    assert [each for each in playground.complaints if "400" not in each] == []
    playground.complaints.clear()  # Chromium tells of every status from 400 on


def test_live_tab_draws_the_metrics(playground: Playground) -> None:
    playground.open("wine")
    playground.says("red")

    playground.page.get_by_role("tab", name="Live").click()

    playground.page.get_by_role("rowheader", name="wine").wait_for()
    for title in ("Requests a second", "Latency", "Verdicts", "Batch sizes"):
        assert playground.page.get_by_role("heading", name=title).is_visible()
    assert "p99" in playground.page.inner_text("#live")


def test_metrics_that_cannot_be_had_are_told(playground: Playground) -> None:
    playground.page.route("**/metrics", lambda route: route.abort())

    playground.open("-live")

    playground.page.get_by_text("The metrics are not to be had here").wait_for()
    playground.page.get_by_text("The server cannot be reached.").wait_for()
    playground.complaints.clear()  # Chromium tells of the request that failed


def test_key_goes_with_requests_and_nowhere_else(playground: Playground) -> None:
    playground.open("wine")
    playground.says("red")
    shown: list[str] = []
    playground.page.on(
        "request", lambda request: shown.append(request.headers.get("authorization", ""))
    )

    playground.page.get_by_text("Key", exact=True).click()
    playground.page.get_by_label("API key").fill("dunno_secret")
    playground.button("Use").click()
    playground.page.locator("#examples .chip").nth(1).click()
    playground.code_has("$DUNNO_KEY")

    assert set(shown) == {"Bearer dunno_secret"}
    assert "secret" not in copied(playground, "curl")
    kept = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
    assert "secret" not in playground.page.evaluate(kept)


def test_key_that_is_refused_is_told(browser: "Browser", tmp_path: Path) -> None:
    settings = Settings(models=ROOT / "models", keys=write_keys(tmp_path))
    with Server(settings, HotProtocol) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.get_by_text("This server asks for a key.").wait_for()

        page.get_by_label("API key of this server").fill("dunno_wrong")
        page.get_by_role("button", name="Use").click()

        page.get_by_text("The key was refused.").wait_for()


def test_model_that_cannot_be_had_leaves_the_one_before(playground: Playground) -> None:
    page = playground.page
    playground.open("wine")
    playground.says("red")
    page.route("**/models/iris?*", lambda route: route.abort())

    page.locator(".pill", has_text="iris").click()
    page.get_by_text("The server cannot be reached.").wait_for()

    assert page.get_by_role("radio", name="wine").is_checked()
    assert page.url.endswith("#wine")
    playground.complaints.clear()  # Chromium tells of the request that failed


def test_address_that_is_no_text_opens_the_first_model(playground: Playground) -> None:
    playground.open("%")

    playground.says("red")


def test_names_are_shown_as_they_are_and_long_ones_in_several_lines(
    browser: "Browser", tmp_path: Path
) -> None:
    long = "a name that goes on and on, longer than any line of a telephone has room for it"
    fruit_bundle(tmp_path, labels=(long, "<b>plum</b>", "<img src=x onerror=alert(1)>"))
    write_catalogue(tmp_path, "fruit")
    with (
        Server(Settings(models=tmp_path), HotProtocol) as address,
        browser.new_context(viewport={"width": 360, "height": 740}) as context,
    ):
        playground = Playground(context.new_page(), address)
        playground.open("fruit")
        page = playground.page
        page.locator("#bars tbody tr").nth(2).wait_for()

        assert page.locator("#bars th[scope=row]").all_inner_texts() == [
            *(long, "<b>plum</b>", "<img src=x onerror=alert(1)>")
        ]
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        inside = (
            "[...document.querySelectorAll('.chip')].every((e) => e.scrollWidth <= e.clientWidth)"
        )
        assert page.evaluate(inside)
        assert playground.complaints == []


def test_keyboard_alone_is_enough(playground: Playground) -> None:
    playground.open("wine")

    playground.tab_to(".skip")
    playground.page.keyboard.press("Enter")
    playground.tab_to("input[name=model]")
    for _ in range(MODELS.index("imdb") - MODELS.index("wine")):
        playground.page.keyboard.press("ArrowRight")
    playground.says("negative")
    playground.tab_to("#text")
    playground.page.keyboard.press("Control+A")
    playground.page.keyboard.type("import numpy as np")
    playground.says(DONT_KNOW)
    playground.tab_to(".chip")
    playground.page.keyboard.press("Enter")
    playground.says("negative")
    playground.tab_to("#max-error")
    playground.page.keyboard.press("Home")
    playground.says(DONT_KNOW)
    playground.tab_to(".copy")
    playground.page.keyboard.press("Enter")
    playground.page.get_by_text("Copied").wait_for()


def test_tabs_are_changed_by_arrows(playground: Playground) -> None:
    playground.open("wine")

    playground.tab_to("#tab-try")
    playground.page.keyboard.press("ArrowRight")

    playground.page.get_by_role("heading", name="Latency").wait_for()
    assert playground.page.evaluate("document.activeElement.id") == "tab-live"


def test_verdict_is_told_to_who_cannot_see_it(playground: Playground) -> None:
    playground.open("wine")
    playground.says("red")

    status = playground.page.get_by_role("status").filter(has_text="Sure enough")

    assert status.get_attribute("aria-live") == "polite"
    assert playground.page.get_by_role("row", name="red").get_by_role("cell").count() >= 1


@pytest.mark.parametrize("place", PAGES)
def test_phone_needs_no_scrolling_to_the_side(playground: Playground, place: str) -> None:
    page = playground.page
    page.set_viewport_size({"width": 360, "height": 740})

    page.goto(f"{playground.address}/{place}")
    page.wait_for_selector("main h2:visible")
    page.wait_for_load_state("networkidle")

    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_reference_tells_every_route(playground: Playground, server: str) -> None:
    paths = httpx.get(f"{server}/openapi.json").json()["paths"]

    playground.page.goto(f"{server}/docs")
    playground.page.wait_for_selector("summary .path")

    shown = set(playground.page.locator("summary .path").all_inner_texts())
    assert shown == set(paths)


def test_reference_shows_examples_of_requests_answers_and_problems(
    playground: Playground, server: str
) -> None:
    page = playground.page
    page.goto(f"{server}/docs")
    example = page.locator("details.example", has_text="One row, by the names").first

    example.locator("summary").click()

    shown = example.locator("pre").inner_text()
    assert list(json.loads(shown)) == ["instances"]
    names = page.locator("details.example > summary > code").all_inner_texts()
    assert {"input_invalid", "queue_full", "method_not_allowed"} <= set(names)
    assert page.locator("#security").count() == 0
    assert "`" not in page.locator("#routes").inner_text()


def test_reference_of_a_server_with_keys_tells_how_they_are_shown(
    browser: "Browser", tmp_path: Path
) -> None:
    settings = Settings(models=ROOT / "models", keys=write_keys(tmp_path))
    with Server(settings, HotProtocol) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}/docs")
        page.get_by_label("API key of this server").fill(WHOLE)
        page.get_by_role("button", name="Use").click()
        told = page.locator("#security").inner_text()

        assert "X-API-Key" in told
        assert "Authorization: Bearer" in told
        assert "Needs no key." in page.locator("details", has_text="/livez").first.inner_html()
