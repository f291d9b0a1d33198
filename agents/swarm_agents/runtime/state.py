"""An agent's durable state: small, typed, versioned, and there again in whatever process next fills its place.

    class Forecaster(AgentBase):
        class State(msgspec.Struct):
            version: ClassVar[int] = 2
            level: float = 0.0
            seen: int = 0

            @classmethod
            def upgrade(cls, version: int, fields: dict[str, Any]) -> "Forecaster.State | None":
                return cls(level=fields["mean"]) if version == 1 else None

`self.state` is such a struct: what the place (the pod's name without its incarnation) kept last, or a new one. Change
its fields as you like. It is kept about once a second if it has changed, when the agent leaves, and at once by
`self.save_state()`; beside the board, and on a volume if the swarm has one (see `store`).

Invariants: what can't be read (torn, of another version that `upgrade` does not know, fields that do not fit) is left
out with a line in the log, and never ends an agent; an agent that was fenced keeps nothing any more, and when it has
joined again its state is what lies in the store.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import msgspec

from swarm_agents.errors import SwarmError
from swarm_agents.runtime.standby import place
from swarm_agents.runtime.store import agent_key

if TYPE_CHECKING:
    from swarm_agents.runtime.context import AgentContext
    from swarm_agents.runtime.keepfile import Kept
    from swarm_agents.runtime.store import Keeper

__all__ = ["Durable"]

#: State is small: what is large belongs into a task's checkpoint or a file of one's own (bytes).
LIMIT = 1 << 20


class Durable:
    """The state of one agent process, as its base class keeps it."""

    def __init__(self, context: AgentContext, cls: type[Any]) -> None:
        self._context = context
        self._cls = cls
        self._version = int(getattr(cls, "version", 1))
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None
        self._saved = b""
        self._too_large = False

    def load(self) -> Any:
        """What was kept last, or a new state. Called anew when the agent has another place on the board."""
        context = self._context
        with self._lock:
            if self._keeper is not None:
                self._keeper.release()
            self._keeper = context.store.keeper(agent_key(place(context.identity.pod)), lambda: context.holds_place)
            self._saved = b""
            found: list[Any] = []

            def usable(kept: Kept) -> bool:
                state = self._read(kept)
                if state is not None:
                    found[:] = [state]
                return state is not None

            kept = self._keeper.read(usable)
            return found[0] if kept is not None and found else self._cls()

    def _read(self, kept: Kept) -> Any:
        try:
            if kept.version == self._version:
                return msgspec.convert(kept.value, self._cls)
            upgrade = getattr(self._cls, "upgrade", None)
            return upgrade(kept.version, kept.value) if upgrade is not None else None
        except Exception as error:  # the owner's own code, over values of a release long gone
            self._context.log.warning("an agent's state can't be read", version=kept.version, reason=str(error))
            return None

    def save(self, state: Any) -> bool:
        """Keeps the state if it has changed; False: it could not be kept, and the log says why."""
        context = self._context
        with self._lock:
            if self._keeper is None:
                return False
            try:
                data = msgspec.msgpack.encode(state)
                if data == self._saved:
                    return True
                if len(data) > LIMIT:
                    if not self._too_large:
                        context.log.error("an agent's state is not kept: it is too large", bytes=len(data), most=LIMIT)
                    self._too_large = True
                    return False
                kept = self._keeper.write(msgspec.to_builtins(state), version=self._version)
            except (SwarmError, OSError, TypeError, ValueError) as error:
                context.log.warning("an agent's state was not kept", reason=str(error))
                return False
            if kept:
                self._saved = data
            return kept

    def close(self) -> None:
        """Lets go of the file; what was kept stays, on the volume too."""
        with self._lock:
            keeper, self._keeper = self._keeper, None
            store = self._context.store
            if store.volume is not None:
                store.volume.flush(2.0)
            if keeper is not None:
                keeper.release()
            store.close()
