"""How a process tells shared arrays from its own, and finds those that others refer to.

A shared array is recognised by where it lies: any NumPy view, slice or transpose of one points into the arena, and the
tag of the page that it points at says which array that is. So a program passes such views on like other arrays, and
what travels is a *reference*, words that a frame holds in the place of a buffer:

    name (block and generation) | offset of the first element in the block | bytes | item size | 0
                                                        or, if not C-contiguous | dimensions | shape | strides

Who reads one checks that the array is still there in that generation, and that the elements lie within its block,
before it makes a view. Rejected: a subclass of `ndarray` that knows its name (it would have to survive every operation
of NumPy that makes a view, and disappear in every one that does not), and reading addresses through
`__array_interface__` (it makes a dictionary of six objects for each array; the fields of NumPy's array object, which
are read here, are part of its C API).
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from swarm_agents import codec
from swarm_agents.errors import PayloadError, StaleReference
from swarm_agents.shm import numa
from swarm_agents.shm.atomics import load, peek, poke
from swarm_agents.shm.frame import BYTES_AT, Reference
from swarm_agents.shm.jit import direct, jit
from swarm_agents.shm.layout import (
    H_CELLS,
    H_LEASES,
    H_NONCE,
    H_PAGE_BYTES,
    H_PAGES,
    H_PAGES_AT,
    MOST_REFS,
    NAME_BLOCK_MASK,
    NAME_MASK,
    X_LEASE_ROTOR,
    X_REFS,
    X_REFS_AT,
)
from swarm_agents.shm.leases import STALE, name_at, reach

if TYPE_CHECKING:
    from swarm_agents.shm.files import Mapping

__all__ = ["Arrays", "Descriptor", "Shared", "bind", "checked", "start_apart", "unbind"]

_Array = np.ndarray[Any, Any]
#: Words and bytes of the reference to a contiguous array.
REFERENCE_WORDS = 5
REFERENCE_BYTES = 8 * REFERENCE_WORDS
_WORDS = REFERENCE_WORDS
_MOST_DIMENSIONS = 64
_MOST_KNOWN = 256
# NumPy's PyArrayObject_fields on a 64-bit machine, in bytes; and two of its flags. Checked below.
_DATA, _ND, _SHAPE, _STRIDES, _FLAGS = 16, 24, 32, 40, 64
_C_CONTIGUOUS, _WRITEABLE = 0x1, 0x400
#: Set in what `identify` returns for an array that may be written to.
_MAY_WRITE = 1 << 16


@jit
def identify(base: int, array: int, item: int, out: int) -> int:
    """Writes the reference for the array object at an address, whose items have `item` bytes, to `out`.

    Returns how many words it has, with a bit for an array that may be written to; 0 when it is no shared array.
    """
    data = peek(array + _DATA)
    arena = base + load(base + H_PAGES_AT * 8)
    page_bytes = load(base + H_PAGE_BYTES * 8)
    low = data - arena
    if not 0 <= low < load(base + H_PAGES * 8) * page_bytes:
        return 0
    count = peek(array + _ND) & 0xFFFFFFFF
    shape, strides, flags = peek(array + _SHAPE), peek(array + _STRIDES), peek(array + _FLAGS)
    if count > _MOST_DIMENSIONS:
        return 0
    high, size = low + item, item
    for axis in range(count):
        extent = peek(shape + axis * 8)
        size *= extent
        span = (extent - 1) * peek(strides + axis * 8)
        if span < 0:
            low += span
        else:
            high += span
    if size == 0:
        return 0
    name = name_at(base, low, high)
    if name < 0:
        return 0
    poke(out, name)
    poke(out + 8, data - arena - ((name & NAME_BLOCK_MASK) - load(base + H_CELLS * 8)) * page_bytes)
    poke(out + 16, size)
    poke(out + 24, item)
    words = _WORDS
    if flags & _C_CONTIGUOUS != 0:
        poke(out + 32, 0)
    else:
        poke(out + 32, count)
        for axis in range(count):
            poke(out + (_WORDS + axis) * 8, peek(shape + axis * 8))
            poke(out + (_WORDS + count + axis) * 8, peek(strides + axis * 8))
        words += 2 * count
    return words | (_MAY_WRITE if flags & _WRITEABLE != 0 else 0)


@jit
def arrive(base: int, reference: int, size: int, item: int) -> int:
    """Where on the board the contiguous array of `size` bytes lies that a reference names; -1 if something is amiss."""
    name, start = peek(reference), peek(reference + 8)
    if peek(reference + 16) != size or peek(reference + 24) != item or peek(reference + 32) != 0:
        return -1
    if start < 0 or reach(base, name, start, start + size) != 1:
        return -1
    page = (name & NAME_BLOCK_MASK) - load(base + H_CELLS * 8)
    return load(base + H_PAGES_AT * 8) + page * load(base + H_PAGE_BYTES * 8) + start


class Descriptor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a shared array lies, for those who talk by other means than tasks. It keeps nothing alive."""

    #: Which board; drawn when it is made.
    board: int
    #: The block and its generation.
    name: int
    #: Of the first element, in bytes from the block's first.
    offset: int
    #: As `numpy.dtype.str`, or the list `numpy.dtype.descr` of a structured one.
    dtype: Any
    shape: tuple[int, ...]
    #: In bytes; None: C-contiguous.
    strides: tuple[int, ...] | None = None


