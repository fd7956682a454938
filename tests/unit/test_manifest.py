import json
from pathlib import Path
from typing import Any

import pytest
from bundles import certified_policy, fruit_bundle, novelty_tables, with_variant

from service.bundle import Manifest
from service.bundle.manifest import PowerMap, parse_manifest
from service.errors import ManifestInvalid


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    path = fruit_bundle(tmp_path).path / "manifest.json"
    parsed: dict[str, Any] = json.loads(path.read_text())
    return parsed


def refusal(content: dict[str, Any]) -> str:
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(json.dumps(content).encode(), "here")
    return str(caught.value)


def test_manifest_survives_being_written_and_read(tmp_path: Path) -> None:
    manifest = fruit_bundle(tmp_path).manifest

    assert parse_manifest(manifest.model_dump_json().encode(), "here") == manifest


def test_another_format_is_refused(content: dict[str, Any]) -> None:
    assert refusal({**content, "format": 2}).startswith("here: format: ")


def test_unknown_key_is_refused_by_name(content: dict[str, Any]) -> None:
    assert "colour" in refusal({**content, "colour": "red"})


def test_no_json_is_refused() -> None:
    with pytest.raises(ManifestInvalid, match="Invalid JSON"):
        parse_manifest(b"{", "here")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../b", "a//b", "a\\b"])
def test_file_outside_the_bundle_is_refused(content: dict[str, Any], name: str) -> None:
    content["files"][name] = content["files"]["model.onnx"]

    assert "leaves the bundle" in refusal(content)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\0b", "cannot be printed"),
        ("a\nb", "cannot be printed"),
        ("\u202egnp.exe", "cannot be printed"),
        ("x" * 5000, "more than 255 bytes"),
        ("é" * 128, "more than 255 bytes"),
        ("a/" * 600 + "b", "more than 1,024 bytes"),
    ],
    ids=["NUL", "line feed", "right to left", "5,000 characters", "256 bytes", "1,201 bytes"],
)
def test_file_name_that_no_file_can_have_is_refused(
    content: dict[str, Any], name: str, said: str
) -> None:
    content["files"][name] = content["files"]["model.onnx"]

    refused = refusal(content)

    assert said in refused
    assert len(refused) < 2000


@pytest.mark.parametrize("place", ["at the top", "within"])
def test_key_that_stands_twice_is_refused_by_its_name(content: dict[str, Any], place: str) -> None:
    written = json.dumps(content)
    key = "labels" if place == "at the top" else "threshold"
    twice = written.replace(
        f'"{key}": ', f'"{key}": {json.dumps(value_of(content, key))}, "{key}": '
    )

    with pytest.raises(ManifestInvalid, match=f'^here: the key "{key}" stands twice; keep one$'):
        parse_manifest(twice.encode(), "here")


def value_of(content: dict[str, Any], key: str) -> Any:
    return content[key] if key in content else content["policy"][key]


def test_logits_must_have_one_column_for_each_label(content: dict[str, Any]) -> None:
    assert "logits" in refusal({**content, "labels": ["apple", "pear"], "conformal": None})


def test_graph_must_take_what_the_input_declares(content: dict[str, Any]) -> None:
    content["graph"]["input"]["shape"] = [4]

    assert "the graph takes" in refusal(content)


def test_labels_must_differ(content: dict[str, Any]) -> None:
    assert "same name" in refusal({**content, "labels": ["apple", "apple", "plum"]})


def test_default_row_must_be_in_the_certified_table(content: dict[str, Any]) -> None:
    content["policy"]["threshold"] = 0.5

    assert "no row of the table" in refusal(content)


def test_policy_without_a_row_must_say_that_it_is_uncertified(content: dict[str, Any]) -> None:
    content["policy"]["max_error"] = None

    assert "uncertified" in refusal(content)


def test_novelty_needs_a_name_for_each_score(content: dict[str, Any]) -> None:
    assert "novelty" in refusal({**content, "novelty": None})


def test_tail_that_rises_is_refused(content: dict[str, Any]) -> None:
    content["novelty"]["combined"]["tails"] = [0.001, 1.0]

    assert "descend" in refusal(content)


def test_pattern_with_a_group_is_refused(content: dict[str, Any]) -> None:
    text = {"kind": "text", "max_tokens": 3, "token_pattern": "(a)"}

    assert "capturing group" in refusal({**content, "input": text})


def test_power_map_calibrates_two_labels_only(content: dict[str, Any]) -> None:
    power = PowerMap(a=1, gamma=1, b=0, split="validation", n=1).model_dump()

    assert "two labels" in refusal({**content, "calibration": power})


def test_policy_id_changes_with_what_decides_and_with_nothing_else(tmp_path: Path) -> None:
    manifest = fruit_bundle(tmp_path).manifest
    described = manifest.model_copy(update={"description": "other words"})
    stricter = manifest.model_copy(
        update={"policy": certified_policy(max_error=0.001, threshold=0.99)}
    )
    calmer = manifest.model_copy(update={"novelty": novelty_tables().model_copy(update={"n": 5})})

    assert described.policy_id == manifest.policy_id
    assert len({each.policy_id for each in (manifest, stricter, calmer)}) == 3


def test_manifest_of_before_variants_is_read(content: dict[str, Any]) -> None:
    del content["variants"]

    assert parse_manifest(json.dumps(content).encode(), "here").variants == {}


def test_file_of_a_variant_must_be_listed(tmp_path: Path) -> None:
    path = with_variant(fruit_bundle(tmp_path)).path / "manifest.json"
    content = json.loads(path.read_text())
    del content["files"]["model.int8.onnx"]

    assert "is not among the files" in refusal(content)


def test_variant_has_a_policy_id_of_its_own_and_changes_no_other(tmp_path: Path) -> None:
    before = fruit_bundle(tmp_path)
    after = with_variant(before).manifest

    assert after.policy_id == before.manifest.policy_id
    assert after.policy_id_of("int8") != after.policy_id


def test_manifest_cannot_be_changed(tmp_path: Path) -> None:
    manifest: Manifest = fruit_bundle(tmp_path).manifest

    with pytest.raises(ValueError, match="frozen"):
        manifest.name = "other"  # type: ignore[misc]
