"""Typed signatures of kernels: what a call may bring, checked and brought into shape before the kernel sees it.

Arguments come from anywhere: a client's NumPy arrays in shared memory (read-only, any byte order), numbers of a shell,
JSON lists over REST. A kernel must see one thing only: native, aligned, C-contiguous arrays of its dtype, plain Python
scalars, and extents that agree with each other. What can be brought there without loss is; everything else is
`BadArguments`, which says what was expected and what came.

Read from annotations: `int`, `float`, `bool`, `str`, `bytes`, `Any`, `Literal[...]`, `X | None`, and
`Annotated[NDArray[np.float64], Dims("T", "k"), Finite()]`; `Between` bounds a number. One name of a dimension is one
extent within a call. Rejected: `inspect.Signature.bind` (5 µs a call, and messages without types), pydantic (the
agents' image does not carry it, and it knows no arrays).
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from swarm_agents.compute import memory
from swarm_agents.errors import BadArguments

__all__ = ["Between", "Dims", "Finite", "Parameter", "Signature"]


@dataclass(frozen=True)
class Between:
    """A number's bounds, both included."""

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, init=False)
class Dims:
    """An array's dimensions: names, or numbers where the extent is fixed. An extent of 0 needs `empty=True`."""

    names: tuple[str | int, ...]
    empty: bool

    def __init__(self, *names: str | int, empty: bool = False) -> None:
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "empty", empty)


@dataclass(frozen=True)
class Finite:
    """No NaN and no infinity anywhere in the array."""


class _MisfitError(Exception):
    """What is wrong with one value; `Signature.bind` says it with the kernel's and the parameter's name."""


