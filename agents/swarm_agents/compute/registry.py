"""The registry of kernels: the names that tasks may call, and what stands behind each.

A kernel is a name, a typed signature, a reference written in NumPy, and any number of other implementations of the
same function, each of which a test holds against the reference:

    @kernel("risk.ewma_volatility")
    def ewma_volatility(returns: Returns, *, decay: Decay = 0.94) -> NDArray[np.float64]:
        ...                                             # NumPy: the definition

    @ewma_volatility.samples
    def _(rng: np.random.Generator) -> Call:            # random arguments, for the test and for `warm`
        return call(rng.normal(0, 0.01, (500, 3)))

    @ewma_volatility.implementation("numba")
    def _(returns, *, decay=0.94):
        from swarm_agents.compute.kernels import risk_jit   # Numba is imported when it is needed, not before
        return risk_jit.ewma(returns, decay)

Implementations get what the reference gets: arguments that `bind` has checked. Which of them an agent runs it learns
(`strategies`), by size of the work: that is the number of elements of all arrays, unless `@ewma_volatility.work` says
it. Without an agent, `choose` takes the one that was added last. Invariants: importing this module
imports no Numba; a name belongs to one function; nothing here runs a parallel kernel, because the supervisor forks
after `warm` and Numba's thread pools do not survive a fork.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from swarm_agents.compute import memory
from swarm_agents.compute.context import Context
from swarm_agents.compute.limits import Bounds
from swarm_agents.compute.plugins import Broken, Plugins
from swarm_agents.compute.signature import Signature
from swarm_agents.errors import UnknownKernel
from swarm_agents.retry import Retry

__all__ = ["Call", "Implementation", "Kernel", "Strategist", "call", "get", "kernel", "load", "names", "warm"]

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_BUILT_IN = "swarm_agents.compute.kernels"
_F = TypeVar("_F", bound=Callable[..., Any])
_kernels: dict[str, Kernel] = {}
#: The installed packages that bring kernels.
plugins = Plugins()

#: The reference's name among a kernel's implementations.
REFERENCE = "numpy"


class Call(NamedTuple):
    """The arguments of one call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def call(*args: Any, **kwargs: Any) -> Call:
    """`call(1, x=2)` is the arguments of `f(1, x=2)`."""
    return Call(args, kwargs)


@dataclass(frozen=True)
class Implementation:
    """One way to compute a kernel. A `parallel` one starts threads, so it must never run before a fork."""

    name: str
    function: Callable[..., Any]
    parallel: bool = False
    #: Compiles or loads it without running it; None: `warm` calls it on a sample.
    warm: Callable[[], object] | None = None
    #: How far its floats may lie from the reference's (relative); 0 means equal to the last bit.
    tolerance: float = 0.0
    #: For which arguments it may be chosen; None: for all.
    when: Callable[..., bool] | None = None
    #: It computes on a GPU.
    device: bool = False


class Strategist(Protocol):
    """Who runs a kernel by an implementation of its own choice."""

    def run(self, kernel: Kernel, bound: dict[str, Any]) -> Any: ...


