"""Shared arrays, as a member of a board has them: made, filled and passed on without copying.

    array = arena.empty((512, 512), np.float32)   # memory of the arena, lent to write to
    array[:] = ...
    port.submit("risk.covariance", (array, array[::2]))   # what travels is a reference; nothing is copied
    del array                                             # freed when the last who refers to it lets go

An array that was passed on is read-only from then on: others look at that very memory. That goes for the array that was
lent and the one that was passed; a view of it that the program made before stays writable, and must not be written to.

Everything that shows shared memory to the program (arrays that were made here, results that were taken without copying,
descriptors that were opened) hangs on a *root*: an array of all the block's bytes, of which the others are views. A
process has one root for each array, and the root has a lease; NumPy keeps the root while there is a view, and when the
last one is collected, in whatever thread, the lease is given up. (The arguments of a claim hang on the task's own lease
instead: they are valid until it is answered, and `keep` makes them last.)
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm_agents import codec
from swarm_agents.errors import Fenced, PayloadError, PayloadTooLarge, StaleReference, SwarmFull
from swarm_agents.shm.jit import direct
from swarm_agents.shm.layout import (
    H_CELLS,
    H_PAGE_BYTES,
    H_PAGES,
    H_PAGES_AT,
    NAME_BLOCK_MASK,
    SCRATCH_WORDS,
    X_OUT,
)
from swarm_agents.shm.leases import drop, hold, make_array, run_bytes
from swarm_agents.shm.places import is_fenced
from swarm_agents.shm.references import Descriptor, Shared, start_apart

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board
    from swarm_agents.shm.members import Member

__all__ = ["Arena"]

_Array = np.ndarray[Any, Any]
#: How many 256ths of the arena shared arrays of clients may fill; what lasts longest leaves room for all the rest.
CLIENT_SHARE = 160
#: And those of agents, which are results to be.
AGENT_SHARE = 240


class _Grip:
    """A lease of this process, given up when this object is collected."""

    __slots__ = ("_arena", "lease", "name", "token")

    def __init__(self, arena: Arena, name: int, lease: int) -> None:
        self._arena = arena
        self.name = name
        self.lease = lease
        self.token = object()

    def __del__(self) -> None:
        self._arena._drop(self)


class _Root(np.ndarray[Any, Any]):
    """All bytes of a shared array's block. A type of its own: NumPy then keeps it as the base of its views."""

    grip: _Grip | None = None
    lent: weakref.ref[_Array] | None = None

    def publish(self) -> None:
        """Makes what was lent to write to read-only."""
        self.setflags(write=False)
        lent = self.lent() if self.lent is not None else None
        if lent is not None:
            lent.setflags(write=False)


