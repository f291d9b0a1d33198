"""How values travel: a msgpack header, and beside it the arrays as plain buffers that nothing copies.

The same encoding serves shared memory (buffers are blocks of the arena) and the wire (buffers are ZeroMQ frames).
Scalars, strings, bytes, lists, tuples, maps and dates of msgpack travel in the header; each NumPy array leaves a
descriptor (buffer's index, dtype, shape) there. Never pickle: a peer must not be able to make an agent run code.
An array that lies in memory which the reader sees too need not become a buffer: `share` puts something in its place,
and who decodes finds a `Described` there. The header does not tell one from the other.

Rejected: one contiguous message (would copy every array once more), and Arrow (its dtypes lose structured records).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from swarm_agents.errors import PayloadError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Described", "decode", "dtype_of", "encode"]

_ARRAY, _SCALAR, _COMPLEX = 1, 2, 3
_plain = msgspec.msgpack.Encoder()


class Described:
    """In the place of a buffer: an array that lies elsewhere."""

    __slots__ = ()

    def array(self, dtype: np.dtype[Any], shape: Sequence[int]) -> np.ndarray[Any, Any]:
        """The array, read-only.

        Raises:
            PayloadError: there is no such array.
        """
        raise NotImplementedError


def encode(value: Any, share: Callable[[np.ndarray[Any, Any]], Any | None] | None = None) -> tuple[bytes, list[Any]]:
    """Splits a value into a header and the C-contiguous arrays that it refers to, in order.

    Arrays that are contiguous already are passed on, not copied; one for which `share` knows something else than None
    is replaced by that.

    Raises:
        PayloadError: a type without encoding, or an array whose dtype holds Python objects.
    """
    import numpy as np

    arrays: list[Any] = []

    def pack(item: Any) -> msgspec.msgpack.Ext:
        if isinstance(item, np.ndarray):
            if item.dtype.hasobject:
                raise PayloadError(
                    f"an array of dtype {item.dtype} can't travel: it holds Python objects; "
                    "convert it to a numeric, string (U, S) or structured dtype"
                )
            shared = share(item) if share is not None else None
            arrays.append(np.ascontiguousarray(item).reshape(item.shape) if shared is None else shared)
            descr: Any = item.dtype.descr if item.dtype.names else item.dtype.str
            return msgspec.msgpack.Ext(_ARRAY, _plain.encode((len(arrays) - 1, descr, item.shape)))
        if isinstance(item, np.generic):
            if item.dtype.hasobject or item.dtype.names:
                raise PayloadError(f"a scalar of dtype {item.dtype} can't travel: pass it as a 0-d array")
            return msgspec.msgpack.Ext(_SCALAR, _plain.encode((item.dtype.str, item.tobytes())))
        if isinstance(item, complex):
            return msgspec.msgpack.Ext(_COMPLEX, _plain.encode((item.real, item.imag)))
        raise PayloadError(
            f"a value of type {type(item).__module__}.{type(item).__qualname__} can't travel: "
            "use numbers, strings, bytes, lists, maps or NumPy arrays"
        )

    try:
        return msgspec.msgpack.encode(value, enc_hook=pack), arrays
    except PayloadError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadError(f"a value can't travel: {error}") from error


def decode(header: bytes | memoryview, buffers: Sequence[Any] = ()) -> Any:
    """The value that `encode` split; its arrays are read-only views of the buffers.

    Raises:
        PayloadError: the header is torn, or refers to a buffer that is missing or has another size.
    """
    import numpy as np

    def unpack(code: int, data: memoryview) -> Any:
        if code == _ARRAY:
            index, descr, shape = msgspec.msgpack.decode(data)
            dtype = dtype_of(descr)
            count = 1
            for extent in shape:
                if not isinstance(extent, int) or extent < 0:
                    raise PayloadError(f"refused an array of shape {shape}")
                count *= extent
            if not 0 <= index < len(buffers):
                raise PayloadError(f"the header refers to buffer {index} of {len(buffers)}")
            if isinstance(buffers[index], Described):
                return buffers[index].array(dtype, shape)
            raw = memoryview(buffers[index]).cast("B") if count * dtype.itemsize else memoryview(b"")
            if raw.nbytes != count * dtype.itemsize:
                raise PayloadError(f"buffer {index} has {raw.nbytes} bytes, the header says {count * dtype.itemsize}")
            array = np.frombuffer(raw, dtype=dtype).reshape(shape) if raw.nbytes else np.empty(shape, dtype)
            array.flags.writeable = False
            return array
        if code == _SCALAR:
            descr, raw_bytes = msgspec.msgpack.decode(data)
            return np.frombuffer(raw_bytes, dtype=np.dtype(descr))[0]
        if code == _COMPLEX:
            return complex(*msgspec.msgpack.decode(data))
        raise PayloadError(f"the header has an extension of unknown code {code}")

    try:
        return msgspec.msgpack.decode(header, ext_hook=unpack)
    except PayloadError:
        raise
    except Exception as error:  # whatever a torn header provokes in NumPy or msgpack is one thing to the caller
        raise PayloadError(f"a payload can't be read: {error}") from error


def dtype_of(descr: Any) -> np.dtype[Any]:
    """The dtype that a header or a descriptor names.

    Raises:
        PayloadError: it holds Python objects.
    """
    import numpy as np

    dtype: np.dtype[Any] = np.dtype([_field(f) for f in descr] if isinstance(descr, list) else descr)
    if dtype.hasobject:
        raise PayloadError(f"refused an array of dtype {dtype}: it would hold Python objects")
    return dtype


def _field(field: Any) -> tuple[Any, ...]:
    """A structured dtype's field as NumPy wants it: msgpack has turned its tuples into lists."""
    name, kind, *shape = field
    name = tuple(name) if isinstance(name, list) else name  # a title and a name
    kind = [_field(f) for f in kind] if isinstance(kind, list) else kind
    return (name, kind, *(tuple(s) if isinstance(s, list) else s for s in shape))
