"""Triton kernels of the recurrent parts, all steps of a block of pixels in one program each.

On a GPU a step's arithmetic is little and its launches are many: a map of 240 rows and 320 columns
is 560 steps of the GRU a layer. Here the state stays in registers from the first step to the last.
Equations and names are those of `lstm` and `gru`; `fused` launches. Imported only where they run.

Arrays are float32. A pixel is a line of the LSTM (T steps), a row or a column one of the GRU (L
steps). Units are padded to a power of two: what stands beyond them is zero and stays zero. Backward
computes the gates anew from the saved outputs, which is cheaper than to read them.
"""

# Triton types a kernel's arguments at each launch
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]

# three tensor-core products that together round about as float32 does
PRECISION = tl.constexpr("tf32x3")
SIZES = ("steps", "lines", "per_map", "stride_unit", "stride_step", "stride_map", "stride_line")


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _square(weight, gate, UNITS: tl.constexpr, PADDED: tl.constexpr, TURNED: tl.constexpr):
    """A gate's (UNITS, UNITS) block of a weight, or its transpose, padded with zeros."""
    row, column = tl.arange(0, PADDED)[:, None], tl.arange(0, PADDED)[None, :]
    inside = (row < UNITS) & (column < UNITS)
    at = column * UNITS + row if TURNED else row * UNITS + column
    return tl.load(weight + gate * UNITS * UNITS + at, mask=inside, other=0.0)


@triton.jit
def _column(vector, gate, UNITS: tl.constexpr, PADDED: tl.constexpr):
    unit = tl.arange(0, PADDED)
    return tl.load(vector + gate * UNITS + unit, mask=unit < UNITS, other=0.0)[:, None]


@triton.jit
def _times(weight, x):
    return tl.dot(weight, x, input_precision=PRECISION)


@triton.jit
def _lstm_gates(
    x, at, stride, inside, seen, c, r_i, r_f, r_g, p_i, p_f, UNITS: tl.constexpr
):  # fmt: skip
    """Gates i, f and g of a step; x points to the projected input of gate i's units."""
    i = tl.load(x + at, mask=inside, other=0.0)
    f = tl.load(x + UNITS * stride + at, mask=inside, other=0.0)
    g = tl.load(x + 2 * UNITS * stride + at, mask=inside, other=0.0)
    i = tl.sigmoid(i + _times(r_i, seen) + p_i * c)
    f = tl.sigmoid(f + _times(r_f, seen) + p_f * c)
    return i, f, _tanh(g + _times(r_g, seen))


