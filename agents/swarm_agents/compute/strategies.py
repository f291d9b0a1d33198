"""Which implementation a compute agent runs: the fastest on its own cores, as far as it has learned (`learner`).

An arm is an implementation that may run here: one on a GPU only where there is one, one on threads only where the agent
has several cores, once with all of them and with halves and quarters of them (`numba_threads:4`), each only for the
arguments that its `when` takes. The one that the registry would choose comes first, the reference last.

What was learned is kept in a file for this hardware and these versions (`learnedfile`): beside the node's board, where
all agents of the node find it, in the pod's own cache, which outlives the board, and on the swarm's volume if there is
one. It is read when the agent starts, so that a new one starts warm, and shared every `SHARED_EVERY` seconds and at the
end: never while a task waits for it.

A trial never costs a task its answer: where an arm fails that is not the preferred one, that one runs, too; the arm is
not chosen any more if it succeeds.

Rejected: measuring every call (two clock readings and a logarithm are much for a call of a microsecond; the learner
says which ones), and processor time instead of the clock's (it knows nothing of threads' ends, nor of a GPU).
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from swarm_agents.compute import gpu, learnedfile, team
from swarm_agents.compute.learner import Learner
from swarm_agents.compute.registry import REFERENCE, Kernel
from swarm_agents.errors import DeadlineExceeded, SwarmError, TaskCancelled
from swarm_agents.shm.files import BOARD_FILE

__all__ = ["FILE", "SHARED_EVERY", "Strategies", "arms_of", "file_name", "hardware"]

#: Seconds between two times that agents give each other what they have learned.
SHARED_EVERY: Final = 20.0
#: How often it is looked how many cores there are (seconds).
_LOOK: Final = 1.0
#: What the file's name begins with; the hardware's digest follows. As the board's it is removed with the board.
FILE: Final = f"{BOARD_FILE}.learned-"
#: Ways in which one implementation is run with fewer threads than there are.
_FEWER: Final = 2


_unlimited: Final = contextlib.nullcontext()


class _Arm(NamedTuple):
    function: Callable[..., Any]
    #: At most so many threads; 0: all that there are, or it has none.
    threads: int


class _Arms:
    """What there is of a kernel's implementations here, by name."""

    def __init__(self, kernel: Kernel, threads: int, *, device: bool, faulty: Iterable[str] = ()) -> None:
        self.kernel = kernel
        self.by_name: dict[str, _Arm] = {}
        #: The implementation of each arm.
        self.of: dict[str, str] = {}
        bad = set(faulty)
        for each in kernel.implementations.values():
            if each.device and not device:
                continue
            if not each.parallel:
                names = {each.name: 0}
            elif threads > 1:
                counts = [threads >> halved for halved in range(_FEWER + 1) if threads >> halved > 1]
                names = {f"{each.name}:{count}": count if count < threads else 0 for count in counts}
            else:
                continue
            for name, count in names.items():
                if name not in bad:
                    self.by_name[name] = _Arm(each.function, count)
                    self.of[name] = each.name
        self._conditions = [each for each in kernel.implementations.values() if each.when is not None]
        self._offers: dict[tuple[bool, ...], tuple[str, ...]] = {}
        self._offer = () if self._conditions else self._offered(frozenset(), kernel.preferred)

    def offer(self, bound: Mapping[str, Any]) -> tuple[str, ...]:
        """The names for these arguments, the preferred one first."""
        if not self._conditions:
            return self._offer
        allowed = tuple(self.kernel.may_run(each, bound) for each in self._conditions)
        made = self._offers.get(allowed)
        if made is None:
            refused = frozenset(each.name for each, yes in zip(self._conditions, allowed, strict=True) if not yes)
            made = self._offers[allowed] = self._offered(refused, self.kernel.choose(bound).name)
        return made

    def _offered(self, refused: frozenset[str], preferred: str) -> tuple[str, ...]:
        names = [name for name in self.by_name if self.of[name] not in refused]
        return tuple(sorted(names, key=lambda name: (self.of[name] != preferred, self.of[name] == REFERENCE)))


def arms_of(kernel: Kernel, threads: int, *, device: bool = False) -> dict[str, str]:
    """The kernel's arms on so many threads, and the implementation that each is."""
    return dict(_Arms(kernel, threads, device=device).of)


