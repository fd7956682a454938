"""Data files: local if they are there, else downloaded from their home; always checked by sha256.

Everything returned is as the file has it: nothing is scaled, shuffled or dropped here.
"""

import csv
import gzip
import hashlib
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm.auto import tqdm

from training.errors import DataCorrupt, DataMissing


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a data set, by its content."""

    name: str
    """Path below the data folder, `/` between folders."""

    sha256: str
    addresses: tuple[str, ...]
    """Where it can be had, the data set's home first."""


_WINE_HOME = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/"
WINE_RED = DataFile(
    "wine/winequality-red.csv",
    "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
    (f"{_WINE_HOME}winequality-red.csv",),
)
WINE_WHITE = DataFile(
    "wine/winequality-white.csv",
    "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
    (f"{_WINE_HOME}winequality-white.csv",),
)

IRIS = DataFile(
    "iris/iris.csv",
    "9cc1c345c71bcc9b486b74cbf6063fa66f4bb5e0f603a4b3c3471ec2e5e8e355",
    ("https://raw.githubusercontent.com/mwaskom/seaborn-data/master/iris.csv",),
)
"""Fisher's own table; UCI's `iris.data` differs from it in two rows."""

TITANIC = DataFile(
    "titanic/train.csv",
    "7d118fef8b6ccf7f81111877bc388536f7b1e498a655e3d649d19aaa010e9f6f",
    ("https://www.kaggle.com/competitions/titanic/download/train.csv",),
)
"""Kaggle asks for an account; then the file goes into the data folder by hand."""


class PictureFiles(NamedTuple):
    """The four files of a data set in the format of MNIST."""

    train_images: DataFile
    train_labels: DataFile
    test_images: DataFile
    test_labels: DataFile


def _picture_files(folder: str, homes: Sequence[str], sha256: Sequence[str]) -> PictureFiles:
    names = [
        f"{part}-{kind}-ubyte.gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    return PictureFiles(
        *(
            DataFile(f"{folder}/{name}", digest, tuple(home + name for home in homes))
            for name, digest in zip(names, sha256, strict=True)
        )
    )


