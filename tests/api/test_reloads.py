"""Versions are switched under load, and nobody notices but by the version in the answer."""

import asyncio
from pathlib import Path

import httpx
import pytest
from bundles import fruit_bundle, temperature
from conftest import Server
from connections import BODY, Connection, request
from counting import value_at
from many_callers import Question
from reloads import Switches
from reloads import serving as serving_with_admin
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from waiting import wait_for

from service.api.hotpath import HotProtocol
from service.settings import Settings

MEBIBYTE = 1024 * 1024
SURE = b'{"instances": [[9, 0, 0]]}'


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in ("1", "2"):
        fruit_bundle(tmp_path, version=version)
    write(tmp_path, 'versions = ["1"]')
    return tmp_path


def write(models: Path, entry: str) -> None:
    (models / "catalogue.toml").write_text(f"[models.fruit]\n{entry}\n")


@pytest.mark.slow
def test_no_request_is_lost_in_sixty_reloads_and_memory_stays_flat(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reloads.WARM_RELOADS", 20)
    question = Question("fruit", SURE)
    with serving_with_admin(models) as (process, address, admin):
        switches = Switches(models, question, process)
        tally = asyncio.run(switches.run(address, admin, reloads=60, callers=8))

    assert tally.wrong == []
    assert tally.reloads == 60
    assert set(tally.answers) == {"1", "2"}
    # Forty further graphs that were not freed would take more than 1 MiB each.
    assert tally.resident_bytes[60] - tally.resident_bytes[20] < 20 * MEBIBYTE


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, HotProtocol], ids=["asgi", "hot"])
def test_split_traffic_tells_by_which_version_it_was_answered(
    models: Path, protocol: type[asyncio.Protocol]
) -> None:
    write(models, 'versions = ["2", "1"]\nweights = { "1" = 0.9, "2" = 0.1 }')
    with Server(Settings(models=models), protocol) as address:
        connection = Connection(address)
        versions = [ask(connection)["version"] for _ in range(100)]
        named = [ask(connection, "/predict/fruit?version=2")["version"] for _ in range(10)]
        connection.close()

    assert versions.count("2") == pytest.approx(10, abs=2)
    assert versions.count("1") + versions.count("2") == 100
    assert set(named) == {"2"}


def ask(connection: Connection, path: str = "/predict/fruit") -> dict[str, object]:
    connection.send(request(SURE, path=path))
    status, _, content = connection.response()
    assert status == 200
    return content


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [HttpToolsProtocol, HotProtocol], ids=["asgi", "hot"])
def test_canary_that_does_not_know_loses_its_traffic(
    models: Path, protocol: type[asyncio.Protocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.prediction.reloader.LOOK_AT_CANARIES_S", 0.01)
    fruit_bundle(models, version="2", calibration=temperature(1000))
    rule = "rollback = { dont_know = 0.2, rows = 50 }"
    write(models, f'versions = ["1", "2"]\nweights = {{ "1" = 0.6, "2" = 0.4 }}\n{rule}')
    canary = {"model": "fruit", "version": "2"}
    with Server(Settings(models=models), protocol) as address:
        connection = Connection(address)
        wait_for(
            lambda: ask(connection) and value_at(address, "dunno_rollbacks_total", **canary) == 1
        )
        versions = {str(ask(connection)["version"]) for _ in range(20)}
        connection.close()

        assert versions == {"1"}
        assert value_at(address, "dunno_version_weight_ratio", **canary) == 0


def test_candidate_sees_what_callers_ask(models: Path) -> None:
    fruit_bundle(models, version="2", calibration=temperature(1000))
    write(models, 'versions = ["1"]\nshadow = "2"')
    kind = {"candidate": "2", "label": "apple", "verdict": "answer/dont_know"}
    with Server(Settings(models=models), HotProtocol) as address:
        connection = Connection(address)
        assert ask(connection)["version"] == "1"
        connection.close()

        wait_for(lambda: value_at(address, "dunno_shadow_disagreements_total", **kind) == 1)
        assert httpx.get(f"{address}/models/fruit").json()["shadow"] == "2"


@pytest.mark.slow
def test_body_that_comes_after_a_switch_is_answered_by_the_version_it_was_for(
    models: Path,
) -> None:
    whole = request(BODY, Expect="100-continue")
    head = whole[: -len(BODY)]
    with serving_with_admin(models) as (_, address, admin):
        slow, operator = Connection(address), Connection(admin)
        slow.send(head)
        assert slow.status_line().startswith(b"HTTP/1.1 100")
        assert slow.status_line() == b""

        write(models, 'versions = ["2"]')
        operator.send(request(b"{}", path="/reload"))
        assert operator.response()[2] == {"models": {"fruit": ["2"]}}
        slow.send(BODY)
        status, _, content = slow.response()

        assert (status, content["version"]) == (200, "1")
        assert ask(slow)["version"] == "2"
        slow.close()
        operator.close()
