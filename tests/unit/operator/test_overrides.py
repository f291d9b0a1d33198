"""What an owner of a Swarm can make of its pods: nothing that leads out of them, and what the policy allows."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from support.badspecs import FULL, SCHEMA, random_spec, walk, written
from support.operatorkit import make_node, make_snapshot, make_spec, make_swarm
from swarm_deploy.local.api import structural
from swarm_deploy.local.api.pod_security import violations
from swarm_operator.accept import FORBIDDEN, INVALID, refusals
from swarm_operator.actions import CreatePod
from swarm_operator.api.read import read_spec
from swarm_operator.plan import plan
from swarm_operator.policy import Policy, allowed
from swarm_operator.status import status_of

#: Fields of pods and containers through which one leaves a pod, or becomes somebody else.
ESCAPES: dict[str, Any] = {
    "privileged": True,
    "allowPrivilegeEscalation": True,
    "capabilities": {"add": ["SYS_ADMIN"]},
    "procMount": "Unmasked",
    "seccompProfile": {"type": "Unconfined"},
    "appArmorProfile": {"type": "Unconfined"},
    "seLinuxOptions": {"type": "spc_t"},
    "windowsOptions": {"hostProcess": True},
    "securityContext": {"privileged": True},
    "podSecurityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
    "sysctls": [{"name": "kernel.msgmax", "value": "1"}],
    "supplementalGroups": [0],
    "fsGroup": 0,
    "runAsNonRoot": False,
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "hostUsers": True,
    "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["x"]}],
    "hostPort": 80,
    "hostPath": {"path": "/"},
    "nodeName": "control-plane",
    "shareProcessNamespace": True,
    "serviceAccount": "cluster-admin",
    "serviceAccountName": "cluster-admin",
    "automountServiceAccountToken": True,
    "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]},
    "csi": {"driver": "secrets-store.csi.k8s.io"},
    "ephemeral": {"volumeClaimTemplate": {}},
    "nfs": {"server": "x", "path": "/"},
    "iscsi": {"targetPortal": "x"},
    "image": {"reference": "x"},
    "gitRepo": {"repository": "x"},
    "flexVolume": {"driver": "x"},
    "downwardAPI": {"items": []},
    "containers": [{"name": "x", "image": "x"}],
    "initContainers": [{"name": "x", "image": "x"}],
    "ephemeralContainers": [{"name": "x", "image": "x"}],
    "command": ["sh"],
    "args": ["-c", "x"],
    "lifecycle": {"postStart": {"exec": {"command": ["sh"]}}},
    "livenessProbe": {"exec": {"command": ["sh"]}},
    "envFrom": [{"secretRef": {"name": "x"}}],
    "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
    "fieldRef": {"fieldPath": "metadata.name"},
    "volumeDevices": [{"name": "x", "devicePath": "/dev/sda"}],
    "subPath": "../../etc",
    "subPathExpr": "$(A)",
    "mountPropagation": "Bidirectional",
    "resourceClaims": [{"name": "x"}],
    "dnsConfig": {"nameservers": ["192.0.2.1"]},
    "spec": {"hostNetwork": True},
    "template": {"spec": {"hostNetwork": True}},
    "overhead": {"cpu": "1"},
    "restartPolicy": "Never",
}


def objects(spec: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Each object of a spec that is no free map."""
    for steps, schema, _ in walk(SCHEMA["properties"]["spec"], spec):
        if "properties" in schema:
            yield steps, schema


@pytest.mark.parametrize("field", ESCAPES)
def test_no_part_of_a_swarm_takes_a_field_that_leads_out_of_a_pod(field: str) -> None:
    tried = 0
    for steps, schema in objects(FULL):
        if field in schema["properties"]:
            assert (steps, field) in (((), "image"),), "a Swarm's own field of that name: is it an escape?"
            continue
        spec = copy.deepcopy(FULL)
        at: Any = spec
        for step in steps:
            at = at[step]
        at[field] = ESCAPES[field]
        parsed, wrong = read_spec(spec)
        assert parsed is None
        assert f"{written(steps)}.{field}" in wrong
        pruned, unknown = structural.prune(SCHEMA, {"spec": spec})
        assert unknown == [f"{written(steps)}.{field}"]
        assert pruned == {"spec": FULL}, "where unknown fields are not refused they are left out"
        tried += 1
    assert tried > 35


