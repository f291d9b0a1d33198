"""Two processes on two cores: what every measurement here stands on.

A measurement is a function that runs in a process of its own, so that no library of one peer lives in another's address
space, and prints one number. Its partner (the echo, the sink) is a process that it starts and ends itself.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["cores", "one_way_seconds", "partner", "pin"]


#: What this process may run on before it pins itself; a partner would inherit no more than that one core.
_ALLOWED = sorted(os.sched_getaffinity(0))


def cores() -> tuple[int, int]:
    """The two cores of this run: the first two that are allowed, or twice the same where there is only one."""
    return _ALLOWED[0], _ALLOWED[min(1, len(_ALLOWED) - 1)]


def pin(core: int) -> None:
    """Binds this process to a core."""
    os.sched_setaffinity(0, {core})


@contextmanager
def partner(function: Callable[..., None], *args: Any) -> Iterator[Any]:
    """Runs `function(*args)` in a fresh interpreter on the second core; ends it at the block's end."""
    words = (cores()[1], function, args)
    process = multiprocessing.get_context("spawn").Process(target=_on_core, args=words, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.join(timeout=5)
        if process.is_alive():
            process.kill()
            process.join()


def _on_core(core: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    pin(core)
    function(*args)


def one_way_seconds(exchange: Callable[[], None], count: int, warm_up: int) -> float:
    """Half of the mean round trip of `exchange` over `count` calls, in seconds."""
    for _ in range(warm_up):
        exchange()
    began = time.perf_counter()
    for _ in range(count):
        exchange()
    return (time.perf_counter() - began) / count / 2