@triton.jit(do_not_specialize=["steps", "lines"])
def lstm_forward(
    projected, first_h, first_c, mask, weight, peephole, out, cells, steps, lines,
    UNITS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """All steps of BLOCK pixels. Grid (blocks,).

    projected (4U, T, N), first_h, first_c and mask (U, N), weight (4U, U), peephole (3, U) ->
    out (U, T, N) and cells, (U, T, N) with KEEP, else the last one only, (U, 1, N).
    """
    line = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    unit = tl.arange(0, PADDED)[:, None].to(tl.int64)
    inside = (unit < UNITS) & (line < lines)
    state = unit * lines + line
    wide = lines.to(tl.int64)
    stride = steps * wide  # from unit to unit
    x, y = projected + unit * stride + line, unit * stride + line
    r_i = _square(weight, 0, UNITS, PADDED, False)
    r_f = _square(weight, 1, UNITS, PADDED, False)
    r_g = _square(weight, 2, UNITS, PADDED, False)
    r_o = _square(weight, 3, UNITS, PADDED, False)
    p_i = _column(peephole, 0, UNITS, PADDED)
    p_f = _column(peephole, 1, UNITS, PADDED)
    p_o = _column(peephole, 2, UNITS, PADDED)
    h = tl.load(first_h + state, mask=inside, other=0.0)
    c = tl.load(first_c + state, mask=inside, other=0.0)
    if MASKED:
        keep = tl.load(mask + state, mask=inside, other=0.0)
    for step in range(steps):
        at = step * wide
        seen = h * keep if MASKED else h
        i, f, g = _lstm_gates(x, at, stride, inside, seen, c, r_i, r_f, r_g, p_i, p_f, UNITS)
        c = f * c + i * g
        o = tl.load(x + 3 * UNITS * stride + at, mask=inside, other=0.0)
        o = tl.sigmoid(o + _times(r_o, seen) + p_o * c)
        h = tl.where(inside, o * _tanh(c), 0.0)
        tl.store(out + y + at, h, mask=inside)
        if KEEP:
            tl.store(cells + y + at, c, mask=inside)
    if not KEEP:
        tl.store(cells + state, c, mask=inside)


@triton.jit(do_not_specialize=["steps", "lines"])
def lstm_backward(
    projected, first_h, first_c, mask, weight, peephole, out, cells, grad_out, grad_cells,
    grad_projected, grad_h, grad_c, steps, lines,
    UNITS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """From the gradients of all h and c to those of the projected input and of the first state.

    Shapes as in `lstm_forward` with KEEP; gradients have the shapes of what they belong to.
    """
    line = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    unit = tl.arange(0, PADDED)[:, None].to(tl.int64)
    inside = (unit < UNITS) & (line < lines)
    state = unit * lines + line
    wide = lines.to(tl.int64)
    stride = steps * wide
    y = unit * stride + line
    p_i = _column(peephole, 0, UNITS, PADDED)
    p_f = _column(peephole, 1, UNITS, PADDED)
    p_o = _column(peephole, 2, UNITS, PADDED)
    if MASKED:
        keep = tl.load(mask + state, mask=inside, other=0.0)
    dh = tl.zeros((PADDED, BLOCK), tl.float32)
    dc = tl.zeros((PADDED, BLOCK), tl.float32)
    for back in range(steps):
        step = steps - 1 - back
        at = step * wide
        later = (unit < UNITS) & (line < tl.where(step > 0, lines, 0))
        earlier = (unit < UNITS) & (line < tl.where(step > 0, 0, lines))
        h = tl.load(out + y + at - lines, mask=later, other=0.0)
        h += tl.load(first_h + state, mask=earlier, other=0.0)
        before = tl.load(cells + y + at - lines, mask=later, other=0.0)
        before += tl.load(first_c + state, mask=earlier, other=0.0)
        seen = h * keep if MASKED else h
        i, f, g = _lstm_gates(
            projected + y, at, stride, inside, seen, before,
            _square(weight, 0, UNITS, PADDED, False),
            _square(weight, 1, UNITS, PADDED, False),
            _square(weight, 2, UNITS, PADDED, False),
            p_i, p_f, UNITS,
        )  # fmt: skip
        c = tl.load(cells + y + at, mask=inside, other=0.0)
        o = tl.load(projected + 3 * UNITS * stride + y + at, mask=inside, other=0.0)
        o = tl.sigmoid(o + _times(_square(weight, 3, UNITS, PADDED, False), seen) + p_o * c)
        tanh = _tanh(c)
        dh += tl.load(grad_out + y + at, mask=inside, other=0.0)
        dc += tl.load(grad_cells + y + at, mask=inside, other=0.0)
        d_o = dh * tanh * o * (1 - o)
        dc += dh * o * (1 - tanh * tanh) + d_o * p_o
        d_i = dc * g * i * (1 - i)
        d_f = dc * before * f * (1 - f)
        d_g = dc * i * (1 - g * g)
        dc = dc * f + d_i * p_i + d_f * p_f
        grad = grad_projected + y + at
        tl.store(grad, d_i, mask=inside)
        tl.store(grad + UNITS * stride, d_f, mask=inside)
        tl.store(grad + 2 * UNITS * stride, d_g, mask=inside)
        tl.store(grad + 3 * UNITS * stride, d_o, mask=inside)
        dh = _times(_square(weight, 0, UNITS, PADDED, True), d_i)
        dh += _times(_square(weight, 1, UNITS, PADDED, True), d_f)
        dh += _times(_square(weight, 2, UNITS, PADDED, True), d_g)
        dh += _times(_square(weight, 3, UNITS, PADDED, True), d_o)
        if MASKED:
            dh *= keep
    tl.store(grad_h + state, dh, mask=inside)
    tl.store(grad_c + state, dc, mask=inside)


@triton.jit
def _gru_gates(
    x, at, stride_unit, inside, seen, r_r, r_z, r_n, q_n, UNITS: tl.constexpr
):  # fmt: skip
    """r, z, n and q of a step; x points to the projected input of gate r's units."""
    r = tl.load(x + at, mask=inside, other=0.0)
    z = tl.load(x + UNITS * stride_unit + at, mask=inside, other=0.0)
    n = tl.load(x + 2 * UNITS * stride_unit + at, mask=inside, other=0.0)
    r = tl.sigmoid(r + _times(r_r, seen))
    z = tl.sigmoid(z + _times(r_z, seen))
    q = _times(r_n, seen) + q_n
    return r, z, _tanh(n + r * q), q


@triton.jit(do_not_specialize=SIZES)
def sweep_forward(
    projected, mask, weight, bias, out, steps, lines, per_map,
    stride_unit, stride_step, stride_map, stride_line,
    UNITS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """BLOCK rows or columns, from the first step to the last or back. Grid (blocks, 2).

    projected (3V, L, M, N) by its strides, mask (V, M), weight (3V, V), bias (V,) ->
    out (2, V, L, M N). A line is one of the M N; N = per_map.
    """
    line = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    back = tl.program_id(1)
    unit = tl.arange(0, PADDED)[:, None].to(tl.int64)
    inside = (unit < UNITS) & (line < lines)
    which = (line // per_map).to(tl.int64)
    x = projected + unit * stride_unit + which * stride_map + (line % per_map) * stride_line
    y = out + (back * UNITS + unit) * steps * lines + line
    r_r = _square(weight, 0, UNITS, PADDED, False)
    r_z = _square(weight, 1, UNITS, PADDED, False)
    r_n = _square(weight, 2, UNITS, PADDED, False)
    q_n = _column(bias, 0, UNITS, PADDED)
    if MASKED:
        keep = tl.load(mask + unit * (lines // per_map) + which, mask=inside, other=0.0)
    h = tl.zeros((PADDED, BLOCK), tl.float32)
    for step in range(steps):
        at = tl.where(back == 0, step, steps - 1 - step).to(tl.int64)
        seen = h * keep if MASKED else h
        _, z, n, _ = _gru_gates(
            x, at * stride_step, stride_unit, inside, seen, r_r, r_z, r_n, q_n, UNITS
        )
        h = n + z * (h - n)
        tl.store(y + at * lines, h, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def sweep_backward(
    projected, mask, weight, bias, out, grad_out, grad_projected, grad_weight, grad_bias,
    steps, lines, per_map, stride_unit, stride_step, stride_map, stride_line,
    UNITS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Gradients of a sweep; shapes and grid as in `sweep_forward`.

    grad_out (2, V, L, M N) -> grad_projected (2, 3V, L, M N), a part for each way; and a program's
    part of the weights: grad_weight (2, blocks, 3, PADDED, PADDED) and grad_bias (2, blocks,
    PADDED), which are summed afterwards, in one order.
    """
    line = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    back = tl.program_id(1)
    unit = tl.arange(0, PADDED)[:, None].to(tl.int64)
    inside = (unit < UNITS) & (line < lines)
    which = (line // per_map).to(tl.int64)
    x = projected + unit * stride_unit + which * stride_map + (line % per_map) * stride_line
    stride = steps.to(tl.int64) * lines
    y = (back * UNITS + unit) * stride + line
    grad = grad_projected + (3 * back * UNITS + unit) * stride + line
    r_r = _square(weight, 0, UNITS, PADDED, False)
    r_z = _square(weight, 1, UNITS, PADDED, False)
    r_n = _square(weight, 2, UNITS, PADDED, False)
    t_r = _square(weight, 0, UNITS, PADDED, True)
    t_z = _square(weight, 1, UNITS, PADDED, True)
    t_n = _square(weight, 2, UNITS, PADDED, True)
    q_n = _column(bias, 0, UNITS, PADDED)
    if MASKED:
        keep = tl.load(mask + unit * (lines // per_map) + which, mask=inside, other=0.0)
    dh = tl.zeros((PADDED, BLOCK), tl.float32)
    sum_q = tl.zeros((PADDED, BLOCK), tl.float32)
    w_r = tl.zeros((PADDED, PADDED), tl.float32)
    w_z = tl.zeros((PADDED, PADDED), tl.float32)
    w_n = tl.zeros((PADDED, PADDED), tl.float32)
    for turn in range(steps):
        step = steps - 1 - turn
        at = tl.where(back == 0, step, turn).to(tl.int64)
        before = tl.where(back == 0, at - 1, at + 1)
        later = (unit < UNITS) & (line < tl.where(step > 0, lines, 0))
        h = tl.load(out + y + before * lines, mask=later, other=0.0)
        seen = h * keep if MASKED else h
        r, z, n, q = _gru_gates(
            x, at * stride_step, stride_unit, inside, seen, r_r, r_z, r_n, q_n, UNITS
        )
        dh += tl.load(grad_out + y + at * lines, mask=inside, other=0.0)
        passed = dh * z
        d_z = (h - n) * dh * z * (1 - z)
        d_n = (dh - passed) * (1 - n * n)
        d_r = d_n * q * r * (1 - r)
        d_q = d_n * r
        tl.store(grad + at * lines, d_r, mask=inside)
        tl.store(grad + UNITS * stride + at * lines, d_z, mask=inside)
        tl.store(grad + 2 * UNITS * stride + at * lines, d_n, mask=inside)
        turned = tl.trans(seen)
        w_r += _times(d_r, turned)
        w_z += _times(d_z, turned)
        w_n += _times(d_q, turned)
        sum_q += d_q
        dh = _times(t_r, d_r) + _times(t_z, d_z) + _times(t_n, d_q)
        if MASKED:
            dh *= keep
        dh += passed
    part = back * tl.num_programs(0) + tl.program_id(0)
    cell = tl.arange(0, PADDED)[:, None] * PADDED + tl.arange(0, PADDED)[None, :]
    total = grad_weight + part * 3 * PADDED * PADDED + cell
    tl.store(total, w_r)
    tl.store(total + PADDED * PADDED, w_z)
    tl.store(total + 2 * PADDED * PADDED, w_n)
    tl.store(grad_bias + part * PADDED + tl.arange(0, PADDED), tl.sum(sum_q, 1))
