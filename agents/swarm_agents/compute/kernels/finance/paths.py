"""Options whose payoff depends on the path, by Monte Carlo: arithmetic Asian options and barrier options.

The price follows a geometric Brownian motion, watched at the ends of `steps` equal periods. Two ways to reduce the
variance are always in use (P. Glasserman, Monte Carlo Methods in Financial Engineering, 2004, sections 4.1 and 4.2):
each path has its antithetic one, with the signs of all its normal numbers changed, and each payoff a control whose
price is known in closed form: for the arithmetic average the geometric one (A. Kemna and A. Vorst, J. Banking and
Finance 14 (1990)), for a barrier option the plain European one. The control's factor is estimated from the same paths,
which leaves a bias of order 1/paths, far below the standard error.

A barrier that is watched continuously is moved towards the spot by exp(0.5826·σ·√Δt) and then watched at the periods'
ends, which leaves an error of order o(√Δt) (M. Broadie, P. Glasserman and S. Kou, A continuity correction for discrete
barrier options, Math. Finance 7 (1997)).

Pair i of a seed's sequence has normal numbers of its own: Philox 4x32-10 with the seed as its key and (pair, four
steps, kind) as its counter, then Box and Muller. So whoever computes it, by whichever implementation and on however
many threads, simulates the same path (floats differ in the last digits between implementations, and not at all between
numbers of threads). Chunk c of n paths holds the paths c·n to (c+1)·n − 1 (n even), and `merge` makes the figures of
all chunks together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.context import Context
from swarm_agents.compute.kernels.finance.closed import european, geometric_asian
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between
from swarm_agents.errors import BadArguments

__all__ = ["merge", "monte_carlo_path"]

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Kind = Literal["asian", "up-and-out", "up-and-in", "down-and-out", "down-and-in"]
Price = Annotated[float, Between(1e-9, 1e12)]
Rate = Annotated[float, Between(-1.0, 1.0)]

#: Pairs of a block, whose sums are made by themselves (that of `paths_jit`), and blocks between two looks at `ctx`:
#: fewer for long paths, so that it is looked at every 50 ms or so, but enough for several threads.
_BLOCK, _ROUND, _FEWEST, _LOOK = 256, 64, 4, 1 << 24
#: E[max of a Brownian bridge's overshoot]: -ζ(1/2)/√(2π), by Broadie, Glasserman and Kou.
_OVERSHOOT = 0.5825971579390107
_MASK = np.uint64(0xFFFFFFFF)


class _Terms(NamedTuple):
    """What one call's blocks need to know."""

    kind: str
    steps: int
    pairs: int
    first: int
    seed: int
    #: ln of the growth in a period, and the deviation of its logarithm.
    drift: float
    vol: float
    #: spot, strike, sign (1 call, -1 put), discount, vol, drift (of the mean for an Asian), the control's price; for a
    #: barrier: side (1 up, -1 down), the barrier as side·ln(barrier/spot), 1 if touching it ends the option.
    values: Floats

    @property
    def growth(self) -> Floats:
        """Deterministic growth of the price until the end of each period."""
        growth: Floats = np.exp(self.drift * np.arange(1, self.steps + 1))
        return growth

    @property
    def key(self) -> tuple[int, int]:
        """The seed as the key of the random numbers."""
        return self.seed & 0xFFFFFFFF, self.seed >> 32


