import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

from training.densities import WIDTH, Familiar, Strangeness

SHIFT = 0.01


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    """Two measurements that rise together and a third that falls with them, all above 0."""
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.9, -0.5], [0.0, 0.2, 0.0], [0.0, 0.0, 0.1]])
    values: NDArray[np.float64] = np.exp(rng.normal(size=(2000, 3)) @ mixing)
    return values


@pytest.fixture(scope="module")
def familiar(rows: NDArray[np.float64]) -> Familiar:
    return Familiar.fit(rows, components=1, shift=SHIFT, seed=0)


def test_one_component_is_the_gaussian_of_mean_and_covariance(
    rows: NDArray[np.float64], familiar: Familiar
) -> None:
    logs = np.log(rows + SHIFT)
    scores = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    covariance = np.cov(scores.T, bias=True) + WIDTH * np.eye(3)
    unlikely = -multivariate_normal(np.zeros(3), covariance).logpdf(scores[:50])
    expected = np.sign(unlikely) * np.log1p(np.abs(unlikely))

    np.testing.assert_allclose(familiar.strangeness(rows[:50]), expected, rtol=1e-6)


def test_graph_returns_what_numpy_returns(rows: NDArray[np.float64]) -> None:
    familiar = Familiar.fit(rows, components=4, shift=SHIFT, seed=0)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Strangeness(familiar)(inputs))
    batch = rows[:100].astype(np.float32)

    found = np.asarray(model(batch))[:, 0]

    # Both in double precision; the result is float32.
    np.testing.assert_allclose(found, familiar.strangeness(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_measurement_in_another_unit_is_strange(
    rows: NDArray[np.float64], familiar: Familiar, factor: float
) -> None:
    wrong = rows[:500] * [1.0, factor, 1.0]

    usual = np.quantile(familiar.strangeness(rows), 0.99)
    assert (familiar.strangeness(wrong) > usual).mean() > 0.99


def test_columns_in_another_order_are_strange(
    rows: NDArray[np.float64], familiar: Familiar
) -> None:
    usual = np.quantile(familiar.strangeness(rows), 0.99)

    # Three columns of like sizes: some rows read the same backwards.
    assert (familiar.strangeness(rows[:500, ::-1]) > usual).mean() > 0.7


def test_zero_has_a_logarithm(familiar: Familiar) -> None:
    assert np.isfinite(familiar.strangeness(np.zeros((1, 3)))).all()
