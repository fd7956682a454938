import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
import pytest
from fakes import PATIENCE_S, POISON, Doubled, GatedRun, RecordingRun
from numpy.typing import NDArray

from service.batching import Batcher, BatchLimits, Lane, batcher, cost
from service.batching.batcher import Care
from service.batching.waiting import BULK_TURN
from service.errors import (
    DeadlineExceeded,
    DeadlineUnreachable,
    Draining,
    NotReady,
    QueueFull,
    RunFailed,
)
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


def rows(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)[:, None]


class Bench:
    """A batcher with its metrics, and shorter ways to ask it."""

    def __init__(
        self,
        *runs: Callable[[NDArray[np.generic]], Doubled],
        care: Care | None = None,
        **limits: float,
    ) -> None:
        self.metrics = Metrics()
        self.batcher: Batcher[Doubled] = Batcher(
            "fruit",
            runs,
            BatchLimits(**{"max_rows": 4, "max_queue_rows": 16, **limits}),  # type: ignore[arg-type]
            self.metrics.of_model("fruit", "1"),
            care=care,
        )

    async def submit(
        self, *values: float, seconds: float = PATIENCE_S, lane: Lane = "interactive"
    ) -> list[float]:
        delivery = await self.batcher.submit(rows(*values), time.monotonic() + seconds, lane)
        doubled: list[float] = delivery.outputs.values[:, 0].tolist()
        return doubled

    def later(
        self, *values: float, seconds: float = PATIENCE_S, lane: Lane = "interactive"
    ) -> "asyncio.Task[list[float]]":
        return asyncio.create_task(self.submit(*values, seconds=seconds, lane=lane))

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"model": "fruit", **labels}) or 0.0


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    bench.batcher.start()
    yield bench
    await bench.batcher.close(PATIENCE_S)


async def in_thread(function: Callable[..., bool]) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, partial(function, PATIENCE_S))


