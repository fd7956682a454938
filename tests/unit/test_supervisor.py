"""What the parent of several workers does when one of them ends."""

import socket

import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from service.api.supervisor import Supervisor

numbers = iter(range(1, 10_000))


class Alive:
    """The operating system's side of a worker."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker

    def is_alive(self) -> bool:
        return self._worker.exitcode is None


class Worker:
    """A worker process that ends as a test wants."""

    def __init__(self) -> None:
        self.pid = next(numbers)
        self.exitcode: int | None = None
        self.is_started = True
        self.process = Alive(self)

    def ping(self, _: float) -> bool:
        return self.exitcode is None

    def is_ready(self, _: float) -> bool:
        return self.is_started and self.exitcode is None

    def kill(self) -> None:
        self.exitcode = -9 if self.exitcode is None else self.exitcode

    def join(self) -> None:
        pass


class Parent(Supervisor):
    """A supervisor of such workers; the clock is the test's."""

    def __init__(self, workers: int) -> None:
        super().__init__(uvicorn.Config("", workers=workers), list[socket.socket]())
        self.next_fails = False
        self.init_processes()

    def _started(self) -> Worker:  # type: ignore[override]
        worker = Worker()
        if self.next_fails:
            worker.is_started = False
            worker.exitcode = STARTUP_FAILURE
        return worker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds; the signals of this process stay as they are."""
    now = [0.0]
    monkeypatch.setattr("service.api.supervisor.time.monotonic", lambda: now[0])
    monkeypatch.setattr("uvicorn.supervisors.multiprocess.signal.signal", lambda *_: None)
    return now


@pytest.fixture
def parent(clock: list[float]) -> Parent:
    assert clock == [0.0]
    found = Parent(workers=2)
    found.keep_subprocess_alive()
    return found


def test_replacement_that_cannot_start_is_tried_again_after_a_pause(
    parent: Parent, clock: list[float]
) -> None:
    parent.next_fails = True
    parent.processes[0].kill()
    for _ in range(5):
        parent.keep_subprocess_alive()
    failed = parent.processes[0]
    assert failed.exitcode == STARTUP_FAILURE

    parent.next_fails = False
    clock[0] = 9.9
    parent.keep_subprocess_alive()
    assert parent.processes[0] is failed
    clock[0] = 10.1
    parent.keep_subprocess_alive()

    assert parent.processes[0].exitcode is None
    assert not parent.should_exit.is_set()


def test_parent_stops_once_no_worker_is_alive_and_none_can_start(parent: Parent) -> None:
    parent.next_fails = True
    for process in parent.processes:
        process.kill()
    for _ in range(3):
        parent.keep_subprocess_alive()

    assert parent.should_exit.is_set()
    assert parent.has_failed


def test_parent_stops_at_once_if_the_first_workers_cannot_start(clock: list[float]) -> None:
    assert clock == [0.0]
    parent = Parent(workers=2)
    parent.processes[0].exitcode = STARTUP_FAILURE  # type: ignore[misc]
    parent.processes[1].is_started = False  # type: ignore[attr-defined]
    parent.keep_subprocess_alive()

    assert parent.has_failed
