"""kubectl on pods that run: logs, waiting, describing, deleting.

The embedded kubelet runs a pod of image `localhost/host` as a process, with this machine's programs. A real cluster
needs an image of its own, with `sh` and `sleep` in it: SWARM_TEST_IMAGE names it (the agents' image has both).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from support.clusters import TestCluster
from support.kubectl import Kubectl, manifest

pytestmark = pytest.mark.kubectl

IMAGE_VARIABLE = "SWARM_TEST_IMAGE"


@pytest.fixture
def image(cluster: TestCluster) -> str:
    if cluster.embedded:
        return "localhost/host"
    found = os.environ.get(IMAGE_VARIABLE)
    if not found:
        pytest.skip(f"a real cluster's nodes need an image with sh in it: set {IMAGE_VARIABLE}")
    return found


def pod(name: str, image: str, script: str, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    given = {
        "terminationGracePeriodSeconds": 1,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": given | spec}


def test_logs_prints_what_the_container_said(kubectl: Kubectl, image: str) -> None:
    kubectl("create", "-f", "-", stdin=manifest(pod("p", image, "echo one; echo two >&2; echo three")))
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/p", "--timeout=30s")
    assert sorted(kubectl("logs", "p").out.split()) == ["one", "three", "two"]
    assert kubectl("logs", "p", "--tail=1").out.split()[-1] in {"two", "three"}
    stamp, *_ = kubectl("logs", "pod/p", "-c", "main", "--timestamps", "--tail=1").out.split()
    assert stamp.endswith("Z")
    assert "T" in stamp
    error = kubectl.refused("logs", "p", "-c", "other")
    assert "container other is not valid for pod p" in error


def test_logs_follow_prints_lines_as_they_come_and_ends_with_the_container(kubectl: Kubectl, image: str) -> None:
    script = "trap 'echo last; exit 0' TERM; echo first; while :; do sleep 0.1; done"
    kubectl("create", "-f", "-", stdin=manifest(pod("p", image, script, terminationGracePeriodSeconds=20)))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    with kubectl.running("logs", "-f", "p") as follow:
        assert follow.stdout is not None
        assert follow.stdout.readline() == "first\n"
        assert follow.poll() is None, "it follows as long as the container runs"
        kubectl("delete", "pod", "p", "--wait=false")
        rest, _ = follow.communicate(timeout=60)
        assert follow.returncode == 0
    assert rest == "last\n"


def test_logs_of_the_previous_container_are_kept_after_a_restart(kubectl: Kubectl, image: str) -> None:
    script = "echo run; exit 3"
    kubectl("create", "-f", "-", stdin=manifest(pod("p", image, script, restartPolicy="OnFailure")))
    restarted = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1"
    kubectl("wait", restarted, "pod/p", "--timeout=40s")
    status = kubectl.get("pod", "p")["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert kubectl("logs", "p", "--previous").out == "run\n"


def test_get_and_describe_show_a_running_pod(kubectl: Kubectl, image: str) -> None:
    kubectl("create", "-f", "-", stdin=manifest(pod("p", image, "sleep 600")))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    header, row = (line.split() for line in kubectl("get", "pods").out.splitlines())
    assert header == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row[:4] == ["p", "1/1", "Running", "0"]
    wide = kubectl("get", "pods", "-o", "wide", "--no-headers").out.split()
    status = kubectl.get("pod", "p")
    assert status["status"]["podIP"] in wide
    assert status["spec"]["nodeName"] in wide
    running = ("get", "pods", "--field-selector=status.phase=Running", "-o", "name")
    assert kubectl(*running).out == "pod/p\n"
    lines = [" ".join(line.split()) for line in kubectl("describe", "pod", "p").out.splitlines()]
    assert "Status: Running" in lines
    assert f"Image: {image}" in lines
    for reason in ("Normal Scheduled", "Normal Started"):
        assert any(line.startswith(reason) for line in lines), reason


def test_a_pod_finds_its_service_accounts_credentials(kubectl: Kubectl, image: str) -> None:
    script = "cd /var/run/secrets/kubernetes.io/serviceaccount && ls && cat namespace"
    kubectl("create", "-f", "-", stdin=manifest(pod("p", image, script, automountServiceAccountToken=None)))
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/p", "--timeout=30s")
    assert {"ca.crt", "token", kubectl.namespace} <= set(kubectl("logs", "p").out.split())


def test_delete_ends_the_pod_and_returns_when_it_is_gone(kubectl: Kubectl, image: str) -> None:
    kubectl("create", "-f", "-", stdin=manifest(pod("p", image, "trap 'exit 0' TERM; while :; do sleep 0.1; done")))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    kubectl("delete", "pod", "p", "--timeout=30s")
    assert 'pods "p" not found' in kubectl.refused("get", "pod", "p")


def test_a_pod_that_no_node_can_hold_stays_pending_and_an_event_says_why(kubectl: Kubectl, image: str) -> None:
    huge = pod("p", image, "sleep 600")
    huge["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "4000"}}
    kubectl("create", "-f", "-", stdin=manifest(huge))
    kubectl("wait", "--for=jsonpath={.status.conditions[0].reason}=Unschedulable", "pod/p", "--timeout=30s")
    events = kubectl.get("events", "--field-selector=involvedObject.name=p,reason=FailedScheduling")["items"]
    assert any("Insufficient cpu" in event["message"] for event in events)
    assert kubectl.get("pod", "p")["status"]["phase"] == "Pending"


@pytest.mark.embedded
def test_an_image_that_can_not_be_had_is_refused_by_an_event_not_run(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(pod("p", "example.com/nosuch:1", "sleep 600")))
    waiting = "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    kubectl("wait", waiting, "pod/p", "--timeout=30s")
    events = kubectl.get("events", "--field-selector=involvedObject.name=p,type=Warning")["items"]
    assert any("example.com/nosuch:1" in event["message"] for event in events), events
    assert kubectl.get("pod", "p")["status"]["phase"] == "Pending"
