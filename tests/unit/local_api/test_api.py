"""The API's verbs, as the cluster's own parts call them: versions, deletion, lists, watches, namespaces and more."""

from __future__ import annotations

from typing import Any

import pytest

from support.local_api import (
    WIDGETS,
    make_pod,
    make_widget,
    refused,
)
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import DEFINITIONS, Api

Object = dict[str, Any]


# -- create


async def test_a_new_object_gets_what_only_the_server_sets(client: LocalClient) -> None:
    widget = make_widget()
    widget["metadata"] |= {"uid": "mine", "creationTimestamp": "1999-01-01T00:00:00Z", "generation": 7}
    made = await client.create(WIDGETS, {**widget, "status": {"ready": 3}}, namespace="default")
    assert made["metadata"]["uid"] != "mine"
    assert made["metadata"]["creationTimestamp"] == "2027-01-15T08:00:00Z"
    assert made["metadata"]["generation"] == 1
    assert made["spec"] == {"size": 3, "spare": 1, "colour": "red"}
    assert "status" not in made, "a status is written through its subresource"


async def test_what_is_returned_is_the_callers_own(client: LocalClient) -> None:
    made = await client.create(WIDGETS, make_widget(), namespace="default")
    made["spec"]["size"] = 99
    assert (await client.get(WIDGETS, "w", "default"))["spec"]["size"] == 3


async def test_a_generated_name_is_made_until_it_is_free(client: LocalClient) -> None:
    names = set()
    for _ in range(20):
        made = await client.create(WIDGETS, {**make_widget(), "metadata": {"generateName": "w-"}}, namespace="default")
        names.add(made["metadata"]["name"])
    assert len(names) == 20
    assert all(n.startswith("w-") and len(n) == 7 for n in names)


