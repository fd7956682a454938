"""Finished steps of a run are kept and not redone unless what they depend on has changed."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_STAMP = "stamp.json"


@dataclass(frozen=True, slots=True)
class Step:
    """One step's folder, with a stamp that says from what its content was made."""

    folder: Path
    fingerprint: str
    """Of everything the content depends on."""

    def ensure(self, make: Callable[[Path], None]) -> float:
        """Make the step's content unless it is there; return the seconds it took when made.

        What `make` leaves in its folder `checkpoints` survives an interruption, as long as the
        fingerprint stays; the seconds of interrupted starts count.
        """
        before = self._read()
        if before.get("fingerprint") != self.fingerprint:
            shutil.rmtree(self.folder, ignore_errors=True)
            before = {}
        seconds = float(before.get("seconds", 0))
        if before.get("is_finished"):
            return seconds
        started = time.monotonic()
        self._write(seconds, is_finished=False)
        is_finished = False
        try:
            make(self.folder)
            is_finished = True
        finally:
            seconds += time.monotonic() - started
            self._write(seconds, is_finished=is_finished)
        return seconds

    def _read(self) -> dict[str, str | float | bool]:
        try:
            stamp: dict[str, str | float | bool] = json.loads((self.folder / _STAMP).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return stamp

    def _write(self, seconds: float, *, is_finished: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = {
            "fingerprint": self.fingerprint,
            "seconds": seconds,
            "is_finished": is_finished,
        }
        unfinished = self.folder / f"{_STAMP}.part"
        unfinished.write_text(json.dumps(stamp))
        unfinished.replace(self.folder / _STAMP)
