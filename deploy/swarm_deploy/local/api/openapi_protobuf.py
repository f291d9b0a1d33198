"""OpenAPI v2 in the protobuf form of gnostic (`openapiv2/OpenAPIv2.proto`): the only one in which kubectl reads it.

A schema has some thirty fields, so they are written out here as a table rather than generated; nothing is decoded.
"""

from __future__ import annotations

import json
import struct
from typing import Any

__all__ = ["encode_v2"]

Object = dict[str, Any]


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _any(value: Any) -> bytes:
    """gnostic's Any: the value as YAML, of which JSON is a part."""
    return _text(2, json.dumps(value) + "\n")


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _bytes(2, value)


_STRINGS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13, "discriminator": 26}
_DOUBLES = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_INTEGERS = {
    "maxLength": 11,
    "minLength": 12,
    "maxItems": 14,
    "minItems": 15,
    "maxProperties": 17,
    "minProperties": 18,
}
_BOOLEANS = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16, "readOnly": 27}


def _schema(schema: Object) -> bytes:
    out = bytearray()
    for key, value in schema.items():
        if key in _STRINGS:
            out += _text(_STRINGS[key], str(value))
        elif key in _DOUBLES:
            out += _varint(_DOUBLES[key] << 3 | 1) + struct.pack("<d", float(value))
        elif key in _INTEGERS:
            out += _varint(_INTEGERS[key] << 3) + _varint(int(value))
        elif key in _BOOLEANS:
            out += _varint(_BOOLEANS[key] << 3) + _varint(bool(value))
        elif key == "default":
            out += _bytes(5, _any(value))
        elif key == "required":
            for name in value:
                out += _text(19, name)
        elif key == "enum":
            for item in value:
                out += _bytes(20, _any(item))
        elif key == "additionalProperties":
            inner = _bytes(1, _schema(value)) if isinstance(value, dict) else _varint(2 << 3) + _varint(bool(value))
            out += _bytes(21, inner)
        elif key == "type":
            out += _bytes(22, _text(1, value))
        elif key == "items":
            out += _bytes(23, _bytes(1, _schema(value)))
        elif key == "allOf":
            for inner_schema in value:
                out += _bytes(24, _schema(inner_schema))
        elif key == "properties":
            out += _bytes(25, b"".join(_bytes(1, _named(n, _schema(s))) for n, s in value.items()))
        elif key == "example":
            out += _bytes(30, _any(value))
        elif key.startswith("x-"):
            out += _bytes(31, _named(key, _any(value)))
    return bytes(out)


def encode_v2(document: Object) -> bytes:
    """A document of definitions, without paths."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    defined = b"".join(_bytes(1, _named(n, _schema(s))) for n, s in document["definitions"].items())
    return _text(1, document["swagger"]) + _bytes(2, info) + _bytes(8, b"") + _bytes(9, defined)