MNIST = _picture_files(
    "mnist",
    # The home page has moved and vanished before; the second is a copy of the same bytes.
    ("http://yann.lecun.com/exdb/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
FASHION_MNIST = _picture_files(
    "fashion_mnist",
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)

IMDB = DataFile(
    "imdb/reviews.parquet",
    "725f08f7a093b39af8f9f8133ba56b4ff319d864d4ca8c7e54d3b5c23895fed5",
    ("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
)
"""The table is ours, the address is that of the official archive it is made from."""

IMDB_ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
IMDB_CONTENT_SHA256 = "89d56a7f0384217cdc7e33bc6b65ad1cf714794d107d34e29487ed563f25e10a"
"""Of the rows; the bytes of a Parquet file differ from one writer to the next."""


def fetch(folder: Path, file: DataFile) -> Path:
    """Return the path of a data file below `folder`, downloaded if it is not there.

    Raises:
        DataMissing: if it is not there and no address answers; names file, address and folder.
        DataCorrupt: if its content is not the pinned one.
    """
    path = folder / file.name
    if not path.exists():
        _download(path, file.addresses, f"sha256:{file.sha256}")
    found = sha256_of(path)
    if found != file.sha256:
        raise DataCorrupt(
            f"{path}: sha256 is {found}, expected {file.sha256}; "
            f"delete it, it will be downloaded from {file.addresses[0]}"
        )
    return path


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(path: Path, addresses: Sequence[str], known_hash: str) -> None:
    reason: Exception | None = None
    for address in addresses:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pooch.retrieve(address, known_hash, fname=path.name, path=path.parent, progressbar=True)
        except (OSError, ValueError) as error:
            # OSError: no network, refused, or a folder that cannot be written. ValueError: what
            # came is another file, such as an error page.
            reason = error
        else:
            return
    raise DataMissing(
        f"{path.name} is missing and could not be downloaded from {' or '.join(addresses)} "
        f"({type(reason).__name__}); get it there and put it into {path.parent}"
    ) from reason


class WineTable(NamedTuple):
    """One of the two wine files."""

    columns: tuple[str, ...]
    """Names as in the header; the last is `quality`."""

    rows: NDArray[np.float64]
    """Shape (rows, columns)."""


def read_wine(path: Path) -> WineTable:
    """Return the table of one of the two wine files, in its order."""
    with path.open(encoding="utf-8", newline="") as stream:
        lines = csv.reader(stream, delimiter=";")
        columns = tuple(next(lines))
        rows = np.array([[float(value) for value in line] for line in lines])
    return WineTable(columns, rows)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of a gzip'd IDX file of bytes (LeCun's format).

    Raises:
        DataCorrupt: if the file is of another format or its length is not what its head says.
    """
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\x00\x00\x08" or len(content) < 4:
        raise DataCorrupt(f"{path}: no IDX file of unsigned bytes")
    rank = content[3]
    shape = tuple(np.frombuffer(content, ">i4", count=rank, offset=4).tolist())
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape)):
        raise DataCorrupt(f"{path}: holds {values.size} values, its head says {shape}")
    return values.reshape(shape)


class Pictures(NamedTuple):
    """A data set in the format of MNIST, as the files have it."""

    train_images: NDArray[np.uint8]
    """Shape (rows, height, width)."""

    train_targets: NDArray[np.int64]
    """Shape (rows,)."""

    test_images: NDArray[np.uint8]
    test_targets: NDArray[np.int64]


def load_pictures(folder: Path, files: PictureFiles) -> Pictures:
    """Return images and targets of both official splits, in their order."""
    arrays = [read_idx(fetch(folder, file)) for file in files]
    return Pictures(arrays[0], arrays[1].astype(np.int64), arrays[2], arrays[3].astype(np.int64))


class Reviews(NamedTuple):
    """The labelled reviews of one official split: the negative ones, then the positive ones."""

    texts: list[str]
    targets: NDArray[np.int64]
    """Shape (rows,), 0 negative, 1 positive."""


def load_reviews(folder: Path) -> tuple[Reviews, Reviews]:
    """Return the official train and test splits of IMDB, as the archive has them.

    Raises:
        DataMissing: if neither the table nor the archive can be had.
        DataCorrupt: if the rows are not the official ones.
    """
    path = folder / IMDB.name
    if not path.exists():
        archive = path.parent / IMDB.addresses[0].rpartition("/")[2]
        if not archive.exists():
            _download(archive, IMDB.addresses, f"md5:{IMDB_ARCHIVE_MD5}")
        pack_reviews(archive, path)
    table = pq.read_table(path, columns=["split", "label", "text"])
    found = content_sha256(table)
    if found != IMDB_CONTENT_SHA256:
        raise DataCorrupt(f"{path}: the rows are not those of {IMDB.addresses[0]}; delete it")
    return _reviews_of(table, "train"), _reviews_of(table, "test")


def pack_reviews(archive: Path, path: Path) -> None:
    """Write the reviews of the official archive as one table.

    Rows: train/neg, train/pos, test/neg, test/pos, each by the number in the file name.
    """
    found: list[tuple[int, int, int, str]] = []
    with tarfile.open(archive) as stream:
        for member in tqdm(stream, desc=f"reading {archive.name}", unit=" files"):
            place = re.search(r"(train|test)/(neg|pos)/(\d+)_\d+\.txt$", member.name)
            content = stream.extractfile(member) if place else None
            if place and content:
                order = (place[1] == "test", place[2] == "pos", int(place[3]))
                found.append((*order, content.read().decode()))
    found.sort()
    table = pa.table(
        {
            "split": ["test" if is_test else "train" for is_test, *_ in found],
            "label": pa.array([int(label) for _, label, *_ in found], pa.int8()),
            "text": [text for *_, text in found],
        }
    )
    unfinished = path.with_suffix(".part")
    pq.write_table(table, unfinished, compression="zstd")
    unfinished.replace(path)


def content_sha256(table: pa.Table) -> str:
    """Return the sha256 of the reviews of a table, whoever wrote the file."""
    digest = hashlib.sha256()
    for split, label, text in _review_rows(table):
        digest.update(f"{split}\x1f{label}\x1f{text}\x1e".encode())
    return digest.hexdigest()


def _review_rows(table: pa.Table) -> Iterator[tuple[str, int, str]]:
    columns = (table[name].to_pylist() for name in ("split", "label", "text"))
    return zip(*columns, strict=True)


def _reviews_of(table: pa.Table, split: str) -> Reviews:
    rows = [(label, text) for place, label, text in _review_rows(table) if place == split]
    targets = np.array([label for label, _ in rows], np.int64)
    return Reviews([text for _, text in rows], targets)
