"""What stock kubectl and kopf asked a real API server, asked of the embedded one: the same answers must come.

The recordings lie beside the repository (`../shared/real-api`, or where SWARM_REAL_API says) and the tests are
skipped where they are not: what the suite needs on a bare clone is in `test_own_exchanges`, with data of its own.

A recording holds what went over the wire and nothing of what happened beside it: kubelets writing statuses,
controllers, three commands that ran while a watch was open. The stage directions below play these parts, under the
names that the real ones used, and take the statuses from the recording itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.replay import Exchange, Replayer
from swarm_deploy.local.api.app import Server, serve
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import DEFINITIONS, Api
from swarm_deploy.local.api.lifecycle import Sweeper
from swarm_deploy.local.api.managed import LAST_APPLIED
from swarm_deploy.local.api.meta import parse_time
from swarm_deploy.local.store import Store

Object = dict[str, Any]

_FOLDER = Path(os.environ.get("SWARM_REAL_API") or Path(__file__).parents[4] / "shared" / "real-api")
pytestmark = pytest.mark.skipif(
    not (_FOLDER / "kubectl.jsonl").exists(),
    reason=f"no recordings in {_FOLDER}; SWARM_REAL_API can name another place",
)

# What is not compared, and why. Every exchange is sent.
_EVERYWHERE = {
    "protobuf bodies": "the embedded server answers in JSON, which every client that asks for protobuf reads as well",
    "openshift-service-ca": "a certificate bundle that the recorded distribution adds to each pod and namespace",
    "columnDefinitions[].description": "texts of built-in kinds' columns; kubectl shows names and cells only",
    "serverAddressByClientCIDRs": "where the real server listened",
    "openid": "the embedded cluster is no OpenID provider for others, so it has no documents about that",
    "gitCommit, compiler...": "how the real server was built",
}
_HERE: dict[int, dict[str, str]] = {
    164: {".body.rows": "events of the recorded cluster's own kubelets and controllers"},
    169: {".body.rows[0].object.metadata": "of the Node only its status is played, not who wrote its labels"},
    170: {".body.metadata": "of the Node only its status is played, not who wrote its labels"},
}
_BEFORE = "2026-11-22T21:43:00Z"
_SOME_TIME = "2026-11-22T21:50:13.000000Z"


def _load(name: str) -> list[Exchange]:
    with (_FOLDER / name).open(encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    found = [Exchange(r["seq"], r["command"], _quiet(r["request"]), _quiet(r["response"])) for r in read]
    return sorted(found, key=lambda e: e.number)


def _quiet(value: Any) -> Any:
    """The recording without what is left out everywhere."""
    if isinstance(value, dict):
        out = {k: _quiet(v) for k, v in value.items()}
        if "protobuf" in str((out.get("headers") or {}).get("Content-Type", "")) and "status" in out:
            del out["headers"]["Content-Type"]
            out.pop("body", None)
        return out
    if isinstance(value, list):
        return [_quiet(v) for v in value if "openshift-service-ca" not in json.dumps(v)[:400] or not _is_bundle(v)]
    return value


def _is_bundle(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return "configMap" in value or (value.get("cells") or [None])[0] == "openshift-service-ca.crt"


def _ignored(where: str) -> bool:
    if ".columnDefinitions" in where and where.endswith(".description"):
        return True
    if ".serverAddressByClientCIDRs" in where or ".openid" in where or ".well-known" in where:
        return True
    return where in tuple(f".body.{k}" for k in ("gitCommit", "goVersion", "compiler", "platform", "gitTreeState"))


@asynccontextmanager
async def _server(tmp_path: Path, clock: Callable[[], float]) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    async def reader(namespace: str, pod: str, container: str, options: Object) -> Any:
        async def lines() -> AsyncIterator[bytes]:
            assert (namespace, pod, container) == ("default", "p1", "c")
            yield b"2026-11-22T21:50:12.723689697Z hello\n" if options["timestamps"] else b"hello\n"

        return lines()

    store = Store(None)
    async with serve(store, state=tmp_path, log_reader=reader, clock=clock) as server:
        connector = aiohttp.TCPConnector(ssl=server.credentials.client_context())
        headers = {"Authorization": f"Bearer {server.credentials.token}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**22) as session:
            yield server, session
    store.close()


class _Clock:
    """The recorded server's clock, as far as its answers tell: who wrote first decides the order of `managedFields`."""

    def __init__(self, start: str) -> None:
        self.now = parse_time(start)

    def __call__(self) -> float:
        return self.now

    def at(self, exchange: Exchange) -> None:
        """Move to when the recorded server answered."""
        times: list[str] = []
        if exchange.request["method"] != "GET":
            _times(exchange.response.get("body"), times)
        self.to(*times)

    def to(self, *times: str) -> None:
        """Move to the latest of these times, if that is later."""
        self.now = max([self.now, *map(parse_time, times)])


def _times(value: Any, found: list[str]) -> None:
    """The times at which a server wrote, as objects carry them."""
    if isinstance(value, dict):
        found += [v for k, v in value.items() if k in ("time", "creationTimestamp") and isinstance(v, str)]
        for inner in value.values():
            _times(inner, found)
    elif isinstance(value, list):
        for inner in value:
            _times(inner, found)


