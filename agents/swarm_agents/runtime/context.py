"""What an agent knows of itself and of what is asked of it, handed to it by the runtime.

Wishes (drain, resume, stop, new settings) arrive on a thread of the agent's process while its main thread computes.
They are kept here as plain attributes that the main thread looks at between two tasks; an agent that sleeps elsewhere
than on its board, in an event loop say, registers `on_wake` and is called.

Invariants: `settings` is replaced whole, so a reader never sees half of a change; a stop is never taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from swarm_agents.config import Identity, Settings
from swarm_agents.runtime.scoreboard import AgentState, Scoreboard

if TYPE_CHECKING:
    from swarm_agents.runtime.cores import Cores
    from swarm_agents.runtime.store import Store
    from swarm_agents.shm.board import Board, Member

__all__ = ["AgentContext"]


class AgentContext:
    """The agent's surroundings. One for each agent process; `member` changes when the agent has been fenced."""

    def __init__(
        self, identity: Identity, settings: Settings, board: Board, scoreboard: Scoreboard, cores: Cores, log: Any
    ) -> None:
        self.identity = identity
        self.settings = settings
        self.board = board
        #: The agent's place on the board; None before it has joined and after it has left.
        self.member: Member | None = None
        self.scoreboard = scoreboard
        self.cores = cores
        #: A structlog logger with swarm, agent and epoch bound.
        self.log = log
        #: Claim nothing more; finish what is in hand. Undone by a resume.
        self.draining = False
        #: Leave, by `stop_at` (monotonic seconds) at the latest. Never undone.
        self.stopping = False
        self.stop_at = float("inf")
        #: A standby claims only while this is true; always true for the other roles.
        self.active = True
        #: The board has another epoch for this agent: drop everything, return from `run`.
        self.fenced = False
        self._wakers: list[Callable[[], None]] = []
        self._store: Store | None = None
        self._announce: Callable[[], None] = lambda: None
        self._tell: Callable[[str, dict[str, Any]], None] = lambda event, fields: None

    @property
    def may_claim(self) -> bool:
        """Whether the agent may take new work."""
        return self.active and not (self.draining or self.stopping or self.fenced)

    @property
    def leaving(self) -> bool:
        """Whether `run` should return as soon as nothing is in hand."""
        return self.stopping or self.fenced

    @property
    def store(self) -> Store:
        """What is kept for this agent and its tasks; made when it is asked for first, and anew in another place."""
        from swarm_agents.runtime.store import Store
        from swarm_agents.runtime.volume import Volume

        place = (self.member.index, self.member.epoch) if self.member is not None else (0, 0)
        store = self._store
        if store is None:
            volume, limits = None, self.settings.checkpoints
            if self.identity.state_dir is not None:
                try:
                    volume = Volume(self.identity.state_dir / f"swarm-{self.identity.uid}", limits, log=self.log)
                except OSError as error:
                    self.log.error("the volume for durable state can't be used", reason=str(error))
            store = self._store = Store(
                self.board.directory, limits, owner=self.identity.pod, place=place, log=self.log, volume=volume
            )
        elif store.place != place:
            store.close()
            store.place = place
        return store

    @property
    def holds_place(self) -> bool:
        """Whether the agent's place on the board is its own at this moment."""
        from swarm_agents.shm.layout import M_ALIVE
        from swarm_agents.shm.members import record_at, word_at

        member = self.member
        if member is None or self.fenced:
            return False
        board = self.board
        state, _, epoch = word_at(board.mapping, record_at(board.words, member.index))
        return state == M_ALIVE and epoch == member.epoch

    def on_wake(self, waker: Callable[[], None]) -> None:
        """Has `waker` called, on another thread, whenever something here has changed. It must not block."""
        self._wakers.append(waker)

    def wake(self) -> None:
        for waker in self._wakers:
            waker()

    def announce_ready(self) -> None:
        """Says that the agent takes work: for classes with `announces_ready`. A second call does nothing."""
        announce, self._announce = self._announce, lambda: None
        announce()

    def tell(self, event: str, **fields: Any) -> None:
        """Has an event put into the pod's record, which the operator reads; see `events`. Fields are plain values."""
        self._tell(event, fields)

    def report(self, state: AgentState) -> None:
        """Says where the agent is: `/v1/status` shows it, and the operator deletes a pod that is DRAINED."""
        self.scoreboard.set_state(state)

    def report_idle(self) -> None:
        """To be called by an agent that has nothing in hand and is not going to take anything: says what that means."""
        if self.draining or self.stopping:
            self.report(AgentState.DRAINED)

    @property
    def stop_in(self) -> float:
        """Seconds that are left of a stop's grace; infinite when no stop has been asked for."""
        return self.stop_at - time.monotonic()
