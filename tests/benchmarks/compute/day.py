"""A day's mix: every shipped kernel that has several implementations, at small, middle and large sizes.

A kernel with a single implementation leaves nothing to choose, would cost both sides the same, and only bring the
ratios nearer to 1; hence none is here, and no other one is missing (a test holds that). A size is what its field
calls small or large: a request for one customer, a batch of a desk, the whole book. A size is called as often as it
is in use, small ones often and large ones rarely, and so that none decides the figure: in the order of a tenth of a
second to a second of the day each. That makes the learner's life harder than a real day, which has the same trials and
a thousand times the calls. No two calls of a size have the same length: up to a third shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["DAY", "Size", "made"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Size(NamedTuple):
    """A kernel at one size, and how often a day calls it."""

    kernel: str
    size: int
    calls: int


_SMALL, _MIDDLE, _LARGE = 1500, 300, 50

#: Small, middle and large: bytes, rows, options, paths, bodies, samples, packets…
_SIZES: dict[str, tuple[int, int, int]] = {
    "crypto.chacha20": (256, 65_536, 8_000_000),
    "data.group_by": (100, 10_000, 600_000),
    "data.hash_join": (100, 10_000, 300_000),
    "finance.black_scholes": (10, 2_000, 200_000),
    "finance.monte_carlo_path": (100, 2_000, 40_000),
    "finance.var_es": (250, 10_000, 1_000_000),
    "hash.sha256_tree": (1_000, 100_000, 8_000_000),
    "learning.dense": (1, 64, 4_000),
    "learning.kmeans_step": (100, 5_000, 200_000),
    "learning.logistic_gradient": (100, 5_000, 200_000),
    "media.dct8": (16, 256, 1_600),
    "media.fir_bank": (256, 8_000, 400_000),
    "media.window_stats": (200, 20_000, 1_500_000),
    "net.checksum": (10, 1_000, 60_000),
    "net.parse_headers": (10, 1_000, 60_000),
    "risk.backtest_window": (40, 120, 400),
    "risk.ewma_volatility": (250, 2_500, 100_000),
    "risk.filtered_historical": (60, 250, 1_000),
    "risk.garch_fit": (60, 250, 1_000),
    "risk.monte_carlo": (200, 5_000, 100_000),
    "science.convolve": (100, 5_000, 400_000),
    "science.heat2d": (16, 128, 700),
    "science.nbody": (10, 150, 1_500),
    "science.reduce": (1_000, 100_000, 8_000_000),
    "science.scan": (1_000, 100_000, 4_000_000),
    "science.spmv": (100, 5_000, 300_000),
    "vector.chain": (1_000, 100_000, 4_000_000),
    "vector.triad": (1_000, 100_000, 4_000_000),
}

#: What takes longer is called more rarely, in the same three steps.
_RARE = {"risk.backtest_window": 5, "risk.filtered_historical": 3, "risk.garch_fit": 3}

DAY: tuple[Size, ...] = tuple(
    Size(kernel, size, max(calls // _RARE.get(kernel, 1), 20))
    for kernel, sizes in _SIZES.items()
    for size, calls in zip(sizes, (_SMALL, _MIDDLE, _LARGE), strict=True)
)

_rng = np.random.default_rng(7)


def _packets(n: int) -> tuple[Any, Any]:
    """Ethernet, IPv4 and TCP, of 60 to 600 bytes."""
    lengths = _rng.integers(60, 600, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    packets = _rng.integers(0, 256, int(offsets[-1]), dtype=np.uint8)
    head = np.frombuffer(bytes(12) + b"\x08\x00\x45\x00", np.uint8)
    for at, length in zip(offsets[:-1], lengths, strict=True):
        packets[at : at + 16] = head
        packets[at + 16 : at + 18] = (int(length) - 14) // 256, (int(length) - 14) % 256
        packets[at + 20 : at + 24] = 0x40, 0, 64, 6
        packets[at + 46] = 0x50
    return packets, offsets


def _matrix(n: int) -> tuple[Any, ...]:
    """A sparse matrix of n rows with nine values each, near the diagonal, and a vector."""
    indices = (np.arange(n)[:, None] + _rng.integers(-50, 50, (n, 9))) % n
    return _rng.normal(size=9 * n), np.sort(indices, axis=1).ravel(), np.arange(0, 9 * n + 1, 9), _rng.normal(size=n)


def _bytes(n: int) -> Any:
    return _rng.integers(0, 256, n, dtype=np.uint8)


def _returns(days: int) -> tuple[Any, Any]:
    return _rng.standard_t(5, (days, 4)) * 0.01, np.full(4, 0.25)


def _taps(filters: int, width: int) -> Any:
    return _rng.normal(size=(filters, width))


_MAKE: dict[str, Callable[[int], tuple[Any, ...]]] = {
    "crypto.chacha20": lambda n: (_bytes(n), _bytes(32), _bytes(12)),
    "data.group_by": lambda n: (_rng.integers(0, 1 + n // 10, n), _rng.normal(size=n)),
    "data.hash_join": lambda n: (_rng.integers(0, n, n), _rng.permutation(n)),
    "finance.black_scholes": lambda n: tuple(
        _rng.uniform(a, b, n) for a, b in ((50, 150), (50, 150), (0.1, 3), (0.0, 0.1), (0.1, 0.6))
    ),
    "finance.monte_carlo_path": lambda n: (100.0, 100.0, 1.0, 0.03, 0.2),
    "finance.var_es": lambda n: (_rng.standard_t(5, n),),
    "hash.sha256_tree": lambda n: (_bytes(n),),
    "learning.dense": lambda n: tuple(
        _rng.normal(size=shape).astype(np.float32) for shape in ((n, 128), (128, 64), (64,))
    ),
    "learning.kmeans_step": lambda n: (_rng.normal(size=(n, 4)), _rng.normal(size=(8, 4))),
    "learning.logistic_gradient": lambda n: (
        _rng.normal(size=(n, 10)), _rng.integers(0, 2, n).astype(float), _rng.normal(size=10),
    ),
    "media.dct8": lambda n: (_rng.normal(size=(-(-n // 8) * 8, -(-n // 8) * 8)),),
    "media.fir_bank": lambda n: (_rng.normal(size=n), _taps(4, 32)),
    "media.window_stats": lambda n: (_rng.normal(size=n),),
    "net.checksum": _packets,
    "net.parse_headers": _packets,
    "risk.backtest_window": _returns,
    "risk.ewma_volatility": lambda n: (_returns(n)[0],),
    "risk.filtered_historical": _returns,
    "risk.garch_fit": lambda n: (_returns(n)[0][:, 0].copy(),),
    "risk.monte_carlo": lambda n: _returns(250),
    "science.convolve": lambda n: (_rng.normal(size=n), _rng.normal(size=max(n // 20, 3))),
    "science.heat2d": lambda n: (_rng.uniform(size=(n, n)),),
    "science.nbody": lambda n: (_rng.normal(size=(n, 3)), _rng.normal(size=(n, 3)), np.ones(n)),
    "science.reduce": lambda n: (_rng.normal(size=n),),
    "science.scan": lambda n: (_rng.normal(size=n),),
    "science.spmv": _matrix,
    "vector.chain": lambda n: (_rng.normal(size=n), _rng.normal(size=n)),
    "vector.triad": lambda n: (_rng.normal(size=n), _rng.normal(size=n), 1.5),
}  # fmt: skip

_OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "finance.monte_carlo_path": lambda n: {"paths": n, "steps": 50},
    "media.window_stats": lambda n: {"window": 50},
    "risk.backtest_window": lambda n: {"window": n // 2, "refit": 20, "model": "ewma"},
    "risk.filtered_historical": lambda n: {"model": "ewma"},
    "risk.monte_carlo": lambda n: {"paths": n},
    "science.heat2d": lambda n: {"steps": 10, "dt": 0.1},
    "science.nbody": lambda n: {"dt": 1e-3, "softening": 0.1},
    "vector.chain": lambda n: {"a": 1.5, "b": -0.5, "c": 0.25},
}


def made(size: Size, variants: int = 4) -> list[Arguments]:
    """The arguments of some calls of a size, which its calls take in turns."""
    lengths = [max(size.size - i * size.size // (3 * variants), 1) for i in range(variants)]
    return [(_MAKE[size.kernel](n), _OPTIONS.get(size.kernel, lambda n: {})(n)) for n in lengths]
