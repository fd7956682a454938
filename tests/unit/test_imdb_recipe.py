import re

import numpy as np
import pytest
from numpy.typing import NDArray

from training.datasets import Reviews
from training.recipe import Split
from training.recipes import imdb

find = re.compile(imdb.TOKEN_PATTERN).findall
# Two negative reviews of each of as many films as there are runs, then two positive ones.
PLACES = np.tile(np.repeat((np.arange(imdb.RUNS) + 0.5) / imdb.RUNS, 2), 2)


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
    train, test = reviews("train", 200), reviews("test", 20)
    texts = [*train.texts[:98], *train.texts[:2], *train.texts[100:]]  # two stand twice
    leaking = Reviews(test.texts + texts[:3], np.append(test.targets, train.targets[:3]))

    parts = imdb.split_reviews(Reviews(texts, train.targets), leaking, PLACES)

    assert sum(len(part.texts) for part in parts.values()) == 198 + 20
    assert len({text for part in parts.values() for text in part.texts}) == 198 + 20


def test_splits_take_their_shares_of_both_labels() -> None:
    parts = imdb.split_reviews(reviews("train", 200), reviews("test", 20), PLACES)

    counts = {name: np.bincount(part.targets).tolist() for name, part in parts.items()}
    assert counts == {
        "train": [70, 70],
        "validation": [10, 10],
        "calibration": [20, 20],
        "test": [10, 10],
    }


def test_reviews_of_one_film_share_a_split() -> None:
    train = reviews("train", 200)

    parts = imdb.split_reviews(train, reviews("test", 20), PLACES)

    split_by_text = {text: name for name, part in parts.items() for text in part.texts}
    splits = np.array([split_by_text[text] for text in train.texts])
    films = splits.reshape(2, imdb.RUNS, 2).transpose(1, 0, 2).reshape(imdb.RUNS, 4)
    assert (films == films[:, :1]).all()


def test_film_places_put_both_labels_into_one_line() -> None:
    places = imdb.film_places()

    negative, positive = places[: imdb.LABEL_ROWS], places[imdb.LABEL_ROWS :]
    assert (places.min(), places.max() < 1) == (0, True)
    assert negative[2941] == positive[9766]  # the same film
    assert (np.diff(negative[:3960]) > 0).all()


def test_targets_follow_their_texts_into_the_splits() -> None:
    train = reviews("train", 200)
    target_by_text = dict(zip(train.texts, train.targets.tolist(), strict=True))

    chosen = imdb.split_reviews(train, reviews("test", 20), PLACES)["calibration"]

    assert chosen.targets.tolist() == [target_by_text[text] for text in chosen.texts]


def test_vocabulary_is_ordered_by_spread_and_leaves_rare_words_out() -> None:
    texts = ["Good film", "good plot, film", "bad film film", "GOOD! film", "rare rare rare"]

    assert imdb.vocabulary_of(texts) == ["film", "good"]


def test_weights_lean_towards_the_label_of_a_word_and_of_a_pair() -> None:
    # 2 and 5-6: negative; 3 and 6-5: positive. Sorted by label, as the archive is.
    train = Split(rows_of(*[[2, 4, 5, 6]] * 40, *[[3, 4, 6, 5]] * 40), np.repeat([0, 1], 40))

    weights, kept = imdb.fit_weights(train, tokens=7)
    logits = imdb.ngram_graph(weights)(rows_of([2], [3], [5, 6], [6, 5]))["logits"].numpy()

    assert weights.tokens[2] < 0 < weights.tokens[3]
    assert logits.argmax(axis=1).tolist() == [0, 1, 0, 1]
    assert kept == 10  # five pairs and triples of each of the two texts


def test_ngrams_of_one_film_alone_have_no_weight() -> None:
    film = [[2, 3]] * imdb.NEIGHBOURS
    others = [[4, 5]] * 4 * imdb.NEIGHBOURS
    train = Split(rows_of(*film, *others), np.repeat([0, 1], [len(film), len(others)]))

    _, kept = imdb.fit_weights(train, tokens=6)

    assert kept == 1  # the pair 4-5


def test_multi_hot_marks_each_word_once_and_rare_ones_together() -> None:
    rows = np.array([[2, 2, 4, 0], [1, 9, 0, 0], [0, 0, 0, 0]], np.int32)

    marks = imdb.MultiHot(words=4)(rows).numpy()

    # Columns: unknown or rare, then ids 2, 3, 4.
    assert marks.tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
