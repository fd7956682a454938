"""`dunno predict`: by the model in this process, and by the same one on a server."""

import csv
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import Server
from keys import NARROW, write_keys
from PIL import Image
from pyarrow import parquet
from waiting import wait_for

from service.api.hotpath import HotProtocol
from service.cli import main
from service.errors import InputInvalid
from service.offline import sinks
from service.offline.sources import find_files
from service.runtimes.onnx import OnnxRuntime
from service.settings import Settings

HEADER = "sweet,sour,firm"


def dunno(*arguments: object, given: bytes | None = None) -> Result:
    words = [str(each) for each in arguments]
    return CliRunner().invoke(main, words, input=given, catch_exceptions=False)


@pytest.fixture(autouse=True)
def _models_of_the_tests(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNNO_MODELS", str(models))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "basket.csv").write_text(f"{HEADER}\n9,0,0\n1,1,1\n999,0,0\n")
    (tmp_path / "review.txt").write_text("good good good")
    (tmp_path / "basket.json").write_text('{"instances": [[0, 9, 0]]}')
    (tmp_path / "basket.jsonl").write_text('{"sour": 9, "sweet": 0, "firm": 0}\n')
    np.save(tmp_path / "basket.npy", np.array([[0, 0, 9]]))
    Image.new("L", (20, 20), 250).save(tmp_path / "sky.png")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04 and more")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    return tmp_path


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[str]:
    with Server(Settings(models=models, max_request_rows=200), HotProtocol) as address:
        yield address


@pytest.fixture(params=["here", "on a server"])
def at(request: pytest.FixtureRequest, server: str) -> str:
    """What stands before a model's name: nothing, or an address."""
    return "" if request.param == "here" else f"{server}/predict/"


def rows_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_predict_prints_a_row_for_each_row(at: str, files: Path) -> None:
    result = dunno("predict", f"{at}fruit", files / "basket.csv", "--json")

    rows = rows_of(result)
    assert [row.get("verdict") for row in rows] == ["answer", "dont_know", None]
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert rows[2]["error"]["detail"].startswith("line 4.sweet: expected at most 100")
    assert result.exit_code == 1


def test_model_says_the_same_here_and_on_a_server(server: str, files: Path) -> None:
    here, there = (
        rows_of(dunno("predict", model, files / "basket.csv", files / "basket.npy", "--json"))
        for model in ("fruit", f"{server}/predict/fruit")
    )

    assert here == there


def test_proxy_that_cannot_be_used_is_one_sentence(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "[::1]")

    result = dunno("predict", "http://127.0.0.1:1/predict/fruit", files / "basket.csv")

    assert result.exit_code == 2
    assert "dunno: environment: expected proxies" in result.stderr


def test_predict_prints_a_table_and_a_sum(files: Path) -> None:
    result = dunno("predict", "fruit", files / "basket.csv")

    assert re.search(r"basket\.csv.*0.*answer.*apple.*0\.9998", result.stdout)
    assert re.search(r"1 +│ don't know │ low_confidence", result.stdout)
    assert re.search(r"2 +│ error .*sweet", result.stdout)
    assert "3 rows: 1 answered, 1 don't know (low_confidence 1), 1 not readable" in result.stderr


@pytest.mark.parametrize(
    ("model", "file", "label"),
    [
        ("fruit", "basket.json", "pear"),
        ("fruit", "basket.jsonl", "pear"),
        ("fruit", "basket.npy", "plum"),
        ("picture", "sky.png", "light"),
        ("review", "review.txt", "positive"),
    ],
)
def test_predict_reads_a_file_by_its_suffix(
    at: str, files: Path, model: str, file: str, label: str
) -> None:
    result = dunno("predict", f"{at}{model}", files / file, "--json")

    assert rows_of(result)[0]["label"] == label
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("model", "arguments", "given", "labels"),
    [
        ("fruit", (), f"{HEADER}\n9,0,0\n0,9,0\n".encode(), ["apple", "pear"]),
        ("fruit", ("--format", "jsonl"), b"[9,0,0]\n[0,0,9]\n", ["apple", "plum"]),
        ("review", (), b"good good good\nbad bad bad\n", ["positive", None]),
    ],
)
def test_predict_reads_standard_input(
    at: str, model: str, arguments: tuple[str, ...], given: bytes, labels: list[str | None]
) -> None:
    result = dunno("predict", f"{at}{model}", "-", *arguments, "--json", given=given)

    assert [row["label"] for row in rows_of(result)] == labels
    assert {row["file"] for row in rows_of(result)} == {"-"}


