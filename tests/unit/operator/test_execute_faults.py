"""The executor under faults of the API server: what is success, what is told, and what is never done."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import kmock as km
import msgspec
import pytest

from support.operatorkit import UID, World, api_at, make_snapshot, make_spec, make_swarm, pod_json
from swarm_agents.config import Role
from swarm_operator import names, objects
from swarm_operator.actions import Action, Apply, CreatePod, Delete, DeletePod, EnsureKeys, Plan, ResumePod
from swarm_operator.agents import Agents
from swarm_operator.api.read import read_spec
from swarm_operator.cache import Cache
from swarm_operator.execute import Executor, NotLeader, Outcome
from swarm_operator.keyrecord import KEY_NAMES
from swarm_operator.keys import KeyMemory, examine, observe
from swarm_operator.plan import plan
from swarm_operator.pods import pod_manifest
from swarm_operator.views import AgentReport

pytestmark = [pytest.mark.kmock(cls=km.RawHandler)]

ROOT = "/api/v1/namespaces/default"


class Bench:
    """An executor against a mocked API server."""

    def __init__(self, url: str) -> None:
        self.api = api_at(url)
        self.memory = KeyMemory()
        self.agents = Agents(lambda: 0.0)
        self.cache = Cache(self.api, (), self.agents, self.memory, lambda: 0.0)
        self.leads = True
        self.executor = Executor(self.api, self.cache, self.agents, self.memory, leads=lambda: self.leads)

    async def do(self, *actions: Action) -> Outcome:
        return await self.executor.execute(make_snapshot({}), Plan(actions=actions))


@pytest.fixture
async def bench(kmock: Any) -> AsyncIterator[Bench]:
    one = Bench(str(kmock.url))
    yield one
    await one.api.close()


def status(code: int, reason: str, message: str = "no", **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}


def pod_action(ordinal: int = 0) -> CreatePod:
    spec, _ = read_spec({})
    assert spec is not None
    manifest = pod_manifest(make_swarm(), spec, names.PodName("risk", Role.COMPUTE, ordinal, 0), "r")
    return CreatePod("Pod", manifest["metadata"]["name"], manifest)


def stored(manifest: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {**manifest, "metadata": {**manifest["metadata"], "uid": "u1", "resourceVersion": "5"} | metadata}


def account(exists: bool = False) -> Apply:
    return Apply("ServiceAccount", "risk", objects.service_account_manifest(make_swarm()), exists=exists)


def budget() -> Apply:
    return Apply("PodDisruptionBudget", "risk", objects.budget_manifest(make_swarm(), 1), exists=True)


def called(kmock: Any, method: str) -> list[str]:
    return [request.url.path for request in kmock[method]]


async def test_a_new_child_is_looked_for_and_then_applied_with_our_field_manager(kmock: Any, bench: Bench) -> None:
    action = account()
    kmock[f"get {ROOT}/serviceaccounts/risk"] << 404 << status(404, "NotFound")
    kmock[f"patch {ROOT}/serviceaccounts/risk"] << stored(action.manifest)
    outcome = await bench.do(action)
    assert outcome.done == [action]
    (patch,) = kmock["patch"]
    assert patch.headers["Content-Type"] == "application/apply-patch+yaml"
    assert (patch.params["fieldManager"], patch.params["force"]) == ("agentswarm-operator", "true")
    assert bench.cache.store("ServiceAccount", "default").get("default", "risk") is not None, "no watch is waited for"


async def test_an_object_of_somebody_else_is_not_taken_over(kmock: Any, bench: Bench) -> None:
    action = account()
    kmock[f"get {ROOT}/serviceaccounts/risk"] << stored(action.manifest, ownerReferences=[{"uid": "somebody"}])
    outcome = await bench.do(action)
    (failure,) = outcome.failures
    assert failure.error.reason == "NameTaken"
    assert "rename the Swarm" in str(failure)
    assert not kmock["patch"]


async def test_a_pod_that_is_there_already_is_success(kmock: Any, bench: Bench) -> None:
    action = pod_action()
    kmock[f"post {ROOT}/pods"] << 409 << status(409, "AlreadyExists")
    kmock[f"get {ROOT}/pods/risk-compute-0-0"] << stored(action.manifest)
    kmock[f"patch {ROOT}/pods/risk-compute-0-0"] << stored(action.manifest)
    outcome = await bench.do(action)
    assert outcome.done == [action]
    (patch,) = kmock["patch"]
    assert set(patch.data) == {"apiVersion", "kind", "metadata"}, "only labels and owner are given back"


async def test_a_pod_of_our_name_that_is_somebody_elses_is_left_alone(kmock: Any, bench: Bench) -> None:
    kmock[f"post {ROOT}/pods"] << 409 << status(409, "AlreadyExists")
    kmock[f"get {ROOT}/pods/risk-compute-0-0"] << pod_json("risk-compute-0-0", ownerReferences=[{"uid": "other"}])
    (failure,) = (await bench.do(pod_action())).failures
    assert failure.error.reason == "NameTaken"
    assert not kmock["patch"]


async def test_a_field_that_can_not_be_changed_back_makes_the_object_anew(kmock: Any, bench: Bench) -> None:
    action = Apply("Service", "risk-agents", objects.agents_service_manifest(make_swarm(), make_spec()), exists=True)
    path = f"{ROOT}/services/risk-agents"
    kmock[f"patch {path}"][:1] << 422 << status(422, "Invalid", "spec.clusterIP: Invalid value: field is immutable")
    kmock[f"get {path}"] << stored(action.manifest, uid="old")
    kmock[f"delete {path}"] << {"kind": "Status", "status": "Success"}
    kmock[f"patch {path}"] << stored(action.manifest, uid="new")
    outcome = await bench.do(action)
    assert outcome.done == [action]
    (delete,) = kmock["delete"]
    assert delete.data["preconditions"] == {"uid": "old"}


async def test_what_was_added_is_removed_by_a_merge_patch_before_the_apply(kmock: Any, bench: Bench) -> None:
    manifest = objects.budget_manifest(make_swarm(), 1)
    action = Apply("PodDisruptionBudget", "risk", manifest, exists=True, remove={"spec": {"selector": {"a": None}}})
    kmock["patch"] << stored(manifest)
    await bench.do(action)
    first, second = kmock["patch"]
    assert first.headers["Content-Type"] == "application/merge-patch+json"
    assert json.loads(first.body) == action.remove
    assert second.headers["Content-Type"] == "application/apply-patch+yaml"


@pytest.mark.parametrize("answer", [404, 409])
async def test_deleting_what_is_gone_or_replaced_is_success(kmock: Any, bench: Bench, answer: int) -> None:
    kmock["delete"] << answer << status(answer, "NotFound" if answer == 404 else "Conflict")
    actions = (DeletePod("Pod", "risk-compute-0-0", "u1", "test"), Delete("ControllerRevision", "risk-old", "u2"))
    outcome = await bench.do(*actions)
    assert outcome.done == list(actions)
    assert sorted(request.data["preconditions"]["uid"] for request in kmock["delete"]) == ["u1", "u2"]


async def test_an_agent_that_goes_on_since_the_plan_was_made_is_not_deleted(kmock: Any, bench: Bench) -> None:
    kmock["delete"] << {"kind": "Status", "status": "Success"}
    gone = DeletePod("Pod", "risk-compute-0-0", "u1", "scaled in to 1; drained", "drained")
    drained = AgentReport(restarts=0, checked=0.0, state="drained")
    for report in (None, msgspec.structs.replace(drained, state="ready")):
        bench.agents._reports = {"u1": report} if report else {}
        assert (await bench.do(gone)).done == []
    assert not kmock["delete"]
    bench.agents._reports = {"u1": drained}
    assert (await bench.do(gone)).done == [gone]


async def test_an_agent_that_is_just_told_to_go_on_is_not_deleted_for_what_it_has_said_before(
    kmock: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kmock["delete"] << {"kind": "Status", "status": "Success"}
    gone = DeletePod("Pod", "risk-compute-0-0", "u1", "scaled in to 1; drained", "drained")
    bench.agents._reports = {"u1": AgentReport(restarts=0, checked=0.0, state="drained")}
    may_answer = asyncio.Event()

    async def resume(action: ResumePod, token: str) -> AgentReport:
        await may_answer.wait()
        return bench.agents._reports["u1"]

    monkeypatch.setattr(bench.agents, "resume", resume)
    assert (await bench.do(ResumePod("Pod", "risk-compute-0-0", "u1", "127.83.1.9", 0))).failures == []
    assert (await bench.do(gone)).done == []
    assert not kmock["delete"]
    may_answer.set()
    await bench.executor.close()
    assert (await bench.do(gone)).done == [gone]


@pytest.mark.parametrize(("code", "reason"), [(429, "TooManyRequests"), (500, "InternalError"), (503, "Unavailable")])
async def test_a_refused_action_is_told_and_the_others_of_its_stage_are_done(
    kmock: Any, bench: Bench, code: int, reason: str
) -> None:
    kmock["patch", "/apis/policy/v1/namespaces/default/poddisruptionbudgets/risk"] << code << status(code, reason)
    good = account(exists=True)
    kmock[f"patch {ROOT}/serviceaccounts/risk"] << stored(good.manifest)
    outcome = await bench.do(budget(), good)
    assert outcome.done == [good]
    (failure,) = outcome.failures
    assert (failure.error.status, failure.error.reason) == (code, reason)
    assert failure.action.name == "risk"


async def test_pods_are_not_created_while_what_they_need_is_refused_but_deletions_go_on(
    kmock: Any, bench: Bench
) -> None:
    kmock["patch"] << 403 << status(403, "Forbidden", "exceeded quota")
    kmock["delete"] << {"kind": "Status", "status": "Success"}
    gone = DeletePod("Pod", "risk-compute-9-0", "u1", "test")
    outcome = await bench.do(account(exists=True), pod_action(), gone)
    assert outcome.done == [gone]
    assert not kmock["post"]
    assert "exceeded quota" in str(outcome.failures[0])


async def test_retry_after_is_handed_on(kmock: Any, bench: Bench) -> None:
    kmock["post"] << 429 << {"Retry-After": "7"}
    assert (await bench.do(pod_action())).retry_after == 7.0


async def test_a_422_says_the_field_and_the_reason(kmock: Any, bench: Bench) -> None:
    causes = [{"field": "spec.containers[0].image", "message": "Required value"}]
    kmock["post"] << 422 << status(422, "Invalid", "Pod is invalid: spec.containers[0].image: Required", causes=causes)
    (failure,) = (await bench.do(pod_action())).failures
    assert "spec.containers[0].image" in str(failure)
    assert failure.error.causes == "spec.containers[0].image: Required value"


async def test_a_server_that_does_not_answer_is_an_error_like_any_other(bench: Bench) -> None:
    bench.api.configuration.host = "http://127.0.0.1:9"
    (failure,) = (await bench.do(pod_action())).failures
    assert failure.error.status == 0
    assert failure.error.reason == "Unreachable"


async def test_a_replica_that_does_not_lead_writes_nothing(kmock: Any, bench: Bench) -> None:
    bench.leads = False
    with pytest.raises(NotLeader):
        await bench.do(pod_action())
    assert not list(kmock)


def encoded(data: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}


def written(kmock: Any) -> dict[str, str]:
    (patch,) = kmock["patch"]
    return {key: base64.b64decode(value).decode() for key, value in patch.data["data"].items()}


async def test_keys_are_made_once_and_repaired_key_by_key(kmock: Any, bench: Bench) -> None:
    path = f"{ROOT}/secrets/risk-keys"
    kmock[f"get {path}"] << 404 << status(404, "NotFound")
    kmock[f"patch {path}"] << stored(objects.secret_manifest(make_swarm(), {}))
    await bench.do(EnsureKeys("Secret", "risk-keys", ("token",)))
    keys = written(kmock)
    assert examine(keys).missing == ()


async def test_a_key_that_was_edited_is_repaired_and_the_others_are_kept(kmock: Any, bench: Bench) -> None:
    from swarm_operator.keys import complete

    whole = complete({}, {})
    broken = {**whole, "hub.public": "nonsense", "token": ""}
    path = f"{ROOT}/secrets/risk-keys"
    manifest = objects.secret_manifest(make_swarm(), encoded(broken))
    kmock[f"get {path}"] << stored(manifest)
    kmock[f"patch {path}"] << stored(manifest)
    await bench.do(EnsureKeys("Secret", "risk-keys", ("hub.public", "token"), exists=True))
    after = written(kmock)
    assert {key: after[key] for key in KEY_NAMES if key != "token"} == {k: v for k, v in whole.items() if k != "token"}
    assert examine(after).missing == ()


async def test_a_deleted_secret_comes_back_with_the_keys_that_the_agents_hold(kmock: Any, bench: Bench) -> None:
    from swarm_operator.keys import complete

    whole = complete({}, {})
    bench.memory.remember(UID, whole)
    kmock["get"] << 404 << status(404, "NotFound")
    kmock["patch"] << stored(objects.secret_manifest(make_swarm(), {}))
    await bench.do(EnsureKeys("Secret", "risk-keys", ("token",)))
    after = written(kmock)
    assert {key: after[key] for key in KEY_NAMES} == whole
    assert observe(after).missing == ()


async def test_no_secret_is_in_a_plan_or_its_text() -> None:
    world = World({"compute": {"replicas": 1}})
    planned = plan(world.snapshot(), world.now)
    keys = [action for action in planned.actions if isinstance(action, EnsureKeys)]
    assert keys
    assert not any(hasattr(action, "manifest") for action in keys)
    assert "secret'" not in repr(KeyMemory())


async def test_since_when_pods_are_refused_is_remembered_until_one_is_made(kmock: Any, bench: Bench) -> None:
    now = 1000.0
    bench.executor = Executor(bench.api, bench.cache, bench.agents, bench.memory, now=lambda: now)
    key = names.Key("default", "risk")
    for _ in range(3):
        kmock[f"post {ROOT}/pods"] << 403 << status(403, "Forbidden", "exceeded quota: all")
        assert (await bench.do(pod_action())).failures
        now += 10.0
    known = bench.cache.refused(key)
    assert known is not None
    assert known.since == 1000.0
    assert "exceeded quota" in known.why
    await bench.do()
    assert bench.cache.refused(key) is None, "nothing is wanted any more"