async def turns(count: int = 5) -> None:
    """Let everything that is ready on the loop happen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_lone_row_runs_at_once() -> None:
    run = RecordingRun()
    async with running(Bench(run)) as bench:
        assert await bench.submit(3) == [6]

    assert run.batches == [[3]]
    assert bench.counted("dunno_batch_closed_total", cause="idle") == 1


async def test_quick_model_runs_on_the_event_loop_with_what_arrived_together() -> None:
    threads: list[threading.Thread] = []

    class Watched(RecordingRun):
        def __call__(self, rows: NDArray[np.generic]) -> Doubled:
            threads.append(threading.current_thread())
            return super().__call__(rows)

    run = Watched()
    async with running(Bench(run)) as bench:
        bench.batcher.cost.is_quick = True
        tasks = [bench.later(value) for value in (1, 2, 3)]

        assert await asyncio.gather(*tasks) == [[2], [4], [6]]

    assert run.batches == [[1, 2, 3]]
    assert threads == [threading.current_thread()]


async def test_quick_run_that_fails_fails_only_the_rows_that_made_it() -> None:
    run = RecordingRun()
    async with running(Bench(run)) as bench:
        bench.batcher.cost.is_quick = True
        good, poison = bench.later(1), bench.later(POISON)

        assert await good == [2]
        with pytest.raises(RunFailed):
            await poison
        assert await bench.submit(3) == [6]


async def test_what_arrives_during_a_run_is_the_next_batch() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        first = bench.later(1)
        await in_thread(run.has_begun.wait)
        others = [bench.later(value) for value in (2, 3, 4)]
        await turns()
        run.gate.set()

        assert await first == [2]
        assert await asyncio.gather(*others) == [[4], [6], [8]]

    assert run.batches == [[1], [2, 3, 4]]


async def test_job_that_does_not_fit_begins_the_next_batch_and_nobody_overtakes_it() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        tasks = [bench.later(0)]
        await in_thread(run.has_begun.wait)
        tasks += [bench.later(1, 2, 3), bench.later(4, 5), bench.later(6)]
        await turns()
        run.gate.set()
        await asyncio.gather(*tasks)

    assert run.batches == [[0], [1, 2, 3], [4, 5, 6]]


async def test_interactive_rows_overtake_bulk_rows_which_take_the_room_that_is_left() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        first = bench.later(0)
        await in_thread(run.has_begun.wait)
        tasks = [
            bench.later(1, 2, lane="bulk"),
            bench.later(3, 4, lane="bulk"),
            bench.later(5, 6),
        ]
        await turns()
        run.gate.set()
        await asyncio.gather(first, *tasks)

    assert run.batches == [[0], [5, 6, 1, 2], [3, 4]]


async def test_bulk_rows_begin_a_batch_after_several_went_by_without_them() -> None:
    run = GatedRun()
    async with running(Bench(run, max_queue_rows=100)) as bench:
        first = bench.later(0)
        await in_thread(run.has_begun.wait)
        bulk = bench.later(-2, -3, -4, lane="bulk")
        tasks = [bench.later(value, value, value) for value in range(1, BULK_TURN + 3)]
        await turns()
        run.gate.set()
        await asyncio.gather(first, bulk, *tasks)

    assert run.batches[1 + BULK_TURN] == [-2, -3, -4]


async def test_lane_that_is_full_refuses_nobody_in_the_other() -> None:
    run = GatedRun()
    async with running(Bench(run, max_queue_rows=4)) as bench:
        first = bench.later(0)
        await in_thread(run.has_begun.wait)
        bulk = bench.later(1, 2, 3, 4, lane="bulk")
        await turns()

        with pytest.raises(QueueFull):
            await bench.submit(5, lane="bulk")
        interactive = bench.later(6)
        await turns()

        assert bench.counted("dunno_queue_rows", lane="bulk") == 4
        assert bench.counted("dunno_queue_rows", lane="interactive") == 1
        run.gate.set()
        assert await interactive == [12]
        await asyncio.gather(first, bulk)


async def test_instances_run_batches_at_the_same_time() -> None:
    runs = [GatedRun(), GatedRun()]
    async with running(Bench(*runs)) as bench:
        tasks = [bench.later(1)]
        await in_thread(runs[1].has_begun.wait)
        tasks.append(bench.later(2))
        await in_thread(runs[0].has_begun.wait)
        tasks.append(bench.later(3))
        await turns()

        assert (bench.batcher.statistics().running_rows, len(runs)) == (2, 2)
        for run in runs:
            run.gate.set()
        assert await asyncio.gather(*tasks) == [[2], [4], [6]]

    assert sorted(runs[0].batches + runs[1].batches) == [[1], [2], [3]]


async def test_limit_of_a_batch_is_told_by_what_runs_cost_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(Bench(RecordingRun(), max_rows=50, max_queue_rows=50)) as bench:
        assert bench.counted("dunno_batch_limit_rows") == 50

        monkeypatch.setattr(cost, "WORTHWHILE_ROWS", 20)
        bench.batcher.cost.learn(rows=1, seconds=cost.QUICK_RUN_S / 25)

        assert bench.counted("dunno_batch_limit_rows") == 25


async def test_busy_models_take_turns_on_the_event_loop() -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[NDArray[np.generic]], Doubled]:
        def run(rows: NDArray[np.generic]) -> Doubled:
            order.append(name)
            return Doubled(rows * 2)

        return run

    async with running(Bench(noting("a"))) as one, running(Bench(noting("b"))) as other:
        for bench in (one, other):
            bench.batcher.cost.is_quick = True
        await asyncio.gather(
            *(bench.later(*range(4)) for bench in (one, one, one, one, other, other))
        )

    assert order[:4] in (["a", "b", "a", "b"], ["b", "a", "b", "a"])


async def test_job_larger_than_a_batch_runs_alone_and_whole() -> None:
    run = RecordingRun()
    async with running(Bench(run)) as bench:
        assert await bench.submit(1, 2, 3, 4, 5, 6) == [2, 4, 6, 8, 10, 12]

    assert run.batches == [[1, 2, 3, 4, 5, 6]]


async def test_caller_that_leaves_does_not_disturb_its_batch() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        first = bench.later(1)
        await in_thread(run.has_begun.wait)
        leaving, staying = bench.later(2), bench.later(3)
        await turns()
        leaving.cancel()
        await turns()
        run.gate.set()

        assert await first == [2]
        assert await staying == [6]

    assert leaving.cancelled()
    assert run.batches == [[1], [3]]


async def test_caller_that_leaves_gives_its_room_in_the_queue_back() -> None:
    run = GatedRun()
    async with running(Bench(run, max_queue_rows=4)) as bench:
        first = bench.later(1)
        await in_thread(run.has_begun.wait)
        leaving = bench.later(2, 3, 4, 5)
        await turns()
        leaving.cancel()
        await turns()

        assert bench.batcher.statistics().waiting_rows == 0
        after = bench.later(6, 7, 8, 9)
        run.gate.set()
        assert await first == [2]
        assert await after == [12, 14, 16, 18]


async def test_rows_of_a_caller_that_left_during_the_run_are_counted_as_waste() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        leaving = bench.later(1, 2)
        await in_thread(run.has_begun.wait)
        leaving.cancel()
        await turns()
        run.gate.set()
        assert await bench.submit(3) == [6]

    assert bench.counted("dunno_wasted_rows_total", cause="cancelled") == 2


async def test_full_queue_is_refused_at_once() -> None:
    run = GatedRun()
    async with running(Bench(run, max_queue_rows=4)) as bench:
        first = bench.later(1)
        await in_thread(run.has_begun.wait)
        waiting = bench.later(2, 3, 4)
        await turns()

        with pytest.raises(QueueFull, match="no room for 2 more"):
            await bench.submit(5, 6)
        run.gate.set()
        assert await first == [2]
        assert await waiting == [4, 6, 8]

    assert bench.counted("dunno_rejections_total", cause="queue_full") == 1


async def test_job_whose_deadline_passes_while_waiting_is_told_and_never_run() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        first = bench.later(1)
        await in_thread(run.has_begun.wait)

        with pytest.raises(DeadlineExceeded, match="waiting"):
            await bench.submit(2, seconds=0.01)
        run.gate.set()
        assert await first == [2]

    assert run.batches == [[1]]


async def test_job_whose_deadline_has_passed_already_never_runs() -> None:
    run = RecordingRun()
    async with running(Bench(run)) as bench:
        with pytest.raises(DeadlineExceeded):
            await bench.submit(2, seconds=-1)

    assert run.batches == []


async def test_job_whose_deadline_passes_while_running_is_told() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        job = bench.later(1, seconds=0.2)
        await in_thread(run.has_begun.wait)

        with pytest.raises(DeadlineExceeded, match="running"):
            await job
        run.gate.set()
        assert await bench.submit(2) == [4]

    assert bench.counted("dunno_wasted_rows_total", cause="expired") == 1


async def test_rows_that_make_the_run_fail_fail_alone() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        first = bench.later(0)
        await in_thread(run.has_begun.wait)
        tasks = [bench.later(1), bench.later(POISON), bench.later(3)]
        await turns()
        run.gate.set()
        await first
        good, bad, also_good = await asyncio.gather(*tasks, return_exceptions=True)

    assert good == [2]
    assert isinstance(bad, RunFailed)
    assert also_good == [6]


async def test_batcher_goes_on_after_a_failed_run() -> None:
    async with running(Bench(RecordingRun())) as bench:
        with pytest.raises(RunFailed):
            await bench.submit(POISON)

        assert await bench.submit(2) == [4]


class Clinic:
    """Looks after instances; `is_well` is what it finds, and `attempts` fail before it helps."""

    def __init__(self, *, is_well: bool = True, attempts: int = 0) -> None:
        self.is_well = is_well
        self.checked: list[int] = []
        self.rebuilt: list[int] = []
        self.attempts_left = attempts
        self.gate = threading.Event()
        self.gate.set()
        self.has_rebuilt = threading.Event()

    def check_instance(self, number: int) -> None:
        self.checked.append(number)
        if not self.is_well:
            raise ValueError("other outputs")

    def rebuild_instance(self, number: int) -> None:
        assert self.gate.wait(PATIENCE_S)
        if self.attempts_left:
            self.attempts_left -= 1
            raise OSError("no memory")
        self.rebuilt.append(number)
        self.has_rebuilt.set()


async def ready(bench: Bench) -> None:
    """Wait until there is an instance again."""
    async with asyncio.timeout(PATIENCE_S):
        while not bench.batcher.is_running:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.001)


class HangingRun(RecordingRun):
    """Does not come back from its first run before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_let_go = threading.Event()
        self.has_begun = threading.Event()
        self._hangs = True

    def __call__(self, rows: NDArray[np.generic]) -> Doubled:
        self.has_begun.set()
        hangs, self._hangs = self._hangs, False
        if hangs:
            assert self.is_let_go.wait(PATIENCE_S)
        return super().__call__(rows)


