"""A node's board: the table of members, the lanes of tasks, the arena, in one file that outlives its processes.

    board = Board.open(directory, Geometry(), swarm_uid=uid)      # or Board.attach(directory)
    member = board.join("risk-compute-0-a", Role.COMPUTE)
    port = board.port(member);     ticket = port.submit("core.echo", (1,)); port.wait(1); port.poll()
    worker = board.worker(member); claim = worker.claim(1); worker.commit(claim, 2)
    board.leave(member)                                            # the last one out removes the files

How it works, who writes which word and why that survives a kill at any instruction stands in PROTOCOL.md and in the
modules that it names.

Invariants of this module: everything that changes who is on the board and cannot be one CAS (create, join, leave,
remove) happens under the directory's lock; nothing on a task's way does. A board whose members are all dead is not
repaired but made anew, by whoever opens it: its submitters are gone, and so nobody waits for what it holds.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from pathlib import Path

import numpy as np

from swarm_agents.errors import BoardMismatch, Fenced, SwarmError, SwarmFull, Unreachable
from swarm_agents.shm import files, hot, members, stats, sweep, tasks
from swarm_agents.shm.answers import Answer, RawAnswer, Ticket
from swarm_agents.shm.arena import AGENT_SHARE, CLIENT_SHARE, Arena
from swarm_agents.shm.blocks import sweep_blocks
from swarm_agents.shm.files import Mapping
from swarm_agents.shm.layout import (
    H_ARENA_BYTES,
    H_CELLS,
    H_LANE_SLOTS,
    H_LANE_STRIDE,
    H_LANE_WORDS,
    H_LANES_AT,
    H_MAX_ATTEMPTS,
    H_MAX_MEMBERS,
    H_NONCE,
    H_PORT_WORDS,
    H_SIZE,
    H_STATES_AT,
    H_TASK_SLOTS,
    L_MAPS,
    LANES,
    M_ALIVE,
    M_CPU_MILLI,
    M_EMPTY,
    M_FENCED,
    M_FENCING,
    M_GONE,
    M_RSS,
    M_WORD,
    MAX_ATTEMPTS,
    MOST_MEMBERS,
    NAME_MAX,
    STATE_NAMES,
    Geometry,
    board_bytes,
    member_word,
    plan_header,
)
from swarm_agents.shm.leases import SWEEP_WORDS, sweep_leases
from swarm_agents.shm.members import CLIENT, ROLES, Member, MemberInfo, MemberState
from swarm_agents.shm.names import kernel_id
from swarm_agents.shm.places import is_fenced
from swarm_agents.shm.port import Port, signed_id
from swarm_agents.shm.references import Arrays, Descriptor
from swarm_agents.shm.stats import BoardStats
from swarm_agents.shm.worker import Claim, Worker

__all__ = [
    "Answer",
    "Arena",
    "Board",
    "BoardStats",
    "Claim",
    "Descriptor",
    "Geometry",
    "Member",
    "MemberInfo",
    "MemberState",
    "Port",
    "RawAnswer",
    "Ticket",
    "Worker",
    "board_bytes",
    "kernel_id",
]

#: How long a waiter spins before it sleeps (seconds), until somebody says otherwise.
DEFAULT_SPIN = 50e-6


class Board:
    """A process's view of its node's board. Several threads may share it; a forked child may go on with it."""

    def __init__(
        self, directory: Path, mapping: Mapping, words: dict[int, int], uid: str, geometry: Geometry | None
    ) -> None:
        self.directory = directory
        self.swarm_uid = uid
        #: How long a waiter spins before it sleeps, in ns.
        self.spin_ns = int(DEFAULT_SPIN * 1e9)
        self._wanted = geometry  # None: attached only, and not to be made by this process
        self._own: list[Member] = []
        self._lock = threading.Lock()
        self._adopt(mapping, words)

    def _adopt(self, mapping: Mapping, words: dict[int, int]) -> None:
        self.mapping = mapping
        self.words = words
        self.cells = words[H_CELLS]
        self.arrays = Arrays(mapping, words)

    # -- finding and making

    @classmethod
    def open(cls, directory: Path, geometry: Geometry, *, swarm_uid: str) -> Board:
        """Attaches to the swarm's board, making it whole when there is none or only a dead swarm's.

        Raises:
            BoardMismatch: living members use a board of another version, geometry or swarm, or the directory is
                somebody else's.
            SharedMemoryFull: no room for it; nothing is left behind.
        """
        with files.exclusive(directory, make=True):
            mapping, words = _attach_or_make(directory, geometry, swarm_uid)
        return cls(directory, mapping, words, swarm_uid, geometry)

    @classmethod
    def attach(cls, directory: Path) -> Board:
        """Attaches to a board that exists.

        Raises:
            Unreachable: there is none.
            BoardMismatch: it can't be used.
        """
        with files.exclusive(directory, make=False):
            found = files.read_header(directory)
            if found is None:
                raise Unreachable(f"no board in {directory}: the swarm has no agent on this node yet")
            words, uid = found
            return cls(directory, files.map_board(directory, words[H_SIZE]), words, uid, None)

    @property
    def geometry(self) -> Geometry:
        """What the board has room for."""
        return Geometry(self.words[H_TASK_SLOTS], self.words[H_ARENA_BYTES], self.words[H_MAX_MEMBERS])

    @property
    def current(self) -> bool:
        """Whether this is still the board that others find in the directory."""
        try:
            return os.stat(self.directory / files.BOARD_FILE).st_ino == self.mapping.inode
        except OSError:
            return False

    def _follow(self) -> None:
        """Maps the board that lies in the directory now, if it is another one and nobody of this process is on it."""
        if self._own or self.current:
            return
        try:
            with files.exclusive(self.directory, make=False):
                found = files.read_header(self.directory)
                if found is not None:
                    self._adopt(files.map_board(self.directory, found[0][H_SIZE]), found[0])
        except (Unreachable, BoardMismatch):
            pass  # there is none now: what is mapped says who was there last

    # -- members

    def join(self, name: str, role: str, *, pid: int | None = None) -> Member:
        """Takes a place on the board, under a name that nobody alive on it has.

        Raises:
            SwarmError: an agent of that name is alive on the board.
            SwarmFull: there is no place left.
            Unreachable: the board was removed, and this process only attached to it.
        """
        if len(name.encode()) > NAME_MAX:
            raise ValueError(f"a member's name has at most {NAME_MAX} bytes, {name!r} has {len(name.encode())}")
        if role not in ROLES:
            raise ValueError(f"role={role!r}: expected one of {', '.join(ROLES)}")
        with self._lock, files.exclusive(self.directory, make=self._wanted is not None):
            self._own = [member for member in self._own if member.process == os.getpid()]
            if not self.current:
                if self._own:
                    raise Unreachable(f"the board in {self.directory} was removed while this process was on it")
                if self._wanted is not None:
                    self._adopt(*_attach_or_make(self.directory, self._wanted, self.swarm_uid))
                else:
                    found = files.read_header(self.directory)
                    if found is None:
                        raise Unreachable(f"the board in {self.directory} was removed: the swarm has left this node")
                    self._adopt(files.map_board(self.directory, found[0][H_SIZE]), found[0])
            self._forget_fenced()
            index, epoch = self._find_place(name)
            life = files.LifeLock(self.directory, index)
            at = members.record_at(self.words, index)
            started = members.start_time()
            members.write_record(self.mapping, at, name, pid or os.getpid(), started, time.monotonic_ns())
            word = member_word(M_ALIVE, ROLES.index(role), epoch)
            struct.pack_into("<q", self.mapping.view, at + M_WORD, word)
            member = Member(index, epoch, name, role, life)
            self._own.append(member)
            return member

    def _forget_fenced(self) -> None:
        """Gives up places of this process that were taken away from it: it joins again, so it works there no more."""
        for member in list(self._own):
            if not member.holds and is_fenced(self.mapping.base, member.index, member.epoch):
                self._own.remove(member)
                member.life.release()

    def _find_place(self, name: str) -> tuple[int, int]:
        """A free place and the epoch to take it with. The caller holds the directory's lock."""
        namesakes: list[int] = []
        empty: list[int] = []
        gone: list[int] = []
        newest = 0
        with files.probe(self.directory) as descriptor:
            for index in range(self.words[H_MAX_MEMBERS]):
                at = members.record_at(self.words, index)
                state, _, epoch = members.word_at(self.mapping, at)
                if state == M_EMPTY:
                    empty.append(index)
                    continue
                same = members.name_at(self.mapping, at) == name
                lives = files.is_alive(descriptor, index)
                if state == M_ALIVE and lives and same:
                    raise SwarmError(
                        f"{name} is on the board already (place {index}, epoch {epoch}) and its process lives: "
                        "two agents must not have one identity; end the other one first"
                    )
                if state == M_FENCING or (state == M_ALIVE and not lives):
                    sweep.declare_dead(self.mapping.base, index, epoch, 0)
                    state, epoch = M_FENCED, epoch + 1
                if state == M_FENCED and not lives:
                    sweep.bury(self.mapping.base, index, epoch - 1, 0)
                    state = M_GONE
                if same:
                    newest = max(newest, epoch)
                if state == M_GONE:
                    (namesakes if same else gone).append(index)
        for index in (*namesakes, *empty, *gone):
            epoch = members.word_at(self.mapping, members.record_at(self.words, index))[2]
            return index, max(epoch, newest) + 1
        raise SwarmFull(
            f"the board has room for {self.words[H_MAX_MEMBERS]} members and all are taken: "
            "let clients go, or give the swarm a larger board (transport.max_members)"
        )

    def leave(self, member: Member) -> None:
        """Gives the place up: what is claimed is claimable again, what was submitted is dropped, nothing is left.

        The last one out removes the files. While arrays of answers taken with `copy=False` are still shown, the
        blocks they lie in stay reserved.
        """
        if member not in self._own or member.process != os.getpid():
            return
        self._own.remove(member)
        member.left = True
        base = self.mapping.base
        sweep.declare_dead(base, member.index, member.epoch, 1)
        try:
            with files.exclusive(self.directory, make=False):
                if not member.holds:
                    # In this order, and under the lock: who finds the place empty finds its life lock free.
                    member.life.release()
                    sweep.bury(base, member.index, member.epoch, 1)
                    self._sweep_arena()
                if self.current and not _lives(self.directory, self.mapping, self.words):
                    files.remove(self.directory)
        except Unreachable:
            if not member.holds:
                member.life.release()

    def heartbeat(self, member: Member, *, cpu: float | None = None, rss: int | None = None) -> None:
        """Shows life, and with it what the member wants known of its load.

        Raises:
            Fenced: it was declared dead.
        """
        if not hot.beat(self.mapping.base, member.index, member.epoch):
            raise Fenced(f"{member.name} was declared dead in epoch {member.epoch}: join again")
        at = members.record_at(self.words, member.index)
        if cpu is not None:
            struct.pack_into("<q", self.mapping.view, at + M_CPU_MILLI, int(cpu * 1000))
        if rss is not None:
            struct.pack_into("<q", self.mapping.view, at + M_RSS, rss)

    def members(self) -> list[MemberInfo]:
        """Everybody on the board. Dead ones are shown until their place is taken; those who left are not."""
        self._follow()
        return list(members.iterate(self.mapping, self.words, time.monotonic_ns()))

    def member_name(self, index: int) -> str:
        """The name of whoever has or last had a place: who computed an answer."""
        if not 0 <= index < self.words[H_MAX_MEMBERS]:
            return ""
        return members.name_at(self.mapping, members.record_at(self.words, index))

    def declare_dead(self, index: int, epoch: int) -> int:
        """Fences a member's epoch: it can neither claim nor commit any more, and its tasks are claimable again.

        Harmless to repeat, also when several do it at once or one was killed half-way. Returns how many tasks it was.

        Raises:
            BoardMismatch: the file was cut short.
        """
        self.refuse_cut()
        if not 0 <= index < self.words[H_MAX_MEMBERS]:
            raise ValueError(f"place {index}: the board has {self.words[H_MAX_MEMBERS]}")
        taken = int(sweep.declare_dead(self.mapping.base, index, epoch, 0))
        self._bury(index, epoch)
        return taken

    def reap(self) -> list[MemberInfo]:
        """Declares dead everybody whose process is gone, as the kernel says; and ends the quarantine of those who were
        fenced before. To be called now and then; a death is seen here as soon as it has happened.

        Raises:
            BoardMismatch: the file was cut short.
        """
        self.refuse_cut()
        dead: list[MemberInfo] = []
        for info in self.members():
            if info.state is MemberState.GONE or any(own.index == info.index for own in self._own):
                continue
            if members.word_at(self.mapping, members.record_at(self.words, info.index))[0] == M_FENCING:
                sweep.declare_dead(self.mapping.base, info.index, info.epoch, 0)  # who began was killed before the end
            try:
                with files.probe(self.directory) as descriptor:
                    if files.is_alive(descriptor, info.index):
                        continue
            except OSError:
                return dead
            if info.alive:
                sweep.declare_dead(self.mapping.base, info.index, info.epoch, 0)
                dead.append(info)
            sweep.bury(self.mapping.base, info.index, info.epoch, int(info.role == CLIENT))
        if dead:
            self._sweep_arena()
        return dead

    def _bury(self, index: int, epoch: int) -> None:
        try:
            with files.probe(self.directory) as descriptor:
                if not files.is_alive(descriptor, index):
                    sweep.bury(self.mapping.base, index, epoch, 0)
                    self._sweep_arena()
        except OSError:
            pass  # the board is being removed

    def sweep(self) -> int:
        """Puts everything in order that the killed may have left: lost hints, tasks of fenced agents and of submitters
        who are gone, deadlines, blocks. To be called now and then (a second is plenty); returns the tasks taken back.

        Raises:
            BoardMismatch: the file was cut short: who goes on with it will be killed by SIGBUS.
        """
        self.refuse_cut()
        taken = int(sweep.sweep_tasks(self.mapping.base))
        self._sweep_arena()
        return taken

    def refuse_cut(self) -> None:
        """Raises BoardMismatch if the file was cut short: who touches what is gone is killed by SIGBUS."""
        if not self.mapping.whole:
            raise BoardMismatch(
                f"the board in {self.directory} was truncated by somebody while it was in use: end this process; "
                "when all have ended, whoever starts makes a new board"
            )

    def _sweep_arena(self) -> None:
        """Frees what nobody can refer to any more: arrays by their leases first, then blocks, which sets the count."""
        private = np.empty(SWEEP_WORDS, np.int64)
        sweep_leases(self.mapping.base, int(private.ctypes.data))
        sweep_blocks(self.mapping.base)

    # -- tasks

    def port(self, member: Member) -> Port:
        """A port for this member to submit by.

        Raises:
            SwarmFull: all ports are taken.
        """
        owner = (member.index + 1) | (member.epoch << 16)
        number = int(hot.take_port(self.mapping.base, owner))
        if number < 0:
            raise SwarmFull("all ports of the board are taken: fewer clients on this node, or a larger max_members")
        return Port(self, member, number, owner)

    def worker(self, member: Member) -> Worker:
        """What this member claims tasks by."""
        return Worker(self, member)

    def arena(self, member: Member) -> Arena:
        """What this member makes and keeps shared arrays by. Ports and workers have one of their own."""
        return Arena(self, member, CLIENT_SHARE if member.role == CLIENT else AGENT_SHARE)

    def find(self, task_id: tuple[int, int]) -> str | None:
        """The state (`ready`, `claimed`, `done`) of a task on this board, or None."""
        slot = int(tasks.find(self.mapping.base, *signed_id(task_id)))
        return None if slot < 0 else self.slot_state(slot)

    def slot_state(self, slot: int) -> str:
        """A slot's state by name."""
        word = struct.unpack_from("<q", self.mapping.view, self.words[H_STATES_AT] + slot * 8)[0]
        return STATE_NAMES[word & 7]

    @property
    def max_attempts(self) -> int:
        """How often a task is begun at most before it is answered with `TaskLost`; for everybody on the board."""
        return int(struct.unpack_from("<q", self.mapping.view, H_MAX_ATTEMPTS * 8)[0])

    @max_attempts.setter
    def max_attempts(self, value: int) -> None:
        if not 1 <= value <= MAX_ATTEMPTS:
            raise ValueError(f"max_attempts={value}: expected 1 to {MAX_ATTEMPTS}")
        struct.pack_into("<q", self.mapping.view, H_MAX_ATTEMPTS * 8, value)

    def stats(self) -> BoardStats:
        """Depths, totals, latencies, failovers."""
        self._follow()
        return stats.read_stats(self.mapping, self.words)

    def depths(self) -> dict[str, int]:
        """Tasks that wait, by priority: much cheaper than `stats`."""
        self._follow()
        return {lane: states["ready"] for lane, states in stats.read_depths(self.mapping).items()}

    @staticmethod
    def new_client_id() -> int:
        """63 random bits: the first word of the ids that a port makes up."""
        return random.SystemRandom().getrandbits(63)


