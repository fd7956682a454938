import numpy as np
from numpy.typing import NDArray

from training import word_classes
from training.word_classes import word_classes as classes_of

FIRST = 2 + word_classes.OWN_CLASS
WORDS = 2 * (word_classes.CLASSES + 10)  # behind those of their own class
IDS = FIRST + WORDS


def company() -> NDArray[np.int32]:
    """Return texts in which two words each, and no others, stand beside the same third one."""
    rng = np.random.default_rng(1)
    pair = rng.integers(0, WORDS // 2, 20_000)
    word = FIRST + 2 * pair + rng.integers(0, 2, len(pair))
    friend = 2 + pair  # one of the words of their own class
    return np.stack([friend, word, friend, np.zeros_like(word)], axis=1).astype(np.int32)


def test_words_of_one_company_share_a_class() -> None:
    classes = classes_of(company(), IDS, seed=1)

    first, second = classes[FIRST:].reshape(-1, 2).T
    assert (first == second).mean() > 0.95  # k-means may part a few
    assert len(np.unique(classes[FIRST:])) > word_classes.CLASSES / 2


def test_widespread_words_are_classes_of_their_own() -> None:
    own = classes_of(company(), IDS, seed=1)[:FIRST]

    assert len(np.unique(own)) == FIRST


def test_classes_are_numbered_behind_the_last_id() -> None:
    assert classes_of(company(), IDS, seed=1).min() == IDS


def test_small_vocabulary_has_a_class_for_each_word() -> None:
    classes = classes_of(np.array([[2, 3, 0]], np.int32), ids=4, seed=1)

    assert classes.tolist() == [4, 5, 6, 7]
