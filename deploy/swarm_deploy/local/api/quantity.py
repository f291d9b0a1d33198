"""Kubernetes' quantities: `100m` of a CPU, `20Mi` of memory; read exactly, and written as a real server writes them."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache

__all__ = ["canonical_quantity", "parse_quantity"]

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORM = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+|[numkMGTPE]|)$")


@lru_cache(maxsize=4096)
def parse_quantity(text: str | int | float) -> Decimal:
    """The amount.

    Raises:
        ValueError: it is not a quantity.
    """
    match = _FORM.match(str(text))
    if not match:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    number, suffix = match.groups()
    try:
        value = Decimal(number)
    except InvalidOperation:
        raise ValueError(f"unable to parse quantity's number {number!r}") from None
    if suffix in _BINARY:
        return value * Decimal(1024) ** _BINARY[suffix]
    if suffix in _DECIMAL:
        return value.scaleb(_DECIMAL[suffix])
    return value.scaleb(int(suffix[1:]))


@lru_cache(maxsize=4096)
def canonical_quantity(text: str | int | float) -> str:
    """The amount as a server stores it: no fraction, the largest suffix that keeps it exact, the family kept.

    Raises:
        ValueError: it is not a quantity.
    """
    value = parse_quantity(text)
    match = _FORM.match(str(text))
    assert match
    suffix = match.group(2)
    if value == 0:
        return "0"
    if suffix in _BINARY and abs(value) >= 1024 and value == int(value):
        units, power = int(value), 0
        while units % 1024 == 0 and power < 6:
            units, power = units // 1024, power + 1
        return f"{units}{['', *_BINARY][power]}"
    scientific = suffix[:1] in ("e", "E") and suffix not in _DECIMAL
    number, exponent = value, 0
    while number != int(number) and exponent > -9:
        number, exponent = number.scaleb(3), exponent - 3
    # What is finer than a nano is rounded up, as a request for something must not become a request for nothing.
    whole = int(number.to_integral_value(rounding="ROUND_UP"))
    while whole % 1000 == 0 and exponent < 18:
        whole, exponent = whole // 1000, exponent + 3
    if scientific:
        return f"{whole}e{exponent}" if exponent else str(whole)
    return f"{whole}{next(s for s, p in _DECIMAL.items() if p == exponent)}"
