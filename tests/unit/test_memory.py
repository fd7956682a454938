import os
from pathlib import Path

import pytest

from service.memory import plan_memory, resident_bytes
from service.settings import MEBIBYTE, Settings, usable_memory_bytes


def test_budgets_follow_what_the_limit_leaves() -> None:
    plan = plan_memory(Settings(), 512 * MEBIBYTE, 152 * MEBIBYTE)

    assert plan == (60 * MEBIBYTE, 45 * MEBIBYTE, 30 * MEBIBYTE)


def test_workers_share_the_limit() -> None:
    plan = plan_memory(Settings(workers=2), 1024 * MEBIBYTE, 152 * MEBIBYTE)

    assert plan == (60 * MEBIBYTE, 45 * MEBIBYTE, 30 * MEBIBYTE)


def test_setting_is_the_most_that_bodies_may_take() -> None:
    settings = Settings(max_arriving_bytes=MEBIBYTE)

    assert plan_memory(settings, 2**40, 0).arriving_bytes == MEBIBYTE


def test_budgets_have_a_least_size_although_nothing_is_left() -> None:
    assert plan_memory(Settings(), 64 * MEBIBYTE, 150 * MEBIBYTE) == (16 * MEBIBYTE,) * 3


def test_resident_memory_of_this_process_is_some_megabytes() -> None:
    assert 10 * MEBIBYTE < resident_bytes() < 8192 * MEBIBYTE


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        pytest.param({"memory.max": "1000"}, "0::/", 1000, id="version 2, as in a container"),
        pytest.param({"pod/memory.max": "1000"}, "0::/pod", 1000, id="version 2, own group"),
        pytest.param(
            {"pod/memory.max": "1000", "pod/app/memory.max": "max"}, "0::/pod/app", 1000, id="above"
        ),
        pytest.param(
            {"memory/pod/memory.limit_in_bytes": "1000"}, "7:memory:/pod", 1000, id="version 1"
        ),
        pytest.param(
            {"memory/memory.limit_in_bytes": "9223372036854771712"}, "7:memory:/", None, id="none"
        ),
        pytest.param({}, "0::/", None, id="no control groups"),
        pytest.param({"memory.max": "max"}, "0::/", None, id="no limit"),
    ],
)
def test_memory_limit_of_the_container_is_found(
    tmp_path: Path, files: dict[str, str], groups: str, expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(groups + "\n")
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    assert usable_memory_bytes(tmp_path, tmp_path / "own") == (expected or machine)
