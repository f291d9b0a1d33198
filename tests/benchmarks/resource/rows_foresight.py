"""The rows of foresight: forecasts against the last value, foretold failures against thresholds, and false alarms."""

from __future__ import annotations

import json
from pathlib import Path

from harness import Better, Measure, Row

__all__ = ["rows"]

HERE = Path(__file__).resolve().parent
_SERIES = ("busy", "memory_used", "load1", "running", "switches", "disk_busy", "iowait", "steal", "network")


def rows(minutes: float) -> tuple[Row, ...]:
    """All rows; the live run without a fault lasts `minutes`."""
    here = HERE / "ours_foresight.py"
    crowd = Measure(
        here, "crowded", "false_alarms_per_hour", json.dumps({"minutes": minutes}), limit=60 * minutes + 400, rounds=1
    )

    def once(function: str, key: str, limit: float = 300) -> Measure:
        return Measure(here, function, key, limit=limit, rounds=1)  # of recorded data: it is the same each time

    return (
        Row(
            "forecast_vs_last_value",
            "mean absolute error 10 s ahead on the second half of the recorded load, geometric mean over its series, "
            "as a share of the last value's",
            "of the error",
            Better.LESS,
            once("forecasts", "ours"),
            once("forecasts", "last"),
            1.25,
            also=(*(f"{name}_10s" for name in _SERIES), "all_1s", "all_60s", "within_interval_10s", "core_share"),
        ),
        Row(
            "failure_f1_vs_threshold",
            "F1 on replayed faults and healthy lives, held-out seeds: against thresholds on memory, heat and "
            "heartbeat's age, the best on the training seeds",
            "F1",
            Better.MORE,
            once("faults", "f1"),
            once("faults", "f1_thresholds"),
            1.3,
            also=(
                "threshold",
                "precision",
                "recall",
                "lead_s",
                "false_per_hour",
                "precision_thresholds",
                "recall_thresholds",
                "lead_s_thresholds",
                "f1_thresholds_on_all",
                "lead_s_thresholds_on_all",
                "f1_at_90",
                "brier",
            ),
        ),
        Row(
            "false_alarms_per_hour",
            f"agents predicted to fail (50 % or more) who did not, in {minutes:g} minutes of twice as many busy "
            "processes as cores beside working agents (no peer: the goal bounds the figure)",
            "alarms/h",
            Better.SHARE,
            crowd,
            None,
            0,
            also=("alarms", "greatest_probability", "minutes", "tasks"),
        ),
    )
