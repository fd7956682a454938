"""What no line of the service may do, read from its source: run others' code, call others."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICE = sorted(ROOT.glob("service/**/*.py"))
ALL = sorted([*SERVICE, *ROOT.glob("training/**/*.py")])

UNPICKLING = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("yaml", "jsonpickle", "torch", "h5py"),
}
"""Packages that make objects, and so run code, out of bytes."""

CALLING = {
    *("requests", "httpx", "aiohttp", "urllib3", "urllib.request", "http.client", "httplib2"),
    *("ftplib", "smtplib", "telnetlib", "xmlrpc", "imaplib", "poplib", "paramiko", "grpc", "boto3"),
    *("huggingface_hub", "onnx.hub", "tensorflow_hub", "pooch", "model_signing", "sigstore"),
}
"""Packages that open connections."""

RUNNING = {"subprocess", "pty", "commands", "ctypes", "cffi", "code", "codeop"}
"""Packages that start programs or load libraries."""

LOADED_ALREADY = {
    "service/memory.py": "ctypes.CDLL(None)",
    "service/inputs/webp.py": "ctypes.CDLL(_webp.__file__)",
}
"""Calls of functions of libraries that are in the process anyway: the C library's and Pillow's."""

MAY_CALL = {"service/bench/load.py", "service/bench/request.py"}
"""`dunno bench` is a client; the server imports nothing of it."""

CALLS = {
    *("eval", "exec", "compile", "__import__", "execfile"),
    *("os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv", "os.posix_spawn"),
    *("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load", "marshal.loads"),
    *("ctypes.CDLL", "importlib.util.spec_from_file_location", "runpy.run_path"),
}
CONNECTING = {"create_connection", "open_connection", "sock_connect", "connect", "connect_ex"}
"""Methods that open a connection, of sockets and of event loops."""

TO_WORKERS = {"service/telemetry/workers.py": {"asking.connect"}}
"""Calls that reach worker processes of the same server, on a Unix socket."""

ENGINES = {
    *("register_custom_ops_library", "register_custom_op", "load_op_library", "load_library"),
    *("enable_unsafe_deserialization", "load_model", "py_function", "numpy_function"),
}
"""Methods by which engines load code."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def imports(path: Path) -> Iterator[str]:
    for node in nodes(path.read_text()):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in nodes(path.read_text()):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def found_in(path: Path, names: set[str]) -> set[str]:
    return {
        name for name in imports(path) if any(f"{name}.".startswith(f"{each}.") for each in names)
    }


@pytest.mark.parametrize("path", ALL, ids=relative)
def test_no_package_that_unpickles_is_imported(path: Path) -> None:
    assert found_in(path, UNPICKLING) == set()


@pytest.mark.parametrize("path", SERVICE, ids=relative)
def test_service_imports_nothing_that_calls_others(path: Path) -> None:
    allowed = {"ctypes"} if relative(path) in LOADED_ALREADY else set()

    assert relative(path) in MAY_CALL or found_in(path, CALLING | RUNNING) == allowed


@pytest.mark.parametrize("path", SERVICE, ids=relative)
def test_service_opens_no_connection(path: Path) -> None:
    found = {name for name, _ in calls(path) if name.rpartition(".")[2] in CONNECTING}

    allowed = TO_WORKERS.get(relative(path), set())
    assert relative(path) in MAY_CALL or found == allowed


@pytest.mark.parametrize("path", ALL, ids=relative)
def test_no_text_is_run_as_code(path: Path) -> None:
    found = {ast.unparse(call) for name, call in calls(path) if name in CALLS}

    assert found <= {LOADED_ALREADY.get(relative(path), "")}


@pytest.mark.parametrize("path", SERVICE, ids=relative)
def test_no_engine_is_told_to_load_code(path: Path) -> None:
    assert {name for name, _ in calls(path) if name.rpartition(".")[2] in ENGINES} == set()


@pytest.mark.parametrize("path", ALL, ids=relative)
def test_arrays_are_never_unpickled(path: Path) -> None:
    allowing = [
        name
        for name, call in calls(path)
        for keyword in call.keywords
        if keyword.arg == "allow_pickle"
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]

    assert allowing == []


def test_no_route_takes_files_or_addresses() -> None:
    """Models come from the operator's folder: none is uploaded, none is fetched."""
    text = "\n".join(path.read_text() for path in SERVICE)

    assert re.findall(r"\b(UploadFile|save_upload|urlopen|urlretrieve)\b", text) == []


def test_server_imports_nothing_of_the_client() -> None:
    importing = {
        relative(path)
        for path in SERVICE
        if any(name.startswith("service.bench") for name in imports(path))
    }

    assert {path for path in importing if not path.startswith("service/bench/")} == {
        "service/cli.py"
    }


@pytest.mark.parametrize(
    ("source", "check"),
    [
        ("import pickle", test_no_package_that_unpickles_is_imported),
        ("from urllib.request import urlopen", test_service_imports_nothing_that_calls_others),
        ("import subprocess", test_service_imports_nothing_that_calls_others),
        ("import socket\nsocket.create_connection(())", test_service_opens_no_connection),
        ("eval('1')", test_no_text_is_run_as_code),
        ("options.register_custom_ops_library('x')", test_no_engine_is_told_to_load_code),
        ("np.load(x, allow_pickle=True)", test_arrays_are_never_unpickled),
        ("np.load(x, allow_pickle=flag)", test_arrays_are_never_unpickled),
    ],
)
def test_each_of_these_checks_finds_what_it_looks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, check: object
) -> None:
    (tmp_path / "bad.py").write_text(source)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)

    assert callable(check)
    with pytest.raises(AssertionError):
        check(tmp_path / "bad.py")