def test_picture_comes_by_standard_input(files: Path) -> None:
    content = (files / "sky.png").read_bytes()

    assert rows_of(dunno("predict", "picture", "-", "--json", given=content))[0]["label"] == "light"


@pytest.mark.parametrize("argument", ["scans", "scans/**/*.png"])
def test_predict_reads_folders_and_patterns_in_order(
    at: str, tmp_path: Path, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a/2.png", "a/1.png", ".hidden.png", ".git/x.png"):
        path = Path("scans", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 250).save(path)
    Path("scans/notes.md").write_text("x")

    rows = rows_of(dunno("predict", f"{at}picture", argument, "--json"))

    assert sorted(row["file"] for row in rows) == ["scans/a/1.png", "scans/a/2.png", "scans/b.png"]
    assert {row["label"] for row in rows} == {"light"}


@pytest.mark.parametrize(
    ("suffix", "file_format"),
    [("jfif", "JPEG"), ("jpe", "JPEG"), ("PJPEG", "JPEG"), ("dib", "BMP"), ("JFIF", "JPEG")],
)
def test_picture_of_a_rare_suffix_is_a_picture(
    at: str, tmp_path: Path, suffix: str, file_format: str
) -> None:
    Image.new("L", (20, 20), 250).save(tmp_path / f"scan.{suffix}", file_format)

    (row,) = rows_of(dunno("predict", f"{at}picture", tmp_path, "--json"))

    assert row["label"] == "light"


def test_table_with_tabs_is_read(at: str, tmp_path: Path) -> None:
    (tmp_path / "basket.tsv").write_text("sweet\tsour\tfirm\n9\t0\t0\n")

    (row,) = rows_of(dunno("predict", f"{at}fruit", tmp_path, "--json"))

    assert row["label"] == "apple"


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_files_that_are_passed_over_are_counted_and_named(
    at: str, tmp_path: Path, more: tuple[str, ...]
) -> None:
    Image.new("L", (20, 20), 250).save(tmp_path / "a.png")
    for name in ("b.heic", "c.tiff", "d", "notes.txt", ".DS_Store"):
        (tmp_path / name).write_text("x")

    result = dunno("predict", f"{at}picture", tmp_path, *more)

    assert result.exit_code == 0
    names = ", ".join(f"{tmp_path}/{name}" for name in ("b.heic", "c.tiff", "d", "notes.txt"))
    assert result.stderr.endswith(f"passed over 4 files, no pictures by the suffix: {names}\n")


def test_of_many_files_that_are_passed_over_the_first_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\n9,0,0\n")
    for number in range(7):
        (tmp_path / f"{number}.xlsx").write_text("x")

    result = dunno("predict", "fruit", tmp_path)

    assert "passed over 7 files, no rows of features by the suffix: " in result.stderr
    assert result.stderr.rstrip().endswith("/4.xlsx and 2 more")


def test_folder_of_nothing_to_read_is_refused_with_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_text("x")

    result = dunno("predict", "picture", tmp_path)

    assert result.exit_code == 2
    assert f"got 1 file, no pictures by the suffix: {tmp_path}/a.heic" in result.stderr


def test_pattern_of_everything_doubles_no_row_and_names_no_folder(tmp_path: Path) -> None:
    for name in ("a.csv", "more.csv/b.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{HEADER}\n9,0,0\n")

    rows = rows_of(dunno("predict", "fruit", f"{tmp_path}/**", "--json"))

    assert [Path(row["file"]).name for row in rows] == ["a.csv", "b.csv"]
    assert {row["label"] for row in rows} == {"apple"}


def test_folder_that_cannot_be_read_ends_the_command(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (20, 20), 250).save(tmp_path / name)
    files = find_files([str(tmp_path)], "image")  # has seen both folders
    shutil.rmtree(tmp_path / "b")

    with pytest.raises(InputInvalid, match=r"b: expected a folder that can be read, got No such"):
        list(files)


@pytest.mark.parametrize("name", ["[b].csv", "x[-red].csv", ":cat:.csv"])
def test_name_in_the_table_is_the_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(f"{HEADER}\n9,0,0\n[/x],0,0\n")

    result = dunno("predict", "fruit", name)

    assert result.stdout.count(name) == 2
    assert "the string '[/x]'" in result.stdout


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_name_that_is_no_text_is_told_by_escapes(tmp_path: Path, suffix: str) -> None:
    named = tmp_path / "raw\udcff.csv"
    named.write_text(f"{HEADER}\n9,0,0\n")
    output = tmp_path / f"verdicts.{suffix}"

    result = dunno("predict", "fruit", named, "--output", output)

    assert result.exit_code == 0
    assert rb"raw\udcff.csv" in output.read_bytes().replace(rb"\\", b"\\")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_standard_output_that_takes_no_more_is_told(
    models: Path, files: Path, more: tuple[str, ...]
) -> None:
    words = ("predict", "fruit", str(files / "basket.csv"), "--models", str(models), *more)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(  # noqa: S603  our own command
            [sys.executable, "-m", "service.cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.stderr.splitlines()[0] == (
        "dunno: standard output: cannot be written (No space left on device)"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("argument", ["none/*.png", "folder"])
def test_pattern_or_folder_with_nothing_to_read_is_refused(
    tmp_path: Path, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()

    result = dunno("predict", "picture", argument)

    assert result.exit_code == 2
    assert f"{argument}: expected a file ending in .png, .jpg" in result.stderr


def test_only_what_a_person_must_look_at_is_shown(at: str, files: Path) -> None:
    arguments = ("predict", f"{at}fruit", files / "basket.csv", "--json", "--only", "dont_know")

    assert [row["row"] for row in rows_of(dunno(*arguments))] == [1]
    assert [row["row"] for row in rows_of(dunno(*arguments, "--only", "error"))] == [1, 2]


def test_one_bad_line_among_thousands_is_the_only_one_without_a_verdict(
    at: str, tmp_path: Path
) -> None:
    lines = ["[9, 0, 0]"] * 3000
    lines[1500] = "[9, 0"
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))

    rows = rows_of(dunno("predict", f"{at}fruit", tmp_path / "rows.jsonl", "--json"))

    assert [row["row"] for row in rows] == list(range(3000))
    assert [row["row"] for row in rows if "error" in row] == [1500]


def test_header_that_does_not_fit_is_told_once_for_a_file(at: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sweet,sour\n" + "1,2\n" * 5000)
    (tmp_path / "b.csv").write_text(f"{HEADER}\n9,0,0\n")

    first, second = rows_of(
        dunno("predict", f"{at}fruit", tmp_path / "a.csv", tmp_path / "b.csv", "--json")
    )

    assert "header: expected one column 'firm'" in first["error"]["detail"]
    assert second["label"] == "apple"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("notes.md", "expected a file ending in .png"),
        ("nowhere.csv", "nowhere.csv: expected a file that can be read, got No such file"),
        ("nowhere.npy", "nowhere.npy: expected a file that can be read, got No such file"),
        ("nowhere.png", "nowhere.png: expected a file that can be read, got No such file"),
        ("sky.png", "expected one of application/json, text/csv, application/x-npy"),
        ("empty.npy", "empty.npy: expected an .npy file, got EOF"),
        ("zip.npy", "zip.npy: expected an .npy file, got the magic string is not correct"),
        ("loop.csv", "loop.csv: expected a file that can be read, got Too many levels"),
        ("a" * 300 + ".csv", ".csv: expected a file that can be read, got File name too long"),
        ("raw\udcff.csv", "raw\\udcff.csv: expected a file that can be read, got No such file"),
    ],
)
def test_predict_says_what_is_wrong_with_a_file(
    at: str, files: Path, file: str, expected: str
) -> None:
    good = files / "basket.json"

    bad_row, good_row = rows_of(
        result := dunno("predict", f"{at}fruit", files / file, good, "--json")
    )

    assert expected in bad_row["error"]["detail"]
    assert good_row["label"] == "pear"
    assert result.exit_code == 1


def test_table_of_texts_needs_a_column(at: str, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("id,text\n1,good good good\n")

    without, found = (
        rows_of(dunno("predict", f"{at}review", path, *arguments, "--json"))[0]
        for arguments in ((), ("--column", "text"))
    )

    assert "expected --column, the one that holds the texts" in without["error"]["detail"]
    assert found["label"] == "positive"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nuts",), "no model 'nuts'; served here: fruit, picture"),
        (("fruit", "--max-error", "0.00001"), "0.001, 0.01, 0.05"),
        (("fruit", "--format", "xls"), "--format: expected one of png"),
        (("fruit", "--output", "a.xls"), "--output: expected a file ending in .csv, .json"),
        (("fruit", "--output", "basket.csv"), "expected another file than those that are read"),
        (("fruit", "--output", "nowhere/a.csv"), "nowhere/a.csv: cannot be written (No such file"),
        (("http://127.0.0.1:1/predict/fruit",), "http://127.0.0.1:1: [Errno 111]"),
        (("http://127.0.0.1:1/fruit",), "expected an address such as http://host:8000/predict/"),
        (("http://[::1/predict/fruit",), "expected an address such as http://host:8000/predict/"),
        (("http:///predict/fruit",), "expected an address such as http://host:8000/predict/"),
        (("http://h:port/predict/fruit",), "expected an address such as http://host:8000/predict"),
        (("http://h/predict/fruit?model=x",), "expected only max_error, min_confidence, top_k"),
        (("http://h/predict/fruit?probabilities=list",), "alias, got 'probabilities'"),
    ],
)
def test_predict_refuses_what_cannot_be_in_one_sentence(
    files: Path, arguments: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)

    result = dunno("predict", *arguments, "basket.csv")

    assert result.exit_code == 2
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nuts", "no model 'nuts'"),
        ("fruit?max_error=2", "query parameter 'max_error': expected a risk between 0 and 1"),
    ],
)
def test_what_a_server_refuses_for_all_rows_is_told_once(
    server: str, files: Path, model: str, expected: str
) -> None:
    result = dunno("predict", f"{server}/predict/{model}", files / "basket.csv")

    assert result.exit_code == 2
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_key_is_shown_to_a_server(
    models: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(models=models, keys=write_keys(tmp_path))
    with Server(settings, HotProtocol) as server:
        arguments = ("predict", f"{server}/predict/fruit", files / "basket.json", "--json")
        without = dunno(*arguments)
        monkeypatch.setenv("DUNNO_CLIENT_KEY", NARROW)
        found = dunno(*arguments)

    assert "expected Authorization" in without.stderr
    assert rows_of(found)[0]["label"] == "pear"


def test_risk_is_chosen_as_callers_choose_it(at: str, files: Path) -> None:
    arguments = ("--json", "--only", "answer")

    usual, strict = (
        rows_of(dunno("predict", f"{at}fruit", files / "basket.csv", *arguments, *more))
        for more in ((), ("--min-confidence", "0.9999"))
    )

    assert len(usual) == 1
    assert strict == []


def test_address_may_end_in_a_slash(server: str, files: Path) -> None:
    result = dunno("predict", f"{server}/predict/fruit/", files / "basket.json", "--json")

    assert rows_of(result)[0]["label"] == "pear"


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_output_holds_every_row_and_takes_its_name_when_it_is_whole(
    files: Path, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"verdicts.{suffix}"

    result = dunno("predict", "fruit", files / "basket.csv", "--output", path)

    read: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "csv": lambda: list(csv.DictReader(path.read_text().splitlines())),
        "json": lambda: json.loads(path.read_text()),
        "jsonl": lambda: [json.loads(line) for line in path.read_text().splitlines()],
        "parquet": lambda: parquet.read_table(path).to_pylist(),
    }
    rows = read[suffix]()
    assert [str(row["row"]) for row in rows] == ["0", "1", "2"]
    assert [row.get("verdict") or None for row in rows] == ["answer", "dont_know", None]
    assert "sweet: expected at most 100" in str(rows[2]["error"])
    assert float(rows[0]["confidence"]) == pytest.approx(0.99975, abs=1e-4)
    if suffix in ("csv", "parquet"):
        assert float(rows[0]["probability_apple"]) == float(rows[0]["confidence"])
    assert [each.name for each in tmp_path.glob("verdicts*")] == [path.name]
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("model", "read"),
    [
        ("fruit", ["basket.json"]),
        ("picture", ["basket.json", "sky.png"]),
        ("review", ["basket.json", "review.txt"]),
    ],
)
def test_what_no_such_model_takes_is_passed_over_in_folders(
    at: str, files: Path, model: str, read: list[str]
) -> None:
    folder = files / "mixed"
    folder.mkdir()
    for name in ("basket.json", "sky.png", "review.txt"):
        shutil.copy(files / name, folder)

    rows = rows_of(dunno("predict", f"{at}{model}", folder, "--json"))

    assert sorted(Path(row["file"]).name for row in rows) == read


