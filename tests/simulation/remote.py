"""A client off the node: the product's own `Session` and `TcpChannel`, with their threads, on a machine of its own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from simulation.contract import Contract
from simulation.fibers import Fiber
from simulation.ledger import Task
from simulation.network import SimNetwork
from simulation.process import SimProcess
from simulation.world import MS, S
from swarm_agents.client.connection import Connection
from swarm_agents.client.session import Session
from swarm_agents.client.tcp import TcpChannel
from swarm_agents.config import Hub as HubAddress
from swarm_agents.config import Priority
from swarm_agents.errors import SwarmError, SwarmFull

if TYPE_CHECKING:
    from simulation.fabric import Fabric
    from simulation.system import System
    from simulation.world import World

__all__ = ["RemoteClient"]

_LANES = tuple(Priority)
#: It waits for the swarm for as long as it takes.
_PATIENCE = 1e6


class RemoteClient:
    """Submits its wishes when their time has come, waits for some, gives some up, and leaves when all are settled."""

    def __init__(
        self,
        system: System,
        world: World,
        fabric: Fabric,
        contract: Contract,
        name: str,
        hubs: tuple[HubAddress, ...],
        wishes: list[tuple[int, Task]],
    ) -> None:
        self.system = system
        self.world = world
        self.fabric = fabric
        self.contract = contract
        self.name = name
        self.process = SimProcess(world, name, self)
        self.wishes = len(wishes)
        self.session: Session | None = None
        self.closed = False
        self.is_fenced = lambda: False
        self.member = None
        self._hubs = hubs
        self._wishes = sorted(wishes, key=lambda wish: wish[0])
        self._futures: dict[int, Any] = {}
        self.process.on_death.append(self._died)
        Fiber(self.process, self._main, name="main").start(world.rng.randrange(MS))

    def _died(self) -> None:
        for task in [task for task in self.contract.open if task.owner is self]:
            task.void = True
            self.contract.open.discard(task)

    def _open(self, sink: Any, connection: Connection, endpoint: str, number: int, timeout: float) -> TcpChannel:
        network = SimNetwork(self.fabric, self.process, self.name, self.system.time.monotonic)
        return TcpChannel(sink, connection, endpoint, number, timeout, network)  # type: ignore[arg-type]

    def _main(self) -> None:
        world, rng = self.world, self.world.rng
        began = world.now
        connection = Connection(swarm="sim", uid="simulated", hubs=self._hubs)
        session = None
        while session is None:
            try:
                session = Session(connection, timeout=2.0, retry_window=_PATIENCE, opener=self._open)
            except SwarmError as error:
                world.say(self.process, "can't connect", error=type(error).__name__)
                self.system.time.sleep(0.05)
        world.say(self.process, "is connected to", endpoint=session.endpoint)
        self.session = session
        drives = rng.random() < 0.3
        # Tokens are the running numbers, so they are given in the order of submission.
        tokens = sorted(task.token for _, task in self._wishes)
        session._numbers = itertools.count(tokens[0])
        for (when, task), token in zip(self._wishes, tokens, strict=True):
            task.token = token
            if (left := began + when - world.now) > 0:
                self.system.time.sleep(left / S)
            future = self._submit(session, task)
            if future is not None and drives and rng.random() < 0.5:
                session.drive(future, rng.choice((0.001, 0.05)))
        while self.wishes or any(not future.done() for future in self._futures.values()):
            self.system.time.sleep(0.02)

    def _submit(self, session: Session, task: Task) -> Any:
        world = self.world
        buffer = np.full(task.size, task.token & 0xFF, np.uint8) if task.size else None
        deadline = None
        if task.deadline:
            deadline = self.system.time.time() + (task.deadline - world.now) * 1e-9
        task_id = (session.number, task.token)
        self.contract.taken(self, task_id, task)
        try:
            future = session.submit("sim.work", (task.token, task.kind, buffer), {}, _LANES[task.lane], deadline, None)
        except SwarmFull:
            self.wishes -= 1
            return None
        self.wishes -= 1
        self._futures[task.token] = future
        self.contract.accepted(task)
        world.say(self.process, "submits", task=task.token, lane=task.lane, kind=task.kind)
        future.add_done_callback(lambda future: self._settled(task, future))
        return future

    def _settled(self, task: Task, future: Any) -> None:
        self.world.say(self.process, "is answered", task=task.token, error=future._exception)
        self._futures.pop(task.token, None)
        try:
            self.contract.settled(task, future)
        except BaseException as error:  # `concurrent.futures` would only log it
            self.world.error = self.world.error or error

    def cancel(self, task: Task) -> None:
        """Gives a task up, if it has been submitted and not answered."""
        future = self._futures.get(task.token)
        if future is not None and not task.answers and task.owner is self:
            Fiber(self.process, self._cancel, task, future, name="cancel").start()

    def _cancel(self, task: Task, future: Any) -> None:
        task.unwanted = True
        if future.cancel():
            self.world.say(self.process, "cancels", task=task.token)

    def close(self) -> None:
        """Leaves, in a thread of its own."""
        Fiber(self.process, self._close, name="close").start()

    def _close(self) -> None:
        if self.session is not None:
            self.session.close()
        self.closed = True
