"""Triton kernels of the GPU engine of TV-L1; imported only where they run.

Arrays, all float32 and contiguous, H rows, W columns, P = H W pixels:

    state   (2, N, 6, P)   flow u1, u2, dual p11, p12, p21, p22, in two slots
    plane   (N, 4, P)      warped gradient x, y, its squared norm, rho at u = 0
    images  (N, 3, P)      following frame, its gradient x, y
    previous (N, P)

slot (N,) int32 says which half of `state` holds a frame; active (N,) int32 is 0 once a frame has
stopped. Equations and names are those of `tvl1_steps`. `fma` stands where OpenCV's CPU code runs
a fused multiply-add; launched with enable_fp_fusion=False the compiler adds no others. EXACT
rounds divisions and roots correctly, as that code does.
"""

# Triton types a kernel's arguments at each launch
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]

FLOAT32_EPSILON = tl.constexpr(1.1920928955078125e-07)

# else every combination of sizes that are multiples of 16 is compiled anew
FRAME_SIZES = ("num_frames", "height", "width")


@triton.jit
def _tile(height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """Coordinates (BLOCK_Y, 1) and (1, BLOCK_X) of this program's tile, and what lies inside."""
    across = tl.cdiv(width, BLOCK_X)
    tile = tl.program_id(0)
    y = (tile // across) * BLOCK_Y + tl.arange(0, BLOCK_Y)[:, None]
    x = (tile % across) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    return y, x, (y < height) & (x < width)


@triton.jit
def _divide(a, b, EXACT: tl.constexpr):
    if EXACT:
        return tl.div_rn(a, b)
    return a / b


@triton.jit
def _length(a, b, EXACT: tl.constexpr):
    if EXACT:
        a64 = a.to(tl.float64)
        b64 = b.to(tl.float64)
        return tl.sqrt(a64 * a64 + b64 * b64).to(tl.float32)
    return tl.sqrt(a * a + b * b)


@triton.jit
def _divergence(px, py, at, y, x, width, inside):
    """div p at pixels `at`, from pointers to p's x and y part."""
    here_x = tl.load(px + at, mask=inside, other=0.0)
    here_y = tl.load(py + at, mask=inside, other=0.0)
    left = tl.load(px + at - 1, mask=inside & (x > 0), other=0.0)
    above = tl.load(py + at - width, mask=inside & (y > 0), other=0.0)
    # OpenCV adds in another order in the first column
    return tl.where(x > 0, (here_x - left) + (here_y - above), (here_x + here_y) - above)


@triton.jit
def _primal(source, plane, y, x, width, pixels, inside, limit, theta, EXACT: tl.constexpr):
    """Old and new flow at pixels (y, x): u + threshold(u) + theta div p."""
    at = y * width + x
    u1 = tl.load(source + at, mask=inside, other=0.0)
    u2 = tl.load(source + pixels + at, mask=inside, other=0.0)
    ix = tl.load(plane + at, mask=inside, other=0.0)
    iy = tl.load(plane + pixels + at, mask=inside, other=0.0)
    norm = tl.load(plane + 2 * pixels + at, mask=inside, other=0.0)
    rho = tl.load(plane + 3 * pixels + at, mask=inside, other=0.0) + (ix * u1 + iy * u2)
    some = norm > FLOAT32_EPSILON
    factor = tl.where(some, _divide(-rho, tl.where(some, norm, 1.0), EXACT), 0.0)
    bound = limit * norm
    factor = tl.where(rho > bound, -limit, factor)
    factor = tl.where(rho < -bound, limit, factor)
    div1 = _divergence(source + 2 * pixels, source + 3 * pixels, at, y, x, width, inside)
    div2 = _divergence(source + 4 * pixels, source + 5 * pixels, at, y, x, width, inside)
    return u1, u2, (u1 + factor * ix) + theta * div1, (u2 + factor * iy) + theta * div2


@triton.jit
def _dual(source, target, at, inside, dx, dy, pixels, step, EXACT: tl.constexpr):
    """One component's p = (p + step grad u) / (1 + step |grad u|)."""
    px = tl.load(source + at, mask=inside, other=0.0)
    py = tl.load(source + pixels + at, mask=inside, other=0.0)
    norm = 1.0 + step * _length(dx, dy, EXACT)
    tl.store(target + at, _divide(px + step * dx, norm, EXACT), mask=inside)
    tl.store(target + pixels + at, _divide(py + step * dy, norm, EXACT), mask=inside)


@triton.jit(do_not_specialize=FRAME_SIZES)
def iterate(
    state, plane, slot, active, error, num_frames, height, width, limit, theta, step,
    EXACT: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """One iteration from each frame's slot into its other one, for active frames.

    Grid (tiles, N). The new flow right of and below a pixel is computed anew instead of being
    waited for, so flow and dual need one pass. error (N, tiles): sum of |du|^2 over the tile.
    """
    frame = tl.program_id(1)
    if tl.load(active + frame) != 0:
        pixels = height * width
        here = tl.load(slot + frame).to(tl.int64)
        source = state + (here * num_frames + frame) * 6 * pixels
        target = state + ((1 - here) * num_frames + frame) * 6 * pixels
        plane += frame.to(tl.int64) * 4 * pixels
        y, x, inside = _tile(height, width, BLOCK_Y, BLOCK_X)
        old1, old2, new1, new2 = _primal(
            source, plane, y, x, width, pixels, inside, limit, theta, EXACT
        )
        has_right = inside & (x + 1 < width)
        _, _, right1, right2 = _primal(
            source, plane, y, x + 1, width, pixels, has_right, limit, theta, EXACT
        )
        has_below = inside & (y + 1 < height)
        _, _, below1, below2 = _primal(
            source, plane, y + 1, x, width, pixels, has_below, limit, theta, EXACT
        )
        at = y * width + x
        tl.store(target + at, new1, mask=inside)
        tl.store(target + pixels + at, new2, mask=inside)
        dx1 = tl.where(has_right, right1 - new1, 0.0)
        dy1 = tl.where(has_below, below1 - new1, 0.0)
        dx2 = tl.where(has_right, right2 - new2, 0.0)
        dy2 = tl.where(has_below, below2 - new2, 0.0)
        two, four = 2 * pixels, 4 * pixels
        _dual(source + two, target + two, at, inside, dx1, dy1, pixels, step, EXACT)
        _dual(source + four, target + four, at, inside, dx2, dy2, pixels, step, EXACT)
        change1, change2 = new1 - old1, new2 - old2
        change = tl.where(inside, change1 * change1 + change2 * change2, 0.0)
        tiles = tl.num_programs(0)
        tl.store(error + frame * tiles + tl.program_id(0), tl.sum(tl.sum(change, 1), 0))


@triton.jit(do_not_specialize=["tiles", "pixels"])
def advance(
    error, slot, active, iteration, credit, total, tiles, pixels, threshold_px2,
    CUDA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """After `iterate`: switch slots, and clear `active` of frames that stand still. Grid (N,).

    The tiles' errors are added in one fixed order, so the stop depends on nothing else. See
    `tvl1_steps.stop` for the rule; credit (N,) float64 is its state, iteration (N,) counts in
    the warp, total (N,) int64 the pixels updated since the beginning.
    """
    frame = tl.program_id(0)
    if tl.load(active + frame) != 0:
        lanes = tl.arange(0, BLOCK)
        parts = tl.load(error + frame * tiles + lanes, mask=lanes < tiles, other=0.0)
        change = tl.sum(parts.to(tl.float64), 0)
        moving = change > threshold_px2
        count = tl.load(iteration + frame)
        if CUDA:
            left = tl.load(credit + frame)
            tested = (count % 2 == 1) & (left < threshold_px2)
            tl.store(credit + frame, tl.where(tested, change, left - threshold_px2))
            moving = moving | (tested == 0)
        tl.store(active + frame, moving.to(tl.int32))
        tl.store(slot + frame, 1 - tl.load(slot + frame))
        tl.store(iteration + frame, count + 1)
        tl.store(total + frame, tl.load(total + frame) + pixels)


@triton.jit
def _bicubic(fraction, A: tl.constexpr):
    """Weights of the four taps: see `tvl1_images.bicubic_weights`."""
    f = fraction
    g = 1.0 - f
    before = g * g * f * A
    after = f * f * g * A
    slope = tl.fma(tl.full(f.shape, A + 2.0, tl.float32), f, tl.full(f.shape, -A - 3.0, tl.float32))
    near = tl.fma(slope, f * f, tl.full(f.shape, 1.0, tl.float32))
    return before, near, ((1.0 - before) - near) - after, after


@triton.jit
def _tap(first, weights, length, K: tl.constexpr, ZERO_BORDER: tl.constexpr):
    """Index and weight of tap K of 0..3."""
    tap = first + (K - 1)
    weight = weights[K]
    if ZERO_BORDER:
        weight = tl.where((tap >= 0) & (tap < length), weight, 0.0)
    return tl.minimum(tl.maximum(tap, 0), length - 1), weight


@triton.jit
def _position(flow, coordinate, length):
    """First source index (far ones are all outside alike) and fraction."""
    position = coordinate.to(tl.float32) + flow
    first = tl.floor(position)
    fraction = position - first
    return tl.minimum(tl.maximum(first, -4.0), length + 4.0).to(tl.int32), fraction


@triton.jit(do_not_specialize=FRAME_SIZES)
def linearise(
    state, plane, previous, images, slot, active, num_frames, height, width,
    A: tl.constexpr, ZERO_BORDER: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Warp the following frame and its gradient by the flow; writes `plane`. Grid (tiles, N)."""
    frame = tl.program_id(1)
    if tl.load(active + frame) != 0:
        pixels = height * width
        here = tl.load(slot + frame).to(tl.int64)
        wide = frame.to(tl.int64)
        source = state + (here * num_frames + wide) * 6 * pixels
        images += wide * 3 * pixels
        plane += wide * 4 * pixels
        y, x, inside = _tile(height, width, BLOCK_Y, BLOCK_X)
        at = y * width + x
        u1 = tl.load(source + at, mask=inside, other=0.0)
        u2 = tl.load(source + pixels + at, mask=inside, other=0.0)
        first_x, fraction_x = _position(u1, x, width)
        first_y, fraction_y = _position(u2, y, height)
        weights_x = _bicubic(fraction_x, A)
        weights_y = _bicubic(fraction_y, A)
        image = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
        ix = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
        iy = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
        for r in tl.static_range(4):
            row, weight_y = _tap(first_y, weights_y, height, r, ZERO_BORDER)
            along = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
            along_x = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
            along_y = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
            for c in tl.static_range(4):
                column, weight_x = _tap(first_x, weights_x, width, c, ZERO_BORDER)
                tap = images + row * width + column
                along = tl.fma(tl.load(tap, mask=inside, other=0.0), weight_x, along)
                along_x = tl.fma(tl.load(tap + pixels, mask=inside, other=0.0), weight_x, along_x)
                along_y = tl.fma(
                    tl.load(tap + 2 * pixels, mask=inside, other=0.0), weight_x, along_y
                )
            image = tl.fma(along, weight_y, image)
            ix = tl.fma(along_x, weight_y, ix)
            iy = tl.fma(along_y, weight_y, iy)
        start = tl.load(previous + wide * pixels + at, mask=inside, other=0.0)
        tl.store(plane + at, ix, mask=inside)
        tl.store(plane + pixels + at, iy, mask=inside)
        tl.store(plane + 2 * pixels + at, ix * ix + iy * iy, mask=inside)
        tl.store(plane + 3 * pixels + at, ((image - ix * u1) - iy * u2) - start, mask=inside)