async def test_a_create_is_refused_with_the_status_that_says_why(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    assert (await refused(client.create(WIDGETS, make_widget(), namespace="default"))).reason == "AlreadyExists"
    error = await refused(client.create(WIDGETS, make_widget("x"), namespace="nowhere"))
    assert error.status["message"] == 'namespaces "nowhere" not found'
    error = await refused(client.create(WIDGETS, make_widget("y", size=-1, colour="blue"), namespace="default"))
    assert error.status["details"]["causes"] == [
        {
            "reason": "FieldValueNotSupported",
            "message": 'Unsupported value: "blue": supported values: "red", "green"',
            "field": "spec.colour",
        },
        {
            "reason": "FieldValueInvalid",
            "message": "Invalid value: -1: spec.size in body should be greater than or equal to 0",
            "field": "spec.size",
        },
        {
            "reason": "FieldValueInvalid",
            "message": "Invalid value: -1: should be a non-negative integer",
            "field": ".spec.size",
        },
        {
            "reason": "FieldValueInvalid",
            "message": "Invalid value: null: some validation rules were not checked because the object was invalid;"
            " correct the existing errors to complete validation",
            "field": "<nil>",
        },
    ]
    error = await refused(client.create(WIDGETS, {**make_widget(), "apiVersion": "other/v1"}, namespace="default"))
    assert error.code == 400
    error = await refused(
        client.create(WIDGETS, {**make_widget(), "metadata": {"name": "a", "labels": 3}}, namespace="default")
    )
    assert error.code == 400
    error = await refused(client.create("nothing", {}, namespace="default"))
    assert (error.code, error.message) == (404, "the server could not find the requested resource")


async def test_a_dry_run_answers_as_if_and_keeps_nothing(client: LocalClient, api: Api) -> None:
    before = api.store.revision
    made = await client.create(WIDGETS, make_widget(), namespace="default", dry_run=True)
    assert made["metadata"]["uid"]
    assert api.store.revision == before
    assert (await refused(client.get(WIDGETS, "w", "default"))).code == 404


@pytest.mark.parametrize(
    "kind", ["deployments.apps", "jobs.batch", "persistentvolumeclaims", "ingresses.networking.k8s.io"]
)
async def test_a_kind_that_nothing_here_acts_on_is_refused_rather_than_kept(client: LocalClient, kind: str) -> None:
    error = await refused(client.create(kind, {"metadata": {"name": "x"}}, namespace="default"))
    assert error.code == 403
    assert "the embedded cluster" in error.message
    assert (await client.list(kind)).items == []


# -- update and patch


async def test_an_update_under_an_old_version_is_a_conflict(client: LocalClient) -> None:
    made = await client.create(WIDGETS, make_widget(), namespace="default")
    await client.patch(WIDGETS, "w", {"spec": {"size": 5}}, "default")
    made["spec"]["size"] = 7
    error = await refused(client.update(WIDGETS, made))
    assert (error.code, error.reason) == (409, "Conflict")
    assert "the object has been modified; please apply your changes to the latest version" in error.message
    del made["metadata"]["resourceVersion"]
    error = await refused(client.update(WIDGETS, made))
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in error.message
    configuration = await client.create("configmaps", {"metadata": {"name": "c"}}, namespace="default")
    del configuration["metadata"]["resourceVersion"]
    await client.update("configmaps", {**configuration, "data": {"a": "1"}})


async def test_a_change_that_changes_nothing_is_not_stored(client: LocalClient, api: Api) -> None:
    made = await client.create(WIDGETS, make_widget(), namespace="default")
    before = api.store.revision
    api.clock.now += 60  # type: ignore[attr-defined]
    assert await client.update(WIDGETS, made) == made
    assert await client.patch(WIDGETS, "w", {"spec": {"size": 3}}, "default") == made
    assert api.store.revision == before


async def test_the_generation_counts_changes_of_the_spec_alone(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")

    async def generation(patch: Object, **how: Any) -> int:
        return int((await client.patch(WIDGETS, "w", patch, "default", **how))["metadata"]["generation"])

    assert await generation({"metadata": {"labels": {"a": "b"}}}) == 1
    assert await generation({"status": {"ready": 1}}, subresource="status") == 1
    assert await generation({"spec": {"size": 4}}) == 2
    assert await generation({"spec": {"size": 5}}, dry_run=True) == 3
    assert await generation({"spec": {"size": 6}}) == 3


async def test_spec_and_status_are_written_through_their_own_paths(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    both = {"spec": {"size": 9}, "status": {"ready": 2}, "metadata": {"labels": {"a": "b"}}}
    through_status = await client.patch(WIDGETS, "w", both, "default", subresource="status")
    assert through_status["spec"]["size"] == 3
    assert through_status["status"] == {"ready": 2}
    assert "labels" not in through_status["metadata"]
    through_spec = await client.patch(WIDGETS, "w", {**both, "status": {"ready": 7}}, "default")
    assert through_spec["spec"]["size"] == 9
    assert through_spec["status"] == {"ready": 2}


async def test_what_is_immutable_stays(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(serial="a"), namespace="default")
    error = await refused(client.patch(WIDGETS, "w", {"spec": {"serial": "b"}}, "default"))
    assert error.message == 'Widget.example.test "w" is invalid: spec.serial: Invalid value: "b": serial may not change'
    uid = (await client.get(WIDGETS, "w", "default"))["metadata"]["uid"]
    await client.patch(WIDGETS, "w", {"metadata": {"creationTimestamp": "1999-01-01T00:00:00Z"}}, "default")
    held = await client.get(WIDGETS, "w", "default")
    assert held["metadata"]["creationTimestamp"] == "2027-01-15T08:00:00Z"
    error = await refused(client.patch(WIDGETS, "w", {"metadata": {"uid": "other"}}, "default"))
    assert f"UID in object meta: {uid}" in error.message


async def test_scale_reads_and_writes_the_count(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    await client.patch_status(WIDGETS, "w", {"ready": 2, "selector": "a=b"}, "default")
    scale = await client.get(WIDGETS, "w", "default", subresource="scale")
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 3},
        {"replicas": 2, "selector": "a=b"},
    )
    await client.patch(WIDGETS, "w", {"spec": {"replicas": 8}}, "default", subresource="scale")
    held = await client.get(WIDGETS, "w", "default")
    assert held["spec"]["size"] == 8
    assert held["metadata"]["generation"] == 2
    error = await refused(client.patch(WIDGETS, "w", {"spec": {"replicas": 101}}, "default", subresource="scale"))
    assert "should be less than or equal to 100" in error.message
    error = await refused(client.patch(WIDGETS, "w", {"spec": {"replicas": -1}}, "default", subresource="scale"))
    assert error.code == 422


async def test_an_invalid_object_from_before_a_stricter_schema_may_still_be_changed(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(size=90), namespace="default")
    definition = await client.get(DEFINITIONS, WIDGETS)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["size"]["maximum"] = 50
    await client.update(DEFINITIONS, definition)
    changed = await client.patch(WIDGETS, "w", {"spec": {"colour": "green"}}, "default")
    assert changed["spec"]["size"] == 90
    error = await refused(client.patch(WIDGETS, "w", {"spec": {"size": 80}}, "default"))
    assert "should be less than or equal to 50" in error.message


async def test_an_older_object_is_read_with_the_defaults_of_a_newer_schema(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    definition = await client.get(DEFINITIONS, WIDGETS)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["novel"] = {"type": "string", "default": "yes"}
    await client.update(DEFINITIONS, definition)
    assert (await client.get(WIDGETS, "w", "default"))["spec"]["novel"] == "yes"


async def test_an_apply_creates_and_then_owns(client: LocalClient) -> None:
    config = {"apiVersion": "example.test/v1", "kind": "Widget", **make_widget()}
    made = await client.patch(WIDGETS, "w", config, "default", type="apply")
    (entry,) = made["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("test", "Apply")
    assert entry["fieldsV1"] == {"f:spec": {"f:size": {}}}, "defaults belong to nobody"
    error = await refused(
        client.patch(WIDGETS, "w", {**config, "metadata": {"name": "other"}}, "default", type="apply")
    )
    assert error.code == 400
    error = await refused(client.patch(WIDGETS, "w", config, "default", type="apply", subresource="nothing"))
    assert error.code == 404


async def test_a_strategic_patch_is_for_built_in_kinds(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    assert (await refused(client.patch(WIDGETS, "w", {}, "default", type="strategic"))).code == 415
    await client.create("pods", make_pod(), namespace="default")
    patch = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "y:2"}]}}
    patched = await client.patch("pods", "p", patch, "default", type="strategic")
    assert patched["spec"]["containers"][0]["image"] == "y:2"
    error = await refused(client.patch("pods", "p", {"spec": {"hostNetwork": True}}, "default", type="strategic"))
    assert "pod updates may not change fields other than" in error.message


# -- delete


async def test_a_delete_takes_effect_at_once_or_waits_for_finalizers(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    status = await client.delete(WIDGETS, "w", "default")
    assert (status["status"], status["details"]["kind"]) == ("Success", "widgets")
    held = make_widget("h")
    held["metadata"]["finalizers"] = ["example.test/wait"]
    await client.create(WIDGETS, held, namespace="default")
    going = await client.delete(WIDGETS, "h", "default")
    assert going["metadata"]["deletionTimestamp"]
    assert going["metadata"]["generation"] == 2
    assert await client.delete(WIDGETS, "h", "default") == going, "once more changes nothing"
    error = await refused(
        client.patch(WIDGETS, "h", {"metadata": {"finalizers": ["example.test/wait", "x.test/y"]}}, "default")
    )
    assert "no new finalizers can be added if the object is being deleted" in error.message
    await client.patch(WIDGETS, "h", {"metadata": {"finalizers": None}}, "default")
    assert (await refused(client.get(WIDGETS, "h", "default"))).code == 404


async def test_a_delete_with_a_precondition_that_does_not_hold_is_a_conflict(client: LocalClient) -> None:
    made = await client.create(WIDGETS, make_widget(), namespace="default")
    error = await refused(client.delete(WIDGETS, "w", "default", uid="other"))
    assert "Precondition failed: UID in precondition: other" in error.message
    await client.patch(WIDGETS, "w", {"spec": {"size": 4}}, "default")
    old = made["metadata"]["resourceVersion"]
    assert (await refused(client.delete(WIDGETS, "w", "default", resource_version=old))).code == 409
    await client.delete(WIDGETS, "w", "default", uid=made["metadata"]["uid"])


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_the_propagation_policy_leaves_a_finalizer_for_the_garbage_collector(
    client: LocalClient, policy: Any, finalizer: str
) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    going = await client.delete(WIDGETS, "w", "default", propagation=policy)
    assert going["metadata"]["finalizers"] == [finalizer]
    error = await refused(client.delete(WIDGETS, "w", "default", propagation="Sideways"))  # type: ignore[arg-type]
    assert "propagationPolicy" in error.message


async def test_a_pod_is_given_its_grace_period_once_it_runs(client: LocalClient, api: Api) -> None:
    await client.create("pods", make_pod(terminationGracePeriodSeconds=20), namespace="default")
    await client.create("pods", make_pod("never-placed"), namespace="default")
    gone = await client.delete("pods", "never-placed", "default")
    assert gone["kind"] == "Pod"
    assert (await refused(client.get("pods", "never-placed", "default"))).code == 404
    await client.subresource("pods", "p", "binding", {"target": {"name": "n"}}, "default")
    going = await client.delete("pods", "p", "default")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 20
    assert going["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:20Z"
    later = await client.delete("pods", "p", "default", grace_period=60)
    assert later["metadata"]["deletionGracePeriodSeconds"] == 20, "a later request may only hurry"
    hurried = await client.delete("pods", "p", "default", grace_period=5)
    assert hurried["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:05Z"
    revision = api.store.revision
    await client.delete("pods", "p", "default", grace_period=0)
    assert [e.type for e in api.store.watcher("pods", revision).drain()] == ["MODIFIED", "DELETED"]