class Strategies:
    """An agent's choices. The thread that runs the kernels owns it; `metrics` may be asked by another one."""

    def __init__(
        self,
        files: Iterable[Path] = (),
        *,
        key: str = "",
        clock: Callable[[], float] = time.perf_counter,
        threads: Callable[[], int] = team.threads,
        warn: Callable[[str], object] = lambda text: None,
    ) -> None:
        """
        Args:
            files: what is learned is read from and written to all of them; of two figures the first file's counts.
            key: the hardware's digest, see `hardware`.
            clock: seconds, monotonic.
            threads: how many threads a parallel implementation uses.
            warn: is told of an arm that failed where another one did not.
        """
        self.learner = Learner(slow=(REFERENCE,))
        self._files = tuple(files)
        self._key = key
        self._clock = clock
        self._count = threads
        self._warn = warn
        self._arms: dict[str, _Arms] = {}
        self._faulty: dict[str, set[str]] = {}
        self._threads = 0
        self._shared_at = 0.0
        self._writable = True
        #: Of `time.monotonic_ns`: when to call `tend`.
        self.due_ns = 0

    def load(self) -> int:
        """Starts from what is in the files; returns how many figures that are."""
        for path in self._files:
            self.learner.start_from(learnedfile.read(path, self._key))
        return len(self.learner.learned())

    def run(self, kernel: Kernel, bound: dict[str, Any]) -> Any:
        """Runs the kernel on checked arguments by the arm that the learner chooses.

        Raises:
            Exception: whatever the kernel raises.
        """
        arms = self._arms.get(kernel.name)
        if arms is None or arms.kernel is not kernel:
            arms = self._made(kernel)
        offered = arms.offer(bound)
        amount = kernel.amount_of(bound)
        name, measure = self.learner.choose(kernel.name, amount, offered)
        function, threads = arms.by_name[name]
        try:
            if not measure:
                if not threads:
                    return function(**bound)
                with team.limited(threads):
                    return function(**bound)
            begun = self._clock()
            with team.limited(threads) if threads else _unlimited:
                value = function(**bound)
            seconds = self._clock() - begun
        except (TaskCancelled, DeadlineExceeded):
            raise
        except Exception as error:
            if name == offered[0]:
                raise
            return self._instead(kernel, arms, offered[0], bound, name, error)
        self.learner.observe(kernel.name, amount, name, seconds)
        return value

    def tend(self, now_ns: int) -> None:
        """Between two tasks, at `due_ns` or later: follows the number of cores, and shares what was learned."""
        self.due_ns = now_ns + int(_LOOK * 1e9)
        if self._count() != self._threads:
            self._arms = {}
        now = self._clock()
        if now - self._shared_at >= SHARED_EVERY:
            self.share(now)

    def share(self, now: float | None = None) -> None:
        """Writes what was learned and takes what others have learned."""
        self._shared_at = self._clock() if now is None else now
        mine = self.learner.learned()
        if not mine:
            return
        for path in self._files:
            try:
                both = learnedfile.share(path, self._key, mine)
            except OSError as error:
                if self._writable:
                    self._warn(f"what was learned of the kernels' costs can't be kept in {path}: {error}")
                self._writable = False
            else:
                self.learner.start_from(both)

    def _made(self, kernel: Kernel) -> _Arms:
        self._threads = self._count()
        device = any(each.device for each in kernel.implementations.values()) and gpu.device() is not None
        made = _Arms(kernel, self._threads, device=device, faulty=self._faulty.get(kernel.name, ()))
        self._arms[kernel.name] = made
        return made

    def _instead(
        self, kernel: Kernel, arms: _Arms, preferred: str, bound: dict[str, Any], failed: str, error: Exception
    ) -> Any:
        """The preferred arm's answer, which is the answer also when it is an error."""
        function, threads = arms.by_name[preferred]
        with team.limited(threads) if threads else _unlimited:
            value = function(**bound)
        if not isinstance(error, SwarmError | MemoryError):
            self._faulty.setdefault(kernel.name, set()).add(failed)
            self._made(kernel)
            self._warn(
                f"kernel {kernel.name}: its implementation {failed} failed where {preferred} did not "
                f"({type(error).__name__}: {error}); it is not chosen any more"
            )
        return value


@cache
def hardware() -> str:
    """A digest of what the costs of kernels depend on, but for the number of cores, which is in the arms' names: the
    CPU's model and features, the GPUs, and the versions of what computes."""
    from swarm_agents.runtime.jitcache import target

    models = {line for line in _text(Path("/proc/cpuinfo")).splitlines() if line.startswith(("model name", "CPU part"))}
    gpus = sorted(_text(path) for path in Path("/proc/driver/nvidia/gpus").glob("*/information"))
    versions = [version(name) for name in ("numpy", "agentswarm")]
    parts = (target(), *sorted(models), *gpus, *versions)
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def file_name() -> str:
    """The file's name for this hardware: agents of different images do not overwrite each other's."""
    return f"{FILE}{hardware()}"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
