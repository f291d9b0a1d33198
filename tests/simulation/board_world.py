"""One seed of a single node: what is on it, what befalls it, and what must hold in the end."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np

from simulation.client import Client
from simulation.ledger import Task
from simulation.node import Node
from simulation.pod import Pod
from simulation.system import System
from simulation.world import MS, S, World
from swarm_agents.config import Failover, Role
from swarm_agents.shm.layout import (
    H_CELL_TAGS_AT,
    H_CELLS,
    H_LEASES,
    H_LEASES_AT,
    H_PAGE_TAGS_AT,
    H_PAGES,
    H_PORT_STRIDE,
    H_PORTS,
    H_PORTS_AT,
    M_ALIVE,
    M_FENCED,
    Geometry,
)

__all__ = ["left_on", "make_tasks", "run_board", "tidy"]

_FAULTS = (
    *("kill", "kill", "stop", "hang", "hang", "cut", "cut", "pause"),
    *("aim", "aim", "aim", "aim", "pod", "client", "nap", "clock", "leave"),
)  # fmt: skip
_SPANS = (3 * MS, 40 * MS, 300 * MS, 1500 * MS)
#: About how many shared operations a call makes.
_CALLS = {"submit": 90, "claim": 90, "commit": 120, "poll": 90}
_KINDS = ("small", "small", "small", "small", "big", "array", "fail", "back", "long")
#: Virtual time after the last fault by which everything must have been answered.
_SETTLED = 12 * S


def make_tasks(
    rng: random.Random, count: int, first: int, spread: int, *, poison: bool, large: int
) -> list[tuple[int, Task]]:
    """So many wishes of one client, and when they come (ns)."""
    wishes = []
    burst = rng.random() < 0.3
    for number in range(count):
        kind = rng.choice(_KINDS)
        if poison and rng.random() < 0.03:
            kind = "poison"
        size = 0
        if kind in ("big", "array"):
            size = rng.randrange(600, large)
        when = rng.randrange(spread // 8) if burst else rng.randrange(spread)
        nanos = int(rng.expovariate(1 / (3 * MS))) + 10_000
        if rng.random() < 0.05:
            nanos *= rng.choice((20, 100))
        task = Task(first + number, rng.randrange(4), kind, size, nanos, 0)
        if rng.random() < 0.08:
            task.deadline = -rng.randrange(5 * MS, 300 * MS)
        wishes.append((when, task))
    return wishes


def run_board(system: System, world: World) -> dict[str, Any]:
    """Runs a seed to its end; raises `Violation`."""
    rng = world.rng
    system.begin(world)
    failover = Failover(
        heartbeat_interval=rng.choice((0.02, 0.05)),
        suspect_after=0.2,
        dead_after=rng.choice((0.5, 0.8)),
        max_attempts=rng.choice((2, 4)),
    )
    geometry = Geometry(task_slots=256, arena_bytes=rng.choice((64 << 10, 256 << 10)), max_members=16)
    node = Node(system, world, "node", failover, geometry=geometry)
    for number in range(rng.choice((1, 2, 2, 3))):
        Pod(node, f"s-compute-{number}-a", Role.COMPUTE)
    if rng.random() < 0.4:
        Pod(node, "s-standby-0-a", Role.STANDBY)
    length = rng.choice((300, 600, 1000)) * MS
    first = 1
    for number in range(rng.choice((1, 2, 3))):
        count = rng.choice((4, 10, 20, 50)) if rng.random() < 0.9 else 100
        wishes = make_tasks(rng, count, first, length, poison=rng.random() < 0.3, large=geometry.arena_bytes // 20)
        for when, task in wishes:
            if task.deadline:
                task.deadline = world.now + when - task.deadline
        first += count
        role = "resource" if rng.random() < 0.25 else "client"
        client = Client(node, f"client-{number}", wishes, role)
        for when, task in wishes:
            if rng.random() < 0.05:
                client.process.after(when + rng.randrange(30 * MS), client.cancel, task)
    world.on_cut = node.ledger.hidden
    if rng.random() < 0.85:
        for _ in range(rng.choice((1, 2, 4, 8, 16))):
            world.outside.after(rng.randrange(length // 5, length), make_fault, node)
    world.run(world.now + length)
    settle(node)
    return finish(node)


def make_fault(node: Node) -> None:
    """Something befalls somebody."""
    world, rng = node.world, node.world.rng
    kind = rng.choice(_FAULTS)
    agents = [agent for agent in node.agents() if agent.process.alive and agent.member is not None]
    clients = [client for client in node.clients if client.process.alive]
    world.say(world.outside, f"fault: {kind}")
    node.ledger.faults += 1
    if kind == "clock":
        for process in world.processes.values():
            process.skew = rng.choice((0.0, rng.uniform(-100, 100), 3600.0))
        return
    if kind == "pod":
        pod = rng.choice(node.pods)
        # Not the last one that can see it.
        if any(p is not pod and p.process.alive and not p.process.stopped for p in node.pods):
            pod.process.kill()
        return
    if kind == "client":
        if clients:
            client = rng.choice(clients)
            if rng.random() < 0.5:
                client.process.kill()
            elif client.role == "resource":
                client.process.stop_for(rng.randrange(100 * MS, 1500 * MS))
            else:
                client.process.cut("kill", _operations(rng))
        return
    if kind == "aim":
        where = rng.choice(("claim", "claim", "commit", "submit", "poll"))
        victims: list[Any] = agents if where in ("claim", "commit") else clients
        if victims:
            how = "pause" if rng.random() < 0.6 else "kill"
            rng.choice(victims).process.aims[where] = how, rng.randrange(1, _CALLS[where]), rng.choice(_SPANS)
        return
    if not agents:
        return
    busy = [agent for agent in agents if agent.claim is not None]
    agent = rng.choice(busy if busy and rng.random() < 0.8 else agents)
    if kind == "kill":
        agent.process.kill()
    elif kind == "cut":
        agent.process.cut("kill", _operations(rng))
    elif kind == "pause":
        victim = rng.choice([agent.process, *(client.process for client in clients)])
        victim.cut("pause", _operations(rng), rng.choice(_SPANS))
    elif kind == "hang":
        agent.hang_next = rng.choice((1000 * MS, 2000 * MS))
    elif kind == "stop":
        span = rng.choice((50 * MS, 300 * MS, 1000 * MS, 2000 * MS))
        agent.process.stop_for(span)
        bound = int((node.failover.dead_after + 2 * node.failover.suspect_after) * S) + 200 * MS
        if span > bound + 100 * MS and agent.member is not None and not agent.is_fenced():
            agent.expect_declared(bound)
    elif kind == "nap":
        rng.choice(node.pods).process.stop_for(rng.randrange(20 * MS, 1200 * MS))
    elif kind == "leave" and agent.claim is None and not agent.process.stopped:
        world.step(agent.process, _leave, (agent,))


def _leave(agent: Any) -> None:
    agent.leave()
    agent.process.after(agent.node.world.rng.randrange(MS, 60 * MS), agent.join)


def _operations(rng: random.Random) -> int:
    """How many shared operations until a call is cut short: some that hit a submission, some that hit a sweep."""
    return int(2 ** rng.uniform(0, 8 if rng.random() < 0.8 else 13))


def settle(node: Node) -> None:
    """No more faults, and who is stopped goes on in its time; everything must be answered."""
    world, ledger = node.world, node.ledger
    for process in list(world.processes.values()):
        if process.plan is not None and process not in world.within:
            process.plan, process.budget = None, 1 << 62
        process.aims.clear()
        process.skew = 0.0
    began = world.now

    def answered() -> bool:
        return not ledger.open and all(not c.process.alive or not c.wishes for c in node.clients)

    if not answered():
        world.run(began + _SETTLED, answered)
    if ledger.open:
        task = min(ledger.open, key=lambda task: task.token)
        state = node.eye.slot_state(task.ticket.slot)
        world.broken(
            f"lost: {len(ledger.open)} tasks unanswered after {_SETTLED / S:.0f} s, as {task.token}, which is {state}"
        )
    for client in node.clients:
        if client.process.alive and client.wishes:
            world.broken(f"{client.name} could not submit {client.wishes} tasks within {_SETTLED / S:.0f} s")


def finish(node: Node) -> dict[str, Any]:
    """Everybody leaves; nothing may be left."""
    world, ledger = node.world, node.ledger
    # Who was begun to be replaced is there again, and knows that it was fenced.
    world.run(world.now + 30 * MS)
    borrowed = any(agent._lent is not None for agent in node.agents())  # for a task that nobody waits for any more
    if not ledger.dirty and not borrowed and (owed := [each for each in left_on(node) if not each.endswith("ports")]):
        world.broken(f"leak: all tasks have been answered, nobody has died, and {', '.join(owed)} are left")
    for pod in node.pods:
        pod.closed = True
    ledger.dirty = True
    node.close()
    for process in list(world.processes.values()):
        if process is not world.outside and process is not node.anchor:
            process.kill()
    world.step(node.anchor, tidy, (node,))
    if world.error is not None:
        raise world.error
    if left := left_on(node):
        world.broken(f"leak: after everybody has left and the board was tidied, {', '.join(left)} are left")
    for index in range(16):
        place = node.places.get(index)
        if place is not None and place.member is not None:
            place.member.process = -1
    return {
        "counts": ledger.counts,
        "detected": ledger.detected,
        "steps": world.steps,
        "cuts": world.cuts,
    }


def tidy(node: Node) -> None:
    for _ in range(2):
        node.eye.reap()
        node.eye.sweep()


def left_on(node: Node) -> list[str]:
    """What is not free."""
    board = node.eye
    words, view = board.words, board.mapping.view

    def tags(at: int, count: int, step: int = 1) -> int:
        return int(np.count_nonzero(np.frombuffer(view, np.int64, count * step, at)[::step] & 7))

    ports = 0
    for port in range(words[H_PORTS]):
        owner = struct.unpack_from("<q", view, words[H_PORTS_AT] + port * words[H_PORT_STRIDE])[0]
        # One whose owner's process is gone is free for whoever asks.
        member, epoch = (owner & 0xFFFF) - 1, owner >> 16
        ports += owner != 0 and node.word_of(member) in ((M_ALIVE, epoch), (M_FENCED, epoch + 1))
    found = (
        ("slots", int(np.count_nonzero(node.states & 7))),
        ("cells", tags(words[H_CELL_TAGS_AT], words[H_CELLS])),
        ("pages", tags(words[H_PAGE_TAGS_AT], words[H_PAGES])),
        ("leases", tags(words[H_LEASES_AT], words[H_LEASES], 2)),
        ("ports", ports),
    )
    return [f"{count} {what}" for what, count in found if count]
