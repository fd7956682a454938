"""What a step's content depends on, as one hash: values, arrays, and the code that made it."""

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PACKAGE = "training"


def fingerprint(*parts: object) -> str:
    """Return the sha256 of the parts' texts, in order."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def array_fingerprint(array: NDArray[np.generic]) -> str:
    """Return the sha256 of an array's shape, type and values."""
    head = f"{array.shape} {array.dtype}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def code_fingerprint(function: Callable[..., Any]) -> str:
    """Return the sha256 of a function and of everything of ours that it reaches by name.

    Comments, layout and docstrings do not count, nor what lies beside the function unused: writing
    down a result or adding a layer for another model trains nothing again.
    """
    reached = sorted(reached_names(function))
    return fingerprint([(place, ast.dump(definitions(place[0])[place[1]])) for place in reached])


def reached_names(function: Callable[..., Any]) -> set[tuple[str, str]]:
    """Return (module, name) of all definitions that a function reaches, itself included.

    Followed are the names of its own module and of `training`; other libraries count by their
    versions.
    """
    waiting = list(_names_of(function))
    reached: set[tuple[str, str]] = set()
    while waiting:
        module, name = waiting.pop()
        node = definitions(module).get(name)
        if node is None or (module, name) in reached:
            continue  # a builtin, another library's, or known
        reached.add((module, name))
        waiting.extend(_reached_from(module, node))
    return reached


def _names_of(function: Any) -> Iterator[tuple[str, str]]:
    """Yield module and name of a function, and of the functions bound to it."""
    if isinstance(function, functools.partial):
        for part in (function.func, *function.args, *function.keywords.values()):
            yield from _names_of(part)
    elif callable(function):
        yield function.__module__, function.__qualname__.partition(".")[0]


@functools.cache
def definitions(module: str) -> dict[str, ast.stmt]:
    """Return the statements at the top of a module, without docstrings, by the names they bind."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return {}
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    _drop_docstrings(tree)
    return {name: node for node in tree.body for name in _bound(node)}


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def _reached_from(module: str, node: ast.stmt) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.ImportFrom):
        return  # which of its names is meant is known where it is used
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield _home(module, part.id)
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            source, name = _home(module, part.value.id)
            yield f"{source}.{name}" if source == _PACKAGE else source, part.attr


def _home(module: str, name: str) -> tuple[str, str]:
    """Return where a name used in a module is defined, if one of our modules defines it."""
    node = definitions(module).get(name)
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == _PACKAGE:
        original = {alias.asname or alias.name: alias.name for alias in node.names}
        return node.module or "", original[name]
    return module, name
