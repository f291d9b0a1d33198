"""The board as a hub's desk uses it: the product's own port and worker, each call told to the node's ledger."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulation.fibers import current
from simulation.ledger import WOKEN, Task
from simulation.world import MS, Parked, S
from swarm_agents.shm.layout import H_PORT_STRIDE, H_PORTS_AT, P_PARKED

if TYPE_CHECKING:
    from simulation.hub_agent import HubAgent
    from swarm_agents.shm.board import Member

__all__ = ["RecordedBoard"]


class RecordedBoard:
    """A board of which a hub's port and workers are recorded."""

    def __init__(self, agent: HubAgent) -> None:
        self._agent = agent
        self._board = agent.board

    def port(self, member: Member) -> RecordedPort:
        return RecordedPort(self._agent, self._board.port(member))

    def worker(self, member: Member) -> RecordedWorker:
        return RecordedWorker(self._agent, self._board.worker(member))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._board, name)


class RecordedPort:
    """A hub's submissions, and the answers that it takes."""

    def __init__(self, agent: HubAgent, port: Any) -> None:
        self._agent = agent
        self._port = port
        agent.port = port

    @property
    def path(self) -> str:
        return str(self._port.path)

    @path.setter
    def path(self, path: str) -> None:
        self._port.path = path

    def submit_raw(self, kernel: str, header: bytes, buffers: Sequence[Any] = (), **options: Any) -> Any:
        agent, node, world = self._agent, self._agent.node, self._agent.node.world
        assert node.contract is not None
        origin = node.contract.tasks.get(options["task_id"])
        if origin is None:
            world.broken(f"{agent.name} submits {options['task_id']}, which nobody has asked for")
        assert origin is not None
        agent.check_once(origin)
        deadline = options["deadline"]
        due = 0 if deadline is None else world.now + int((deadline - node.system.time.time()) * S)
        task = Task(origin.token, options["priority"].lane, origin.kind, origin.size, origin.nanos, due, origin=origin)
        if task.lane != origin.lane:
            world.broken(f"task {task.token} of lane {origin.lane} is submitted in lane {task.lane}")
        node.ledger.expects(task)
        agent.process.begins("submit")
        cuts = world.cuts
        try:
            ticket = self._port.submit_raw(kernel, header, buffers, **options)
        except Exception:
            node.ledger.count("full")
            raise
        node.ledger.accepted(agent, task, ticket, whole=cuts == world.cuts)
        world.say(agent.process, "takes on", task=task.token, lane=task.lane)
        world.outside.after(WOKEN + MS, node.check_woken, task)
        return ticket

    def poll_raw(self, most: int = 256) -> list[Any]:
        agent = self._agent
        agent.process.begins("poll")
        found: list[Any] = self._port.poll_raw(most)
        for raw in found:
            agent.node.world.say(agent.process, "takes the answer to", task=raw.ticket.task_id[1])
            agent.node.ledger.taken(agent, raw.ticket, raw.error)
        return found

    def wait(self, timeout: float) -> bool:
        me, agent = current(), self._agent
        assert me is not None
        world = agent.node.world
        until = world.now + int(timeout * S)
        while True:
            try:
                if self._port.wait(max(until - world.now, 0) / S):
                    me.spins()
                    return True
                return False
            except Parked:
                world.sleep_on(agent.process, me.wake_now)
                me.block()
                if not agent.is_fenced():
                    words = agent.board.words
                    at = words[H_PORTS_AT] + self._port._number * words[H_PORT_STRIDE] + P_PARKED
                    struct.pack_into("<q", agent.board.mapping.view, at, 0)
                if world.now >= until:
                    return bool(self._port.wait(0.0)) if not agent.is_fenced() else self._fenced()

    def _fenced(self) -> bool:
        raise self._port._fenced()

    def cancel_ready(self, ticket: Any) -> bool:
        return self._cancel(ticket, self._port.cancel_ready)

    def cancel(self, ticket: Any) -> bool:
        return self._cancel(ticket, self._port.cancel)

    def _cancel(self, ticket: Any, call: Any) -> bool:
        agent = self._agent
        task = agent.node.ledger.tasks[ticket.slot, ticket.gen]
        unwanted, task.unwanted = task.unwanted, True
        done = bool(call(ticket))
        if call == self._port.cancel or done:
            unwanted = True
        task.unwanted = unwanted
        if done:
            task.cancelled = True
            agent.node.ledger.ready[task.lane].pop(task.token, None)
            agent.node.world.say(agent.process, "cancels", task=task.token)
        return done


class RecordedWorker:
    """A hub's claims, and how they end."""

    def __init__(self, agent: HubAgent, worker: Any) -> None:
        self._agent = agent
        self._worker = worker

    def claim(self, timeout: float, *, lanes: tuple[int, int]) -> Any:
        agent, world, node = self._agent, self._agent.node.world, self._agent.node
        before = agent.is_fenced(), world.cuts
        agent.process.begins("claim")
        claim = self._worker.claim(timeout, lanes=lanes)
        if claim is not None:
            stands = int(node.states[claim.slot]) == claim._mine
            task = node.ledger.begins(agent, claim, before, stands, first=lanes[0])
            agent.held[claim] = task
            world.say(agent.process, "claims to forward", task=task.token, attempt=claim.attempt)
        return claim

    def _end(self, claim: Any, call: Any) -> bool:
        agent, node = self._agent, self._agent.node
        task = agent.held.pop(claim, None)
        if task is None:
            node.world.broken(f"{agent.name} ends a claim twice: {claim}")
        assert task is not None
        fenced, mine = agent.is_fenced(), int(node.states[claim.slot]) == claim._mine
        agent.process.begins("commit")
        agent.settling.add(task)
        try:
            done = bool(call())
        finally:
            agent.settling.discard(task)
        node.world.say(agent.process, "commits from afar" if done else "is refused", task=task.token)
        if done:
            node.ledger.committed(agent, task, mine, fenced)
        else:
            node.ledger.count("refused")
        return done

    def commit_raw(self, claim: Any, header: bytes, buffers: Sequence[Any] = (), **options: Any) -> bool:
        # a hub that died has taken with it how far its tasks had come
        if options.get("hops", 0) > 2 and not self._agent.node.ledger.faults:
            self._agent.node.world.broken(f"a task has left {options['hops']} nodes behind")
        return self._end(claim, lambda: self._worker.commit_raw(claim, header, buffers, **options))

    def fail(self, claim: Any, error: BaseException, traceback: str | None = None) -> bool:
        return self._end(claim, lambda: self._worker.fail(claim, error, traceback))

    def hand_back(self, claim: Any, *, begun: bool = True) -> bool:
        agent, world = self._agent, self._agent.node.world
        task = agent.held.pop(claim, None)
        if task is None:
            world.broken(f"{agent.name} ends a claim twice: {claim}")
        assert task is not None
        agent.process.begins("commit")
        world.say(agent.process, "hands back", task=task.token, begun=begun)
        return bool(self._worker.hand_back(claim, begun=begun))