class Arrays:
    """The shared arrays of a board, for one process."""

    def __init__(self, mapping: Mapping, words: dict[int, int]) -> None:
        self.mapping = mapping
        self.nonce: int = struct.unpack_from("<q", mapping.view, H_NONCE * 8)[0]
        self._base = mapping.base
        self._view = mapping.view.toreadonly()
        self._cells, self._pages_at, self._page_bytes = words[H_CELLS], words[H_PAGES_AT], words[H_PAGE_BYTES]
        self._bytes = words[H_PAGES] * words[H_PAGE_BYTES]
        self._record = np.zeros(_WORDS + 2 * _MOST_DIMENSIONS, np.int64)
        self._record_at = int(self._record.ctypes.data)
        self._record_view = self._record.data.cast("B")
        self._lock = threading.Lock()
        self._identify: Any = None
        self._reach: Any = None
        self._arrive: Any = None
        #: What the bytes of a frame before its only reference, to a contiguous array, mean: dtype, shape, bytes, and
        #: bytes an item of a value that is this array, or of arguments that are it alone.
        self.known: dict[bytes, tuple[np.dtype[Any], tuple[int, ...], int, int]] = {}
        #: What `codec.encode` is to share by; None until this process has had a shared array, so that programs that use
        #: none do not pay for the question.
        self.sharing: Callable[[_Array], Reference | None] | None = None

    def use(self) -> None:
        """From now on arrays that are passed on are looked at."""
        if self.sharing is None:
            self._identify, self._reach, self._arrive = direct(identify), direct(reach), direct(arrive)
            self.sharing = self.share

    def share(self, array: _Array) -> Reference | None:
        """The reference to a shared array, which nobody may write to from now on; None for any other array."""
        with self._lock:
            found = self._identify(self._base, id(array), array.itemsize, self._record_at)
            if not found:
                return None
            reference = Reference(self._record_view[: (found & ~_MAY_WRITE) * 8])
        if found & _MAY_WRITE:
            freeze(array)
        return reference

    def arrived(self, raw: bytes, at: int) -> _Array | None:
        """The array in a frame of a kind that was learned: from `raw[at:]` on. None: read it the long way."""
        known = self.known.get(raw[at:-REFERENCE_BYTES])
        if known is None:
            return None
        dtype, shape, size, item = known
        offset = self._arrive(self._base, id(raw) + BYTES_AT + len(raw) - REFERENCE_BYTES, size, item)
        return None if offset < 0 else np.ndarray(shape, dtype, self._view, offset)

    def learn(self, raw: bytes, at: int, buffers: Sequence[Any], array: Any) -> None:
        """Remembers what a frame was: one whose value is `array`, or whose only argument it is."""
        if len(buffers) == 1 and isinstance(buffers[0], Shared) and buffers[0].is_plain and type(array) is np.ndarray:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[raw[at:-REFERENCE_BYTES]] = array.dtype, array.shape, array.nbytes, array.itemsize

    def describe(self, array: _Array) -> Descriptor:
        """A descriptor of a shared array.

        Raises:
            PayloadError: it is not one.
        """
        self.use()
        reference = self.share(array)
        if reference is None:
            raise PayloadError("only arrays that lie in the arena can be described: put() this one first")
        name, offset, _, _, count = struct.unpack_from("<5q", reference)
        dtype: Any = array.dtype.descr if array.dtype.names else array.dtype.str
        return Descriptor(self.nonce, name, offset, dtype, array.shape, array.strides if count else None)

    def locate(self, raw: Any) -> Shared:
        """What a frame refers to."""
        self.use()
        return Shared(self, struct.unpack(f"<{len(raw) >> 3}q", raw))

    def find(self, descriptor: Descriptor) -> Shared:
        """What a descriptor refers to.

        Raises:
            StaleReference: it is another board's.
            PayloadError: its shape makes no sense.
        """
        self.use()
        if descriptor.board != self.nonce:
            raise StaleReference(
                "the descriptor is of another board: it is good only on the node where it was made, and only as long "
                "as agents of the swarm are there"
            )
        item, shape = codec.dtype_of(descriptor.dtype).itemsize, descriptor.shape
        size = item * math.prod(shape)
        strides = descriptor.strides
        if any(extent < 0 for extent in shape) or size <= 0 or not 0 <= descriptor.name <= NAME_MASK:
            raise PayloadError(f"a descriptor of shape {shape} and {item} bytes an item describes no shared array")
        if len(shape) > _MOST_DIMENSIONS or (strides is not None and len(strides) != len(shape)):
            raise PayloadError(f"a descriptor of shape {shape} with strides {strides} describes no array")
        head = (descriptor.name, descriptor.offset, size, item)
        return Shared(self, (*head, 0) if strides is None else (*head, len(shape), *shape, *strides))

    def view(
        self, name: int, low: int, high: int, start: int, shape: Sequence[int], dtype: Any, strides: Any, root: Any
    ) -> _Array:
        """A view of a shared array's bytes `low` to `high`, read-only unless `root`, which keeps it, is not."""
        inside = 0 <= low < high <= self._bytes
        found = self._reach(self._base, name, low, high) if inside else 0
        if found == STALE:
            raise StaleReference(
                "a shared array is not there any more: its last holder let it go before this reference to it was used"
            )
        if not found:
            raise PayloadError(f"a reference to a shared array ({shape}, {dtype}) reaches beyond its memory")
        if root is not None:
            return np.ndarray(shape, dtype, root, start, strides)
        at = self._pages_at + ((name & NAME_BLOCK_MASK) - self._cells) * self._page_bytes
        return np.ndarray(shape, dtype, self._view, at + start, strides)


