"""Every way in which kubectl changes a Swarm, against any API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.kubectl import Kubectl, manifest
from support.swarms import READY, swarm

pytestmark = pytest.mark.kubectl


def spec_of(kubectl: Kubectl, name: str = "risk") -> dict[str, Any]:
    spec: dict[str, Any] = kubectl.get("swarm", name)["spec"]
    return spec


def test_apply_creates_then_changes_nothing_then_changes_what_differs(kubectl: Kubectl) -> None:
    first = manifest(swarm(compute={"replicas": 2, "standby": 1}))
    assert kubectl("apply", "-f", "-", stdin=first).out == "swarm.agentswarm.dev/risk created\n"
    before = kubectl.get("swarm", "risk")
    assert kubectl("apply", "-f", "-", stdin=first).out == "swarm.agentswarm.dev/risk unchanged\n"
    assert kubectl.get("swarm", "risk")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]

    second = manifest(swarm(compute={"replicas": 3}, image="agentswarm/agent:other"))
    assert kubectl("apply", "-f", "-", stdin=second).out == "swarm.agentswarm.dev/risk configured\n"
    after = kubectl.get("swarm", "risk")
    assert after["spec"]["image"] == "agentswarm/agent:other"
    assert after["spec"]["compute"]["replicas"] == 3
    assert after["spec"]["compute"]["standby"] == 0, "what was taken out of the manifest goes back to its default"
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_apply_takes_several_objects_from_one_file(kubectl: Kubectl, tmp_path: Path) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "data"}, "data": {"a": "b"}}
    file = tmp_path / "both.yaml"
    file.write_text("\n---\n".join(json.dumps(each) for each in (config, swarm(), swarm("other"))))
    out = kubectl("apply", "-f", str(file)).out.splitlines()
    assert out == ["configmap/data created", "swarm.agentswarm.dev/risk created", "swarm.agentswarm.dev/other created"]


def test_server_side_apply_owns_fields_and_refuses_to_take_anothers_silently(kubectl: Kubectl) -> None:
    ours = manifest(swarm(compute={"replicas": 2}))
    out = kubectl("apply", "--server-side", "-f", "-", stdin=ours).out
    assert out == "swarm.agentswarm.dev/risk serverside-applied\n"
    entries = kubectl.get("swarm", "risk", "--show-managed-fields")["metadata"]["managedFields"]
    mine = next(entry for entry in entries if entry["manager"] == "kubectl")
    assert mine["operation"] == "Apply"
    assert mine["fieldsV1"]["f:spec"]["f:compute"]["f:replicas"] == {}
    assert "f:standby" not in mine["fieldsV1"]["f:spec"]["f:compute"], "a default is nobody's field"

    theirs = manifest(swarm(compute={"replicas": 5}))
    arguments = ("apply", "--server-side", "--field-manager=somebody", "-f", "-")
    error = kubectl.refused(*arguments, stdin=theirs)
    assert 'conflict with "kubectl"' in error
    assert ".spec.compute.replicas" in error
    assert spec_of(kubectl)["compute"]["replicas"] == 2
    kubectl(*arguments, "--force-conflicts", stdin=theirs)
    assert spec_of(kubectl)["compute"]["replicas"] == 5


def test_server_side_apply_removes_what_its_manager_no_longer_names(kubectl: Kubectl) -> None:
    both = manifest(swarm(compute={"replicas": 2, "kernels": ["risk.*", "hash.*"]}, image="agentswarm/agent:x"))
    kubectl("apply", "--server-side", "-f", "-", stdin=both)
    kubectl("apply", "--server-side", "-f", "-", stdin=manifest(swarm()))
    spec = spec_of(kubectl)
    assert "kernels" not in spec["compute"]
    assert spec["image"] != "agentswarm/agent:x"


def test_diff_shows_the_change_and_makes_none(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(swarm()))
    assert kubectl("diff", "-f", "-", stdin=manifest(swarm())).out == ""
    before = kubectl.get("swarm", "risk")
    shown = kubectl.attempt("diff", "-f", "-", stdin=manifest(swarm(compute={"replicas": 6})))
    assert shown.code == 1, "1 says that there are differences"
    changed = {" ".join(line.split()) for line in shown.out.splitlines() if line[:1] in "+-"}
    assert {"- replicas: 2", "+ replicas: 6"} <= changed
    assert kubectl.get("swarm", "risk") == before


def test_server_side_diff_works_for_an_object_that_does_not_exist_yet(kubectl: Kubectl) -> None:
    shown = kubectl.attempt("diff", "--server-side", "-f", "-", stdin=manifest(swarm("new")))
    assert shown.code == 1
    assert "+kind: Swarm" in shown.out
    assert kubectl.get("swarms")["items"] == []


def test_a_dry_run_on_the_server_fills_in_defaults_and_keeps_nothing(kubectl: Kubectl) -> None:
    made = kubectl("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=manifest(swarm())).json()
    assert made["spec"]["compute"]["standby"] == 0
    assert made["metadata"]["uid"]
    assert kubectl.get("swarms")["items"] == []


def test_replace_puts_the_whole_object_in_its_place(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(swarm(compute={"replicas": 4, "standby": 2}, suspend=True)))
    assert kubectl("replace", "-f", "-", stdin=manifest(swarm())).out == "swarm.agentswarm.dev/risk replaced\n"
    spec = spec_of(kubectl)
    assert (spec["compute"]["replicas"], spec["compute"]["standby"], spec["suspend"]) == (2, 0, False)


def test_replace_with_an_old_version_is_refused(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    old = kubectl.get("swarm", "risk")
    kubectl("scale", "swarm/risk", "--replicas=3")
    error = kubectl.refused("replace", "-f", "-", stdin=manifest(old))
    assert "(Conflict)" in error
    assert "the object has been modified; please apply your changes to the latest version and try again" in error
    assert spec_of(kubectl)["compute"]["replicas"] == 3


def test_replace_by_force_makes_a_new_object(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    old = kubectl.get("swarm", "risk")["metadata"]["uid"]
    out = kubectl("replace", "--force", "-f", "-", stdin=manifest(swarm())).out
    assert out.splitlines()[-1] == "swarm.agentswarm.dev/risk replaced"
    assert kubectl.get("swarm", "risk")["metadata"]["uid"] != old


def test_edit_saves_what_the_editor_wrote(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(swarm()))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/replicas: 2/replicas: 9/" "$1"\n')
    editor.chmod(0o755)
    out = kubectl("edit", "swarm", "risk", env={"KUBE_EDITOR": str(editor)}).out
    assert out == "swarm.agentswarm.dev/risk edited\n"
    assert spec_of(kubectl)["compute"]["replicas"] == 9
    out = kubectl("edit", "swarm", "risk", env={"KUBE_EDITOR": "true"})
    assert "Edit cancelled, no changes made." in out.out + out.err


def test_edit_shows_the_editor_why_the_server_refused(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(swarm()))
    seen = tmp_path / "seen"
    editor = tmp_path / "editor"
    # Called again with the reason as a comment, it changes nothing, whereupon kubectl gives up.
    editor.write_text(f'#!/bin/sh\ncat "$1" > {seen}\nsed -i "s/replicas: 2/replicas: -7/" "$1"\n')
    editor.chmod(0o755)
    result = kubectl.attempt("edit", "swarm", "risk", env={"KUBE_EDITOR": str(editor)})
    assert result.code == 1
    assert "# * spec.compute.replicas: Invalid value: -7" in seen.read_text()
    assert spec_of(kubectl)["compute"]["replicas"] == 2


def test_label_sets_changes_only_on_request_selects_and_removes(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(swarm(), swarm("other")))
    assert kubectl("label", "swarm", "risk", "desk=rates").out == "swarm.agentswarm.dev/risk labeled\n"
    assert "already has a value (rates)" in kubectl.refused("label", "swarm", "risk", "desk=credit")
    kubectl("label", "--overwrite", "swarm", "risk", "desk=credit")
    for selector in ("desk=credit", "desk in (credit,rates)", "desk", "desk!=rates,desk"):
        assert kubectl("get", "sw", "-l", selector, "-o", "name").out == "swarm.agentswarm.dev/risk\n", selector
    for selector in ("!desk", "desk notin (credit)"):
        assert kubectl("get", "sw", "-l", selector, "-o", "name").out == "swarm.agentswarm.dev/other\n", selector
    assert kubectl("label", "swarm", "risk", "desk-").out == "swarm.agentswarm.dev/risk unlabeled\n"
    assert "labels" not in kubectl.get("swarm", "risk")["metadata"]


def test_a_label_that_no_label_can_be_is_refused(kubectl: Kubectl) -> None:
    error = kubectl.refused("apply", "-f", "-", stdin=manifest(swarm(labels={"desk": "not a label value"})))
    assert "metadata.labels: Invalid value" in error
    assert "a valid label must be an empty string or consist of alphanumeric characters" in error


def test_annotate_sets_and_removes_without_a_new_generation(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    generation = kubectl.get("swarm", "risk")["metadata"]["generation"]
    assert kubectl("annotate", "swarm/risk", "note=over night").out == "swarm.agentswarm.dev/risk annotated\n"
    metadata = kubectl.get("swarm", "risk")["metadata"]
    assert metadata["annotations"] == {"note": "over night"}
    assert metadata["generation"] == generation, "only a change of the spec is a new generation"
    kubectl("annotate", "swarm/risk", "note-")
    assert "annotations" not in kubectl.get("swarm", "risk")["metadata"]


def test_a_merge_patch_changes_what_it_names_and_null_restores_the_default(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm(compute={"replicas": 2, "standby": 1})))
    patch = {"spec": {"compute": {"replicas": 7, "standby": None}}}
    out = kubectl("patch", "swarm", "risk", "--type=merge", "-p", json.dumps(patch)).out
    assert out == "swarm.agentswarm.dev/risk patched\n"
    compute = spec_of(kubectl)["compute"]
    assert (compute["replicas"], compute["standby"]) == (7, 0)
    again = kubectl("patch", "swarm", "risk", "--type=merge", "-p", '{"spec": {"compute": {"replicas": 7}}}').out
    assert again == "swarm.agentswarm.dev/risk patched (no change)\n"


def test_a_json_patch_is_applied_whole_or_not_at_all(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm(compute={"replicas": 2, "kernels": ["risk.*"]})))
    good = [
        {"op": "test", "path": "/spec/compute/replicas", "value": 2},
        {"op": "replace", "path": "/spec/compute/replicas", "value": 5},
        {"op": "add", "path": "/spec/compute/kernels/-", "value": "hash.*"},
    ]
    kubectl("patch", "swarm", "risk", "--type=json", "-p", json.dumps(good))
    compute = spec_of(kubectl)["compute"]
    assert (compute["replicas"], compute["kernels"]) == (5, ["risk.*", "hash.*"])
    bad = [good[1] | {"value": 6}, good[0]]
    error = kubectl.refused("patch", "swarm", "risk", "--type=json", "-p", json.dumps(bad))
    assert error == "The request is invalid: the server rejected our request due to an error in our request\n"
    assert spec_of(kubectl)["compute"]["replicas"] == 5


def test_a_strategic_patch_is_refused_for_a_custom_resource(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    error = kubectl.refused(
        "patch", "swarm", "risk", "--type=strategic", "-p", '{"spec": {"compute": {"replicas": 3}}}'
    )
    assert "application/strategic-merge-patch+json is not supported by agentswarm.dev/v1alpha1, Kind=Swarm" in error
    assert "application/merge-patch+json" in error, "it says what is supported instead"
    assert spec_of(kubectl)["compute"]["replicas"] == 2


def test_a_strategic_patch_merges_the_lists_of_a_built_in_kind_by_key(kubectl: Kubectl) -> None:
    ports = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}}
    kubectl("create", "-f", "-", stdin=manifest(service))
    patch = {"spec": {"ports": [{"port": 2, "name": "renamed"}]}}
    kubectl("patch", "service", "s", "--type=strategic", "-p", json.dumps(patch))
    after = {port["port"]: port["name"] for port in kubectl.get("service", "s")["spec"]["ports"]}
    assert after == {1: "a", 2: "renamed"}


def test_a_patch_of_the_status_leaves_the_spec_alone_and_the_other_way_round(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    both = json.dumps({"spec": {"compute": {"replicas": 9}}, "status": {"conditions": [READY]}})
    kubectl("patch", "swarm", "risk", "--type=merge", "--subresource=status", "-p", both)
    now = kubectl.get("swarm", "risk")
    assert now["spec"]["compute"]["replicas"] == 2
    assert now["status"]["conditions"] == [READY]
    kubectl("patch", "swarm", "risk", "--type=merge", "-p", json.dumps({"status": {"conditions": []}, "spec": {}}))
    assert kubectl.get("swarm", "risk")["status"]["conditions"] == [READY]
    assert kubectl.get("swarm", "risk")["metadata"]["generation"] == now["metadata"]["generation"]


def test_scale_writes_the_number_of_compute_agents(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    generation = kubectl.get("swarm", "risk")["metadata"]["generation"]
    assert kubectl("scale", "swarm/risk", "--replicas=5").out == "swarm.agentswarm.dev/risk scaled\n"
    after = kubectl.get("swarm", "risk")
    assert after["spec"]["compute"]["replicas"] == 5
    assert after["metadata"]["generation"] == generation + 1
    error = kubectl.refused("scale", "swarm/risk", "--current-replicas=2", "--replicas=1")
    assert "Expected replicas to be 2, was 5" in error
    scale = kubectl.get("swarm", "risk", "--subresource=scale")
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 5})


def test_scale_beyond_what_the_api_allows_is_refused(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    error = kubectl.refused("scale", "swarm/risk", "--replicas=999999")
    assert "spec.compute.replicas" in error
    assert "should be less than or equal to 5000" in error
    assert spec_of(kubectl)["compute"]["replicas"] == 2


def test_delete_removes_by_name_by_label_and_all(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm("a"), swarm("b", labels={"x": "y"}), swarm("c"), swarm("d")))
    out = kubectl("delete", "swarm", "a").out
    assert out.startswith('swarm.agentswarm.dev "a" deleted')
    kubectl("delete", "swarm", "-l", "x=y")
    assert kubectl("get", "sw", "-o", "name").out.split() == ["swarm.agentswarm.dev/c", "swarm.agentswarm.dev/d"]
    kubectl("delete", "swarm", "--all")
    assert kubectl.get("swarms")["items"] == []
    assert 'swarms.agentswarm.dev "a" not found' in kubectl.refused("delete", "swarm", "a")
    assert kubectl("delete", "swarm", "a", "--ignore-not-found").out == ""


def test_delete_collects_what_belonged_to_the_swarm(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    owner = kubectl.get("swarm", "risk")
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": "Swarm",
        "name": "risk",
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [reference]}}
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}}
    kubectl("create", "-f", "-", stdin=manifest(child, other))
    kubectl("delete", "swarm", "risk")
    kubectl("wait", "--for=delete", "configmap/child", "--timeout=30s")
    kubectl.get("configmap", "other")


def test_delete_waits_for_a_finalizer(kubectl: Kubectl) -> None:
    held = swarm()
    held["metadata"]["finalizers"] = ["example.com/hold"]
    kubectl("create", "-f", "-", stdin=manifest(held))
    assert "timed out" in kubectl.refused("delete", "swarm", "risk", "--timeout=1s")
    assert kubectl.get("swarm", "risk")["metadata"]["deletionTimestamp"]
    kubectl("patch", "swarm", "risk", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    kubectl("wait", "--for=delete", "swarm/risk", "--timeout=10s")
