"""The atomics as the simulator compiles them: the product's own, each counted before it is made; time and futexes are
the simulator's. See `control`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from simulation import control
from swarm_agents.shm import lowering

__all__ = ["INSTRUMENTS", "mutant"]

_I64 = ir.IntType(64)


def _control(index: int) -> ir.Value:
    return ir.Constant(_I64, control.ADDRESS + 8 * index).inttoptr(_I64.as_pointer())


def _call_hook(context: Any, builder: ir.IRBuilder, kind: int, *args: ir.Value) -> None:
    hook = builder.load(_control(control.HOOK))
    function = builder.inttoptr(hook, ir.FunctionType(_I64, [_I64] * 4).as_pointer())
    padded = [ir.Constant(_I64, kind), *args, *[ir.Constant(_I64, 0)] * (3 - len(args))]
    verdict = builder.call(function, padded)
    for value, error in ((1, control.Stopped), (2, control.Parked)):
        with builder.if_then(builder.icmp_signed("==", verdict, ir.Constant(_I64, value)), likely=False):
            context.call_conv.return_user_exc(builder, error, ())


def _tick(context: Any, builder: ir.IRBuilder) -> None:
    left = builder.sub(builder.load(_control(control.BUDGET)), ir.Constant(_I64, 1))
    builder.store(left, _control(control.BUDGET))
    with builder.if_then(builder.icmp_signed("==", left, ir.Constant(_I64, 0)), likely=False):
        _call_hook(context, builder, control.TICK)


def _counted(original: Any, arguments: int) -> Any:
    """The same operation, counted first."""

    def typer(typingctx: Any, *args: Any) -> Any:
        signature, make = original._defn(typingctx, *args)

        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
            _tick(context, builder)
            return make(context, builder, sig, values)

        return signature, codegen

    names = "abc"[:arguments]
    space: dict[str, Any] = {"typer": typer}
    exec(f"def typed(typingctx, {', '.join(names)}): return typer(typingctx, {', '.join(names)})", space)
    return intrinsic(space["typed"])


@intrinsic
def monotonic_ns(typingctx: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load(_control(control.NOW))

    return types.int64(), codegen


@intrinsic
def futex_wait(typingctx: Any, address: Any, expected: Any, timeout_ns: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _call_hook(context, builder, control.WAIT, *args)
        return ir.Constant(_I64, 0)

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def futex_wake(typingctx: Any, address: Any, count: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _tick(context, builder)
        _call_hook(context, builder, control.WAKE, *args)
        return ir.Constant(_I64, 0)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def mutant(typingctx: Any, number: Any) -> Any:
    """Whether the planted fault of this number is on: how `mutants` edits the protocol. Never in the product."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.icmp_signed("==", builder.load(_control(control.MUTANT)), args[0])

    return types.boolean(types.int64), codegen


#: What replaces the attributes of `swarm_agents.shm.atomics`.
INSTRUMENTS: dict[str, Any] = {
    "monotonic_ns": monotonic_ns,
    "futex_wait": futex_wait,
    "futex_wake": futex_wake,
    **{
        name: _counted(getattr(lowering, name), arguments)
        for name, arguments in (
            ("load", 1),
            ("store", 2),
            ("cas", 3),
            ("add", 2),
            ("or_", 2),
            ("xand", 2),
            ("swap", 2),
            ("copy", 3),
        )
    },
}
