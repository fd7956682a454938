"""What clients see is what was recorded, by whichever way a request goes.

A change of it is a decision: run `python tests/golden/record.py`, look at the difference, and say
in the commit why.
"""

import os
from difflib import unified_diff
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
    recorded = ANSWERS / f"{server}.txt"
    answers = record(server, door, models, tmp_path)
    found = "".join(f"\n=== {name}\n{answer}\n" for name, answer in answers.items())
    if "DUNNO_RECORD" in os.environ and door is GuardedProtocol:
        recorded.write_text(found)

    difference = unified_diff(
        recorded.read_text().splitlines(), found.splitlines(), "recorded", "found", lineterm=""
    )
    assert not (shown := "\n".join(difference)), shown
