"""What `kubectl apply -k` would send, of the base and of every overlay."""

import re
from pathlib import Path

import pytest
from deployment.parts import KUBERNETES, rendered

pytestmark = pytest.mark.slow

PODS = {"base": "Deployment", "kserve": "InferenceService"}
FOLDERS = [
    pytest.param(path.parent, id=path.parent.name)
    for path in sorted(KUBERNETES.rglob("kustomization.yaml"))
    if path.parent.name != "monitoring"  # it brings no pods
]


@pytest.fixture
def documents(folder: Path) -> str:
    """Return the documents of a folder as kustomize writes them."""
    return rendered(folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_are_rendered_once_with_the_image_of_a_version(folder: Path, documents: str) -> None:
    kinds = re.findall(r"^kind: (\w+)$", documents, re.MULTILINE)
    images = re.findall(r"image: (\S+)", documents)

    assert kinds.count(PODS.get(folder.name, "Deployment")) == 1
    assert len(kinds) == len(set(kinds))
    assert [re.fullmatch(r"dunno:\d+\.\d+\.\d+(-gpu)?", image) is not None for image in images] == [
        True
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_lies_in_the_restricted_namespace(folder: Path, documents: str) -> None:
    outside = [
        text for text in documents.split("\n---\n") if "\n  namespace: dunno\n" not in f"{text}\n"
    ]

    assert folder.exists()
    assert ["kind: Namespace" in text for text in outside] == [True]
    assert "pod-security.kubernetes.io/enforce: restricted" in outside[0]


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_mount_the_catalogue_under_the_name_it_was_given(folder: Path, documents: str) -> None:
    (given,) = re.findall(r"^  name: (dunno-catalogue-\w+)$", documents, re.MULTILINE)
    mounted = re.findall(r"^ +name: (dunno-catalogue\S*)$", documents, re.MULTILINE)

    has_own = folder.name == "models-volume"
    assert mounted == ([given] if has_own else [given, given])
