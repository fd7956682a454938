"""Is a film review positive or negative: regression on n-grams of words and of word classes.

Expected: accuracy 92.52 % on the official test split without its 123 copies (24,877 rows; the
network of the lectures 88.94 %), 88.1 % answered with 4.1 % of errors; shuffled reviews 0.2 %, code
0.1 %, random words 0 answered; 334 s on 2 busy cores (AMD EPYC), seed 2011.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import sklearn
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from tqdm.auto import tqdm

from service.bundle.manifest import TextInput
from service.inputs.texts import FIRST_ID, PAD_ID, UNKNOWN_ID, Tokenizer
from training import fitting, ngrams
from training.datasets import IMDB, IMDB_CONTENT_SHA256, Reviews, load_reviews
from training.layers import serving_model, two_logits
from training.lexical import LexicalDistance, Profile, fit_profile
from training.recipe import (
    Curves,
    Data,
    Fitted,
    OutOfFold,
    Recipe,
    Scores,
    Split,
    Splits,
    Workbench,
)
from training.word_classes import word_classes

SEED = 2011  # the year of the data set
LABELS = ("negative", "positive")

# --- Data -------------------------------------------------------------------------------------

# The official halves share no film, so folds of the first one must not either: drawn review by
# review, they score a point too well (92.1 % against 91.2 %). The archive does
# not name films, but the reviews of one stand side by side, up to 30 with each label: the positive
# ones in one line, the first 3,960 negative ones in the same order, the others of further films.
# Rare names that both labels share show where: review of each label -> the same film.
SAME_FILM = {
    "positive": (0, 1381, 2841, 4293, 5926, 7434, 8831, 9766, 10385, 11410, 12161, 12500),
    "negative": (0, 394, 884, 1250, 1775, 2253, 2693, 2941, 3274, 3633, 3847, 3960),
}
LABEL_ROWS = 12_500  # official training reviews of each label
RUNS = 50  # whole runs of neighbours go to one fold
FOLDS = 10  # of five, each model would have a fifth fewer rows than the served one
MAX_TOKENS = 1_024  # all of 99.5 % of the reviews; padding costs nothing in this graph
MIN_TEXTS = 3  # training reviews; a word of fewer is unknown
# Words, and the two marks that tell something alone. Not the `br` of `<br />`, so that a review
# with line breaks reads the same. `++` gives nothing back: `br` must not shrink to `b`.
TOKEN_PATTERN = r"\b\w++(?! />)|[!?]"  # noqa: S105  # tokens of language
VOCABULARY = "vocabulary.txt"

NOTE = """Large Movie Review Dataset v1.0 (Maas et al. 2011): 25,000 reviews to train and 25,000 to
test, half of each positive; reviews of five or six stars out of ten do not occur. The model is
fitted on all distinct reviews of the first half; 99 of the same words as another count once. What
decides, from calibration to thresholds, comes from ten folds of the same reviews: each is scored by
a model fitted on the other nine. The halves share no film, and neither do, but for a few at the
seams, the folds: whole runs of neighbours in the archive, where reviews of one film stand side by
side, go to one fold. For a fold, words that the others do not know are unknown; only the classes of
words, which no label has touched, come from all of the first half. 123 test reviews that stand word
for word in the first half are left out of the test: 24,877 remain."""


def load(folder: Path) -> Data:
    """Return the reviews as rows of token ids, with the vocabulary of the training rows."""
    train, official_test = load_reviews(folder)
    test = unknown_to(train, official_test)
    vocabulary = vocabulary_of(dict.fromkeys(train.texts))
    declared = TextInput(
        vocabulary=VOCABULARY, max_tokens=MAX_TOKENS, lowercase=True, token_pattern=TOKEN_PATTERN
    )
    tokenizer = Tokenizer(declared, vocabulary)
    return Data(
        splits=Splits(train=_rows(train, tokenizer, "train"), test=_rows(test, tokenizer, "test")),
        input=declared,
        # Of the rows: the bytes of the file differ from one writer to the next.
        sha256={f"{IMDB.name} (rows)": IMDB_CONTENT_SHA256},
        mixture="distinct English film reviews of IMDB, half of them positive, none lukewarm",
        outliers=outliers(test.texts, vocabulary, tokenizer),
        files={VOCABULARY: ("\n".join(vocabulary) + "\n").encode()},
        note=NOTE,
    )


OUTLIER_ROWS = 1000  # of each family
SALAD_WORDS = 200  # about as many as a review has
LETTERS = "abcdefghijklmnopqrstuvwxyz" + 5 * " "  # blanks as often as in English
CODE_CHARACTERS = 1200


def outliers(
    texts: Sequence[str], vocabulary: Sequence[str], tokenizer: Tokenizer
) -> dict[str, NDArray[np.int32]]:
    """Return token ids of texts that review nothing, by family; made of test reviews or anew."""
    rng = np.random.default_rng(SEED)
    chosen = [texts[index] for index in rng.choice(len(texts), OUTLIER_ROWS)]
    random = range(OUTLIER_ROWS)
    families = {
        "reviews with their words shuffled": [
            " ".join(rng.permutation(text.split()).tolist()) for text in chosen
        ],
        "random words": [" ".join(rng.choice(vocabulary, SALAD_WORDS)) for _ in random],
        "random frequent words": [
            " ".join(rng.choice(vocabulary[: ngrams.FREQUENT_WORDS], SALAD_WORDS)) for _ in random
        ],
        "random letters": ["".join(rng.choice(list(LETTERS), CODE_CHARACTERS)) for _ in random],
        "Python code (scikit-learn)": source_code()[:OUTLIER_ROWS],
    }
    return {
        name: np.stack([tokenizer.ids(text) for text in made]) for name, made in families.items()
    }


def source_code() -> list[str]:
    """Return pieces of the source of an installed package, in the order of its files."""
    files = sorted(Path(sklearn.__path__[0]).rglob("*.py"))
    sources = [file.read_text(encoding="utf-8") for file in files]
    return [
        source[start : start + CODE_CHARACTERS]
        for source in sources
        for start in range(0, len(source) - CODE_CHARACTERS, 10 * CODE_CHARACTERS)
    ]


def film_places() -> NDArray[np.float64]:
    """Return the place of each official training review in the line of films, in [0, 1)."""
    number = np.arange(LABEL_ROWS)
    both = SAME_FILM["negative"][-1]
    shared = np.interp(number[:both], SAME_FILM["negative"], SAME_FILM["positive"]) / LABEL_ROWS
    others = np.arange(LABEL_ROWS - both) / (LABEL_ROWS - both)
    return np.concatenate([shared, others, number / LABEL_ROWS])


def folds_of(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the fold of each review, shape (reviews,); whole runs of neighbours share one.

    Args:
        places: shape (reviews,), in [0, 1); those of one film are next to each other.
    """
    fold_by_run = np.empty(RUNS, np.int64)
    fold_by_run[np.random.default_rng(SEED).permutation(RUNS)] = np.arange(RUNS) % FOLDS
    folds: NDArray[np.int64] = fold_by_run[(places * RUNS).astype(int)]
    return folds