_Check = Callable[[Any, dict[str, int]], Any]
_REQUIRED = inspect.Parameter.empty
#: Elements from which on an array is summed up to see whether all of it is finite.
_LARGE = 4096


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, how it reads in a message, and the function that checks and converts its value."""

    name: str
    expected: str
    check: _Check
    default: Any
    keyword_only: bool

    @property
    def required(self) -> bool:
        """Whether a call must bring it."""
        return self.default is _REQUIRED

    def __str__(self) -> str:
        return f"{self.name}: {self.expected}" + ("" if self.required else f" = {self.default!r}")


class Signature:
    """A kernel's parameters. `takes_context` says that the function wants `ctx`, which no caller passes."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        hints = typing.get_type_hints(function, include_extras=True)
        self.takes_context = False
        parameters: list[Parameter] = []
        for p in inspect.signature(function).parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
                raise TypeError(f"kernel {name}: parameter {p.name!r} must be named and have a type of its own")
            if p.name == "ctx":
                if p.kind is not p.KEYWORD_ONLY:
                    raise TypeError(f"kernel {name}: ctx must be keyword-only (`*, ctx: Context`)")
                self.takes_context = True
                continue
            if p.name not in hints:
                raise TypeError(f"kernel {name}: parameter {p.name!r} has no annotation")
            expected, check = _reader(hints[p.name])
            parameters.append(Parameter(p.name, expected, check, p.default, p.kind is p.KEYWORD_ONLY))
        self.parameters = tuple(parameters)
        self._positional = tuple(p for p in parameters if not p.keyword_only)
        #: What a call may leave out, with the value that it then has.
        self.defaults = {p.name: p.default for p in parameters if not p.required}
        self._by_name = {p.name: p for p in parameters}

    def __str__(self) -> str:
        parts: list[str] = []
        for p in self.parameters:
            if p.keyword_only and "*" not in parts:
                parts.append("*")
            parts.append(str(p))
        return f"{self.name}({', '.join(parts)})"

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The call's arguments by name, checked and converted; parameters that the call leaves out are left out.

        Raises:
            BadArguments: too many, too few, an unknown name, or a value that does not fit.
            NotEnoughMemory: a value has to be copied, and there is no room for it.
        """
        if not kwargs and len(args) == len(self._positional) == len(self.parameters):
            # What is bound most of all, without a look at what may be missing.
            together: dict[str, int] = {}
            try:
                return {p.name: p.check(value, together) for p, value in zip(self._positional, args, strict=True)}
            except _MisfitError:
                pass  # said below, with the parameter's name
        if len(args) > len(self._positional):
            raise self._error(f"takes {len(self._positional)} positional arguments, {len(args)} were given")
        extents: dict[str, int] = {}
        bound: dict[str, Any] = {}
        for p, value in zip(self._positional, args, strict=False):
            bound[p.name] = self._read(p, value, extents)
        for name, value in kwargs.items():
            if name in bound:
                raise self._error(f"got {name!r} twice, by position and by name")
            known = self._by_name.get(name)
            if known is None:
                raise self._error(f"knows no argument {name!r}")
            bound[name] = self._read(known, value, extents)
        missing = [p.name for p in self.parameters if p.required and p.name not in bound]
        if missing:
            raise self._error(f"lacks {', '.join(missing)}")
        return bound

    def _read(self, parameter: Parameter, value: Any, extents: dict[str, int]) -> Any:
        try:
            return parameter.check(value, extents)
        except _MisfitError as misfit:
            raise self._error(f"argument {parameter.name!r} must be {parameter.expected}: {misfit}") from None

    def _error(self, what: str) -> BadArguments:
        return BadArguments(f"kernel {self.name} {what}. Expected: {self}")


def _reader(hint: Any) -> tuple[str, _Check]:
    """How a type reads, and the function that brings a value into it."""
    marks: tuple[Any, ...] = ()
    if typing.get_origin(hint) is typing.Annotated:
        hint, *rest = typing.get_args(hint)
        marks = tuple(rest)
    origin = typing.get_origin(hint)
    if hint is Any or hint is object:
        return "any value", lambda value, _: value
    if origin is np.ndarray or hint is np.ndarray:
        return _array(hint, marks)
    if origin is Literal:
        return _literal(typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        options = [a for a in typing.get_args(hint) if a is not type(None)]
        if len(options) == 1 and len(typing.get_args(hint)) == 2:
            expected, check = _reader(typing.Annotated[options[0], *marks] if marks else options[0])
            return f"{expected} or None", lambda value, extents: None if value is None else check(value, extents)
    if hint in (int, float):
        return _number(hint, next((m for m in marks if isinstance(m, Between)), Between()))
    if hint in (bool, str, bytes):
        return _plain(hint)
    raise TypeError(f"a kernel's parameter can't be annotated {hint!r}")


def _plain(kind: type) -> tuple[str, _Check]:
    accepted: tuple[type, ...] = {bool: (bool, np.bool_), bytes: (bytes, bytearray, memoryview)}.get(kind, (kind,))

    def check(value: Any, _: dict[str, int]) -> Any:
        if isinstance(value, accepted):
            return kind(value)
        raise _MisfitError(f"got {_describe(value)}")

    return kind.__name__, check


def _literal(options: tuple[Any, ...]) -> tuple[str, _Check]:
    def check(value: Any, _: dict[str, int]) -> Any:
        if any(type(value) is type(option) and value == option for option in options):
            return value
        raise _MisfitError(f"got {value!r}")

    return "one of " + ", ".join(map(repr, options)), check


def _number(kind: type, bounds: Between) -> tuple[str, _Check]:
    expected = kind.__name__
    if bounds.low > -math.inf and bounds.high < math.inf:
        expected += f" from {bounds.low:g} to {bounds.high:g}"
    elif bounds.low > -math.inf:
        expected += f" from {bounds.low:g}"
    elif bounds.high < math.inf:
        expected += f" up to {bounds.high:g}"
    low: Any = bounds.low
    high: Any = bounds.high
    whole = (int, np.integer)
    accepted = whole if kind is int else (*whole, float, np.floating)

    def check(value: Any, _: dict[str, int]) -> Any:
        if type(value) is kind and low <= value <= high:  # as nearly all come
            return value
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value[()]
        if isinstance(value, bool | np.bool_) or not isinstance(value, accepted):
            raise _MisfitError(f"got {_describe(value)}")
        try:
            number = kind(value)
        except OverflowError:
            raise _MisfitError("got a number that is too large") from None
        if not bounds.low <= number <= bounds.high:  # NaN fails here as well, unless nothing is bounded
            raise _MisfitError(f"got {number!r}")
        return number

    return expected, check


def _array(hint: Any, marks: tuple[Any, ...]) -> tuple[str, _Check]:
    dims = next((m for m in marks if isinstance(m, Dims)), None)
    finite = any(isinstance(m, Finite) for m in marks)
    dtype: np.dtype[Any] | None = None
    arguments = typing.get_args(hint)
    if arguments and typing.get_origin(arguments[1]) is np.dtype and isinstance(typing.get_args(arguments[1])[0], type):
        dtype = np.dtype(typing.get_args(arguments[1])[0])
    expected = "an array" if dtype is None else f"{dtype.name}"
    expected += f"[{', '.join(map(str, dims.names))}]" if dims else ""
    expected += " of finite values" if finite else ""

    def check(value: Any, extents: dict[str, int]) -> Any:
        value = _checked(value, dtype)
        if dims is not None:
            if value.ndim != len(dims.names):
                raise _MisfitError(f"got an array of {value.ndim} dimensions, shape {value.shape}")
            for name, extent in zip(dims.names, value.shape, strict=True):
                if extent == 0 and not dims.empty:
                    raise _MisfitError(f"got an empty array, shape {value.shape}")
                known = name if isinstance(name, int) else extents.setdefault(name, extent)
                if extent != known:
                    raise _MisfitError(f"got shape {value.shape}, where {name} is {known}")
        array = _native(value, dtype)
        if finite and array.dtype.kind in "fc" and not _all_finite(array):
            bad = np.argwhere(~np.isfinite(array))[0].tolist()
            raise _MisfitError(f"got {array[tuple(bad)]} at index {bad}")
        return array

    return expected, check


def _all_finite(array: np.ndarray[Any, Any]) -> bool:
    if array.size > _LARGE:
        # Whatever is not finite shows in the sum, which takes a third of the time and no memory.
        with np.errstate(all="ignore"):
            if np.isfinite(array.sum()):
                return True
    return bool(np.isfinite(array).all())


def _checked(value: Any, dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any]:
    """The value as an array that can be brought into `dtype` without loss."""
    if isinstance(value, bytes | bytearray | memoryview) and dtype == np.uint8:
        return np.frombuffer(value, np.uint8)
    if not isinstance(value, np.ndarray):
        if isinstance(value, str | bytes | Mapping):
            raise _MisfitError(f"got {_describe(value)}")
        try:
            value = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise _MisfitError(f"got {_describe(value)} ({error})") from None
        if value.size == 0 and dtype is not None:
            value = value.astype(dtype)  # an empty list says nothing of its type
    if value.dtype.hasobject:
        raise _MisfitError("got an array of Python objects")
    if dtype is not None and not np.can_cast(value.dtype, dtype, "same_kind" if value.dtype.kind == "f" else "safe"):
        raise _MisfitError(f"got dtype {value.dtype}, which does not convert without loss")
    return cast("np.ndarray[Any, Any]", value)


def _native(value: np.ndarray[Any, Any], dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any]:
    """Native, aligned, C-contiguous and of `dtype`; a copy only where the value is not that already.

    Raises:
        NotEnoughMemory: there is no room for the copy (an array that repeats itself by strides may be of any size).
    """
    wanted = dtype if dtype is not None else value.dtype.newbyteorder("=")
    if not (value.flags.c_contiguous and value.flags.aligned and value.dtype == wanted):
        memory.require(value.size * wanted.itemsize, f"an array of shape {value.shape}, as {wanted},")
        with np.errstate(over="ignore"):  # a double beyond single precision becomes infinity, which is looked for later
            return np.require(value, wanted, ["C_CONTIGUOUS", "ALIGNED"]).reshape(value.shape)
    return np.require(value, wanted, ["C_CONTIGUOUS", "ALIGNED"]).reshape(value.shape)


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    if isinstance(value, int | float | bool | str) and len(repr(value)) <= 40:
        return f"{type(value).__name__} {value!r}"
    return f"a value of type {type(value).__name__}"
