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


def own_classes(ids: int) -> NDArray[np.int32]:
    """Return classes of one word each."""
    return np.arange(ids, 2 * ids, dtype=np.int32)


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


def test_texts_of_the_training_half_are_left_out_of_the_test() -> None:
    train, test = reviews("train", 200), reviews("test", 20)
    leaking = Reviews(test.texts + train.texts[:3], np.append(test.targets, train.targets[:3]))

    kept = imdb.unknown_to(train, leaking)

    assert kept.texts == test.texts
    np.testing.assert_array_equal(kept.targets, test.targets)


def test_copies_count_once_and_stay_in_the_order_of_the_archive() -> None:
    number = np.arange(2 * imdb.LABEL_ROWS)
    number[[7, 20_000]] = number[[3, 19_000]]
    train = Split(number[:, np.newaxis], (number >= imdb.LABEL_ROWS).astype(np.int64))

    distinct, folds = imdb.distinct_reviews(train)

    np.testing.assert_array_equal(distinct.rows[:, 0], np.delete(np.arange(25_000), [7, 20_000]))
    assert len(folds) == len(distinct.targets) == 24_998


def test_folds_share_out_the_reviews_of_both_labels_alike() -> None:
    folds = imdb.folds_of(PLACES).reshape(2, -1)

    counts = [np.bincount(of_label).tolist() for of_label in folds]
    assert counts == [[10] * imdb.FOLDS] * 2


def test_reviews_of_one_film_share_a_fold() -> None:
    folds = imdb.folds_of(PLACES)

    films = folds.reshape(2, imdb.RUNS, 2).transpose(1, 0, 2).reshape(imdb.RUNS, 4)
    assert (films == films[:, :1]).all()


def test_film_places_put_both_labels_into_one_line() -> None:
    places = imdb.film_places()

    negative, positive = places[: imdb.LABEL_ROWS], places[imdb.LABEL_ROWS :]
    assert (places.min(), places.max() < 1) == (0, True)
    assert negative[2941] == positive[9766]  # the same film
    assert (np.diff(negative[:3960]) > 0).all()


def test_vocabulary_is_ordered_by_spread_and_leaves_rare_words_out() -> None:
    texts = ["Good film", "good plot, film", "bad film film", "GOOD! film", "rare rare rare"]

    assert imdb.vocabulary_of(texts) == ["film", "good"]


@pytest.mark.slow
def test_weights_lean_towards_the_label_of_a_word_and_of_a_pair() -> None:
    # 2 and 5-6: negative; 3 and 6-5: positive. Sorted by label, as the archive is.
    train = Split(rows_of(*[[2, 4, 5, 6]] * 40, *[[3, 4, 6, 5]] * 40), np.repeat([0, 1], 40))

    weights, kept = imdb.fit_weights(train, own_classes(7))
    heard = imdb.hear(imdb.ngram_graph(weights), rows_of([2], [3], [5, 6], [6, 5]))

    assert weights.tokens[2] < 0 < weights.tokens[3]
    assert (heard.margins > 0).tolist() == [False, True, False, True]
    # Of each of the two texts: three pairs and two triples of words, two pairs around a word, and
    # three pairs, two triples and a quadruple of classes.
    assert kept == 26


def test_ngrams_of_one_film_alone_have_no_weight() -> None:
    film = [[2, 3]] * imdb.NEIGHBOURS
    others = [[4, 5]] * 4 * imdb.NEIGHBOURS
    train = Split(rows_of(*film, *others), np.repeat([0, 1], [len(film), len(others)]))

    _, kept = imdb.fit_weights(train, own_classes(6))

    assert kept == 2  # the pair 4-5, as words and as classes


@pytest.mark.slow
def test_pair_of_one_class_tells_about_another_pair_of_it() -> None:
    # 2 or 3 behind 4 or 5; 3-5 never occurs.
    texts = [[6, 2, 4], [6, 2, 5], [6, 3, 4], [4, 6, 2], [5, 6, 2], [4, 6, 3]]
    train = Split(rows_of(*texts * 40), np.tile([1, 1, 1, 0, 0, 0], 40))
    classes = np.array([7, 8, 9, 9, 10, 10, 11], np.int32)

    graph = imdb.ngram_graph(imdb.fit_weights(train, classes)[0])
    unseen, alone = imdb.hear(graph, rows_of([3, 5], [5, 3])).margins

    assert unseen > alone


@pytest.mark.slow
def test_row_is_scored_by_models_that_have_not_seen_its_fold() -> None:
    rows = rows_of(*[[2, 4]] * 100, *[[3, 4]] * 100)
    train, folds = Split(rows, np.repeat([0, 1], 100)), np.arange(200) % imdb.FOLDS
    changed = Split(rows, np.where(folds == 0, 1 - train.targets, train.targets))

    before, after = (
        imdb.left_out(split, folds, own_classes(5), [rows])[0].margins for split in (train, changed)
    )

    np.testing.assert_array_equal(before[folds == 0], after[folds == 0])
    assert (before[folds == 1] != after[folds == 1]).all()


def test_word_that_a_fold_does_not_know_is_no_known_id() -> None:
    rows = rows_of([2, 2, 2], [3, 4], [3, 4], [3])

    known = imdb.known_ids(rows, ids=5)

    assert known.tolist() == [True, True, False, True, False]


def test_texts_are_cut_behind_their_beginning() -> None:
    rows = rows_of([2] * 3, [3] * 1000, [4] * 100)

    lengths = np.count_nonzero(imdb.cut_to_any_length(rows), axis=1)

    assert lengths[0] == 3
    assert (lengths[1:] >= imdb.LEAST_TOKENS).all()
    assert (lengths[1:] <= [1000, 100]).all()


def test_multi_hot_marks_each_word_once_and_rare_ones_together() -> None:
    rows = np.array([[2, 2, 4, 0], [1, 9, 0, 0], [0, 0, 0, 0]], np.int32)

    marks = imdb.MultiHot(words=4)(rows).numpy()

    # Columns: unknown or rare, then ids 2, 3, 4.
    assert marks.tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
