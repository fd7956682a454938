"""`make load`: what its stages said ends up in one page, and one that fails fails it."""

import sys
from pathlib import Path

import pytest
import run_all
from run_all import Stage, main


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two scripts in place of those that take minutes, and where the report goes."""
    (tmp_path / "sound.py").write_text("print('1 < 2'); print('all well')")
    (tmp_path / "broken.py").write_text("import sys; print('WRONG'); sys.exit(sys.argv[1])")
    stages = {
        "sound": Stage("Is it sound?", "nothing wrong", ()),
        "broken": Stage("Is it whole?", "no crack", ("3 cracks",)),
    }
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    monkeypatch.setattr(run_all, "STAGES", stages)
    path = tmp_path / "build/load.html"
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--html", str(path)])
    return path


def test_stage_that_fails_fails_the_run_and_is_named(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main() == 1

    text = page.read_text()
    assert "<td>nothing wrong<td>kept" in text
    assert "<td>no crack<td><strong>not kept (1)</strong>" in text
    assert "1 &lt; 2\nall well" in text
    assert "thresholds not kept: broken" in capsys.readouterr().out


def test_run_whose_stages_are_sound_ends_well(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sys.argv += ["--only", "sound"]

    assert main() == 0
    assert "Is it whole?" not in page.read_text()
    assert "thresholds not kept: none" in capsys.readouterr().out


def test_report_tells_commit_date_and_machine(page: Path) -> None:
    sys.argv += ["--only", "sound"]

    main()

    for fact in ("commit", "date", "machine", "python"):
        assert f"<dt>{fact}<dd>" in page.read_text()


@pytest.mark.usefixtures("page")
def test_stage_that_is_not_there_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    sys.argv += ["--only", "sound,nothing"]

    with pytest.raises(SystemExit):
        main()

    assert "expected some of sound, broken, got nothing" in capsys.readouterr().err


def test_every_stage_is_a_script() -> None:
    folder = Path(run_all.__file__).parent

    assert [name for name in run_all.STAGES if not (folder / f"{name}.py").is_file()] == []
