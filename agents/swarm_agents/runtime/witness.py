"""The second witness of a member's silence: the kernel where the process can be seen, other watchers where it can't.

A heartbeat that stays away has two readings: the agent hangs, or it waits for a core. Whoever sees the process asks the
kernel which it is. A process all of whose threads are stopped hangs for certain. One that a fatal signal has reached
is *dying*: it will never work again, though on a crowded machine it may take a second until it has ended, because each
of its threads has to be let run once more for that. One that has a thread which is ready to run and is not let run, or
waits for the disk, is *starved*: its silence is the machine's fault, and taking its tasks away would only add to the
load. Each pod has a PID namespace of its own on Kubernetes, so an agent is seen by its own supervisor alone; what that
knows it says on the board (`swarm_agents.shm.witness`), and the others believe it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from swarm_agents.shm import witness

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board, MemberInfo

__all__ = ["Opinion", "Threads", "Witness", "opinion_of", "read_threads"]

#: Of each thread: its state's letter, `X` if it is about to be killed, and the CPU time (ns) that it has had.
Threads = dict[int, tuple[str, int]]

#: Fields of /proc/PID/task/TID/stat after the name (proc_pid_stat(5)): flags, of which PF_SIGNALED says that a fatal
#: signal has been taken, and the thread's pending signals, of which bit 8 is SIGKILL: every thread is sent that when a
#: fatal signal has come for one of them.
_FLAGS, _PENDING = 6, 28
_PF_SIGNALED = 0x400
_SIGKILL = 1 << 8


class Opinion(Enum):
    """What a second witness says of a suspect."""

    #: Nothing, or there is none.
    NONE = "none"
    #: Another watcher suspects it, too.
    CONFIRMED = "confirmed"
    #: The kernel says that it is stopped.
    STOPPED = "stopped"
    #: The kernel says that it was killed, and has not ended yet.
    DYING = "dying"
    #: It lives and waits for a core or the disk.
    STARVED = "starved"


def read_threads(pid: int) -> Threads:
    """The threads of a process, but for those that end while it is looked; empty when it is gone."""
    found: Threads = {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for tid in threads:
        try:
            with open(f"/proc/{pid}/task/{tid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
            doomed = int(fields[_FLAGS]) & _PF_SIGNALED or int(fields[_PENDING]) & _SIGKILL
            with open(f"/proc/{pid}/task/{tid}/schedstat") as sched:
                found[int(tid)] = "X" if doomed else fields[0], int(sched.read().split()[0])
        except (OSError, ValueError, IndexError):
            continue
    return found


def opinion_of(before: Threads, now: Threads) -> Opinion:
    """What two looks at a suspect's threads say. Pure."""
    if any(state == "X" for state, _ in now.values()):
        return Opinion.DYING
    if now and all(state in "Tt" for state, _ in now.values()):
        return Opinion.STOPPED
    for tid, (state, ran) in now.items():
        if state in "RD" and before.get(tid) == (state, ran):
            return Opinion.STARVED
    return Opinion.NONE


class Witness:
    """What can be learned of suspects from the place of one supervisor.

    `place` gives its agent's place on the board, -1 while it has none: then it accuses nobody.
    """

    def __init__(
        self, board: Callable[[], Board], place: Callable[[], int], read: Callable[[int], Threads] = read_threads
    ) -> None:
        self._board, self._place, self._read = board, place, read
        self._before: dict[tuple[int, int], Threads] = {}

    def ask(self, info: MemberInfo, seen: bool, span: float) -> Opinion:
        """The opinion on a suspect. `seen`: its process is visible here. `span`: how long a voucher holds (seconds)."""
        base, own = self._board().mapping.base, self._place()
        count = witness.accuse(base, info.index, info.epoch, own) if own >= 0 else 0
        if seen:
            key = info.index, info.epoch
            now = self._read(info.pid)
            opinion = opinion_of(self._before.get(key, {}), now)
            self._before[key] = now
            if opinion is Opinion.STARVED:
                witness.vouch(base, info.index, int(span * 1e9))
            if opinion is not Opinion.NONE:
                return opinion
        elif witness.is_vouched(base, info.index):
            return Opinion.STARVED
        others = witness.accusers(base, info.index, info.epoch) - (own >= 0)
        return Opinion.CONFIRMED if others > 0 or count > 1 else Opinion.NONE

    def heard(self, info: MemberInfo) -> None:
        """The suspect has shown life."""
        self.forget(info)
        own = self._place()
        if own >= 0:
            witness.absolve(self._board().mapping.base, info.index, info.epoch, own)

    def forget(self, info: MemberInfo) -> None:
        """The suspect is gone."""
        self._before.pop((info.index, info.epoch), None)
