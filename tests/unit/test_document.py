"""When the OpenAPI document is made, and of what."""

from pathlib import Path

import orjson
import pytest
from bundles import fruit_bundle, review_bundle, write_catalogue
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from service.api.openapi import Documents, Surroundings
from service.api.openapi.document import MOST_DOCUMENTS
from service.prediction import Catalogue, load_catalogue
from service.settings import Settings
from service.telemetry.metrics import Metrics


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    fruit_bundle(tmp_path)
    review_bundle(tmp_path)
    write_catalogue(tmp_path, "fruit", "review")
    return load_catalogue(Settings(models=tmp_path), Metrics())


def test_document_is_made_once_as_long_as_the_same_is_served(catalogue: Catalogue) -> None:
    documents = Documents(catalogue, Surroundings())

    assert documents.of(catalogue) is documents.of(catalogue)


def test_document_is_made_anew_when_other_models_have_the_same_names(
    catalogue: Catalogue,
) -> None:
    documents = Documents(catalogue, Surroundings())
    before = documents.of(catalogue)

    catalogue.switch(catalogue.served)

    assert documents.of(catalogue) is not before


def test_document_of_models_that_went_while_it_was_made_is_not_kept(catalogue: Catalogue) -> None:
    class Going(Catalogue):
        @property
        def names(self) -> tuple[str, ...]:
            catalogue.switch(catalogue.served)
            return super().names

    documents = Documents(catalogue, Surroundings())

    made = documents.of(Going(catalogue.served))

    assert documents.of(catalogue) is not made


def test_each_caller_has_the_document_of_the_models_that_there_are_for_him(
    catalogue: Catalogue,
) -> None:
    documents = Documents(catalogue, Surroundings(has_keys=True))
    part = documents.of(catalogue.limited_to({"review"}))

    whole = documents.of(catalogue)

    assert b"fruit-json" in whole
    assert b"fruit" not in part
    assert part == documents.of(catalogue.limited_to({"review"}))


@pytest.mark.slow
def test_only_so_many_documents_are_kept(catalogue: Catalogue) -> None:
    documents = Documents(catalogue, Surroundings())
    (predictor, *_) = catalogue.served.values()
    names = [f"model-{number}" for number in range(MOST_DOCUMENTS)]
    parts = [Catalogue({name: predictor}) for name in names]

    kept = [documents.of(part) is documents.of(part) for part in [*parts, catalogue]]

    assert kept == [True] * MOST_DOCUMENTS + [False]


def test_document_of_no_models_is_valid() -> None:
    nothing = Catalogue({})

    document = orjson.loads(Documents(nothing, Surroundings()).of(nothing))

    assert list(OPENAPI_31_VALIDATOR.iter_errors(document)) == []
    assert "/predict/{model}" in document["paths"]
