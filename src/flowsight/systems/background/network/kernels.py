"""Triton kernels of the recurrent parts; `fused` launches them. Imported only where they run.

On a GPU a step's arithmetic is little and its launches are many: a map of 240 rows and 320 columns
is 560 steps of the GRU a layer. A sweep of the GRU is one kernel, whose programs hold the state of
some rows or columns from the first step to the last; its units are padded to a power of two with
zeros that stay zero, and the way back computes the gates anew, which is cheaper than to read them.
The LSTM has few steps and very many pixels: there a step is one large matrix product, which cuBLAS
does best, and one kernel for all the rest.

Equations and names are those of `lstm` and `gru`; arrays are float32. A line is a pixel of the LSTM
(T steps), a row or a column of the GRU (L steps).
"""

# Triton types a kernel's arguments at each launch
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]

# three tensor-core products that together round about as float32 does
PRECISION = tl.constexpr("tf32x3")
LSTM_SIZES = ("lines", "stride", "stride_before", "stride_cells")
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


@triton.jit(do_not_specialize=LSTM_SIZES)
def lstm_step(
    gates, before, mask, peephole, out, cells, seen, lines, stride, stride_before, stride_cells,
    UNITS: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """What follows a step's matrix products. Grid (blocks, U).

    Pointers are to the step's part: gates (4U, N), their sums, which with KEEP become their values,
    and out (U, N), rows `stride` apart; the cell before, and the one to write, rows `stride_before`
    and `stride_cells` apart; mask and, with MASKED, seen = h * m, (U, N) as they lie.
    """
    line = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    unit = tl.program_id(1).to(tl.int64)
    inside = line < lines
    i_at, f_at = unit * stride + line, (UNITS + unit) * stride + line
    g_at, o_at = (2 * UNITS + unit) * stride + line, (3 * UNITS + unit) * stride + line
    c = tl.load(before + unit * stride_before + line, mask=inside, other=0.0)
    i = tl.load(gates + i_at, mask=inside, other=0.0)
    f = tl.load(gates + f_at, mask=inside, other=0.0)
    g = tl.load(gates + g_at, mask=inside, other=0.0)
    o = tl.load(gates + o_at, mask=inside, other=0.0)
    i = tl.sigmoid(i + tl.load(peephole + unit) * c)
    f = tl.sigmoid(f + tl.load(peephole + UNITS + unit) * c)
    g = _tanh(g)
    c = f * c + i * g
    o = tl.sigmoid(o + tl.load(peephole + 2 * UNITS + unit) * c)
    h = o * _tanh(c)
    tl.store(out + i_at, h, mask=inside)
    tl.store(cells + unit * stride_cells + line, c, mask=inside)
    if MASKED:
        state = unit * lines + line
        tl.store(seen + state, h * tl.load(mask + state, mask=inside, other=0.0), mask=inside)
    if KEEP:
        tl.store(gates + i_at, i, mask=inside)
        tl.store(gates + f_at, f, mask=inside)
        tl.store(gates + g_at, g, mask=inside)
        tl.store(gates + o_at, o, mask=inside)


@triton.jit(do_not_specialize=LSTM_SIZES)
def lstm_step_backward(
    gates, before, mask, peephole, cells, grad_out, grad_cells, dh, dc, da,
    lines, stride, stride_before,
    UNITS: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What goes before a step's matrix product on the way back. Grid (blocks, U).

    Of the step: the gates' values, the cell before, its own cell and the gradients of h and c. dh
    (U, N) is the gradient of h * m from the step after; dc (U, N) that of the cell, replaced; da
    (4U, N), rows `stride` apart, is written: that of the gates' sums.
    """
    line = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    unit = tl.program_id(1).to(tl.int64)
    inside = line < lines
    i_at, f_at = unit * stride + line, (UNITS + unit) * stride + line
    g_at, o_at = (2 * UNITS + unit) * stride + line, (3 * UNITS + unit) * stride + line
    state = unit * lines + line
    i = tl.load(gates + i_at, mask=inside, other=0.0)
    f = tl.load(gates + f_at, mask=inside, other=0.0)
    g = tl.load(gates + g_at, mask=inside, other=0.0)
    o = tl.load(gates + o_at, mask=inside, other=0.0)
    c = tl.load(before + unit * stride_before + line, mask=inside, other=0.0)
    tanh = _tanh(tl.load(cells + i_at, mask=inside, other=0.0))
    from_h = tl.load(dh + state, mask=inside, other=0.0)
    if MASKED:
        from_h *= tl.load(mask + state, mask=inside, other=0.0)
    from_h += tl.load(grad_out + i_at, mask=inside, other=0.0)
    from_c = tl.load(dc + state, mask=inside, other=0.0)
    from_c += tl.load(grad_cells + i_at, mask=inside, other=0.0)
    d_o = from_h * tanh * o * (1 - o)
    from_c += from_h * o * (1 - tanh * tanh) + d_o * tl.load(peephole + 2 * UNITS + unit)
    d_i = from_c * g * i * (1 - i)
    d_f = from_c * c * f * (1 - f)
    from_c_before = from_c * f + d_i * tl.load(peephole + unit)
    from_c_before += d_f * tl.load(peephole + UNITS + unit)
    tl.store(dc + state, from_c_before, mask=inside)
    tl.store(da + i_at, d_i, mask=inside)
    tl.store(da + f_at, d_f, mask=inside)
    tl.store(da + g_at, from_c * i * (1 - g * g), mask=inside)
    tl.store(da + o_at, d_o, mask=inside)


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
