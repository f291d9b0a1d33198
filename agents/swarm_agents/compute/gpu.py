"""A GPU for kernels, by CuPy: one device for each agent, bounded memory, transfers beside the computing.

What kernels use:

    offload(on_device, on_cpu)        on the device if there is one and it has room, on the CPU otherwise
    device.over(n, inputs, outputs, work, per_row=…)
                                      `work` on chunks of rows; two streams, so that one chunk travels while the other
                                      is computed
    device.put(array), device.fetch(array, out)
                                      what is needed as a whole

Invariants:

- CUDA does not survive a fork, so nothing here touches it before `offload` runs in the agent; in a process that was
  forked from one that had a device there is none (`why_not` says so). Each agent has a CUDA context of its own, whose
  addresses mean nothing to another: agents that share a device can't reach each other's memory, and are kept from
  starving each other by the limit.
- The pool takes at most the limit (the share of the device's memory that the settings allow), and what kernels stage on
  the host is pinned memory of at most `_STAGED` bytes for each array on its way.
- Out of memory is no error of a task's: the pool is emptied and the CPU computes. Any other error of CUDA's is raised.

Rejected: managed memory (pages move one by one, at a tenth of the bus), `cupy.fuse` (its errors come at run time, and
what is offloaded here waits for the bus and not for the device's memory).
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["COUNTS", "Device", "configure", "device", "missing", "offload", "why_not"]

_T = TypeVar("_T")
Array = NDArray[Any]
#: Bytes of one chunk of all arrays together, at most: enough to fill the bus, and little beside any device's memory.
_STAGED = 32 << 20
#: cudaErrorMemoryAllocation: what the driver says where CuPy's pool has not said OutOfMemoryError before.
_NO_MEMORY = 2

#: What became of calls that asked for the device: `device`, `cpu` (there is none), `memory` (it had no room).
COUNTS: Counter[str] = Counter()
_share, _ordinal = 0.8, 0
_device: Device | None = None
_why_not = ""
_asked = False


def missing(dev: Path = Path("/dev")) -> str:
    """Why there can be no GPU here; empty if there may be one. Touches no CUDA, so it may be asked before a fork."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (the extra `gpu`, the image agent-gpu)"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1", "NoDevFiles"):
        return "CUDA_VISIBLE_DEVICES allows no device"
    if not any(dev.glob("nvidia[0-9]*")) and not (dev / "dxg").exists():
        return "there is no NVIDIA device in this container (spec.compute.gpus asks for one)"
    return ""


def configure(*, share: float, ordinal: int) -> None:
    """Before the first use: the share of the device's memory that this process may take, and which of several devices
    it uses (the agent's ordinal, modulo their number)."""
    global _share, _ordinal
    _share, _ordinal = share, ordinal


def device() -> Device | None:
    """This process's device, opened when it is asked for first; None where there is none, as `why_not` says."""
    global _device, _why_not, _asked
    if not _asked:
        _asked = True
        _why_not = missing()
        if not _why_not:
            try:
                _device = _open()
            except Exception as error:  # a driver that is too old, a device that is not ours, a broken installation
                _why_not = f"CUDA can't be used: {type(error).__name__}: {error}"
    return _device


def why_not() -> str:
    """Why `device` gave None; empty if it did not."""
    return _why_not


def offload(on_device: Callable[[Device], _T], on_cpu: Callable[[], _T]) -> _T:
    """`on_device(device)`; or, where there is no device or not enough memory on it, `on_cpu()`."""
    found = device()
    if found is None:
        COUNTS["cpu"] += 1
        return on_cpu()
    try:
        with found:
            result = on_device(found)
    except Exception as error:
        if not found.is_out_of_memory(error):
            raise
        found.release()
        COUNTS["memory"] += 1
        return on_cpu()
    COUNTS["device"] += 1
    return result