async def test_run_that_hangs_is_given_up_and_its_instance_built_anew() -> None:
    run, clinic = HangingRun(), Clinic()
    async with running(Bench(run, care=clinic, max_run_s=0.02)) as bench:
        with pytest.raises(RunFailed, match=r"within 0\.02 s"):
            await bench.submit(1)
        await ready(bench)

        assert await bench.submit(2) == [4]
        run.is_let_go.set()

    assert clinic.rebuilt == [0]
    assert bench.counted("dunno_lost_instances_total", cause="hung") == 1


async def test_other_instances_go_on_while_one_hangs() -> None:
    hanging, other, clinic = HangingRun(), RecordingRun(), Clinic()
    clinic.gate.clear()
    async with running(Bench(other, hanging, care=clinic, max_run_s=0.02)) as bench:
        with pytest.raises(RunFailed):
            await bench.submit(1)

        assert await bench.submit(2) == [4]
        assert bench.batcher.is_running
        hanging.is_let_go.set()
        clinic.gate.set()

    assert other.batches == [[2]]


async def test_model_without_instances_is_not_ready_and_refuses_rows() -> None:
    run, clinic = HangingRun(), Clinic()
    clinic.gate.clear()
    async with running(Bench(run, care=clinic, max_run_s=0.02)) as bench:
        with pytest.raises(RunFailed):
            await bench.submit(1)

        assert not bench.batcher.is_running
        with pytest.raises(NotReady):
            await bench.submit(2)
        run.is_let_go.set()
        clinic.gate.set()

    assert bench.counted("dunno_rejections_total", cause="not_ready") == 1


