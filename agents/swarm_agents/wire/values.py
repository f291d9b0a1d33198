"""Values as JSON, for the REST interface: what JSON lacks is said by small objects.

    array    {"dtype": "<f8", "shape": [2, 3], "data": "<base64 of the bytes, C order>"}
    bytes    {"bytes": "<base64>"}
    complex  {"complex": [re, im]}

Numbers, strings, booleans, null, lists and objects are themselves. A plain list stays a list; kernels turn it into an
array where their signature asks for one. JSON has no NaN: a NaN or an infinity outside an array comes out as null.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import numpy as np

from swarm_agents.errors import PayloadError

__all__ = ["from_json", "to_json"]

_ARRAY = frozenset(("dtype", "shape", "data"))


def to_json(value: Any) -> Any:
    """A value of the codec as what `msgspec.json` can encode.

    Raises:
        PayloadError: it holds something that has no form in JSON.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case np.ndarray():
            if value.dtype.hasobject:
                raise PayloadError(f"an array of dtype {value.dtype} has no form in JSON")
            dtype = value.dtype.descr if value.dtype.names else value.dtype.str
            return {"dtype": dtype, "shape": value.shape, "data": _base64(np.ascontiguousarray(value).tobytes())}
        case np.generic():
            item = value.item()
            return to_json(item) if not isinstance(item, np.generic) else to_json(np.asarray(value))
        case float():
            return value if math.isfinite(value) else None
        case complex():
            return {"complex": [value.real, value.imag]}
        case bytes() | bytearray() | memoryview():
            return {"bytes": _base64(bytes(value))}
        case dict():
            return {str(key): to_json(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [to_json(item) for item in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise PayloadError(f"a value of type {type(value).__qualname__} has no form in JSON")


def from_json(value: Any) -> Any:
    """The value that decoded JSON stands for.

    Raises:
        PayloadError: an array's object is wrong in itself.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == _ARRAY:
        return _array(value)
    if value.keys() == {"bytes"} and isinstance(value["bytes"], str):
        return _bytes(value["bytes"])
    if value.keys() == {"complex"}:
        match value["complex"]:
            case [int() | float() as real, int() | float() as imag]:
                return complex(real, imag)
        raise PayloadError(f"complex={value['complex']!r}: expected [re, im]")
    return {key: from_json(item) for key, item in value.items()}


def _array(fields: dict[str, Any]) -> np.ndarray[Any, Any]:
    shape, data = fields["shape"], fields["data"]
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise PayloadError(f"shape={shape!r}: expected a list of lengths")
    try:
        descr = fields["dtype"]
        dtype = np.dtype([_field(f) for f in descr] if isinstance(descr, list) else descr)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise PayloadError(f"dtype={fields['dtype']!r}: {error}; expected a NumPy dtype such as '<f8'") from error
    if dtype.hasobject:
        raise PayloadError(f"dtype={dtype}: an array of Python objects can't travel")
    if isinstance(data, list):
        try:
            return np.array(data, dtype=dtype).reshape(shape)
        except (TypeError, ValueError, OverflowError) as error:
            raise PayloadError(f"data does not fit dtype {dtype} and shape {shape}: {error}") from error
    if not isinstance(data, str):
        raise PayloadError("data: expected base64 of the array's bytes, or a list of numbers")
    raw = _bytes(data)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise PayloadError(f"data has {len(raw)} bytes, dtype {dtype} and shape {shape} need {math.prod(shape)} items")
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def _field(field: Any) -> tuple[Any, ...]:
    name, kind, *shape = field
    kind = [_field(f) for f in kind] if isinstance(kind, list) else kind
    return (name, kind, *(tuple(s) if isinstance(s, list) else s for s in shape))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PayloadError(f"a base64 text can't be read: {error}") from error