def unknown_to(train: Reviews, reviews: Reviews) -> Reviews:
    """Return the reviews whose text does not stand in `train`, word for word."""
    known = set(train.texts)
    fresh = [index for index, text in enumerate(reviews.texts) if text not in known]
    return Reviews([reviews.texts[index] for index in fresh], reviews.targets[fresh])


def vocabulary_of(texts: Iterable[str]) -> list[str]:
    """Return the tokens that occur in at least `MIN_TEXTS` texts, the most widespread first."""
    find = re.compile(TOKEN_PATTERN).findall
    texts_by_token: Counter[str] = Counter()
    for text in tqdm(texts, desc="vocabulary", unit=" texts"):
        texts_by_token.update(set(find(text.lower())))
    kept = [(-count, token) for token, count in texts_by_token.items() if count >= MIN_TEXTS]
    return [token for _, token in sorted(kept)]


def _rows(reviews: Reviews, tokenizer: Tokenizer, name: str) -> Split:
    rows = np.zeros((len(reviews.texts), MAX_TOKENS), np.int32)
    for row, text in zip(rows, tqdm(reviews.texts, desc=name, unit=" texts"), strict=True):
        row[:] = tokenizer.ids(text)
    return Split(rows, reviews.targets)


# --- Network ----------------------------------------------------------------------------------

