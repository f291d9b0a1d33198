"""One seed of several nodes: hubs, clients on and off the nodes, a network; what befalls them, and what must hold.

The nodes' boards are simulated as in `board_world`, with fewer faults of their own: here it is the hubs, the network
and whole machines that suffer.
"""

from __future__ import annotations

from typing import Any

from simulation.board_world import left_on, make_tasks, tidy
from simulation.client import Client
from simulation.contract import Contract
from simulation.fabric import Fabric, Path
from simulation.hub_agent import HubAgent
from simulation.node import Node
from simulation.pod import Pod
from simulation.remote import RemoteClient
from simulation.system import System
from simulation.world import MS, US, S, World
from swarm_agents.config import Failover, Role, Settings, Transport
from swarm_agents.config import Hub as HubAddress
from swarm_agents.shm.layout import Geometry

__all__ = ["run_hubs"]

_FAULTS = (
    *("kill-hub", "kill-hub", "stop-hub", "stop-hub", "cut-hub", "cut-hub"),
    *("partition", "partition", "break", "break", "slow", "wild", "lose-node"),
    *("kill-agent", "hang-agent", "kill-client", "clock", "pod"),
)
#: Virtual time after the last fault by which everything must have been answered.
_SETTLED = 15 * S


class Cluster:
    """Everything there is in a seed."""

    def __init__(self, system: System, world: World) -> None:
        rng = world.rng
        self.system = system
        self.world = world
        self.fabric = Fabric(world, system.descriptors)
        self.fabric.make_path = self._path
        failover = Failover(
            heartbeat_interval=rng.choice((0.02, 0.05)),
            suspect_after=0.2,
            dead_after=rng.choice((0.5, 0.8)),
            max_attempts=rng.choice((3, 4)),
        )
        self.failover = failover
        self.contract = Contract(world, failover.max_attempts)
        names = [f"n{number}" for number in range(rng.choice((2, 2, 2, 3)))]
        interfaces = ("", "b") if rng.random() < 0.25 else ("",)
        self.addresses = tuple(
            HubAddress(node=name, address=f"tcp://{name}.{interface}:7400")
            for name in names
            for interface in interfaces
        )
        arena = rng.choice((64 << 10, 256 << 10))
        settings = Settings(
            swarm="sim",
            namespace="sim",
            uid="simulated",
            failover=failover,
            hubs=self.addresses,
            transport=Transport(encryption=False, arena_bytes=arena, task_slots=256, max_members=16),
        )
        geometry = Geometry(task_slots=256, arena_bytes=arena, max_members=16)
        self.nodes = []
        self.hub_pods: list[Pod] = []
        self.remotes: list[RemoteClient] = []
        for name in names:
            node = Node(system, world, name, failover, geometry=geometry, settings=settings)
            node.fabric, node.contract = self.fabric, self.contract
            node.skew = rng.choice((0.0, rng.uniform(-100, 100), 3600.0))
            self.nodes.append(node)
        self.arena = arena

    def _path(self) -> Path:
        rng = self.world.rng
        path = Path()
        path.delay = rng.choice((50, 150, 150, 2000)) * US
        path.jitter = rng.choice((20, 100, 500)) * US
        return path

    def hubs(self) -> list[HubAgent]:
        return [pod.agent for pod in self.hub_pods if isinstance(pod.agent, HubAgent)]


