"""Kubernetes quantities as whole numbers: thousandths of a CPU, and units of everything else.

Requests are rounded up and what a node offers is rounded down by the same function's `up`, so that what fits by these
numbers fits by the scheduler's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

__all__ = ["amount", "amounts"]

_SUFFIX: Final = {
    **{s: Decimal(10) ** e for s, e in (("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9))},
    **{s: Decimal(10) ** e for s, e in (("T", 12), ("P", 15), ("E", 18))},
    **{s: Decimal(1024) ** e for s, e in (("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4), ("Pi", 5), ("Ei", 6))},
}
_QUANTITY: Final = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,3})|([numkMGTPE]|[KMGTPE]i)?)")


def amount(resource: str, text: str | int, *, up: bool = True) -> int:
    """One quantity; thousandths for `cpu`. What is no quantity counts as 0: the API server has let it pass, not we."""
    match = _QUANTITY.fullmatch(str(text))
    if not match:
        return 0
    number, exponent, suffix = match.groups()
    value = Decimal(number) * (Decimal(10) ** int(exponent) if exponent else _SUFFIX[suffix or ""])
    if resource == "cpu":
        value *= 1000
    return int(value.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))


def amounts(resources: Mapping[str, str | int], *, up: bool = True) -> dict[str, int]:
    """All quantities of a list of resources."""
    return {name: amount(name, text, up=up) for name, text in resources.items()}
