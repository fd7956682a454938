"""One shell for all programs of a page: folder and variables last from block to block."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from documents.blocks import Block
from documents.printed import is_answered, is_printed, shown

PRELUDE = Path(__file__).parent / "prelude.sh"
PATIENCE_S = 600.0
"""Longest time that one block may take; some install what they need."""

DEFAULT_PORT = "8000"

CURL_OPTIONS = 'silent\nshow-error\nwrite-out = "\\n"\n'
"""Answers end without a line break; each is to stand on a line of its own."""

_PORT = re.compile(r"(?P<before>127\.0\.0\.1:|localhost:|_PORT=)(?P<port>\d{4,5})\b")
_SERVE = re.compile(
    r"^(?P<set>(?:\w+=\S*(?:[ \t]|\\\n)+)*)"
    r"(?P<command>(?:make serve|(?:\S*/)?dunno serve)(?![^\n]*(?:--help|[|]))[^\n&#]*)(?:&[ \t]*)?",
    re.MULTILINE,
)
_OTHERS = ("DUNNO_", "GIT_", "MAKE", "MFLAGS", "OTEL_", "PYTEST_", "PYTHONPATH", "VIRTUAL_ENV")
"""Variables of whoever runs the tests that a reader does not have."""


class BlockFailed(AssertionError):
    """A block did not do what its page says; the message has its place, text and output."""


def installed_for(copy: Path) -> dict[str, str]:
    """Return variables with which programs find this interpreter's packages and the copy's code.

    Nothing can be installed there: it is the environment of whoever runs the tests.
    """
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PIP_NO_INDEX": "1", "PYTHONPATH": str(copy)}


class Session:
    """Runs the programs of one page in a copy of the repository.

    `variables` come on top of those of whoever runs the tests, less what leads to his own checkout.
    """

    def __init__(self, copy: Path, folder: Path, variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._ports: dict[str, str] = {}
        folder.mkdir()
        self._shell = subprocess.Popen(
            ["bash"],  # noqa: S607  bash is wherever it is installed
            cwd=copy,
            env={**self._environment(), **variables},
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        """Start the shell."""
        self._say(f"exec 3>&1; . {PRELUDE}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the shell, its server, and whatever else it has started."""
        with contextlib.suppress(BrokenPipeError):
            assert self._shell.stdin
            self._shell.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._shell.wait(20)
        server = self._folder / "server.pid"
        for group in (self._shell.pid, *(int(line) for line in _lines(server))):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._shell.wait()
        assert self._shell.stdout
        self._shell.stdout.close()

    def run(self, block: Block) -> str:
        """Run a program, compare what it prints, and return it.

        Raises:
            BlockFailed: if it fails, takes too long or prints something else.
        """
        printed = self._folder / f"{block.line}.out"
        source = self._write(block)
        command = f". {source}" if block.language == "sh" else f"{sys.executable} {source}"
        # What a page shows may be a refusal; what it does not show has to be none.
        refusals = "" if block.output else "fail\n"
        (self._folder / ".curlrc").write_text(f"{CURL_OPTIONS}{refusals}")
        self._say(f"{{ {command}; }} >{printed} 2>&1 </dev/null 3>&-; echo done >&3")
        ending = self._ending()
        text = shown(printed.read_text(errors="replace"))
        if ending:
            raise BlockFailed(f"{block.place}: {ending}\n\n{block.text}\nIt printed:\n{text}")
        if block.output and not self._is_as_said(text, block.output):
            raise BlockFailed(
                f"{block.output.place}: expected\n\n{self._local(block.output.text)}\n"
                f"of the block at {block.place}, which printed\n\n{text}"
            )
        return text

    def _is_as_said(self, text: str, output: Block) -> bool:
        compare = is_answered if output.language == "json" else is_printed
        return compare(text, self._local(output.text))

    def _write(self, block: Block) -> Path:
        """Return a file with the block at the lines that it has on its page."""
        text = self._local(block.text)
        if block.language == "sh":
            text = _SERVE.sub(r"\g<set>serving \g<command>", text)
        path = self._folder / f"{Path(block.page).name}.{block.line}.{block.language}"
        path.write_text("\n" * (block.line - 1) + text)
        return path

    def _local(self, text: str) -> str:
        """Return a text with ports that nobody else has."""
        return _PORT.sub(lambda found: found["before"] + self._port(found["port"]), text)

    def _port(self, named: str) -> str:
        if named not in self._ports:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self._ports[named] = str(listener.getsockname()[1])
        return self._ports[named]

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}
        return own | {
            "COLUMNS": "100",
            "CURL_HOME": str(self._folder),
            "DOCUMENT": str(self._folder),
            "DUNNO_PORT": self._port(DEFAULT_PORT),
            "TERM": "dumb",
            **{name: os.environ[name] for name in ("DUNNO_DATA",) if name in os.environ},
        }

    def _say(self, line: str) -> None:
        assert self._shell.stdin
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.write(f"{line}\n")
            self._shell.stdin.flush()

    def _ending(self) -> str:
        """Return how the block ended, nothing if well."""
        assert self._shell.stdout
        if not select.select([self._shell.stdout], [], [], PATIENCE_S)[0]:
            return f"not done after {PATIENCE_S:.0f} s"
        return "" if self._shell.stdout.readline() == "done\n" else "failed"


def _lines(path: Path) -> Iterator[str]:
    if path.exists():
        yield from path.read_text().split()
