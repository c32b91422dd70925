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

from flowsight.systems.background.network import fused

# gradients of sigmoid and tanh from their outputs, in one pass over memory each
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
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
            mask = mask[:, None, :, None].expand(-1, 2, -1, projected.shape[3]).flatten(1)
        if torch.is_grad_enabled():
            out: Tensor = _Sweep.apply(projected, mask, self.weight_hh, self.bias_hn)
            return out
        _, _, h = _run(projected, mask, self.weight_hh, self.bias_hn, keep=False)
        return _from_steps(h[1:], projected.shape[2:])


def as_maps(across: Tensor, down: Tensor) -> Tensor:
    """The four outputs as maps, (4V, M, H, W) in the order of `DIRECTIONS`."""
    return torch.cat(
        [across.permute(0, 1, 3, 4, 2).flatten(0, 1), down.permute(0, 1, 3, 2, 4).flatten(0, 1)]
    )


def _from_steps(x: Tensor, lines: torch.Size) -> Tensor:
    """(L, C, 2 M N) -> (2, C, L, M, N), each way's steps in the map's order."""
    both = x.unflatten(2, (2, *lines)).transpose(0, 1)
    there, back = both.unbind(2)
    if x.is_cuda:
        return torch.stack([there, back.flip(1)])
    out = x.new_empty(2, *there.shape)
    # by NumPy: its slices may run backwards, torch would copy the whole first
    out[0], out.numpy()[1] = there, back.numpy()[:, ::-1]
    return out


def _run(
    projected: Tensor, mask: Tensor | None, weight_hh: Tensor, bias_hn: Tensor, *, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Both sweeps in step: r, z, n (L, 3V, 2MN), q (L, V, 2MN) and h (1 + L, V, 2MN), from zero on.

    The two ways of a step lie side by side. Without `keep` all but h is that of the last step only.
    """
    units, (steps, maps, per_map) = weight_hh.shape[1], projected.shape[1:]
    lines = 2 * maps * per_map
    gates = projected.new_empty(steps if keep else 1, 3 * units, lines)
    q = projected.new_empty(len(gates), units, lines)
    h = projected.new_empty(1 + steps, units, lines)
    h[0] = 0
    first_weight, last_weight = weight_hh.split([2 * units, units])
    bias, inputs, states = bias_hn[:, None], projected.unbind(1), h.unbind()
    # a step's views are made beforehand: to make one takes as long as to compute with a small one
    views = [v.unbind() for v in (*gates.split([2 * units, units], dim=1), q)]
    ways = [v.unbind() for v in gates.view(-1, 3 * units, 2, maps, per_map).unbind(2)]
    for step in range(steps):
        first, n, candidate = (view[step if keep else 0] for view in views)
        there, back = (way[step if keep else 0] for way in ways)
        there.copy_(inputs[step])
        back.copy_(inputs[-1 - step])
        seen = states[step] if mask is None else states[step] * mask
        torch.addmm(bias, last_weight, seen, out=candidate)
        first.addmm_(first_weight, seen).sigmoid_()
        # tanh(v) = 2 sigma(2 v) - 1: far faster than torch's tanh
        n.addcmul_(candidate, first[:units]).mul_(2).sigmoid_().mul_(2).sub_(1)
        torch.lerp(n, states[step], first[units:], out=states[step + 1])
    return gates, q, h


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
        gates, q, h = _run(projected, mask, weight_hh, bias_hn, keep=True)
        ctx.save_for_backward(mask, weight_hh, gates, q, h)
        ctx.lines = projected.shape[2:]
        return _from_steps(h[1:], ctx.lines)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        mask, weight_hh, gates, q, h = ctx.saved_tensors
        units, turned = weight_hh.shape[1], weight_hh.t()
        da, d_n = torch.empty_like(gates), torch.empty_like(q)  # of r, z, q; and of n
        carried = torch.zeros_like(h[0])
        there, back = (grad.unbind(1) for grad in grad_out)
        values, grads = ([v.unbind() for v in p.split(units, dim=1)] for p in (gates, da))
        states, candidates, d_ns, das = (v.unbind() for v in (h, q, d_n, da))
        for step in reversed(range(len(q))):
            r, z, n = (view[step] for view in values)
            d_r, d_z, d_q = (view[step] for view in grads)
            dh = carried
            one, other = dh.view(units, 2, *ctx.lines).unbind(1)
            one.add_(there[step])
            other.add_(back[-1 - step])
            passed = dh * z
            _sigmoid_backward((states[step] - n).mul_(dh), z, grad_input=d_z)
            _tanh_backward(dh.sub_(passed), n, grad_input=d_ns[step])
            _sigmoid_backward(d_ns[step] * candidates[step], r, grad_input=d_r)
            torch.mul(d_ns[step], r, out=d_q)
            if mask is None:
                carried = passed.addmm_(turned, das[step])
            else:
                carried = passed.addcmul_(turned @ das[step], mask)
        seen = h[:-1] if mask is None else h[:-1] * mask
        grad_weight = torch.bmm(da, seen.transpose(1, 2)).sum(0)
        grad_bias = da[:, 2 * units :].sum((0, 2))
        da[:, 2 * units :] = d_n
        one, other = _from_steps(da, ctx.lines)
        return one.add_(other), None, grad_weight, grad_bias