def test_what_an_earlier_run_left_in_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\n9,0,0\n")
    path = tmp_path / "verdicts.csv"

    results = [dunno("predict", "fruit", tmp_path, "--output", path) for _ in range(2)]

    assert [result.exit_code for result in results] == [0, 0]
    assert len(path.read_text().splitlines()) == 2


def test_output_without_rows_is_a_file_all_the_same(files: Path, tmp_path: Path) -> None:
    for suffix, expected in (("json", "[]\n"), ("jsonl", "")):
        path = tmp_path / f"none.{suffix}"

        dunno("predict", "fruit", files / "basket.json", "--only", "error", "--output", path)

        assert path.read_text() == expected


@pytest.mark.slow
def test_what_was_answered_before_a_failure_is_kept_beside(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's model goes away in the middle."""
    (tmp_path / "a.csv").write_text(f"{HEADER}\n" + "9,0,0\n" * 40_000)
    path = tmp_path / "verdicts.csv"
    asked = 0

    from dunno_client import Dunno, NotFound  # noqa: PLC0415

    usual = Dunno.predict_body

    def leaving(self: Dunno, *given: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked > 200:
            raise NotFound("model_not_found", "no model 'fruit'")
        return usual(self, *given, **more)

    monkeypatch.setattr(Dunno, "predict_body", leaving)

    result = dunno("predict", f"{server}/predict/fruit", tmp_path / "a.csv", "--output", path)

    incomplete = tmp_path / "verdicts.csv.part"
    assert f"no model 'fruit'; what was answered until then is in {incomplete}" in result.stderr
    assert result.exit_code == 2
    assert not path.exists()
    assert len(incomplete.read_text().splitlines()) > 1000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_what_was_answered_before_ctrl_c_is_kept_beside(models: Path, tmp_path: Path) -> None:
    path, incomplete = tmp_path / "verdicts.csv", tmp_path / "verdicts.csv.part"
    words = ("predict", "fruit", "-", "--models", str(models), "--output", str(path))
    command = [sys.executable, "-m", "service.cli", *words]
    with subprocess.Popen(  # noqa: S603  our own command
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(f"{HEADER}\n" + "9,0,0\n" * 40_000)
        process.stdin.flush()
        wait_for(lambda: incomplete.exists() and incomplete.stat().st_size > 100_000)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()

    assert told == f"dunno: stopped; what was answered until then is in {incomplete}\n"
    assert process.returncode == 130
    assert not path.exists()


def test_ctrl_c_waits_for_no_server(server: str, tmp_path: Path) -> None:
    """The server takes a request and never answers it."""
    (tmp_path / "a.csv").write_text(f"{HEADER}\n9,0,0\n")
    answer = httpx.get(f"{server}/models/fruit").content
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/predict/fruit"
        command = [sys.executable, "-m", "service.cli", "predict", address, str(tmp_path / "a.csv")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
            with listener.accept()[0] as about_model:
                about_model.recv(65_536)
                about_model.sendall(head.encode() + answer)
            with listener.accept()[0] as about_rows:
                about_rows.recv(65_536)
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 130
            assert process.stderr is not None
            assert process.stderr.read() == "dunno: stopped\n"


def test_rows_beyond_those_shown_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "MOST_SHOWN", 2)
    (tmp_path / "a.csv").write_text(f"{HEADER}\n" + "9,0,0\n" * 5)

    result = dunno("predict", "fruit", tmp_path / "a.csv")

    assert result.stdout.count("apple") == 2 * 2  # label and candidates
    assert "and 3 more; --output FILE.csv has them all" in result.stderr


def test_row_that_a_run_fails_on_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = OnnxRuntime.run

    def brittle(self: OnnxRuntime, rows: Any) -> Any:
        if (rows[:, 2] == 7).any():
            raise MemoryError
        return usual(self, rows)

    monkeypatch.setattr(OnnxRuntime, "run", brittle)
    (tmp_path / "a.csv").write_text(f"{HEADER}\n9,0,0\n0,0,7\n0,9,0\n")

    rows = rows_of(dunno("predict", "fruit", tmp_path / "a.csv", "--json"))

    assert [row.get("label") for row in rows] == ["apple", None, "pear"]
    assert rows[1]["error"]["code"] == "run_failed"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(models: Path, tmp_path: Path) -> None:
    """Seven times as many rows take no more memory, by the process's own account."""
    script = (
        "import resource, sys; from service.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks_kib = []
    for rows in (20_000, 150_000):
        path = tmp_path / f"{rows}.csv"
        path.write_text(f"{HEADER}\n" + "9,0,0\n1,1,1\n" * (rows // 2))
        words = ("predict", "fruit", path, "--output", tmp_path / "out.csv", "--models", models)
        done = subprocess.run(  # noqa: S603  this interpreter
            [sys.executable, "-c", script, *map(str, words)], capture_output=True, check=True
        )
        peaks_kib.append(int(done.stdout))

    assert peaks_kib[1] - peaks_kib[0] < 10_000
