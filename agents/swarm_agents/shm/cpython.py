# mypy: disable-error-code="untyped-decorator,no-untyped-call"
"""Methods of Python's classes as compiled code: a call from Python that enters no Python.

A method written in Python that calls one compiled function costs three times what the function does (0.16 against
0.05 us for a ring's `send`): a frame, the attributes, numbers made into objects and back. So a class's method can have
a compiled one put before it (`compile_method`), which is called by CPython as its own are (METH_FASTCALL) with the
addresses of objects. It does what is quick and certain; everything else (other arguments, nothing there, an error) it
leaves to the Python method that it stands before, by calling it with the same arguments.

Invariants
- All here hold the GIL, from the call to the return.
- Objects are read where CPython keeps them. `layout_known` says whether this interpreter lays them out so, by trying;
  where it does not, no method is replaced and all goes on in Python.
- `self` is an instance of `Held`, whose first and only slot holds an array: that array's memory is the *hand*, the
  private words that compiled code works with. A hand names its fallback methods and None by their addresses, because
  code that is cached on disk can't.

Rejected: Numba's own entry points (they unpack a tuple and box every number: 0.064 us before anything is done), a
C extension (wheels for every platform, for a hundred lines), ctypes callbacks (0.4 us).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import int64
from numba.core.ccallback import CFunc

from swarm_agents.shm.atomics import peek, poke
from swarm_agents.shm.jit import jit, stamped

__all__ = [
    "ARRAY_DATA",
    "BYTEARRAY_DATA",
    "BYTES_DATA",
    "B_DATA",
    "B_LENGTH",
    "READABLE",
    "SIZE",
    "TYPE",
    "WRITABLE",
    "Held",
    "call_python",
    "compile_method",
    "get_buffer",
    "hand_of",
    "layout_known",
    "new_bytes",
    "new_int",
    "new_reference",
    "peek_word",
    "release_buffer",
    "stack_words",
]

# Where CPython keeps what: type, size; a bytes object's data; a bytearray's pointer to it; an array's; the first slot.
TYPE, SIZE, BYTES_DATA, BYTEARRAY_DATA, ARRAY_DATA, _FIRST_SLOT = 8, 16, 32, 40, 16, 16
# Of a Py_buffer: the memory, its bytes, its format; and what to ask for.
B_DATA, B_LENGTH, B_FORMAT = 0, 16, 40
READABLE, WRITABLE = 0x4, 0x5
_FASTCALL_WITH_KEYWORDS = 0x80 | 0x02
_MOST_ARGUMENTS = 4  # that are handed on; no method here takes more

if TYPE_CHECKING:

    def new_bytes(address: int, length: int) -> int:
        """A new bytes object of what is at an address; 0, and an exception is set, if there is no memory."""

    def new_int(value: int) -> int:
        """A new int."""

    def release_buffer(view: int) -> None:
        """Gives back what `get_buffer` got."""

    def stack_words() -> int:
        """The address of `BUFFER_WORDS` words that live until the function returns that this is written in."""

    def _byte(address: int) -> int: ...
    def _clear_error() -> None: ...
    def _get_buffer(thing: int, view: int, flags: int) -> int: ...
    def _incref(thing: int) -> None: ...
    def _vectorcall(function: int, arguments: int, count: int, names: int) -> int: ...

else:
    from swarm_agents.shm.capi import byte as _byte
    from swarm_agents.shm.capi import clear_error as _clear_error
    from swarm_agents.shm.capi import get_buffer as _get_buffer
    from swarm_agents.shm.capi import incref as _incref
    from swarm_agents.shm.capi import new_bytes, new_int, release_buffer, stack_words
    from swarm_agents.shm.capi import vectorcall as _vectorcall


@jit
def hand_of(thing: int) -> int:
    """The hand of an instance of `Held`; 0 if it was never initialised."""
    array = peek(thing + _FIRST_SLOT)
    return peek(array + ARRAY_DATA) if array != 0 else 0


@jit
def new_reference(thing: int) -> int:
    """An object that is to be returned."""
    _incref(thing)
    return thing


@jit
def get_buffer(thing: int, view: int, flags: int) -> bool:
    """Fills a Py_buffer for contiguous memory of plain numbers, or of what else has no references in it: whether it is
    some. What it is not is for Python to explain."""
    if _get_buffer(thing, view, flags) != 0:
        _clear_error()
        return False
    if _may_name_objects(peek(view + B_FORMAT)):
        release_buffer(view)
        return False
    return True


@jit
def _may_name_objects(text: int) -> bool:
    """Whether a buffer's format has an "O": addresses of objects mean nothing in another process."""
    at = text
    while at != 0:
        letter = _byte(at)
        if letter == 0x4F:
            return True
        at = at + 1 if letter != 0 else 0
    return False


