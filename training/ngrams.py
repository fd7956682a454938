"""Word n-grams as features, the same integers in numpy (for fitting) and inside the graph.

    token ids --Horner--> code of each n-gram --> bucket --> the slot with its fingerprint -->
    weight;  the weights of all tokens and n-grams of a row, summed --> margin

At each token end six n-grams: a pair and a triple of words, a pair around any word, and a pair, a
triple and a quadruple of word classes (`training.word_classes`), which stand for words too rare to
be known beside each other. Classes and holes raise accuracy from 91.0 to 91.5 % and lower the area
under the risk-coverage curve from 0.0197 to 0.0179 (24,904 reviews, three of five folds cut between
films); quadruples of words in place of those of classes fare the same.

A bucket has four slots of a fingerprint and a weight. An n-gram that training did not keep finds
no slot and adds nothing (bar one in 100 that meets its fingerprint by chance), so the share of
bigrams without a slot tells how foreign a text is. Plain hashing has no fingerprints: there
every unknown n-gram adds some other one's weight, which costs 0.8 points of accuracy on IMDB with
2^20 weights and 0.4 with 2^21 (pairs and triples of words, five random folds).

Each occurrence counts. Binary features, the custom for naive Bayes weights, would need a sort in
the graph and are no better here (92.10 % against 92.13 % in the same folds). In the last twentieth
of a row it counts twice, for there stands the verdict: the area under the risk-coverage curve
falls from 0.0194 to 0.0185 (24,904 reviews, five folds cut between films).

All tokens of a batch are judged as one long line, so that padding costs nothing; sums are of
integers, so that a row's outputs do not depend on its neighbours by as much as a bit.
"""

from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from service.inputs.texts import FIRST_ID, PAD_ID, UNKNOWN_ID

BUCKETS = 2**19
SLOTS = 4  # in a bucket
FINGERPRINTS = 255  # 1..255 in a byte; 0 marks an empty slot
CODES = BUCKETS * FINGERPRINTS
PRIME = 2**31 - 1
MULTIPLIER = 1_299_709_117  # any large number below PRIME; products stay below 2^63
HOLE = PAD_ID  # any word; padding stands between no two words
NO_CODE = -1
NO_SLOT = -1

LARGEST_ROOT = 127
LARGEST_WEIGHT = LARGEST_ROOT**2
"""A slot keeps the signed root of its weight, plus `LARGEST_ROOT`, in a byte: most weights are
small and some large. Kept in proportion, two thirds of them round to zero."""

PLAIN = 1
EMPHASISED = 2
END = 20  # the last twentieth of a row is emphasised
# Added to the evidence of every row, or three words would convince as much as three hundred.
PRIOR_EVIDENCE = 100
# Whole reviews of fewer are rare (6 %), and beginnings of longer ones tell little. Whole reviews
# lose 0.0002 of area under the risk-coverage curve; of their first twenty words alone 11 % are
# answered instead of 52 %, and 4 % of these wrongly instead of 17 % (folds left out).
ENOUGH_TOKENS = 70
COMMON_WORDS = 100  # a fifth of them are half of any English text
FREQUENT_WORDS = 2000  # of which training has seen every pair that is English
SHARES = (
    "unknown tokens",
    "unknown bigrams",
    "unknown trigrams",
    "common tokens",
    "unknown bigrams of frequent words",
    "unknown bigrams of classes",
    "unknown trigrams of classes",
)


class Ngrams(NamedTuple):
    """The tokens of all rows in one line, with the n-grams that end at each."""

    row: NDArray[np.int64]
    """Shape (tokens,), ascending."""

    token: NDArray[np.int64]
    """Shape (tokens,), id in the vocabulary."""

    codes: NDArray[np.int64]
    """Shape (tokens, 6): bigram, trigram, trigram with a hole, then two, three and four classes;
    `NO_CODE` where the row has too few tokens so far."""

    emphasis: NDArray[np.int64]
    """Shape (tokens,): for how many a token and the n-grams that end at it count."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What `NgramMargin` sums: margin = unit * sum / sqrt(PRIOR_EVIDENCE + evidence) + bias.

    The evidence is the emphasis of all tokens, and of all n-grams that have a slot, summed. The
    margin of n tokens, fewer than `ENOUGH_TOKENS`, is multiplied by n / `ENOUGH_TOKENS`.
    """

    tokens: NDArray[np.int32]
    """Shape (ids,), in units; the first is padding's and unused."""

    slots: NDArray[np.uint8]
    """Shape (BUCKETS, 2 * SLOTS): fingerprints, then weights as `fill_slots` writes them."""

    classes: NDArray[np.int32]
    """Shape (ids,), the class of each token, numbered behind the last id."""

    unit: float
    bias: float


