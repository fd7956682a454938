"""Finished steps are kept; changed inputs redo them; interruptions keep checkpoints."""

from pathlib import Path

import pytest

from training.steps import Step


class Interrupted(Exception):
    """Stands for a machine that is switched off."""


def test_finished_step_is_not_made_again(tmp_path: Path) -> None:
    made: list[Path] = []
    step = Step(tmp_path / "fit", "one")

    step.ensure(made.append)
    step.ensure(made.append)

    assert made == [tmp_path / "fit"]


def test_step_with_other_inputs_starts_from_nothing(tmp_path: Path) -> None:
    Step(tmp_path / "fit", "one").ensure(lambda folder: (folder / "old").touch())
    Step(tmp_path / "fit", "two").ensure(lambda folder: (folder / "new").touch())

    assert {path.name for path in (tmp_path / "fit").iterdir()} == {"new", "stamp.json"}


def test_interrupted_step_finds_its_checkpoints(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "checkpoint").touch()
        raise Interrupted

    found: list[bool] = []
    step = Step(tmp_path / "fit", "one")

    with pytest.raises(Interrupted):
        step.ensure(interrupted)
    step.ensure(lambda folder: found.append((folder / "checkpoint").exists()))

    assert found == [True]


def test_seconds_of_an_interrupted_start_count(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:  # noqa: ARG001
        raise Interrupted

    step = Step(tmp_path / "fit", "one")
    with pytest.raises(Interrupted):
        step.ensure(interrupted)

    seconds = step.ensure(lambda _: None)

    assert seconds > 0
    assert step.ensure(lambda _: None) == seconds
