"""The objects that the operator writes are valid Kubernetes, and keep the pods' security promises."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from support.operatorkit import make_node, make_snapshot, make_spec, make_swarm
from swarm_agents.config import Identity, Role, decode_settings
from swarm_operator.actions import Action, Apply, CreatePod
from swarm_operator.names import PodName, parse_pod_name
from swarm_operator.plan import plan
from swarm_operator.pods import pod_manifest

FULL: dict[str, Any] = {
    "imagePullSecrets": [{"name": "pull"}],
    "compute": {
        "replicas": 2,
        "standby": 1,
        "gpus": {"resource": "amd.com/gpu", "count": 2},
        "env": [
            {"name": "PLAIN", "value": "x"},
            {"name": "EMPTY"},
            {"name": "SECRET", "secretKeyRef": {"name": "s", "key": "k", "optional": True}},
            {"name": "CONFIG", "configMapKeyRef": {"name": "c", "key": "k"}},
        ],
        "podTemplate": {
            "labels": {"team": "x", "app.kubernetes.io/component": "operator"},
            "annotations": {"note": "y"},
            "runtimeClassName": "gvisor",
            "terminationGracePeriodSeconds": 60,
            "volumes": [
                {"name": "a", "configMap": {"name": "c"}},
                {"name": "b", "secret": {"name": "s"}},
                {"name": "d", "persistentVolumeClaim": {"name": "p"}},
                {"name": "e", "emptyDir": "1Gi"},
            ],
            "volumeMounts": [{"name": "a", "mountPath": "/data", "readOnly": False}],
        },
    },
    "scheduling": {
        "nodeSelector": {"pool": "fast"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, {"operator": "Exists"}],
        "priorityClassName": "high",
        "schedulerName": "other",
        "topology": {"placement": "Pack", "required": True},
    },
    "state": {"medium": "PersistentVolumeClaim", "claimName": "p"},
}


def manifests(spec: dict[str, Any]) -> list[dict[str, Any]]:
    nodes = [make_node("node-a", labels={"pool": "fast"}, taints=[("gpu", "", "NoSchedule")])]
    actions: tuple[Action, ...] = plan(make_snapshot(spec, nodes=nodes), 0.0).actions
    return [action.manifest for action in actions if isinstance(action, Apply | CreatePod)]


@pytest.mark.parametrize("spec", [{}, FULL], ids=["defaults", "everything"])
def test_every_object_is_valid_by_kubernetes_own_schema(spec: dict[str, Any]) -> None:
    found = manifests(spec)
    assert {m["kind"] for m in found} >= {"Pod", "Service", "ConfigMap", "ServiceAccount", "PodDisruptionBudget"}
    for manifest in found:
        kubernetes_validate.validate(manifest, "1.36", strict=True)


@pytest.mark.parametrize("spec", [{}, FULL], ids=["defaults", "everything"])
def test_every_object_is_owned_by_the_swarm_and_labelled(spec: dict[str, Any]) -> None:
    for manifest in manifests(spec):
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Swarm", make_swarm().uid, True)
        assert manifest["metadata"]["labels"]["agentswarm.dev/swarm"] == "risk"
        assert "finalizers" not in manifest["metadata"]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("spec", [{}, FULL], ids=["defaults", "everything"])
def test_pods_are_guaranteed_and_can_not_harm_the_node(spec: dict[str, Any], role: Role) -> None:
    pod = pod_manifest(make_swarm(), make_spec(**spec), PodName("risk", role, 0, 0), "r", node="node-a")["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    host = [v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v]
    assert host == ["/dev/shm"], "the only thing of the host is the shared memory"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names)), "server-side apply refuses a name that is there twice"


def test_the_operators_labels_win_over_the_users() -> None:
    pod = pod_manifest(make_swarm(), make_spec(**FULL), PodName("risk", Role.COMPUTE, 0, 0), "r")
    assert pod["metadata"]["labels"]["agentswarm.dev/role"] == "compute"
    assert pod["metadata"]["labels"]["team"] == "x"


@pytest.mark.parametrize("role", list(Role))
def test_an_agent_finds_its_identity_in_the_environment_that_the_operator_gives(role: Role) -> None:
    manifest = pod_manifest(make_swarm(), make_spec(state={}), PodName("risk", role, 3, 1), "rev", node="n")
    (container,) = manifest["spec"]["containers"]
    downward = {"POD_NAME": "risk-x-3-1", "POD_UID": "u", "POD_IP": "10.0.0.1", "NODE_NAME": "n"}
    env = {entry["name"]: entry.get("value", downward.get(entry["name"], "")) for entry in container["env"]}
    identity = Identity.from_environment(env)
    assert (identity.role, identity.ordinal, identity.revision) == (role, 3, "rev")
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for path in (identity.config_dir, identity.keys_dir, identity.shm_dir, identity.cache_dir, identity.state_dir):
        assert str(path) in mounts


def test_the_config_map_holds_what_an_agent_reads() -> None:
    (config,) = [m for m in manifests({}) if m["kind"] == "ConfigMap"]
    assert decode_settings(config["data"]["settings.json"]).swarm == "risk"


def test_a_resource_agent_is_pinned_to_its_node_and_stays_with_it() -> None:
    tolerant = {"tolerations": [{"key": "gpu", "operator": "Exists"}]}
    (pod,) = [m for m in manifests({"compute": {"replicas": 0}, "scheduling": tolerant}) if m["kind"] == "Pod"]
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["node-a"]
    assert pod["metadata"]["annotations"]["agentswarm.dev/node"] == "node-a"
    forever = [t for t in pod["spec"]["tolerations"] if t.get("effect") == "NoExecute"]
    assert all("tolerationSeconds" not in t for t in forever)


@pytest.mark.parametrize(
    ("text", "swarm", "ordinal"),
    [
        ("risk-compute-0-0", "risk", 0),
        ("a-compute-1-compute-12-3", "a-compute-1", 12),
        ("risk-compute-0", "risk", None),
    ],
)
def test_a_pods_name_is_read_back(text: str, swarm: str, ordinal: int | None) -> None:
    name = parse_pod_name(text, swarm)
    assert (name.ordinal if name else None) == ordinal
    assert name is None or str(name) == text


def test_a_pod_of_another_swarm_with_a_longer_name_is_not_ours() -> None:
    assert parse_pod_name("risk-compute-0-compute-1-0", "risk") is None
