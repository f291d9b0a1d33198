"""The discrete cosine transform of 8x8 blocks of an image, as JPEG, MPEG and H.26x take it; and its inverse.

DCT-II in both directions of each block, scaled to be orthonormal, so that the inverse is the transpose and energy is
kept: `scipy.fft.dctn(block, norm="ortho")`. Sources: N. Ahmed, T. Natarajan and K. Rao, Discrete cosine transform, IEEE
Trans. Computers 23 (1974); for the compiled form the split into even and odd halves, which needs half of the 64
multiplications of a row: W. Chen, C. Smith and S. Fralick, A fast computational algorithm for the DCT, IEEE Trans.
Communications 25 (1977).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims, Finite
from swarm_agents.errors import BadArguments

__all__ = ["BASIS", "dct8"]

Floats = NDArray[np.float64]


def _basis() -> Floats:
    """Row u holds c(u)·cos((2x + 1)·u·π/16) for x = 0…7: orthonormal."""
    u, x = np.mgrid[:8, :8]
    basis = 0.5 * np.cos((2 * x + 1) * u * np.pi / 16)
    basis[0] *= np.sqrt(0.5)
    return np.ascontiguousarray(basis)


BASIS: Floats = _basis()


def _check(image: Floats) -> None:
    if image.shape[0] % 8 or image.shape[1] % 8:
        raise BadArguments(
            f"kernel media.dct8 argument 'image' must have a height and width in multiples of 8: got {image.shape}; "
            "repeat its last row and column, as JPEG does"
        )


@kernel("media.dct8")
def dct8(image: Annotated[Floats, Dims("height", "width"), Finite()], *, inverse: bool = False) -> Floats:
    """The orthonormal DCT-II of each 8x8 block, float64 [height, width]; with `inverse`, the block of the coefficients.

    Coefficient (u, v) of a block lies where the block's pixel (u, v) was: (0, 0) is 8 times its mean. Pixels
    beyond 1e307 give infinities or NaN.

    Raises:
        BadArguments: the height or the width is no multiple of 8.
    """
    _check(image)
    height, width = image.shape
    blocks = image.reshape(height // 8, 8, width // 8, 8).transpose(0, 2, 1, 3)
    matrix = BASIS.T if inverse else BASIS
    with np.errstate(over="ignore", invalid="ignore"):
        turned = matrix @ blocks @ matrix.T
    return np.ascontiguousarray(turned.transpose(0, 2, 1, 3)).reshape(height, width)


@dct8.memory
def _(image: Any, **_: Any) -> float:
    return float(24.0 * image.size)


@dct8.samples
def _(rng: np.random.Generator) -> Call:
    height, width = (8 * int(k) for k in rng.integers(1, 12, 2))
    return call(rng.normal(0, 50, (height, width)), inverse=bool(rng.integers(2)))


@dct8.implementation("threads", parallel=True, tolerance=1e-12, default=False)
def _(image: Floats, inverse: bool = False) -> Floats:
    from swarm_agents.compute.kernels.media import jit

    _check(image)
    out = np.empty_like(image)

    def part(begin: int, end: int) -> None:
        jit.dct8(image[8 * begin : 8 * end], BASIS, inverse, out[8 * begin : 8 * end])

    team.run(part, team.pieces(image.shape[0] // 8, least=1 + (1 << 13) // image.shape[1]))
    return out


@dct8.implementation("numba", tolerance=1e-12)
def _(image: Floats, inverse: bool = False) -> Floats:
    from swarm_agents.compute.kernels.media import jit

    _check(image)
    out = np.empty_like(image)
    jit.dct8(image, BASIS, inverse, out)
    return out
