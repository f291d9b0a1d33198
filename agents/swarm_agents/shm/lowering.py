# mypy: disable-error-code="untyped-decorator,no-untyped-call"
"""How atomics, the futex and the clock become machine code: LLVM instructions by Numba intrinsics.

`atomics` is the face of this module. Rejected: inline assembly (it aborts in Numba's JIT; the spin hint is an LLVM
intrinsic, chosen by architecture), ctypes for the system calls (a function that holds a ctypes pointer can't be
cached): `syscall` and `clock_gettime` are external symbols, which the loader finds in the C library.
"""

from __future__ import annotations

import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

if sys.byteorder != "little":
    raise ImportError("swarm_agents.shm needs a little-endian machine: the futex looks at a word's first four bytes")

_MACHINE = platform.machine()
if _MACHINE not in ("x86_64", "aarch64"):
    raise ImportError(f"swarm_agents.shm runs on x86_64 and aarch64, this machine is {_MACHINE}")
#: The number of the futex system call, by architecture.
SYS_FUTEX = {"x86_64": 202, "aarch64": 98}
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_CLOCK_MONOTONIC = 1

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_Codegen = Any


def _word(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, _I64.as_pointer())


@intrinsic
def load(typingctx: Any, address: Any) -> Any:
    """The word at an address, with acquire order."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load_atomic(_word(builder, args[0]), ordering="acquire", align=8, typ=_I64)

    return types.int64(types.int64), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Stores a word, with release order."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.store_atomic(args[1], _word(builder, args[0]), ordering="release", align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def peek(typingctx: Any, address: Any) -> Any:
    """The word at an address, plainly: for memory that nobody else writes now."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load(_word(builder, args[0]), align=8, typ=_I64)

    return types.int64(types.int64), codegen


@intrinsic
def poke(typingctx: Any, address: Any, value: Any) -> Any:
    """Stores a word plainly: for memory that nobody else reads or writes now."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.store(args[1], _word(builder, args[0]), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def cas(typingctx: Any, address: Any, expected: Any, desired: Any) -> Any:
    """Compare and swap: whether the word was `expected` and now is `desired`."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        pair = builder.cmpxchg(_word(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


def _rmw(operation: str) -> Any:
    def typer(typingctx: Any, address: Any, operand: Any) -> Any:
        def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            return builder.atomic_rmw(operation, _word(builder, args[0]), args[1], "seq_cst")

        return types.int64(types.int64, types.int64), codegen

    return intrinsic(typer)


#: Fetch and add: the word before.
add = _rmw("add")
#: Fetch and or: the word before.
or_ = _rmw("or")
#: Fetch and and: the word before.
xand = _rmw("and")
#: Exchange: the word before.
swap = _rmw("xchg")


@intrinsic
def fence(typingctx: Any) -> Any:
    """A full fence: what came before is seen by everybody before what comes after."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def pause(typingctx: Any) -> Any:
    """Tells the core that it spins, so that it saves power and yields to its sibling thread."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        emit_pause(builder, _MACHINE)
        return context.get_dummy_value()

    return types.void(), codegen


def emit_pause(builder: ir.IRBuilder, machine: str) -> None:
    """Emits the spin hint of an architecture: PAUSE on x86-64, YIELD (hint 1) on aarch64."""
    void = ir.VoidType()
    if machine == "x86_64":
        kind, name, args = ir.FunctionType(void, []), "llvm.x86.sse2.pause", []
    else:
        kind, name, args = ir.FunctionType(void, [_I32]), "llvm.aarch64.hint", [ir.Constant(_I32, 1)]
    builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@intrinsic
def prefetch_write(typingctx: Any, address: Any) -> Any:
    """Asks for the line at an address, which is to be written soon: PREFETCHW on x86-64, PRFM on aarch64."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        pointer = _I8.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        write, keep, data = (ir.Constant(_I32, value) for value in (1, 3, 1))
        builder.call(function, [builder.inttoptr(args[0], pointer), write, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def ctz(typingctx: Any, value: Any) -> Any:
    """How many zeros a word ends with: 64 for zero."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


@intrinsic
def clz(typingctx: Any, value: Any) -> Any:
    """How many zeros a word begins with: 64 for zero."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


@intrinsic
def popcount(typingctx: Any, value: Any) -> Any:
    """How many bits of a word are set."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.ctpop(args[0])

    return types.int64(types.int64), codegen


@intrinsic
def copy(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Copies `count` bytes from one address to another; they must not overlap."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        pointer = _I8.as_pointer()
        cgutils.raw_memcpy(builder, builder.inttoptr(args[0], pointer), builder.inttoptr(args[1], pointer), args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _system_call(builder: ir.IRBuilder, number: int, *args: ir.Value) -> ir.Value:
    """Everything is passed as 64-bit integers: what the C library's `syscall` reads on both machines."""
    kind = ir.FunctionType(_I64, [_I64] * 7)
    function = cgutils.get_or_insert_function(builder.module, kind, "syscall")
    none = ir.Constant(_I64, 0)
    return builder.call(function, [ir.Constant(_I64, number), *args, *[none] * (6 - len(args))])


@intrinsic
def futex_wait(typingctx: Any, address: Any, expected: Any, timeout_ns: Any) -> Any:
    """FUTEX_WAIT with its timespec on the stack, which Numba's language has no word for."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        spec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
        billion = ir.Constant(_I64, 1_000_000_000)
        zero, one = ir.Constant(_I32, 0), ir.Constant(_I32, 1)
        builder.store(builder.sdiv(args[2], billion), builder.gep(spec, [zero, zero]))
        builder.store(builder.srem(args[2], billion), builder.gep(spec, [zero, one]))
        wait = ir.Constant(_I64, _FUTEX_WAIT)
        return _system_call(builder, SYS_FUTEX[_MACHINE], args[0], wait, args[1], builder.ptrtoint(spec, _I64))

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def futex_wake(typingctx: Any, address: Any, count: Any) -> Any:
    """FUTEX_WAKE."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return _system_call(builder, SYS_FUTEX[_MACHINE], args[0], ir.Constant(_I64, _FUTEX_WAKE), args[1])

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def monotonic_ns(typingctx: Any) -> Any:
    """CLOCK_MONOTONIC in nanoseconds: one clock for all processes of a machine, that nobody sets."""

    def codegen(context: _Codegen, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        spec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
        zero, one = ir.Constant(_I32, 0), ir.Constant(_I32, 1)
        kind = ir.FunctionType(_I32, [_I32, spec.type])
        clock = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(clock, [ir.Constant(_I32, _CLOCK_MONOTONIC), spec])
        seconds = builder.load(builder.gep(spec, [zero, zero]))
        nanos = builder.load(builder.gep(spec, [zero, one]))
        return builder.add(builder.mul(seconds, ir.Constant(_I64, 1_000_000_000)), nanos)

    return types.int64(), codegen
