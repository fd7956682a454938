import re

import numpy as np
import pytest
from numpy.typing import NDArray

from training.datasets import Reviews
from training.recipe import Split
from training.recipes import imdb

find = re.compile(imdb.TOKEN_PATTERN).findall


def reviews(prefix: str, count: int) -> Reviews:
    """Return distinct texts, the first half of them negative."""
    texts = [f"{prefix} {number}" for number in range(count)]
    return Reviews(texts, np.repeat(np.arange(2), count // 2))


def rows_of(*texts: list[int]) -> NDArray[np.int32]:
    rows = np.zeros((len(texts), imdb.MAX_TOKENS), np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return rows


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("great.<br /><br />the end", id="as in the data set"),
        pytest.param("great.\n\nthe end", id="as people type it"),
        pytest.param("great. the end", id="in one line"),
    ],
)
def test_line_breaks_are_no_tokens(text: str) -> None:
    assert find(text) == ["great", "the", "end"]


def test_marks_of_feeling_are_tokens_and_others_are_not() -> None:
    assert find("what? no, never! (sic)") == ["what", "?", "no", "never", "!", "sic"]


def test_straight_and_curly_apostrophes_read_the_same() -> None:
    assert find("don't") == find("don’t")  # noqa: RUF001  # the curly one is meant


def test_no_text_stands_in_two_splits() -> None:
    train, test = reviews("train", 40), reviews("test", 20)
    doubled = Reviews(train.texts + train.texts[:4], np.append(train.targets, train.targets[:4]))
    leaking = Reviews(test.texts + train.texts[:3], np.append(test.targets, train.targets[:3]))

    parts = imdb.split_reviews(doubled, leaking, validation_rows=6, calibration_rows=10)

    assert {name: len(part.texts) for name, part in parts.items()} == {
        "validation": 6,
        "calibration": 10,
        "train": 24,
        "test": 20,
    }
    assert len({text for part in parts.values() for text in part.texts}) == 60


def test_labels_have_equal_shares_in_every_split() -> None:
    parts = imdb.split_reviews(reviews("a", 40), reviews("b", 20), 6, 10)

    assert all(part.targets.mean() == 0.5 for part in parts.values())


def test_targets_follow_their_texts_into_the_splits() -> None:
    train = reviews("train", 40)
    target_by_text = dict(zip(train.texts, train.targets.tolist(), strict=True))

    parts = imdb.split_reviews(train, reviews("test", 20), 6, 10)

    chosen = parts["train"]
    assert chosen.targets.tolist() == [target_by_text[text] for text in chosen.texts]
    assert chosen.texts != sorted(chosen.texts)


def test_vocabulary_is_ordered_by_spread_and_leaves_rare_words_out() -> None:
    texts = ["Good film", "good plot, film", "bad film film", "GOOD! film", "rare rare rare"]

    assert imdb.vocabulary_of(texts) == ["film", "good"]


def test_weights_lean_towards_the_label_of_a_word_and_of_a_pair() -> None:
    texts = [[2, 4, 5, 6], [3, 4, 6, 5]] * 10  # 2 and 5-6: negative; 3 and 6-5: positive
    train = Split(rows_of(*texts), np.array([0, 1] * 10))

    weights, kept = imdb.fit_weights(train, tokens=7)
    logits = imdb.ngram_graph(weights)(rows_of([2], [3], [5, 6], [6, 5]))["logits"].numpy()

    assert weights.tokens[2] < 0 < weights.tokens[3]
    assert logits.argmax(axis=1).tolist() == [0, 1, 0, 1]
    assert kept == 10  # five pairs and triples of each of the two texts


def test_rare_ngrams_have_no_weight() -> None:
    train = Split(rows_of([2, 3], [4, 5], [2, 3], [4, 5], [2, 4]), np.array([0, 1, 0, 1, 0]))

    _, kept = imdb.fit_weights(train, tokens=6)

    assert kept == 0


def test_multi_hot_marks_each_word_once_and_rare_ones_together() -> None:
    rows = np.array([[2, 2, 4, 0], [1, 9, 0, 0], [0, 0, 0, 0]], np.int32)

    marks = imdb.MultiHot(words=4)(rows).numpy()

    # Columns: unknown or rare, then ids 2, 3, 4.
    assert marks.tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
