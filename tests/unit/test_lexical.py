import numpy as np
import pytest
from numpy.typing import NDArray

from training.lexical import LexicalDistance, Profile, fit_profile

SHARES = np.array([0.02, 0.4, 0.8])
FOREIGN = np.array([0, 0.6, 0])


def texts(rows: int, length: float, seed: int = 0) -> NDArray[np.float64]:
    """Return shares that scatter like those of texts of that many tokens."""
    rng = np.random.default_rng(seed)
    found: NDArray[np.float64] = rng.normal(SHARES, np.sqrt(0.0004 + 0.3 / length), (rows, 3))
    return found


@pytest.fixture(scope="module")
def profile() -> Profile:
    lengths = np.repeat([10.0, 30.0, 100.0, 300.0], 2000)
    cuts = np.concatenate([texts(2000, length, int(length)) for length in (10, 30, 100, 300)])
    return fit_profile(texts(5000, 300), cuts, lengths)


def distances(profile: Profile, shares: NDArray[np.float64], length: float) -> NDArray[np.float32]:
    lengths = np.full(len(shares), length, np.float32)
    found = LexicalDistance(profile)(shares.astype(np.float32), lengths)
    return np.asarray(found)[:, 0]


@pytest.mark.parametrize("length", [15, 60, 250])
def test_usual_texts_of_any_length_are_at_distance_one(profile: Profile, length: float) -> None:
    found = distances(profile, texts(4000, length, seed=7), length)

    # The line through four lengths is no exact law.
    assert found.mean() == pytest.approx(1, rel=0.25)


def test_text_of_foreign_shares_is_far(profile: Profile) -> None:
    usual = distances(profile, texts(1000, 200, seed=3), 200)
    foreign = distances(profile, texts(1000, 200, seed=4) + FOREIGN, 200)

    assert foreign.min() > np.quantile(usual, 0.99)


def test_same_shares_are_less_foreign_in_a_short_text(profile: Profile) -> None:
    shares = (SHARES + FOREIGN)[None]

    assert distances(profile, shares, 10)[0] < distances(profile, shares, 300)[0] / 4
