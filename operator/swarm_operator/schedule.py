"""Times at which the lower bound is raised: cron with a time zone. Pure; the clock is passed in.

cronsim reads and follows the expressions as Debian's cron does, with its rules for the hours that a change of the clock
skips or repeats. It is asked for the last beginning before a minute, which is remembered: the answer is the same for as
long as the minute lasts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from swarm_operator.api.fields import seconds
from swarm_operator.api.v1alpha1 import AutoscalingSchedule, SwarmSpec

__all__ = ["Raised", "problem_of", "raised", "schedule_problems"]


@dataclass(frozen=True)
class Raised:
    """What a schedule asks for now."""

    min: int
    #: For people.
    why: str


def problem_of(entry: AutoscalingSchedule) -> str:
    """What is wrong with an entry; empty: nothing. The API server can't tell."""
    if len(entry.cron.split()) != 5:
        return f"cron: {entry.cron!r} must have five fields: minute hour day-of-month month day-of-week"
    try:
        CronSim(entry.cron, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        return f"cron: {entry.cron!r} is no schedule ({error}); write for example '0 8 * * MON-FRI'"
    try:
        ZoneInfo(entry.time_zone)
    except (KeyError, ValueError, OSError):
        return f"timeZone: {entry.time_zone!r} is no time zone of the IANA database, such as Europe/Zurich"
    return ""


def schedule_problems(spec: SwarmSpec) -> list[tuple[str, str]]:
    """What is wrong with a spec's schedule, with the field that it is about."""
    wishes = spec.autoscaling
    if wishes is None:
        return []
    found = []
    for at, entry in enumerate(wishes.schedule):
        if problem := problem_of(entry):
            name, _, text = problem.partition(": ")
            found.append((f"spec.autoscaling.schedule[{at}].{name}", text))
        if spec.compute.max is not None and entry.min > spec.compute.max:
            text = f"{entry.min} is above compute.max ({spec.compute.max}): raise max or lower min"
            found.append((f"spec.autoscaling.schedule[{at}].min", text))
    return found


@lru_cache(maxsize=4096)
def _last_begin(cron: str, zone: str, minute: int) -> float | None:
    """The last time not after the end of this minute at which the schedule begins, in seconds since the epoch."""
    before = datetime.fromtimestamp((minute + 1) * 60, ZoneInfo(zone))
    found = next(CronSim(cron, before, reverse=True), None)
    return found.timestamp() if found else None


def raised(entries: Iterable[AutoscalingSchedule], now: float) -> Raised | None:
    """The highest lower bound that is scheduled for now (seconds since the epoch); None when nothing is."""
    found: Raised | None = None
    for entry in entries:
        begin = _last_begin(entry.cron, entry.time_zone, int(now // 60))
        if begin is None or not begin <= now < begin + seconds(entry.duration):
            continue
        if found is None or entry.min > found.min:
            found = Raised(entry.min, f"'{entry.cron}' {entry.time_zone} asks for {entry.min} for {entry.duration}")
    return found
