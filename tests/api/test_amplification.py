"""What requests cost the server, for what they cost to send."""

import subprocess
import sys
from pathlib import Path

import httpx
import orjson
import pytest
from bundles import fruit_bundle
from conftest import Server

from service.api.hotpath import HotProtocol
from service.inputs.payload import UNTOLD
from service.settings import Settings

MOST_TOLD = 100
ROOT = Path(__file__).parents[2]
SURE = [9.0, 0.0, 0.0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how long threads ran")
def test_no_request_takes_long_for_its_size() -> None:
    # Before there were limits, some took sixty times as long as is allowed.
    command = [sys.executable, "load_tests/amplification.py", "--times", "3", "--slack", "4"]
    done = subprocess.run(  # noqa: S603  our own command
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_errors_beyond_a_hundred_are_counted(tmp_path: Path) -> None:
    fruit_bundle(tmp_path, version="1")
    (tmp_path / "catalogue.toml").write_text("[models.fruit]\n")
    with Server(Settings(models=tmp_path), HotProtocol) as address:
        for wrong in MOST_TOLD, MOST_TOLD + 1:
            instances: list[list[float]] = [[]] * wrong + [SURE]
            answer = httpx.post(
                f"{address}/predict/fruit",
                content=orjson.dumps({"instances": instances}),
                headers={"content-type": "application/json"},
            ).json()

            *failures, last = answer["predictions"]
            assert last["verdict"] == "answer"
            assert {failure["error"]["code"] for failure in failures} == {"input_invalid"}
            details = [failure["error"]["detail"] for failure in failures]
            assert all("expected 3 numbers" in detail for detail in details[:MOST_TOLD])
            assert details[MOST_TOLD:] == [UNTOLD] * (wrong - MOST_TOLD)
            assert answer.get("wrong_rows", 0) == (wrong if wrong > MOST_TOLD else 0)


def test_large_request_is_answered_row_by_row_as_small_ones_are(tmp_path: Path) -> None:
    fruit_bundle(tmp_path, version="1")
    (tmp_path / "catalogue.toml").write_text("[models.fruit]\n")
    rows = [[float(n % 7), 0.0, float(n % 3)] for n in range(1003)]
    headers = {"content-type": "application/json"}
    with (
        Server(Settings(models=tmp_path), HotProtocol) as address,
        httpx.Client(base_url=address, headers=headers) as client,
    ):

        def ask(instances: list[list[float]]) -> list[object]:
            content = orjson.dumps({"instances": instances})
            answer = client.post("/predict/fruit", content=content).json()
            found: list[object] = answer["predictions"]
            return found

        together = ask(rows)

        assert together == [answer for row in rows for answer in ask([row])]
