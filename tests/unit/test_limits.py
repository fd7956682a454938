import pytest

from service.batching import BatchLimits

EAGER = BatchLimits(max_rows=8, max_queue_rows=100)
PATIENT = BatchLimits(max_rows=8, max_queue_rows=100, max_wait_s=0.01)


@pytest.mark.parametrize(
    ("limits", "rows", "waited_s", "until_deadline_s", "is_draining", "cause"),
    [
        pytest.param(EAGER, 1, 0.0, 9.0, False, "idle", id="nobody waits by default"),
        pytest.param(EAGER, 8, 0.0, 9.0, False, "full", id="full"),
        pytest.param(PATIENT, 1, 0.0, 9.0, False, None, id="may wait for company"),
        pytest.param(PATIENT, 8, 0.0, 9.0, False, "full", id="full before the wait is over"),
        pytest.param(PATIENT, 1, 0.01, 9.0, False, "max_wait", id="waited long enough"),
        pytest.param(PATIENT, 1, 0.0, 0.005, False, "deadline", id="a deadline is near"),
        pytest.param(PATIENT, 1, 0.0, 9.0, True, "drain", id="no company will come"),
    ],
)
def test_batch_closes_for_one_cause(
    limits: BatchLimits,
    rows: int,
    waited_s: float,
    until_deadline_s: float,
    *,
    is_draining: bool,
    cause: str | None,
) -> None:
    assert limits.cause(rows, waited_s, until_deadline_s, is_draining=is_draining) == cause


def test_patience_ends_with_the_wait_or_before_a_deadline() -> None:
    assert PATIENT.patience_s(waited_s=0.004, until_deadline_s=9.0) == pytest.approx(0.006)
    assert PATIENT.patience_s(waited_s=0.0, until_deadline_s=0.012) == pytest.approx(0.002)
    assert PATIENT.patience_s(waited_s=1.0, until_deadline_s=9.0) == 0.0


@pytest.mark.parametrize(("rows", "run_rows"), [(1, 1), (2, 2), (3, 4), (5, 8), (7, 8), (8, 8)])
def test_run_is_padded_to_the_next_power_of_two(rows: int, run_rows: int) -> None:
    limits = BatchLimits(max_rows=8, max_queue_rows=100, has_buckets=True)

    assert limits.run_rows(rows) == run_rows


def test_run_is_never_padded_beyond_the_largest_batch() -> None:
    limits = BatchLimits(max_rows=6, max_queue_rows=100, has_buckets=True)

    assert limits.run_rows(5) == 6


def test_run_is_not_padded_where_the_runtime_gains_nothing() -> None:
    assert EAGER.run_rows(5) == 5


@pytest.mark.parametrize(
    ("max_rows", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_every_batch_size_is_warmed(max_rows: int, sizes: list[int]) -> None:
    assert BatchLimits(max_rows=max_rows, max_queue_rows=100).warm_rows() == sizes
