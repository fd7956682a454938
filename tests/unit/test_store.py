from pathlib import Path

import pytest
from bundles import fruit_bundle

from service.bundle import read_bundle, write_bundle
from service.errors import BundleCorrupt, BundleMissing, ManifestInvalid


def test_bundle_reads_back_what_was_written(tmp_path: Path) -> None:
    written = fruit_bundle(tmp_path)

    bundle = read_bundle(written.path)

    assert bundle.manifest == written.manifest
    assert bundle.read("model.onnx") == (written.path / "model.onnx").read_bytes()


def test_flipped_bit_in_any_file_is_found(tmp_path: Path) -> None:
    path = fruit_bundle(tmp_path).path / "golden.npz"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)

    with pytest.raises(BundleCorrupt, match=r"golden\.npz: sha256 differs"):
        read_bundle(path.parent)


def test_missing_file_is_found(tmp_path: Path) -> None:
    path = fruit_bundle(tmp_path).path
    (path / "model.onnx").unlink()

    with pytest.raises(BundleCorrupt, match=r"model\.onnx: listed in the manifest"):
        read_bundle(path)


def test_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = fruit_bundle(tmp_path)

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    # The only patch there is: whoever runs the tests as root may read everything.
    monkeypatch.setattr("service.bundle.store.read_regular", refuse)

    with pytest.raises(BundleCorrupt, match="Permission denied"):
        bundle.read("model.onnx")


def test_file_of_another_size_is_not_read(tmp_path: Path) -> None:
    bundle = fruit_bundle(tmp_path)
    with (bundle.path / "model.onnx").open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk, and more memory than there is

    with pytest.raises(BundleCorrupt, match=r"model\.onnx: sha256 differs"):
        bundle.read("model.onnx")


def test_manifest_of_hostile_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(ManifestInvalid, match="is larger than 16,777,216 bytes"):
        read_bundle(tmp_path)


def test_link_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    path = fruit_bundle(tmp_path).path
    (path / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (path / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")

    with pytest.raises(BundleCorrupt, match="no plain file"):
        read_bundle(path)


def test_file_that_the_manifest_does_not_list_is_not_handed_out(tmp_path: Path) -> None:
    bundle = fruit_bundle(tmp_path)
    (bundle.path / "other.bin").write_bytes(b"x")

    with pytest.raises(BundleCorrupt, match="lists no file"):
        bundle.read("other.bin")


def test_folder_without_manifest_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match=r"manifest\.json: cannot be read"):
        read_bundle(tmp_path)


def test_manifest_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")

    with pytest.raises(ManifestInvalid, match=str(tmp_path)):
        read_bundle(tmp_path)


def test_bundle_that_cannot_be_described_leaves_the_old_one(tmp_path: Path) -> None:
    old = fruit_bundle(tmp_path)

    def fail(_: object) -> object:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_bundle(old.path, {"a": b"b"}, fail)  # type: ignore[arg-type]

    assert read_bundle(old.path).manifest == old.manifest


def test_writing_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    old = fruit_bundle(tmp_path)
    (old.path / "left_over.txt").write_text("x")

    fruit_bundle(tmp_path)

    assert not (old.path / "left_over.txt").exists()
    assert [path.name for path in old.path.parent.iterdir()] == ["1"]
