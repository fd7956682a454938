"""What the README promises of "don't know", on the bundles that are served, over HTTP.

No picture here is of a data set but the golden rows of a bundle itself. Nothing depends on what a
bundle learnt beyond what every good one must know, so that a new version is held to the same.
"""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ROOT, Server
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.api.hotpath import HotProtocol
from service.bundle import Bundle
from service.bundle.manifest import ImageInput, TextInput
from service.decision import Judge, Unknown
from service.prediction.catalogue import find_bundles, read_catalogue
from service.runtimes import RUNTIMES, RuntimeOptions, load_runtime
from service.settings import Settings

MODELS = ROOT / "models"

BOTH_LABELS = [
    pytest.param(
        [5.9, 0.19, 0.21, 1.7, 0.045, 57, 135, 0.99341, 3.32, 0.44, 9.5], id="rather sweet"
    ),
    pytest.param([6.7, 0.28, 0.28, 2.4, 0.012, 36, 100, 0.99064, 3.26, 0.39, 11.7], id="strong"),
]
"""Two measurements that UCI's Wine Quality lists as a red and as a white wine."""

REVIEWS = [
    pytest.param(
        "Henrik Vane's second feature is a quiet, beautifully photographed drama about a "
        "fisherman who returns to his village on the Baltic coast after thirty years at sea. "
        "Marta Lindqvist is superb as the estranged daughter, and the scenes between the two of "
        "them are among the best I have seen this year. The pacing is slow at first, but it never "
        "drags, and the final half hour is wonderful. I loved the score, too. Don't expect car "
        "chases or explosions: this is a film for grown-ups, and a real gem. Highly recommended. "
        "9/10.",
        "positive",
        id="good film",
    ),
    pytest.param(
        "What a mess. Kirk Donnelly plays a washed-up detective who hunts a serial killer through "
        "the sewers of Toledo, and I could not have cared less about either of them. The script "
        "is awful, the dialogue is laughable and the so-called twist is obvious after ten "
        "minutes. Donnelly sleepwalks through the whole thing, and the less said about Tina Marsh "
        "as the spunky reporter the better. The CGI rats look like something from a cheap video "
        "game. I kept hoping it would be so bad it's good, but it's just boring. A complete waste "
        "of time. Avoid this turkey at all costs.",
        "negative",
        id="bad film",
    ),
]


