"""An agent process from its first moment to its last: join, be heard, work, be told, leave.

Two threads beside the main one, which belongs to the agent's `run`: the heartbeat, and the control thread, which reads
what the supervisor asks, changes the context, and answers when what was asked holds.

Invariants: the board is left exactly once, by whoever ends the process (`_leave`); after the grace of a stop the
process ends even if a kernel never returns; a fenced agent commits nothing, joins again and goes on.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from swarm_agents.config import Settings, decode_settings, settings_revision
from swarm_agents.errors import BoardMismatch, Fenced, SwarmError, SwarmFull, Unreachable
from swarm_agents.runtime import control, logs
from swarm_agents.runtime.heartbeat import Heartbeat
from swarm_agents.runtime.scoreboard import AgentState

if TYPE_CHECKING:
    import socket

    from swarm_agents.runtime.agent import AgentBase
    from swarm_agents.runtime.context import AgentContext
    from swarm_agents.shm.board import Member

__all__ = ["live"]

#: How long an agent tries to get its place on the board while a namesake seems to hold it (seconds).
_JOIN_TIMEOUT = 10.0
_JOIN_PAUSE = 0.2
#: How often an agent says how much of its core and how much memory it uses (seconds).
_LOAD_INTERVAL = 1.0


def live(cls: type[AgentBase], context: AgentContext, sock: socket.socket) -> int:
    """Lives an agent's life in this process; returns its exit status: 0 only when it was asked to stop."""
    return _Life(cls, context, control.AgentEnd(sock)).live()


class _Life:
    def __init__(self, cls: type[AgentBase], context: AgentContext, end: control.AgentEnd) -> None:
        self._cls = cls
        self._context = context
        self._end = end
        self._heartbeat = Heartbeat(context)
        self._leaving = threading.Lock()
        self._agent: AgentBase | None = None
        self._load = time.process_time(), time.monotonic()

    def live(self) -> int:
        context, cls = self._context, self._cls
        try:
            self._join()
            agent = self._agent = cls(context)
            agent.start()
            threading.Thread(target=self._listen, args=(agent,), name="control", daemon=True).start()
            context._announce = self._announce
            context._tell = lambda event, fields: self._end.send(control.Happened(event, fields))
            if not cls.announces_ready:
                context.announce_ready()
            while not context.stopping:
                try:
                    agent.run()
                except Fenced:
                    context.fenced = True
                if context.fenced and not context.stopping:
                    self._rejoin(agent)
                elif not context.stopping:
                    context.log.error(
                        "the agent's loop ended although nobody asked for it", agent_class=type(agent).__qualname__
                    )
                    return 1
            self._leave()
            agent.close()
            return 0
        except Exception:
            context.log.exception("the agent failed")
            return 1

    def _announce(self) -> None:
        self._context.report(AgentState.READY)
        self._end.send(control.Ready())

    # -- the place on the board

    def _join(self) -> None:
        context = self._context
        until = time.monotonic() + _JOIN_TIMEOUT
        while True:
            try:
                context.member = context.board.join(context.identity.pod, context.identity.role)
                break
            except (BoardMismatch, SwarmFull, Unreachable):
                raise
            except SwarmError as error:
                # A namesake whose process still lives: our predecessor, on its way out.
                if time.monotonic() > until:
                    raise
                context.log.warning("waiting for the place on the board", reason=str(error))
                time.sleep(_JOIN_PAUSE)
        context.fenced = False
        context.board.spin_ns = int(context.settings.runtime.spin * 1e9)
        logs.bind(epoch=context.member.epoch)
        self._heartbeat.start()
        self._end.send(control.Joined(context.member.index, context.member.epoch))

    def _rejoin(self, agent: AgentBase) -> None:
        context = self._context
        old = context.member
        context.log.warning("fenced: what was in hand is void, joining again", old_epoch=old.epoch if old else None)
        self._heartbeat.stop()
        context.scoreboard.rejoined()
        context.scoreboard.set_running(0)
        self._join()
        agent.restore_state()
        agent.rejoined()

    def _leave(self) -> None:
        """Leaves the board. Whoever comes second waits for ever: the first one ends the process."""
        self._leaving.acquire()
        self._heartbeat.stop()
        member: Member | None = self._context.member
        if member is not None:
            if self._agent is not None:
                self._agent.put_state_away()
            try:
                self._context.board.leave(member)
            except Fenced:
                pass  # somebody has taken the place away already, and the tasks with it
        self._context.report(AgentState.STOPPED)

    # -- what the supervisor asks

    def _listen(self, agent: AgentBase) -> None:
        context = self._context
        try:
            while True:
                request = self._end.receive(min(_LOAD_INTERVAL, max(context.stop_in, 0.0)))
                if context.stop_in <= 0:
                    self._give_up(agent)
                    return
                if request is None:
                    self._say_load()
                    agent.save_state()
                    continue
                error, data = "", b""
                try:
                    data = self._do(agent, request.order)
                except Exception as reason:
                    context.log.exception("an order was refused", order=type(request.order).__name__)
                    error = f"{type(reason).__name__}: {reason}"
                self._end.send(control.Reply(request.number, error, data))
                context.wake()
        except EOFError:
            os._exit(1)  # the supervisor is gone; nobody would bring this agent back, so nobody should count on it

    def _say_load(self) -> None:
        context, member = self._context, self._context.member
        used, now = time.process_time(), time.monotonic()
        share = (used - self._load[0]) / max(now - self._load[1], 1e-3)
        self._load = used, now
        if member is not None and not context.fenced:
            try:
                context.board.heartbeat(member, cpu=share, rss=_resident())
            except Fenced:
                pass  # the heartbeat's own thread says so to the agent

    def _do(self, agent: AgentBase, order: control.Order) -> bytes:
        context = self._context
        match order:
            case control.Apply(settings=data):
                self._apply(agent, decode_settings(data))
            case control.Drain():
                context.draining = True
                context.report(AgentState.DRAINING)
                agent.dispatch(agent.drain)
            case control.Resume():
                context.draining = False
                context.report(AgentState.READY)
                agent.dispatch(agent.resume)
            case control.Stop(grace=grace):
                context.stop_at = time.monotonic() + grace
                context.stopping = True
                context.report(AgentState.DRAINING)
                agent.dispatch(agent.stop)
            case control.Activate(active=active):
                context.active = active
                agent.dispatch(agent.resume if active else agent.drain)
            case control.Collect():
                return agent.metrics()
        return b""

    def _apply(self, agent: AgentBase, new: Settings) -> None:
        context = self._context
        old, context.settings = context.settings, new
        try:
            agent.dispatch(agent.settings_changed, old, new)
        except BaseException:
            context.settings = old
            raise
        context.board.spin_ns = int(new.runtime.spin * 1e9)
        self._heartbeat.follow()
        logs.set_level(new.runtime.log_level)
        context.log.info("runs by new settings", settings=settings_revision(new), generation=new.generation)

    def _give_up(self, agent: AgentBase) -> None:
        """The grace is over and a task still runs: hand it back and end."""
        context: Any = self._context
        context.log.warning("the time to finish is over: what is in hand goes back to the board")
        try:
            agent.abandon()
        except Exception:
            context.log.exception("a task could not be handed back; it is taken from this agent when it is gone")
        self._leave()
        os._exit(0)


def _resident() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
