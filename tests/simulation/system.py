"""The operating system as the simulated processes see it: clocks, the locks of files, who lives, randomness.

What the product asks of it goes through module attributes (`time`, `files`, `os`, `asyncio` of a module), which are
replaced here, once for the process. The board's memory is anonymous; a seed begins with a copy of a board that was made
by the product's own code. Locks on bytes of the board's file are a set of places for each directory: the kernel drops a
lock when its process dies, and so does the world.
"""

from __future__ import annotations

import asyncio as real_asyncio
import contextlib
import ctypes
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from simulation import control, fibers
from simulation.world import World

__all__ = ["Slept", "System", "run_coroutine"]

_EPOCH = 1_800_000_000.0


class Slept(BaseException):
    """The code that is run wants to sleep for so many seconds: its caller calls it again then."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class System:
    """One for the process: `begin(world)` makes it that world's."""

    def __init__(self) -> None:
        self.world: World = World(0)
        #: By directory: the places whose process lives.
        self.lives: dict[Path, set[int]] = {}
        self._pristine: dict[Any, tuple[bytes, dict[int, int]]] = {}
        self._spare: dict[Any, list[Any]] = {}
        self._used: list[tuple[Any, Any]] = []
        #: By the address of their boards.
        self.nodes: dict[int, Any] = {}
        self.descriptors = fibers.Descriptors()
        self._has_hubs = False
        control.install(lambda kind, a, b, c: self.world.hook(kind, a, b, c))
        self.time = SimpleNamespace(
            monotonic=lambda: self.world.now * 1e-9,
            monotonic_ns=lambda: self.world.now,
            perf_counter=lambda: self.world.now * 1e-9,
            time=self._wall,
            sleep=self._sleep,
        )
        self._patch()

    def begin(self, world: World) -> None:
        """From now on everything happens in this world. The boards of the one before are given back."""
        self.world = world
        fibers.use(world)
        self.descriptors.clear()
        self.lives.clear()
        self.nodes.clear()
        for key, mapping in self._used:
            self._spare.setdefault(key, []).append(mapping)
        self._used.clear()

    def end(self, world: World) -> None:
        """The run is over: what is collected later must not reach into another run's board."""
        for process in list(world.processes.values()):
            if process is not world.outside:
                process.kill()
        for process in world.processes.values():
            member = getattr(getattr(process, "owner", None), "member", None)
            if member is not None:
                member.process = -1
        world.processes.clear()
        world.sleepers.clear()

    def _wall(self) -> float:
        process = self.world.current
        skew = 0.0
        if process is not None:
            node = getattr(getattr(process, "owner", None), "node", None)
            skew = process.skew + (node.skew if node is not None else 0.0)
        return _EPOCH + self.world.now * 1e-9 + skew

    @staticmethod
    def _sleep(seconds: float) -> None:
        me = fibers.current()
        if me is None:
            raise Slept(seconds)
        me.block(seconds)

    # -- boards

    def board(self, directory: Path, geometry: Any) -> Callable[[], Any]:
        """A node's board, fresh; returns what opens it for a process."""
        from swarm_agents.shm.board import Board

        key = geometry
        if key not in self._pristine:
            self._pristine[key] = self._make(geometry)
        image, words = self._pristine[key]
        spare = self._spare.get(key)
        mapping = spare.pop() if spare else _Memory(len(image))
        self._used.append((key, mapping))
        ctypes.memmove(mapping.base, image, len(image))
        self.lives[directory] = set()

        def open_() -> Any:
            board = Board(directory, mapping, words, "simulated", geometry)
            board.spin_ns = 0
            return board

        return open_

    def _make(self, geometry: Any) -> tuple[bytes, dict[int, int]]:
        from swarm_agents.shm import board, files

        with tempfile.TemporaryDirectory() as parent:
            directory = Path(parent) / "board"
            directory.mkdir(mode=0o700)
            self._real_create(directory, geometry, "simulated", board._initialise, now_ns=0)
            found = files.read_header(directory)
            assert found is not None
            return (directory / files.BOARD_FILE).read_bytes(), found[0]

    # -- what is replaced

    def _patch(self) -> None:
        from swarm_agents.runtime import guard, watch
        from swarm_agents.shm import arena, board, files, members, port, sweep, worker
        from swarm_agents.shm.layout import M_ALIVE

        system = self
        self._real_create = files.create
        for module in (arena, board, port, worker):
            module.time = self.time  # type: ignore[attr-defined]
        members.start_time = lambda: 0
        board.Board.current = property(lambda board: True)  # type: ignore[assignment, method-assign]
        board.Board.new_client_id = staticmethod(lambda: system.world.rng.getrandbits(63))  # type: ignore[method-assign]
        board.Board._follow = lambda board: None  # type: ignore[method-assign]

        class LifeLock:
            def __init__(self, directory: Path, index: int) -> None:
                self._places = system.lives[directory]
                self._index = index
                if index in self._places:
                    raise OSError("the place's lock is another process's")
                self._places.add(index)
                self._held = True
                process = system.world.current
                if process is not None:
                    process.on_death.append(self.release)

            def release(self) -> None:
                if self._held:
                    self._held = False
                    self._places.discard(self._index)

        @contextlib.contextmanager
        def exclusive(directory: Path, *, make: bool) -> Iterator[int]:
            # Who is stopped while it holds the lock would stop all others who want it: a run of its own.
            process = system.world.current
            held = None
            if process is not None and process.plan is not None and process.plan[0] == "pause":
                held = control.words[control.BUDGET]
                control.words[control.BUDGET] = control.NEVER
            try:
                yield 0
            finally:
                if held is not None:
                    control.words[control.BUDGET] = held

        @contextlib.contextmanager
        def probe(directory: Path) -> Iterator[Any]:
            yield system.lives[directory]

        files.LifeLock = LifeLock  # type: ignore[assignment, misc]
        files.exclusive = exclusive
        files.probe = probe
        files.is_alive = lambda places, index: index in places  # type: ignore[assignment]
        files.any_alive = lambda places, count: bool(places)  # type: ignore[assignment]
        files.remove = lambda directory: None
        real_declare = sweep.declare_dead

        def declare_dead(base: int, member: int, epoch: int, quietly: int) -> int:
            node = system.nodes.get(base)
            if node is not None and node.word_of(member) == (M_ALIVE, epoch):
                node.declaring(member, epoch, bool(quietly))
            return int(real_declare(base, member, epoch, quietly))

        sweep.declare_dead = declare_dead
        real_sweep = board.sweep_blocks

        def sweep_blocks(base: int) -> int:
            freed = int(real_sweep(base))
            node = system.nodes.get(base)
            if node is not None:
                node.ledger.swept(freed)
            return freed

        board.sweep_blocks = sweep_blocks
        guard.time = watch.time = self.time  # type: ignore[attr-defined]
        guard.asyncio = watch.asyncio = _Asyncio(self)  # type: ignore[attr-defined, assignment]
        guard.os = SimpleNamespace(kill=self._kill)  # type: ignore[attr-defined, assignment]
        watch._prove = lambda *args, **kwargs: None
        guard.read_threads = lambda pid: {}

    def with_hubs(self) -> None:
        """Replaces what hubs and clients off the node ask of the operating system, once."""
        if self._has_hubs:
            return
        self._has_hubs = True
        from swarm_agents.client import session, tcp
        from swarm_agents.resource import desk, greeting, hub, peers, sessions
        from swarm_agents.wire import reactor

        chance = SimpleNamespace(randbits=lambda bits: self.world.rng.getrandbits(bits))
        modules: tuple[Any, ...] = (desk, hub, peers, reactor, session, tcp)
        for module in modules:
            for name, stand_in in (("threading", fibers.THREADING), ("time", self.time), ("secrets", chance)):
                if hasattr(module, name):
                    setattr(module, name, stand_in)
        # All that lasts long is shortened, so that a seed sees the end of it.
        sessions.AWAY, sessions.REMEMBERED = 3.0, 6.0
        greeting.CLIENT_HEARTBEAT = 0.2
        desk.ThreadPoolExecutor = fibers.Executor  # type: ignore[assignment, misc]
        tcp.os = self.descriptors  # type: ignore[attr-defined, assignment]
        tcp.select = SimpleNamespace(POLLIN=1, poll=lambda: fibers.Poll(self.descriptors))  # type: ignore[attr-defined]

    def _kill(self, pid: int, number: int) -> None:
        self.world.processes[pid].kill()


