"""One GRU that sweeps maps in four directions: left to right, right to left, down and up.

Axes: C input channels, V units, M maps, H rows, W columns; a sweep has L steps over N lines.

    r = sigma(W_r x + R_r (h * m) + b_r)                 reset gate
    z = sigma(W_z x + R_z (h * m) + b_z)                 update gate
    n =  tanh(W_n x + b_n + r * (R_n (h * m) + q))       candidate
    h' = (1 - z) * n + z * h

The order of gates and the place of r are those of cuDNN and `torch.nn.GRU`: one matrix product a
step. m is the dropout mask of the recurrent state, the same at every step and in every direction.
The four sweeps share all weights: a direction is the same GRU on the mirrored or transposed map.
Sources: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder" (GRU); Visin
et al. 2015, "ReNet" (sweeps in four directions).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flowsight.models.background import fused

# gradients of sigmoid and tanh from their outputs, in one pass over memory each
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.default
DIRECTIONS = ("right", "left", "down", "up")
"""Where a sweep goes; the order of the outputs."""


class FourWayGRU(nn.Module):
    """The equations above, in four directions.

    Args:
        channels: C.
        units: V.
    """

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(3 * units, channels))  # rows r, z, n
        self.weight_hh = nn.Parameter(torch.empty(3 * units, units))
        self.bias_ih = nn.Parameter(torch.zeros(3 * units))
        self.bias_hn = nn.Parameter(torch.zeros(units))  # q above
        for gate in range(3):
            rows = slice(gate * units, (gate + 1) * units)
            nn.init.xavier_uniform_(self.weight_ih.data[rows])
            nn.init.orthogonal_(self.weight_hh.data[rows])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sweep maps.

        Args:
            x: (C, M, H, W).
            mask: (V, M), m above for each map; None: ones.

        Returns:
            Sweeps along rows (2, V, W, M, H): right, left; and along columns (2, V, H, M, W): down,
            up. Steps stand before lines, as they were computed; see `as_maps`.
        """
        projected = torch.addmm(self.bias_ih[:, None], self.weight_ih, x.flatten(1))
        projected = projected.view(-1, *x.shape[1:])  # (3V, M, H, W), for all directions
        across, down = projected.permute(0, 3, 1, 2), projected.permute(0, 2, 1, 3)
        if fused.usable(x):
            weights = (self.weight_hh, self.bias_hn)
            return fused.sweeps(across, mask, *weights), fused.sweeps(down, mask, *weights)
        return self._both_ways(across.contiguous(), mask), self._both_ways(down, mask)

    def _both_ways(self, projected: Tensor, mask: Tensor | None) -> Tensor:
        """(3V, L, M, N) -> (2, V, L, M, N): from the first step to the last, and back."""
        if mask is not None:
            mask = mask[:, None, :, None].expand(-1, 2, -1, projected.shape[3]).contiguous()
        if torch.is_grad_enabled():
            out: Tensor = _Sweep.apply(projected, mask, self.weight_hh, self.bias_hn)
            return out
        return _run(projected, mask, self.weight_hh, self.bias_hn, keep=False)[0]


def as_maps(across: Tensor, down: Tensor) -> Tensor:
    """The four outputs as maps, (4V, M, H, W) in the order of `DIRECTIONS`."""
    return torch.cat(
        [across.permute(0, 1, 3, 4, 2).flatten(0, 1), down.permute(0, 1, 3, 2, 4).flatten(0, 1)]
    )


def _run(
    projected: Tensor, mask: Tensor | None, weight_hh: Tensor, bias_hn: Tensor, *, keep: bool
) -> tuple[Tensor, Tensor]:
    """Both sweeps in step: outputs (2, V, L, M, N) and, if kept, r, z, n, q (L, 4V, 2, M, N)."""
    units, (steps, *lines) = weight_hh.shape[1], projected.shape[1:]
    out = projected.new_empty(2, units, steps, *lines)
    kept = projected.new_empty(steps if keep else 0, 4 * units, 2, *lines)
    scratch = kept if keep else projected.new_empty(1, 4 * units, 2, *lines)
    h = projected.new_zeros(units, 2, *lines)
    bias = bias_hn.view(-1, *[1] * (len(lines) + 1))
    firsts, seconds = (part.unbind(1) for part in projected.split([2 * units, units]))
    for step in range(steps):
        back = steps - 1 - step
        gates, q = scratch[step if keep else 0].split([3 * units, units])
        first, n = gates.split([2 * units, units])
        seen = h if mask is None else h * mask
        torch.mm(weight_hh, seen.view(units, -1), out=gates.view(3 * units, -1))
        torch.add(n, bias, out=q)
        first[:, 0].add_(firsts[step])  # `+=` would copy the sum onto itself
        first[:, 1].add_(firsts[back])
        first.sigmoid_()
        torch.mul(q, first[:units], out=n)
        n[:, 0].add_(seconds[step])
        n[:, 1].add_(seconds[back])
        # tanh(v) = 2 sigma(2 v) - 1: far faster than torch's tanh
        n.mul_(2).sigmoid_().mul_(2).sub_(1)
        h = torch.lerp(n, h, first[units:])
        out[0, :, step], out[1, :, back] = h[:, 0], h[:, 1]
    return out, kept


class _Sweep(torch.autograd.Function):
    """Both sweeps with their derivative written out."""

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        mask: Tensor | None,
        weight_hh: Tensor,
        bias_hn: Tensor,
    ) -> Tensor:
        out, kept = _run(projected, mask, weight_hh, bias_hn, keep=True)
        ctx.save_for_backward(mask, weight_hh, out, kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        mask, weight_hh, out, kept = ctx.saved_tensors
        units, steps = weight_hh.shape[1], out.shape[2]
        grad = out.new_zeros(3 * units, *out.shape[2:])
        grad_weight, grad_bias = torch.zeros_like(weight_hh), weight_hh.new_zeros(units)
        carried, da = torch.zeros_like(kept[0, :units]), torch.empty_like(kept[0, : 3 * units])
        firsts, seconds = (part.unbind(1) for part in grad.split([2 * units, units]))
        for step in reversed(range(steps)):
            back = steps - 1 - step
            r, z, n, q = kept[step].unflatten(0, (4, units))
            if step:
                before = torch.stack([out[0, :, step - 1], out[1, :, back + 1]], dim=1)
            else:
                before = torch.zeros_like(n)
            dh = carried
            dh[:, 0].add_(grad_out[0, :, step])
            dh[:, 1].add_(grad_out[1, :, back])
            passed = dh * z
            d_r, d_z, d_q = da.unflatten(0, (3, units))
            _sigmoid_backward((before - n).mul_(dh), z, grad_input=d_z)
            d_n = _tanh_backward(dh - passed, n)
            _sigmoid_backward(d_n * q, r, grad_input=d_r)
            torch.mul(d_n, r, out=d_q)
            for way, place in enumerate((step, back)):
                firsts[place].add_(da[: 2 * units, way])
                seconds[place].add_(d_n[:, way])
            seen = before if mask is None else before * mask
            flat = da.view(3 * units, -1)
            grad_weight.addmm_(flat, seen.view(units, -1).t())
            grad_bias += d_q.sum(dim=tuple(range(1, d_q.ndim)))
            carried = (weight_hh.t() @ flat).view_as(dh)
            if mask is not None:
                carried.mul_(mask)
            carried += passed
        return grad, None, grad_weight, grad_bias
