"""Threads for kernels that work on pieces: compiled functions that hold no GIL, each on a part of the arrays.

An alternative to Numba's `parallel=True` for kernels whose pieces take more than some ten microseconds: the same
compiled function serves one thread and many, so that it is compiled once (a parallel one takes several times as long,
at each image build and start without a cache), the pieces are where the kernel puts them (results do not depend on the
number of threads where they are combined in the order of the pieces), and it may be called from any thread, which
Numba's `workqueue` layer does not survive. Handing out costs some 50 µs, where `workqueue` costs 10.

As many threads as Numba has been told to use (`numba.set_num_threads`, `NUMBA_NUM_THREADS`, which the agent sets to
the cores that it owns), and no more than there are CPUs that the caller may run on, which works too. The threads sleep
between calls. After a fork the child makes its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["limited", "pieces", "run", "threads"]

_T = TypeVar("_T")
_pool: ThreadPoolExecutor | None = None
_size = 0
_most: ContextVar[int] = ContextVar("_most", default=0)


def threads() -> int:
    """How many threads `run` uses, the caller's included."""
    return min(_configured(), len(os.sched_getaffinity(0)), _most.get() or 1 << 16)


def _configured() -> int:
    """What Numba has been told. To ask it starts its own pool, which is not wanted if no kernel of it has run yet."""
    import numba
    from numba.np.ufunc import parallel

    started = getattr(parallel, "_is_initialized", False)
    return int(numba.get_num_threads() if started else getattr(numba.config, "NUMBA_NUM_THREADS"))  # noqa: B009


@contextmanager
def limited(most: int) -> Iterator[None]:
    """At most so many threads for what is run within, by this thread."""
    token = _most.set(most)
    try:
        yield
    finally:
        _most.reset(token)


def pieces(n: int, least: int = 1, per_thread: int = 1) -> list[tuple[int, int]]:
    """0…n as [begin, end) ranges of about equal length: `per_thread` for each thread, none shorter than `least`."""
    count = max(1, min(threads() * per_thread, n // max(least, 1)))
    edges = [n * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def run(function: Callable[..., _T], work: Sequence[tuple[object, ...]]) -> list[_T]:
    """`function(*arguments)` for each of `work`, on `threads()` threads; the results in the order of `work`.

    Returns when all have ended. Raises what the first failed piece (in the order of `work`) raised.
    """
    count = min(threads(), len(work))
    if count <= 1:
        return [function(*arguments) for arguments in work]
    pool = _workers(count - 1)
    # Each thread takes every count-th piece: pieces of one call take about equally long.
    shares: list[Future[list[_T]]] = [pool.submit(_share, function, work[i::count]) for i in range(1, count)]
    try:
        results: list[list[_T]] = [_share(function, work[::count])]
    finally:
        for future in shares:
            future.exception()  # waits: no piece may still write when the caller sees an error
    results += [future.result() for future in shares]
    return [results[i % count][i // count] for i in range(len(work))]


def _share(function: Callable[..., _T], work: Sequence[tuple[object, ...]]) -> list[_T]:
    with limited(1):  # a piece that is itself shared out would wait for threads that all wait for it
        return [function(*arguments) for arguments in work]


def _workers(count: int) -> ThreadPoolExecutor:
    global _pool, _size
    if _pool is None or _size < count:
        # An outgrown pool ends by itself when the last call that uses it has let go of it.
        _pool, _size = ThreadPoolExecutor(count, "kernel"), count
    return _pool


def _forget() -> None:
    global _pool, _size
    _pool, _size = None, 0


os.register_at_fork(after_in_child=_forget)
