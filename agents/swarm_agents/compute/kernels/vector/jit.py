"""The compiled loops of the vector kernels; imports Numba.

Streaming stores: neither LLVM's vectoriser nor gcc's makes them of a plain loop, so that each block of eight values is
loaded, computed and stored here as one vector, with LLVM's `!nontemporal` on the store. On AVX-512 that is one
instruction, on AVX2 two, on NEON pairs; where a CPU has none, LLVM makes plain stores of it. Such a store needs an
aligned address: single values come first until the answer's address is a multiple of 64. It is not ordered with others:
a full fence at the end makes the values seen by whoever is told that they are there.

Multiplication and addition are not fused, so that answers equal NumPy's to the last bit. Explicit signatures: importing
the module compiles it, or loads it from the cache. Arguments may be read-only, since they often lie in shared memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import boolean, float64, int64, njit, types
from numba.core import cgutils
from numba.core.extending import intrinsic

__all__ = ["chain", "triad"]

#: Values of a block, and its bytes: a cache line.
_WIDTH, _LINE = 8, 64
_vector = types.Array(float64, 1, "C", readonly=True)
_BLOCK = ir.VectorType(ir.DoubleType(), _WIDTH)


def _read(builder: Any, address: Any) -> Any:
    return builder.load(builder.inttoptr(address, _BLOCK.as_pointer()), align=8)


def _stream(builder: Any, value: Any, address: Any) -> None:
    store = builder.store(value, builder.inttoptr(address, _BLOCK.as_pointer()), align=_LINE)
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


def _spread(builder: Any, value: Any) -> Any:
    """The same number in all lanes."""
    one = builder.insert_element(ir.Constant(_BLOCK, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), _WIDTH), [0] * _WIDTH)
    return builder.shuffle_vector(one, ir.Constant(_BLOCK, ir.Undefined), mask)


@intrinsic
def _triad_block(typingctx, out, b, c, s):  # type: ignore[no-untyped-def]
    """A line of the triad at these addresses, the first a multiple of 64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        to, left, right, factor = args
        product = builder.fmul(_spread(builder, factor), _read(builder, right))
        _stream(builder, builder.fadd(_read(builder, left), product), to)
        return context.get_dummy_value()

    return types.void(int64, int64, int64, float64), codegen


@intrinsic
def _chain_block(typingctx, out, x, y, a, b, c):  # type: ignore[no-untyped-def]
    """A line of the chain at these addresses, the first a multiple of 64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        to, left, right, *factors = args
        a, b, c = (_spread(builder, factor) for factor in factors)
        total = builder.fadd(builder.fmul(a, _read(builder, left)), _read(builder, right))
        last = builder.fsub(builder.fmul(total, b), c)
        absolute = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(_BLOCK, [_BLOCK]), f"llvm.fabs.v{_WIDTH}f64"
        )
        _stream(builder, builder.call(absolute, [last]), to)
        return context.get_dummy_value()

    return types.void(int64, int64, int64, float64, float64, float64), codegen


@intrinsic
def _fence(typingctx):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@njit(inline="always")
def _lines(out, streamed, begin, end):  # type: ignore[no-untyped-def]
    """Where whole lines of `out` begin and end between these; nowhere unless they are to be streamed."""
    if not streamed:
        return end, end
    ahead = (-(out.ctypes.data + 8 * begin)) % _LINE // 8
    first = min(begin + ahead, end)
    return first, first + (end - first) // _WIDTH * _WIDTH


@njit(types.void(float64[::1], _vector, _vector, float64, boolean, int64, int64), cache=True, nogil=True)
def triad(out, b, c, s, streamed, begin, end):  # type: ignore[no-untyped-def]
    """out[begin:end] = b + s·c there; past the caches if `streamed`."""
    first, last = _lines(out, streamed, begin, end)
    for i in range(begin, first):
        out[i] = b[i] + s * c[i]
    to, left, right = out.ctypes.data, b.ctypes.data, c.ctypes.data
    for at in range(8 * first, 8 * last, _LINE):
        _triad_block(to + at, left + at, right + at, s)  # type: ignore[call-arg]
    for i in range(last, end):
        out[i] = b[i] + s * c[i]
    if streamed:
        _fence()  # type: ignore[call-arg]


@njit(
    types.void(float64[::1], _vector, _vector, float64, float64, float64, boolean, int64, int64),
    cache=True,
    nogil=True,
)
def chain(out, x, y, a, b, c, streamed, begin, end):  # type: ignore[no-untyped-def]
    """out[begin:end] = |(a·x + y)·b − c| there; past the caches if `streamed`."""
    first, last = _lines(out, streamed, begin, end)
    for i in range(begin, first):
        out[i] = np.abs((a * x[i] + y[i]) * b - c)
    to, left, right = out.ctypes.data, x.ctypes.data, y.ctypes.data
    for at in range(8 * first, 8 * last, _LINE):
        _chain_block(to + at, left + at, right + at, a, b, c)  # type: ignore[call-arg]
    for i in range(last, end):
        out[i] = np.abs((a * x[i] + y[i]) * b - c)
    if streamed:
        _fence()  # type: ignore[call-arg]
