"""Signs of life, given and watched by compiled code that needs no GIL and costs microseconds.

A heartbeat that waited for the GIL would stop while a kernel holds it, and a busy agent would be taken for a dead one.
A watcher that reads every record in Python 50 times a second would cost a percent of a core on each agent; it asks
`glance` instead, and looks closer only when that says that something has changed.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import futex_wait, futex_wake, load, monotonic_ns, store
from swarm_agents.shm.hot import beat
from swarm_agents.shm.jit import jit, jit_nogil
from swarm_agents.shm.layout import H_MAX_MEMBERS, M_ALIVE, M_BEAT
from swarm_agents.shm.places import member_at

__all__ = ["beat_until_stopped", "glance", "stop_beating"]


@jit_nogil
def beat_until_stopped(base: int, member: int, epoch: int, wish: int) -> bool:
    """Beats for a member until `stop_beating(wish)`: True; or until it is fenced: False.

    `wish` is the address of two words of this process: 0, and the pause between two beats in ns, read for each.
    """
    while load(wish) == 0:
        if not beat(base, member, epoch):
            return False
        futex_wait(wish, 0, load(wish + 8))
    return True


@jit
def stop_beating(wish: int) -> None:
    """Ends `beat_until_stopped`, at once."""
    store(wish, 1)
    futex_wake(wish, 1)


@jit
def glance(base: int, silence: int) -> tuple[int, int]:
    """A number that changes when a member comes, goes or dies; and how many living agents have been silent for longer
    than `silence` ns. Clients give no heartbeat and are not counted."""
    now = monotonic_ns()
    sign, silent = 17, 0
    for member in range(load(base + H_MAX_MEMBERS * 8)):
        at = member_at(base, member)
        word = load(at)
        sign = (sign * 31) ^ word
        if word & 7 == M_ALIVE and (word >> 3) & 7 != 0 and now - load(at + M_BEAT) > silence:
            silent += 1
    return sign, silent