async def test_instance_that_gives_other_outputs_after_a_failure_is_built_anew() -> None:
    clinic = Clinic(is_well=False)
    async with running(Bench(RecordingRun(), care=clinic)) as bench:
        with pytest.raises(RunFailed):
            await bench.submit(POISON)
        await in_thread(clinic.has_rebuilt.wait)
        await ready(bench)

        assert await bench.submit(2) == [4]

    assert (clinic.checked, clinic.rebuilt) == ([0], [0])
    assert bench.counted("dunno_lost_instances_total", cause="broken") == 1


async def test_instance_that_is_well_after_a_failure_goes_on_unseen_for_a_while() -> None:
    clinic = Clinic()
    async with running(Bench(RecordingRun(), care=clinic)) as bench:
        for _ in range(3):
            with pytest.raises(RunFailed):
                await bench.submit(POISON)

        assert await bench.submit(2) == [4]

    assert (clinic.checked, clinic.rebuilt) == ([0], [])


async def test_instance_is_built_anew_until_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "FIRST_PAUSE_S", 0.001)
    run, clinic = HangingRun(), Clinic(attempts=3)
    async with running(Bench(run, care=clinic, max_run_s=0.02)) as bench:
        with pytest.raises(RunFailed):
            await bench.submit(1)
        await ready(bench)

        assert await bench.submit(2) == [4]
        run.is_let_go.set()

    assert clinic.rebuilt == [0]


async def test_job_that_hangs_when_it_runs_alone_is_given_up_with_its_instance() -> None:
    class Fussy(GatedRun):
        """Raises for several rows at once, and hangs for POISON."""

        def __init__(self) -> None:
            super().__init__()
            self.is_let_go = threading.Event()

        def __call__(self, rows: NDArray[np.generic]) -> Doubled:
            self.has_begun.set()
            assert self.gate.wait(PATIENCE_S)
            if len(rows) > 1:
                raise ValueError("too many")
            if rows[0, 0] == POISON:
                assert self.is_let_go.wait(PATIENCE_S)
            return Doubled(rows * 2)

    run = Fussy()
    async with running(Bench(run, care=Clinic(), max_run_s=0.05)) as bench:
        first = bench.later(0)
        await in_thread(run.has_begun.wait)
        tasks = [bench.later(1), bench.later(POISON), bench.later(3)]
        await turns()
        run.gate.set()
        await first
        good, bad, late = await asyncio.gather(*tasks, return_exceptions=True)
        await ready(bench)
        assert await bench.submit(5) == [10]
        run.is_let_go.set()

    assert good == [2]
    assert isinstance(bad, RunFailed)
    assert isinstance(late, NotReady)  # there is no other instance


