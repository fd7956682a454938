"""Every bundle that is served, on every runtime that can serve it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle import Bundle, read_bundle
from service.bundle.manifest import ImageInput, TextInput
from service.decision import Judge
from service.inputs import InputLimits, create_decoder
from service.prediction.catalogue import find_bundles, read_catalogue
from service.runtimes import Runtime, RuntimeOptions, load_runtime
from service.runtimes.protocol import Outputs
from training.packing.wrapping import runtimes_of

MODELS = Path(__file__).parents[2] / "models"
PATHS = [
    bundle.path
    for name, entry in read_catalogue(MODELS).models.items()
    for bundle in find_bundles(MODELS, name, entry)
]
MAX_BUNDLE_BYTES = 16_000_000

each_bundle = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
each_pair = pytest.mark.parametrize(
    ("path", "runtime_name"),
    [
        pytest.param(
            path,
            name,
            id=f"{path.parent.name}-{name}",
            marks=pytest.mark.slow if name == "tensorflow" else (),
        )
        for path in PATHS
        for name in runtimes_of(read_bundle(path))
    ],
)
"""Each bundle on the runtimes whose files it has: what came as ONNX has no SavedModel."""


each_variant = pytest.mark.parametrize(
    ("path", "variant"),
    [
        pytest.param(
            path,
            name,
            id=f"{path.parent.name}-{name}",
            marks=pytest.mark.slow if name == "tensorflow" else (),
        )
        for path in PATHS
        for name in read_bundle(path).manifest.variants
    ],
)


@cache
def loaded(path: Path, runtime_name: str, variant: str | None = None) -> tuple[Bundle, Runtime]:
    bundle = read_bundle(path)
    options = RuntimeOptions(threads=2, device="cpu", variant=variant)
    return bundle, load_runtime(runtime_name, bundle, options)


def random_rows(bundle: Bundle, count: int) -> NDArray[np.generic]:
    """Return rows of the right type that are not the golden ones."""
    rng = np.random.default_rng(0)
    with np.load(bundle.path / "golden.npz") as golden:
        rows: NDArray[Any] = golden["rows"][rng.integers(0, 8, count)]
    noisy: NDArray[Any]
    if isinstance(bundle.manifest.input, ImageInput):
        noisy = np.clip(rows + rng.normal(0, 30, rows.shape), 0, 255)
    elif isinstance(bundle.manifest.input, TextInput):
        noisy = np.where(rng.random(rows.shape) < 0.9, rows, 1)
    else:
        noisy = rows * rng.uniform(0.9, 1.1, rows.shape)
    return noisy.astype(bundle.manifest.graph.input.dtype)


@each_pair
def test_golden_rows_give_what_training_saw(path: Path, runtime_name: str) -> None:
    _, runtime = loaded(path, runtime_name)
    with np.load(path / "golden.npz") as golden:
        outputs = runtime.run(golden["rows"])

        # 1e-4: what training allows between SavedModel and ONNX before it writes a bundle.
        np.testing.assert_allclose(outputs.logits, golden["logits"], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(
            outputs.novelty_scores, golden["novelty_scores"], atol=1e-4, rtol=1e-4
        )


@each_variant
def test_variant_gives_the_golden_verdicts(path: Path, variant: str) -> None:
    bundle, runtime = loaded(path, "onnx", variant)
    tolerance = bundle.manifest.variants[variant].tolerance
    judge = Judge(bundle.manifest)
    with np.load(path / "golden.npz") as golden:
        outputs = runtime.run(golden["rows"])
        expected = Outputs(golden["logits"], golden["novelty_scores"])

    given, wanted = (
        judge.decide(judge.assess(*o), judge.default_terms) for o in (outputs, expected)
    )
    assert given == wanted
    for got, own in zip(outputs, expected, strict=True):
        # What it differed by when it was made, doubled: processors round elsewhere.
        np.testing.assert_allclose(got, own, atol=tolerance, rtol=0)


@each_variant
def test_verdicts_of_a_variant_do_not_depend_on_the_size_of_the_batch(
    path: Path, variant: str
) -> None:
    bundle, runtime = loaded(path, "onnx", variant)
    rows = random_rows(bundle, 128)
    judge = Judge(bundle.manifest)

    together = judge.assess(*runtime.run(rows))
    parts = [runtime.run(rows[start : start + 1]) for start in range(128)]
    apart = judge.assess(*Outputs(*map(np.concatenate, zip(*parts, strict=True))))

    assert judge.decide(apart, judge.default_terms) == judge.decide(together, judge.default_terms)


@each_variant
def test_variant_was_measured_to_agree(path: Path, variant: str) -> None:
    agreements = read_bundle(path).manifest.variants[variant].agreements

    assert all(each.identical >= 0.999 and each.n >= 1000 for each in agreements)


@each_pair
def test_outputs_are_those_of_the_manifest(path: Path, runtime_name: str) -> None:
    bundle, runtime = loaded(path, runtime_name)
    names = bundle.manifest.novelty.names if bundle.manifest.novelty else ()

    outputs = runtime.run(random_rows(bundle, 5))

    assert outputs.logits.shape == (5, len(bundle.manifest.labels))
    assert outputs.novelty_scores.shape == (5, len(names))
    assert outputs.logits.dtype == outputs.novelty_scores.dtype == np.float32


@each_bundle
def test_runtimes_agree_on_rows_that_training_has_not_seen(path: Path) -> None:
    bundle, _ = loaded(path, "onnx")
    rows = random_rows(bundle, 200)
    judge = Judge(bundle.manifest)

    outputs = [loaded(path, name)[1].run(rows) for name in runtimes_of(bundle)]
    first, *others = [judge.assess(*each) for each in outputs]

    for other in others:
        np.testing.assert_allclose(other.probabilities, first.probabilities, atol=1e-4)
        assert judge.decide(other, judge.default_terms) == judge.decide(first, judge.default_terms)


@pytest.mark.parametrize("size", [1, 8, 64])
@each_pair
def test_verdicts_do_not_depend_on_the_size_of_the_batch(
    path: Path, runtime_name: str, size: int
) -> None:
    bundle, runtime = loaded(path, runtime_name)
    rows = random_rows(bundle, 128)
    judge = Judge(bundle.manifest)

    together = judge.assess(*runtime.run(rows))
    parts = [runtime.run(rows[start : start + size]) for start in range(0, 128, size)]
    apart = judge.assess(*Outputs(*map(np.concatenate, zip(*parts, strict=True))))

    # 1e-5: float32 sums in another order.
    np.testing.assert_allclose(apart.probabilities, together.probabilities, atol=1e-5)
    assert judge.decide(apart, judge.default_terms) == judge.decide(together, judge.default_terms)


@each_bundle
def test_bundle_is_small_and_complete(path: Path) -> None:
    names = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}

    listed = read_bundle(path).manifest.files
    assert names == {*listed, "manifest.json"}
    assert {"model.onnx", "golden.npz", "MODEL_CARD.md"} <= names
    has_saved_model = any(name.startswith("saved_model/") for name in names)
    assert has_saved_model == ("tensorflow" in runtimes_of(read_bundle(path)))
    assert sum(file.size_bytes for file in listed.values()) < MAX_BUNDLE_BYTES


@each_bundle
def test_bundle_has_a_decoder_for_what_it_declares(path: Path) -> None:
    decoder = create_decoder(read_bundle(path), InputLimits(10, 10_000, 1000))

    assert "application/json" in decoder.media_types


@each_bundle
def test_picture_of_the_card_is_in_the_bundle(path: Path) -> None:
    card = (path / "MODEL_CARD.md").read_text()

    pictures = [line.split("](")[1].rstrip(")") for line in card.splitlines() if "![" in line]
    assert pictures
    assert [picture for picture in pictures if not (path / picture).is_file()] == []
