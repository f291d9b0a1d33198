"""What kubectl shows of a Swarm: tables, watches, descriptions, explanations, waits, events. Against any API server."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from support.kubectl import Kubectl, manifest
from support.swarms import READY, condition, swarm

pytestmark = pytest.mark.kubectl

_COUNTS = {"desired": 2, "current": 2, "ready": 1, "updated": 2, "draining": 0}


def set_status(kubectl: Kubectl, name: str = "risk", **status: Any) -> None:
    """Write what an operator would."""
    kubectl("patch", "swarm", name, "--type=merge", "--subresource=status", "-p", json.dumps({"status": status}))


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def event_about(swarm_: dict[str, Any], namespace: str, name: str, reason: str, message: str) -> dict[str, Any]:
    metadata = swarm_["metadata"]
    about = {"apiVersion": swarm_["apiVersion"], "kind": "Swarm", "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": about | {"name": metadata["name"], "uid": metadata["uid"]},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": {"component": "test"},
        "count": 3,
        "firstTimestamp": metadata["creationTimestamp"],
        "lastTimestamp": metadata["creationTimestamp"],
    }


def test_get_prints_the_swarms_columns(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm(), swarm("new", compute={"replicas": 3})))
    degraded = condition("Ready", "False", "AgentsStarting")
    set_status(kubectl, compute=_COUNTS, standby=_COUNTS | {"ready": 0}, conditions=[degraded], replicas=2)
    header, new, risk = cells(kubectl("get", "swarms").out)
    assert header == ["NAME", "DESIRED", "READY", "STANDBY", "STATUS", "AGE"]
    assert risk[:-1] == ["risk", "2", "1", "0", "AgentsStarting"]
    assert new[:-1] == ["new", "3"], "without a status its columns are empty"
    assert risk[-1].endswith("s"), "the age is a duration, not a date"


def test_get_wide_adds_the_image_and_the_revision(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm(image="agentswarm/agent:mine")))
    resource = _COUNTS | {"ready": 4}
    set_status(kubectl, compute=_COUNTS, standby=_COUNTS, resource=resource, revision="r1", observedSettings="s1")
    header, risk = cells(kubectl("get", "sw", "risk", "-o", "wide").out)
    assert header[-5:] == ["RESOURCE", "UPDATED", "REVISION", "SETTINGS", "IMAGE"]
    assert risk[-5:] == ["4", "2", "r1", "s1", "agentswarm/agent:mine"]


def test_get_prints_an_object_in_the_format_asked_for(kubectl: Kubectl) -> None:
    import yaml

    kubectl("create", "-f", "-", stdin=manifest(swarm(labels={"desk": "rates"})))
    shown = yaml.safe_load(kubectl("get", "swarm", "risk", "-o", "yaml").out)
    assert shown == kubectl.get("swarm", "risk")
    assert shown["spec"]["compute"]["replicas"] == 2
    assert list(shown) == ["apiVersion", "kind", "metadata", "spec"]
    assert kubectl("get", "swarm", "risk", "-o", "jsonpath={.spec.compute.replicas}").out == "2"
    columns = "custom-columns=N:.metadata.name,R:.spec.compute.replicas"
    assert cells(kubectl("get", "sw", "-o", columns).out) == [["N", "R"], ["risk", "2"]]
    assert kubectl("get", "sw", "--show-labels", "--no-headers").out.split()[-1] == "desk=rates"
    assert kubectl("get", "sw", "-L", "desk", "--no-headers").out.split()[-1] == "rates"


def test_get_finds_swarms_by_short_name_group_category_and_field(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm(), swarm("other")))
    both = ["swarm.agentswarm.dev/other", "swarm.agentswarm.dev/risk"]
    for resource in ("swarm", "sw", "swarms.agentswarm.dev", "swarms.v1alpha1.agentswarm.dev", "agentswarm"):
        assert kubectl("get", resource, "-o", "name").out.split() == both, resource
    assert set(both) <= set(kubectl("get", "all", "-o", "name").out.split())
    assert kubectl("get", "sw", "--field-selector=metadata.name=other", "-o", "name").out.split() == both[:1]
    assert "field label not supported: spec.image" in kubectl.refused("get", "sw", "--field-selector=spec.image=x")
    everywhere = kubectl("get", "sw", "-A", "--no-headers").out
    assert [kubectl.namespace, "risk", "2"] in [row[:3] for row in cells(everywhere)]


def test_get_reads_a_long_list_in_pages(kubectl: Kubectl) -> None:
    names = [f"s{n}" for n in range(7)]
    kubectl("create", "-f", "-", stdin=manifest(*[swarm(name) for name in names]))
    paged = kubectl.attempt("get", "sw", "--chunk-size=3", "--no-headers", "-v=6")
    assert [row[0] for row in cells(paged.out)] == names
    assert paged.err.count("continue=") >= 2, "it came in three pages"


def test_get_of_what_does_not_exist_says_so(kubectl: Kubectl) -> None:
    assert kubectl("get", "swarms").err == f"No resources found in {kubectl.namespace} namespace.\n"
    error = kubectl.refused("get", "swarm", "none")
    assert error == 'Error from server (NotFound): swarms.agentswarm.dev "none" not found\n'
    assert 'the server doesn\'t have a resource type "nosuch"' in kubectl.refused("get", "nosuch")


def test_get_watch_prints_every_change_as_it_happens(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    with kubectl.running("get", "swarms", "-w", "--output-watch-events") as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline().split()[:3] == ["EVENT", "NAME", "DESIRED"]
        assert watch.stdout.readline().split()[:3] == ["ADDED", "risk", "2"]
        kubectl("scale", "swarm/risk", "--replicas=4")
        assert watch.stdout.readline().split()[:3] == ["MODIFIED", "risk", "4"]
        set_status(kubectl, conditions=[READY])
        assert "AllAgentsReady" in watch.stdout.readline()
        kubectl("create", "-f", "-", stdin=manifest(swarm("second")))
        assert watch.stdout.readline().split()[:2] == ["ADDED", "second"]
        kubectl("delete", "swarm", "risk")
        assert watch.stdout.readline().split()[:2] == ["DELETED", "risk"]


def test_a_watch_with_a_selector_sees_objects_enter_and_leave_it(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm("a", labels={"in": "yes"}), swarm("b")))
    with kubectl.running("get", "sw", "-l", "in=yes", "-w", "--output-watch-events", "--no-headers") as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline().split()[:2] == ["ADDED", "a"]
        kubectl("label", "swarm", "b", "in=yes")
        assert watch.stdout.readline().split()[:2] == ["ADDED", "b"]
        kubectl("label", "swarm", "a", "in-")
        assert watch.stdout.readline().split()[:2] == ["DELETED", "a"]


def test_describe_shows_spec_status_and_events(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm(labels={"desk": "rates"})))
    set_status(kubectl, conditions=[READY], revision="abc")
    made = kubectl.get("swarm", "risk")
    event = event_about(made, kubectl.namespace, "risk.1", "OutOfCores", "no node has two cores left")
    kubectl("create", "-f", "-", stdin=manifest(event))
    text = kubectl("describe", "swarm", "risk").out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for expected in ("Name: risk", "Labels: desk=rates", "Kind: Swarm", "Replicas: 2", "Revision: abc"):
        assert expected in lines
    assert "Reason: AllAgentsReady" in lines
    assert any(line.startswith("Warning OutOfCores") and "no node has two cores left" in line for line in lines), text


def test_explain_tells_the_fields_of_the_spec(kubectl: Kubectl) -> None:
    text = kubectl("explain", "swarm.spec").out
    assert text.splitlines()[:3] == ["GROUP:      agentswarm.dev", "KIND:       Swarm", "VERSION:    v1alpha1"]
    for field in ("compute\t<Object>", "image\t<string>", "suspend\t<boolean>", "failover\t<Object>"):
        assert field in text
    assert "The agents' image. (rolling)" in text
    text = kubectl("explain", "swarm.spec.compute.replicas").out
    assert "FIELD: replicas <integer>" in text
    assert "How many compute agents." in text
    policy = kubectl("explain", "sw.spec.imagePullPolicy").out
    assert "ENUM: Always IfNotPresent Never" in " ".join(policy.split())
    assert 'field "nonsense" does not exist' in kubectl.refused("explain", "swarm.spec.nonsense")


def test_explain_recursive_reaches_the_innermost_fields(kubectl: Kubectl) -> None:
    fields = [line.split()[0] for line in kubectl("explain", "swarm", "--recursive").out.splitlines() if "\t<" in line]
    for field in ("heartbeatInterval", "sharedMemory", "secretKeyRef", "lastTransitionTime"):
        assert field in fields


def test_wait_returns_when_the_condition_comes_true(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    arguments = ("wait", "--for=condition=Ready", "swarm/risk")
    error = kubectl.refused(*arguments, "--timeout=1s")
    assert error == "error: timed out waiting for the condition on swarms/risk\n"
    with kubectl.running(*arguments, "--timeout=60s") as waiting:
        set_status(kubectl, conditions=[condition("Ready", "False", "Starting")])
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        set_status(kubectl, conditions=[READY])
        out, _ = waiting.communicate(timeout=30)  # on stderr it may tell how it ended its watch
        assert (out, waiting.returncode) == ("swarm.agentswarm.dev/risk condition met\n", 0)
    kubectl("scale", "swarm/risk", "--replicas=3")
    error = kubectl.refused(*arguments, "--timeout=1s")
    assert "timed out" in error, "a condition that speaks of an older generation of the spec does not count"


def test_wait_also_waits_for_values_for_creation_and_for_deletion(kubectl: Kubectl) -> None:
    with kubectl.running("wait", "--for=create", "swarm/risk", "--timeout=60s") as waiting:
        kubectl("create", "-f", "-", stdin=manifest(swarm()))
        assert waiting.wait(30) == 0
    with kubectl.running("wait", "--for=jsonpath={.spec.compute.replicas}=5", "sw/risk", "--timeout=60s") as waiting:
        kubectl("scale", "swarm/risk", "--replicas=5")
        assert waiting.wait(30) == 0
    with kubectl.running("wait", "--for=delete", "swarm/risk", "--timeout=60s") as waiting:
        kubectl("delete", "swarm", "risk")
        assert waiting.wait(30) == 0


def test_api_resources_lists_swarms_and_what_can_be_done_with_them(kubectl: Kubectl) -> None:
    text = kubectl("api-resources", "--api-group=agentswarm.dev", "--no-headers", "-o", "wide").out
    name, short, version, namespaced, kind, verbs, categories = text.split()
    assert (name, short, version, namespaced, kind) == ("swarms", "sw", "agentswarm.dev/v1alpha1", "true", "Swarm")
    assert set(verbs.split(",")) == {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
    assert set(categories.split(",")) == {"all", "agentswarm"}
    assert "agentswarm.dev/v1alpha1" in kubectl("api-versions").out.split()


def test_api_resources_lists_every_kind_that_a_swarm_is_made_of(kubectl: Kubectl) -> None:
    rows = kubectl("api-resources", "--no-headers").out.splitlines()
    kinds = {(row.split()[-3], row.split()[-1]) for row in rows}
    wanted = {
        ("v1", "ConfigMap"),
        ("v1", "Event"),
        ("v1", "Namespace"),
        ("v1", "Node"),
        ("v1", "Pod"),
        ("v1", "Secret"),
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
        ("apps/v1", "ControllerRevision"),
        ("coordination.k8s.io/v1", "Lease"),
        ("policy/v1", "PodDisruptionBudget"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    }
    assert wanted <= kinds


def test_get_events_shows_what_happened_to_which_object(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm(), swarm("other")))
    for name in ("risk", "other"):
        made = kubectl.get("swarm", name)
        event = event_about(made, kubectl.namespace, f"{name}.1", "Scaled", f"{name} from 2 to 3")
        kubectl("create", "-f", "-", stdin=manifest(event))
    assert "risk from 2 to 3" in kubectl("get", "events").out
    about = kubectl("get", "events", "--field-selector=involvedObject.name=risk,reason=Scaled", "--no-headers").out
    assert [row[1:4] for row in cells(about)] == [["Warning", "Scaled", "swarm/risk"]]
    told = kubectl("events", "--for", "swarm/risk", "--no-headers").out
    assert "Swarm/risk" in told
    assert "risk from 2 to 3" in told
    assert "other" not in told


def test_an_event_written_in_the_new_api_is_the_same_event_in_the_old(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    made = kubectl.get("swarm", "risk")
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "risk.new"},
        "regarding": {
            "apiVersion": made["apiVersion"],
            "kind": "Swarm",
            "name": "risk",
            "namespace": kubectl.namespace,
            "uid": made["metadata"]["uid"],
        },
        "eventTime": "2026-01-02T03:04:05.000000Z",
        "reportingController": "agentswarm.dev/operator",
        "reportingInstance": "operator-0",
        "action": "Scale",
        "type": "Normal",
        "reason": "Scaled",
        "note": "from 2 to 3",
    }
    kubectl("create", "-f", "-", stdin=manifest(event))
    old = kubectl.get("events", "risk.new")
    assert (old["apiVersion"], old["message"], old["involvedObject"]["name"]) == ("v1", "from 2 to 3", "risk")
    assert old["reportingComponent"] == "agentswarm.dev/operator"
    assert kubectl.get("events.v1.events.k8s.io", "risk.new")["note"] == "from 2 to 3"