class _Broom(Sweeper):
    """A sweeper that sweeps when it is told to."""

    def __init__(self, api: Api) -> None:
        before = api.sweeper
        super().__init__(api)
        api.sweeper = before


class _Stage:
    """The parts of the recorded cluster that did not speak through the recorded client."""

    def __init__(self, server: Server, clock: _Clock) -> None:
        self.api = server.api
        self.clock = clock
        self.kubelet = LocalClient(server.api, "kubelet")
        self.controllers = LocalClient(server.api, "kube-controller-manager")

    async def kubelet_reports(self, pod: Object) -> None:
        """Write the status that the recorded kubelet had written by then."""
        entries = [e for e in pod["metadata"]["managedFields"] if e["manager"] == "kubelet"]
        self.clock.to(*(e["time"] for e in entries))
        held = await self.kubelet.get("pods", pod["metadata"]["name"], "default")
        await self.kubelet.update_status("pods", {**held, "status": pod["status"]})

    async def pod_goes_on(self, events: list[Object]) -> None:
        """Whatever makes a pod's next events come: placing it, reports, and its end."""
        for before, event in pairwise([e["object"] for e in events if e["type"] != "BOOKMARK"]):
            name, meta = event["metadata"]["name"], event["metadata"]
            if event == before or ("nodeName" in event["spec"] and "nodeName" not in before["spec"]):
                target = {"target": {"name": event["spec"]["nodeName"]}}
                await self.kubelet.subresource("pods", name, "binding", target, "default")
            elif meta.get("deletionGracePeriodSeconds") != before["metadata"].get("deletionGracePeriodSeconds"):
                grace = meta["deletionGracePeriodSeconds"]
                await self.kubelet.delete("pods", name, "default", grace_period=grace)
                if grace == 0:
                    return  # that was its end
            else:
                await self.kubelet_reports(event)

    async def leftover_pod(self) -> None:
        """One that had run in the recorded cluster before."""
        recorded = next(e for e in _load("kopf.jsonl") if e.request["path"].endswith("/pods") and not e.watches)
        pod = recorded.response["body"]["items"][0]
        annotations = pod["metadata"]["annotations"]
        applied = json.loads(annotations[LAST_APPLIED])
        applied["metadata"]["annotations"] = annotations
        self.clock.to(pod["metadata"]["creationTimestamp"])
        await LocalClient(self.api, "kubectl-client-side-apply").create("pods", applied, namespace="default")
        await self.kubelet.subresource("pods", "pin", "binding", {"target": {"name": "node1"}}, "default")
        await self.kubelet_reports(pod)


class _KubectlStage(_Stage):
    """What happened beside kubectl's commands."""

    def __init__(self, server: Server, exchanges: list[Exchange], clock: _Clock) -> None:
        super().__init__(server, clock)
        self.exchanges = {e.number: e for e in exchanges}
        self._sweeper: Any = None

    def directions(self) -> dict[int, Callable[[], Awaitable[None]]]:
        """What to do before which exchange."""
        out: dict[int, Callable[[], Awaitable[None]]] = {
            1: self.cluster_is_there,
            123: self.commands_beside_the_watch,
            141: self.pod_is_placed,
            153: partial(self.kubelet_reports, self.body(155)),
            219: self.controllers_are_slow,
            222: self.controllers_go_on,
            233: partial(self.pod_goes_on, self.exchanges[232].response["events"]),
            236: self.controllers_are_slow,
            237: self.definition_is_being_deleted,
            238: self.controllers_go_on,
        }
        for number, exchange in self.exchanges.items():
            body = exchange.response.get("body")
            if number > 141 and number not in out and isinstance(body, dict) and body.get("kind") == "Pod":
                out[number] = partial(self.kubelet_reports, body)
        return out

    def body(self, number: int) -> Object:
        body: Object = self.exchanges[number].response["body"]
        return body

    async def cluster_is_there(self) -> None:
        await self.leftover_pod()
        rows = self.body(210)["rows"]
        meta, cells = rows[1]["object"]["metadata"], rows[1]["cells"]
        lease = {
            "metadata": {k: meta[k] for k in ("name", "labels", "annotations")},
            "spec": {"holderIdentity": cells[1], "leaseDurationSeconds": 3600, "renewTime": _SOME_TIME},
        }
        server = LocalClient(self.api, "kube-apiserver")
        await server.create("leases.coordination.k8s.io", lease, namespace="kube-system")

    async def pod_is_placed(self) -> None:
        node = self.body(170)
        await self.kubelet.create("nodes", {"metadata": {"name": "node1"}, "status": node["status"]})
        owner = await self.kubelet.get("nodes", "node1")
        reference = {"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": owner["metadata"]["uid"]}
        lease = {
            "metadata": {"name": "node1", "ownerReferences": [reference]},
            "spec": {"holderIdentity": "node1", "leaseDurationSeconds": 40, "renewTime": _SOME_TIME},
        }
        await self.kubelet.create("leases.coordination.k8s.io", lease, namespace="kube-node-lease")
        await self.kubelet.subresource("pods", "p1", "binding", {"target": {"name": "node1"}}, "default")
        await self.kubelet_reports(self.body(150))
        budget = self.body(148)["status"]
        await self.controllers.patch_status("poddisruptionbudgets.policy", "pdb", budget, "default")

    async def commands_beside_the_watch(self) -> None:
        """`label`, `delete` and `apply`, which ran while `get -w` was open and were not recorded."""
        where = ("swarms.agentswarm.dev", "risk")
        times: list[str] = []
        _times(self.exchanges[122].response["events"][0], times)
        self.clock.to(*times)
        await LocalClient(self.api, "kubectl-label").patch(*where, {"metadata": {"labels": {"c": "d"}}}, "default")
        await self.kubelet.delete(*where, "default")
        created = self.exchanges[17].request["body"]
        await LocalClient(self.api, "kubectl-client-side-apply").create(where[0], created, namespace="default")

    async def controllers_are_slow(self) -> None:
        """Deleting what a namespace or a definition holds takes a real cluster seconds."""
        self._sweeper, self.api.sweeper = self.api.sweeper, None

    async def controllers_go_on(self) -> None:
        self.api.sweeper = self._sweeper
        times: list[str] = []
        _times(self.exchanges[221].response["events"][2], times)
        self.clock.to(*times)
        for _ in range(4):
            _Broom(self.api).sweep()

    async def definition_is_being_deleted(self) -> None:
        """The first of two steps."""
        self.clock.to(*(e["time"] for e in self.body(237)["metadata"]["managedFields"]))
        _Broom(self.api).sweep()

    async def definition_comes_again(self) -> None:
        """As it did later in the recorded cluster, while the last watch was still open."""
        obj = dict(self.exchanges[7].request["body"])
        await LocalClient(self.api, "kubectl-client-side-apply").create(DEFINITIONS, obj)