class Shared(codec.Described):
    """A shared array as a frame or a descriptor refers to it; valid while who refers to it keeps it."""

    __slots__ = ("_arrays", "_words", "root")

    def __init__(self, arrays: Arrays, words: tuple[int, ...]) -> None:
        self._arrays = arrays
        self._words = words
        #: What keeps the array for as long as views are shown, once this process holds it.
        self.root: _Array | None = None
        if len(words) < _WORDS or len(words) != _WORDS + 2 * words[4]:
            raise ValueError("a reference to a shared array is torn")

    @property
    def name(self) -> int:
        return self._words[0]

    @property
    def is_plain(self) -> bool:
        """Whether it is C-contiguous."""
        return not self._words[4]

    def array(self, dtype: np.dtype[Any], shape: Sequence[int]) -> _Array:
        """The array, read-only.

        Raises:
            StaleReference: it is not there any more.
            PayloadError: dtype or shape are not its own, or it reaches beyond its memory.
        """
        name, start, size, item, count = self._words[:_WORDS]
        if dtype.itemsize != item or item * math.prod(shape) != size:
            raise PayloadError(f"a shared array of {size} bytes, {item} an item, is no {dtype} of shape {tuple(shape)}")
        if not count:
            return self._arrays.view(name, start, start + size, start, shape, dtype, None, self.root)
        own, strides = self._words[_WORDS : _WORDS + count], self._words[_WORDS + count :]
        if own != tuple(shape):
            raise PayloadError(f"a shared array of shape {own} is referred to as {tuple(shape)}")
        spans = [(extent - 1) * stride for extent, stride in zip(own, strides, strict=True)]
        low = start + sum(span for span in spans if span < 0)
        high = start + sum(span for span in spans if span > 0) + item
        return self._arrays.view(name, low, high, start, shape, dtype, strides, self.root)

    def contiguous(self) -> memoryview:
        """Its bytes in C order, as they lie in the arena if they lie so: for another node.

        Raises:
            StaleReference, PayloadError: as `array`.
        """
        _, _, size, item, count = self._words[:_WORDS]
        shape = self._words[_WORDS : _WORDS + count] if count else (size // item,)
        array = self.array(np.dtype(f"V{item}"), shape)
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

    def copied(self) -> _Array:
        """Its bytes in C order, copied."""
        return np.frombuffer(self.contiguous(), np.uint8).copy()


def checked(names: Sequence[int]) -> Sequence[int]:
    """Refuses, before any room is taken, what names too many arrays.

    Raises:
        PayloadError: more than MOST_REFS.
    """
    if len(names) > MOST_REFS:
        raise PayloadError(f"{len(names)} shared arrays in one task or result: there may be {MOST_REFS}")
    return names


def bind(scratch: _Array, names: Sequence[int]) -> None:
    """Names the arrays that the next compiled submission or commit with this scratch has to take leases on."""
    scratch[X_REFS_AT : X_REFS_AT + len(names)] = names
    scratch[X_REFS] = len(names)


def unbind(scratch: _Array) -> None:
    """Undoes `bind`."""
    scratch[X_REFS] = 0


def start_apart(scratch: _Array, member: int, words: dict[int, int]) -> None:
    """Has members look for free leases from different places on: they would wait for each other's cache lines. For room
    in the arena they look near their cores first."""
    scratch[X_LEASE_ROTOR] = member * 64 % words[H_LEASES]
    numa.settle(scratch, numa.begin_at_home(words[H_PAGES]))


def freeze(array: _Array) -> None:
    """Makes an array read-only, and the one that its memory was first lent as."""
    array.setflags(write=False)
    root: Any = array
    while root is not None and not hasattr(root, "publish"):
        root = getattr(root, "base", None)
    if root is not None:
        root.publish()


def _check_fields() -> None:
    probe = np.zeros((3, 5), np.int16)[:, ::2]
    import ctypes

    def word(offset: int) -> int:
        return ctypes.c_int64.from_address(id(probe) + offset).value

    shape, strides = word(_SHAPE), word(_STRIDES)
    read = [ctypes.c_int64.from_address(at + 8 * axis).value for at in (shape, strides) for axis in (0, 1)]
    flags = word(_FLAGS) & (_C_CONTIGUOUS | _WRITEABLE)
    if (word(_DATA), word(_ND) & 0xFFFFFFFF, read, flags) != (probe.ctypes.data, 2, [3, 3, 10, 4], _WRITEABLE):
        raise ImportError("this NumPy lays out arrays in another way than its C API says: swarm_agents.shm can't run")


_check_fields()
