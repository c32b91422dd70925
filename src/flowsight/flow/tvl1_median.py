"""Triton kernels of the median filter of the GPU engine; imported only where they run.

The same selection as `tvl1_images.median_filter`, written out: sort the window's columns, then
its rows, leave out what cannot be the median, then drop the extremes of half of the rest until
one value is left. Minima and maxima only, all in registers.
"""

# Triton types a kernel's arguments at each launch
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]

from flowsight.flow.tvl1_kernels import FRAME_SIZES, _tile


@triton.jit
def _sort2(a, b):
    return tl.minimum(a, b), tl.maximum(a, b)


@triton.jit
def _sort3(a, b, c):
    a, b = _sort2(a, b)
    b, c = _sort2(b, c)
    a, b = _sort2(a, b)
    return a, b, c


@triton.jit
def _sort4(a, b, c, d):
    a, b = _sort2(a, b)
    c, d = _sort2(c, d)
    a, c = _sort2(a, c)
    b, d = _sort2(b, d)
    b, c = _sort2(b, c)
    return a, b, c, d


@triton.jit
def _sort5(a, b, c, d, e):
    a, b, c, d = _sort4(a, b, c, d)
    d, e = _sort2(d, e)
    c, d = _sort2(c, d)
    b, c = _sort2(b, c)
    a, b = _sort2(a, b)
    return a, b, c, d, e


@triton.jit
def _middle3(a, b, c):
    return tl.maximum(tl.minimum(a, b), tl.minimum(tl.maximum(a, b), c))


@triton.jit
def _without_extremes5(a, b, c, d, e):
    """The three values between the smallest and the largest, in any order; so the next ones."""
    a, d = _sort2(a, d)
    b, e = _sort2(b, e)
    a, b = _sort2(a, b)
    d, e = _sort2(d, e)
    a, c = _sort2(a, c)
    c, e = _sort2(c, e)
    return b, c, d


@triton.jit
def _without_extremes6(a, b, c, d, e, f):
    a, d = _sort2(a, d)
    b, e = _sort2(b, e)
    c, f = _sort2(c, f)
    a, b = _sort2(a, b)
    a, c = _sort2(a, c)
    e, f = _sort2(e, f)
    d, f = _sort2(d, f)
    return b, c, d, e


@triton.jit
def _without_extremes7(a, b, c, d, e, f, g):
    a, e = _sort2(a, e)
    b, f = _sort2(b, f)
    c, g = _sort2(c, g)
    a, b = _sort2(a, b)
    a, c = _sort2(a, c)
    f, g = _sort2(f, g)
    e, g = _sort2(e, g)
    a, d = _sort2(a, d)
    d, g = _sort2(d, g)
    return b, c, d, e, f


@triton.jit
def _without_extremes8(a, b, c, d, e, f, g, h):
    a, e = _sort2(a, e)
    b, f = _sort2(b, f)
    c, g = _sort2(c, g)
    d, h = _sort2(d, h)
    a, b = _sort2(a, b)
    c, d = _sort2(c, d)
    a, c = _sort2(a, c)
    e, f = _sort2(e, f)
    g, h = _sort2(g, h)
    f, h = _sort2(f, h)
    return b, c, d, e, f, g


@triton.jit
def _middle13(a, b, c, d, e, f, g, h, i, j, k, l, m):  # noqa: E741
    """Of 13 values, 8 hold at most 6 of the lower and 6 of the upper half: both ends can go."""
    a, b, c, d, e, f = _without_extremes8(a, b, c, d, e, f, g, h)
    a, b, c, d, e = _without_extremes7(a, b, c, d, e, f, i)
    a, b, c, d = _without_extremes6(a, b, c, d, e, j)
    a, b, c = _without_extremes5(a, b, c, d, k)
    _, a, b, _ = _sort4(a, b, c, l)
    return _middle3(a, b, m)


