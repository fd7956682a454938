import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import fruit_bundle, fruit_graph, picture_bundle, with_variant

from service.bundle import write_bundle
from service.errors import BundleCorrupt, CatalogueInvalid, RuntimeUnavailable
from service.runtimes import RUNTIMES, RuntimeOptions, load_runtime

OPTIONS = RuntimeOptions(threads=1, device="cpu")


def test_onnx_runtime_returns_logits_and_scores(tmp_path: Path) -> None:
    rows = np.array([[1, 2, 3]], np.float32)

    outputs = load_runtime("onnx", fruit_bundle(tmp_path), OPTIONS).run(rows)

    assert outputs.logits.tolist() == [[1, 2, 3]]
    assert outputs.novelty_scores.tolist() == [[3]]


def test_graph_without_scores_has_no_columns_of_them(tmp_path: Path) -> None:
    runtime = load_runtime("onnx", picture_bundle(tmp_path), OPTIONS)

    assert runtime.run(np.zeros((5, 8, 8), np.uint8)).novelty_scores.shape == (5, 0)


def test_unknown_runtime_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="onnx, tensorflow"):
        load_runtime("abacus", fruit_bundle(tmp_path), OPTIONS)


def test_runtime_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, "abacus", "wooden_beads:Frame")

    with pytest.raises(RuntimeUnavailable, match=r"pip install -e '\.\[abacus\]'"):
        load_runtime("abacus", fruit_bundle(tmp_path), OPTIONS)


@pytest.mark.parametrize(
    ("graph", "said"), [(b"rubbish", "is no ONNX file"), (b"", "ONNX Runtime cannot load it")]
)
def test_graph_that_is_no_onnx_is_corrupt(tmp_path: Path, graph: bytes, said: str) -> None:
    bundle = fruit_bundle(tmp_path)
    contents = {"model.onnx": graph, "golden.npz": bundle.read("golden.npz")}
    rubbish = write_bundle(
        bundle.path, contents, lambda files: bundle.manifest.model_copy(update={"files": files})
    )

    with pytest.raises(BundleCorrupt, match=said):
        load_runtime("onnx", rubbish, OPTIONS)


def test_bundle_without_saved_model_is_refused_by_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")

    with pytest.raises(BundleCorrupt, match="holds no SavedModel, only ONNX"):
        load_runtime("tensorflow", fruit_bundle(tmp_path), RuntimeOptions(threads=1, device="cpu"))


def test_variant_is_another_graph_of_the_same_bundle(tmp_path: Path) -> None:
    bundle = fruit_bundle(tmp_path)
    bundle = with_variant(bundle, fruit_graph(bundle, shift=0.5))
    rows = np.array([[1, 2, 3]], np.float32)

    own = load_runtime("onnx", bundle, OPTIONS)
    other = load_runtime("onnx", bundle, replace(OPTIONS, variant="int8"))

    assert own.run(rows).logits.tolist() == [[1, 2, 3]]
    assert other.run(rows).logits.tolist() == [[1.5, 2, 3]]


def test_variant_is_refused_by_a_runtime_that_serves_none(tmp_path: Path) -> None:
    bundle = with_variant(fruit_bundle(tmp_path))

    with pytest.raises(CatalogueInvalid, match="'tensorflow' serves no variant"):
        load_runtime("tensorflow", bundle, replace(OPTIONS, variant="int8"))


def test_missing_gpu_is_told_and_the_cpu_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        runtime = load_runtime("onnx", fruit_bundle(tmp_path), RuntimeOptions(1, "cuda"))

    assert runtime.device in ("cpu", "cuda")
    assert (runtime.device == "cuda") != ("running on the CPU" in caplog.text)


def test_service_imports_no_tensorflow_unless_it_is_chosen(tmp_path: Path) -> None:
    load_runtime("onnx", fruit_bundle(tmp_path), OPTIONS)

    assert "service.runtimes.tensorflow" not in sys.modules or "tensorflow" in sys.modules
