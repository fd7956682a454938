from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from training import export, ngrams
from training.layers import two_logits

IDS = 40
WIDTH = 24
ROWS = 30
BIAS = 0.25
UNIT = 0.01
NONE = np.zeros(0, np.int64)
CLASSES = (IDS + np.arange(IDS) // 4).astype(np.int32)
EMPTY = ngrams.fill_slots(NONE, np.zeros(0), NONE)


def random_rows(seed: int, rows: int = ROWS) -> NDArray[np.int32]:
    """Return rows of every length from 0 to `WIDTH` in turn."""
    ids = np.random.default_rng(seed).integers(1, IDS, (rows, WIDTH), np.int32)
    lengths = np.arange(rows) % (WIDTH + 1)
    return np.where(np.arange(WIDTH) < lengths[:, np.newaxis], ids, 0).astype(np.int32)


@pytest.fixture(scope="module")
def weight_by_code() -> dict[int, int]:
    """Weights, squares in units, for two thirds of the n-grams of some rows; some are shared."""
    codes = np.unique(ngrams.ngrams_of(random_rows(seed=1), CLASSES).codes)
    rng = np.random.default_rng(2)
    kept = codes[(codes != ngrams.NO_CODE) & (rng.random(len(codes)) < 2 / 3)]
    roots = rng.integers(-ngrams.LARGEST_ROOT, ngrams.LARGEST_ROOT + 1, len(kept))
    return dict(zip(kept.tolist(), (roots * np.abs(roots)).tolist(), strict=True))


@pytest.fixture(scope="module")
def weights(weight_by_code: dict[int, int]) -> ngrams.Weights:
    codes = np.array(list(weight_by_code), np.int64)
    values = np.array(list(weight_by_code.values()), np.float64)
    slots = ngrams.assign_slots(codes)
    tokens = np.random.default_rng(3).integers(-5000, 5000, IDS).astype(np.int32)
    return ngrams.Weights(tokens, ngrams.fill_slots(codes, values, slots), CLASSES, UNIT, BIAS)


@pytest.fixture(scope="module")
def layer(weights: ngrams.Weights) -> ngrams.NgramMargin:
    return ngrams.NgramMargin(weights)


def outputs_of(
    layer: ngrams.NgramMargin, rows: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    margin, shares, _ = layer(rows)
    return margin.numpy(), shares.numpy()


def expected_margin(
    row: NDArray[np.int32], weights: ngrams.Weights, weight_by_code: dict[int, int]
) -> float:
    """Return the margin of one row, written with dictionaries instead of tables."""
    line = ngrams.ngrams_of(row[np.newaxis], CLASSES)
    total = (weights.tokens[line.token] * line.emphasis).sum()
    evidence = line.emphasis.sum()
    for codes, emphasis in zip(line.codes.tolist(), line.emphasis.tolist(), strict=True):
        found = [weight_by_code[code] for code in codes if code in weight_by_code]
        total += emphasis * sum(found)
        evidence += emphasis * len(found)
    caution = min(1.0, len(line.token) / ngrams.ENOUGH_TOKENS)
    return float(caution * (UNIT * total / np.sqrt(evidence + ngrams.PRIOR_EVIDENCE) + BIAS))


def test_graph_agrees_with_numpy_on_random_ids(
    layer: ngrams.NgramMargin, weights: ngrams.Weights, weight_by_code: dict[int, int]
) -> None:
    rows = np.concatenate([random_rows(seed=1), random_rows(seed=4)])

    margin, _ = outputs_of(layer, rows)

    expected = [expected_margin(row, weights, weight_by_code) for row in rows]
    np.testing.assert_allclose(margin[:, 0], expected, rtol=1e-5)  # float32 against float64


def test_few_words_convince_less_than_many(weights: ngrams.Weights) -> None:
    layer = ngrams.NgramMargin(ngrams.Weights(weights.tokens, EMPTY, CLASSES, UNIT, 0.0))

    margin, _ = outputs_of(layer, np.array([[2] * 3 + [0] * 297, [2] * 300], np.int32))

    assert abs(margin[1, 0]) > 10 * abs(margin[0, 0])


def test_padding_does_not_change_the_outputs(layer: ngrams.NgramMargin) -> None:
    rows = random_rows(seed=1)
    padded = np.pad(rows, ((0, 0), (0, 100)))

    outputs = outputs_of(layer, padded)

    np.testing.assert_array_equal(outputs[0], outputs_of(layer, rows)[0])
    np.testing.assert_array_equal(outputs[1], outputs_of(layer, rows)[1])


@pytest.mark.slow
def test_neighbours_do_not_change_a_row_by_a_bit(layer: ngrams.NgramMargin) -> None:
    rows = random_rows(seed=5)

    together = outputs_of(layer, rows)

    alone = [outputs_of(layer, row[np.newaxis]) for row in rows]
    np.testing.assert_array_equal(together[0], np.concatenate([margin for margin, _ in alone]))
    np.testing.assert_array_equal(together[1], np.concatenate([scores for _, scores in alone]))


def test_rows_of_padding_alone_lean_to_neither_label(layer: ngrams.NgramMargin) -> None:
    margin, novelty = outputs_of(layer, np.zeros((3, WIDTH), np.int32))

    np.testing.assert_array_equal(margin, np.zeros((3, 1), np.float32))
    nothing = [0, 0, 0, 0, 1 / 2, 0, 0]
    np.testing.assert_array_equal(novelty, np.array([nothing] * 3, np.float32))


def test_each_occurrence_of_an_ngram_counts() -> None:
    rows = np.array([[2, 3, 4, 2, 3, 5, 2, 3]], np.int32)

    codes = ngrams.ngrams_of(rows, CLASSES).codes[:, 0]

    assert (codes == codes[1]).nonzero()[0].tolist() == [1, 4, 7]


def test_no_ngram_reaches_into_the_row_before() -> None:
    rows = np.array([[2, 3, 4], [2, 3, 0], [2, 0, 0]], np.int32)

    is_code = ngrams.ngrams_of(rows, CLASSES).codes != ngrams.NO_CODE

    assert is_code.tolist() == [
        [False] * 6,
        [True, False, False, True, False, False],
        [True, True, True, True, True, False],
        [False] * 6,
        [True, False, False, True, False, False],
        [False] * 6,
    ]


def test_hole_holds_any_word_and_class_any_word_of_it() -> None:
    rows = np.array([[7, 2, 3, 5], [7, 2, 9, 5], [7, 2, 3, 6]], np.int32)

    first, other_middle, same_class = ngrams.ngrams_of(rows, CLASSES).codes[3::4]

    assert (first == other_middle).tolist() == [False, False, True, False, False, False]
    assert CLASSES[5] == CLASSES[6]
    assert (first == same_class).tolist() == [False, False, False, True, True, True]


def test_no_word_is_taken_for_its_class() -> None:
    codes = ngrams.ngrams_of(random_rows(seed=1), CLASSES).codes

    words, classes = (set(part[part != ngrams.NO_CODE]) for part in (codes[:, :3], codes[:, 3:]))

    assert not words & classes


def test_the_end_of_a_row_is_emphasised() -> None:
    rows = np.zeros((2, 100), np.int32)
    rows[0, :] = 2
    rows[1, :40] = 2

    emphasis = ngrams.ngrams_of(rows, CLASSES).emphasis

    assert emphasis.tolist() == [1] * 95 + [2] * 5 + [1] * 38 + [2] * 2


def test_shares_tell_what_is_unknown_and_what_is_common() -> None:
    known = ngrams.ngrams_of(np.array([[2, 3]], np.int32), CLASSES).codes[1, 0]
    codes = np.array([known])
    slots = ngrams.fill_slots(codes, np.zeros(1), ngrams.assign_slots(codes))
    layer = ngrams.NgramMargin(ngrams.Weights(np.zeros(IDS, np.int32), slots, CLASSES, UNIT, BIAS))

    _, novelty = outputs_of(layer, np.array([[2, 3, 1, 2, 3], [1, 1, 0, 0, 0]], np.int32))

    expected = np.array(
        [
            [1 / 5, 2 / 4, 3 / 3, 4 / 5, (2 - 2 + 1) / (2 + 2), 4 / 4, 3 / 3],
            [1, 1, 0, 0, 1 / 2, 1, 0],
        ],
        np.float32,
    )
    np.testing.assert_array_equal(novelty, expected)


def test_full_bucket_keeps_the_first_codes() -> None:
    codes = 7 + ngrams.BUCKETS * np.arange(ngrams.SLOTS + 2, dtype=np.int64)

    slots = ngrams.assign_slots(codes)

    first = 7 * ngrams.SLOTS
    assert slots.tolist() == [first, first + 1, first + 2, first + 3, -1, -1]


@pytest.mark.parametrize(
    "weight",
    [
        pytest.param(ngrams.LARGEST_WEIGHT, id="largest"),
        pytest.param(-ngrams.LARGEST_WEIGHT, id="most negative"),
        pytest.param(150.0, id="middling"),
        pytest.param(-0.3, id="rounds to zero"),
    ],
)
def test_slot_keeps_a_weight_within_its_rounding(weight: float) -> None:
    codes = ngrams.ngrams_of(np.array([[2, 3]], np.int32), CLASSES).codes[1:, 0]
    slots = ngrams.fill_slots(codes, np.array([weight]), ngrams.assign_slots(codes))
    layer = ngrams.NgramMargin(ngrams.Weights(np.zeros(IDS, np.int32), slots, CLASSES, 1.0, 0.0))

    margin, _ = outputs_of(layer, np.array([[2, 3]], np.int32))

    # Two tokens and their pair.
    stored = margin[0, 0] * np.sqrt(3 + ngrams.PRIOR_EVIDENCE) * ngrams.ENOUGH_TOKENS / 2
    assert abs(stored - weight) <= np.sqrt(abs(weight)) + 0.3  # half a step of the root


def test_code_without_a_slot_finds_nothing() -> None:
    layer = ngrams.NgramMargin(ngrams.Weights(np.ones(IDS, np.int32), EMPTY, CLASSES, 1.0, 0.0))

    margin, novelty = outputs_of(layer, np.array([[2, 3, 4]], np.int32))

    whole = 3 / np.sqrt(3 + ngrams.PRIOR_EVIDENCE)
    assert margin[0, 0] == pytest.approx(whole * 3 / ngrams.ENOUGH_TOKENS)
    assert novelty.tolist() == [[0.0, 1.0, 1.0, 1.0, 0.75, 1.0, 1.0]]


@pytest.mark.slow
def test_onnx_agrees_with_keras(weights: ngrams.Weights, tmp_path: Path) -> None:
    rows = keras.Input((WIDTH,), dtype="int32")
    margin, shares, _ = ngrams.NgramMargin(weights)(rows)
    model = keras.Model(rows, {"logits": two_logits(margin), "novelty_scores": shares})
    batch = random_rows(seed=6)

    export.save_model(model, tmp_path)
    session = onnxruntime.InferenceSession(export.to_onnx(tmp_path))
    logits, scores = session.run(["logits", "novelty_scores"], {"rows": batch})

    expected = model(batch)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)  # float32, sizes up to 100
    np.testing.assert_array_equal(scores, expected["novelty_scores"])
