"""The pod's first process: it holds a warm parent, forks the agent from it, and forks again when the agent dies.

A single thread with one asyncio loop does everything: signals, the agent's control channel, HTTP, the watch over the
board. So a fork is always safe, and a new agent needs no import and no compilation. What the supervisor is told
(settings, drain, a standby's part) it keeps, and the next agent begins by it.

Invariants:
- The death of the agent is declared on the board before anything else is done about it: its tasks are free at once.
- What an order's answer says holds: settings are acknowledged when the agent runs by them.
- The supervisor has no place on the board and claims no task; killed, it takes the agent with it, as siblings see.
- Exit status: 0 after a stop that was asked for, 1 when agents keep dying, 2 (in `main`) for what no restart can mend.

Rejected: threads for HTTP (forking with threads), an agent as a subprocess (0.7 s of imports each), a restart by exec
(loses the compiled kernels and the counters).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from swarm_agents.config import Identity, Role, Settings, decode_settings, settings_revision
from swarm_agents.errors import BoardMismatch, SwarmError
from swarm_agents.runtime import control, http, ledger, logs, process
from swarm_agents.runtime.agent import AgentBase
from swarm_agents.runtime.context import AgentContext
from swarm_agents.runtime.events import Events
from swarm_agents.runtime.fitness import Wishes, numa_nodes, report
from swarm_agents.runtime.follow import CoreBalance, follow_cores, follow_file
from swarm_agents.runtime.guard import Guard
from swarm_agents.runtime.metrics import Metrics
from swarm_agents.runtime.outlook import Outlook
from swarm_agents.runtime.restarts import Restarts
from swarm_agents.runtime.scoreboard import AgentState, Scoreboard

if TYPE_CHECKING:
    from swarm_agents.runtime.cores import Cores
    from swarm_agents.shm.board import Board

__all__ = ["AgentProcess", "Supervisor"]

#: How long the agent may take to answer an order; to settings that load kernel modules it may take this long as well.
_ANSWER_TIMEOUT = 10.0
#: How long a new agent may take to become ready before it is held for stuck.
_START_TIMEOUT = 60.0
#: Beyond the grace that a stopping agent has: to write its last words.
_LAST_WORDS = 1.0


@dataclass(slots=True)
class AgentProcess:
    """The agent of the moment, as its supervisor knows it."""

    pid: int
    end: control.SupervisorEnd
    born: float
    tasks: int
    #: When it became ready (monotonic seconds); infinite before.
    since: float = math.inf
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    index: int = -1
    epoch: int = 0
    declared: bool = False


class Supervisor:
    """One pod's supervisor. `inherited` are descriptors, open before the loop was made, that agents keep."""

    def __init__(
        self,
        cls: type[AgentBase],
        identity: Identity,
        settings: Settings,
        board: Board,
        cores_: Cores,
        listener: socket.socket,
        inherited: frozenset[int],
        wishes: Wishes | None = None,
    ) -> None:
        self.identity = identity
        self.settings = settings
        self.board = board
        self.wishes = wishes or Wishes()
        self.place(cores_)
        self.scoreboard = Scoreboard()
        self.restarts = Restarts()
        self.draining = False
        #: Whether the agent is to take part, which only a standby may not; and whether it does so by its own word.
        self.active = self.acting = identity.role is not Role.STANDBY
        self.log = logs.get_logger()
        self.events = Events(self.log)
        self._cls = cls
        board.max_attempts = settings.failover.max_attempts
        self._listener = listener
        self._inherited = inherited
        self.exported = Metrics(self)
        self.agent: AgentProcess | None = None
        self.stopping = False
        self._applying = asyncio.Lock()
        #: Set while there is an agent that is ready.
        self._up = asyncio.Event()
        self._declared_at = 0.0
        self.guard, self.outlook = Guard(self), Outlook(self)
        self.core_balance = CoreBalance()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- life

    async def run(self) -> int:
        """Runs until the pod is stopped or its agents are hopeless; returns the exit status."""
        loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[int] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        if self.unfit:
            self.events.record("PlacementUnmet", level="error", reason=self.unfit)
        server = http.Server(http.application(self, self.identity.keys_dir))
        serving = loop.create_task(server.serve(sockets=[self._listener]))
        self._fork()
        for forever in (self.guard.run(), self.outlook.run(), follow_cores(self), follow_file(self)):
            self._background(forever)
        try:
            return await self._finished
        finally:
            for task in self._tasks:
                task.cancel()
            server.stop()
            await serving
            if self.agent is not None:
                await self.agent.end.close()

    def _finish(self, status: int) -> None:
        if not self._finished.done():
            self._finished.set_result(status)

    def _background(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._background_ended)

    def _background_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("a task of the supervisor failed; the pod has to be restarted", exc_info=error)
            self._finish(1)

    # -- the agent process

    def _fork(self) -> None:
        if self.stopping:
            self._finish(0)
            return
        ours, theirs = socket.socketpair()
        self.scoreboard.restart()
        began = time.monotonic()
        try:
            pid = process.fork(
                lambda: self._agent_main(theirs), keep={*self._inherited, theirs.fileno()}, name="swarm-agent"
            )
        except OSError as error:
            ours.close()
            theirs.close()
            self.events.record("ForkFailed", level="error", reason=str(error))
            self._died(served=0.0, worked=False)
            return
        theirs.close()
        ours.setblocking(False)
        agent = AgentProcess(
            pid, control.SupervisorEnd(ours, self._announced), began, sum(self.scoreboard.tasks().values())
        )
        self.agent = agent
        asyncio.get_running_loop().call_later(_START_TIMEOUT, self._check_started, agent)
        if self._declared_at:
            self.exported.replaced("fork", time.monotonic() - self._declared_at)

    def _agent_main(self, sock: socket.socket) -> int:
        """In the child."""
        logs.bind(pid=os.getpid())
        context = AgentContext(self.identity, self.settings, self.board, self.scoreboard, self.cores, logs.get_logger())
        context.draining = self.draining or bool(self.unfit)
        context.active = self.active
        return self._cls.main(context, sock)

    def _announced(self, message: control.Joined | control.Ready | control.Happened) -> None:
        agent = self.agent
        if agent is None:
            return
        if isinstance(message, control.Happened):
            for stage in ("detect", "claim", "resume"):  # of a takeover that the agent itself has seen to
                if stage in message.fields:
                    self.exported.failover(stage, float(message.fields[stage]))
            self.events.record(message.event, **message.fields)
            return
        if isinstance(message, control.Joined):
            agent.index, agent.epoch, agent.declared = message.index, message.epoch, False
            logs.bind(epoch=agent.epoch)
            self.events.record("AgentJoined", index=agent.index, agent_pid=agent.pid)
            return
        now = time.monotonic()
        agent.since = now
        agent.ready.set()
        self._up.set()
        if self._declared_at:
            self.exported.replaced("ready", now - self._declared_at)
            self.events.record(
                "AgentReplaced",
                agent_pid=agent.pid,
                member_epoch=agent.epoch,
                seconds=round(now - self._declared_at, 4),
                restarts=self.restarts.total,
            )
            self._declared_at = 0.0
        self.events.record("AgentReady", agent_pid=agent.pid, seconds=round(now - agent.born, 4))

    def _check_started(self, agent: AgentProcess) -> None:
        if agent is self.agent and self.scoreboard.waits:  # for as long as it takes
            asyncio.get_running_loop().call_later(_START_TIMEOUT, self._check_started, agent)
        elif agent is self.agent and not agent.ready.is_set():
            self.events.record("AgentStuck", level="error", agent_pid=agent.pid, reason="did not become ready")
            os.kill(agent.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Collects every child that has ended: as PID 1 also those that were left to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.agent is not None and pid == self.agent.pid:
                try:
                    self._agent_ended(self.agent, os.waitstatus_to_exitcode(status))
                except BoardMismatch as error:
                    self.board_lost(error)

    def _agent_ended(self, agent: AgentProcess, code: int) -> None:
        self.agent = None
        self._up.clear()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        if not (self.stopping and code == 0):
            self._declare(agent, how)
        self._background(agent.end.close())
        if self.stopping:
            if code != 0:
                self._leave_for_it()
            self.events.record("AgentStopped", code=code)
            self._finish(0)
            return
        now = time.monotonic()
        self.events.record("AgentDied", level="error", agent_pid=agent.pid, how=how, lived=round(now - agent.born, 3))
        self._died(served=max(now - agent.since, 0.0), worked=sum(self.scoreboard.tasks().values()) > agent.tasks)

    def _leave_for_it(self) -> None:
        """Leaves the board in the place of an agent that could not: if it was the last, the board goes with it."""
        try:
            self.board.leave(self.board.join(self.identity.pod, self.identity.role))
        except SwarmError as error:
            self.log.warning("the board could not be left in order", reason=str(error))

    def _died(self, *, served: float, worked: bool) -> None:
        self.restarts = self.restarts.died(served=served, worked=worked)
        if self.restarts.hopeless:
            self.events.record(
                "AgentHopeless",
                level="error",
                reason=f"{self.restarts.fruitless} in a row died without any work",
            )
            self._finish(1)
        elif self.restarts.pause:
            asyncio.get_running_loop().call_later(self.restarts.pause, self._fork)
        else:
            self._fork()

    def _declare(self, agent: AgentProcess, how: str) -> None:
        """Says on the board that the agent is dead; its tasks can be claimed by others from now on."""
        if agent.declared:
            return
        self.board.refuse_cut()
        agent.declared = True
        index, epoch = agent.index, agent.epoch
        if index < 0:  # it died before it could say where it had joined
            for info in self.board.members():
                if info.name == self.identity.pod and info.pid == agent.pid:
                    index, epoch = info.index, info.epoch
        if index >= 0:
            self.declared(agent, time.monotonic())
            self.note_death(index, epoch, how)
            tasks = self.board.declare_dead(index, epoch)
            ledger.note_end(self.board.directory, self.identity.pod, epoch, how)
            self.exported.fenced("exit")
            self.guard.follow_up(index, epoch, self._declared_at)
            self.events.record(
                "AgentDeclaredDead",
                level="warning",
                index=index,
                member=self.identity.pod,
                member_epoch=epoch,
                witness="exit",
                tasks=tasks,
            )

    def board_lost(self, error: BoardMismatch) -> None:
        """Somebody has cut the board short: ends the pod while it can still say why."""
        if not self._finished.done():
            self.events.record("BoardLost", level="error", reason=str(error))
            self._finish(1)

    def note_death(self, index: int, epoch: int, how: str) -> None:
        """Notes what a member has in hand that is about to be declared dead, and which of it will be set aside."""
        for given_up in ledger.note_death(self.board, index, epoch, how):
            self.events.record(
                "TaskSetAside",
                level="error",
                task=given_up.task,
                kernel=given_up.kernel,
                attempts=given_up.attempts,
                reason=given_up.reason,
                inputs=given_up.inputs,
            )

    def declared(self, agent: AgentProcess, when: float) -> None:
        """The death of this pod's agent has been declared on the board (monotonic seconds)."""
        agent.declared = True
        self._declared_at = when

    # -- orders from inside

    def activate(self, active: bool) -> None:
        """Has a standby take part, or step back."""
        if active != self.active:
            self.active = active
            self.events.record("StandbyActivated" if active else "StandbySteppedBack")
            self._background(self._switch(active))

    async def _switch(self, active: bool) -> None:
        await self._tell(control.Activate(active))
        self.acting = active

    async def _tell(self, order: control.Order) -> None:
        """Gives an order whose effect the next agent would begin with anyway."""
        if self.agent is not None:
            try:
                await self.agent.end.ask(order, _ANSWER_TIMEOUT)
            except (ConnectionError, TimeoutError, control.RefusedError) as error:
                self.log.warning("the agent did not take an order", order=type(order).__name__, reason=str(error))

    # -- orders from outside

    def _stop(self) -> None:
        if self.stopping:
            return
        self.stopping = True
        grace = self.settings.runtime.drain_timeout
        self.events.record("Stopping", grace=grace)
        if self.agent is None:
            self._finish(0)
            return
        self._background(self._tell(control.Stop(grace)))
        asyncio.get_running_loop().call_later(grace + _LAST_WORDS, self._kill, self.agent)

    def _kill(self, agent: AgentProcess) -> None:
        if agent is self.agent:
            self.events.record("AgentKilled", level="warning", reason="it had not left when its grace was over")
            os.kill(agent.pid, signal.SIGKILL)

    async def apply(self, data: bytes) -> str:
        """Has the agent run by these settings and returns their revision.

        Raises:
            ValueError: they can't be read or belong to another swarm.
            RefusedError: the agent can't run by them; the old ones hold.
            TimeoutError, ConnectionError: the agent has not answered.
        """
        settings = decode_settings(data)
        if settings.uid != self.identity.uid:
            raise ValueError(
                f"these settings are for the swarm with UID {settings.uid} ({settings.namespace}/{settings.swarm}), "
                f"this agent belongs to {self.identity.uid} ({self.identity.namespace}/{self.identity.swarm})"
            )
        async with self._applying:
            revision = settings_revision(settings)
            if revision != settings_revision(self.settings):
                async with asyncio.timeout(_ANSWER_TIMEOUT):
                    agent = await self._ready_agent()
                await agent.end.ask(control.Apply(data), _ANSWER_TIMEOUT)
                self._cls.prepare(self.identity, settings)  # for the agents to come
                self.settings = settings
                self.board.max_attempts = settings.failover.max_attempts
                logs.set_level(settings.runtime.log_level)
                self.events.record("SettingsApplied", settings=revision, generation=settings.generation)
            return revision

    async def _ready_agent(self) -> AgentProcess:
        await self._up.wait()
        assert self.agent is not None
        return self.agent

    async def drain(self) -> None:
        """Has the agent claim nothing more, until `resume`."""
        self.draining = True
        await self._tell(control.Drain())

    async def resume(self) -> None:
        """Undoes `drain`. An agent whose place is not as it must be claims nothing all the same."""
        self.draining = False
        if not self.unfit:
            await self._tell(control.Resume())

    # -- where it runs

    def place(self, cores_: Cores) -> None:
        """These are the cores now."""
        self.cores = cores_
        self.numa = numa_nodes(cores_.cpus)
        self.unfit = self.wishes.unmet(cores_, self.numa)

    async def moved(self, cores_: Cores) -> None:
        """Other cores than before: the agent stops taking tasks when it may not work there, and begins when it may."""
        before = self.unfit
        self.place(cores_)
        if bool(before) == bool(self.unfit):
            return
        if self.unfit:
            self.events.record("PlacementUnmet", level="error", reason=self.unfit)
            await self._tell(control.Drain())
        else:
            self.events.record("PlacementMet", cpus=list(cores_.cpus), reason=cores_.reason)
            if not self.draining:
                await self._tell(control.Resume())

    # -- what is known

    @property
    def epoch(self) -> int:
        return self.agent.epoch if self.agent is not None else 0

    @property
    def agent_pid(self) -> int:
        return self.agent.pid if self.agent is not None else -1

    def state(self) -> str:
        """starting, waiting, ready, unfit, draining, drained or stopped."""
        if self.stopping:
            return "stopped" if self.agent is None else "draining"
        if self.agent is None or not self.agent.ready.is_set():
            return "waiting" if self.scoreboard.waits else "starting"
        if self.draining:
            return "drained" if self.scoreboard.state is AgentState.DRAINED else "draining"
        return "unfit" if self.unfit else "ready"

    def unready(self) -> str:
        """Why the pod is not ready; empty when it is."""
        agent = self.agent
        if self.stopping:
            return "stopping"
        if agent is None:
            return "the agent has died and is being replaced"
        if not agent.ready.is_set():
            return "another agent is at work in its place" if self.scoreboard.waits else "the agent is starting"
        if self.unfit:
            return self.unfit
        for info in self.board.members():
            if (info.index, info.epoch) == (agent.index, agent.epoch):
                limit = self.settings.failover.dead_after
                return "" if info.heartbeat_age < limit else f"no heartbeat for {info.heartbeat_age:.2f} s"
        return "the agent is not on the board"

    def status(self) -> dict[str, Any]:
        """What `GET /v1/status` says."""
        return {
            "agent": self.identity.pod,
            "role": str(self.identity.role),
            "state": self.state(),
            "epoch": self.epoch,
            "running": self.scoreboard.running,
            "settings": settings_revision(self.settings),
            "restarts": self.restarts.total,
            "node": self.identity.node,
            "active": self.acting,
            "keys": self.events.keys,
            **report(self.wishes, self.cores, self.numa),
            **self.outlook.report(),
        }

    async def metrics(self) -> bytes:
        """The pod's metrics and those of its agent, Prometheus text."""
        own = b""
        if self.agent is not None and self.agent.ready.is_set():
            with contextlib.suppress(ConnectionError, TimeoutError, control.RefusedError):
                own = await self.agent.end.ask(control.Collect(), 1.0)
        return self.exported.text() + own
