import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from bundles import fruit_bundle, fruit_graph, npz_bytes, with_variant, write_catalogue

from service.bundle import write_bundle
from service.errors import (
    BundleCorrupt,
    BundleMissing,
    CatalogueInvalid,
    LoadTimedOut,
    ModelNotFound,
    RuntimeUnavailable,
    VersionNotFound,
)
from service.prediction import Catalogue, Predictor, load_catalogue
from service.settings import Settings
from service.telemetry.metrics import Metrics


def load(models: Path, only: str | None = None) -> Catalogue:
    return load_catalogue(Settings(models=models, max_batch_rows=2), Metrics(), only)


def catalogue_of(models: Path, text: str) -> Catalogue:
    (models / "catalogue.toml").write_text(text)
    return load(models)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in ("1", "2", "10"):
        fruit_bundle(tmp_path, version=version)
    return tmp_path


def test_newest_version_is_served_unless_told_otherwise(models: Path) -> None:
    catalogue = catalogue_of(models, "[models.fruit]")

    assert catalogue.find("fruit").manifest.version == "10"


def test_catalogue_may_have_a_byte_order_mark(models: Path) -> None:
    (models / "catalogue.toml").write_text("[models.fruit]\n", encoding="utf-8-sig")

    assert load(models).find("fruit").manifest.version == "10"


def test_first_version_named_is_the_default(models: Path) -> None:
    catalogue = catalogue_of(models, '[models.fruit]\nversions = ["2", "1"]')

    assert catalogue.find("fruit").manifest.version == "2"
    assert catalogue.find("fruit", version="1").manifest.version == "1"


def test_alias_leads_to_its_version(models: Path) -> None:
    text = '[models.fruit]\nversions = ["2", "1"]\naliases = { stable = "1" }'

    assert catalogue_of(models, text).find("fruit", alias="stable").manifest.version == "1"


def test_bundle_is_served_under_another_name(models: Path) -> None:
    catalogue = catalogue_of(models, '[models.greengrocer]\nbundle = "fruit"')

    assert catalogue.find("greengrocer").manifest.name == "fruit"


def test_operator_chooses_the_risk(models: Path) -> None:
    catalogue = catalogue_of(models, "[models.fruit]\nmax_error = 0.05")

    assert catalogue.find("fruit").judge.default_terms.max_error == 0.05


def test_unknown_model_is_refused_with_the_names_there_are(models: Path) -> None:
    with pytest.raises(ModelNotFound, match="served here: fruit"):
        catalogue_of(models, "[models.fruit]").find("fruits")


@pytest.mark.parametrize("asked", [{"version": "7"}, {"alias": "stable"}])
def test_unknown_version_or_alias_is_refused(models: Path, asked: dict[str, str]) -> None:
    with pytest.raises(VersionNotFound, match=next(iter(asked.values()))):
        catalogue_of(models, "[models.fruit]").find("fruit", **asked)


