"""The vote's inner loops over three float32 replicas, compiled by numba: one pass over memory and no scratch.

Array libraries need a pass, or a chunk of scratch, for every operation; a loop in one piece costs what a copy costs.
Compiled at the first call in a process, in about half a second. Other counts than three go through `kernels` alone.
"""

import numpy as np
from numba import float32, njit
from numpy.typing import NDArray

TILE = 4096
"""Values that a sum in single precision runs over before it is added in double; three tiles fit a core's cache."""

Part = NDArray[np.float32]


@njit(nogil=True)
def median_of_three(a: Part, b: Part, c: Part, scales: Part, out: Part) -> None:
    """Writes the median of `scales[0] * a`, `scales[1] * b` and `scales[2] * c`; NaN where one of them is NaN.

    Args:
        a: First replica's update, flat.
        b: Second.
        c: Third.
        scales: Three factors, such as those that clip to a norm.
        out: Where the result is written.
    """
    f, g, h = scales[0], scales[1], scales[2]
    for i in range(out.size):
        x, y, z = f * a[i], g * b[i], h * c[i]
        out[i] = np.maximum(np.minimum(x, y), np.minimum(np.maximum(x, y), z))


@njit(nogil=True)
def survey_of_three(a: Part, b: Part, c: Part, factors: Part, out: Part, sums: NDArray[np.float64]) -> None:
    """Adds the inner products to the upper triangle of `sums` and writes `(f * a + g * b + h * c) / 3` to `out`.

    Args:
        a: First replica's update, flat.
        b: Second.
        c: Third.
        factors: f, g and h.
        out: Where the mean is written.
        sums: Inner products, 3 by 3, float64.
    """
    f, g, h = factors[0], factors[1], factors[2]
    for start in range(0, out.size, TILE):
        end = min(start + TILE, out.size)
        x, y, z = a[start:end], b[start:end], c[start:end]
        aa, ab, ac, bb, bc, cc = _products(x, y, z)
        sums[0, 0] += aa
        sums[0, 1] += ab
        sums[0, 2] += ac
        sums[1, 1] += bb
        sums[1, 2] += bc
        sums[2, 2] += cc
        _mean(x, y, z, f, g, h, out[start:end])


# Sums may run in any order, and so in vector registers.
@njit(nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _products(a: Part, b: Part, c: Part) -> tuple[np.float32, ...]:
    aa = ab = ac = bb = bc = cc = float32(0)
    for i in range(a.size):
        x, y, z = a[i], b[i], c[i]
        aa += x * x
        ab += x * y
        ac += x * z
        bb += y * y
        bc += y * z
        cc += z * z
    return aa, ab, ac, bb, bc, cc


# The mean runs in one order, that of `kernels.mean`, to the bit.
@njit(nogil=True)
def _mean(a: Part, b: Part, c: Part, f: float, g: float, h: float, out: Part) -> None:
    for i in range(out.size):
        out[i] = (f * a[i] + g * b[i] + h * c[i]) / float32(3)
