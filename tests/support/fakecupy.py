"""NumPy in CuPy's place: what `swarm_agents.compute.gpu` asks of CuPy, strict where mistakes would not show on a CPU.

- Arrays of the host and of the device do not mix: an operation on both raises, as CuPy does.
- A copy from the device that does not block arrives when its stream is synchronised, not before.
- A copy to the device reads the host's memory when the stream comes to it: memory that was written to in between is
  found out when the stream is synchronised.
- The pool counts what `empty` and `asarray` allocate, and has a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.special

__all__ = ["Array", "OutOfMemoryError", "fake_device"]


class OutOfMemoryError(MemoryError):
    """The pool's."""


class CUDARuntimeError(RuntimeError):
    """The driver's, with its number."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cuda error {status}")
        self.status = status


class Array(np.ndarray):
    """An array of the device."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return strict(getattr(ufunc, method))(*inputs, **kwargs)

    def set(self, source: np.ndarray, stream: Any = None) -> None:
        assert not isinstance(source, Array)
        self[...] = source
        if stream is not None:
            stream.expects.append((source, source.copy()))

    def get(self, stream: Any = None, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        assert out is not None
        assert not isinstance(out, Array)
        assert self.flags.c_contiguous
        assert (out.shape, out.dtype) == (self.shape, self.dtype)
        there = self.view(np.ndarray)
        if blocking:
            out[...] = there
        else:
            assert stream is not None
            out.view(np.uint8)[...] = 0xAB  # nothing of it is there yet
            stream.arrives.append((out, there))
        return out


def strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function on arrays of the device, giving such."""

    def plain(value: Any) -> Any:
        if isinstance(value, Array):
            return value.view(np.ndarray)
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return tuple(map(plain, value)) if isinstance(value, tuple | list) else value

    def call(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(all="ignore"):
            result = function(*map(plain, args), **{key: plain(value) for key, value in kwargs.items()})
        return result.view(Array) if isinstance(result, np.ndarray) else np.asarray(result).view(Array)

    return call


class Stream:
    def __init__(self, log: list[str], non_blocking: bool = False) -> None:
        assert non_blocking, "the default stream would make one chunk wait for the other"
        self.log = log
        self.expects: list[tuple[np.ndarray, np.ndarray]] = []
        self.arrives: list[tuple[np.ndarray, np.ndarray]] = []

    def __enter__(self) -> Stream:
        self.log.append(f"begin {id(self)}")
        return self

    def __exit__(self, *_: object) -> None: ...

    def synchronize(self) -> None:
        for source, seen in self.expects:
            assert source.tobytes() == seen.tobytes(), "memory was written to while it was on its way"
        for target, there in self.arrives:
            target[...] = there
        if self.expects or self.arrives:
            self.log.append(f"end {id(self)}")
        self.expects, self.arrives = [], []


class Pool:
    def __init__(self) -> None:
        self.limit = 0
        self.largest = 0
        self.freed = 0

    def set_limit(self, *, size: int) -> None:
        self.limit = size

    def malloc(self, size: int) -> None:
        self.largest = max(self.largest, size)
        if size > self.limit:
            raise OutOfMemoryError(f"{size} bytes of {self.limit}")

    def free_all_blocks(self) -> None:
        self.freed += 1


class Entered:
    def __enter__(self) -> Entered:
        return self

    def __exit__(self, *_: object) -> None: ...


class Cupy:
    """The module."""

    inf = np.inf

    def __init__(self) -> None:
        #: What streams began and ended.
        self.journal: list[str] = []
        self.pools: list[Pool] = []
        self.cuda = SimpleNamespace(
            MemoryPool=self._pool,
            Device=lambda number: Entered(),
            Stream=lambda non_blocking=False: Stream(self.journal, non_blocking),
            using_allocator=lambda malloc: Entered(),
            get_current_stream=lambda: SimpleNamespace(synchronize=lambda: None),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError, getDeviceProperties=lambda number: {"name": b"NumPy"}
            ),
        )

    def _pool(self) -> Pool:
        self.pools.append(Pool())
        return self.pools[-1]

    def empty(self, shape: Any, dtype: Any) -> Any:
        made = np.empty(shape, dtype)
        self.pools[0].malloc(made.nbytes)
        return made.view(Array)

    def asarray(self, value: np.ndarray) -> Any:
        self.pools[0].malloc(value.nbytes)
        return value.copy().view(Array)

    def __getattr__(self, name: str) -> Any:
        return strict(getattr(np, name))


class Special:
    """The module cupyx.scipy.special."""

    def __getattr__(self, name: str) -> Any:
        return strict(getattr(scipy.special, name))


def fake_device(limit: int = 1 << 30) -> Any:
    """A `Device` on these modules."""
    from swarm_agents.compute.gpu import Device

    cupyx = SimpleNamespace(empty_pinned=lambda shape, dtype: np.empty(shape, dtype))
    return Device(Cupy(), cupyx, Special(), limit=limit)