class Broken:
    """A receiver that raises whatever it is told."""

    def done(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def set_result(self, _: object) -> None:
        raise OSError("the socket is closed")

    set_exception = set_result


@pytest.mark.parametrize("is_quick", [True, False])
async def test_receiver_that_raises_harms_nobody_else(*, is_quick: bool) -> None:
    async with running(Bench(RecordingRun())) as bench:
        bench.batcher.cost.is_quick = is_quick
        deadline_s = time.monotonic() + PATIENCE_S
        bench.batcher.enqueue(rows(1), deadline_s, Broken())
        bench.batcher.enqueue(rows(POISON), deadline_s, Broken())

        assert await bench.submit(2) == [4]
        assert await bench.submit(3) == [6]
        assert bench.batcher.is_running


async def test_rows_that_wait_when_the_last_instance_is_lost_are_told_at_once() -> None:
    run, clinic = HangingRun(), Clinic()
    clinic.gate.clear()
    async with running(Bench(run, care=clinic, max_run_s=0.02)) as bench:
        first = bench.later(1)
        await in_thread(run.has_begun.wait)
        waiting = bench.later(2)

        with pytest.raises(RunFailed):
            await first
        with pytest.raises(NotReady):
            await waiting
        run.is_let_go.set()
        clinic.gate.set()


async def test_closing_does_not_wait_for_a_run_that_hangs() -> None:
    run = HangingRun()
    bench = Bench(run)
    bench.batcher.start()
    task = bench.later(1)
    await in_thread(run.has_begun.wait)

    await bench.batcher.close(0.01)

    with pytest.raises(Draining):
        await task
    run.is_let_go.set()


async def test_row_whose_deadline_would_pass_before_its_turn_is_refused_at_once() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        bench.batcher.pace.learn(0.0, 0.1, is_busy=False)  # a tenth of a second for each batch
        first = bench.later(1)
        await in_thread(run.has_begun.wait)
        waiting = bench.later(2, 3, 4)
        await turns()

        with pytest.raises(DeadlineUnreachable, match=r"3 rows wait already, .* 300 ms"):
            await bench.submit(5, seconds=0.25)
        with pytest.raises(DeadlineUnreachable, match="answers take 400 ms"):
            await bench.submit(5, 6, seconds=0.35)
        in_time = bench.later(6, seconds=PATIENCE_S)
        run.gate.set()
        assert (await first, await waiting, await in_time) == ([2], [4, 6, 8], [12])

    assert bench.counted("dunno_rejections_total", cause="deadline_unreachable") == 2


async def test_deadlines_that_pass_in_the_queue_make_the_next_estimates_careful() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        bench.batcher.pace.learn(0.0, 0.001, is_busy=False)
        before_s = bench.batcher.pace.careful_seconds(100)
        first = bench.later(1)
        await in_thread(run.has_begun.wait)
        waiting = [bench.later(2), bench.later(3, seconds=0.02)]
        with pytest.raises(DeadlineExceeded):
            await waiting[1]
        run.gate.set()
        await asyncio.gather(first, waiting[0])

        assert bench.batcher.pace.careful_seconds(100) > before_s


async def test_deadline_that_was_never_within_reach_makes_no_estimate_careful() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        first = bench.later(1)
        await in_thread(run.has_begun.wait)
        with pytest.raises(DeadlineExceeded):
            await bench.later(2, seconds=0.0)
        run.gate.set()
        await first
        await bench.submit(3)

        assert bench.batcher.pace.caution == 1


async def test_pace_that_was_learnt_in_a_bad_moment_does_not_keep_everybody_out() -> None:
    run = GatedRun()
    async with running(Bench(run)) as bench:
        bench.batcher.pace.learn(0.0, 60.0, is_busy=False)
        running_now = bench.later(1)
        await in_thread(run.has_begun.wait)
        let_in = bench.later(2)
        await turns()
        with pytest.raises(DeadlineUnreachable):
            await bench.submit(3)
        run.gate.set()
        assert (await running_now, await let_in) == ([2], [4])

        for _ in range(100):  # two at once, so that one waits for the other
            await asyncio.gather(bench.later(1, 2, 3), bench.later(4, 5, 6), return_exceptions=True)

        assert bench.batcher.pace.seconds(1) < 1


async def test_lone_row_is_never_refused_for_its_deadline() -> None:
    async with running(Bench(RecordingRun())) as bench:
        bench.batcher.pace.learn(0.0, 60.0, is_busy=False)

        assert await bench.submit(1, seconds=1) == [2]


async def test_rows_whose_lane_is_not_known_yet_are_refused_only_if_no_lane_has_room() -> None:
    run = GatedRun()
    async with running(Bench(run, max_queue_rows=4)) as bench:
        tasks = [bench.later(1)]
        await in_thread(run.has_begun.wait)
        tasks.append(bench.later(2, 3, 4, 5))
        await turns()
        bench.batcher.look_for_room(1, PATIENCE_S)

        tasks.append(bench.later(6, 7, 8, 9, lane="bulk"))
        await turns()
        with pytest.raises(QueueFull):
            bench.batcher.look_for_room(1, PATIENCE_S)
        run.gate.set()
        await asyncio.gather(*tasks)


async def test_full_queue_tells_when_there_will_be_room() -> None:
    run = GatedRun()
    async with running(Bench(run, max_queue_rows=4)) as bench:
        bench.batcher.pace.learn(0.0, 2.0, is_busy=False)
        first = bench.later(1, seconds=60)
        await in_thread(run.has_begun.wait)
        waiting = bench.later(2, 3, 4, seconds=60)
        await turns()

        with pytest.raises(QueueFull) as refused:
            await bench.submit(5, 6, 7, seconds=60)
        assert refused.value.retry_after_s == 2  # the time of the batch that makes room
        run.gate.set()
        await asyncio.gather(first, waiting)


async def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    run = GatedRun()
    bench = Bench(run)
    bench.batcher.start()
    first = bench.later(1)
    await in_thread(run.has_begun.wait)
    waiting = bench.later(2)
    await turns()

    closing = asyncio.create_task(bench.batcher.close(PATIENCE_S))
    await turns()
    with pytest.raises(Draining):
        await bench.submit(3)
    run.gate.set()
    await closing

    assert await first == [2]
    assert await waiting == [4]
    assert not bench.batcher.is_running


async def test_drain_that_takes_too_long_tells_everybody() -> None:
    run = GatedRun()
    bench = Bench(run)
    bench.batcher.start()
    first = bench.later(1)
    await in_thread(run.has_begun.wait)
    waiting = bench.later(2)
    await turns()

    await bench.batcher.close(timeout_s=0.01)
    outcomes = await asyncio.gather(first, waiting, return_exceptions=True)
    run.gate.set()

    assert [type(outcome) for outcome in outcomes] == [Draining, Draining]


async def test_batch_waits_for_company_only_if_told_to() -> None:
    run = RecordingRun()
    async with running(Bench(run, max_wait_s=PATIENCE_S / 2)) as bench:
        tasks = [bench.later(value) for value in (1, 2)]
        await turns()
        assert run.batches == []
        tasks += [bench.later(value) for value in (3, 4)]
        await asyncio.gather(*tasks)

    assert run.batches == [[1, 2, 3, 4]]
    assert bench.counted("dunno_batch_closed_total", cause="full") == 1


async def test_batch_closes_when_its_wait_is_over() -> None:
    run = RecordingRun()
    async with running(Bench(run, max_wait_s=0.01)) as bench:
        assert await bench.submit(1) == [2]

    assert bench.counted("dunno_batch_closed_total", cause="max_wait") == 1


async def test_padding_is_run_but_never_delivered() -> None:
    run = RecordingRun()
    async with running(Bench(run, has_buckets=True)) as bench:
        assert await bench.submit(1, 2, 3) == [2, 4, 6]

    assert run.batches == [[1, 2, 3, 1]]
    assert bench.counted("dunno_batch_padded_rows_total") == 1


async def test_thousand_callers_each_get_their_own_rows() -> None:
    async with running(Bench(RecordingRun(), max_queue_rows=10_000)) as bench:
        tasks = [bench.later(value, value + 0.5) for value in range(1000)]
        outputs = await asyncio.gather(*tasks)

    assert outputs == [[2 * value, 2 * value + 1] for value in range(1000)]


class BrokenDoubled(Doubled):
    """Outputs that cannot be divided: a defect of ours, not of the runtime."""

    def __getitem__(self, rows: slice) -> "BrokenDoubled":
        raise IndexError(str(rows))


async def test_defect_while_delivering_fails_the_job_and_not_the_batcher() -> None:
    async with running(Bench(BrokenDoubled)) as bench:
        with pytest.raises(RunFailed):
            await bench.submit(1)

        assert bench.batcher.is_running


async def test_loop_that_ends_by_a_defect_leaves_nobody_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = GatedRun()
    bench = Bench(run)
    clock_fails = threading.Event()

    def clock() -> float:
        if clock_fails.is_set() and threading.current_thread() is threading.main_thread():
            raise RuntimeError("no time")
        return time.monotonic()

    bench.batcher = Batcher(
        "fruit", [run], BatchLimits(4, 16), bench.metrics.of_model("fruit", "1"), clock=clock
    )
    bench.batcher.start()
    first = bench.later(1)
    await in_thread(run.has_begun.wait)
    waiting = bench.later(2)
    await turns()
    clock_fails.set()
    run.gate.set()

    outcomes = await asyncio.gather(first, waiting, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [RunFailed, RunFailed]
    assert not bench.batcher.is_running
    assert "batches stopped" in caplog.text


async def test_large_job_of_a_quick_model_runs_beside_the_event_loop_and_small_ones_on_it() -> None:
    threads: list[str] = []

    def run(batch: NDArray[np.generic]) -> Doubled:
        threads.append(threading.current_thread().name)
        return Doubled(batch * 2)

    async with running(Bench(run, max_queue_rows=1000)) as bench:
        bench.batcher.cost.learn(4, 0.0001)
        assert bench.batcher.cost.is_quick
        assert bench.batcher.bulk_rows == 60  # 15 batches

        assert await bench.submit(*range(10), lane="bulk") == [2 * value for value in range(10)]
        assert await bench.submit(1, 2) == [2, 4]

    assert threads == ["dunno-run-fruit", threading.current_thread().name]


async def test_large_job_counts_as_its_batches() -> None:
    async with running(Bench(RecordingRun())) as bench:
        await bench.submit(*range(10), lane="bulk")

        assert bench.counted("dunno_batch_rows_count") == 3
        assert bench.counted("dunno_batch_rows_sum") == 10


@pytest.mark.parametrize(
    ("run_s", "max_queue_rows", "expected"), [(0.1, 1000, 4), (0.0001, 16, 4), (0.004, 1000, 12)]
)
async def test_model_that_is_slow_or_has_a_short_queue_gets_large_requests_batch_by_batch(
    run_s: float, max_queue_rows: int, expected: int
) -> None:
    bench = Bench(RecordingRun(), max_queue_rows=max_queue_rows)
    bench.batcher.cost.learn(4, run_s)

    assert bench.batcher.bulk_rows == expected


async def test_batches_of_a_slow_model_are_smaller_where_callers_have_little_patience() -> None:
    run = RecordingRun()
    async with running(Bench(run, max_rows=32, max_queue_rows=64)) as bench:
        bench.batcher.cost.learn(32, 32 * 0.01)
        assert not bench.batcher.cost.is_quick
        assert bench.counted("dunno_batch_limit_rows") == 32

        await asyncio.gather(*(bench.submit(1, seconds=0.6) for _ in range(32)))

        # A fourth of 0.6 s, of which a little has passed, is enough for 14 rows of 10 ms.
        assert len(run.batches[0]) == 14


async def test_batches_of_patient_callers_are_full_and_those_of_impatient_ones_a_fourth() -> None:
    bench = Bench(RecordingRun(), max_rows=32, max_queue_rows=64)
    bench.batcher.cost.learn(32, 32 * 0.01)
    bench.batcher.start()
    limits = []
    for seconds in (10, 0.001):
        for _ in range(200):
            with contextlib.suppress(DeadlineUnreachable, QueueFull):
                job = bench.batcher.enqueue(
                    rows(1), time.monotonic() + seconds, asyncio.Future(), "interactive"
                )
                bench.batcher.withdraw(job)
        limits.append(bench.counted("dunno_batch_limit_rows"))
    await bench.batcher.close(PATIENCE_S)

    assert limits == [32, 8]
