# mypy: disable-error-code="untyped-decorator,no-untyped-call"
"""The interpreter's C interface for compiled code: Numba intrinsics that call its functions, with addresses as words.

The symbols are found in the process, where the interpreter has them. Whoever calls one holds the GIL. `cpython` is the
face of this module.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "byte",
    "clear_error",
    "get_buffer",
    "incref",
    "new_bytes",
    "new_int",
    "release_buffer",
    "stack_words",
    "vectorcall",
]

#: The words of a Py_buffer.
BUFFER_WORDS = 10
_I64 = ir.IntType(64)


def _external(name: str, arguments: int) -> Any:
    """A function of the interpreter's C interface, of words."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        kind = ir.FunctionType(_I64, [_I64] * arguments)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return types.int64(*(types.int64,) * arguments), codegen


@intrinsic
def new_bytes(typingctx: Any, address: Any, length: Any) -> Any:
    """A new bytes object of what is at an address; 0, and an exception is set, if there is no memory."""
    return _external("PyBytes_FromStringAndSize", 2)


@intrinsic
def new_int(typingctx: Any, value: Any) -> Any:
    """A new int."""
    return _external("PyLong_FromLongLong", 1)


@intrinsic
def vectorcall(typingctx: Any, function: Any, arguments: Any, count: Any, names: Any) -> Any:
    return _external("PyObject_Vectorcall", 4)


@intrinsic
def get_buffer(typingctx: Any, thing: Any, view: Any, flags: Any) -> Any:
    kind = ir.FunctionType(ir.IntType(32), [_I64, _I64, ir.IntType(32)])

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        function = cgutils.get_or_insert_function(builder.module, kind, "PyObject_GetBuffer")
        got = builder.call(function, [args[0], args[1], builder.trunc(args[2], ir.IntType(32))])
        return builder.sext(got, _I64)

    return types.int64(types.int64, types.int64, types.int64), codegen


def _without_answer(name: str, arguments: int) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        kind = ir.FunctionType(ir.VoidType(), [_I64] * arguments)
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * arguments), codegen


@intrinsic
def incref(typingctx: Any, thing: Any) -> Any:
    return _without_answer("Py_IncRef", 1)


@intrinsic
def release_buffer(typingctx: Any, view: Any) -> Any:
    """Gives back what `get_buffer` got."""
    return _without_answer("PyBuffer_Release", 1)


@intrinsic
def clear_error(typingctx: Any) -> Any:
    return _without_answer("PyErr_Clear", 0)


@intrinsic
def byte(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.zext(builder.load(builder.inttoptr(args[0], ir.IntType(8).as_pointer())), _I64)

    return types.int64(types.int64), codegen


@intrinsic
def stack_words(typingctx: Any) -> Any:
    """The address of `BUFFER_WORDS` words that live until the function returns that this is written in."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.ptrtoint(cgutils.alloca_once(builder, ir.ArrayType(_I64, BUFFER_WORDS)), _I64)

    return types.int64(), codegen
