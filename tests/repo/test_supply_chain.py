"""What the service is made of: every package of its lock file has a licence that is allowed."""

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from locks import pinned

ROOT = Path(__file__).parents[2]
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT", "MIT-0", "MIT-CMU"),
    *("PSF-2.0", "Zlib"),
    "MPL-2.0",  # asks for the source of its own files if they are changed; they are not
}
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""What packages without a licence expression write -> its SPDX identifier."""

SAID_ELSEWHERE = {
    "pysimdjson": "MIT",  # its metadata say nothing, its LICENSE file does
}
LOCKED = pinned("service")


def licence_of(name: str) -> str:
    metadata: Any = importlib.metadata.metadata(name)  # a message of e-mail, and typed as less
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier") or []
        if text.startswith("License :: OSI Approved :: ")
    ]
    said = SAID_ELSEWHERE.get(name) or metadata.get("License-Expression")
    if said:
        return str(said)
    by_classifier = " AND ".join(sorted(SPDX.get(text, text) for text in classifiers))
    licence = metadata.get("License") or "none"
    return by_classifier or SPDX.get(licence, licence)


def test_list_of_licences_says_what_the_packages_say() -> None:
    text = (ROOT / "docs/licences.md").read_text()
    lines = sorted(f"| {name} | {licence_of(name)} |" for name in LOCKED)

    assert [line for line in text.splitlines() if line.startswith("| ")][2:] == lines


@pytest.mark.parametrize("name", LOCKED)
def test_licence_of_every_package_of_the_service_is_allowed(name: str) -> None:
    words = set(re.findall(r"[\w.-]+", licence_of(name))) - {"AND", "OR", "WITH"}

    assert words
    assert words <= ALLOWED


@pytest.mark.parametrize(
    ("tool", "code", "said"),
    [
        pytest.param("exit 0", 0, "no vulnerability is known", id="none is known"),
        pytest.param(
            'while [ "$1" != --output ]; do shift; done; echo "x 1.0 CVE-1" > "$2"; exit 1',
            1,
            "x 1.0 CVE-1",
            id="one is known",
        ),
        pytest.param("echo no route >&2; exit 1", 3, "NOT CHECKED", id="no database"),
        pytest.param("exit 127", 3, "NOT CHECKED", id="no tool"),
    ],
)
def test_audit_says_honestly_whether_anything_was_checked(
    tmp_path: Path, tool: str, code: int, said: str
) -> None:
    (tmp_path / "audit").write_text(f"#!/bin/sh\n{tool}\n")
    (tmp_path / "audit").chmod(0o755)
    environment = os.environ | {"AUDIT": str(tmp_path / "audit")}

    done = subprocess.run(  # noqa: S603  our own script
        [ROOT / ".ci/audit"], env=environment, check=False, capture_output=True, text=True
    )

    assert done.returncode == code
    assert said in done.stdout
