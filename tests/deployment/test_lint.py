"""What linters say of the Dockerfile and of all that `kubectl apply -k` would send."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from deployment.parts import KUBERNETES, ROOT, imported, linter, need, rendered, run, schema

pytestmark = pytest.mark.slow

FOLDERS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))
DEFINED_ELSEWHERE = {
    "keda": {"ScaledObject"},
    "kserve": {"InferenceService"},
    "monitoring": {"PrometheusRule", "ServiceMonitor"},
}
"""Kinds that Kubernetes has no schema of. All but one are checked below: KEDA's definition of its
ScaledObject does not lie beside this repository."""
KSERVE = ROOT / ".venv-kserve/bin/python"


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of what kustomize writes, by the name of the folder."""
    files = tmp_path_factory.mktemp("rendered")
    for folder in FOLDERS:
        (files / f"{folder.name}.yaml").write_text(rendered(folder))
    return {folder.name: files / f"{folder.name}.yaml" for folder in FOLDERS}


def test_dockerfile_pleases_hadolint() -> None:
    told = run(linter("hadolint"), "Dockerfile")

    assert (told.returncode, told.stdout) == (0, "")


def test_manifests_please_yamllint() -> None:
    told = run(linter("yamllint"), "--strict", "-c", "k8s/.yamllint.yaml", "k8s")

    assert (told.returncode, told.stdout) == (0, "")


@pytest.mark.parametrize("name", [folder.name for folder in FOLDERS])
def test_kubernetes_knows_every_field(documents: dict[str, Path], name: str) -> None:
    told = run(linter("kubernetes-validate"), "--strict", str(documents[name]))
    unknown = set(re.findall(r"Couldn't find schema for kind (\w+)", told.stdout + told.stderr))

    assert told.returncode == 0, told.stdout + told.stderr
    assert unknown == DEFINED_ELSEWHERE.get(name, set())


def test_strict_validation_finds_a_field_that_there_is_not(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    text = (KUBERNETES / "base/service.yaml").read_text()
    file.write_text(text.replace("  type:", "  typo:"))
    told = run(linter("kubernetes-validate"), "--strict", str(file))

    assert told.returncode != 0


def test_checkov_finds_nothing_but_what_is_skipped_for_a_reason(
    documents: dict[str, Path],
) -> None:
    folder = str(documents["base"].parent)
    told = run(linter("checkov"), "--config-file", "k8s/.checkov.yaml", "-d", folder, "-o", "json")
    result: dict[str, Any] = json.loads(told.stdout)

    assert told.returncode == 0, told.stdout
    assert result["summary"]["failed"] == 0
    assert result["summary"]["passed"] > 100
    assert result["summary"]["resource_count"] >= len(FOLDERS)


def test_every_check_that_is_left_out_has_its_reason() -> None:
    lines = (KUBERNETES / ".checkov.yaml").read_text().splitlines()
    left_out = [number for number, line in enumerate(lines) if line.startswith("  - ")]

    assert left_out
    assert [lines[number] for number in left_out if "  # " not in lines[number - 1]] == []


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("servicemonitor.yaml", "crd-servicemonitors.yaml"),
        ("rules.yaml", "crd-prometheusrules.yaml"),
    ],
)
def test_manifest_is_what_the_operator_reads(name: str, definition: str, tmp_path: Path) -> None:
    yaml = imported("yaml")
    # An inner flag is Go's; ours are in small letters.
    text = schema(definition).read_text().replace("^(?i)(", "^(")
    (version,) = yaml.safe_load(text)["spec"]["versions"]
    read = version["schema"]["openAPIV3Schema"]
    close(read["properties"]["spec"])
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(read))

    told = run(linter("check-jsonschema"), "--schemafile", str(file), f"k8s/monitoring/{name}")
    assert told.returncode == 0, told.stdout + told.stderr


def close(node: Any) -> None:
    """Let the objects of a schema hold nothing that it does not name, as the API server does."""
    if isinstance(node, dict):
        if "properties" in node:
            node.setdefault("additionalProperties", False)
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            close(each)


def test_dashboard_is_what_grafana_reads() -> None:
    file = str(schema("grafana-dashboard.schema.json"))
    told = run(linter("check-jsonschema"), "--schemafile", file, "k8s/monitoring/dashboard.json")

    assert told.returncode == 0, told.stdout + told.stderr


@pytest.fixture(scope="module")
def inference_service(documents: dict[str, Path]) -> dict[str, Any]:
    """Return the InferenceService that the overlay kserve makes."""
    (found,) = [
        document
        for document in imported("yaml").safe_load_all(documents["kserve"].read_text())
        if document["kind"] == "InferenceService"
    ]
    content: dict[str, Any] = found
    return content


@pytest.fixture(scope="module")
def known_to_kserve() -> dict[str, set[str]]:
    """Return the fields of each type of KServe's client."""
    need(KSERVE.exists(), "KServe's client is not installed: `make .venv-kserve/installed`")
    told = run(str(KSERVE), "tests/deployment/kserve_fields.py")
    assert told.returncode == 0, told.stderr
    return {name: set(fields) for name, fields in json.loads(told.stdout).items()}


def test_kserve_knows_every_field_of_its_own(
    inference_service: dict[str, Any], known_to_kserve: dict[str, set[str]]
) -> None:
    spec = inference_service["spec"]

    assert inference_service.keys() <= known_to_kserve["V1beta1InferenceService"]
    assert spec.keys() <= known_to_kserve["V1beta1InferenceServiceSpec"]
    assert spec["predictor"].keys() <= known_to_kserve["V1beta1PredictorSpec"]


def test_kubernetes_knows_every_field_of_the_pod_that_kserve_starts(
    inference_service: dict[str, Any], known_to_kserve: dict[str, set[str]], tmp_path: Path
) -> None:
    own = known_to_kserve["V1beta1ComponentExtensionSpec"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": inference_service["metadata"],
        "spec": {
            name: value
            for name, value in inference_service["spec"]["predictor"].items()
            if name not in own
        },
    }
    file = tmp_path / "pod.json"
    file.write_text(json.dumps(pod))

    told = run(linter("kubernetes-validate"), "--strict", str(file))
    assert told.returncode == 0, told.stdout + told.stderr