@triton.jit
def _pixel(image, y, x, height, width, inside):
    """Values at (y, x) with the edge repeated."""
    row = tl.minimum(tl.maximum(y, 0), height - 1)
    column = tl.minimum(tl.maximum(x, 0), width - 1)
    return tl.load(image + row * width + column, mask=inside, other=0.0)


@triton.jit
def _column3(image, y, x, height, width, inside):
    return _sort3(
        _pixel(image, y - 1, x, height, width, inside),
        _pixel(image, y, x, height, width, inside),
        _pixel(image, y + 1, x, height, width, inside),
    )


@triton.jit
def _column5(image, y, x, height, width, inside):
    return _sort5(
        _pixel(image, y - 2, x, height, width, inside),
        _pixel(image, y - 1, x, height, width, inside),
        _pixel(image, y, x, height, width, inside),
        _pixel(image, y + 1, x, height, width, inside),
        _pixel(image, y + 2, x, height, width, inside),
    )


@triton.jit
def _median3(image, y, x, height, width, inside):
    a0, a1, a2 = _column3(image, y, x - 1, height, width, inside)
    b0, b1, b2 = _column3(image, y, x, height, width, inside)
    c0, c1, c2 = _column3(image, y, x + 1, height, width, inside)
    low = tl.maximum(tl.maximum(a0, b0), c0)
    high = tl.minimum(tl.minimum(a2, b2), c2)
    return _middle3(low, _middle3(a1, b1, c1), high)


@triton.jit
def _median5(image, y, x, height, width, inside):
    a0, a1, a2, a3, a4 = _column5(image, y, x - 2, height, width, inside)
    b0, b1, b2, b3, b4 = _column5(image, y, x - 1, height, width, inside)
    c0, c1, c2, c3, c4 = _column5(image, y, x, height, width, inside)
    d0, d1, d2, d3, d4 = _column5(image, y, x + 1, height, width, inside)
    e0, e1, e2, e3, e4 = _column5(image, y, x + 2, height, width, inside)
    _, _, _, d0, e0 = _sort5(a0, b0, c0, d0, e0)
    _, _, c1, d1, e1 = _sort5(a1, b1, c1, d1, e1)
    _, b2, c2, d2, _ = _sort5(a2, b2, c2, d2, e2)
    a3, b3, c3, _, _ = _sort5(a3, b3, c3, d3, e3)
    a4, b4, _, _, _ = _sort5(a4, b4, c4, d4, e4)
    return _middle13(d0, e0, c1, d1, e1, b2, c2, d2, a3, b3, c3, a4, b4)


@triton.jit(do_not_specialize=FRAME_SIZES)
def median_filter(
    state, slot, active, num_frames, height, width,
    SIDE: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Median of u1 and u2 of active frames, left in their other slot. Grid (tiles, N, 2)."""
    frame = tl.program_id(1)
    if tl.load(active + frame) != 0:
        pixels = height * width
        here = tl.load(slot + frame).to(tl.int64)
        component = tl.program_id(2) * pixels
        source = state + (here * num_frames + frame) * 6 * pixels + component
        target = state + ((1 - here) * num_frames + frame) * 6 * pixels + component
        y, x, inside = _tile(height, width, BLOCK_Y, BLOCK_X)
        if SIDE == 3:
            middle = _median3(source, y, x, height, width, inside)
        else:
            middle = _median5(source, y, x, height, width, inside)
        tl.store(target + y * width + x, middle, mask=inside)


@triton.jit(do_not_specialize=["num_frames", "pixels"])
def take_filtered(state, slot, active, num_frames, pixels, BLOCK: tl.constexpr):
    """Copy u1 and u2 of active frames back from the other slot. Grid (blocks of 2 P, N)."""
    frame = tl.program_id(1)
    if tl.load(active + frame) != 0:
        here = tl.load(slot + frame).to(tl.int64)
        source = state + ((1 - here) * num_frames + frame) * 6 * pixels
        target = state + (here * num_frames + frame) * 6 * pixels
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        inside = at < 2 * pixels
        tl.store(target + at, tl.load(source + at, mask=inside), mask=inside)
