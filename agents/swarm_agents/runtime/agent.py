"""The base class of agents: what every role has in common, and the hooks in which the roles differ.

The supervisor forks a process and calls `AgentBase.main` in it. `main` joins the board, starts the heartbeat and the
thread that listens to the supervisor, then calls the hooks of the derived class:

    prepare(identity, settings)   in the supervisor, before any fork: import what is slow, compile or load kernels.
                                  No threads, sockets or parallel kernels here: they do not survive a fork.
    start()                       in the agent, joined and with a heartbeat: open sockets, make workers. When it returns
                                  the agent is ready, unless the class `announces_ready` in its `run`.
                                  An exception is a crash: the supervisor logs it and forks again.
    run()                         the agent's loop, on the main thread. It takes work while `context.may_claim`, calls
                                  `context.report_idle()` when it may not and has nothing in hand, and returns when
                                  `context.leaving` and nothing is in hand. Raise or let through `Fenced` when the board
                                  says so: everything in hand is void, and `main` joins again, calls `rejoined()` and
                                  `run()` once more.
    settings_changed(old, new)    new settings hold from now on (`context.settings` is `new` already). When it returns
                                  they are acknowledged; an exception refuses them and the old ones hold.
                                  Runs on the control thread while `run` goes on: be quick, change references only.
    drain() / resume() / stop()   a wish has arrived, `context` says so already. When `drain` returns the agent claims
                                  nothing more, and whoever asked is told so. On the control thread as well.
    abandon()                     the time to finish is over: hand back what is in hand. Then the process ends.
    metrics()                     the agent's own metrics, Prometheus text; `/metrics` of the pod adds them to the rest.
    State                         a class of what the agent keeps beyond its own life: `self.state` is one, see `state`.
    close()                       the last call, when `run` has returned for good: close what `start` opened.

`AsyncAgent` is the same for an agent that lives in an event loop: `run_async()` instead of `run()`, and
`settings_changed`, `drain`, `resume` and `stop` are called in the loop and may be coroutine functions.

Invariants: hooks never see the supervisor's sockets or loop; the process ends by `os._exit`, so nothing of the
supervisor's clean-up runs a second time. Rejected: `multiprocessing.Process` (its bookkeeping and its exit handlers
belong to a program that has several ways to start children; this one has a single one).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from swarm_agents.config import Identity, Role, Settings
from swarm_agents.runtime.context import AgentContext
from swarm_agents.runtime.state import Durable

if TYPE_CHECKING:
    import socket

__all__ = ["AgentBase", "AsyncAgent"]

#: How long a hook that runs in an agent's event loop may take before the control thread gives up on it (seconds).
_HOOK_TIMEOUT = 10.0


class AgentBase:
    """One agent. Derive, set `roles`, implement `run`; see the module's text for the hooks."""

    #: The roles that this class serves.
    roles: ClassVar[tuple[Role, ...]] = ()
    #: Set by a class that is ready only when its `run` says so, by `context.announce_ready()`: once its ports are open.
    announces_ready: ClassVar[bool] = False
    #: A msgspec Struct whose fields have defaults: what `self.state` is. None: the agent keeps nothing.
    State: ClassVar[type[Any] | None] = None

    def __init__(self, context: AgentContext) -> None:
        self.context = context
        self._durable = Durable(context, self.State) if self.State is not None else None
        #: What the agent's place kept last, or a new `State`; see `swarm_agents.runtime.state`.
        self.state: Any = self._durable.load() if self._durable is not None else None

    def save_state(self) -> bool:
        """Keeps `self.state` at once; else it is kept about once a second, and at the end. False: it was not."""
        return self._durable is not None and self._durable.save(self.state)

    def restore_state(self) -> None:
        """Called by the runtime when the agent was fenced and has joined again: what it had not kept is void."""
        if self._durable is not None:
            self.state = self._durable.load()

    def put_state_away(self) -> None:
        """Called by the runtime before the board is left."""
        if self._durable is not None:
            self._durable.save(self.state)
            self._durable.close()

    @classmethod
    def prepare(cls, identity: Identity, settings: Settings) -> None:
        """Called in the supervisor before the first fork. Everything imported here is shared by all forked agents."""

    def start(self) -> None:
        """Called once, after the first join and before `run`."""

    def run(self) -> None:
        """The agent's loop; returns when `context.leaving` and nothing is in hand."""
        raise NotImplementedError

    def rejoined(self) -> None:
        """Called after `Fenced`, when `context.member` is the agent's new place and before `run` is called again."""

    def settings_changed(self, old: Settings, new: Settings) -> None:
        """Called when other settings hold from now on."""

    def drain(self) -> None:
        """Called when the agent is to take no more work."""

    def resume(self) -> None:
        """Called when a drained agent is to take work again."""

    def stop(self) -> None:
        """Called when the agent is to leave; `context.stop_in` seconds remain."""

    def abandon(self) -> None:
        """Called when the grace is over and `run` has not returned."""

    def metrics(self) -> bytes:
        """The agent's own metrics in Prometheus' text format, with names that nobody else uses."""
        return b""

    def close(self) -> None:
        """Called when `run` has returned for good and the board has been left."""

    def dispatch(self, hook: Callable[..., Any], *args: Any) -> None:
        """Calls one of the agent's hooks from the control thread, where and when it suits the agent; waits for it."""
        hook(*args)

    @classmethod
    def main(cls, context: AgentContext, control: socket.socket) -> int:
        """The whole life of an agent process; returns its exit status."""
        from swarm_agents.runtime.life import live

        return live(cls, context, control)


class AsyncAgent(AgentBase):
    """An agent that lives in an asyncio loop, which `run` makes anew after each fence."""

    _loop: asyncio.AbstractEventLoop | None = None

    async def run_async(self) -> None:
        """The agent's loop as a coroutine. Await `changed.wait()` and clear it to learn of a change in `context`."""
        raise NotImplementedError

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        #: Set, in the loop, whenever the context has changed.
        self.changed = asyncio.Event()
        self.context.on_wake(lambda: self._soon(loop, self.changed.set))
        try:
            await self.run_async()
        finally:
            self._loop = None

    @staticmethod
    def _soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody is left to be told
            loop.call_soon_threadsafe(function)

    def dispatch(self, hook: Callable[..., Any], *args: Any) -> None:
        loop = self._loop
        if loop is None:  # between two runs: the next one begins by what `context` says
            return

        async def call() -> None:
            result = hook(*args)
            if inspect.isawaitable(result):
                await result

        asyncio.run_coroutine_threadsafe(call(), loop).result(_HOOK_TIMEOUT)
