"""What a sensor says, and how far it can be trusted.

A source is *available*, *unavailable* (with the reason) or *estimated* (with the method); never a silent zero, because
a scheduler that takes an absent sensor for an idle machine sends it everything.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from msgspec import Struct

__all__ = ["Availability", "Reading", "Source", "unavailable"]


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
    #: What there is one of a core, disk, interface, …: by the metric's name, then by the label's value.
    series: dict[str, dict[str, float]] = {}


Source = Callable[[], Reading]


def unavailable(reason: str) -> Reading:
    return Reading(Availability.UNAVAILABLE, reason=reason)
