"""The page of memory by which the simulator steers compiled code: what time it is, and when a call is cut short.

The page lies at a fixed address, so that it is a constant in the compiled functions and these can be cached. Before
every shared operation they count `BUDGET` down; at zero, and whenever a futex is waited for or woken, they call `HOOK`,
which is a function of the simulator. So it costs a nanosecond an operation to be able to stop a party in the midst of
any call, at any operation, or to let others run before it goes on.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
from collections.abc import Callable

__all__ = ["ADDRESS", "BUDGET", "HOOK", "MUTANT", "NEVER", "NOW", "Parked", "Stopped", "install", "words"]

#: Far from where Linux puts heaps, stacks and libraries, on x86-64 and aarch64.
ADDRESS = 0x1C00_0000_0000
#: Words of the page, by index.
BUDGET, HOOK, NOW, MUTANT = 0, 1, 2, 3
#: A budget that is not used up.
NEVER = 1 << 62
#: What `HOOK` is called for.
TICK, WAIT, WAKE = 0, 1, 2

_MAP_FIXED_NOREPLACE = 0x100000
_Hook = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_kept: list[object] = []


class Stopped(BaseException):
    """The party that made the call has been killed in the midst of it."""


class Parked(BaseException):
    """The party that made the call sleeps on a futex: `World.parked` says on which."""


def _map_page() -> ctypes.Array[ctypes.c_int64]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
    at = libc.mmap(ADDRESS, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if at != ADDRESS:
        raise OSError(ctypes.get_errno(), f"the simulator's page can't be mapped at {ADDRESS:#x}")
    return (ctypes.c_int64 * (mmap.PAGESIZE // 8)).from_address(ADDRESS)


#: The page. One for the process.
words = _map_page()
words[BUDGET] = NEVER
words[NOW] = 1


def install(hook: Callable[[int, int, int, int], int]) -> None:
    """Has `hook(kind, a, b, c)` called: TICK; WAIT with address, expected value, ns; WAKE with address, how many.

    It returns 0: go on; 1: the call ends with `Stopped`; 2: it ends with `Parked`. It must not raise.
    """
    function = _Hook(hook)
    _kept.append(function)
    words[HOOK] = ctypes.cast(function, ctypes.c_void_p).value or 0
