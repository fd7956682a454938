"""The image that `make image` builds, by its text; what it does is seen when it runs."""

import json
import re
from pathlib import Path

import pytest

from service import __version__
from service.settings import Settings

ROOT = Path(__file__).parents[2]

Instructions = list[tuple[str, str]]


@pytest.fixture
def final(dockerfile: Instructions) -> Instructions:
    """Return the instructions of the stage that is kept."""
    last = max(number for number, (name, _) in enumerate(dockerfile) if name == "FROM")
    return dockerfile[last:]


def arguments(instructions: Instructions, name: str) -> list[str]:
    return [rest for found, rest in instructions if found == name]


def variables(instructions: Instructions) -> dict[str, str]:
    text = " ".join(arguments(instructions, "ENV"))
    return {name: value.strip('"') for name, value in re.findall(r"(\w+)=(\S+)", text)}


def test_image_is_built_in_two_stages_from_one_base(dockerfile: Instructions) -> None:
    assert arguments(dockerfile, "FROM") == ["${BASE} AS build", "${BASE}"]


def test_base_can_be_chosen_and_is_the_official_slim_python(dockerfile: Instructions) -> None:
    assert dockerfile[0] == ("ARG", "BASE=python:3.13-slim-trixie")


def test_no_registry_and_no_package_index_is_named() -> None:
    text = (ROOT / "Dockerfile").read_text()

    assert not re.findall(r"[\w-]+(?:\.[\w-]+)*\.(?:io|com|org|dev)/\w+", text)
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param(r"COPY.*--link", id="linked copies"),
        pytest.param(r"<<", id="heredocs"),
        pytest.param(r"RUN.*--network", id="networks of one step"),
        pytest.param(r"@sha256:", id="digests of bases"),
    ],
)
def test_dockerfile_uses_nothing_that_older_builders_lack(unknown: str) -> None:
    assert not re.search(unknown, (ROOT / "Dockerfile").read_text())


def test_locked_service_alone_is_installed_by_default(dockerfile: Instructions) -> None:
    assert "LOCK=service" in arguments(dockerfile, "ARG")
    assert "tensorflow" not in (ROOT / "requirements/service.txt").read_text()


@pytest.mark.parametrize("lock", ["service", "tensorflow", "gpu"])
def test_every_variant_has_a_lock_file(lock: str) -> None:
    assert (ROOT / f"requirements/{lock}.txt").exists()


def test_every_package_is_installed_by_its_hash_or_is_our_own(dockerfile: Instructions) -> None:
    installs = [run for run in arguments(dockerfile, "RUN") if re.search(r"\binstall\b", run)]

    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert '"requirements/${LOCK}.txt"' in installs[0]
    assert "--no-deps" in installs[1]


def test_packages_are_not_cached_in_the_image(dockerfile: Instructions) -> None:
    assert variables(dockerfile)["PIP_NO_CACHE_DIR"] == "1"


def test_nothing_is_run_or_installed_in_the_stage_that_is_kept(final: Instructions) -> None:
    assert arguments(final, "RUN") == []
    assert all(copy.startswith("--from=build ") for copy in arguments(final, "COPY"))


def test_container_does_not_run_as_root(final: Instructions) -> None:
    assert arguments(final, "USER") == ["10001:10001"]


def test_entry_point_is_a_program_and_serving_its_default(final: Instructions) -> None:
    assert [json.loads(rest) for rest in arguments(final, "ENTRYPOINT")] == [["dunno"]]
    assert [json.loads(rest) for rest in arguments(final, "CMD")] == [["serve"]]


def test_health_is_asked_for_by_python_without_a_shell(final: Instructions) -> None:
    (check,) = arguments(final, "HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + len("CMD ") :])

    assert command[0] == "python"
    assert "/readyz" in command[-1]
    compile(command[-1], "HEALTHCHECK", "exec")


def test_every_variable_of_the_image_is_a_setting(final: Instructions) -> None:
    ours = {name for name in variables(final) if name.startswith("DUNNO_")}

    assert ours <= {f"DUNNO_{field.upper()}" for field in Settings.model_fields}
    assert variables(final)["DUNNO_HOST"] == "0.0.0.0"  # noqa: S104  inside the container only
    assert variables(final)["DUNNO_PORT"] == "8000"


def test_port_of_the_image_is_the_port_of_the_settings(final: Instructions) -> None:
    assert arguments(final, "EXPOSE") == [str(Settings.model_fields["port"].default)]


def test_runtime_is_told_to_send_no_reports(final: Instructions) -> None:
    assert variables(final)["ORT_DISABLE_TELEMETRY"] == "1"


def test_labels_tell_what_the_image_is(final: Instructions) -> None:
    (label,) = arguments(final, "LABEL")
    named = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", label))

    assert named == {"title", "description", "licenses", "version", "revision"}
    assert f"VERSION={__version__}" in arguments(final, "ARG")


def test_only_what_is_named_is_sent_to_the_builder() -> None:
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    named = {line.removeprefix("!") for line in lines if line.startswith("!")}

    assert lines[0] == "*"
    assert [name for name in named if not (ROOT / name).exists()] == []
