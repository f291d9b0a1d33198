"""Builders of what the operator observes, and a simulated cluster in which its plans come true.

The simulation has what matters to the planner and no more: pods that start, become ready, drain and go; objects by kind
and name; agents that remember their settings. It stands for API server, scheduler, kubelet and agents, in plain values
and with a clock of its own.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from swarm_agents.config import Role, encode_settings, settings_revision
from swarm_operator import names
from swarm_operator.actions import (
    Action,
    Apply,
    AskAgent,
    CreatePod,
    Delete,
    DeletePod,
    DrainPod,
    EnsureKeys,
    Plan,
    PushSettings,
    RepairPod,
    ResumePod,
)
from swarm_operator.api.read import read_spec
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.objects import owner_reference
from swarm_operator.snapshot import KeyState, Refused, Snapshot
from swarm_operator.views import AgentReport, NodeView, ObjectView, PodView, SwarmView, Taint, decode

UID = "11111111-2222-3333-4444-555555555555"
PUBLIC = "P" * 40


def make_swarm(spec: dict[str, Any] | None = None, **fields: Any) -> SwarmView:
    """A Swarm called risk in the namespace default."""
    given: dict[str, Any] = {
        "namespace": "default",
        "name": "risk",
        "uid": UID,
        "resource_version": "1",
        "generation": 1,
        "deleting": False,
        "spec": spec or {},
        "status": {},
    }
    return SwarmView(**(given | fields))


def make_spec(**fields: Any) -> SwarmSpec:
    """A spec from a manifest's fields."""
    return SwarmSpec.model_validate(fields)


def make_pod(role: Role = Role.COMPUTE, ordinal: int = 0, incarnation: int = 0, **fields: Any) -> PodView:
    """A ready pod of the swarm risk, labelled as it should be."""
    name = names.PodName("risk", role, ordinal, incarnation)
    revision = fields.get("revision", "")
    given: dict[str, Any] = {
        "namespace": "default",
        "name": str(name),
        "uid": f"uid-{name}",
        "resource_version": "1",
        "labels": names.pod_labels(name, revision),
        "owners": (UID,),
        "swarm_uid": UID,
        "revision": revision,
        "node": "node-a",
        "target_node": "node-a" if role is Role.RESOURCE else "",
        "phase": "Running",
        "ready": True,
        "ip": f"10.0.{ordinal % 250}.{incarnation + 1}",
        "created": 1000.0,
    }
    return PodView(**(given | fields))


def make_node(name: str = "node-a", **fields: Any) -> NodeView:
    """A ready node."""
    taints = tuple(Taint(*taint) for taint in fields.pop("taints", ()))
    given = {"labels": {"kubernetes.io/hostname": name}, "resource_version": "1", "taints": taints}
    return NodeView(name=name, **(given | fields))


def make_report(**fields: Any) -> AgentReport:
    """An agent that answered."""
    return AgentReport(**({"restarts": 0, "checked": 1000.0, "state": "ready"} | fields))


def make_snapshot(
    spec: dict[str, Any] | None = None,
    pods: Iterable[PodView] = (),
    nodes: Iterable[NodeView] | None = None,
    **fields: Any,
) -> Snapshot:
    """A snapshot of the swarm risk; one node unless told otherwise."""
    swarm = fields.pop("swarm", None) or make_swarm(spec)
    parsed, invalid = read_spec(swarm.spec)
    return Snapshot(
        swarm=swarm,
        spec=parsed,
        invalid=invalid,
        pods=tuple(pods),
        nodes=tuple([make_node()] if nodes is None else nodes),
        **fields,
    )


