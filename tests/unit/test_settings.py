from pathlib import Path

import pytest

from service.settings import Settings, SettingsInvalid, read_settings, usable_cores


def test_variables_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNNO_PORT", "9000")

    assert read_settings().port == 9000


def test_option_of_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNNO_PORT", "9000")

    assert read_settings(port=9001).port == 9001


@pytest.mark.parametrize(
    ("name", "value"),
    [("DUNNO_PORT", "99999"), ("DUNNO_DEVICE", "abacus"), ("DUNNO_MAX_BATCH_ROWS", "many")],
)
def test_variable_out_of_bounds_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsInvalid, match=f"{name}.*{value}"):
        read_settings()


def test_queue_must_hold_a_batch() -> None:
    with pytest.raises(SettingsInvalid, match="DUNNO_MAX_QUEUE_ROWS"):
        read_settings(max_queue_rows=10, max_batch_rows=20)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "dunno.example"])  # noqa: S104
def test_admin_address_wider_than_loopback_needs_a_key(host: str) -> None:
    with pytest.raises(SettingsInvalid, match="set DUNNO_ADMIN_KEY"):
        read_settings(admin_port=8001, admin_host=host)

    assert read_settings(admin_port=8001, admin_host=host, admin_key="k" * 16).admin_port == 8001


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_admin_address_on_loopback_needs_none(host: str) -> None:
    assert read_settings(admin_port=8001, admin_host=host).admin_key is None


@pytest.mark.parametrize("workers", [2, "auto"])
def test_admin_address_needs_a_single_worker(workers: object) -> None:
    with pytest.raises(SettingsInvalid, match="send SIGHUP to the parent"):
        read_settings(admin_port=8001, workers=workers)


def test_admin_key_is_never_shown() -> None:
    with pytest.raises(SettingsInvalid, match=r"DUNNO_ADMIN_KEY: .* not shown") as refusal:
        read_settings(admin_key="too short")

    assert "too short" not in str(refusal.value)
    assert "k" * 16 not in str(read_settings(admin_key="k" * 16))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "content", "cores"),
    [
        pytest.param("cpu.max", "50000 100000", 0.5, id="version 2"),
        pytest.param("cpu.max", "max 100000", None, id="version 2 without quota"),
        pytest.param("cpu/cpu.cfs_quota_us", "20000", 0.2, id="version 1"),
        pytest.param("cpu/cpu.cfs_quota_us", "-1", None, id="version 1 without quota"),
    ],
)
def test_cores_follow_the_quota_of_the_container(
    tmp_path: Path, name: str, content: str, cores: float | None
) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    (tmp_path / name).write_text(content)

    assert usable_cores(tmp_path) == (cores or usable_cores(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("dunno.slice/dunno.service/cpu.max", "20000 100000"),
        ("dunno.slice/cpu.max", "20000 100000"),
        ("cpu/dunno.slice/cpu.cfs_quota_us", "20000"),
    ],
)
def test_quota_of_a_group_above_is_one_of_the_process(
    tmp_path: Path, file: str, content: str
) -> None:
    (tmp_path / "own").write_text("1:cpu,cpuacct:/dunno.slice\n0::/dunno.slice/dunno.service\n")
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).with_name("cpu.cfs_period_us").write_text("100000")
    (tmp_path / file).write_text(content)

    assert usable_cores(tmp_path, tmp_path / "own") == 0.2