class Device:
    """One device, with a pool of its memory. Its memory is allocated within `with device:`, as `offload` does."""

    def __init__(self, cupy: Any, cupyx: Any, special: Any, *, limit: int, number: int = 0) -> None:
        """
        Args:
            cupy, cupyx, special: the modules cupy, cupyx and cupyx.scipy.special.
            limit: bytes of the device's memory.
            number: which device.
        """
        #: CuPy: what NumPy is on the host.
        self.xp = cupy
        #: As `scipy.special`.
        self.special = special
        self.limit = limit
        self.number = number
        self._cupyx = cupyx
        self._pool = cupy.cuda.MemoryPool()
        self._on = cupy.cuda.Device(number)
        with self._on:
            self._pool.set_limit(size=limit)
            self._slots = (_Slot(self), _Slot(self))
        self._entered: list[Any] = []

    @property
    def name(self) -> str:
        """The device's name, as its maker calls it."""
        name = self.xp.cuda.runtime.getDeviceProperties(self.number)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    def __enter__(self) -> Device:
        allocator = self.xp.cuda.using_allocator(self._pool.malloc)
        self._on.__enter__()
        allocator.__enter__()
        self._entered.append(allocator)
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.pop().__exit__(*error)
        self._on.__exit__(*error)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether the device had no room, as CuPy or the driver says it."""
        cuda = self.xp.cuda
        return isinstance(error, cuda.memory.OutOfMemoryError) or (
            isinstance(error, cuda.runtime.CUDARuntimeError) and getattr(error, "status", None) == _NO_MEMORY
        )

    def release(self) -> None:
        """Gives the pool's free memory back to the device, so that others can have it."""
        for slot in self._slots:
            slot.drop()
        self._pool.free_all_blocks()

    def put(self, array: Array) -> Any:
        """The array on the device, complete when this returns, for whichever stream."""
        there = self.xp.asarray(array)
        self.xp.cuda.get_current_stream().synchronize()
        return there

    def fetch(self, array: Any, out: Array) -> None:
        """Copies an array of the device into `out` on the host, complete when this returns."""
        self.xp.ascontiguousarray(array).get(out=out)

    def rows(self, n: int, per_row: int, staged: int) -> int:
        """How many of n rows make a chunk, if a row takes `per_row` bytes of the device and `staged` on its way.

        Two chunks are on the device at once, and the pool keeps some memory that fits nothing.
        """
        return max(1, min(n, self.limit // (3 * max(per_row, 1)), _STAGED // max(staged, 1)))

    def over(
        self,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        work: Callable[..., Sequence[Any]],
        *,
        per_row: int,
    ) -> None:
        """Fills `outputs` with what `work` makes of the rows of `inputs`, chunk by chunk.

        Args:
            inputs: arrays on the host, of one length.
            outputs: arrays on the host of the same length, to be filled.
            work: gets each input's chunk on the device, returns each output's. It runs on a stream that is not the
                default one, and must not wait for it.
            per_row: bytes of the device's memory that `work` takes for a row at most, inputs and outputs included.
        """
        n = len(outputs[0])
        staged = sum(a.nbytes for a in (*inputs, *outputs)) // max(n, 1)
        rows = self.rows(n, per_row, staged)
        try:
            for number, begin in enumerate(range(0, n, rows)):
                part = slice(begin, min(begin + rows, n))
                slot = self._slots[number % 2]
                slot.finish()  # the chunk before last: while it was waited for, the last one was on its way
                slot.start([a[part] for a in inputs], [a[part] for a in outputs], work)
            for slot in self._slots:
                slot.finish()
        except BaseException:
            for slot in self._slots:
                slot.drop()
            raise


class _Slot:
    """A stream, and the pinned memory through which one chunk travels."""

    def __init__(self, owner: Device) -> None:
        self._device = owner
        self._stream = owner.xp.cuda.Stream(non_blocking=True)
        self._pinned: dict[tuple[str, int], Array] = {}
        #: What has to be kept until the stream is done, and what then goes where.
        self._held: list[Any] = []
        self._leaving: list[tuple[Array, Array]] = []

    def start(self, inputs: Sequence[Array], outputs: Sequence[Array], work: Callable[..., Sequence[Any]]) -> None:
        """Sends a chunk on its way: there, through `work`, and back. Returns before it is back."""
        xp = self._device.xp
        with self._stream:
            there: list[Any] = []
            for i, source in enumerate(inputs):
                staged = self._staged("in", i, source)
                staged[...] = source
                target = xp.empty(source.shape, source.dtype)
                target.set(staged, stream=self._stream)
                there.append(target)
            results = [xp.ascontiguousarray(result) for result in work(*there)]
            self._held = [there, results]
            for i, (result, target) in enumerate(zip(results, outputs, strict=True)):
                staged = self._staged("out", i, target)
                result.get(stream=self._stream, out=staged, blocking=False)
                self._leaving.append((staged, target))

    def finish(self) -> None:
        """Waits for the chunk, and puts what came back where it belongs."""
        if self._held:
            self._stream.synchronize()
            for staged, target in self._leaving:
                target[...] = staged
        self._held, self._leaving = [], []

    def drop(self) -> None:
        """Waits for the chunk and forgets it."""
        try:
            self._stream.synchronize()
        finally:
            self._held, self._leaving = [], []

    def _staged(self, way: str, number: int, like: Array) -> Array:
        """Pinned memory in the shape and dtype of an array; the same memory again from chunk to chunk."""
        kept = self._pinned.get((way, number))
        if kept is None or kept.nbytes < like.nbytes:
            kept = self._pinned[way, number] = self._device._cupyx.empty_pinned((max(like.nbytes, 1),), np.uint8)
        view: Array = kept[: like.nbytes].view(like.dtype).reshape(like.shape)
        return view


def _open() -> Device:
    if cache := os.environ.get("SWARM_CACHE_DIR"):
        os.environ.setdefault("CUPY_CACHE_DIR", str(Path(cache) / "cupy"))  # the home is not writable in a container
    import cupy
    import cupyx
    from cupyx.scipy import special

    number = _ordinal % cupy.cuda.runtime.getDeviceCount()
    with cupy.cuda.Device(number) as opened:
        total = opened.mem_info[1]
    return Device(cupy, cupyx, special, limit=int(_share * total), number=number)


def _forget() -> None:
    """In a forked child: a context of the parent's is no use, and CUDA can't be started again beside it."""
    global _device, _why_not, _asked
    if _device is not None:
        _device, _why_not = None, "this process was forked from one that used CUDA, which does not survive that"
    else:
        _asked, _why_not = False, ""
    COUNTS.clear()


os.register_at_fork(after_in_child=_forget)