# Some labels are wrong however strong the words are, so log-odds grow slower than the margin. Bent
# so, the calibration error of folds left out falls from 0.52 to 0.27 % (the floor is 0.39 %).
KNEE = 2.0  # margins well below are left as they are
BEND = 0.4  # large margins grow with the power 1 - BEND
LECTURE_WORDS = 10_000  # the most widespread ones; the others count as unknown


def ngram_graph(weights: ngrams.Weights) -> keras.Model:
    """Return the fitted weights as a graph on token ids: bent margins, shares, lengths."""
    rows = keras.Input((MAX_TOKENS,), dtype="int32")
    margins, shares, lengths = ngrams.NgramMargin(weights)(rows)
    bent = margins * ops.power(1 + ops.square(margins / KNEE), -BEND / 2)
    return keras.Model(rows, {"margins": bent, "shares": shares, "lengths": lengths})


def served_graph(graph: keras.Model, profile: Profile) -> keras.Model:
    """Return the graph with its margins become logits and its shares a novelty score."""
    outputs = graph.output
    distance = LexicalDistance(profile)(outputs["shares"], outputs["lengths"])
    logits = two_logits(outputs["margins"])
    return keras.Model(graph.input, {"logits": logits, "novelty_scores": distance})


class MultiHot(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Token ids (rows, max_tokens) -> 1 where a word occurs, else 0: (rows, words), float32.

    The first column stands for all words beyond the `words` - 1 most widespread.
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        self._columns = words + UNKNOWN_ID

    def call(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        """Write a 1 for each token; padding falls into a column that is cut off."""
        column = ops.where(rows < self._columns, rows, UNKNOWN_ID)
        row = ops.expand_dims(ops.arange(ops.shape(rows)[0], dtype="int32"), 1)
        places = ops.reshape(ops.stack([row + ops.zeros_like(rows), column], axis=2), (-1, 2))
        empty = ops.zeros((ops.shape(rows)[0], self._columns))
        ones = ops.ones((ops.shape(places)[0],))
        return ops.scatter_update(empty, places, ones)[:, PAD_ID + 1 :]


def lecture_network() -> tuple[keras.Model, keras.Model]:
    """Return the network of the lectures, 16-16-1: (compiled for fitting, for serving)."""
    rows = keras.Input((MAX_TOKENS,), dtype="int32")
    hidden = keras.layers.Dense(16, activation="relu")(MultiHot(LECTURE_WORDS)(rows))
    hidden = keras.layers.Dense(16, activation="relu")(hidden)
    margin = keras.layers.Dense(1)(hidden)
    network = keras.Model(rows, margin)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    network.compile("rmsprop", loss, metrics=["accuracy"], jit_compile=False)
    return network, serving_model(rows, two_logits(margin))


# --- Training ---------------------------------------------------------------------------------

# From five folds of the official training half, cut between films.
NEIGHBOURS = 8  # reviews; what one film's reviews say again and again counts once: names, mostly
LEAST_PLACES = 3  # groups of neighbours; an n-gram of fewer gets no weight
SMOOTHING = 2.0  # groups added to each label's count of an n-gram
RATIO_POWER = 0.8  # below 1: doubtful n-grams keep some say
RARITY_POWER = 0.5
COST = 10.0  # inverse of the L2 penalty
TOLERANCE = 1e-3  # of the solver
CURVE_SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)  # of all folds but one, for the learning curve

LEAST_TOKENS = 5  # of the cut texts that tell how short ones fare
BATCH_ROWS = 512  # to predict

LECTURE_EPOCHS = 4  # more only learn by heart
LECTURE_BATCH_ROWS = 512


def fit_weights(train: Split, classes: NDArray[np.int32]) -> tuple[ngrams.Weights, int]:
    """Return the weights of all tokens and n-grams, and how many n-grams have one.

    Args:
        train: rows of token ids.
        classes: shape (ids,), the class of each token.
    """
    tokens = len(classes)
    line = ngrams.ngrams_of(np.asarray(train.rows, np.int32), classes)
    one_column = line.token[:, np.newaxis]
    token_counts = _counts(line, one_column, np.ones_like(one_column, bool), tokens)
    codes, ngram_counts = _widespread(line)
    slots = ngrams.assign_slots(codes)
    has_slot = slots != ngrams.NO_SLOT
    counts = sparse.hstack([token_counts, ngram_counts[:, has_slot]], format="csr")
    weights, bias = _regress(counts, train.targets)
    unit = float(np.abs(weights).max()) / ngrams.LARGEST_WEIGHT
    units = weights / unit
    table = ngrams.fill_slots(codes[has_slot], units[tokens:], slots[has_slot])
    by_token = np.rint(units[:tokens]).astype(np.int32)
    return ngrams.Weights(by_token, table, classes, unit, bias), int(has_slot.sum())


def _widespread(line: ngrams.Ngrams) -> tuple[NDArray[np.int64], sparse.csr_matrix]:
    """Return the codes that occur in enough places, the most widespread first, and their counts."""
    is_code = line.codes != ngrams.NO_CODE
    codes, found = np.unique(line.codes[is_code], return_inverse=True)
    columns = np.zeros_like(line.codes)
    columns[is_code] = found
    counts = _counts(line, columns, is_code, len(codes))
    places = _places(counts)
    order = np.argsort(-places, kind="stable")
    order = order[places[order] >= LEAST_PLACES]
    return codes[order], counts[:, order]


def _places(counts: sparse.csr_matrix) -> NDArray[np.int64]:
    """Return in how many groups of neighbouring rows each column occurs."""
    rows = np.arange(counts.shape[0])
    group = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows // NEIGHBOURS, rows)))
    return np.bincount((group @ counts).indices, minlength=counts.shape[1])


def _counts(
    line: ngrams.Ngrams, columns: NDArray[np.int64], mask: NDArray[np.bool_], width: int
) -> sparse.csr_matrix:
    """Return how often each column occurs in each row, by emphasis.

    Args:
        line: tokens.
        columns: shape (tokens, n), what occurs at each token.
        mask: shape (tokens, n), where something does.
        width: number of columns.
    """
    row, emphasis = (
        np.broadcast_to(part[:, np.newaxis], mask.shape)[mask] for part in (line.row, line.emphasis)
    )
    shape = (int(line.row[-1]) + 1, width)
    # What comes twice at one place is added up.
    return sparse.csr_matrix((emphasis.astype(np.float32), (row, columns[mask])), shape=shape)


def _regress(
    counts: sparse.csr_matrix, targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Return the weight of each feature and the bias; counts has shape (rows, features).

    Logistic regression on counts times naive Bayes log-ratio (Wang and Manning 2012) times
    inverse frequency, each row divided by the root of its evidence. The ratio steers the penalty:
    what leans to neither label stays near zero.
    """
    negative, positive = (_places(counts[targets == target]) for target in range(len(LABELS)))
    ratio = np.log((positive + SMOOTHING) / (negative + SMOOTHING))
    rarity = 1 + np.log((len(targets) / NEIGHBOURS + 1) / (positive + negative + 1))
    scale = np.sign(ratio) * np.abs(ratio) ** RATIO_POWER * rarity**RARITY_POWER
    evidence = counts.sum(axis=1).A1 + ngrams.PRIOR_EVIDENCE
    rows = sparse.diags(1 / np.sqrt(evidence)) @ counts @ sparse.diags(scale)
    machine = LogisticRegression(
        C=COST, solver="liblinear", dual=True, tol=TOLERANCE, max_iter=500, random_state=SEED
    ).fit(rows, targets)
    return scale * machine.coef_[0], float(machine.intercept_[0])


def fit(data: Data, workbench: Workbench) -> Fitted:  # noqa: ARG001  # minutes: no checkpoint
    """Fit on the complement of each fold, then on everything."""
    train, folds = distinct_reviews(data.splits.train)
    rows = np.asarray(train.rows, np.int32)
    ids = FIRST_ID + len(data.files[VOCABULARY].splitlines())
    classes = word_classes(rows, ids, SEED)
    whole, cut = left_out(train, folds, classes, (rows, cut_to_any_length(rows)))
    profile = fit_profile(whole.shares, cut.shares, cut.lengths)
    scores = Scores(
        np.stack([-whole.margins / 2, whole.margins / 2], axis=1),
        np.asarray(LexicalDistance(profile)(whole.shares, whole.lengths)),
        train.targets,
    )
    weights, kept = fit_weights(train, classes)
    return Fitted(
        model=served_graph(ngram_graph(weights), profile),
        curves=learning_curve(train, folds, classes),
        out_of_fold=OutOfFold(scores, folds),
        facts={"tokens": f"{ids - FIRST_ID:,}", "n-grams": f"{kept:,}"},
    )


def distinct_reviews(train: Split) -> tuple[Split, NDArray[np.int64]]:
    """Return the official training rows, each once, and their folds."""
    first: dict[bytes, int] = {}
    for index, row in enumerate(train.rows):
        first.setdefault(row.tobytes(), index)
    chosen = np.array(list(first.values()))
    return Split(train.rows[chosen], train.targets[chosen]), folds_of(film_places())[chosen]


def cut_to_any_length(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the beginnings of the rows, short ones as often as long ones."""
    lengths = np.maximum(np.count_nonzero(rows > PAD_ID, axis=1), LEAST_TOKENS)
    rng = np.random.default_rng(SEED)
    cuts = np.exp(rng.uniform(np.log(LEAST_TOKENS), np.log(lengths)))
    return np.where(np.arange(rows.shape[1]) < cuts[:, np.newaxis], rows, PAD_ID).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the n-grams make of rows."""

    margins: NDArray[np.float32]
    """Shape (rows,)."""

    shares: NDArray[np.float32]
    """Shape (rows, shares)."""

    lengths: NDArray[np.float32]
    """Shape (rows,), tokens."""


def left_out(
    train: Split,
    folds: NDArray[np.int64],
    classes: NDArray[np.int32],
    versions: Sequence[NDArray[np.int32]],
) -> list[Heard]:
    """Return what is made of each version of the training rows by models of the other folds.

    Args:
        train: shape (rows, max_tokens).
        folds: shape (rows,).
        classes: shape (ids,).
        versions: each shape (rows, max_tokens): the training rows, or pieces of them.
    """
    heard = [_nothing_heard(len(folds)) for _ in versions]
    for fold in tqdm(range(FOLDS), desc="folds"):
        inside = folds == fold
        others = Split(train.rows[~inside], train.targets[~inside])
        known = known_ids(others.rows, len(classes))
        weights, _ = fit_weights(replace(others, rows=_known(others.rows, known)), classes)
        graph = ngram_graph(weights)
        for whole, rows in zip(heard, versions, strict=True):
            part = hear(graph, _known(rows[inside], known))
            whole.margins[inside] = part.margins
            whole.shares[inside] = part.shares
            whole.lengths[inside] = part.lengths
    return heard


def _nothing_heard(rows: int) -> Heard:
    shares = np.zeros((rows, len(ngrams.SHARES)), np.float32)
    return Heard(np.zeros(rows, np.float32), shares, np.zeros(rows, np.float32))


def hear(graph: keras.Model, rows: NDArray[np.generic]) -> Heard:
    """Return the outputs of `ngram_graph` for rows of token ids."""
    outputs = graph.predict(rows, batch_size=BATCH_ROWS, verbose=0)
    return Heard(outputs["margins"][:, 0], outputs["shares"], outputs["lengths"])


def known_ids(rows: NDArray[np.generic], ids: int) -> NDArray[np.bool_]:
    """Return whether each id, (ids,), would be in a vocabulary of these rows alone."""
    row = np.broadcast_to(np.arange(len(rows))[:, np.newaxis], rows.shape)
    occurs = sparse.csr_matrix((np.ones(rows.size, bool), (row.ravel(), rows.ravel())))
    texts = np.bincount(occurs.indices, minlength=ids)
    texts[[PAD_ID, UNKNOWN_ID]] = MIN_TEXTS
    return texts >= MIN_TEXTS


def _known(rows: NDArray[np.generic], known: NDArray[np.bool_]) -> NDArray[np.int32]:
    return np.where(known[rows], rows, UNKNOWN_ID).astype(np.int32)


def learning_curve(train: Split, folds: NDArray[np.int64], classes: NDArray[np.int32]) -> Curves:
    """Return accuracy over the number of training rows, on the first fold left out."""
    inside = folds == 0
    others = np.flatnonzero(~inside)
    order = np.random.default_rng(SEED).permutation(others)
    unseen = Split(train.rows[inside], train.targets[inside])
    steps: list[float] = []
    accuracies: dict[str, list[float]] = {"train": [], "fold left out": []}
    for part in tqdm(CURVE_SHARES, desc="learning curve"):
        chosen = np.sort(order[: round(part * len(order))])  # neighbours stay neighbours
        seen = Split(train.rows[chosen], train.targets[chosen])
        graph = ngram_graph(fit_weights(seen, classes)[0])
        steps.append(float(len(chosen)))
        for split, values in zip((seen, unseen), accuracies.values(), strict=True):
            is_positive = hear(graph, split.rows).margins > 0
            values.append(float((is_positive == split.targets).mean()))
    series = {name: tuple(values) for name, values in accuracies.items()}
    return Curves(axis="training rows", steps=tuple(steps), accuracy=series)


def lecture_batches(train: Split) -> Callable[[int], tf.data.Dataset]:
    """Return epoch -> batches, in another order each epoch."""

    def batches(epoch: int) -> tf.data.Dataset:
        order = np.random.default_rng((SEED, epoch)).permutation(len(train.targets))
        whole = tf.data.Dataset.from_tensor_slices((train.rows[order], train.targets[order]))
        return whole.batch(LECTURE_BATCH_ROWS)

    return batches


def fit_lecture(data: Data, workbench: Workbench) -> Fitted:
    """Fit the network of the lectures on the complement of each fold, then on everything."""
    train, folds = distinct_reviews(data.splits.train)
    logits = np.empty((len(folds), len(LABELS)), np.float32)
    curves: Curves | None = None
    for fold in range(FOLDS):
        inside = folds == fold
        own = Split(train.rows[inside], train.targets[inside])
        others = Split(train.rows[~inside], train.targets[~inside])
        bench = Workbench(workbench.folder / f"fold_{fold}")
        model, fold_curves = _fit_perceptron(others, own, bench)
        curves = curves or fold_curves
        outputs = model.predict(own.rows, batch_size=BATCH_ROWS, verbose=0)
        logits[inside] = outputs["logits"]
    model, _ = _fit_perceptron(train, None, Workbench(workbench.folder / "all"))
    energy = -np.logaddexp.reduce(logits, axis=1, keepdims=True)
    out_of_fold = OutOfFold(Scores(logits, energy, train.targets), folds)
    return Fitted(model=model, curves=curves, out_of_fold=out_of_fold)


def _fit_perceptron(
    train: Split, validation: Split | None, workbench: Workbench
) -> tuple[keras.Model, Curves]:
    workbench.folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(SEED)
    network, serving = lecture_network()
    batches = lecture_batches(train)
    curves = fitting.fit_epochs(network, batches, validation, LECTURE_EPOCHS, workbench)
    return serving, curves


# --- Recipe -----------------------------------------------------------------------------------

RECIPE = Recipe(
    name="imdb",
    network="naive Bayes weighted logistic regression on n-grams of words and word classes",
    description="Tells negative from positive English film reviews.",
    labels=LABELS,
    seed=SEED,
    load=load,
    fit=fit,
    max_error=0.05,
    calibration="power",
    novelty_names=("lexical_distance",),
    novelty_alpha=0.01,
    limits=(
        "The reviews are English, of films, from before 2011; ratings of 5 and 6 did not occur.",
        "About 3 % of the official labels are wrong (Northcutt et al. 2021, an estimate).",
        "Of a text only the first 1,024 words are read.",
        "The guarantee is cross-fitted (rows that certify also fitted other folds): approximate.",
        "It is about whole reviews: cut after 50 words 58 % are answered, 9 % of these wrongly.",
        "Of reviews cut after 20 words 14 % are answered by default, 4 % of these wrongly.",
        "The folds were harder than the test: it is right somewhat more often than it says.",
        "Order counts within four words only: irony, quotations and plots mislead.",
        "What is written like a film review is taken for one: of a book, a song, a restaurant.",
    ),
)

LECTURE = (
    replace(
        RECIPE,
        network="16-16-1 perceptron on which of 10,000 words occur",
        fit=fit_lecture,
        novelty_names=("energy",),
        novelty_alpha=0.0,
    ),
)