def _attach_or_make(directory: Path, geometry: Geometry, swarm_uid: str) -> tuple[Mapping, dict[int, int]]:
    """The caller holds the directory's lock."""
    try:
        found = files.read_header(directory)
        if found is not None:
            words, uid = found
            have = Geometry(words[H_TASK_SLOTS], words[H_ARENA_BYTES], words[H_MAX_MEMBERS])
            if uid != swarm_uid:
                raise BoardMismatch(f"{directory} is the board of swarm {uid!r}, this program belongs to {swarm_uid!r}")
            if have != geometry or any(words[k] != v for k, v in plan_header(geometry).items() if k != H_MAX_ATTEMPTS):
                raise BoardMismatch(
                    f"the board in {directory} was made as {have}, this program wants {geometry}: all agents of a "
                    "node must have the same transport settings; let them all leave, then a new board is made"
                )
            mapping = files.map_board(directory, words[H_SIZE])
            if not _is_used(mapping, words) or _lives(directory, mapping, words):
                return mapping, words
    except BoardMismatch:
        # Someone alive needs it as it is; a dead swarm's board is nobody's.
        with files.probe(directory) as descriptor:
            if files.any_alive(descriptor, MOST_MEMBERS):
                raise
    files.create(directory, geometry, swarm_uid, _initialise, now_ns=time.monotonic_ns())
    found = files.read_header(directory)
    assert found is not None
    return files.map_board(directory, found[0][H_SIZE]), found[0]


