"""Words that keep the same company share a class: found in texts alone, no label is looked at."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans
from sklearn.utils.extmath import randomized_svd

from service.inputs.texts import FIRST_ID, PAD_ID, UNKNOWN_ID

WINDOW = 5  # tokens to either side; those d away count 1/d
CONTEXT_POWER = 0.75  # below 1: rare company counts less
DIMENSIONS = 64
OWN_CLASS = 300  # most widespread words, those of grammar: each is a class of its own
CLASSES = 250  # of the other words; from 250, 500 and 1,500 by folds between films


def word_classes(rows: NDArray[np.int32], ids: int, seed: int) -> NDArray[np.int32]:
    """Return the class of each id, shape (ids,), numbered behind the last id.

    k-means on the leading singular vectors of the positive pointwise mutual information of words
    near each other: Levy, Goldberg and Dagan 2015, "Improving Distributional Similarity".

    Args:
        rows: shape (rows, max_tokens), token ids, the most widespread first; 0 = padding.
        ids: how many can occur, padding included.
        seed: of the random projection and the first centres.
    """
    classes = np.arange(ids, 2 * ids, dtype=np.int32)
    first = FIRST_ID + OWN_CLASS
    if ids - first > CLASSES:
        information = _information(_company(rows, ids))
        left, sizes, _ = randomized_svd(information, DIMENSIONS, n_iter=2, random_state=seed)
        vectors = left[first:] * np.sqrt(sizes)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        means = MiniBatchKMeans(
            CLASSES, random_state=seed, n_init=1, max_iter=30, batch_size=4096
        ).fit(vectors)
        classes[first:] = ids + first + means.labels_
    return classes


def _company(rows: NDArray[np.int32], ids: int) -> sparse.csr_matrix:
    """Return how often each two words stand near each other, shape (ids, ids), symmetric."""
    row, position = np.nonzero(rows > PAD_ID)
    token = rows[row, position]
    counts = sparse.csr_matrix((ids, ids), dtype=np.float32)
    for distance in range(1, WINDOW + 1):
        before, after = token[:-distance], token[distance:]
        is_inside = row[distance:] == row[:-distance]
        is_inside &= (before != UNKNOWN_ID) & (after != UNKNOWN_ID)
        near = np.full(np.count_nonzero(is_inside), 1 / distance, np.float32)
        pairs = (before[is_inside], after[is_inside])
        counts += sparse.csr_matrix((near, pairs), shape=(ids, ids))
    return counts + counts.T


def _information(company: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the pointwise mutual information where it is positive, 0 elsewhere."""
    pairs = company.tocoo()
    word = company.sum(axis=1).A1
    context = word**CONTEXT_POWER
    expected = word[pairs.row] * context[pairs.col] / context.sum()
    information = np.log(pairs.data / expected)
    is_positive = information > 0
    where = (pairs.row[is_positive], pairs.col[is_positive])
    return sparse.csr_matrix(
        (information[is_positive].astype(np.float32), where), shape=company.shape
    )
