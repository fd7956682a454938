import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from bundles import fruit_bundle, write_catalogue
from click.testing import CliRunner, Result
from many_callers import serving

from service.api.keys import digest_of, read_key_file
from service.cli import main
from service.runtimes import RUNTIMES


def dunno(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)


def test_check_lists_models_settings_and_posture(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("DUNNO_HOST", "0.0.0.0")  # noqa: S104  this is what is warned of

    result = dunno("check", "--models", models)

    assert re.search(r"fruit.*onnx.*1\.0%.*certified", result.stdout)
    assert "DUNNO_MAX_BATCH_ROWS=32" in result.stdout
    assert "UNSAFE: listening on 0.0.0.0" in result.stdout
    assert "ok: admin: there is no such address" in result.stdout
    assert "all bundles match" in result.stdout


def safe_models(folder: Path) -> Path:
    fruit_bundle(folder)
    write_catalogue(folder, "fruit")
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o022)
    return folder


@pytest.mark.parametrize(
    ("variables", "exit_code"),
    [
        pytest.param({}, 0, id="loopback"),
        pytest.param({"DUNNO_HOST": "::"}, 3, id="wide"),
        pytest.param({"DUNNO_HOST": "::", "DUNNO_ALLOW_ANONYMOUS": "true"}, 0, id="meant"),
        pytest.param({"DUNNO_KEYS": "nowhere.toml"}, 2, id="no such keys"),
    ],
)
def test_check_exits_with_three_if_the_server_would_start_unsafely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], exit_code: int
) -> None:
    models = safe_models(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert dunno("check", "--models", models).exit_code == exit_code


@pytest.mark.slow
def test_server_warns_of_an_unsafe_posture_and_starts(models: Path) -> None:
    variables = {**os.environ, "DUNNO_HOST": "0.0.0.0"}  # noqa: S104  this is what is warned of
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--models", str(models)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=variables) as process:  # noqa: S603  our own
        assert process.stderr is not None
        warned = json.loads(process.stderr.readline())
        is_running = any(b"running on" in line for line in process.stderr)
        process.terminate()

        assert (warned["level"], warned["posture"]) == ("warning", "UNSAFE")
        assert is_running
        assert process.wait(10) == 0


def test_key_is_shown_once_beside_the_lines_for_the_file(tmp_path: Path) -> None:
    made, again = dunno("key", "shop"), dunno("key", "shop")

    path = tmp_path / "keys.toml"
    path.write_text(made.stdout)
    key = made.stderr.strip()
    assert key.startswith("dunno_")
    assert key not in made.stdout
    assert read_key_file(path).keys["shop"].sha256 == (digest_of(key),)
    assert again.stderr != made.stderr


def test_name_of_a_key_that_toml_would_not_take_is_refused() -> None:
    result = dunno("key", "my shop")

    assert result.exit_code == 2
    assert "NAME: expected small letters" in result.stderr


def test_keys_that_cannot_be_used_are_one_sentence_and_exit_code_two(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys.toml").write_text("[keys.shop]")
    monkeypatch.setenv("DUNNO_KEYS", str(tmp_path / "keys.toml"))

    result = dunno("serve", "--port", 0, "--models", models)

    assert result.exit_code == 2
    assert "keys.toml: keys.shop.sha256: Field required" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_misspelled_setting_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("DUNNO_MAX_BATCH_ROW", "8")
    monkeypatch.setenv("DUNNO_MAX_WAIT_MS", "1")

    result = dunno("check", "--models", models)

    assert "warning: DUNNO_MAX_BATCH_ROW is no setting" in result.stdout
    assert "DUNNO_MAX_WAIT_MS is no setting" not in result.stdout


def test_check_compares_the_runtimes_of_a_model_on_rows_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "basket.npy", np.array([[0, 0, 9]]))
    fruit_bundle(tmp_path)
    write_catalogue(tmp_path, "fruit")
    monkeypatch.setitem(RUNTIMES, "twin", RUNTIMES["onnx"])
    monkeypatch.setitem(RUNTIMES, "tensorflow", "nothing:None")

    rows = f"fruit={tmp_path / 'basket.npy'}"
    result = dunno("check", "--parity", "--rows", rows, "--models", tmp_path)

    assert result.exit_code == 0
    assert "fruit 1, onnx and twin: 1 rows, 0 other verdicts" in result.stdout
    assert "fruit 1, onnx and tensorflow: not compared: runtime 'tensorflow' needs" in result.stdout


@pytest.mark.parametrize("command", ["check", "serve"])
def test_corrupt_bundle_is_one_sentence_and_exit_code_two(tmp_path: Path, command: str) -> None:
    (fruit_bundle(tmp_path).path / "model.onnx").write_bytes(b"rubbish")
    write_catalogue(tmp_path, "fruit")

    options = ("--port", 0) if command == "serve" else ()
    result = dunno(command, *options, "--models", tmp_path)

    assert result.exit_code == 2
    assert "model.onnx: sha256 differs from the manifest" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_bad_setting_is_one_sentence_and_exit_code_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNNO_PORT", "many")

    result = dunno("serve")

    assert result.exit_code == 2
    assert result.stderr.startswith("dunno: DUNNO_PORT: ")


def test_terminal_that_knows_ascii_only_is_told_all_the_same(tmp_path: Path) -> None:
    safe_models(tmp_path)
    rows = tmp_path / "\xfcber.csv"
    rows.write_text("sweet,sour,crunchy\n9,0,0\n")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "60", "NO_COLOR": "1"}
    for arguments in (["check"], ["predict", "fruit", str(rows)]):
        command = [sys.executable, "-m", "service.cli", *arguments, "--models", str(tmp_path)]
        done = subprocess.run(  # noqa: S603  our own command
            command, env=environment, capture_output=True, text=True, check=False
        )

        assert "UnicodeEncodeError" not in done.stderr
        assert done.returncode in (0, 1)  # 1: a row of the file could not be read
        assert "\\xfcber.csv" in done.stdout or "all bundles match" in done.stdout


