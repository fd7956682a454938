import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from training.contradictions import WIDTHS_TO_THE_NEXT, Contradictions, Trust

AT_THE_NEXT_ROW = 1 - np.exp(-(WIDTHS_TO_THE_NEXT**2) / 2)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    """Rows of three standard scores; the first two stand there again at the end."""
    drawn = np.random.default_rng(0).normal(size=(200, 3))
    return np.concatenate([drawn, drawn[:2]])


@pytest.fixture(scope="module")
def targets(rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first row has both labels, the second the same one twice."""
    labels = np.arange(len(rows)) % 2
    labels[[0, 1, 200, 201]] = 0, 1, 1, 1
    return labels


@pytest.fixture(scope="module")
def contradictions(rows: NDArray[np.float64], targets: NDArray[np.int64]) -> Contradictions:
    return Contradictions.find(rows, targets)


def test_only_equal_rows_of_different_labels_contradict_each_other(
    rows: NDArray[np.float64], contradictions: Contradictions
) -> None:
    np.testing.assert_array_equal(contradictions.points, rows[:1])


def test_contradiction_is_not_trusted_and_every_other_row_is(
    rows: NDArray[np.float64], contradictions: Contradictions
) -> None:
    trust = contradictions.trust(rows)

    assert trust[0] == trust[200] == 0
    assert np.delete(trust, [0, 200]).min() == pytest.approx(AT_THE_NEXT_ROW, abs=1e-9)


def test_what_is_almost_a_contradiction_is_hardly_trusted(
    rows: NDArray[np.float64], contradictions: Contradictions
) -> None:
    moved = rows[:1] + contradictions.width * np.array([0.1, 0, 0])

    assert contradictions.trust(moved) == pytest.approx(1 - np.exp(-(0.1**2) / 2))


def test_rows_without_contradictions_are_all_trusted(rows: NDArray[np.float64]) -> None:
    none = Contradictions.find(rows, np.zeros(len(rows), np.int64))

    assert none.points.shape == (0, 3)
    assert (none.trust(rows) == 1).all()


@pytest.mark.parametrize("kept", [1, 0], ids=["a contradiction", "none"])
def test_graph_trusts_as_numpy_does(
    rows: NDArray[np.float64], contradictions: Contradictions, kept: int
) -> None:
    known = Contradictions(contradictions.points[:kept], contradictions.width)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Trust(known)(inputs))
    near = (rows[0] + contradictions.width * rows).astype(np.float32)

    found = np.asarray(model(near))[:, 0]

    # Both in double precision; the result is float32.
    np.testing.assert_allclose(found, known.trust(near), atol=1e-6)
