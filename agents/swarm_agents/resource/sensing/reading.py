"""What a sensor says, and how far it can be trusted.

A source is *available*, *unavailable* (with the reason) or *estimated* (with the method); never a silent zero, because
a scheduler that takes an absent sensor for an idle machine sends it everything.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

__all__ = ["Availability", "Lazy", "Reading", "Series", "Source", "unavailable"]

#: What there is one of a core, disk, interface, …: by the metric's name, then by the label's value.
Series = Mapping[str, Mapping[str, float]]


class Availability(enum.StrEnum):
    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"
    ESTIMATED = "estimated"


class Reading(Struct, frozen=True):
    """One sensor's values, by the name of the metric without `swarm_node_`; base units."""

    availability: Availability
    values: dict[str, float] = {}
    #: Why it is unavailable, or how it is estimated.
    reason: str = ""
    series: Series = {}


class Lazy(Mapping[str, Mapping[str, float]]):
    """Series that are made when somebody looks at them, which few of the readings are; `make` holds the figures."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Series]) -> None:
        self._make = make
        self._made: Series | None = None

    def _series(self) -> Series:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, name: str) -> Mapping[str, float]:
        return self._series()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._series())

    def __len__(self) -> int:
        return len(self._series())

    def __repr__(self) -> str:
        return repr(self._series())


Source = Callable[[], Reading]


def unavailable(reason: str) -> Reading:
    return Reading(Availability.UNAVAILABLE, reason=reason)
