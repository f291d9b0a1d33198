"""A Swarm that is valid and can't run says what is wrong and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from support.operatorkit import make_node, make_pod, make_snapshot
from swarm_operator.plan import plan
from swarm_operator.status import status_of

NOW = 2000.0


def degraded(spec: dict[str, Any], pod: dict[str, Any] | None = None, failures: tuple[str, ...] = ()) -> dict[str, Any]:
    pods = [make_pod(**({"phase": "Pending", "ready": False, "created": NOW - 6, **pod}))] if pod else []
    snapshot = make_snapshot(spec, pods, [make_node()])
    found = status_of(snapshot, plan(snapshot, NOW), failures, NOW)
    return next(c for c in found["conditions"] if c["type"] == "Degraded")


#: As a real API server writes them.
QUOTA = (
    'Create Pod/risk-compute-1-0: pods "risk-compute-1-0" is forbidden: exceeded quota: q, requested: pods=1, used: '
    "pods=2, limited: pods=2 (403 Forbidden)"
)
LIMIT = 'Create Pod/x: pods "x" is forbidden: maximum cpu usage per Container is 500m, but limit is 1 (403 Forbidden)'
GONE = 'pods "x" is forbidden: unable to create new content in namespace default because it is being terminated'


@pytest.mark.parametrize(
    ("failure", "reason", "advice"),
    [
        (QUOTA, "QuotaExceeded", "kubectl describe resourcequota -n default"),
        ("failed quota: q: must specify limits.cpu for: agent", "QuotaExceeded", "ResourceQuota"),
        (LIMIT, "LimitRangeExceeded", "kubectl describe limitrange -n default"),
        (GONE, "NamespaceTerminating", "make it in another namespace"),
        ("no PriorityClass with name high was found", "PriorityClassMissing", "scheduling.priorityClassName"),
        (
            'pod rejected: RuntimeClass "gvisor" not found',
            "RuntimeClassMissing",
            "podTemplate.runtimeClassName",
        ),
    ],
)
def test_what_the_api_server_refuses_is_named_with_what_to_do(failure: str, reason: str, advice: str) -> None:
    found = degraded({"scheduling": {"priorityClassName": "high"}}, failures=(failure,))
    assert (found["status"], found["reason"]) == ("True", reason)
    assert advice in found["message"]
    assert failure in found["message"]


GPU: dict[str, Any] = {"compute": {"gpus": {"count": 2}}}
CLAIM = {"state": {"medium": "PersistentVolumeClaim", "claimName": "kept"}}
VOLUME = {"compute": {"podTemplate": {"volumes": [{"name": "a", "configMap": {"name": "rates"}}]}}}
SECRET = {"compute": {"env": [{"name": "A", "secretKeyRef": {"name": "s", "key": "k"}}]}}


@pytest.mark.parametrize(
    ("spec", "pod", "reason", "advice"),
    [
        (
            GPU,
            {
                "reason": "Unschedulable",
                "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
                "node": "",
            },
            "Unschedulable",
            "No node has 2 nvidia.com/gpu to give",
        ),
        (
            {},
            {"reason": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient cpu.", "node": ""},
            "Unschedulable",
            "lower compute.replicas, compute.cpus",
        ),
        (
            {},
            {
                "reason": "Unschedulable",
                "message": "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
                "node": "",
            },
            "Unschedulable",
            "kubectl label node",
        ),
        (
            {},
            {"reason": "Unschedulable", "message": "2 node(s) had untolerated taint {a: b}", "node": ""},
            "Unschedulable",
            "scheduling.tolerations",
        ),
        (
            CLAIM,
            {"reason": "Unschedulable", "message": '0/2: persistentvolumeclaim "kept" not found', "node": ""},
            "ObjectMissing",
            "state.claimName",
        ),
        (
            SECRET,
            {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'},
            "ObjectMissing",
            "The secret s does not exist in the namespace default",
        ),
        ({}, {"reason": "ErrImagePull", "message": "not found"}, "ImageMissing", "correct spec.image"),
        ({}, {"reason": "ErrImageNeverPull"}, "ImageMissing", "imagePullPolicy IfNotPresent"),
        (
            {"scheduling": {"schedulerName": "nobody"}},
            {"node": "", "reason": ""},
            "NoScheduler",
            "is one called nobody running",
        ),
        (VOLUME, {"reason": "ContainerCreating"}, "VolumesNotMounted", "ConfigMap rates"),
    ],
)
def test_a_pod_that_can_not_start_is_named_with_what_to_do(
    spec: dict[str, Any], pod: dict[str, Any], reason: str, advice: str
) -> None:
    found = degraded(spec, pod)
    assert (found["status"], found["reason"]) == ("True", reason)
    assert advice in found["message"]
    assert "risk-compute-0-0" in found["message"]


@pytest.mark.parametrize("pod", [{"node": "", "reason": ""}, {"reason": "ContainerCreating"}])
def test_a_pod_of_which_nothing_is_heard_has_five_seconds_and_is_looked_at_again_then(pod: dict[str, Any]) -> None:
    spec = {**VOLUME, "scheduling": {"schedulerName": "nobody"}}
    assert degraded(spec, {**pod, "created": NOW - 4})["status"] == "False"
    waiting = make_pod(phase="Pending", ready=False, created=NOW - 4, **pod)
    again = plan(make_snapshot(spec, [waiting]), NOW).requeue_after
    assert again is not None
    assert again <= 1.2


def test_a_pod_that_is_being_created_and_mounts_nothing_is_no_trouble() -> None:
    assert degraded({}, {"reason": "ContainerCreating"})["status"] == "False"
