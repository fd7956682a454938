"""The wine recipe, on made-up measurements."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.recipe import Split
from training.recipes import wine


@pytest.fixture
def split() -> Split:
    """Two clouds of eleven measurements; every third row stands there twice."""
    rng = np.random.default_rng(0)
    targets = np.arange(600) % 2
    rows = rng.normal(5, 1, (600, 11)) + targets[:, None]
    twice = np.concatenate([rows, rows[::3]]).astype(np.float32)
    return Split(twice, np.concatenate([targets, targets[::3]]))


def test_equal_measurements_share_a_fold(split: Split) -> None:
    folds = wine.folds_of(split.rows, split.targets)

    assert np.array_equal(folds[600:], folds[:600:3])
    assert set(folds) == set(range(wine.FOLDS))


def test_quality_does_not_part_equal_measurements(split: Split) -> None:
    quality = np.arange(len(split.rows), dtype=np.float32)[:, None]
    rows = np.concatenate([split.rows, quality], axis=1)

    folds = wine.folds_of(rows, split.targets)

    assert np.array_equal(folds[600:], folds[:600:3])


def test_graph_decides_as_the_machine_that_was_fitted(split: Split) -> None:
    machine = wine.fit_machine(split)

    logits = np.asarray(wine.machine_graph(machine, wine.fit_familiar(split))(split.rows)["logits"])

    expected = machine.vectors.decision_function(machine.scaler.transform(split.rows))
    # Rows and standard scores are float32 in the graph, double in the machine.
    assert logits[:, 1] - logits[:, 0] == pytest.approx(expected, abs=1e-4)


def test_outliers_are_what_their_name_says(split: Split) -> None:
    rows: NDArray[Any] = split.rows

    families = wine.outliers(rows)

    np.testing.assert_array_equal(families["columns reversed"], rows[:, ::-1])
    ratios = families["one measurement x 10"] / rows
    assert np.allclose(np.sort(ratios, axis=1), [1] * 10 + [10])
    swapped = families["two measurements swapped"]
    np.testing.assert_array_equal(np.sort(swapped, axis=1), np.sort(rows, axis=1))
    assert ((swapped != rows).sum(axis=1) <= 2).all()
    assert {rows.dtype for rows in families.values()} == {np.dtype(np.float32)}


def test_measurements_with_both_labels_have_no_margin(split: Split) -> None:
    other = split.targets.copy()
    other[600] = 1 - other[0]
    machine = wine.fit_machine(Split(split.rows, other))

    graph = wine.machine_graph(machine, wine.fit_familiar(split))
    logits = np.asarray(graph(split.rows)["logits"])

    margins = logits[:, 1] - logits[:, 0]
    # Standard scores are float32 in the graph: equal to the point within 1e-6.
    assert margins[[0, 600]] == pytest.approx([0, 0], abs=1e-6)
    assert np.abs(np.delete(margins, [0, 600])).min() > 1e-4
    assert margins == pytest.approx(machine.margins(split.rows), abs=1e-4)
