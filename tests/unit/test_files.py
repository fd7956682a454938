import os
import socket
from pathlib import Path

import pytest

from service.files import read_regular


def test_content_of_a_file_is_read_and_that_of_one_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")

    assert read_regular(tmp_path / "file") == read_regular(tmp_path / "link") == b"content"


def test_fifo_device_folder_and_socket_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    refused = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("fifo", "device", "folder", "socket"):
            with pytest.raises(OSError) as raised:  # noqa: PT011  which one depends on the file
                read_regular(tmp_path / name)
            refused.append(raised.value.strerror)

    assert refused[:3] == ["no regular file", "no regular file", "Is a directory"]
    assert refused[3]


def test_file_larger_than_it_may_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")

    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(tmp_path / "file", 4)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000], ids=["NUL", "5,000 characters"])
def test_name_that_no_file_can_have_is_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011  which one depends on the name
        read_regular(tmp_path / name)

    assert raised.value.strerror
