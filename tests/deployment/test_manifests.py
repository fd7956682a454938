"""The manifests for Kubernetes, held against the settings, the routes and the image."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk import environment_variables

from service import __version__
from service.api.probes import router
from service.settings import Settings
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
DEPLOYMENT = "base/deployment.yaml"
INFERENCE_SERVICE = "overlays/kserve/inference-service.yaml"
WHOLE = [pytest.param(DEPLOYMENT, id="deployment"), pytest.param(INFERENCE_SERVICE, id="kserve")]
"""Files that hold a whole pod; what else names containers is a patch of the first one."""

Manifests = Mapping[str, list[dict[str, Any]]]


def only(manifests: Manifests, path: str) -> dict[str, Any]:
    (document,) = manifests[path]
    return document


def pod(manifests: Manifests, path: str) -> dict[str, Any]:
    spec = only(manifests, path)["spec"]
    found: dict[str, Any] = spec["template"]["spec"] if "template" in spec else spec["predictor"]
    return found


def container(manifests: Manifests, path: str) -> dict[str, Any]:
    (found,) = pod(manifests, path)["containers"]
    return dict(found)


def containers(value: object) -> Iterator[dict[str, Any]]:
    """Yield every container anywhere in a document."""
    if isinstance(value, dict):
        yield from value.get("containers", [])
        for inner in value.values():
            yield from containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from containers(inner)


def environment(found: dict[str, Any]) -> dict[str, Any]:
    return {variable["name"]: variable.get("value") for variable in found.get("env", [])}


def test_every_variable_of_every_container_is_a_setting_or_one_of_opentelemetry(
    manifests: Manifests,
) -> None:
    names = {
        name
        for documents in manifests.values()
        for found in containers(documents)
        for name in environment(found)
    }

    assert names
    ours = {f"DUNNO_{field.upper()}" for field in Settings.model_fields}
    assert names <= ours | set(vars(environment_variables))


def test_values_of_every_container_are_within_bounds(manifests: Manifests) -> None:
    given = {
        name.removeprefix("DUNNO_").lower(): value
        for documents in manifests.values()
        for found in containers(documents)
        for name, value in environment(found).items()
        if value is not None and name.startswith("DUNNO_")
    }

    Settings.model_validate(given)


@pytest.mark.parametrize("path", WHOLE)
def test_grace_period_outlasts_the_pause_and_both_drains(manifests: Manifests, path: str) -> None:
    found = container(manifests, path)
    drain_s = float(environment(found)["DUNNO_DRAIN_TIMEOUT_MS"]) / 1000
    pause_s = found["lifecycle"]["preStop"]["sleep"]["seconds"]

    # Connections get the time of the drain, and after them the queues.
    assert pause_s == 5
    assert pod(manifests, path)["terminationGracePeriodSeconds"] > pause_s + 2 * drain_s


@pytest.mark.parametrize("path", WHOLE)
def test_pod_is_hardened(manifests: Manifests, path: str) -> None:
    spec = pod(manifests, path)

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@pytest.mark.parametrize("path", WHOLE)
def test_container_is_hardened(manifests: Manifests, path: str) -> None:
    context = container(manifests, path)["securityContext"]

    assert context == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_no_patch_touches_what_hardens_a_container(manifests: Manifests) -> None:
    patches = [
        found
        for path, documents in manifests.items()
        if path not in (DEPLOYMENT, INFERENCE_SERVICE)
        for found in containers(documents)
    ]

    assert patches
    assert [found for found in patches if "securityContext" in found] == []


def test_user_of_the_pods_is_the_user_of_the_image(
    manifests: Manifests, dockerfile: list[tuple[str, str]]
) -> None:
    context = pod(manifests, DEPLOYMENT)["securityContext"]

    assert ("USER", f"{context['runAsUser']}:{context['runAsGroup']}") in dockerfile


@pytest.mark.parametrize("path", WHOLE)
def test_writable_folder_is_small_and_in_memory(manifests: Manifests, path: str) -> None:
    mounts = {mount["mountPath"]: mount for mount in container(manifests, path)["volumeMounts"]}
    writable = {place for place, mount in mounts.items() if not mount.get("readOnly")}
    (folder,) = [
        volume["emptyDir"] for volume in pod(manifests, path)["volumes"] if volume["name"] == "tmp"
    ]

    assert writable == {"/tmp"}  # noqa: S108  a mount of its own
    assert folder == {"medium": "Memory", "sizeLimit": "32Mi"}


@pytest.mark.parametrize("path", WHOLE)
def test_probes_tell_alive_from_ready(manifests: Manifests, path: str) -> None:
    found = container(manifests, path)
    asked = {
        name: found[name]["httpGet"]["path"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }

    assert asked == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }
    assert set(asked.values()) <= {str(route.path) for route in router.routes}  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", WHOLE)
def test_restart_takes_longer_than_being_taken_out(manifests: Manifests, path: str) -> None:
    found = container(manifests, path)
    patience_s = {
        name: found[name]["periodSeconds"] * found[name]["failureThreshold"]
        for name in ("readinessProbe", "livenessProbe")
    }

    assert patience_s["livenessProbe"] > 5 * patience_s["readinessProbe"]


@pytest.mark.parametrize("path", WHOLE)
def test_threads_follow_the_cores_that_are_requested(manifests: Manifests, path: str) -> None:
    found = container(manifests, path)
    (variable,) = [entry for entry in found["env"] if entry["name"] == "DUNNO_RUNTIME_THREADS"]

    assert variable["valueFrom"]["resourceFieldRef"] == {
        "containerName": found["name"],
        "resource": "requests.cpu",
    }
    assert found["resources"]["requests"]["cpu"]
    assert found["resources"]["limits"]["memory"] == found["resources"]["requests"]["memory"]


@pytest.mark.parametrize("path", WHOLE)
def test_port_of_the_container_is_the_port_of_the_image(manifests: Manifests, path: str) -> None:
    (port,) = container(manifests, path)["ports"]

    assert port["name"] == "http"
    assert port["containerPort"] == Settings.model_fields["port"].default


def test_rolling_update_takes_no_pod_away_before_another_is_ready(manifests: Manifests) -> None:
    strategy = only(manifests, DEPLOYMENT)["spec"]["strategy"]

    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}


def test_number_of_pods_is_left_to_the_autoscaler(manifests: Manifests) -> None:
    assert "replicas" not in only(manifests, DEPLOYMENT)["spec"]
    assert only(manifests, "base/autoscaler.yaml")["spec"]["minReplicas"] >= 2


def test_namespace_enforces_the_restricted_standard(manifests: Manifests) -> None:
    labels = only(manifests, "base/namespace.yaml")["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_network_lets_callers_in_at_the_port_and_nothing_out(manifests: Manifests) -> None:
    spec = only(manifests, "base/network-policy.yaml")["spec"]

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    assert spec["egress"] == []


@pytest.mark.parametrize(
    ("path", "place"),
    [
        pytest.param("base/service.yaml", ["selector"], id="service"),
        pytest.param(
            "base/disruption-budget.yaml", ["selector", "matchLabels"], id="disruption budget"
        ),
        pytest.param(
            "base/network-policy.yaml", ["podSelector", "matchLabels"], id="network policy"
        ),
    ],
)
def test_selectors_find_the_pods(manifests: Manifests, path: str, place: list[str]) -> None:
    selector: Any = only(manifests, path)["spec"]
    for key in place:
        selector = selector[key]
    labels = only(manifests, DEPLOYMENT)["spec"]["template"]["metadata"]["labels"]

    assert selector.items() <= labels.items()


def test_catalogue_of_the_cluster_is_that_of_the_repository() -> None:
    cluster = (ROOT / "k8s/base/catalogue.toml").read_text()

    assert cluster == (ROOT / "models/catalogue.toml").read_text()


def test_every_file_that_a_kustomization_names_exists(manifests: Manifests) -> None:
    missing = [
        f"{path}: {name}"
        for path, (document, *_) in manifests.items()
        if path.endswith("kustomization.yaml")
        for name in (
            *document["resources"],
            *document.get("configurations", []),
            *(patch["path"] for patch in document.get("patches", []) if "path" in patch),
        )
        if not (ROOT / "k8s" / path).parent.joinpath(name).exists()
    ]

    assert missing == []


def test_images_are_those_of_this_version(manifests: Manifests) -> None:
    tags = {
        image["newTag"]
        for path, (document, *_) in manifests.items()
        if path.endswith("kustomization.yaml")
        for image in document.get("images", [])
    }

    assert tags == {__version__, f"{__version__}-gpu"}


def test_every_metric_that_scales_is_one_of_ours() -> None:
    overlays = ROOT / "k8s/overlays"
    text = (overlays / "queue-wait/adapter-values.yaml").read_text()
    text += (overlays / "keda/scaled-object.yaml").read_text()
    asked = set(re.findall(r"dunno_stage_duration_seconds_\w+", text))
    stages = set(re.findall(r'stage="(\w+)"', text))

    told = Metrics().exposition().decode()
    assert asked == {"dunno_stage_duration_seconds_sum", "dunno_stage_duration_seconds_count"}
    assert "# TYPE dunno_stage_duration_seconds histogram" in told
    assert stages == {"queue"}


def test_autoscaler_asks_for_the_metric_that_the_adapter_names(manifests: Manifests) -> None:
    (asked, _) = only(manifests, "overlays/queue-wait/autoscaler.yaml")["spec"]["metrics"]
    (rule,) = only(manifests, "overlays/queue-wait/adapter-values.yaml")["rules"]["custom"]

    assert asked["pods"]["metric"]["name"] == rule["name"]["as"]


@pytest.mark.parametrize("overlay", ["keda", "kserve"])
def test_two_autoscalers_never_own_the_same_pods(manifests: Manifests, overlay: str) -> None:
    (document,) = manifests[f"overlays/{overlay}/kustomization.yaml"]
    deleted = [
        patch["patch"] for patch in document["patches"] if "$patch: delete" in patch["patch"]
    ]

    assert any("kind: HorizontalPodAutoscaler\n" in patch for patch in deleted)
