"""What is said of a row's samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["quantile", "summary"]


def quantile(samples: Sequence[float], q: float) -> float:
    """The least sample that no less than a share `q` of them does not exceed (nearest rank: no interpolation).

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("no samples")
    return sorted(samples)[max(math.ceil(q * len(samples)), 1) - 1]


def summary(samples: Sequence[float]) -> dict[str, float]:
    """`p99`, `p50`, the worst, and how many there are. Below 100 samples the p99 is the worst."""
    return {
        "p99": quantile(samples, 0.99),
        "p50": quantile(samples, 0.5),
        "worst": max(samples),
        "samples": float(len(samples)),
    }
