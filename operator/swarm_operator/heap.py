"""What the process does so that its memory stays near what it holds.

A burst (a thousand pods planned, created and listed) leaves the C library with free pages between live ones, which it
gives back only when it is asked: some 20 MiB of 150 with 2 500 agents.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from typing import Final

__all__ = ["freeze", "keep", "trim"]

#: Seconds between two times; one takes about a millisecond.
_EVERY: Final = 20.0


def freeze() -> None:
    """Keeps the collector from walking again and again through what stays: modules, models, the first lists.

    What requests leave behind is freed by reference counts, but for closed connections, which refer to themselves.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)


def trim() -> bool:
    """Gives free pages back to the kernel; False where the C library has no way to."""
    try:
        give = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc
        return False
    give(ctypes.c_size_t(0))
    return True


async def keep() -> None:
    """Until cancelled."""
    while True:
        trim()
        await asyncio.sleep(_EVERY)