def run_hubs(system: System, world: World) -> dict[str, Any]:
    """Runs a seed to its end; raises `Violation`."""
    rng = world.rng
    system.begin(world)
    system.with_hubs()
    cluster = Cluster(system, world)
    for node in cluster.nodes:
        for number in range(rng.choice((1, 1, 2))):
            Pod(node, f"{node.name}-compute-{number}", Role.COMPUTE)
        cluster.hub_pods.append(Pod(node, f"{node.name}-resource-0", Role.RESOURCE, HubAgent))
    length = rng.choice((300, 600)) * MS
    first = 1
    for number in range(rng.choice((1, 1, 2))):
        wishes = _wishes(cluster, rng.choice((4, 10, 20, 40)), first, length)
        first += 1000
        hubs = list(cluster.addresses)
        rng.shuffle(hubs)
        client = RemoteClient(system, world, cluster.fabric, cluster.contract, f"c{number}", tuple(hubs), wishes)
        client.process.skew = rng.choice((0.0, rng.uniform(-100, 100)))
        cluster.remotes.append(client)
        for when, task in wishes:
            if rng.random() < 0.05:
                client.process.after(when + rng.randrange(30 * MS), client.cancel, task)
    for node in cluster.nodes:
        if rng.random() < 0.4:
            wishes = _wishes(cluster, rng.choice((4, 10, 40)), first, length)
            first += 1000
            Client(node, f"{node.name}-client", wishes)

    def hidden(*, killed: bool) -> None:
        for node in cluster.nodes:
            node.ledger.hidden(killed=killed)

    world.on_cut = hidden
    if rng.random() < 0.9:
        for _ in range(rng.choice((1, 2, 3, 5, 8))):
            world.outside.after(rng.randrange(length // 10, length), make_fault, cluster)
    world.run(world.now + length)
    settle(cluster)
    return finish(cluster)


def _wishes(cluster: Cluster, count: int, first: int, length: int) -> list[tuple[int, Any]]:
    wishes = make_tasks(cluster.world.rng, count, first, length, poison=False, large=cluster.arena // 20)
    for when, task in wishes:
        if task.deadline:
            task.deadline = cluster.world.now + when - task.deadline
    return wishes


def make_fault(cluster: Cluster) -> None:
    """Something befalls somebody."""
    world, rng, fabric = cluster.world, cluster.world.rng, cluster.fabric
    kind = rng.choice(_FAULTS)
    for node in cluster.nodes:
        node.ledger.faults += 1
    world.say(world.outside, f"fault: {kind}")
    hubs = [hub for hub in cluster.hubs() if hub.process.alive]
    agents = [a for node in cluster.nodes for a in node.agents() if a.process.alive and not isinstance(a, HubAgent)]
    hosts = [node.name for node in cluster.nodes] + [client.name for client in cluster.remotes]
    one, other = rng.sample(hosts, 2)
    span = rng.choice((5, 50, 300, 1500, 3000)) * MS
    if kind in ("kill-hub", "stop-hub", "cut-hub") and hubs:
        hub = rng.choice(hubs)
        if kind == "kill-hub":
            hub.process.kill()
        elif kind == "stop-hub":
            hub.process.stop_for(rng.choice((20 * MS, 150 * MS, 400 * MS, 2000 * MS)))
        else:
            where = rng.choice(("claim", "commit", "submit", "poll"))
            how = "pause" if rng.random() < 0.6 else "kill"
            hub.process.aims[where] = how, rng.randrange(1, 100), rng.choice((3 * MS, 40 * MS, 300 * MS, 1500 * MS))
    elif kind == "partition":
        paths = fabric.paths(one, other) or [fabric.path(one, other)]
        for path in rng.sample(paths, rng.randrange(1, len(paths) + 1)):
            path.cut = True
            world.outside.after(span, fabric.heal, path)
    elif kind == "break":
        fabric.break_(one, other)
    elif kind in ("slow", "wild"):
        path = fabric.path(one, other)
        if kind == "slow":
            path.delay, path.rate = rng.choice((5, 50)) * MS, 2e6
        else:
            path.wild = rng.choice((0.05, 0.5))
    elif kind == "lose-node":
        if not fabric.lost:
            lose(cluster, rng.choice(cluster.nodes), rng.choice((300 * MS, 1500 * MS, 4000 * MS, 0)))
    elif kind == "kill-agent" and agents:
        rng.choice(agents).process.kill()
    elif kind == "hang-agent" and agents:
        rng.choice(agents).process.stop_for(rng.choice((300 * MS, 1500 * MS)))
    elif kind == "kill-client" and rng.random() < 0.5:
        rng.choice(cluster.remotes).process.kill()
    elif kind == "clock":
        rng.choice(cluster.nodes).skew = rng.choice((0.0, rng.uniform(-100, 100), 3600.0))
    elif kind == "pod":
        rng.choice(cluster.hub_pods).process.kill()


def lose(cluster: Cluster, node: Node, back: int) -> None:
    """A machine loses its power: nobody hears of it. It is back after so long (ns) with an empty memory; 0: never."""
    world = cluster.world
    cluster.fabric.lost.add(node.name)
    for pod in node.pods:
        pod.closed = not back
        pod.process.kill()
    for client in node.clients:
        client.process.kill()
    node.gone = not back

    def again() -> None:
        cluster.fabric.lost.discard(node.name)
        cluster.fabric.flush()

    if back:
        world.outside.after(back, again)


def settle(cluster: Cluster) -> None:
    """No more faults; everything must be answered."""
    world = cluster.world
    for process in list(world.processes.values()):
        if process.plan is not None and process not in world.within:
            process.plan, process.budget = None, 1 << 62
        process.aims.clear()
    began = world.now
    clients = [client for node in cluster.nodes for client in node.clients]

    def answered() -> bool:
        return (
            not cluster.contract.open
            and all(not node.ledger.open or node.gone for node in cluster.nodes)
            and all(not client.process.alive or not client.wishes for client in (*clients, *cluster.remotes))
        )

    if not answered():
        world.run(began + _SETTLED, answered)
    within = f"within {_SETTLED / S:.0f} s"
    if cluster.contract.open:
        task = min(cluster.contract.open, key=lambda task: task.token)
        world.broken(f"lost: {len(cluster.contract.open)} tasks from off the node unanswered {within}, as {task.token}")
    for node in cluster.nodes:
        if node.ledger.open and not node.gone:
            task = min(node.ledger.open, key=lambda task: task.token)
            state = node.eye.slot_state(task.ticket.slot)
            world.broken(
                f"lost: {len(node.ledger.open)} tasks unanswered on {node.name} {within}, as {task.token}, {state}"
            )
    for client in (*clients, *cluster.remotes):
        if client.process.alive and client.wishes:
            world.broken(f"{client.name} could not submit {client.wishes} tasks {within}")


def finish(cluster: Cluster) -> dict[str, Any]:
    """Everybody leaves, clients first; nothing may be left anywhere."""
    world = cluster.world
    world.run(world.now + 300 * MS)
    for client in cluster.remotes:
        if client.process.alive:
            client.close()
    world.run(world.now + 6 * S, lambda: not any(owed(hub) for hub in cluster.hubs()))
    for hub in cluster.hubs():
        if left := owed(hub):
            world.broken(f"leak: all is answered and all clients have left, and {hub.name} has {', '.join(left)}")
    for node in cluster.nodes:
        for pod in node.pods:
            pod.closed = True
        node.ledger.dirty = True
        node.close()
        for agent in node.agents():
            if not isinstance(agent, HubAgent):  # hubs say good-bye, and that takes a while
                agent.process.kill()
    world.run(world.now + 200 * MS)
    for node in cluster.nodes:
        for pod in node.pods:
            pod.process.kill()
        world.step(node.anchor, tidy, (node,))
    if world.error is not None:
        raise world.error
    for node in cluster.nodes:
        if left := left_on(node):
            world.broken(f"leak: after everybody has left and the board was tidied, {node.name} has {', '.join(left)}")
    counts = dict(cluster.contract.counts)
    detected: list[tuple[str, int]] = []
    for node in cluster.nodes:
        for name, number in node.ledger.counts.items():
            counts[name] = counts.get(name, 0) + number
        detected += node.ledger.detected
    for hub in cluster.hubs():
        if hub.hub is not None:
            for name, number in hub.hub.counts.items():
                counts[f"hub {name}"] = counts.get(f"hub {name}", 0) + number
    return {"counts": counts, "detected": detected, "steps": world.steps, "cuts": world.cuts}


def owed(agent: HubAgent) -> list[str]:
    """What a hub still has in its books."""
    hub = agent.hub
    if hub is None or not agent.process.alive:
        return []
    sessions = [session for session in hub.sessions if session.kind == "client"]
    found = (
        ("sessions of clients", len(sessions)),
        ("entries of sessions", sum(len(session.entries) for session in hub.sessions)),
        ("unanswered tasks", hub.sessions.unanswered),
        ("bytes of answers", hub.sessions.kept_bytes),
        ("tasks out of credit's books", sum(session.account.used != 0 for session in hub.sessions)),
        ("bytes out of credit's books", sum(session.account.used_bytes != 0 for session in hub.sessions)),
        ("bytes on their way", sum(session.flying != 0 for session in hub.sessions)),
        ("tasks in hand elsewhere", hub.in_hand),
        ("tasks taken of a peer's window", sum(peer.window.used != 0 for peer in hub.peers.values())),
        ("bytes taken of a peer's window", sum(peer.window.used_bytes != 0 for peer in hub.peers.values())),
        ("tickets", len(hub.desk._tickets)),
        ("slots held", sum(hub.desk._held)),
        ("counts of hops", len(hub.desk._hops)),
        ("claims", len(agent.held)),
    )
    return [f"{count} {what}" for what, count in found if count]
