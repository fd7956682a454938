"""The official test sets over HTTP: one row a request, and many; do both say the same?

Starts a server, posts every test row of every model as an app would (PNG, text, CSV) one by one
from `--callers` at once, then again in requests of `--rows`, and compares verdict by verdict.
Prints accuracy, share answered and error among the answered.

    python load_tests/accuracy.py [--data ../shared/data] [--only wine]
"""

import argparse
import asyncio
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from many_callers import serving
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from training import datasets


@dataclass(frozen=True)
class Rows:
    """Test rows as an app has them: the body of each alone, and of several together."""

    labels: Sequence[str]
    one: Callable[[int], tuple[str, bytes]]
    """Index -> (Content-Type, body)."""

    many: Callable[[slice], tuple[str, bytes]]


def pictures(files: datasets.PictureFiles, names: Sequence[str], folder: Path) -> Rows:
    """Return the official test pictures: PNG alone, .npy together."""
    loaded = datasets.load_pictures(folder, files)
    images = loaded.test_images

    def png(index: int) -> tuple[str, bytes]:
        stream = io.BytesIO()
        Image.fromarray(images[index]).save(stream, "PNG")
        return "image/png", stream.getvalue()

    def npy(part: slice) -> tuple[str, bytes]:
        stream = io.BytesIO()
        np.save(stream, images[part])
        return "application/x-npy", stream.getvalue()

    return Rows([names[target] for target in loaded.test_targets], png, npy)


def digits(folder: Path) -> Rows:
    """Return the 10,000 digits of t10k."""
    return pictures(datasets.MNIST, [str(digit) for digit in range(10)], folder)


def inverted_digits(folder: Path) -> Rows:
    """Return the same, dark on light, posted as pixel lists."""
    loaded = datasets.load_pictures(folder, datasets.MNIST)
    images = 255 - loaded.test_images

    def pixels(part: slice) -> tuple[str, bytes]:
        return "application/json", json.dumps({"instances": images[part].tolist()}).encode()

    labels = [str(target) for target in loaded.test_targets]
    return Rows(labels, lambda index: pixels(slice(index, index + 1)), pixels)


def clothes(folder: Path) -> Rows:
    """Return the 10,000 pictures of Fashion-MNIST's test set."""
    names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
    names += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    return pictures(datasets.FASHION_MNIST, names, folder)


def reviews(folder: Path) -> Rows:
    """Return the test reviews that do not stand among the training ones."""
    train, test = datasets.load_reviews(folder)
    known = set(train.texts)
    kept = [index for index, text in enumerate(test.texts) if text not in known]
    texts = [test.texts[index] for index in kept]

    def several(part: slice) -> tuple[str, bytes]:
        return "application/json", json.dumps({"instances": texts[part]}).encode()

    labels = [("negative", "positive")[test.targets[index]] for index in kept]
    return Rows(labels, lambda index: ("text/plain", texts[index].encode()), several)


def wines(folder: Path) -> Rows:
    """Return all bottles of both files: the served model has seen them, so this is no test."""
    tables = [
        (folder / file.name).read_text().splitlines()
        for file in (datasets.WINE_RED, datasets.WINE_WHITE)
    ]
    header, bottles = tables[0][0], [line for table in tables for line in table[1:]]

    def csv(part: slice) -> tuple[str, bytes]:
        return "text/csv", "\n".join([header, *bottles[part]]).encode()

    labels = ["red"] * (len(tables[0]) - 1) + ["white"] * (len(tables[1]) - 1)
    return Rows(labels, lambda index: csv(slice(index, index + 1)), csv)


TESTS: dict[str, tuple[str, Callable[[Path], Rows]]] = {
    "wine (training rows)": ("wine", wines),
    "mnist": ("mnist", digits),
    "mnist inverted": ("mnist", inverted_digits),
    "fashion_mnist": ("fashion_mnist", clothes),
    "imdb": ("imdb", reviews),
}
Prediction = dict[str, object]


async def post_all(
    client: httpx.AsyncClient,
    model: str,
    requests: Sequence[Callable[[], tuple[str, bytes]]],
    callers: int,
) -> list[Prediction]:
    """Post every request and return the predictions of all, in order."""
    answers: list[list[Prediction]] = [[] for _ in requests]
    numbers = iter(tqdm(range(len(requests)), desc=model, leave=False, disable=None))

    async def caller() -> None:
        for number in numbers:
            content_type, body = requests[number]()
            response = await client.post(
                f"/predict/{model}?include=best_guess",
                content=body,
                headers={"content-type": content_type},
            )
            response.raise_for_status()
            answers[number] = response.json()["predictions"]

    await asyncio.gather(*(caller() for _ in range(callers)))
    return [prediction for part in answers for prediction in part]


def summary(labels: Sequence[str], predictions: Sequence[Prediction]) -> str:
    """Return accuracy, share answered and error among the answered."""
    truth: NDArray[np.str_] = np.array(labels)
    right = np.array([each["best_guess"] for each in predictions]) == truth
    answered = np.array([each["verdict"] == "answer" for each in predictions])
    risk = 1 - right[answered].mean() if answered.any() else float("nan")
    return f"accuracy {right.mean():.4%}  answered {answered.mean():.3%}  error {risk:.3%}"


async def run(address: str, options: argparse.Namespace) -> bool:
    """Run the tests that are asked for; tell whether one row and many said the same."""
    is_same = True
    limits = httpx.Limits(max_connections=options.callers)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        for title, (model, load) in TESTS.items():
            if options.only not in (None, model):
                continue
            rows = load(options.data)
            count, step = len(rows.labels), options.rows
            single = [partial(rows.one, index) for index in range(count)]
            several = [
                partial(rows.many, slice(start, start + step)) for start in range(0, count, step)
            ]
            alone = await post_all(client, model, single, options.callers)
            together = await post_all(client, model, several, options.callers)
            verdicts = ("verdict", "label", "reason", "best_guess", "candidates")
            differing = sum(
                any(one[key] != other[key] for key in verdicts)
                for one, other in zip(alone, together, strict=True)
            )
            is_same &= differing == 0
            print(f"{title:22} {count:6,} rows  {summary(rows.labels, alone)}")
            print(f"{'':22} verdicts that differ in requests of {step} rows: {differing}")
    return is_same


def main() -> int:
    """Run it and tell whether all was well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--only", help="one model")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--rows", type=int, default=100)
    options = parser.parse_args()
    with serving(options.models) as (_, address):
        return 0 if asyncio.run(run(address, options)) else 1


if __name__ == "__main__":
    sys.exit(main())