@pytest.fixture(scope="module")
def served() -> Iterator[httpx.Client]:
    """Caller of a server with the bundles of this repository."""
    with (
        Server(Settings(models=MODELS), HotProtocol) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


def verdicts(
    client: httpx.Client, model: str, content: bytes, media_type: str
) -> list[dict[str, Any]]:
    response = client.post(
        f"/predict/{model}", content=content, headers={"content-type": media_type}
    )
    assert response.status_code == 200, response.text
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def npy(rows: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, rows)
    return stream.getvalue()


def newest(model: str) -> Bundle:
    return find_bundles(MODELS, model, read_catalogue(MODELS).models[model])[0]


def golden(model: str) -> dict[str, NDArray[Any]]:
    """Return real rows of a model, and its logits."""
    with np.load(newest(model).path / "golden.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("row", BOTH_LABELS)
def test_wine_that_was_seen_with_both_labels_is_ambiguous(
    served: httpx.Client, row: list[float]
) -> None:
    body = json.dumps({"instances": [row]}).encode()

    (prediction,) = verdicts(served, "wine", body, "application/json")

    assert (prediction["verdict"], prediction["reason"]) == ("dont_know", "ambiguous")
    assert sorted(prediction["candidates"]) == ["red", "white"]
    assert prediction["confidence"] <= 0.95


@pytest.mark.parametrize("runtime_name", RUNTIMES)
def test_every_runtime_calls_them_ambiguous(runtime_name: str) -> None:
    bundle = newest("wine")
    judge = Judge(bundle.manifest)
    runtime = load_runtime(runtime_name, bundle, RuntimeOptions(threads=1, device="cpu"))

    outputs = runtime.run(np.array([row.values[0] for row in BOTH_LABELS], np.float32))

    # What single precision leaves of equal measurements, against margins of about 3.
    assert np.abs(outputs.logits).max() < 1e-6
    found = judge.decide(judge.assess(*outputs), judge.default_terms)
    assert found == [Unknown("ambiguous")] * 2


def blank(shade: int) -> Image.Image:
    return Image.new("L", (280, 280), shade)


def dead_leaves(seed: int) -> Image.Image:
    """Return discs that hide each other, their radii by a power law, with the statistics of photos.

    Lee, Mumford and Huang 2001, "Occlusion Models for Natural Images".
    """
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (320, 320))
    draw = ImageDraw.Draw(picture)
    radii = 8 * (1 - rng.random(600)) ** -0.5
    for radius, middle in zip(radii.tolist(), rng.uniform(0, 320, (600, 2)).tolist(), strict=True):
        colour = tuple(rng.integers(0, 256, 3).tolist())
        box = [middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius]
        draw.ellipse(box, fill=colour)
    return picture


def sunset() -> Image.Image:
    """Return a sky that fades to a dark ground, with a sun in it."""
    down, across = np.mgrid[0:240, 0:320] / 240
    sky = np.stack([255 - 60 * down, 190 - 130 * down, 90 + 60 * down], axis=2)
    sky[(down - 0.5) ** 2 + (across - 0.8) ** 2 < 0.02] = 250, 240, 200
    sky[down > 0.75 + 0.05 * np.sin(9 * across)] = 40, 35, 30
    return Image.fromarray(sky.astype(np.uint8))


def printed(letter: str) -> Image.Image:
    """Return a letter in black on white."""
    picture = Image.new("L", (280, 280), 255)
    font = ImageFont.load_default(200)
    ImageDraw.Draw(picture).text((140, 140), letter, fill=0, font=font, anchor="mm")
    return picture


NO_DIGITS = [
    pytest.param(blank(255), id="white page"),
    pytest.param(blank(0), id="black page"),
    pytest.param(dead_leaves(0), id="photograph of leaves"),
    pytest.param(sunset(), id="sunset"),
    *(pytest.param(printed(letter), id=f"letter {letter}") for letter in "AKRWM"),
]


@pytest.mark.parametrize("picture", NO_DIGITS)
def test_picture_of_no_digit_is_out_of_distribution(
    served: httpx.Client, picture: Image.Image
) -> None:
    (prediction,) = verdicts(served, "mnist", png(picture), "image/png")

    assert (prediction["verdict"], prediction["reason"]) == ("dont_know", "out_of_distribution")


def test_mean_of_two_digits_is_rarely_answered(served: httpx.Client) -> None:
    arrays = golden("mnist")
    rows, labels = arrays["rows"].astype(np.uint16), arrays["logits"].argmax(axis=1)
    pairs = [(a, b) for a, b in combinations(range(len(rows)), 2) if labels[a] != labels[b]]
    means = np.stack([(rows[a] + rows[b]) // 2 for a, b in pairs]).astype(np.uint8)

    found = verdicts(served, "mnist", npy(means), "application/x-npy")

    answered = [pair for pair, each in zip(pairs, found, strict=True) if each["label"]]
    # Of eight digits, one may cover most others: far above the tenth that is the goal of thousands.
    assert len(answered) <= len(pairs) / 5


@pytest.mark.parametrize(("review", "label"), REVIEWS)
def test_review_is_answered_and_its_words_shuffled_are_not(
    served: httpx.Client, review: str, label: str
) -> None:
    words = np.random.default_rng(0).permutation(review.split())

    (straight,) = verdicts(served, "imdb", review.encode(), "text/plain")
    (shuffled,) = verdicts(served, "imdb", " ".join(words).encode(), "text/plain")

    assert (straight["verdict"], straight["label"]) == ("answer", label)
    assert (shuffled["verdict"], shuffled["reason"]) == ("dont_know", "out_of_distribution")


EACH_MODEL = list(read_catalogue(MODELS).models)


def fresh_process(model: str, file: Path) -> list[dict[str, Any]]:
    """Return what another process says that has just started."""
    command = [sys.executable, "-c", "from service.cli import main; main()", "predict", model]
    result = subprocess.run(  # noqa: S603  our own program
        [*command, str(file), "--json", "--models", str(MODELS)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("model", EACH_MODEL)
def test_two_fresh_processes_say_what_the_server_says(
    served: httpx.Client, model: str, tmp_path: Path
) -> None:
    file, media_type = rows_of(model, tmp_path)

    one, other = (fresh_process(model, file) for _ in range(2))
    found = verdicts(served, model, file.read_bytes(), media_type)

    assert one == other
    assert [{**row, "file": str(file), "row": number} for number, row in enumerate(found)] == one


def rows_of(model: str, folder: Path) -> tuple[Path, str]:
    """Return a file of 64 rows, pictures with noise, or of a text; and its type."""
    declared = newest(model).manifest.input
    if isinstance(declared, TextInput):
        file = folder / "review.txt"
        file.write_text(str(REVIEWS[0].values[0]))
        return file, "text/plain"
    rows = np.repeat(golden(model)["rows"], 8, axis=0)
    if isinstance(declared, ImageInput):
        noise = np.random.default_rng(1).normal(0, 40, rows.shape)
        rows = np.clip(rows + noise, 0, 255).astype(rows.dtype)
    file = folder / "rows.npy"
    file.write_bytes(npy(rows))
    return file, "application/x-npy"