class _Memory:
    """In the place of `files.Mapping`."""

    def __init__(self, size: int) -> None:
        import mmap

        import numpy as np

        self._map = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._array = np.frombuffer(self._map, np.uint8)
        self.base = int(self._array.ctypes.data)
        self.view = memoryview(self._map)
        self.size = size
        self.inode = 1
        self.whole = True


class _Asyncio:
    """What coroutines of the product use of asyncio."""

    def __init__(self, system: System) -> None:
        self._system = system

    def sleep(self, seconds: float) -> Any:
        return _Sleep(seconds)

    def get_running_loop(self) -> Any:
        system = self._system
        process = system.world.current

        def call_later(delay: float, function: Callable[..., object], *args: Any) -> Any:
            if process is not None:
                process.after(int(delay * 1e9), function, *args)
            return SimpleNamespace(cancel=lambda: None)

        return SimpleNamespace(
            call_later=call_later,
            time=system.time.monotonic,
            add_reader=lambda *args: None,
            remove_reader=lambda *args: None,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(real_asyncio, name)


class _Sleep:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __await__(self) -> Iterator[float]:
        yield self._seconds


def run_coroutine(process: Any, coroutine: Any) -> None:
    """Has a process run a coroutine of the product that only ever sleeps."""

    def turn() -> None:
        process.after(int(coroutine.send(None) * 1e9), turn)

    process.after(0, turn)
    process.on_death.append(lambda: None)