def test_every_command_explains_itself() -> None:
    overview = dunno("--help").stdout

    for command in ("serve", "check", "predict", "train"):
        assert command in overview
        assert dunno(command, "--help").exit_code == 0


def test_sigterm_answers_what_is_in_flight_and_exits_with_zero(models: Path) -> None:
    body = b'{"instances": [[9, 0, 0]]}'
    head = (
        b"POST /predict/fruit HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n"
        b"Expect: 100-continue\r\n\r\n" % len(body)
    )
    with serving(models) as (process, address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
            process.send_signal(signal.SIGTERM)
            _wait_until_refused(host, int(port))
            connection.sendall(body)
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert process.wait(10) == 0


def test_sigterm_while_models_are_loaded_ends_the_start(models: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--host", "0.0.0.0"]  # noqa: S104
    with subprocess.Popen(  # noqa: S603  our own command
        [*command, "--models", str(models)], stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert b"listening on 0.0.0.0" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)

        assert process.wait(10) == 0
        assert b"running on" not in process.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_after_sigterm_it_is_not_ready_and_goes_on_serving_until_a_second_one(
    models: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("DUNNO_STOP_DELAY_MS", "60000")
    monkeypatch.setenv("DUNNO_WORKERS", workers)
    with serving(models) as (process, address), httpx.Client(base_url=address) as client:
        _wait_until_ready(client)
        process.send_signal(signal.SIGTERM)
        until_s = time.monotonic() + 10
        while (ready := client.get("/readyz")).status_code == 200:
            assert time.monotonic() < until_s
        answer = client.post("/predict/fruit", json={"instances": [[9, 0, 0]]})
        process.send_signal(signal.SIGTERM)

        assert ready.json()["detail"] == "the server is stopping"
        assert answer.status_code == 200
        assert process.wait(10) == 0


@pytest.mark.slow
def test_two_signals_at_once_hasten_the_workers_as_well(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_STOP_DELAY_MS", "60000")
    monkeypatch.setenv("DUNNO_WORKERS", "2")
    with serving(models) as (process, address):
        with httpx.Client(base_url=address) as client:
            _wait_until_ready(client)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)  # within one look of the parent, and two signals for the kernel
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 0


@pytest.mark.slow
def test_body_that_never_comes_is_told_when_the_server_stops(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_DRAIN_TIMEOUT_MS", "500")
    head = (
        b"POST /predict/fruit HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    with serving(models) as (process, address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
            process.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))

        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"urn:dunno:draining" in answer
        assert process.wait(10) == 0


def _wait_until_ready(client: httpx.Client) -> None:
    """Wait for the workers, which are there a moment after their parent says that it runs."""
    for _ in range(500):
        with contextlib.suppress(httpx.ConnectError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.02)
    raise AssertionError("the server did not become ready")


def _wait_until_refused(host: str, port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("the server still listens after SIGTERM")


def test_server_starts_in_time(models: Path) -> None:
    started_s = time.monotonic()

    with serving(models) as (process, _):
        seconds = time.monotonic() - started_s
        process.terminate()

        assert process.wait(10) == 0
    # Two seconds are promised on a quiet machine; ten leave room for a busy one.
    assert seconds < 10


def test_shell_completes_commands_and_models(models: Path) -> None:
    """A real bash, with what `dunno completion bash` printed."""
    command = f"{Path(sys.executable).with_name('dunno')}"
    script = f"""
        eval "$({command} completion bash)"
        complete_line() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _dunno_completion "$1"; echo "${{COMPREPLY[@]}}"; }}
        complete_line {command} pre
        complete_line {command} predict fru
    """
    environment = {**os.environ, "DUNNO_MODELS": str(models)}

    done = subprocess.run(  # noqa: S603  the one of this machine
        ["/bin/bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == ["predict", "fruit fruits"]


@pytest.mark.parametrize(("shell", "expected"), [("zsh", "#compdef dunno"), ("fish", "complete ")])
def test_completion_is_there_for_other_shells(shell: str, expected: str) -> None:
    assert expected in dunno("completion", shell).stdout


def test_nothing_is_completed_without_a_catalogue(tmp_path: Path) -> None:
    environment = {
        "_DUNNO_COMPLETE": "bash_complete",
        "COMP_WORDS": f"dunno predict --models {tmp_path} fru",
        "COMP_CWORD": "4",
    }

    result = CliRunner().invoke(main, prog_name="dunno", env=environment)

    assert result.stdout.strip() == ""
    assert result.exit_code == 0
