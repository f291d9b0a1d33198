"""What both sides of a row compute: the same lengths, the same market, the same function of a call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "CALLS", "CHAIN", "MARKET", "PATHS", "SIDE", "STEPS", "last_level_cache", "millisecond", "stream_length",
]  # fmt: skip

#: Values of the fused chain's arrays, rows and columns of the product's factors.
CHAIN, SIDE = 10_000_000, 1500
#: Spot, strike, maturity, rate, sigma of the Asian call.
MARKET = (100.0, 100.0, 1.0, 0.05, 0.2)
PATHS, STEPS = 20_000, 252
#: Of `Swarm.map`'s row.
CALLS = 10_000


def last_level_cache() -> int:
    """Bytes of the largest cache of a core, 32 MiB where the machine does not say."""
    sizes = []
    for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = size.read_text().strip()
        sizes.append(int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0))
    return max(sizes, default=32 << 20)


def stream_length() -> int:
    """Values of each of the triad's three arrays: four times the last cache, as STREAM has it, unless the three would
    take more than half of the memory that is free."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    return min(4 * last_level_cache(), free // 6) // 8


_GRID = np.linspace(0.1, 3.0, 48_000)


def millisecond(x: float) -> float:
    """About a millisecond of NumPy: what a user would hand to a pool without much thought."""
    values: Any = np.sin(_GRID * (1.0 + x % 7))
    return float(np.sqrt(values * values + 1.0).sum())
