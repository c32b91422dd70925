"""The recurrent parts on a GPU: `lstm` and `gru` in fused Triton kernels, with their derivatives.

Needs a GPU and Triton to run, neither to be imported. With TRITON_INTERPRET=1 in the environment it
runs on a CPU, thousands of times slower: good for checking small maps.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

PIXELS = 1024
"""Of a program of the LSTM."""
LINES = 16
"""Rows or columns of a program of the GRU: few, for its steps wait for each other."""


@cache
def has_triton() -> bool:
    """Whether Triton is installed; it comes with torch for GPUs."""
    return importlib.util.find_spec("triton") is not None


def usable(x: Tensor) -> bool:
    """Whether the kernels take this tensor."""
    return x.is_cuda and x.dtype == torch.float32 and has_triton()


def padded(units: int) -> int:
    """Units as the kernels hold them: a power of two that tensor cores take."""
    return max(16, 1 << (units - 1).bit_length())


def lstm(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    mask: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    peephole: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """`lstm.PeepholeLSTM` over all steps: h (U, T, N) and c, (U, T, N) or the last, (U, 1, N)."""
    given = (x, h0.contiguous(), c0.contiguous(), mask, weight_ih, weight_hh, peephole, bias)
    if torch.is_grad_enabled():
        out, cells = _Sequence.apply(*given)
        return out, cells
    return _lstm_forward(*given, keep=False)[:2]


def _lstm_forward(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    mask: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    peephole: Tensor,
    bias: Tensor,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """h, c and the gates (4U, T, N), which without `keep` are not yet their values."""
    from flowsight.systems.background.network import kernels

    (units, num_pixels), steps = h0.shape, x.shape[1]
    gates = torch.addmm(bias[:, None], weight_ih, x.flatten(1)).view(-1, steps, num_pixels)
    out = x.new_empty(units, steps, num_pixels)
    cells = x.new_empty(units, steps if keep else 1, num_pixels)
    seen = h0 if mask is None else h0 * mask
    before = c0
    for step in range(steps):
        gates[:, step].addmm_(weight_hh, seen)
        seen = out[:, step] if mask is None else seen
        cell = cells[:, step if keep else 0]
        kernels.lstm_step[_blocks(num_pixels, PIXELS), units](
            gates[:, step], before, h0 if mask is None else mask, peephole,
            out[:, step], cell, seen,
            num_pixels, gates.stride(0), before.stride(0), cell.stride(0),
            UNITS=units, BLOCK=PIXELS, MASKED=mask is not None, KEEP=keep,
        )  # fmt: skip
        before = cell
    return out, cells, gates


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        out, cells, gates = _lstm_forward(*given, keep=True)
        ctx.save_for_backward(*given[:-1], out, cells, gates)
        return out, cells

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_cells: Tensor) -> tuple[Tensor | None, ...]:
        from flowsight.systems.background.network import kernels, lstm

        x, h0, c0, mask, weight_ih, weight_hh, peephole, out, cells, gates = ctx.saved_tensors
        (units, num_pixels), steps = h0.shape, x.shape[1]
        grad_out, grad_cells = grad_out.contiguous(), grad_cells.contiguous()
        da = torch.empty_like(gates)
        dh, dc = torch.zeros_like(h0), torch.zeros_like(c0)
        for step in reversed(range(steps)):
            before = cells[:, step - 1] if step else c0
            kernels.lstm_step_backward[_blocks(num_pixels, PIXELS), units](
                gates[:, step], before, h0 if mask is None else mask, peephole, cells[:, step],
                grad_out[:, step], grad_cells[:, step], dh, dc, da[:, step],
                num_pixels, gates.stride(0), before.stride(0),
                UNITS=units, BLOCK=PIXELS, MASKED=mask is not None,
            )  # fmt: skip
            torch.mm(weight_hh.t(), da[:, step], out=dh)
        grad_x, weights = lstm.sums(
            da, x, h0, c0, mask, weight_ih, out, cells, wants_x=ctx.needs_input_grad[0]
        )
        return grad_x, dh if mask is None else dh * mask, dc, None, *weights


def sweeps(projected: Tensor, mask: Tensor | None, weight_hh: Tensor, bias_hn: Tensor) -> Tensor:
    """`gru.FourWayGRU` along one axis, both ways.

    Args:
        projected: (3V, L, M, N) with any strides, steps second.
        mask: (V, M).
        weight_hh, bias_hn: (3V, V) and (V,).

    Returns:
        (2, V, L, M, N).
    """
    given = (projected, None if mask is None else mask.contiguous(), weight_hh, bias_hn)
    if torch.is_grad_enabled():
        out: Tensor = _Sweep.apply(*given)
        return out
    return _sweep_forward(*given)


def _sweep_forward(
    projected: Tensor, mask: Tensor | None, weight_hh: Tensor, bias_hn: Tensor
) -> Tensor:
    from flowsight.systems.background.network import kernels

    units, (steps, *lines) = weight_hh.shape[1], projected.shape[1:]
    out = projected.new_empty(2, units, steps, *lines)
    grid, sizes = _sweep_launch(projected)
    kernels.sweep_forward[grid](
        projected, projected if mask is None else mask, weight_hh, bias_hn, out, *sizes,
        *projected.stride(), MASKED=mask is not None, **_sweep_block(units),
    )  # fmt: skip
    return out


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        out = _sweep_forward(*given)
        ctx.save_for_backward(*given, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        from flowsight.systems.background.network import kernels

        projected, mask, weight_hh, bias_hn, out = ctx.saved_tensors
        units, side = weight_hh.shape[1], padded(weight_hh.shape[1])
        grid, sizes = _sweep_launch(projected)
        grad = projected.new_empty(2, *projected.shape)
        weight = projected.new_empty(2 * grid[0], 3, side, side)
        bias = projected.new_empty(2 * grid[0], side)
        kernels.sweep_backward[grid](
            projected, projected if mask is None else mask, weight_hh, bias_hn, out,
            grad_out.contiguous(), grad, weight, bias, *sizes, *projected.stride(),
            MASKED=mask is not None, **_sweep_block(units),
        )  # fmt: skip
        grad_weight = weight.sum(0)[:, :units, :units].flatten(0, 1)
        return grad.sum(0), None, grad_weight, bias.sum(0)[:units]


def _sweep_launch(projected: Tensor) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Grid; and steps, lines and lines of a map."""
    _, steps, maps, per_map = projected.shape
    return (_blocks(maps * per_map, LINES), 2), (steps, maps * per_map, per_map)


def _sweep_block(units: int) -> dict[str, int]:
    side = padded(units)
    shape = {"UNITS": units, "PADDED": side, "BLOCK": LINES}
    return shape | {"num_warps": side // 16, "num_stages": 1}


def _blocks(count: int, size: int) -> int:
    return -(-count // size)
