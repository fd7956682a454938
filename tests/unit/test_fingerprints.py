"""What makes a step's content another one, and what does not."""

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training import images
from training.fingerprints import (
    array_fingerprint,
    code_fingerprint,
    definitions,
    fingerprint,
    reached_names,
)
from training.recipes import mnist, wine

SOURCE = '''"""Old result."""

RATE = 1
WORDS = "a"


def helper():
    """Help."""
    return RATE  # why


def fit():
    """Fit."""
    return helper() + 1


def beside():
    return WORDS
'''


@pytest.fixture
def print_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Source -> fingerprint of its function `fit`, the module always of the same name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(source: str) -> str:
        (tmp_path / "some_recipe.py").write_text(source)
        sys.modules.pop("some_recipe", None)
        definitions.cache_clear()
        return code_fingerprint(importlib.import_module("some_recipe").fit)

    return load


def test_fingerprint_depends_on_every_part() -> None:
    assert fingerprint("a", 1) == fingerprint("a", 1)
    assert fingerprint("a", 1) != fingerprint("a", 2)


def test_arrays_of_other_type_shape_or_values_have_other_fingerprints() -> None:
    array = np.zeros((2, 3), np.float32)

    others = (array.astype(np.int32), array.reshape(3, 2), array + np.float32(1))

    assert array_fingerprint(array) not in {array_fingerprint(other) for other in others}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("Old result", "Measured: 99 %"), id="docstring of the module"),
        pytest.param(("Fit.", "Fit it."), id="docstring of a function"),
        pytest.param(("# why", "# because"), id="comment"),
        pytest.param(('WORDS = "a"', 'WORDS = "b"'), id="words that fit does not use"),
        pytest.param(("return WORDS", "return 7"), id="function that fit does not use"),
    ],
)
def test_what_fit_does_not_reach_changes_nothing(
    change: tuple[str, str], print_of: Callable[[str], str]
) -> None:
    before = print_of(SOURCE)
    after = print_of(SOURCE.replace(*change))

    assert before == after


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("helper() + 1", "helper() + 2"), id="in fit"),
        pytest.param(("return RATE", "return 2 * RATE"), id="in what fit calls"),
        pytest.param(("RATE = 1", "RATE = 3"), id="constant behind it"),
    ],
)
def test_number_that_fit_reaches_changes_the_fingerprint(
    change: tuple[str, str], print_of: Callable[[str], str]
) -> None:
    before = print_of(SOURCE)
    after = print_of(SOURCE.replace(*change))

    assert before != after


def test_bound_functions_count() -> None:
    dense, convolutions = (
        functools.partial(images.fit_lecture, build)
        for build in (mnist.lecture_dense, mnist.lecture_convolutions)
    )

    assert code_fingerprint(dense) != code_fingerprint(convolutions)


def test_code_is_followed_into_other_modules_of_training() -> None:
    reached = reached_names(mnist.fit)

    assert {("training.layers", "InkOnGround"), ("training.images", "convolution")} <= reached
    assert ("training.layers", "SupportVectors") not in reached
    assert ("training.layers", "SupportVectors") in reached_names(wine.fit)
