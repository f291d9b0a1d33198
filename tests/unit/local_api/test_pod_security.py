"""The Pod Security Standards, control by control, and what a namespace's labels make of a pod."""

from __future__ import annotations

from typing import Any

import pytest

from support.local_api import refused
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.pod_security import asked, violations

Object = dict[str, Any]


def make_pod(*, pod: Object | None = None, annotations: Object | None = None, **container: Object) -> Object:
    """A pod of the restricted level; keywords are fields of its spec, of its metadata, and of its one container."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    one: Object = {"name": "a", "image": "x", **container}
    one["securityContext"] = {**security, **container.get("securityContext", {})}
    spec: Object = {"containers": [one], **(pod or {})}
    whole = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec["securityContext"] = {**whole, **spec.get("securityContext", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", **({"annotations": annotations} if annotations else {})},
        "spec": spec,
    }


def of(pod: Object, level: str = "restricted") -> list[str]:
    return list(map(str, violations(pod, level)))


def test_a_pod_that_asks_for_nothing_is_of_every_level() -> None:
    for level in ("privileged", "baseline", "restricted"):
        assert of(make_pod(), level) == []


BASELINE: list[tuple[Object, str]] = [
    ({"pod": {"hostNetwork": True, "hostPID": True}}, "host namespaces (hostNetwork=true, hostPID=true)"),
    (
        {"securityContext": {"privileged": True}},
        'privileged (container "a" must not set securityContext.privileged=true)',
    ),
    ({"ports": [{"containerPort": 80, "hostPort": 80}]}, 'hostPort (container "a" uses hostPort 80)'),
    (
        {"livenessProbe": {"httpGet": {"port": 1, "host": "10.0.0.1"}}},
        'probe or lifecycle host (container "a" uses probe or lifecycle host "10.0.0.1")',
    ),
    (
        {"securityContext": {"procMount": "Unmasked"}},
        'procMount (container "a" must not set securityContext.procMount to "Unmasked")',
    ),
    (
        {"pod": {"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}}}},
        'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set)',
    ),
    (
        {"pod": {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}},
        "forbidden sysctls (kernel.msgmax)",
    ),
    (
        {"securityContext": {"windowsOptions": {"hostProcess": True}}},
        'hostProcess (container "a" must not set securityContext.windowsOptions.hostProcess=true)',
    ),
    (
        {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}},
        'forbidden AppArmor profile (container.apparmor.security.beta.kubernetes.io/a="unconfined")',
    ),
    (
        {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
        'forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")',
    ),
]


@pytest.mark.parametrize(("fields", "text"), BASELINE)
def test_what_baseline_forbids_is_forbidden_by_restricted_too(fields: Object, text: str) -> None:
    assert of(make_pod(**fields), "baseline") == [text]
    assert of(make_pod(**fields), "restricted") == [text]
    assert of(make_pod(**fields), "privileged") == []


ESCALATION = 'allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)'
RESTRICTED: list[tuple[Object, str, str]] = [
    (
        {"pod": {"volumes": [{"name": "h", "hostPath": {"path": "/dev/shm"}}]}},
        'hostPath volumes (volume "h")',
        'restricted volume types (volume "h" uses restricted volume type "hostPath")',
    ),
    (
        {"pod": {"volumes": [{"name": "n", "nfs": {}}, {"name": "i", "iscsi": {}}]}},
        "",
        'restricted volume types (volumes "n", "i" use restricted volume types "iscsi", "nfs")',
    ),
    ({"securityContext": {"allowPrivilegeEscalation": True}}, "", ESCALATION),
    ({"securityContext": {"allowPrivilegeEscalation": None}}, "", ESCALATION),
    (
        {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}}},
        'non-default capabilities (container "a" must not include "NET_RAW" in securityContext.capabilities.add)',
        'unrestricted capabilities (container "a" must not include "NET_RAW" in securityContext.capabilities.add)',
    ),
    (
        {"securityContext": {"capabilities": {"drop": ["NET_RAW"], "add": ["CHOWN"]}}},
        "",
        'unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]; container "a" '
        'must not include "CHOWN" in securityContext.capabilities.add)',
    ),
    (
        {"pod": {"securityContext": {"runAsNonRoot": None}}},
        "",
        'runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)',
    ),
    (
        {"securityContext": {"runAsNonRoot": False}},
        "",
        'runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false)',
    ),
    ({"pod": {"securityContext": {"runAsUser": 0}}}, "", "runAsUser=0 (pod must not set runAsUser=0)"),
    (
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
        'seccompProfile (container "a" must not set securityContext.seccompProfile.type to "Unconfined")',
        'seccompProfile (container "a" must not set securityContext.seccompProfile.type to "Unconfined")',
    ),
    (
        {"pod": {"securityContext": {"seccompProfile": None}}},
        "",
        'seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")',
    ),
]


@pytest.mark.parametrize(("fields", "baseline", "restricted"), RESTRICTED)
def test_restricted_asks_for_more_than_baseline(fields: Object, baseline: str, restricted: str) -> None:
    pod = make_pod(**fields)
    assert of(pod, "baseline") == ([baseline] if baseline else [])
    assert of(pod) == [restricted]


def test_what_restricted_allows() -> None:
    allowed = {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "runAsUser": 1}
    volumes = [{"name": kind, kind: {}} for kind in ("configMap", "secret", "emptyDir", "persistentVolumeClaim", "csi")]
    pod = make_pod(pod={"volumes": volumes}, securityContext=allowed, ports=[{"containerPort": 80}])
    assert of(pod) == []


def test_init_containers_are_looked_at_as_well_and_all_that_is_wrong_is_named() -> None:
    pod = make_pod(pod={"initContainers": [{"name": "i", "image": "x"}], "hostIPC": True})
    assert of(pod) == [
        "host namespaces (hostIPC=true)",
        ESCALATION.replace('"a"', '"i"'),
        'unrestricted capabilities (container "i" must set securityContext.capabilities.drop=["ALL"])',
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, ("privileged", "latest")),
        ({"pod-security.kubernetes.io/enforce": "baseline"}, ("baseline", "latest")),
        (
            {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "v1.36"},
            ("restricted", "v1.36"),
        ),
        ({"pod-security.kubernetes.io/enforce": "harmless"}, ("restricted", "latest")),
        ({"pod-security.kubernetes.io/warn": "restricted"}, ("privileged", "latest")),
    ],
)
def test_a_namespace_asks_by_its_labels(labels: dict[str, str], expected: tuple[str, str]) -> None:
    assert asked(labels, "enforce") == expected


async def label(client: LocalClient, **labels: str) -> None:
    wanted = {f"pod-security.kubernetes.io/{mode}": level for mode, level in labels.items()}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "locked", "labels": wanted}}
    await client.create("namespaces", made)


async def test_a_namespace_admits_only_pods_of_the_level_that_it_enforces(client: LocalClient) -> None:
    await label(client, enforce="restricted")
    await client.create("pods", make_pod(), namespace="locked")
    shares = make_pod(pod={"hostNetwork": True}) | {"metadata": {"name": "q"}}
    error = await refused(client.create("pods", shares, namespace="locked"))
    assert error.code == 403
    assert error.message == (
        'pods "q" is forbidden: violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)'
    )
    await client.create("pods", make_pod(pod={"hostNetwork": True}), namespace="default")


async def test_a_namespace_that_only_warns_admits_and_says_what_it_would_refuse(api: Api, client: LocalClient) -> None:
    await label(client, warn="baseline", enforce="privileged")
    shares = make_pod(pod={"hostPID": True})
    made = api.create(api.resource("pods"), "locked", shares, manager="test")
    assert made.warnings == ('would violate PodSecurity "baseline:latest": host namespaces (hostPID=true)',)
