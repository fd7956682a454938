"""Requests made from OpenAPI documents: is each answered as the document says?

By schemathesis as a library: its plugin for pytest is of no use here.
"""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from conftest import Server
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from keys import WHOLE, bearer, write_keys
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method

from service.api.admin import router
from service.api.hotpath import HotProtocol
from service.settings import Settings

pytestmark = pytest.mark.slow

SOME = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def addresses(models: Path, caplog: pytest.LogCaptureFixture) -> Iterator[tuple[str, str]]:
    """Of the service and of its admin."""
    caplog.set_level(logging.INFO)
    options = Settings(models=models, default_model="fruit", admin_port=0)
    with Server(options, HotProtocol) as address:
        found = re.search(r"admin address (\S+)", caplog.text)
        assert found
        yield address, found.group(1)


def faults_of(document: Any, mode: GenerationMode, **options: Any) -> list[str]:
    """Ask what a document describes; return what it does not describe of the answers."""
    return [
        fault
        for operation in document.get_all_operations()
        for fault in faults_of_operation(operation.ok(), mode, options)
    ]


def faults_of_operation(operation: Any, mode: GenerationMode, options: dict[str, Any]) -> set[str]:
    faults: set[str] = set()

    @SOME
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        try:
            case.call_and_validate(**options)
        except BaseExceptionGroup as failures:
            faults.update(f"{operation.label}: {failure}" for failure in failures.exceptions)

    with contextlib.suppress(Unsatisfiable):  # some can only be asked rightly
        ask()
    return faults


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_every_request_is_answered_as_the_openapi_document_says(
    addresses: tuple[str, str], mode: GenerationMode
) -> None:
    document = schemathesis.openapi.from_url(f"{addresses[0]}/openapi.json")

    # What a model takes, its manifest says: no schema of all of them can.
    assert faults_of(document, mode, excluded_checks=[positive_data_acceptance]) == []


def test_server_with_keys_answers_as_the_openapi_document_says(
    models: Path, tmp_path: Path
) -> None:
    settings = Settings(models=models, keys=write_keys(tmp_path), default_model="fruit")
    with Server(settings, HotProtocol) as address:
        document = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=bearer(WHOLE))
        options = {"headers": bearer(WHOLE), "excluded_checks": [positive_data_acceptance]}

        # One of the checks asks without the key wherever the document says that it is needed.
        assert faults_of(document, GenerationMode.POSITIVE, **options) == []


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_admin_address_knows_what_to_do_with_every_request(
    addresses: tuple[str, str], mode: GenerationMode
) -> None:
    app = FastAPI()
    app.include_router(router)
    document = schemathesis.openapi.from_dict(app.openapi())
    checks = [not_a_server_error, unsupported_method]

    assert faults_of(document, mode, base_url=addresses[1], checks=checks) == []
