"""Data files: checked, and if they are missing the error says what to do."""

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from training.datasets import (
    FASHION_MNIST,
    IMDB,
    MNIST,
    WINE_RED,
    DataFile,
    content_sha256,
    fetch,
    load_reviews,
    pack_reviews,
    read_idx,
    read_wine,
)
from training.errors import DataCorrupt, DataMissing

CONTENT = b"some data\n"
NOWHERE = "http://127.0.0.1:9/some.csv"  # the port "discard": nobody listens
FILE = DataFile("some/some.csv", hashlib.sha256(CONTENT).hexdigest(), (NOWHERE,))


@pytest.fixture
def served_address(tmp_path: Path) -> Iterator[str]:
    """Address of a little server with the content as `some.csv`."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "some.csv").write_bytes(CONTENT)
    handler = partial(SilentFiles, directory=str(home))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class SilentFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_local_file_is_used_without_network(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / FILE.name).write_bytes(CONTENT)

    assert fetch(tmp_path, FILE) == tmp_path / FILE.name


def test_missing_file_is_downloaded_from_its_home(tmp_path: Path, served_address: str) -> None:
    file = replace(FILE, addresses=(NOWHERE, f"{served_address}/some.csv"))

    assert fetch(tmp_path / "data", file).read_bytes() == CONTENT


def test_other_content_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / FILE.name).write_bytes(b"other data\n")

    with pytest.raises(DataCorrupt, match=FILE.sha256):
        fetch(tmp_path, FILE)


def test_missing_file_without_network_names_file_address_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataMissing) as failure:
        fetch(tmp_path, FILE)

    message = str(failure.value)
    assert "some.csv" in message
    assert NOWHERE in message
    assert str(tmp_path / "some") in message


def test_download_of_other_content_is_refused(tmp_path: Path, served_address: str) -> None:
    file = replace(FILE, sha256="0" * 64, addresses=(f"{served_address}/some.csv",))

    with pytest.raises(DataMissing, match="ValueError"):
        fetch(tmp_path / "data", file)

    assert not (tmp_path / "data" / FILE.name).exists()


@pytest.mark.parametrize("file", [*MNIST, *FASHION_MNIST, WINE_RED, IMDB])
def test_every_file_has_a_hash_and_a_home(file: DataFile) -> None:
    assert len(file.sha256) == 64
    assert file.addresses


def test_idx_file_keeps_shape_and_order(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    path = tmp_path / "some.gz"
    head = b"\x00\x00\x08\x03" + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(head + values.tobytes()))

    assert np.array_equal(read_idx(path), values)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"GIF89a", id="another format"),
        pytest.param(b"\x00\x00\x08\x01\x00\x00\x00\x05abc", id="cut short"),
        pytest.param(b"\x00\x00\x08", id="only a head"),
    ],
)
def test_broken_idx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.gz"
    path.write_bytes(gzip.compress(content))

    with pytest.raises(DataCorrupt, match=r"some\.gz"):
        read_idx(path)


def test_wine_table_keeps_header_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "wine.csv"
    path.write_text('"alcohol";"quality"\n9.4;5\n9.8;6\n')

    table = read_wine(path)

    assert table.columns == ("alcohol", "quality")
    assert table.rows.tolist() == [[9.4, 5], [9.8, 6]]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A tiny archive in the official layout, its files in no order."""
    texts = {
        "aclImdb/train/pos/10_9.txt": "ten",
        "aclImdb/train/pos/2_7.txt": "two, w\u00fcnderbar",
        "aclImdb/test/neg/0_1.txt": "zero",
        "aclImdb/train/neg/1_1.txt": "one",
        "aclImdb/train/unsup/0_0.txt": "no label",
        "aclImdb/test/pos/3_8.txt": "three",
        "aclImdb/README": "read me",
    }
    path = tmp_path / "aclImdb_v1.tar.gz"
    with tarfile.open(path, "w:gz") as stream:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            stream.addfile(member, io.BytesIO(text.encode()))
    return path


def test_archive_becomes_a_table_in_the_order_of_the_files(archive: Path, tmp_path: Path) -> None:
    pack_reviews(archive, tmp_path / "reviews.parquet")

    rows = pq.read_table(tmp_path / "reviews.parquet").to_pylist()
    assert [(row["split"], row["label"], row["text"]) for row in rows] == [
        ("train", 0, "one"),
        ("train", 1, "two, w\u00fcnderbar"),
        ("train", 1, "ten"),
        ("test", 0, "zero"),
        ("test", 1, "three"),
    ]


def test_content_hash_does_not_depend_on_the_writer(archive: Path, tmp_path: Path) -> None:
    pack_reviews(archive, tmp_path / "reviews.parquet")
    table = pq.read_table(tmp_path / "reviews.parquet")
    other = table.set_column(0, "split", table["split"].dictionary_encode())
    pq.write_table(other, tmp_path / "other.parquet", compression="gzip")

    again = pq.read_table(tmp_path / "other.parquet")

    assert content_sha256(again) == content_sha256(table)


def test_reviews_of_another_archive_are_refused(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "imdb").mkdir()
    archive.rename(tmp_path / "imdb" / archive.name)

    with pytest.raises(DataCorrupt, match=r"reviews\.parquet"):
        load_reviews(tmp_path)