class Kernel:
    """A function that tasks can call by name. Calling it checks the arguments and runs the chosen implementation."""

    def __init__(self, name: str, reference: Callable[..., Any]) -> None:
        self.name = name
        self.reference = reference
        self.signature = Signature(name, reference)
        self.implementations: dict[str, Implementation] = {REFERENCE: Implementation(REFERENCE, reference)}
        #: Makes random arguments that fit; None for kernels whose effect is not a value.
        self.sample: Callable[[np.random.Generator], Call] | None = None
        #: Says how many bytes a call allocates at most, its answer included; None: little beside its arguments.
        self.needs: Callable[..., float] | None = None
        #: Says how much work a call's arguments are, in any unit; None: as many as its arrays have elements.
        self.amount: Callable[..., float] | None = None
        #: How often its tasks are begun, and when again; None: as the swarm's settings say.
        self.retry: Retry | None = None
        #: Seconds from a task's submission after which its answer is of no use; None: as long as it takes.
        self.deadline: float | None = None
        #: What holds one attempt in time and memory; None: nothing but the agent's own limits.
        self.bounds: Bounds | None = None
        self._chosen = self.implementations[REFERENCE]
        self.__doc__ = reference.__doc__
        self.__module__ = reference.__module__

    def __repr__(self) -> str:
        return f"<kernel {self.signature}; {', '.join(self.implementations)}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(args, kwargs)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (self.__doc__ or "").strip().partition("\n")[0]

    @property
    def preferred(self) -> str:
        """The implementation that was added last, without `default=False`."""
        return self._chosen.name

    def choose(self, bound: Mapping[str, Any]) -> Implementation:
        """What `run` uses for these arguments: the implementation that was added last, unless its `when` says no."""
        chosen = self._chosen
        return chosen if self.may_run(chosen, bound) else self.implementations[REFERENCE]

    def may_run(self, implementation: Implementation, bound: Mapping[str, Any]) -> bool:
        """Whether the implementation may be chosen for these arguments."""
        when = implementation.when
        return when is None or when(**{k: v for k, v in bound.items() if k != "ctx"})

    def amount_of(self, bound: Mapping[str, Any]) -> float:
        """How much work these arguments are: see `work`."""
        if self.amount is not None:
            return self.amount(**self.signature.defaults | {k: v for k, v in bound.items() if k != "ctx"})
        total = 1
        for value in bound.values():
            if type(value) is np.ndarray:
                total += value.size
            elif type(value) in (bytes, str, list):
                total += len(value)
        return total

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, checked and converted.

        Raises:
            BadArguments: they do not fit; the message says what is expected.
        """
        return self.signature.bind(args, kwargs)

    def run(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        ctx: Context | None = None,
        implementation: str | None = None,
        strategies: Strategist | None = None,
    ) -> Any:
        """Checks the arguments and runs the kernel: by the implementation that is named, else by the one that
        `strategies` take, else by the chosen one.

        Raises:
            BadArguments: the arguments do not fit.
            NotEnoughMemory: by what it `needs`, the call would take more than there is.
            Exception: whatever the kernel raises.
        """
        bound = self.signature.bind(args, kwargs or {})
        if self.needs is not None:
            memory.require(self.needs(**self.signature.defaults | bound), f"kernel {self.name}")
        if self.signature.takes_context:
            bound["ctx"] = ctx if ctx is not None else Context()
        if len(self.implementations) > 1 and strategies is not None and implementation is None:
            return strategies.run(self, bound)
        chosen = self.choose(bound) if implementation is None else self.implementations[implementation]
        return chosen.function(**bound)

    def samples(self, function: Callable[[np.random.Generator], Call]) -> Callable[[np.random.Generator], Call]:
        """Decorates the function that makes random arguments for this kernel."""
        self.sample = function
        return function

    def memory(self, function: Callable[..., float]) -> Callable[..., float]:
        """Decorates the function that says, for a call's arguments (with their defaults, without `ctx`), how many bytes
        it allocates at most, so that a call beyond the agent's memory is refused before it allocates any."""
        self.needs = function
        return function

    def work(self, function: Callable[..., float]) -> Callable[..., float]:
        """Decorates the function that says, for a call's arguments (with their defaults, without `ctx`), how much work
        the call is. Calls of about as much work should take about as long by each implementation: what was learned from
        one serves the others. In any unit; it is called for every task, so it must cost next to nothing."""
        self.amount = function
        return function

    def implementation(
        self,
        name: str,
        *,
        parallel: bool = False,
        warm: Callable[[], object] | None = None,
        tolerance: float = 0.0,
        when: Callable[..., bool] | None = None,
        default: bool = True,
        device: bool = False,
    ) -> Callable[[_F], _F]:
        """Decorates another implementation of this kernel, which is chosen from now on unless `default` is False: then
        it is for agents to try. See `Implementation` for the rest."""
        if name in self.implementations:
            raise ValueError(f"kernel {self.name} has an implementation {name!r} already")

        def add(function: _F) -> _F:
            made = Implementation(name, function, parallel, warm, tolerance, when, device)
            self.implementations[name] = made
            if default:
                self._chosen = made
            return function

        return add