@jit
def call_python(function: int, scratch: int, me: int, arguments: int, count: int, names: int) -> int:
    """Calls a Python method with `self` and what the compiled one was called with. `scratch` has `BUFFER_WORDS`."""
    if function == 0:
        return 0
    words = count + (peek(names + SIZE) if names != 0 else 0)
    if words > _MOST_ARGUMENTS:  # whoever is called refuses that many without looking at them
        words, count, names = _MOST_ARGUMENTS, _MOST_ARGUMENTS, 0
    poke(scratch, me)
    for index in range(words):
        poke(scratch + 8 + index * 8, peek(arguments + index * 8))
    return _vectorcall(function, scratch, count + 1, names)


@jit
def peek_word(address: int) -> int:
    """A word of memory, for Python."""
    return peek(address)


class Held:
    """What has a hand: its first slot is the array whose memory compiled methods work with."""

    __slots__ = ("_words",)

    _words: np.ndarray[Any, np.dtype[np.int64]]


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("method", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_FOR_EVER: list[Any] = []  # what the interpreter has the addresses of


def compile_method(owner: type, method: Callable[..., Any], function: Callable[[int, int, int, int], int]) -> None:
    """Puts a compiled function before a method of a class, with the same name and documentation.

    `function` gets the addresses of `self` and of the arguments' addresses, how many of them are positional, and the
    address of the tuple of the others' names (0 for none). It returns a new reference, or 0 when an exception is set.
    """
    import inspect

    compiled = stamped(CFunc(function, ((int64,) * 4, int64), locals={}, options={}))
    compiled.compile()
    plain = [each.replace(annotation=each.empty) for each in inspect.signature(method).parameters.values()]
    parameters = str(inspect.Signature(plain)).replace("(self", "($self", 1)
    text = f"{method.__name__}{parameters}\n--\n\n{inspect.getdoc(method) or ''}"
    made = _MethodDef(method.__name__.encode(), compiled.address, _FASTCALL_WITH_KEYWORDS, text.encode())
    _FOR_EVER.extend((made, compiled))
    describe = ctypes.pythonapi.PyDescr_NewMethod
    describe.restype, describe.argtypes = ctypes.py_object, [ctypes.py_object, ctypes.c_void_p]
    setattr(owner, method.__name__, describe(owner, ctypes.addressof(made)))


@functools.cache
def layout_known() -> bool:
    """Whether this interpreter keeps objects where compiled methods look for them."""
    if not hasattr(peek_word, "get_compile_result"):
        return False  # the JIT is off
    text, loose, array, names = b"agent swarm", bytearray(b"agent swarm"), np.arange(3, dtype=np.int64), ("a", "b")
    del loose[:2]
    held = Held()
    held._words = array
    return (
        peek_word(id(text) + TYPE) == id(bytes)
        and peek_word(id(text) + SIZE) == len(text)
        and bytes.__basicsize__ - 1 == BYTES_DATA
        and peek_word(id(loose) + TYPE) == id(bytearray)
        and peek_word(id(loose) + SIZE) == len(loose)
        and peek_word(id(loose) + BYTEARRAY_DATA) == np.frombuffer(loose, np.uint8).ctypes.data
        and peek_word(id(array) + TYPE) == id(np.ndarray)
        and peek_word(id(array) + ARRAY_DATA) == array.ctypes.data
        and peek_word(id(names) + SIZE) == len(names)
        and Held.__basicsize__ == _FIRST_SLOT + 8
        and peek_word(id(held) + _FIRST_SLOT) == id(array)
    )