def _is_used(mapping: Mapping, words: dict[int, int]) -> bool:
    """Whether anybody has ever joined."""
    return any(members.word_at(mapping, members.record_at(words, i))[2] for i in range(words[H_MAX_MEMBERS]))


def _lives(directory: Path, mapping: Mapping, words: dict[int, int]) -> bool:
    """Whether anybody is on the board. The fenced do not count: they keep what they have mapped, and join anew."""
    with files.probe(directory) as descriptor:
        return any(
            members.word_at(mapping, members.record_at(words, index))[0] == M_ALIVE
            and files.is_alive(descriptor, index)
            for index in range(words[H_MAX_MEMBERS])
        )


def _initialise(mapping: Mapping) -> None:
    """All slots are free: sets their bits; draws the board's own number. Everything else begins as zero."""
    struct.pack_into("<q", mapping.view, H_NONCE * 8, random.SystemRandom().getrandbits(63))
    words = dict(enumerate(struct.unpack_from("<64q", mapping.view, 0)))
    ones = np.full(words[H_LANE_WORDS], -1, np.int64)
    for lane in range(LANES):
        at = words[H_LANES_AT] + lane * words[H_LANE_STRIDE] + L_MAPS
        at += 8 * (words[H_PORT_WORDS] + words[H_LANE_WORDS])
        mapping.view[at : at + ones.nbytes] = ones.tobytes()
    assert words[H_LANE_SLOTS] == 64 * words[H_LANE_WORDS]