def kernel(
    name: str,
    *,
    retry: Retry | None = None,
    attempts: int | None = None,
    backoff: float | None = None,
    retry_on: Sequence[str | type[BaseException]] | None = None,
    deadline: float | None = None,
    limit: float | None = None,
    most_memory: int | None = None,
) -> Callable[[Callable[..., Any]], Kernel]:
    """Registers a NumPy function as the kernel `name`, as in `@kernel("risk.monte_carlo")`.

    Args:
        name: dotted, in lower case.
        retry: how often its tasks are begun, and when again; or said one by one:
        attempts, backoff, retry_on: see `swarm_agents.retry.Retry`.
        deadline: seconds from a task's submission after which its answer is of no use. What has not been begun by then
            is not, and what runs is ended at its next `ctx.check()` or `ctx.checkpoint()`.
        limit: seconds that one attempt may take. What looks (`ctx.check()`) is ended there; what does not is cut off
            with its agent, which is replaced at once: such a task fails alone, after its attempts, with `TaskLost`.
        most_memory: bytes by which one attempt may make its process grow: what would take more raises `MemoryError`.

    Raises:
        ValueError: not a dotted name in lower case, or another function has the name, or an option is out of range.
        TypeError: a parameter without a type that calls can be checked against.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a kernel: use lower case and a dot, such as 'team.price'")
    if deadline is not None and deadline <= 0:
        raise ValueError(f"deadline={deadline}: expected seconds above 0")
    bounds = Bounds(limit, most_memory) if limit is not None or most_memory is not None else None
    if attempts is not None or backoff is not None or retry_on is not None:
        retry = Retry(attempts, backoff, None if retry_on is None else tuple(retry_on)).over(retry)

    def register(function: Callable[..., Any]) -> Kernel:
        known = _kernels.get(name)
        if known is not None and known.reference.__module__ != function.__module__:
            raise ValueError(f"kernel {name!r} is registered by {known.reference.__module__} already")
        made = Kernel(name, function)
        made.retry, made.deadline, made.bounds = retry, deadline, bounds
        _kernels[name] = made
        return made

    return register


def get(name: str, allow: Sequence[str] = ()) -> Kernel:
    """The kernel of that name. `allow`: patterns such as `risk.*`; empty allows all.

    Raises:
        UnknownKernel: none has the name, or the patterns do not allow it; the message names near ones.
    """
    found = _kernels.get(name)
    if found is None:
        _load_built_in()
        found = _kernels.get(name)
    if found is not None and (not allow or any(fnmatch.fnmatchcase(name, pattern) for pattern in allow)):
        return found
    if found is not None:
        raise UnknownKernel(f"kernel {name!r} is not allowed here: this swarm allows {', '.join(allow)}")
    near = difflib.get_close_matches(name, names(allow), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names(allow))}"
    raise UnknownKernel("; ".join([f"no kernel is called {name!r}: {hint}", *map(str, plugins.broken)]))


def names(allow: Sequence[str] = ()) -> list[str]:
    """All kernels' names in order, those that `allow` lets through."""
    _load_built_in()
    return sorted(n for n in _kernels if not allow or any(fnmatch.fnmatchcase(n, pattern) for pattern in allow))


def load(modules: Iterable[str] = (), *, broken: Callable[[Broken], object] | None = None) -> list[str]:
    """Imports the built-in kernels, those of installed packages (see `plugins`) and the owner's modules.

    Args:
        modules: what the settings name.
        broken: is told of each installed package whose kernels are not there, once.

    Returns:
        The names of all kernels.

    Raises:
        ImportError: a module of the settings can't be imported; the message says which, and of which package it is.
    """
    _load_built_in()
    modules = tuple(modules)
    plugins.wanted |= frozenset(modules)
    for fault in plugins.load(_kernels):
        if broken is not None:
            broken(fault)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            package = plugins.package_of(module)
            raise ImportError(
                f"the kernel module {module!r}{f' of the package {package}' if package else ''} can't be imported "
                f"({type(error).__name__}: {error}): it must be installed in the agents' image"
            ) from error
    return names()


def warm(only: Sequence[str] = (), *, broken: Callable[[Broken], object] | None = None) -> dict[str, float]:
    """Compiles every implementation, or loads it from the JIT cache, so that no task waits for a compiler.

    To be called before forking; no parallel implementation is run. `only`: patterns of names. `broken`: is told of an
    installed package's kernel that fails on its own sample, which is not there from then on.

    Returns:
        Seconds spent by `kernel/implementation`.
    """
    rng = np.random.default_rng(0)
    spent: dict[str, float] = {}
    for name in names(only):
        try:
            _warm(_kernels[name], rng, spent)
        except Exception as error:
            fault = plugins.drop(name, _kernels, error)
            if fault is None:
                raise
            if broken is not None:
                broken(fault)
    return spent


def _warm(entry: Kernel, rng: np.random.Generator, spent: dict[str, float]) -> None:
    for implementation in entry.implementations.values():
        begun = time.perf_counter()
        if implementation.warm is not None:
            implementation.warm()
        elif implementation.name == REFERENCE or implementation.parallel or entry.sample is None:
            continue
        else:
            sample = entry.sample(rng)
            entry.run(sample.args, sample.kwargs, implementation=implementation.name)
        spent[f"{entry.name}/{implementation.name}"] = time.perf_counter() - begun


def _load_built_in() -> None:
    importlib.import_module(_BUILT_IN)