class Arena:
    """See the module's text. Several threads may use it."""

    def __init__(self, board: Board, member: Member, share: int = CLIENT_SHARE) -> None:
        self._mapping = board.mapping
        self._base = board.mapping.base
        self._words = board.words
        self._arrays = board.arrays
        self._arrays.use()
        self._member = member
        self._index, self._epoch = member.index, member.epoch
        self._share = share
        self._scratch = np.zeros(SCRATCH_WORDS, np.int64)
        self._scratch_at = int(self._scratch.ctypes.data)
        start_apart(self._scratch, member.index, board.words)
        self._lock = threading.Lock()
        #: By name what keeps an array, while something does.
        self.roots: dict[int, weakref.ref[_Root]] = {}
        self._make, self._hold, self._give_up = direct(make_array), direct(hold), direct(drop)

    # -- making

    def empty(self, shape: int | tuple[int, ...], dtype: Any = np.float64, *, timeout: float = 0.0) -> _Array:
        """Lends memory of the arena: a C-contiguous, 64-byte aligned array with arbitrary contents, to write to.

        Args:
            timeout: seconds to wait for room.

        Raises:
            SwarmFull: there was no room for that long.
            PayloadTooLarge: the arena is smaller than that.
            PayloadError: the dtype holds Python objects.
            Fenced: this member was declared dead.
        """
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise PayloadError(f"an array of dtype {dtype} can't be shared: it holds Python objects")
        extents = (shape,) if isinstance(shape, int) else tuple(shape)
        size = dtype.itemsize * math.prod(extents)
        if size == 0 or min(extents, default=1) < 0:
            return np.empty(shape, dtype)  # which refuses a shape that makes no sense
        root = self._make_root(size, timeout)
        array = np.ndarray(shape, dtype, root)
        root.lent = weakref.ref(array)
        return array

    def put(self, array: Any, *, timeout: float = 0.0) -> _Array:
        """Copies an array into the arena, once; the copy is read-only. One that lies there already is kept as it is.

        Raises:
            SwarmFull, PayloadTooLarge, PayloadError, Fenced: as `empty`.
        """
        array = np.asarray(array)
        if self._arrays.share(array) is not None:
            return self.keep(array)
        copy = self.empty(array.shape, array.dtype, timeout=timeout)
        if copy.size:
            np.copyto(copy, array)
        copy.setflags(write=False)
        return copy

    def _make_root(self, size: int, timeout: float) -> _Root:
        give_up, pause = 0.0, 50e-6
        out = self._scratch_at + X_OUT * 8
        while True:
            if is_fenced(self._base, self._index, self._epoch):
                raise Fenced(f"{self._member.name} was declared dead in epoch {self._epoch}: join again")
            with self._lock:  # until what it leaves in the scratch is read
                name = self._make(self._base, size, self._index, self._epoch, self._share, self._scratch_at, out)
                lease = int(self._scratch[X_OUT])
            if name >= 0:
                return self._root(name, lease)
            whole = self._words[H_PAGES] * self._words[H_PAGE_BYTES]
            if name == -2:
                raise PayloadTooLarge(
                    f"the array has {size} bytes, the arena {whole}: split it, or give the swarm a larger arena "
                    "(spec.transport.sharedMemory)"
                )
            now = time.monotonic()
            give_up = give_up or now + timeout
            if now >= give_up:
                raise SwarmFull(
                    f"the arena has no room for a shared array of {size} bytes: let arrays and results go, wait with a "
                    f"timeout, or give the swarm a larger arena (it has {whole} bytes, of which shared arrays of one "
                    f"who submits may take {self._share * whole >> 8})"
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.005)

    # -- keeping what others made

    def keep(self, array: _Array) -> _Array:
        """The same shared array, for as long as this process refers to it: for a kernel's arguments, which else are
        valid only until its task is answered. An array that is not shared is copied.

        Raises:
            StaleReference: it is not there any more.
            SwarmFull: too many references to shared arrays are held on this board.
        """
        reference = self._arrays.share(array)
        if reference is None:
            return array.copy()
        shared = self._arrays.locate(reference)
        self.hold(shared)
        return shared.array(array.dtype, array.shape)

    def describe(self, array: _Array) -> Descriptor:
        """A descriptor of a shared array, to be sent by other means than a task. It keeps nothing alive: keep the array
        until the other side has opened it.

        Raises:
            PayloadError: the array does not lie in the arena.
        """
        return self._arrays.describe(array)

    def open(self, descriptor: Descriptor) -> _Array:
        """The array that a descriptor describes, read-only; kept for as long as this process refers to it.

        Raises:
            StaleReference: it is not there any more, or is another board's.
            PayloadError: the descriptor reaches beyond the array's memory.
            SwarmFull: too many references to shared arrays are held on this board.
        """
        shared = self._arrays.find(descriptor)
        self.hold(shared)
        return shared.array(codec.dtype_of(descriptor.dtype), descriptor.shape)

    def hold(self, shared: Shared) -> None:
        """Has this process keep an array that is referred to.

        Raises:
            StaleReference, SwarmFull: as `open`.
        """
        shared.root = self.root(shared.name)

    def root(self, name: int) -> _Array:
        """What keeps the array of a name: all bytes of its block.

        Raises:
            StaleReference, SwarmFull: as `open`.
        """
        known = self.roots.get(name)
        root = known() if known is not None else None
        if root is None:
            lease = self._hold(self._base, name, 0, self._index, self._epoch, self._scratch_at)
            if lease == -1:
                raise SwarmFull("too many references to shared arrays are held on this board: let some go")
            if lease < 0:
                raise StaleReference("a shared array is not there any more: its last holder let it go before")
            root = self._root(name, lease)
            root.setflags(write=False)
        return root

    def _root(self, name: int, lease: int) -> _Root:
        """An array of the whole block, which gives the lease up when the last of its views is collected."""
        words = self._words
        at = words[H_PAGES_AT] + ((name & NAME_BLOCK_MASK) - words[H_CELLS]) * words[H_PAGE_BYTES]
        root = np.ndarray.__new__(_Root, (run_bytes(self._base, name),), np.uint8, self._mapping.view, at)
        root.grip = _Grip(self, name, lease)
        self._member.holds.add(root.grip.token)
        self.roots[name] = weakref.ref(root)
        return root

    def _drop(self, grip: _Grip) -> None:
        """Runs wherever the collector runs: it must take no lock that this thread may hold."""
        member = self._member
        if member.process != os.getpid():
            return  # a forked child's copy of what its parent holds
        known = self.roots.get(grip.name)
        if known is not None and known() is None:
            self.roots.pop(grip.name, None)
        self._give_up(self._base, grip.lease, self._index, self._epoch)
        member.holds.discard(grip.token)
        if member.left and not member.holds:
            member.life.release()  # whoever looks next ends the quarantine