class World:
    """The simulated cluster."""

    def __init__(self, spec: dict[str, Any], nodes: Iterable[NodeView] = (), now: float = 1000.0) -> None:
        self.swarm = make_swarm(spec)
        self.nodes = list(nodes) or [make_node("node-a"), make_node("node-b")]
        self.now = now
        self.pods: dict[str, PodView] = {}
        self.objects: dict[tuple[str, str], ObjectView] = {}
        #: By UID: what the agent knows, and how many tasks it has in hand.
        self.settings: dict[str, str] = {}
        self.draining: set[str] = set()
        self.tasks: dict[str, int] = {}
        #: How likely each agent thinks that it fails soon, by UID.
        self.failing: dict[str, float] = {}
        #: What the operator knows of the agents.
        self.reports: dict[str, AgentReport] = {}
        self.keys = KeyState()
        #: Pods that never become ready.
        self.broken: Callable[[PodView], bool] = lambda pod: False
        #: Whether the API server refuses pods, and what the operator knows of that.
        self.admits: Callable[[dict[str, Any]], bool] = lambda manifest: True
        self.refused: Refused | None = None
        #: Whether the operator may read nodes.
        self.nodes_known = True
        self._serial = 1

    def edit(self, spec: dict[str, Any]) -> None:
        """The user applies another spec."""
        self.swarm = msgspec.structs.replace(self.swarm, spec=spec, generation=self.swarm.generation + 1)

    def snapshot(self) -> Snapshot:
        """What the operator observes now."""
        spec, invalid = read_spec(self.swarm.spec)
        return Snapshot(
            swarm=self.swarm,
            spec=spec,
            invalid=invalid,
            pods=tuple(self.pods.values()),
            nodes=tuple(self.nodes) if self.nodes_known else (),
            nodes_known=self.nodes_known,
            objects=dict(self.objects),
            agents=dict(self.reports),
            keys=self.keys if ("Secret", "risk-keys") in self.objects else KeyState(),
            refused=self.refused,
        )

    def serial(self) -> str:
        """A fresh resourceVersion or UID."""
        self._serial += 1
        return str(self._serial)

    def add_pod(self, pod: PodView, tasks: int = 0) -> None:
        """Puts a pod there."""
        self.pods[pod.name] = pod
        self.tasks[pod.uid] = tasks

    def stands(self, action: Action) -> bool:
        """Whether it is carried out at all: see `Executor`."""
        if not isinstance(action, DeletePod) or not action.state:
            return True
        report = self.reports.get(action.uid)
        return report is not None and report.state == action.state

    def perform(self, action: Action, plan: Plan) -> None:
        """An action succeeds."""
        if not self.stands(action):
            return
        match action:
            case Apply():
                self._put_object(action.manifest, action.exists)
            case EnsureKeys():
                self.keys = KeyState(missing=(), hub_public=PUBLIC)
                manifest = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"token": "eA=="}}
                meta = {"name": action.name, "namespace": "default", "labels": names.object_labels("risk")}
                owners = [owner_reference(self.swarm)]
                self._put_object({**manifest, "metadata": {**meta, "ownerReferences": owners}}, False)
            case CreatePod():
                self._create(action.manifest)
            case RepairPod():
                pod = self.pods.get(action.name)
                if pod and pod.uid == action.uid:
                    labels = {**pod.labels, **action.metadata["labels"]}
                    owners = tuple({*pod.owners, self.swarm.uid})
                    self.pods[action.name] = msgspec.structs.replace(pod, labels=labels, owners=owners)
            case DeletePod():
                self._delete(action)
            case Delete():
                self.objects.pop((action.kind, action.name), None)
            case PushSettings() | DrainPod() | ResumePod() | AskAgent():
                self._ask(action, plan)
            case _:
                raise AssertionError(action)

    def _put_object(self, manifest: dict[str, Any], exists: bool) -> None:
        key = (manifest["kind"], manifest["metadata"]["name"])
        raw = copy.deepcopy(manifest)
        old = self.objects.get(key)
        raw["metadata"] |= {"uid": old.uid if old else f"uid-{self.serial()}", "resourceVersion": self.serial()}
        view = decode(manifest["kind"], msgspec.json.encode(raw))
        assert isinstance(view, ObjectView)
        self.objects[key] = view

    def _create(self, manifest: dict[str, Any]) -> None:
        if not self.admits(manifest):
            self.refused = self.refused or Refused(self.now, "pods are forbidden")
            return
        self.refused = None
        name = manifest["metadata"]["name"]
        if name in self.pods:
            return  # 409, which is success
        raw = copy.deepcopy(manifest)
        raw["metadata"] |= {"uid": f"uid-{self.serial()}", "resourceVersion": self.serial()}
        view = decode("Pod", msgspec.json.encode(raw))
        assert isinstance(view, PodView)
        self.add_pod(msgspec.structs.replace(view, created=self.now))

    def _delete(self, action: DeletePod) -> None:
        pod = self.pods.get(action.name)
        if pod is None or pod.uid != action.uid:
            return
        if pod.phase in ("Failed", "Succeeded") or not pod.node:
            del self.pods[action.name]
        else:
            self.pods[action.name] = msgspec.structs.replace(pod, deleting=True)

    def _ask(self, action: PushSettings | DrainPod | ResumePod | AskAgent, plan: Plan) -> None:
        pod = self.pods.get(action.name)
        if pod is None or pod.uid != action.uid or pod.restarts != action.restarts:
            return
        before = self.reports.get(pod.uid)
        since = before.drain_since if before else None
        if isinstance(action, PushSettings):
            assert plan.settings is not None
            assert settings_revision(plan.settings) == action.revision
            assert encode_settings(plan.settings)
            self.settings[pod.uid] = action.revision
        elif isinstance(action, DrainPod):
            self.draining.add(pod.uid)
            since = self.now if since is None else since
        elif isinstance(action, ResumePod):
            self.draining.discard(pod.uid)
            since = None
        drains = pod.uid in self.draining
        busy = self.tasks.get(pod.uid, 0)
        self.reports[pod.uid] = AgentReport(
            restarts=pod.restarts,
            checked=self.now,
            settings=self.settings.get(pod.uid, ""),
            state=("draining" if busy else "drained") if drains else "ready",
            running=busy,
            drain_since=since if drains else None,
            failing=self.failing.get(pod.uid, 0.0),
            failing_why="memory 95 % of its limit" if pod.uid in self.failing else "",
        )

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes: pods start and become ready, those that are being deleted go, tasks end."""
        self.now += seconds
        for name, pod in list(self.pods.items()):
            if pod.deleting:
                del self.pods[name]
                self.reports.pop(pod.uid, None)
            elif pod.phase == "Pending":
                node = pod.target_node or pod.node or self.nodes[zlib.crc32(name.encode()) % len(self.nodes)].name
                self.pods[name] = msgspec.structs.replace(
                    pod, phase="Running", node=node, ip=f"10.1.0.{len(name)}", resource_version=self.serial()
                )
            elif pod.phase == "Running" and not pod.ready and not self.broken(pod):
                # A hub waits while another one of its node is at work.
                serving = {p.target_node for p in self.pods.values() if p.target_node and p.ready}
                ready = pod.target_node not in serving
                changed = self.now if ready else pod.ready_changed
                self.pods[name] = msgspec.structs.replace(pod, started=True, ready=ready, ready_changed=changed)
            self.tasks[pod.uid] = max(0, self.tasks.get(pod.uid, 0) - 1)


def pod_json(name: str, *, version: str = "1", phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    """A pod of the swarm risk as the API server sends it."""
    given = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "resourceVersion": version,
        "labels": {names.LABEL_SWARM: "risk"},
        "ownerReferences": [{"apiVersion": "agentswarm.dev/v1alpha1", "kind": "Swarm", "name": "risk", "uid": UID}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": given | metadata,
        "spec": {"containers": [{"name": "agent", "env": [{"name": "SWARM_UID", "value": UID}]}]},
        "status": {"phase": phase},
    }


def api_at(url: str) -> Any:
    """A client of an API server without credentials."""
    from kubernetes.aio.client.api_client import ApiClient
    from kubernetes.aio.client.configuration import Configuration

    from swarm_operator.kube import Api

    return Api(ApiClient(Configuration(host=url.rstrip("/"))), "default")
