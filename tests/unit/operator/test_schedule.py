"""When a schedule raises the lower bound: cron, time zones and what is refused."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from support.operatorkit import make_spec
from swarm_operator.accept import INVALID, refusals
from swarm_operator.api.v1alpha1 import AutoscalingSchedule
from swarm_operator.schedule import problem_of, raised

ZURICH = "Europe/Zurich"


def entry(
    cron: str = "0 8 * * MON-FRI", minimum: int = 5, duration: str = "1h", zone: str = ZURICH
) -> AutoscalingSchedule:
    return AutoscalingSchedule(cron=cron, time_zone=zone, duration=duration, min=minimum)


def at(text: str, zone: str = ZURICH) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-11-23T07:59:59.999", None),
        ("2026-11-23T08:00:00", 5),
        ("2026-11-23T08:59:59.9", 5),
        ("2026-11-23T09:00:00", None),
        ("2026-11-22T08:30:00", None),  # a Sunday
        ("2026-07-01T08:30:00", 5),  # summer time
    ],
)
def test_it_lasts_from_its_minute_for_its_duration_in_its_time_zone(when: str, expected: int | None) -> None:
    found = raised([entry()], at(when))
    assert (found.min if found else None) == expected


def test_the_highest_of_those_that_hold_counts_and_says_which_it_is() -> None:
    found = raised([entry(), entry("30 8 * * *", 9, "10m"), entry("0 9 * * *", 50)], at("2026-11-23T08:35"))
    assert found is not None
    assert found.min == 9
    assert "30 8 * * *" in found.why
    assert ZURICH in found.why


def test_one_that_is_longer_than_its_distance_holds_always() -> None:
    every = entry("*/5 * * * *", 3, "6m", "Etc/UTC")
    assert all(raised([every], at("2026-02-28T23:50", "Etc/UTC") + 47.0 * step) for step in range(40))


def test_an_hour_that_the_clock_skips_is_not_missed() -> None:
    # on 29 March 2026 the clock in Zurich goes from 2 to 3
    assert raised([entry("30 2 * * *")], at("2026-03-29T03:10"))
    assert raised([entry("30 2 * * *")], at("2026-03-29T04:20")) is None


def test_a_day_that_never_comes_or_seldom_is_no_trouble() -> None:
    assert raised([entry("0 0 29 2 *")], at("2026-11-23T08:00")) is None
    assert raised([entry("0 0 29 2 *", 4)], at("2028-02-29T00:30"))


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        (entry("0 8 * * * *"), "cron", "five fields"),
        (entry("@daily 1 2"), "cron", "five fields"),
        (entry("61 8 * * *"), "cron", "Bad minute"),
        (entry("0 8 31 2 *"), "cron", "Bad day-of-month"),
        (entry("* * * * FUNDAY"), "cron", "Bad day-of-week"),
        (entry(zone="Mars/Olympus"), "timeZone", "IANA"),
        (entry(zone="../../etc/passwd"), "timeZone", "IANA"),
        (entry(zone="/etc/passwd"), "timeZone", "IANA"),
        (entry(zone="Europe"), "timeZone", "IANA"),
        (entry(zone=""), "timeZone", "IANA"),
    ],
)
def test_what_can_not_be_read_is_refused_by_its_field(wrong: AutoscalingSchedule, field: str, says: str) -> None:
    assert problem_of(wrong).startswith(f"{field}: ")
    assert says in problem_of(wrong)


def test_a_spec_with_a_schedule_that_can_not_work_is_refused_and_says_where() -> None:
    schedule = [
        {"cron": "0 8 * * *", "min": 2},
        {"cron": "0 25 * * *", "min": 2},
        {"cron": "0 8 * * *", "min": 9},
    ]
    spec = make_spec(compute={"min": 1, "max": 4}, autoscaling={"schedule": schedule})
    found = {refusal.field: refusal for refusal in refusals(spec)}
    assert set(found) == {"spec.autoscaling.schedule[1].cron", "spec.autoscaling.schedule[2].min"}
    assert all(refusal.reason == INVALID for refusal in found.values())
    assert "raise max or lower min" in found["spec.autoscaling.schedule[2].min"].message