def _terms(o: dict[str, Any]) -> _Terms:
    kind, steps, sigma, maturity = o["kind"], o["steps"], o["sigma"], o["maturity"]
    sign = 1.0 if o["option"] == "call" else -1.0
    market = o["spot"], o["strike"], maturity, o["rate"], sigma, o["dividend"], sign
    drift = (o["rate"] - o["dividend"] - 0.5 * sigma * sigma) * maturity / steps
    vol = sigma * math.sqrt(maturity / steps)
    values = [o["spot"], o["strike"], sign, math.exp(-o["rate"] * maturity), vol]
    if kind == "asian":
        if o["barrier"] is not None:
            raise BadArguments("kernel finance.monte_carlo_path: an Asian option has no barrier; leave it out")
        values += [drift * (steps + 1) / 2, geometric_asian(*market, steps)]
    else:
        side = 1.0 if kind.startswith("up") else -1.0
        if o["barrier"] is None or not side * (o["barrier"] - o["spot"]) > 0.0:
            where = "above" if side > 0 else "below"
            raise BadArguments(
                f"kernel finance.monte_carlo_path: an {kind} option needs a barrier {where} the spot {o['spot']:g}, "
                f"got {o['barrier']}"
            )
        level = side * math.log(o["barrier"] / o["spot"])
        if o["monitoring"] == "continuous":
            level = max(level - _OVERSHOOT * vol, 0.0)
        values += [drift, european(*market), side, level, float(kind.endswith("out"))]
    pairs = -(-o["paths"] // 2)
    return _Terms(kind, steps, pairs, o["chunk"] * pairs, o["seed"], drift, vol, np.array(values))


#: Fills the rows begin…end of the blocks' sums.
_Simulation = Callable[[_Terms, int, int, Floats], None]


def _by_numpy(terms: _Terms, begin: int, end: int, sums: Floats) -> None:
    lanes = terms.first + np.arange(begin * _BLOCK, min(end * _BLOCK, terms.pairs)).astype(np.uint64)
    y, c = (_asian if terms.kind == "asian" else _barrier)(terms, lanes)
    for block in range(begin, end):
        part = slice((block - begin) * _BLOCK, (block - begin + 1) * _BLOCK)
        a, b = y[part], c[part]
        sums[block] = a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()


def _asian(terms: _Terms, pairs: Words) -> tuple[Floats, Floats]:
    spot, strike, sign, discount, vol, mean_drift, shift = terms.values.tolist()
    growth = terms.growth
    w, total, plus, minus = np.zeros((4, len(pairs)))
    for t, z in enumerate(_normals(terms, pairs, 0)):
        w += z
        total += w
        plus += growth[t] * np.exp(vol * w)
        minus += growth[t] * np.exp(-vol * w)
    n = terms.steps
    payoff = np.maximum(sign * (spot * plus / n - strike), 0) + np.maximum(sign * (spot * minus / n - strike), 0)
    up = spot * np.exp(mean_drift + vol * total / n)
    down = spot * np.exp(mean_drift - vol * total / n)
    control = np.maximum(sign * (up - strike), 0) + np.maximum(sign * (down - strike), 0)
    return 0.5 * discount * payoff - shift, 0.5 * discount * control - shift


def _barrier(terms: _Terms, pairs: Words) -> tuple[Floats, Floats]:
    spot, strike, sign, discount, vol, drift, shift, side, level, dead = terms.values.tolist()
    w = np.zeros(len(pairs))
    one, other = np.full((2, len(pairs)), -np.inf)
    for t, z in enumerate(_normals(terms, pairs, 1)):
        w += z
        np.maximum(one, side * (drift * (t + 1) + vol * w), out=one)
        np.maximum(other, side * (drift * (t + 1) - vol * w), out=other)
    payoff, control = np.zeros((2, len(pairs)))
    for highest, move in ((one, w), (other, -w)):
        plain = np.maximum(sign * (spot * np.exp(drift * terms.steps + vol * move) - strike), 0)
        control += plain
        payoff += np.where((highest >= level) != bool(dead), plain, 0.0)
    return 0.5 * discount * payoff - shift, 0.5 * discount * control - shift


def _normals(terms: _Terms, pairs: Words, stream: int) -> Any:
    """The normal numbers of each step, one array after the other."""
    k0, k1 = terms.key
    for group in range((terms.steps + 3) // 4):
        a, b, c, d = _philox(pairs, group, stream, k0, k1)
        z = (*_box_muller(a, b), *_box_muller(c, d))
        yield from z[: terms.steps - 4 * group]


def _philox(pairs: Words, group: int, stream: int, k0: int, k1: int) -> tuple[Words, Words, Words, Words]:
    """Philox 4x32-10 (J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011)."""
    c0, c1 = pairs & _MASK, pairs >> np.uint64(32)
    c2, c3 = np.full_like(pairs, group), np.full_like(pairs, stream)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & _MASK
        c2, c3 = (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _box_muller(high: Words, low: Words) -> tuple[Floats, Floats]:
    """Two normal numbers of 64 bits: 36 for the radius (at most 7.2, beyond lies 10⁻¹²), 28 for the angle."""
    bits = (high << np.uint64(32)) | low
    radius = np.sqrt(-2.0 * np.log(((bits >> np.uint64(28)).astype(np.float64) + 0.5) * 2.0**-36))
    angle = 2.0 * np.pi * ((bits & np.uint64(0xFFFFFFF)).astype(np.float64) + 0.5) * 2.0**-28
    return radius * np.cos(angle), radius * np.sin(angle)


def _load() -> Any:
    from swarm_agents.compute.kernels.finance import paths_jit

    assert paths_jit.LANES == _BLOCK
    return paths_jit


def _compiled(terms: _Terms, begin: int, end: int, sums: Floats) -> None:
    jit = _load()
    key = tuple(map(np.uint64, terms.key))
    first = np.uint64(terms.first)
    if terms.kind == "asian":
        jit.asian(first, terms.pairs, begin, end, terms.steps, *key, terms.growth, terms.values, sums)
    else:
        jit.barrier(first, terms.pairs, begin, end, terms.steps, *key, terms.values, sums)


def _on_threads(terms: _Terms, begin: int, end: int, sums: Floats) -> None:
    ranges = team.pieces(end - begin)
    team.run(_compiled, [(terms, begin + a, begin + b, sums) for a, b in ranges])


def _simulate(simulation: _Simulation, o: dict[str, Any]) -> dict[str, Any]:
    ctx: Context = o["ctx"]
    terms = _terms(o)
    blocks = -(-terms.pairs // _BLOCK)
    done, moments = 0, np.zeros(5)
    match ctx.resume():
        case {"blocks": int() as done, "moments": np.ndarray() as kept}:
            moments = kept.copy()
    round_ = max(_FEWEST, min(_ROUND, _LOOK // (_BLOCK * terms.steps)))
    sums = np.empty((round_, 5))
    while done < blocks:
        now = min(round_, blocks - done)
        # A round's blocks are numbered from 0, its pairs from the round's first one on.
        part = terms._replace(first=_wrapped(terms.first + done * _BLOCK), pairs=terms.pairs - done * _BLOCK)
        simulation(part, 0, now, sums)
        for row in sums[:now]:
            moments += row  # in the order of the blocks, whoever computed them
        done += now
        ctx.keep({"blocks": done, "moments": moments})
    return _figures(terms.pairs, moments, float(terms.values[6])) | {"chunk": o["chunk"]}


def _wrapped(number: int) -> int:
    return number & 0xFFFFFFFFFFFFFFFF


def _spread(square: float, mean: float) -> float:
    """The variance of a mean square and a mean; what is within their rounding is none (payoffs that are all alike)."""
    variance = square - mean * mean
    return variance if variance > 1e-12 * square else 0.0


def _figures(pairs: int, moments: Floats, known: float) -> dict[str, Any]:
    """From the sums of y, c, y², c² and y·c over all pairs, where y and c are less by the control's known price."""
    y, c, yy, cc, yc = (moments / pairs).tolist()
    var_y, var_c = _spread(yy, y), _spread(cc, c)
    cov = yc - y * c if var_y and var_c else 0.0
    beta = cov / var_c if var_c else 0.0
    left = max(var_y - beta * cov, 0.0)
    fair = pairs - 2  # a mean and a factor were estimated
    return {
        "price": y - beta * c + known,
        "stderr": math.sqrt(left / fair),
        "plain": y + known,
        "plain_stderr": math.sqrt(var_y / fair),
        "beta": beta,
        "control": known,
        "paths": 2 * pairs,
        "moments": moments,
    }


def merge(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all chunks' paths together; the chunks must be of one option.

    Raises:
        ValueError: there is none, or their controls differ.
    """
    if not chunks or len({c["control"] for c in chunks}) > 1:
        raise ValueError("only chunks of one option can be merged, and at least one is needed")
    moments = np.sum([c["moments"] for c in chunks], axis=0)
    return _figures(sum(int(c["paths"]) for c in chunks) // 2, moments, float(chunks[0]["control"]))


@kernel("finance.monte_carlo_path")
def monte_carlo_path(
    spot: Price,
    strike: Price,
    maturity: Annotated[float, Between(1e-6, 100.0)],
    rate: Rate,
    sigma: Annotated[float, Between(1e-6, 5.0)],
    *,
    kind: Kind = "asian",
    option: Literal["call", "put"] = "call",
    barrier: Price | None = None,
    monitoring: Literal["discrete", "continuous"] = "discrete",
    dividend: Rate = 0.0,
    steps: Annotated[int, Between(1, 1_000_000)] = 252,
    paths: Annotated[int, Between(64, 1 << 31)] = 100_000,
    seed: Annotated[int, Between(0, 2**63 - 1)] = 0,
    chunk: Annotated[int, Between(0, 1 << 32)] = 0,
    ctx: Context,
) -> dict[str, Any]:
    """Prices an arithmetic Asian or a barrier option by Monte Carlo with antithetic paths and a control variate.

    The Asian option pays on the mean of the prices at the ends of the periods (the spot itself does not count). A
    barrier option without rebate is knocked in or out when the price is beyond the barrier at a period's end, or at
    any time (`monitoring`). An odd number of paths is raised by one, since they come in pairs.

    Returns `price` and its `stderr` (one standard error); `plain` and `plain_stderr` without the control variate; the
    `control`'s known price and its factor `beta`; `paths`, `chunk`, and the `moments` that `merge` works from.

    Raises:
        BadArguments: a barrier is missing, on the wrong side of the spot, or given for an Asian option.
        TaskCancelled: it was cancelled; looked at every 32,768 paths, more often for more than 1000 steps.
    """
    o: dict[str, Any] = {"spot": spot, "strike": strike, "maturity": maturity, "rate": rate, "sigma": sigma}
    o |= {"kind": kind, "option": option, "barrier": barrier, "monitoring": monitoring, "dividend": dividend}
    return _simulate(_by_numpy, o | {"steps": steps, "paths": paths, "seed": seed, "chunk": chunk, "ctx": ctx})


def _options(market: tuple[float, ...], options: dict[str, Any]) -> dict[str, Any]:
    names = ("spot", "strike", "maturity", "rate", "sigma")
    return monte_carlo_path.signature.defaults | options | dict(zip(names, market, strict=True))


@monte_carlo_path.work
def _(paths: int, steps: int, **_: Any) -> float:
    return paths * steps


@monte_carlo_path.implementation("numba_threads", parallel=True, warm=_load, tolerance=1e-7, default=False)
def _(spot: float, strike: float, maturity: float, rate: float, sigma: float, **options: Any) -> dict[str, Any]:
    return _simulate(_on_threads, _options((spot, strike, maturity, rate, sigma), options))


@monte_carlo_path.implementation("numba", warm=_load, tolerance=1e-7)
def _(spot: float, strike: float, maturity: float, rate: float, sigma: float, **options: Any) -> dict[str, Any]:
    return _simulate(_compiled, _options((spot, strike, maturity, rate, sigma), options))


@monte_carlo_path.samples
def _(rng: np.random.Generator) -> Call:
    kind = ("asian", "up-and-out", "up-and-in", "down-and-out", "down-and-in")[int(rng.integers(5))]
    spot = float(rng.uniform(80, 120))
    away = float(rng.uniform(1.05, 1.3))
    return call(
        spot,
        float(rng.uniform(80, 120)),
        float(rng.uniform(0.1, 2)),
        float(rng.uniform(0, 0.1)),
        float(rng.uniform(0.1, 0.5)),
        kind=kind,
        option=("call", "put")[int(rng.integers(2))],
        barrier=None if kind == "asian" else spot * away if kind.startswith("up") else spot / away,
        monitoring=("discrete", "continuous")[int(rng.integers(2))],
        dividend=float(rng.uniform(0, 0.05)),
        steps=int(rng.integers(1, 30)),
        paths=int(rng.integers(500, 3000)),
        seed=int(rng.integers(1 << 62)),
        chunk=int(rng.integers(1 << 20)),
    )
