from service.batching.cost import QUICK_RUN_S, RunCost

ROWS = 64
QUICK_ROW_S = QUICK_RUN_S / ROWS / 2


def cost_of(row_s: float, runs: int = 1) -> RunCost:
    cost = RunCost(ROWS)
    for _ in range(runs):
        cost.learn(1, row_s)
    return cost


def test_nothing_is_quick_before_it_has_run() -> None:
    assert not RunCost(ROWS).is_quick


def test_largest_batch_counts_not_the_one_that_ran() -> None:
    assert cost_of(QUICK_ROW_S).is_quick
    assert not cost_of(QUICK_RUN_S / 2).is_quick


def test_run_that_was_held_up_tells_nothing() -> None:
    cost = cost_of(QUICK_ROW_S)

    cost.learn(1, 1.0)

    assert cost.is_quick


def test_quick_model_on_a_busy_machine_is_found_out_later() -> None:
    cost = cost_of(1.0)

    cost.learn(8, 8 * QUICK_ROW_S)

    assert cost.is_quick


def test_model_that_has_become_slow_is_found_out() -> None:
    cost = cost_of(QUICK_ROW_S)

    for _ in range(200):
        cost.learn(1, 10 * QUICK_ROW_S)

    assert not cost.is_quick


def test_model_on_the_edge_does_not_go_to_and_fro() -> None:
    cost = cost_of(QUICK_RUN_S / ROWS)

    for _ in range(200):
        cost.learn(1, 1.2 * QUICK_RUN_S / ROWS)

    assert cost.is_quick