#: All that a pod may have in it.
POD = {
    "restartPolicy", "serviceAccountName", "automountServiceAccountToken", "enableServiceLinks",
    "terminationGracePeriodSeconds", "securityContext", "containers", "volumes", "tolerations", "imagePullSecrets",
    "nodeSelector", "priorityClassName", "runtimeClassName", "affinity", "schedulerName", "schedulingGates",
    "topologySpreadConstraints",
}  # fmt: skip
CONTAINER = {
    "name", "image", "imagePullPolicy", "command", "env", "ports", "resources", "securityContext", "startupProbe",
    "livenessProbe", "readinessProbe", "volumeMounts",
}  # fmt: skip


def confined(pod: dict[str, Any], path: str) -> None:
    """Asserts that a pod reaches nothing but what every agent's does; `path` is the shared memory's."""
    spec = pod["spec"]
    assert spec.keys() <= POD
    assert spec["serviceAccountName"] == make_swarm().name
    assert spec["automountServiceAccountToken"] is False
    context = dict(spec["securityContext"])
    user, group, fs_group = context.pop("runAsUser"), context.pop("runAsGroup"), context.pop("fsGroup")
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert user > 0
    assert group == fs_group > 0
    for container in spec["containers"]:
        assert container.keys() <= CONTAINER
        assert container["command"] == ["swarm-agent"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all(port.keys() == {"name", "containerPort", "protocol"} for port in container["ports"])
        assert all(mount.keys() <= {"name", "mountPath", "readOnly"} for mount in container["volumeMounts"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert set(container[probe]) & {"exec", "tcpSocket", "grpc"} == set()
        names = [entry["name"] for entry in container["env"]]
        assert len({*names}) == len(names), "what stands there twice is taken from the last"
        for entry in container["env"]:
            assert entry.get("valueFrom", {"secretKeyRef": 0}).keys() <= {"secretKeyRef", "configMapKeyRef", "fieldRef"}
            assert ("fieldRef" in entry.get("valueFrom", {})) <= entry["name"].startswith(("POD_", "NODE_NAME"))
    for volume in spec["volumes"]:
        (kind,) = volume.keys() - {"name"}
        assert kind in ("configMap", "secret", "persistentVolumeClaim", "emptyDir", "hostPath")
        if kind == "hostPath":
            assert volume == {"name": "swarm-shm", "hostPath": {"path": path, "type": "Directory"}}
    said = violations(pod, "restricted")
    assert all("hostPath" in text or "restricted volume types" in text for text in said), said


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    nodes = [make_node(labels={"zone": "a", "pool": "a"})]
    actions = plan(make_snapshot(spec, nodes=nodes), 0.0).actions
    return [action.manifest for action in actions if isinstance(action, CreatePod)]


def test_whatever_is_accepted_makes_confined_pods() -> None:
    chance, made = random.Random(7), 0
    whole = copy.deepcopy(FULL)
    whole["compute"].pop("standby")
    for part in ("prediction",):
        whole["failover"].pop(part)
    for part in ("keyRotation",):
        whole["security"].pop(part)
    whole["scheduling"] |= {"gang": "None"}
    whole["scheduling"].pop("queueName")
    for number in range(400):
        spec = copy.deepcopy(whole)
        if number:
            junk = random_spec(chance)
            for key in chance.sample(sorted(junk), min(3, len(junk))):
                spec[key] = junk[key]
        parsed, _ = read_spec(spec)
        if parsed is None or refusals(parsed):
            assert pods(spec) == []
            continue
        for pod in pods(spec):
            confined(pod, parsed.transport.shared_memory.path)
            made += 1
    assert made > 100


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PYTHONHOME",
        "TMPDIR",
        "PATH",
        "SWARM_KEYS_DIR",
        "POD_IP",
        "NODE_NAME",
    ],
)
def test_variables_of_the_operator_the_loader_and_the_interpreter_are_never_the_users(name: str) -> None:
    spec = {"compute": {"env": [{"name": name, "value": "x"}]}}
    parsed, wrong = read_spec(spec)
    assert parsed is None
    assert wrong.startswith("spec.compute.env[0].name: ")
    assert "choose another name" in wrong
    assert read_spec({"compute": {"env": [{"name": f"MY_{name}", "value": "x"}]}})[0]


def template(**fields: Any) -> dict[str, Any]:
    return {"compute": {"podTemplate": fields}}


def mounted(path: str) -> dict[str, Any]:
    volume, mount = {"name": "v", "configMap": {"name": "c"}}, {"name": "v", "mountPath": path}
    return template(volumes=[volume], volumeMounts=[mount])


def variable(name: str) -> dict[str, Any]:
    return {"compute": {"env": [{"name": name, "value": "all"}]}}


#: Refused whatever the policy says or does not say, but for what it names: spec, field.
BY_DEFAULT = [
    (template(annotations={key: "x"}), "spec.compute.podTemplate.annotations")
    for key in (
        "io.kubernetes.cri-o.Devices",
        "io.kubernetes.cri-o.userns-mode",
        "cpu-load-balancing.crio.io",
        "seccomp-profile.kubernetes.cri-o.io/agent",
        "cdi.k8s.io/vendor_gpu",
        "devices.nri.io/container.agent",
        "run.oci.hooks",
        "io.katacontainers.config.hypervisor.path",
        "dev.gvisor.flag.network",
        "k8s.v1.cni.cncf.io/networks",
        "cni.projectcalico.org/floatingIPs",
        "agentswarm.dev/gang",
    )
]
BY_DEFAULT += [
    (template(labels={"agentswarm.dev/swarm": "other"}), "spec.compute.podTemplate.labels"),
    *((variable(name), "spec.compute.env[0].name") for name in ("NVIDIA_VISIBLE_DEVICES", "NUMBA_CACHE_DIR")),
    *(
        (mounted(path), "spec.compute.podTemplate.volumeMounts[0].mountPath")
        for path in ("/proc/self", "/sys", "/dev", "/dev/shm/x", "/var/run/swarm/shm", "/run/secrets/x", "/boot")
    ),
    # who can write into the tmpfs can put a link there that leads anywhere on the node
    ({"transport": {"sharedMemory": {"path": "/dev/shm/link"}}}, "spec.transport.sharedMemory.path"),
]


@pytest.mark.parametrize(("spec", "field"), BY_DEFAULT, ids=lambda v: v if isinstance(v, str) else "")
def test_what_reaches_the_node_is_refused_without_any_policy(spec: dict[str, Any], field: str) -> None:
    (refusal,) = refusals(make_spec(**spec))
    assert (refusal.reason, refusal.field) == (FORBIDDEN, field)
    assert "leave it out" in refusal.message or "choose" in refusal.message
    assert refusals(make_spec(**spec), Policy(images=["*"], env=[], annotations=[], labels=[]))


def test_what_reaches_the_node_can_be_allowed_by_name() -> None:
    policy = Policy(
        annotations=["cdi.k8s.io/*"],
        env=["NVIDIA_VISIBLE_DEVICES"],
        shared_memory_paths=["/dev/shm", "/dev/shm/team-*"],
    )
    assert refusals(make_spec(**template(annotations={"cdi.k8s.io/x": "y"})), policy) == ()
    assert refusals(make_spec(**variable("NVIDIA_VISIBLE_DEVICES")), policy) == ()
    assert refusals(make_spec(transport={"sharedMemory": {"path": "/dev/shm/team-a"}}), policy) == ()


def test_the_operators_own_labels_stay_its_own_but_for_being_a_client() -> None:
    policy = Policy(labels=["*"])
    assert refusals(make_spec(**template(labels={"agentswarm.dev/client": "other"})), policy) == ()
    assert refusals(make_spec(**template(labels={"agentswarm.dev/role": "x"})), policy)


ROOM = {"memory": "1Gi"}
MEMORY = {"transport": {"sharedMemory": {"medium": "Memory"}}, "compute": ROOM, "resource": ROOM}
#: Policy, a spec that goes beyond it and where, and one that does not.
POLICIES: list[tuple[dict[str, Any], dict[str, Any], str, dict[str, Any]]] = [
    ({"images": ["reg.example/risk/*"]}, {"image": "evil.example/reg.example/risk/x"}, "spec.image",
     {"image": "reg.example/risk/x:1"}),
    ({"images": ["reg.example/*"]}, {"image": "reg.example.evil.com/x"}, "spec.image", {"image": "reg.example/x"}),
    ({"images": ["reg.example/*"]}, {"image": "reg.example/x\n"}, "spec.image", {"image": "reg.example/x@sha256:0"}),
    ({"images": ["reg.example/*"]}, {}, "spec.image", {"image": "reg.example/x"}),
    ({"images": ["*"]}, mounted("/usr/local/lib/python3.12"), "spec.compute.podTemplate.volumeMounts[0].mountPath",
     mounted("/data/x")),
    ({"images": ["*"]}, mounted("/opt/venv/bin"), "spec.compute.podTemplate.volumeMounts[0].mountPath",
     mounted("/etc/app")),
    ({"mountPaths": ["/data/*"]}, mounted("/database/x"), "spec.compute.podTemplate.volumeMounts[0].mountPath",
     mounted("/data/x")),
    ({"imagePullPolicies": ["Always"]}, {}, "spec.imagePullPolicy", {"imagePullPolicy": "Always"}),
    ({"minUserId": 1000}, {"security": {"runAsUser": 999}}, "spec.security.runAsUser",
     {"security": {"runAsUser": 1000}}),
    ({"minGroupId": 1000}, {"security": {"runAsGroup": 999}}, "spec.security.runAsGroup", {}),
    ({"serviceAccounts": ["team-*"]}, {}, "metadata.name", {}),
    ({"sharedMemory": ["Memory"]}, {}, "spec.transport.sharedMemory.medium", MEMORY),
    ({"volumes": ["configMap"]}, template(volumes=[{"name": "v", "secret": {"name": "s"}}]),
     "spec.compute.podTemplate.volumes[0].secret", template(volumes=[{"name": "v", "configMap": {"name": "s"}}])),
    ({"volumes": ["configMap"]}, template(volumes=[{"name": "v", "emptyDir": "1Gi"}]),
     "spec.compute.podTemplate.volumes[0].emptyDir", {}),
    ({"volumes": ["emptyDir"]}, {"state": {"medium": "PersistentVolumeClaim", "claimName": "p"}}, "spec.state.medium",
     {"state": {}}),
    ({"claims": ["mine-*"]}, {"state": {"medium": "PersistentVolumeClaim", "claimName": "p"}}, "spec.state.claimName",
     {"state": {"medium": "PersistentVolumeClaim", "claimName": "mine-1"}}),
    ({"claims": []}, template(volumes=[{"name": "v", "persistentVolumeClaim": {"name": "p"}}]),
     "spec.compute.podTemplate.volumes[0].persistentVolumeClaim.name", {}),
    ({"secrets": ["app-*"]}, template(volumes=[{"name": "v", "secret": {"name": "other-keys"}}]),
     "spec.compute.podTemplate.volumes[0].secret.name", template(volumes=[{"name": "v", "secret": {"name": "app-1"}}])),
    ({"secrets": ["app-*"]}, {"compute": {"env": [{"name": "A", "secretKeyRef": {"name": "other-keys", "key": "k"}}]}},
     "spec.compute.env[0].secretKeyRef.name",
     {"compute": {"env": [{"name": "A", "secretKeyRef": {"name": "app-1", "key": "k"}}]}}),
    ({"secrets": []}, {"imagePullSecrets": [{"name": "s"}]}, "spec.imagePullSecrets[0].name", {}),
    ({"configMaps": []}, {"compute": {"env": [{"name": "A", "configMapKeyRef": {"name": "c", "key": "k"}}]}},
     "spec.compute.env[0].configMapKeyRef.name", variable("A")),
    ({"env": ["RISK_*"]}, variable("A"), "spec.compute.env[0].name", variable("RISK_A")),
    ({"labels": []}, template(labels={"a": "b"}), "spec.compute.podTemplate.labels", {}),
    ({"annotations": ["prometheus.io/*"]}, {"resource": {"podTemplate": {"annotations": {"a": "b"}}}},
     "spec.resource.podTemplate.annotations", template(annotations={"prometheus.io/scrape": "true"})),
    ({"runtimeClasses": ["gvisor"]}, template(runtimeClassName="runc-privileged"),
     "spec.compute.podTemplate.runtimeClassName", template(runtimeClassName="gvisor")),
    ({"runtimeClassRequired": True}, {"resource": {"podTemplate": {"runtimeClassName": "gvisor"}}},
     "spec.compute.podTemplate.runtimeClassName",
     {**MEMORY, "compute": {**ROOM, "podTemplate": {"runtimeClassName": "gvisor"}}}),
    ({"priorityClasses": []}, {"scheduling": {"priorityClassName": "system-node-critical"}},
     "spec.scheduling.priorityClassName", {}),
    ({"schedulers": ["volcano"]}, {"scheduling": {"schedulerName": "mine"}}, "spec.scheduling.schedulerName",
     {"scheduling": {"schedulerName": "volcano"}}),
    ({"devices": ["nvidia.com/*"]}, {"compute": {"gpus": {"resource": "smarter-devices/fuse"}}},
     "spec.compute.gpus.resource", {"compute": {"gpus": {}}}),
    ({"tolerations": ["gpu"]}, {"scheduling": {"tolerations": [{"operator": "Exists"}]}},
     "spec.scheduling.tolerations[0].key", {"scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}),
    ({"networkPolicy": "Required"}, {"security": {"networkPolicy": False}}, "spec.security.networkPolicy", {}),
    ({"egress": False}, {"security": {"egress": [{"to": {"cidr": "0.0.0.0/0"}}]}}, "spec.security.egress", {}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "beyond", "field", "within"), POLICIES)
def test_each_part_of_a_policy_refuses_what_goes_beyond_it_and_nothing_else(
    given: dict[str, Any], beyond: dict[str, Any], field: str, within: dict[str, Any]
) -> None:
    policy = Policy.model_validate(given)
    (refusal,) = refusals(make_spec(**beyond), policy, "risk")
    assert (refusal.reason, refusal.field) == (FORBIDDEN, field)
    assert any(word in refusal.message for word in ("leave it out", "choose", "raise it", "set it", "name", "mount it"))
    assert "operator's policy" in refusal.message
    name = "team-a" if field == "metadata.name" else "risk"
    assert refusals(make_spec(**within), policy, name) == ()
    assert refusals(make_spec(**within)) == refusals(make_spec(**beyond)) == ()


def test_every_key_of_a_policy_has_its_case() -> None:
    held = {key for given, *_ in POLICIES for key in given} | {"sharedMemoryPaths"}
    assert held == {info.alias for info in Policy.model_fields.values()}


def test_nothing_is_made_of_a_swarm_that_goes_beyond_the_policy_and_its_condition_says_why() -> None:
    snapshot = make_snapshot({"image": "evil.example/x"}, policy=Policy(images=["registry.example/*"]))
    planned = plan(snapshot, 0.0)
    assert planned.actions == ()
    conditions = {c["type"]: c for c in status_of(snapshot, planned, (), 0.0)["conditions"]}
    accepted = conditions["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", FORBIDDEN)
    assert accepted["message"].startswith(
        "spec.image: evil.example/x is not among the images that the operator's policy allows (registry.example/*); "
        "choose one of them, or ask who runs the operator"
    )
    assert conditions["Ready"]["reason"] == FORBIDDEN


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("*", "", True),
        ("a*", "a", True),
        ("a*c", "abbc", True),
        ("a*c", "abcd", False),
        ("a.c", "abc", False),
        ("[a]", "a", False),
        ("A", "a", False),
        ("a", "a\n", False),
        ("a*", "a\nb", False),
        ("a?", "ab", False),
    ],
)
def test_a_star_stands_for_any_characters_and_all_else_for_itself(pattern: str, value: str, fits: bool) -> None:
    assert allowed(value, [pattern]) is fits


def test_what_the_policy_does_not_see_is_still_refused_for_its_own_reason() -> None:
    found = refusals(make_spec(compute={"memory": "300Mi"}), Policy(images=["x"]))
    assert {refusal.reason for refusal in found} == {INVALID, FORBIDDEN}