@pytest.mark.parametrize(
    ("text", "error", "expected"),
    [
        pytest.param("", CatalogueInvalid, "models", id="empty"),
        pytest.param("[models", CatalogueInvalid, "catalogue.toml", id="no toml"),
        pytest.param("[models.fruit]\nx = 1", CatalogueInvalid, "models.fruit.x", id="unknown key"),
        pytest.param("[models.fruit]\nmax_error = 2", CatalogueInvalid, "max_error", id="bounds"),
        pytest.param(
            "[models.fruit]\nmax_error = 0.02",
            CatalogueInvalid,
            "certified risk",
            id="no such risk",
        ),
        pytest.param(
            '[models.fruit]\naliases = { a = "3" }', CatalogueInvalid, "alias 'a'", id="alias"
        ),
        pytest.param("[models.nuts]", BundleMissing, "nuts", id="no such folder"),
        *(
            pytest.param(
                f'[models.fruit]\nversions = ["1", "2"]\nweights = {{ "1" = {weights} }}',
                CatalogueInvalid,
                expected,
                id=f"weights {weights}",
            )
            for weights, expected in (
                ("inf", r"models\.fruit\.weights\.1: .*finite number"),
                ("nan", r"models\.fruit\.weights\.1: .*finite number"),
                ('1e308, "2" = 1e308', "weights: .*whose sum is finite"),
            )
        ),
        pytest.param(
            "[models.fruit]\nrollback = { p99_ms = nan }",
            CatalogueInvalid,
            r"rollback\.p99_ms: .*finite number",
            id="rollback nan",
        ),
        pytest.param('[models.fruit]\nbundle = "a\\u0000b"', BundleMissing, "no version", id="NUL"),
        pytest.param(
            f'[models.fruit]\nbundle = "{"x" * 5000}"', BundleMissing, "no version", id="long name"
        ),
        pytest.param(
            f'[models.fruit]\nversions = ["{"1" * 5000}"]',
            BundleMissing,
            "File name too long",
            id="long version",
        ),
        pytest.param(
            "x = " + "[" * 9999, CatalogueInvalid, "toml: is nested too deeply", id="nested"
        ),
        pytest.param(
            "x = " + "1" * 9999, CatalogueInvalid, "4300 digits", id="number of 9,999 digits"
        ),
        pytest.param('[models.fruit]\nversions = ["3"]', BundleMissing, "3", id="no such version"),
        pytest.param(
            '[models.fruit]\nruntime = "abacus"',
            RuntimeUnavailable,
            "onnx, tensorflow",
            id="runtime",
        ),
    ],
)
def test_catalogue_that_cannot_be_served_is_refused_by_place(
    models: Path, text: str, error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        catalogue_of(models, text)


def test_missing_catalogue_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(CatalogueInvalid, match="DUNNO_MODELS"):
        load(tmp_path)


def test_one_corrupt_bundle_stops_the_whole_catalogue(models: Path) -> None:
    (models / "fruit" / "10" / "model.onnx").write_bytes(b"rubbish")

    with pytest.raises(BundleCorrupt, match="sha256 differs"):
        catalogue_of(models, "[models.fruit]")


def test_model_that_hangs_ends_the_start_after_the_limit(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_let_go = threading.Event()
    monkeypatch.setattr(Predictor, "warm", lambda _: is_let_go.wait(5))
    write_catalogue(models, "fruit")

    with pytest.raises(LoadTimedOut, match=r"^fruit: .* within 0\.1 s \(DUNNO_MAX_LOAD_MS\)"):
        load_catalogue(Settings(models=models, max_load_ms=100), Metrics())

    is_let_go.set()


def test_folder_of_another_version_is_refused(models: Path) -> None:
    shutil.copytree(models / "fruit" / "10", models / "fruit" / "11")

    with pytest.raises(BundleCorrupt, match="the manifest is of version 10"):
        catalogue_of(models, "[models.fruit]")


def test_golden_rows_are_checked_before_a_model_is_served(models: Path) -> None:
    bundle = fruit_bundle(models, version="11")
    with np.load(bundle.path / "golden.npz") as arrays:
        changed = npz_bytes({**arrays, "logits": arrays["logits"] + 0.1})
    contents = {"model.onnx": bundle.read("model.onnx"), "golden.npz": changed}
    write_bundle(
        bundle.path, contents, lambda files: bundle.manifest.model_copy(update={"files": files})
    )

    with pytest.raises(BundleCorrupt, match="other outputs than in training"):
        catalogue_of(models, "[models.fruit]")


def test_variant_is_served_where_the_operator_chooses_it(models: Path) -> None:
    bundle = fruit_bundle(models, version="11")
    with_variant(bundle, fruit_graph(bundle, shift=0.05))

    chosen = catalogue_of(models, '[models.fruit]\nvariant = "int8"').find("fruit")

    assert chosen.variant == "int8"
    assert chosen.runtime.run(np.zeros((1, 3), np.float32)).logits[0, 0] == np.float32(0.05)


def test_graph_itself_is_served_unless_a_variant_is_chosen(models: Path) -> None:
    bundle = fruit_bundle(models, version="11")
    plain = bundle.manifest.policy_id
    with_variant(bundle, fruit_graph(bundle, shift=0.05))

    served = catalogue_of(models, "[models.fruit]").find("fruit")

    assert served.variant is None
    assert served.judge.policy_id == plain
    assert served.runtime.run(np.zeros((1, 3), np.float32)).logits[0, 0] == 0


def test_unknown_variant_is_refused_with_those_there_are(models: Path) -> None:
    with_variant(fruit_bundle(models, version="11"))

    with pytest.raises(CatalogueInvalid, match=r"no variant 'int4'; there are: int8"):
        catalogue_of(models, '[models.fruit]\nvariant = "int4"')
    with pytest.raises(CatalogueInvalid, match=r"10: no variant 'int8'; there are: none"):
        catalogue_of(models, '[models.fruit]\nversions = ["11", "10"]\nvariant = "int8"')


@pytest.mark.parametrize(
    ("shift", "tolerance", "expected"),
    [
        pytest.param(0.2, 0.1, "other outputs than in training", id="output"),
        pytest.param(9, 10, "a golden verdict differs", id="verdict"),
    ],
)
def test_golden_rows_of_a_variant_are_checked_within_its_own_tolerance(
    models: Path, shift: float, tolerance: float, expected: str
) -> None:
    bundle = fruit_bundle(models, version="11")
    with_variant(bundle, fruit_graph(bundle, shift), tolerance)

    with pytest.raises(BundleCorrupt, match=expected):
        catalogue_of(models, '[models.fruit]\nvariant = "int8"')


def test_models_are_warm_before_they_are_served(models: Path) -> None:
    metrics = Metrics()
    write_catalogue(models, "fruit")

    load_catalogue(Settings(models=models, max_batch_rows=2), metrics)

    name = "dunno_model_warmup_duration_seconds_count"
    assert metrics.registry.get_sample_value(name, {"model": "fruit"}) == 1


@pytest.mark.parametrize("name", ["_unknown", "a/b", "A", ""])
def test_name_that_no_address_or_metric_can_hold_is_refused(models: Path, name: str) -> None:
    with pytest.raises(CatalogueInvalid, match="models"):
        catalogue_of(models, f'[models."{name}"]\nbundle = "fruit"')


def test_version_named_twice_is_refused(models: Path) -> None:
    with pytest.raises(CatalogueInvalid, match="twice"):
        catalogue_of(models, '[models.fruit]\nversions = ["1", "1"]')


def test_single_model_is_loaded_alone(models: Path) -> None:
    write_catalogue(models, "fruit", more='[models.broken]\nbundle = "nowhere"\n')

    assert load(models, only="fruit").names == ("fruit",)
    with pytest.raises(ModelNotFound, match="fruit, broken"):
        load(models, only="nuts")


def test_catalogue_is_ready_only_when_every_model_takes_rows(models: Path) -> None:
    assert not catalogue_of(models, "[models.fruit]").is_ready
    assert not Catalogue({}).is_ready
