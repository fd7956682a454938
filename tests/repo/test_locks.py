"""Lock files install today and in a year: they are complete, and pip resolves nothing."""

import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from locks import LOCKS, applies, pinned, read_lock
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
INSTALLING = re.compile(r"^.*\binstall\b(?:.*\\\n)*.*--require-hashes.*$", re.MULTILINE)
HASH = re.compile(r" +--hash=sha256:[0-9a-f]{64}(?: \\)?")
OLDEST_PIPS = {"3.11.0": "22.3", "3.12.0": "23.2.1", "3.13.0": "24.2"}
"""Release of Python -> pip that its `venv` installs; Debian 12 is between the first two."""


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_file_is_pinned_by_its_hash(lock: str) -> None:
    entries = re.split(r"\n(?=[^ ])", read_lock(lock).strip())

    assert len(entries) > 20
    assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_holds_nothing_but_pinned_packages_and_their_hashes(lock: str) -> None:
    """So it names no index: each machine uses its own."""
    indented = [line for line in read_lock(lock).splitlines() if line.startswith(" ")]

    assert pinned(lock)  # which fails on any other line at the margin
    assert [line for line in indented if not HASH.fullmatch(line)] == []


def test_whatever_an_installed_package_requires_is_in_the_lock_with_its_extras() -> None:
    """pip 23.2 looks for the newest `coverage` if the lock pins it without its extra `toml`."""
    lock = pinned("dev")
    missing = [
        f"{requiring} requires {requirement}"
        for requiring, each in lock.items()
        for requirement in map(Requirement, importlib.metadata.requires(requiring) or [])
        if applies(requirement, each.extras) and not is_pinned(requirement, lock)
    ]

    assert missing == []


def is_pinned(requirement: Requirement, lock: dict[str, Requirement]) -> bool:
    name = normalised(requirement.name)
    if name not in lock:
        return False
    found = lock[name]
    (version,) = (each.version for each in found.specifier)
    return requirement.extras <= found.extras and requirement.specifier.contains(
        version, prereleases=True
    )


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile"])
def test_lock_files_are_installed_without_a_resolver_and_checked(name: str) -> None:
    text = (ROOT / name).read_text()
    lines = INSTALLING.findall(text)

    assert lines
    assert [line for line in lines if "--no-deps" not in line] == []
    assert [line for line in lines if "--only-binary :all:" not in line] == []
    assert re.findall(r"-m pip (?:--python \S+ )?check$", text, re.MULTILINE)


def test_no_document_installs_a_lock_file_with_a_resolver() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("load_tests/*.md")]
    lines = [line for page in pages for line in INSTALLING.findall(page.read_text())]

    assert [line for line in lines if "--no-deps" not in line] == []


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, cwd=cwd, capture_output=True, text=True)  # noqa: S603  pip


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of both lock files, the oldest pips, and a fake newer release of each package."""
    folder = tmp_path_factory.mktemp("wheels")
    pip: list[str | Path] = [sys.executable, "-m", "pip"]
    download = [*pip, "download", "--quiet", "--no-deps", "--dest", folder]
    for lock in ("service", "dev"):
        requirements = ROOT / f"requirements/{lock}.txt"
        binary = ["--require-hashes", "--only-binary", ":all:"]
        done = run(*download, *binary, "--requirement", requirements, cwd=folder)
        assert done.returncode == 0, done.stderr
    for version in OLDEST_PIPS.values():
        done = run(*download, f"pip=={version}", cwd=folder)
        assert done.returncode == 0, done.stderr
    for name in pinned("dev"):
        write_newer_release(folder, name)
    return folder


def write_newer_release(folder: Path, name: str) -> None:
    """Write an empty wheel of release 99999 of a package."""
    stem = f"{name.replace('-', '_')}-99999"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 99999\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", metadata)
        wheel.writestr(f"{stem}.dist-info/WHEEL", tags)
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


class OldPip:
    """A new virtual environment, filled by the pip of another Python release."""

    def __init__(self, folder: Path, wheels: Path, version: str) -> None:
        self._folder = folder
        self._wheels = wheels
        self._pip = wheels / f"pip-{version}-py3-none-any.whl" / "pip"
        done = run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
        assert done.returncode == 0, done.stderr

    def __call__(self, command: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        python = self._folder / "venv/bin/python"
        # --isolated: the pip configuration of this machine could name another index.
        return run(python, "-I", self._pip, "--isolated", command, *options, cwd=self._folder)

    def install(self, requirements: Path, *options: str) -> subprocess.CompletedProcess[str]:
        hashed = ("--require-hashes", "--requirement", requirements)
        local = ("--no-index", "-f", self._wheels)
        return self("install", "--quiet", *local, *options, *hashed)


ONLY_IN_CHECK = pytest.mark.skipif(
    "DUNNO_CHECK" not in os.environ, reason="`make check` downloads the wheels of both lock files"
)
AS_IN_THE_MAKEFILE: Sequence[str] = ("--no-deps", "--only-binary", ":all:")


@pytest.fixture(params=OLDEST_PIPS.values(), ids=[f"pip of {each}" for each in OLDEST_PIPS])
def pip(tmp_path: Path, wheels: Path, request: pytest.FixtureRequest) -> OldPip:
    return OldPip(tmp_path, wheels, request.param)


@ONLY_IN_CHECK
@pytest.mark.slow
def test_service_installs_by_the_oldest_pips_from_an_index_that_has_newer_releases(
    pip: OldPip,
) -> None:
    installed = pip.install(ROOT / "requirements/service.txt", *AS_IN_THE_MAKEFILE)
    checked = pip("check")

    assert (installed.returncode, installed.stderr) == (0, "")
    assert (checked.returncode, checked.stdout) == (0, "No broken requirements found.\n")


@ONLY_IN_CHECK
@pytest.mark.slow
def test_tools_install_by_the_oldest_pips_from_an_index_that_has_newer_releases(
    pip: OldPip,
) -> None:
    """Nothing is unpacked: that takes a minute and `.ci/run` does it in a bare container."""
    done = pip.install(ROOT / "requirements/dev.txt", *AS_IN_THE_MAKEFILE, "--dry-run")

    assert (done.returncode, done.stderr) == (0, "")


@ONLY_IN_CHECK
@pytest.mark.slow
def test_lock_without_extras_and_with_a_resolver_stops_at_a_newer_release(
    tmp_path: Path, wheels: Path
) -> None:
    """Prove that the wheels above reproduce the failure: pip 23.2 looks for the newest coverage."""
    without_extras = tmp_path / "dev.txt"
    without_extras.write_text(
        re.sub(r"^([\w.-]+)\[[\w,-]+\]==", r"\1==", read_lock("dev"), flags=re.MULTILINE)
    )

    done = OldPip(tmp_path, wheels, OLDEST_PIPS["3.12.0"]).install(without_extras, "--dry-run")

    assert done.returncode == 1
    assert "must have their versions pinned with ==" in done.stderr
    assert "99999" in done.stderr
