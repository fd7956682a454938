"""What clients see is what was recorded, by whichever way a request goes.

A change of it is a decision: run `python tests/golden/record.py`, look at the difference, and say
in the commit why.
"""

import os
from pathlib import Path

import pytest
from golden.servers import ANSWERS, DOORS, SERVERS, record
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.guarded import GuardedProtocol


@pytest.mark.parametrize("door", list(DOORS.values()), ids=list(DOORS))
@pytest.mark.parametrize("server", list(SERVERS))
def test_answers_are_those_that_were_recorded(
    server: str, door: type[HttpToolsProtocol], models: Path, tmp_path: Path
) -> None:
    found = record(server, door, models, tmp_path)
    if "DUNNO_RECORD" in os.environ and door is GuardedProtocol:
        write(ANSWERS / f"{server}.txt", found)

    assert found == read(ANSWERS / f"{server}.txt")


def write(path: Path, answers: dict[str, str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"\n=== {name}\n{answer}\n" for name, answer in answers.items()))


def read(path: Path) -> dict[str, str]:
    sections = path.read_text().split("\n=== ")[1:]
    pairs = (section.split("\n", 1) for section in sections)
    return {name: answer.removesuffix("\n") for name, answer in pairs}
