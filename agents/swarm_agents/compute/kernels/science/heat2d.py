"""Heat on a plane: ∂u/∂t = α·(∂²u/∂x² + ∂²u/∂y²) on a square grid, by the five-point formula, forward in time.

The explicit scheme (FTCS; see K. Morton and D. Mayers, Numerical Solution of Partial Differential Equations, 2nd ed.
2005, section 3.1) is stable for α·Δt/Δx² ≤ ¼ only, which is checked; its error is of order Δt + Δx².

Step by step a large grid passes through the caches once a step. The blocked implementation takes a tile that fits a
core's second-level cache, with as many cells around it as steps are done at once, does these steps on it, and keeps the
part that is right by then (overlapped time tiling: S. Krishnamoorthy et al., Effective automatic parallelization of
stencil computations, PLDI 2007). It computes a sixth more, and reads and writes memory a `_DEPTH`th as often. All
implementations do the same operations in the same order on each cell: their results are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.context import Context
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between, Dims, Finite
from swarm_agents.errors import BadArguments

__all__ = ["heat2d"]

Floats = NDArray[np.float64]
#: Steps that are done at once, and the tile that keeps what they make: its two buffers take 350 KB.
_DEPTH, _ROWS, _COLUMNS = 8, 64, 256

#: (u, rate, steps, periodic) → u after so many steps, in an array of its own.
_Advance = Callable[[Floats, float, int, bool], Floats]


def _advance(u: Floats, rate: float, steps: int, periodic: bool) -> Floats:
    for _ in range(steps):
        p = np.pad(u, 1, "wrap") if periodic else u
        middle = p[1:-1, 1:-1]
        new = middle + rate * (p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4.0 * middle)
        if periodic:
            u = new
        else:
            u = u.copy()
            u[1:-1, 1:-1] = new
    return u


def _load() -> Any:
    from swarm_agents.compute.kernels.science import heat_jit

    return heat_jit


def _compiled(u: Floats, rate: float, steps: int, periodic: bool) -> Floats:
    jit = _load()
    if periodic:
        a = np.pad(u, 1, "wrap")
        b = np.empty_like(a)
        for _ in range(steps):
            a[0], a[-1] = a[-2], a[1]
            a[:, 0], a[:, -1] = a[:, -2], a[:, 1]
            jit.step(a.ravel(), b.ravel(), rate, *a.shape)
            a, b = b, a
        return np.ascontiguousarray(a[1:-1, 1:-1])
    a, b = u.copy(), u.copy()
    for _ in range(steps):
        jit.step(a.ravel(), b.ravel(), rate, *a.shape)
        a, b = b, a
    return a


def _tiles(shape: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    return [
        (y, min(y + _ROWS, shape[0]), x, min(x + _COLUMNS, shape[1]))
        for y in range(0, shape[0], _ROWS)
        for x in range(0, shape[1], _COLUMNS)
    ]


def _blocked(u: Floats, rate: float, steps: int, periodic: bool, threads: bool = False) -> Floats:
    jit = _load()
    # A periodic field has its other side around it, so that tiles at its edge find their neighbours.
    around = steps if periodic else 0
    a = np.pad(u, around, "wrap") if periodic else u
    b = np.empty_like(u)
    call = a.ravel(), *a.shape, b.ravel(), b.shape[1], rate, steps, around
    work = [(*call, *tile) for tile in _tiles(u.shape)]
    if threads:
        team.run(jit.tile, work)
    else:
        for arguments in work:
            jit.tile(*arguments)
    return b


def _on_threads(u: Floats, rate: float, steps: int, periodic: bool) -> Floats:
    return _blocked(u, rate, steps, periodic, threads=True)


@np.errstate(all="ignore")
def _simulate(advance: _Advance, o: dict[str, Any]) -> Floats:
    ctx: Context = o["ctx"]
    steps, dt, dx, diffusivity = o["steps"], o["dt"], o["dx"], o["diffusivity"]
    rate = diffusivity * dt / (dx * dx)
    if not rate <= 0.25:
        raise BadArguments(
            f"kernel science.heat2d: with diffusivity {diffusivity:g} and dx {dx:g} the scheme is stable up to dt "
            f"{0.25 * dx * dx / diffusivity:.6g}, got {dt:g}: take a smaller dt and more steps"
        )
    u: Floats = o["field"]
    first = 0
    match ctx.resume():
        case {"step": int() as first, "u": np.ndarray() as u}:
            pass
    periodic = o["boundary"] == "periodic"
    while first < steps:
        now = min(_DEPTH, steps - first)
        u = advance(u, rate, now, periodic)
        first += now
        ctx.keep({"step": first, "u": u})
    return u.copy() if u is o["field"] or not u.flags.owndata else u


@kernel("science.heat2d")
def heat2d(
    field: Annotated[NDArray[np.float64], Dims("rows", "columns"), Finite()],
    *,
    steps: Annotated[int, Between(0, 1_000_000_000)],
    dt: Annotated[float, Between(0.0, 1e100)],
    dx: Annotated[float, Between(1e-100, 1e100)] = 1.0,
    diffusivity: Annotated[float, Between(0.0, 1e100)] = 1.0,
    boundary: Literal["fixed", "periodic"] = "fixed",
    ctx: Context,
) -> Floats:
    """Lets heat spread over a grid for `steps` steps of `dt`; returns the field afterwards, [rows, columns].

    Any units that agree (diffusivity in area a unit of time, dx the distance of neighbours in both directions). A fixed
    boundary keeps the outermost cells as they are; a periodic one joins opposite edges.

    Raises:
        BadArguments: the scheme is not stable: diffusivity·dt/dx² is above ¼. The message says the largest dt.
        TaskCancelled: it was cancelled; looked at every 8 steps.
    """
    o: dict[str, Any] = {"field": field, "steps": steps, "dt": dt, "dx": dx, "diffusivity": diffusivity}
    return _simulate(_advance, o | {"boundary": boundary, "ctx": ctx})


@heat2d.memory
def _(field: Floats, **_: Any) -> float:
    return 8.0 * 7 * (len(field) + 2 * _DEPTH) * (len(field.T) + 2 * _DEPTH) + (1 << 20)


def _options(field: Floats, options: dict[str, Any]) -> dict[str, Any]:
    return heat2d.signature.defaults | options | {"field": field}


@heat2d.work
def _(field: Floats, steps: int, **_: Any) -> float:
    return field.size * (steps + 1)


@heat2d.implementation("numba_threads", parallel=True, warm=_load, default=False)
def _(field: Floats, **options: Any) -> Floats:
    return _simulate(_on_threads, _options(field, options))


@heat2d.implementation("numba", warm=_load, default=False)
def _(field: Floats, **options: Any) -> Floats:
    return _simulate(_compiled, _options(field, options))


@heat2d.implementation("numba_blocked", warm=_load)
def _(field: Floats, **options: Any) -> Floats:
    return _simulate(_blocked, _options(field, options))


@heat2d.samples
def _(rng: np.random.Generator) -> Call:
    shape = int(rng.integers(1, 150)), int(rng.integers(1, 300))
    return call(
        rng.normal(0, 1, shape),
        steps=int(rng.integers(0, 20)),
        dt=float(rng.uniform(0.01, 0.25)),
        boundary=("fixed", "periodic")[int(rng.integers(2))],
    )