class _KopfStage(_Stage):
    """What happened around an operator that watched Swarms and Pods."""

    def __init__(self, server: Server, exchanges: list[Exchange], clock: _Clock) -> None:
        super().__init__(server, clock)
        watches = [e for e in exchanges if e.watches]
        self.swarms = next(e for e in watches if e.request["path"].endswith("/swarms")).response["events"]
        self.pods = next(e for e in watches if e.request["path"].endswith("/pods")).response["events"]

    async def cluster_is_there(self) -> None:
        definition = next(e for e in _load("kubectl.jsonl") if e.number == 7).request["body"]
        await LocalClient(self.api, "kubectl-client-side-apply").create(DEFINITIONS, definition)
        await self.leftover_pod()

    async def things_happen(self) -> None:
        where = ("swarms.agentswarm.dev", "risk")
        times: list[str] = []
        _times(self.swarms[0], times)
        self.clock.to(*times)
        first = self.swarms[0]["object"]
        note = first["metadata"]["annotations"]
        created = {"metadata": {"name": "risk", "annotations": note}, "spec": first["spec"]}
        await LocalClient(self.api, "kubectl-client-side-apply").create(where[0], created, namespace="default")
        changed = {"spec": {"compute": {"replicas": 2}}}
        await LocalClient(self.api, "kubectl-patch").patch(*where, changed, "default")
        pod = self.pods[0]["object"]
        ran = {k: pod["spec"]["containers"][0][k] for k in ("name", "image", "imagePullPolicy")}
        created = {"metadata": {"name": "pz", "labels": pod["metadata"]["labels"]}, "spec": {"containers": [ran]}}
        created["spec"] |= {k: pod["spec"][k] for k in ("restartPolicy",)}
        await LocalClient(self.api, "kubectl-run").create("pods", created, namespace="default")
        await self.pod_goes_on(self.pods)
        await self.kubelet.delete(*where, "default")


async def test_kubectls_requests_get_a_real_servers_answers(tmp_path: Path) -> None:
    exchanges = _load("kubectl.jsonl")
    clock = _Clock(_BEFORE)
    async with _server(tmp_path, clock) as (server, session):
        stage = _KubectlStage(server, exchanges, clock)
        replayer = Replayer(session, server.url, stage.directions(), _HERE, _ignored)
        replayer.finale = stage.definition_comes_again
        replayer.tick = clock.at
        found = await replayer.run(exchanges)
    assert not found, "\n".join(f"{name}\n  " + "\n  ".join(map(str, d[:8])) for name, d in found.items())


async def test_kopfs_requests_get_a_real_servers_answers(tmp_path: Path) -> None:
    exchanges = _load("kopf.jsonl")
    clock = _Clock(_BEFORE)
    async with _server(tmp_path, clock) as (server, session):
        stage = _KopfStage(server, exchanges, clock)
        replayer = Replayer(session, server.url, {1: stage.cluster_is_there}, {}, _ignored)
        replayer.finale = stage.things_happen
        found = await replayer.run(exchanges)
    assert not found, "\n".join(f"{name}\n  " + "\n  ".join(map(str, d[:8])) for name, d in found.items())
