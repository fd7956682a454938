import math

import pytest

from service.batching.cost import QUICK_RUN_S, WORTHWHILE_ROWS, Pace, RunCost

EDGE_S = QUICK_RUN_S / WORTHWHILE_ROWS
"""Seconds a row of a model that is just quick."""


def cost_of(row_s: float) -> RunCost:
    cost = RunCost()
    cost.learn(1, row_s)
    return cost


def test_nothing_is_quick_before_it_has_run() -> None:
    assert not RunCost().is_quick


@pytest.mark.parametrize(("row_s", "is_quick"), [(EDGE_S * 0.9, True), (EDGE_S * 1.1, False)])
def test_model_that_runs_enough_rows_in_time_is_quick(row_s: float, *, is_quick: bool) -> None:
    assert cost_of(row_s).is_quick == is_quick


def test_only_runs_on_the_event_loop_have_a_goal() -> None:
    assert cost_of(EDGE_S / 2).goal_s == QUICK_RUN_S
    assert cost_of(EDGE_S * 2).goal_s == math.inf


def test_no_more_rows_run_on_the_event_loop_than_are_quick() -> None:
    assert cost_of(QUICK_RUN_S / 40.5).quick_rows == 40


def test_run_that_was_held_up_tells_nothing() -> None:
    cost = cost_of(EDGE_S / 2)

    cost.learn(1, 1.0)

    assert cost.is_quick


def test_quick_model_on_a_busy_machine_is_found_out_later() -> None:
    cost = cost_of(1.0)

    cost.learn(8, 4 * EDGE_S)

    assert cost.is_quick


def test_model_that_has_become_slow_is_found_out() -> None:
    cost = cost_of(EDGE_S / 2)

    for _ in range(200):
        cost.learn(1, 10 * EDGE_S)

    assert not cost.is_quick


def test_model_on_the_edge_does_not_go_to_and_fro() -> None:
    cost = cost_of(EDGE_S)

    for _ in range(200):
        cost.learn(1, 1.2 * EDGE_S)

    assert cost.is_quick


def test_pace_is_what_a_queue_shrinks_by_and_not_the_time_between_its_busy_spells() -> None:
    pace = Pace()
    pace.learn(1.0, 1.0, is_busy=True)
    for now_s in (3.0, 5.0):  # a second for the run, and one for all else
        pace.learn(now_s, 1.0, is_busy=now_s < 5)
    assert pace.seconds(10) == pytest.approx(11.9)

    pace.learn(60.0, 1.0, is_busy=False)
    assert pace.seconds(10) < 11.9


@pytest.mark.parametrize(("before_s", "after_s"), [(1.0, 2.0), (2.0, 1.0)])
def test_pace_follows_what_has_become_slower_or_quicker(before_s: float, after_s: float) -> None:
    pace = Pace()
    now_s = 0.0
    for step_s in [before_s] * 10 + [after_s] * 60:
        now_s += step_s
        pace.learn(now_s, 0.0, is_busy=True)

    assert pace.seconds(1) == pytest.approx(after_s, rel=0.01)


def paced(*steps_s: float) -> Pace:
    pace = Pace()
    now_s = 0.0
    for step_s in steps_s:
        now_s += step_s
        pace.learn(now_s, step_s, is_busy=True)
    return pace


def test_steady_batches_have_a_margin_of_one_batch() -> None:
    pace = paced(*[1.0] * 50)

    assert pace.careful_seconds(16) == pytest.approx(17.0)


def test_margin_grows_with_the_spread_of_batches_and_the_root_of_their_number() -> None:
    steady, wavering = paced(*[1.0] * 200), paced(*[0.5, 1.5] * 100)

    wider_s = wavering.careful_seconds(16) - wavering.careful_seconds(0) - 16 * wavering.seconds(1)

    assert wavering.careful_seconds(16) > steady.careful_seconds(16)
    assert wider_s == pytest.approx(2 * 0.5 * 4, rel=0.1)


def test_caution_stays_where_one_batch_in_eleven_misses_deadlines() -> None:
    pace = paced(1.0)
    for _ in range(4):
        pace.learn_deadlines(were_missed=True)
    before = pace.caution

    for batch in range(110):
        pace.learn_deadlines(were_missed=batch % 11 == 0)

    assert pace.caution == pytest.approx(before, rel=0.05)


def test_caution_has_a_limit_and_is_forgotten() -> None:
    pace = paced(1.0)
    for _ in range(1000):
        pace.learn_deadlines(were_missed=True)
    most = pace.caution

    for _ in range(1000):
        pace.learn_deadlines(were_missed=False)

    assert (most, pace.caution) == (4, 1)


def test_nothing_is_known_before_the_first_batch() -> None:
    assert Pace().seconds(1000) == Pace().careful_seconds(1000) == 0
