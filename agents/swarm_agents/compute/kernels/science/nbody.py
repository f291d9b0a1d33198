"""Bodies that attract each other by gravity: direct summation over all pairs, leapfrog in time.

Gravity is softened after H. Plummer: the potential of two bodies at distance r is −G·m₁·m₂/√(r² + ε²). Time goes by
the kick-drift-kick form of the leapfrog (velocity Verlet: L. Verlet, Phys. Rev. 159 (1967); for N bodies: S. Aarseth,
Gravitational N-Body Simulations, 2003; R. Hockney and J. Eastwood, Computer Simulation Using Particles, 1988), which is
symplectic, so that the energy's error stays bounded, and of second order in the time step.

Bodies in one place exert no force upon each other, softened or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.context import Context
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between, Dims, Finite
from swarm_agents.errors import BadArguments

__all__ = ["nbody"]

Floats = NDArray[np.float64]
Vectors = Annotated[NDArray[np.float64], Dims("n", 3), Finite()]
Masses = Annotated[NDArray[np.float64], Dims("n"), Finite()]
#: Bodies that are worth a thread of their own.
_LEAST = 64
#: Pairs between two looks at whether the task is still wanted: some 20 ms.
_LOOK = 1 << 24


class _Gravity(NamedTuple):
    """How forces and the potential energy are computed; positions are [3, n], the square of the softening is given."""

    #: Fills accelerations [3, n] of the bodies begin…end, without the factor G.
    accelerate: Callable[[Floats, Floats, float, Floats, int, int], object]
    #: Potential energy without the factor G.
    potential: Callable[[Floats, Floats, float], float]


def _accelerate(x: Floats, mass: Floats, soft: float, out: Floats, begin: int, end: int) -> None:
    for i in range(begin, end):
        d = x - x[:, i : i + 1]
        square = (d * d).sum(axis=0) + soft
        weight = np.where(square > 0.0, mass / (square * np.sqrt(square)), 0.0)
        out[:, i] = (d * weight).sum(axis=1)


def _potential(x: Floats, mass: Floats, soft: float) -> float:
    total = 0.0
    for i in range(1, x.shape[1]):
        d = x[:, :i] - x[:, i : i + 1]
        square = (d * d).sum(axis=0) + soft
        total -= float(mass[i] * np.where(square > 0.0, mass[:i] / np.sqrt(square), 0.0).sum())
    return total


@np.errstate(all="ignore")
def _simulate(gravity: _Gravity, o: dict[str, Any]) -> dict[str, Any]:
    ctx: Context = o["ctx"]
    mass, dt, steps, factor = o["masses"], o["dt"], o["steps"], o["gravity"]
    soft = o["softening"] ** 2
    if (mass < 0.0).any():
        raise BadArguments(f"kernel science.nbody: masses must be 0 or above, got {mass.min()}")
    # Always copies: of a single body the transposed array is contiguous as it is, and the caller's own.
    x, v = (np.array(o[name].T, order="C") for name in ("positions", "velocities"))
    before = _energy(gravity, x, v, mass, soft, factor)
    first = 0
    match ctx.resume():
        case {"step": int() as first, "x": np.ndarray() as kept_x, "v": np.ndarray() as kept_v}:
            x, v = kept_x.copy(), kept_v.copy()
    a = np.empty_like(x)
    rows = max(1, _LOOK // max(len(mass), 1))

    def accelerate() -> None:
        for begin in range(0, len(mass), rows):
            ctx.check()
            gravity.accelerate(x, mass, soft, a, begin, min(begin + rows, len(mass)))

    accelerate()
    kick = 0.5 * dt * factor
    for step in range(first, steps):
        v += kick * a
        x += dt * v
        accelerate()
        v += kick * a
        ctx.keep({"step": step + 1, "x": x, "v": v})
    after = _energy(gravity, x, v, mass, soft, factor)
    allowed = o["energy_tolerance"]
    if allowed is not None and not abs(after - before) <= allowed * abs(before):
        raise ValueError(
            f"the energy went from {before:.9g} to {after:.9g}, more than the tolerance of {allowed:g} allows: "
            "take a smaller dt or a larger softening"
        )
    return {
        "positions": np.ascontiguousarray(x.T),
        "velocities": np.ascontiguousarray(v.T),
        "energy": np.array([before, after]),
    }


def _energy(gravity: _Gravity, x: Floats, v: Floats, mass: Floats, soft: float, factor: float) -> float:
    kinetic = 0.5 * float((mass * (v * v).sum(axis=0)).sum())
    return kinetic + factor * gravity.potential(x, mass, soft)


@kernel("science.nbody")
def nbody(
    positions: Vectors,
    velocities: Vectors,
    masses: Masses,
    *,
    dt: Annotated[float, Between(-1e12, 1e12)],
    steps: Annotated[int, Between(0, 100_000_000)] = 1,
    softening: Annotated[float, Between(0.0, 1e100)] = 0.0,
    gravity: Annotated[float, Between(0.0, 1e100)] = 1.0,
    energy_tolerance: Annotated[float, Between(0.0, 1e6)] | None = None,
    ctx: Context,
) -> dict[str, Any]:
    """Moves n bodies under their own gravity by `steps` leapfrog steps of `dt`; O(n²) a step.

    Any units that agree: with `gravity` 6.6743e-11 m³/(kg·s²) metres, kilograms and seconds. Returns `positions` and
    `velocities` [n, 3], and `energy`: the total before and after. A negative dt goes back in time. Where numbers leave
    the range of doubles the result has infinities or NaN.

    Raises:
        BadArguments: a mass is below 0.
        ValueError: the energy changed by more than the share `energy_tolerance`.
        TaskCancelled: it was cancelled; looked at every 2²⁴ pairs.
    """
    o: dict[str, Any] = {"positions": positions, "velocities": velocities, "masses": masses, "dt": dt, "steps": steps}
    o |= {"softening": softening, "gravity": gravity, "energy_tolerance": energy_tolerance, "ctx": ctx}
    return _simulate(_Gravity(_accelerate, _potential), o)


@nbody.memory
def _(masses: Floats, **_: Any) -> float:
    return 8.0 * 40 * len(masses)


def _load() -> Any:
    from swarm_agents.compute.kernels.science import nbody_jit

    return nbody_jit


def _on_threads(x: Floats, mass: Floats, soft: float, out: Floats, begin: int, end: int) -> None:
    pieces = team.pieces(end - begin, _LEAST)
    team.run(_load().accelerate, [(x, mass, soft, out, begin + a, begin + b) for a, b in pieces])


def _compiled_potential(x: Floats, mass: Floats, soft: float) -> float:
    return float(_load().potential(x, mass, soft))


def _options(positions: Floats, velocities: Floats, masses: Floats, options: dict[str, Any]) -> dict[str, Any]:
    arrays = {"positions": positions, "velocities": velocities, "masses": masses}
    return nbody.signature.defaults | options | arrays


@nbody.work
def _(masses: Floats, steps: int, **_: Any) -> float:
    return float(len(masses)) ** 2 * (steps + 1)


@nbody.implementation("numba_threads", parallel=True, warm=_load, tolerance=1e-8, default=False)
def _(positions: Floats, velocities: Floats, masses: Floats, **options: Any) -> dict[str, Any]:
    o = _options(positions, velocities, masses, options)
    return _simulate(_Gravity(_on_threads, _compiled_potential), o)


@nbody.implementation("numba", warm=_load, tolerance=1e-8)
def _(positions: Floats, velocities: Floats, masses: Floats, **options: Any) -> dict[str, Any]:
    o = _options(positions, velocities, masses, options)
    return _simulate(_Gravity(_load().accelerate, _compiled_potential), o)


@nbody.samples
def _(rng: np.random.Generator) -> Call:
    n = int(rng.integers(1, 60))
    return call(
        rng.normal(0, 1, (n, 3)),
        rng.normal(0, 0.3, (n, 3)),
        rng.uniform(0.1, 1, n),
        dt=float(rng.uniform(0.001, 0.01)),
        steps=int(rng.integers(0, 5)),
        softening=float(rng.uniform(0.1, 0.3)),
    )
