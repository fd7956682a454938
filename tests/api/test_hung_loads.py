"""A graph that loops without end, in a process of its own: what else it does goes on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from bundles import fruit_bundle, onnx_bytes
from faults import PATIENCE_S, ROW, SERVE, server
from onnx import TensorProto, helper
from waiting import wait_for

from service.api.keys import digest_of, new_key
from service.bundle import Bundle, write_bundle

ENDLESS = 2**62


def endless_bundle(models: Path, version: str) -> Bundle:
    """Write a version of `fruit` whose graph would give the right answer in some 100 years."""
    bundle = fruit_bundle(models, version)
    step = helper.make_graph(
        [
            helper.make_node("Identity", ["going_on"], ["goes_on"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["turns", "", "rows"], ["logits"], body=step),
        helper.make_node("Gather", ["rows", "firm"], ["novelty_scores"], axis=1),
    ]
    constants = [
        helper.make_tensor("turns", TensorProto.INT64, [], [ENDLESS]),
        helper.make_tensor("firm", TensorProto.INT64, [1], [2]),
    ]
    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    contents["model.onnx"] = onnx_bytes(bundle.manifest.graph, nodes, constants)
    return write_bundle(
        bundle.path,
        contents,
        lambda files: bundle.manifest.model_copy(update={"files": files}),
    )


def choose(models: Path, version: str) -> None:
    (models / "catalogue.toml").write_text(f'[models.fruit]\nversions = ["{version}"]\n')


@pytest.fixture
def models(tmp_path: Path) -> Path:
    fruit_bundle(tmp_path, "1")
    endless_bundle(tmp_path, "2")
    choose(tmp_path, "1")
    return tmp_path


def test_server_answers_revokes_keys_and_ends_well_while_a_load_hangs(models: Path) -> None:
    kept, revoked = new_key(), new_key()
    keys = models / "keys.toml"

    def allow(**callers: str) -> None:
        keys.write_text(
            "".join(
                f'[keys.{name}]\nsha256 = ["{digest_of(key)}"]\n' for name, key in callers.items()
            )
        )

    allow(kept=kept, revoked=revoked)
    settings = {"DUNNO_KEYS": str(keys), "DUNNO_MAX_LOAD_MS": "60000"}
    settings["DUNNO_DRAIN_TIMEOUT_MS"] = "500"
    with server(models, settings=settings) as (process, address):

        def ask(key: str) -> httpx.Response:
            return httpx.post(f"{address}/predict/fruit", json=ROW, headers={"X-API-Key": key})

        assert (ask(kept).status_code, ask(revoked).status_code) == (200, 200)
        choose(models, "2")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: is_loading(process.pid))
        allow(kept=kept)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: ask(revoked).status_code == 401)

        answer = ask(kept)
        assert (answer.status_code, answer.json()["version"]) == (200, "1")


def test_load_that_hangs_is_reported_and_another_version_is_loaded(models: Path) -> None:
    settings = {"DUNNO_MAX_LOAD_MS": "1000", "DUNNO_DRAIN_TIMEOUT_MS": "500"}
    with server(models, settings=settings) as (process, address):

        def listing() -> dict[str, Any]:
            listed: dict[str, Any] = httpx.get(f"{address}/models").json()
            return listed

        choose(models, "2")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: listing()["failures"] == [{"model": "fruit", "code": "load_timed_out"}])
        assert listing()["models"][0]["version"] == "1"
        fruit_bundle(models, "3")
        choose(models, "3")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: listing()["models"][0]["version"] == "3")

        assert listing()["failures"] == []


def test_parent_of_workers_that_hang_at_the_start_stops_soon_after_a_hangup(models: Path) -> None:
    choose(models, "2")
    variables = os.environ | {"DUNNO_WORKERS": "2", "DUNNO_PORT": "0", "DUNNO_MODELS": str(models)}
    with subprocess.Popen(SERVE, stderr=subprocess.PIPE, env=variables) as process:  # noqa: S603  our own command
        assert process.stderr is not None
        next(line for line in process.stderr if b"Started parent" in line)
        wait_for(lambda: any(is_loading(pid) for pid in children(process.pid)))
        process.send_signal(signal.SIGHUP)
        time.sleep(1)  # the parent looks at its signals twice a second
        process.terminate()
        try:
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("command", "workers"),
    [(("serve", "--port", "0"), "1"), (("serve", "--port", "0"), "2"), (("check",), "1")],
    ids=["serve", "serve by workers", "check"],
)
def test_model_that_hangs_at_the_start_ends_it_with_a_sentence(
    models: Path, command: tuple[str, ...], workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_MAX_LOAD_MS", "1000")
    monkeypatch.setenv("DUNNO_WORKERS", workers)
    choose(models, "2")

    ended = subprocess.run(  # noqa: S603  our own command
        [sys.executable, "-m", "service.cli", *command, "--models", str(models)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )

    assert "fruit: loading did not end within 1 s (DUNNO_MAX_LOAD_MS)" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2


def test_sigterm_while_a_model_hangs_at_the_start_ends_it_well(models: Path) -> None:
    choose(models, "2")
    command = [*SERVE, "--port", "0", "--models", str(models)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:  # noqa: S603  our own
        wait_for(lambda: is_loading(process.pid))
        process.send_signal(signal.SIGTERM)

        assert process.wait(PATIENCE_S) == 0


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_loading(pid: int) -> bool:
    """Whether a thread beside the first one of a process has worked for half a second."""
    ticks = [0]
    for path in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            ticks += [int(fields[11])] if path.name != str(pid) else []
    return max(ticks) > os.sysconf("SC_CLK_TCK") / 2
