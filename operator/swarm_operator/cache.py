"""All stores and reflectors together, and the snapshot of one Swarm taken from them.

Children are watched by the swarm label: the operator never holds the cluster's other pods. In the namespaced mode there
is one reflector a kind and namespace; nodes are the cluster's in either mode. Who serves a namespace may have no right
to read them: then nothing waits for them, and the snapshot says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import structlog

from swarm_operator import names
from swarm_operator.agents import Agents
from swarm_operator.api.read import read_spec
from swarm_operator.audit import Anchor
from swarm_operator.autoscale import Decision
from swarm_operator.gang import GangView
from swarm_operator.keys import KeyMemory, observe
from swarm_operator.kube import Api
from swarm_operator.policy import OPEN, Policy
from swarm_operator.reflector import Reflector
from swarm_operator.snapshot import Refused, Snapshot
from swarm_operator.store import Store, key_of, objects_of
from swarm_operator.views import CHILD_KINDS, NodeView, ObjectView, PodView, SwarmView, View, decode, secret_data

__all__ = ["Cache"]

#: Removed nodes that are remembered: their pods are collected in a minute.
_GONE_NODES = 1024

log = structlog.get_logger("cache")


class Cache:
    """What the operator knows of the cluster."""

    def __init__(
        self,
        api: Api,
        namespaces: Iterable[str],
        agents: Agents,
        memory: KeyMemory,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
        *,
        home: str = "",
        policy: Policy = OPEN,
    ) -> None:
        self._now, self._home, self._policy = now, home, policy
        self._gone_nodes: dict[str, float] = {}
        self._agents, self._memory = agents, memory
        self._spaces = tuple(namespaces) or ("",)
        self._stores: dict[str, dict[str, Store]] = {}
        self.reflectors: list[Reflector] = []
        #: Called with each Swarm that something happened to.
        self.on_key: Callable[[names.Key], None] = lambda key: None
        #: Told of each Swarm that came, changed or went, as it was and as it is.
        self.on_swarm: Callable[[SwarmView | None, SwarmView | None], None] = lambda old, new: None
        #: Where a Swarm's audit trail ends, by its UID.
        self.anchor: Callable[[str], Anchor | None] = lambda uid: None
        #: What the autoscaler has decided on a Swarm, by its UID.
        self.autoscaling: Callable[[str], Decision | None] = lambda uid: None
        #: What is known of its gang, by its UID.
        self.gang: Callable[[str], GangView] = lambda uid: GangView()
        #: Since when its pods are refused.
        self.refused: Callable[[names.Key], Refused | None] = lambda key: None
        for kind in ("Swarm", "Pod", "Node", *CHILD_KINDS):
            selector = names.LABEL_SWARM if kind not in ("Swarm", "Node") else ""
            for space in ("",) if kind == "Node" else self._spaces:
                store = Store(self._changed)
                self._stores.setdefault(kind, {})[space] = store
                reflect = Reflector(api, kind, space, store, partial(decode, kind), selector=selector, clock=clock)
                self.reflectors.append(reflect)

    def store(self, kind: str, namespace: str) -> Store:
        """The store that holds objects of a kind in a namespace."""
        stores = self._stores[kind]
        return stores[""] if "" in stores else stores[namespace]

    def stores(self, kind: str) -> Iterator[Store]:
        """All stores of a kind."""
        return iter(self._stores[kind].values())

    async def synced(self) -> None:
        """Returns when every collection has been listed once; nodes may be refused instead."""
        waited = (r.answered if r.kind == "Node" else r.synced for r in self.reflectors)
        await asyncio.gather(*(event.wait() for event in waited))
        if not self.nodes_known:
            log.warning(
                "nodes can't be read; see the conditions of Swarms with medium HostPath", error=self._nodes.error
            )

    @property
    def _nodes(self) -> Reflector:
        return next(reflector for reflector in self.reflectors if reflector.kind == "Node")

    @property
    def nodes_known(self) -> bool:
        """Whether the cluster's nodes may be read."""
        return not self._nodes.forbidden

    def age(self) -> float:
        """Seconds since the API server was last heard of, on the watch where that is longest."""
        heard = (r.age() for r in self.reflectors if not (r.kind == "Node" and r.forbidden))
        return max(heard, default=0.0)

    def agent_pods(self) -> Iterator[PodView]:
        """The pods of every Swarm."""
        return (view for store in self.stores("Pod") for view in store if isinstance(view, PodView))

    def swarm_views(self) -> Iterator[SwarmView]:
        """Every Swarm, as observed."""
        return (view for store in self.stores("Swarm") for view in store if isinstance(view, SwarmView))

    def swarms(self) -> Iterator[names.Key]:
        """The key of every Swarm."""
        return (names.Key(view.namespace, view.name) for view in self.swarm_views())

    def snapshot(self, key: names.Key) -> Snapshot | None:
        """One Swarm as observed now; None when there is none of this name."""
        swarm = self.store("Swarm", key.namespace).get(key.namespace, key.name)
        if not isinstance(swarm, SwarmView):
            return None
        spec, invalid = read_spec(swarm.spec)
        pods = tuple(v for v in self.store("Pod", key.namespace).of(key) if isinstance(v, PodView))
        objects = objects_of((self.store(kind, key.namespace) for kind in CHILD_KINDS), key)
        data = secret_data(objects.get(("Secret", names.secret(key.name))))
        keys = observe(data)
        if not keys.missing:
            self._memory.remember(swarm.uid, data)
        return Snapshot(
            swarm=swarm,
            spec=spec,
            invalid=invalid,
            pods=pods,
            gone_nodes={node: when for node, when in self._gone_nodes.items() if any(p.node == node for p in pods)},
            nodes=self.nodes(),
            nodes_known=self.nodes_known,
            objects=objects,
            agents=self._agents.reports(pod.uid for pod in pods),
            keys=keys,
            audit=self.anchor(swarm.uid),
            autoscaling=self.autoscaling(swarm.uid),
            gang=self.gang(swarm.uid),
            refused=self.refused(key),
            home=self._home,
            policy=self._policy,
        )

    def nodes(self) -> tuple[NodeView, ...]:
        """Every node of the cluster."""
        return tuple(v for store in self.stores("Node") for v in store if isinstance(v, NodeView))

    def token(self, key: names.Key) -> str:
        """The token of a Swarm's agents, empty when there is none yet."""
        secret = self.store("Secret", key.namespace).get(key.namespace, names.secret(key.name))
        return secret_data(secret).get("token", "") if isinstance(secret, ObjectView) else ""

    def _changed(self, old: View | None, new: View | None) -> None:
        if isinstance(old, PodView) and new is None:
            self._agents.forget(old.uid)
        if isinstance(old, SwarmView) and new is None:
            self._memory.forget(old.uid)
        if isinstance(old, SwarmView) or isinstance(new, SwarmView):
            self.on_swarm(
                old if isinstance(old, SwarmView) else None,
                new if isinstance(new, SwarmView) else None,
            )
        if isinstance(old or new, NodeView):
            self._note_node(old, new)
            for key in self.swarms():
                self.on_key(key)
            return
        if isinstance(old, SwarmView) and isinstance(new, SwarmView) and _only_status(old, new):
            return  # our own doing
        for view in (old, new):
            concerned = key_of(view) if view else None
            if concerned:
                self.on_key(concerned)

    def _note_node(self, old: View | None, new: View | None) -> None:
        """A node that was seen to go is gone; one that a pod names and that was never seen may only be new."""
        if isinstance(new, NodeView):
            self._gone_nodes.pop(new.name, None)
        elif isinstance(old, NodeView):
            self._gone_nodes[old.name] = self._now()
            while len(self._gone_nodes) > _GONE_NODES:
                del self._gone_nodes[next(iter(self._gone_nodes))]


def _only_status(old: SwarmView, new: SwarmView) -> bool:
    same = (old.uid, old.generation, old.deleting, old.spec) == (new.uid, new.generation, new.deleting, new.spec)
    return same and old.rotate_keys == new.rotate_keys
