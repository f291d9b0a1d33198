"""Elementary functions and random numbers for compiled kernels, written so that loops over them become vector code.

Calls of the C library's `exp`, `log` or `cos` keep a loop scalar (Numba's wheels carry no vector mathematics), and so
do branches. These are straight lines of arithmetic that LLVM widens to the registers there are; each is a function of
scalars that is inlined into the caller's loop. Imports Numba; compiled with the kernels that use them.

Sources: argument reduction and polynomials of `log`, `sin` and `cos` after Sun's fdlibm (e_log.c, k_sin.c, k_cos.c; the
constants are those of its comments); `exp` by the same reduction and the Taylor series to degree 13 on |r| ≤ ln 2 / 2;
the normal distribution function by J. Hart's rational approximation as given in G. West, Better approximations to
cumulative normal functions, Wilmott (2005); random numbers are Philox 4x32-10 of J. Salmon, M. Moraes, R. Dror and
D. Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011), made normal by Box and Muller (1958).

Errors against NumPy's functions, measured by a test: below 4e-16 relative for `exp` and `log`, 3e-16 absolute for the
sine and cosine, 2e-15 absolute for the normal distribution function.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["cosine_sine", "exp_both", "exponential", "logarithm", "normal_cdf", "normals", "philox", "widest"]

_LOG2E = 1.4426950408889634
# ln 2 in two parts; the first has 21 zero bits at its end, so that k·_LN2_HI is exact
_LN2_HI = 6.93147180369123816490e-01
_LN2_LO = 1.90821492927058770002e-10
#: Arguments of `exp` beyond this are taken for this: its result stays finite and above 0.
LIMIT = 700.0

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
# Philox 4x32's multipliers and the increments of its key (Salmon et al. 2011, table 2)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@njit(forceinline=True)
def exp_both(x):  # type: ignore[no-untyped-def]
    """(exp(x), exp(-x)) for |x| ≤ 700, at about the cost of one: the even and the odd part of the series serve both."""
    x = min(max(x, -LIMIT), LIMIT)
    k = np.int64(np.floor(x * _LOG2E + 0.5))
    r = (x - k * _LN2_HI) - k * _LN2_LO
    s = r * r
    even = 1.0 + s * (0.5 + s * (1 / 24 + s * (1 / 720 + s * (1 / 40320 + s * (1 / 3628800 + s * (1 / 479001600))))))
    odd = r * (1.0 + s * (1 / 6 + s * (1 / 120 + s * (1 / 5040 + s * (1 / 362880 + s * (1 / 39916800))))))
    up = np.int64((k + 1023) << 52).view(np.float64)
    down = np.int64((1023 - k) << 52).view(np.float64)
    return (even + odd) * up, (even - odd) * down


@njit(forceinline=True)
def exponential(x):  # type: ignore[no-untyped-def]
    """exp(x), x held within ±700."""
    return exp_both(x)[0]


@njit(forceinline=True)
def logarithm(x):  # type: ignore[no-untyped-def]
    """log(x) of a normal number above 0."""
    bits = np.float64(x).view(np.int64)
    # the exponent such that the rest lies in [√½, √2): 0x3FE6A09E667F3BCD is √½
    k = (bits - np.int64(0x3FE6A09E667F3BCD)) >> 52
    m = np.int64(bits - (k << 52)).view(np.float64)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    rest = z * (
        6.666666666666735130e-01
        + z
        * (
            3.999999999940941908e-01
            + z
            * (
                2.857142874366239149e-01
                + z
                * (
                    2.222219843214978396e-01
                    + z * (1.818357216161805012e-01 + z * (1.531383769920937332e-01 + z * 1.479819860511658591e-01))
                )
            )
        )
    )
    half = 0.5 * f * f
    e = np.float64(k)
    return e * _LN2_HI - ((half - (s * (half + rest) + e * _LN2_LO)) - f)


@njit(forceinline=True)
def cosine_sine(turns):  # type: ignore[no-untyped-def]
    """(cos, sin) of 2π·turns, for turns in [0, 1]."""
    q = np.int64(np.floor(turns * 4.0 + 0.5))
    x = (turns - q * 0.25) * 6.283185307179586  # in [-π/4, π/4]; the difference is exact
    z = x * x
    sine = x + x * z * (
        -1.66666666666666324348e-01
        + z
        * (
            8.33333333332248946124e-03
            + z
            * (
                -1.98412698298579493134e-04
                + z * (2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10))
            )
        )
    )
    cosine = (
        1.0
        - 0.5 * z
        + z
        * z
        * (
            4.16666666666666019037e-02
            + z
            * (
                -1.38888888888741095749e-03
                + z
                * (
                    2.48015872894767294178e-05
                    + z * (-2.75573143513906633035e-07 + z * (2.0875723212981748e-09 - z * 1.1359647557788195e-11))
                )
            )
        )
    )
    odd = (q & 1) == 1
    c = sine if odd else cosine
    s = cosine if odd else sine
    c = -c if ((q + 1) & 2) == 2 else c
    s = -s if (q & 2) == 2 else s
    return c, s


@njit(forceinline=True)
def normal_cdf(x):  # type: ignore[no-untyped-def]
    """Φ(x): the probability that a standard normal variable is below x."""
    a = abs(x)
    b = min(a, 37.4)  # beyond, Φ(-a) is below 1e-305, and taken for 0
    e = exponential(-0.5 * b * b)
    above = (
        (((((3.52624965998911e-02 * b + 0.700383064443688) * b + 6.37396220353165) * b + 33.912866078383) * b
        + 112.079291497871) * b + 221.213596169931) * b + 220.206867912376
    )  # fmt: skip
    below = (
        ((((((8.83883476483184e-02 * b + 1.75566716318264) * b + 16.064177579207) * b + 86.7807322029461) * b
        + 296.564248779674) * b + 637.333633378831) * b + 793.826512519948) * b + 440.413735824752
    )  # fmt: skip
    far = 2.506628274631 * (b + 1.0 / (b + 2.0 / (b + 3.0 / (b + 4.0 / (b + 0.65)))))
    tail = e * above / below if b < 7.07106781186547 else e / far
    tail = tail if a <= 37.4 else 0.0
    tail = 0.5 if a == 0.0 else tail
    return 1.0 - tail if x > 0.0 else tail


@njit(forceinline=True)
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Four random 32-bit words of a counter of four words and a key of two; all words lie in `uint64`s."""
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0 = (p1 >> _SHIFT) ^ c1 ^ k0
        c1 = p1 & _MASK
        c2 = (p0 >> _SHIFT) ^ c3 ^ k1
        c3 = p0 & _MASK
        k0 = (k0 + _W0) & _MASK
        k1 = (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@njit(forceinline=True)
def normals(high, low):  # type: ignore[no-untyped-def]
    """Two independent standard normal numbers of two random words, by Box and Muller: 36 bits make the radius, which is
    at most 7.2 (beyond lies a probability of 10⁻¹²), 28 bits the angle."""
    bits = (high << _SHIFT) | low
    u = (np.float64(np.int64(bits >> np.uint64(28))) + 0.5) * 2.0**-36
    turns = (np.float64(np.int64(bits & np.uint64(0xFFFFFFF))) + 0.5) * 2.0**-28
    radius = math.sqrt(-2.0 * logarithm(u))
    cosine, sine = cosine_sine(turns)
    return radius * cosine, radius * sine


def _widest() -> Any:
    """`widest()` in a compiled function asks LLVM for vectors as wide as the CPU's registers.

    For recent Intel servers LLVM prefers half of AVX-512's width, for the sake of CPUs whose clock dropped by it; loops
    of arithmetic alone, such as these, gain a third by the full one. It is an attribute of the function, which llvmlite
    has no name for; where its internals differ from what is expected here, the preference stays LLVM's.
    """
    from numba import types
    from numba.core.extending import intrinsic

    @intrinsic
    def widest(typingctx):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            attributes = builder.function.attributes
            if isinstance(attributes, set):
                set.add(attributes, '"prefer-vector-width"="512"')
            return context.get_dummy_value()

        return types.none(), codegen

    return widest


widest = _widest()