def ngrams_of(rows: NDArray[np.int32], classes: NDArray[np.int32]) -> Ngrams:
    """Return the tokens and n-grams of rows.

    Args:
        rows: shape (rows, max_tokens), ids; 0 = padding.
        classes: shape (ids,), as in `Weights`.
    """
    row, position = np.nonzero(rows > PAD_ID)
    token = rows[row, position].astype(np.int64)
    words, of_classes = (_runs(symbols) for symbols in (token, classes[token].astype(np.int64)))
    hole = _joined(_joined(_shifted(token, 2), HOLE), token)
    codes = np.stack([*words[:2], hole, *of_classes], axis=1) % CODES
    one, two, three = (_shifted(row, steps) == row for steps in (1, 2, 3))
    is_inside = np.stack([one, two, two, one, two, three], axis=1)
    lengths = np.count_nonzero(rows > PAD_ID, axis=1)
    is_end = position * END >= lengths[row] * (END - 1)
    emphasis = np.where(is_end, EMPHASISED, PLAIN)
    return Ngrams(row, token, np.where(is_inside, codes, NO_CODE), emphasis)


def _runs(symbols: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return pairs, triples and quadruples of neighbours."""
    pairs = _joined(_shifted(symbols, 1), symbols)
    triples = _joined(_shifted(pairs, 1), symbols)
    return [pairs, triples, _joined(_shifted(triples, 1), symbols)]


def _joined(before: NDArray[np.int64], symbols: NDArray[np.int64] | int) -> NDArray[np.int64]:
    joined: NDArray[np.int64] = (before * MULTIPLIER + symbols) % PRIME
    return joined


def _shifted(line: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    return np.concatenate([np.full(steps, NO_CODE), line])[: len(line)]


def assign_slots(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the slot of each code, bucket * SLOTS + place, or `NO_SLOT` in a full bucket.

    Args:
        codes: distinct, the most useful first: they get the slots.
    """
    buckets = codes % BUCKETS
    order = np.argsort(buckets, kind="stable")
    in_order = buckets[order]
    place = np.empty_like(codes)
    place[order] = np.arange(len(codes)) - np.searchsorted(in_order, in_order)
    return np.where(place < SLOTS, buckets * SLOTS + place, NO_SLOT)


def fill_slots(
    codes: NDArray[np.int64], weights: NDArray[np.float64], slots: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the table of `Weights.slots`.

    Args:
        codes: shape (n,).
        weights: shape (n,), in units, at most `LARGEST_WEIGHT` in size.
        slots: shape (n,), by `assign_slots`, each of them taken.
    """
    fingerprints = np.zeros(BUCKETS * SLOTS, np.uint8)
    roots = np.full(BUCKETS * SLOTS, LARGEST_ROOT, np.uint8)
    fingerprints[slots] = codes // BUCKETS + 1
    roots[slots] = np.rint(np.sign(weights) * np.sqrt(np.abs(weights))) + LARGEST_ROOT
    shape = (BUCKETS, SLOTS)
    return np.concatenate([fingerprints.reshape(shape), roots.reshape(shape)], axis=1)


class NgramMargin(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Token ids -> margin (rows, 1), shares (rows, 7) in [0, 1], lengths (rows,), all float32.

    Takes (rows, max_tokens), int32, 0 = padding. The shares, in the order of `SHARES`, say how
    foreign a row is: words it does not know, and known words in an order that it does not know.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self._tokens = self._constant(weights.tokens, "tokens")
        self._slots = self._constant(weights.slots, "slots")
        self._classes = self._constant(weights.classes, "classes")
        self._unit = weights.unit
        self._bias = weights.bias

    def _constant(self, values: NDArray[np.generic], name: str) -> keras.Variable:
        variable = self.add_weight(
            shape=values.shape, dtype=values.dtype.name, trainable=False, name=name
        )
        variable.assign(values)
        return variable

    def call(
        self, rows: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
        """Return margin, shares and lengths."""
        is_token = ops.cast(rows > PAD_ID, "int32")
        lengths = ops.sum(is_token, axis=1)
        row, position = ops.nonzero(is_token)
        row, position = ops.cast(row, "int32"), ops.cast(position, "int32")
        token = ops.take(ops.reshape(rows, (-1,)), row * ops.shape(rows)[1] + position)
        weight, is_known = self._look_up(row, ops.cast(token, "int64"))
        weight = weight + ops.take(self._tokens, token)
        is_end = position * END >= ops.take(lengths, row) * (END - 1)
        emphasis = ops.where(is_end, EMPHASISED, PLAIN)
        found = 1 + ops.sum(is_known, axis=1)
        columns = [emphasis * weight, emphasis * found, *_novelty_columns(row, token, is_known)]
        total, evidence, *counts = ops.unstack(_sums(columns, lengths), len(columns), axis=1)
        margin = self._unit * _real(total) / ops.sqrt(_real(evidence + PRIOR_EVIDENCE))
        margin = (margin + self._bias) * ops.minimum(_real(lengths) / ENOUGH_TOKENS, 1.0)
        return ops.expand_dims(margin, 1), _shares(counts, lengths), _real(lengths)

    def _look_up(
        self, row: keras.KerasTensor, token: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return the n-grams' weights, (tokens,), and whether each has a slot, (tokens, 6)."""
        kind = ops.cast(ops.take(self._classes, token), "int64")
        # Words and classes in one go: in a graph of small operations every one counts.
        symbols = ops.stack([token, kind], axis=1)
        pairs = _join(_before(symbols, 1), symbols)
        triples = _join(_before(pairs, 1), symbols)
        quadruples = _join(_before(triples, 1), symbols)
        hole = ops.expand_dims(_join(_join(_before(token, 2), HOLE), token), 1)
        words = [pairs[:, :1], triples[:, :1], hole]
        of_classes = [pairs[:, 1:], triples[:, 1:], quadruples[:, 1:]]
        codes = ops.cast(ops.mod(ops.concatenate(words + of_classes, axis=1), CODES), "int32")
        one, two, three = (ops.equal(_before(row, steps), row) for steps in (1, 2, 3))
        is_inside = ops.stack([one, two, two, one, two, three], axis=1)
        # Behind the last fingerprint: a value that no slot holds.
        wanted = ops.where(is_inside, codes // BUCKETS + 1, FINGERPRINTS + 1)
        entries = ops.cast(ops.take(self._slots, ops.mod(codes, BUCKETS), axis=0), "int32")
        is_hit = ops.cast(ops.equal(entries[..., :SLOTS], ops.expand_dims(wanted, 2)), "int32")
        root = is_hit * (entries[..., SLOTS:] - LARGEST_ROOT)
        return ops.sum(root * ops.absolute(root), axis=(1, 2)), ops.sum(is_hit, axis=2)


def _novelty_columns(
    row: keras.KerasTensor, token: keras.KerasTensor, is_known: keras.KerasTensor
) -> list[keras.KerasTensor]:
    """Return what `_shares` counts, each (tokens,), 0 or 1."""
    is_frequent = (token >= FIRST_ID) & (token < FIRST_ID + FREQUENT_WORDS)
    follows_frequent = ops.concatenate([ops.zeros((1,), dtype="bool"), is_frequent[:-1]], axis=0)
    is_pair = is_frequent & follows_frequent & ops.equal(_before(row, 1), row)
    is_pair = ops.cast(is_pair, "int32")
    is_common = (token >= FIRST_ID) & (token < FIRST_ID + COMMON_WORDS)
    is_unknown = ops.equal(token, UNKNOWN_ID)
    return [
        ops.cast(is_unknown, "int32"),
        is_known[:, 0],
        is_known[:, 1],
        is_known[:, 3],
        is_known[:, 4],
        ops.cast(is_common, "int32"),
        is_pair,
        is_pair * is_known[:, 0],
    ]


def _shares(counts: list[keras.KerasTensor], lengths: keras.KerasTensor) -> keras.KerasTensor:
    """Return the shares of `SHARES`, (rows, 7)."""
    unknown, bigrams, trigrams, class_bigrams, class_trigrams, common, pairs, known_pairs = counts
    all_bigrams, all_trigrams = ops.maximum(lengths - 1, 0), ops.maximum(lengths - 2, 0)
    shares = [
        _share(unknown, lengths),
        _share(all_bigrams - bigrams, all_bigrams),
        _share(all_trigrams - trigrams, all_trigrams),
        _share(common, lengths),
        # One of two more: a text of few frequent pairs tells little.
        _share(pairs - known_pairs + 1, pairs + 2),
        _share(all_bigrams - class_bigrams, all_bigrams),
        _share(all_trigrams - class_trigrams, all_trigrams),
    ]
    return ops.stack(shares, axis=1)


def _join(before: keras.KerasTensor, symbols: keras.KerasTensor | int) -> keras.KerasTensor:
    return ops.mod(before * MULTIPLIER + symbols, PRIME)


def _before(line: keras.KerasTensor, steps: int) -> keras.KerasTensor:
    nothing = ops.full((steps, *line.shape[1:]), NO_CODE, dtype=line.dtype)
    return ops.concatenate([nothing, line], axis=0)[: ops.shape(line)[0]]


def _sums(columns: list[keras.KerasTensor], lengths: keras.KerasTensor) -> keras.KerasTensor:
    """Return the sums over the tokens of each row, (rows, columns), from columns of (tokens,)."""
    # int64: the line of a large batch is long.
    table = ops.cast(ops.stack(columns, axis=1), "int64")
    nothing = ops.zeros((1, len(columns)), dtype="int64")
    running = ops.concatenate([nothing, ops.cumsum(table, axis=0)], axis=0)
    ends = ops.cumsum(lengths)
    sums = ops.take(running, ends, axis=0) - ops.take(running, ends - lengths, axis=0)
    return ops.cast(sums, "int32")


def _share(part: keras.KerasTensor, whole: keras.KerasTensor) -> keras.KerasTensor:
    return _real(part) / _real(ops.maximum(whole, 1))


def _real(integers: keras.KerasTensor) -> keras.KerasTensor:
    return ops.cast(integers, "float32")
