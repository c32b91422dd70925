"""A peephole LSTM over time, one state a pixel, one set of weights for all pixels.

Axes: C input channels, U units, T frames, N pixels (of all maps of a batch). Channels stand first:
every gate of a step is then one contiguous block, and a map of the space part is a view.

    i = sigma(W_i x + R_i (h * m) + p_i * c  + b_i)      input gate
    f = sigma(W_f x + R_f (h * m) + p_f * c  + b_f)      forget gate
    g =  tanh(W_g x + R_g (h * m)            + b_g)      candidate
    c' = f * c + i * g
    o = sigma(W_o x + R_o (h * m) + p_o * c' + b_o)      output gate, sees the new cell
    h' = o * tanh(c')

x, h and c are those of a pixel; m is the dropout mask of the recurrent state, the same at every
step. Sources: Gers, Schraudolph and Schmidhuber 2002, "Learning precise timing with LSTM recurrent
networks" (peepholes); Gal and Ghahramani 2016, "A theoretically grounded application of dropout in
recurrent neural networks" (masks).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from flowsight.systems.background.network import fused

# gradients of sigmoid and tanh from their outputs, in one pass over memory each
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.default
_tanh_backward_out = torch.ops.aten.tanh_backward.grad_input
BLOCK = 2048
"""Pixels computed together on a CPU: their gates stay in its second-level cache."""
States = tuple[Tensor, Tensor]
"""Output h and cell c, each (U, N)."""


class PeepholeLSTM(nn.Module):
    """The equations above.

    Args:
        channels: C.
        units: U.
        pairs: see `_start_with_pairs`.
    """

    def __init__(self, channels: int, units: int, *, pairs: bool = False) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * units, channels))  # rows i, f, g, o
        self.weight_hh = nn.Parameter(torch.empty(4 * units, units))
        self.peephole = nn.Parameter(torch.zeros(3, units))  # of i, f, o
        self.bias = nn.Parameter(torch.zeros(4 * units))
        for gate in range(4):
            rows = slice(gate * units, (gate + 1) * units)
            nn.init.xavier_uniform_(self.weight_ih.data[rows])
            nn.init.orthogonal_(self.weight_hh.data[rows])
        self._start_with_memories(units)
        if pairs:
            self._start_with_pairs(units)

    def _start_with_memories(self, units: int) -> None:
        """Half of the units start as running means of what they see, over 4 to 40 frames.

        The background is such a mean, and a network that must find that out first learns nothing
        for its first hundreds of steps. The biases are those of Tallec and Ollivier 2018, "Can
        recurrent neural networks warp time?".
        """
        self.bias.data[units : 2 * units] = 1.0
        spans = torch.linspace(4, 40, units // 2).log()
        self.bias.data[: len(spans)] = -spans
        self.bias.data[units : units + len(spans)] = spans
        self.weight_hh.data[2 * units : 2 * units + len(spans)] = 0.0

    def _start_with_pairs(self, units: int) -> None:
        """The other half start as what is seen now, of the same features, unit by unit.

        The difference of a pair is then near zero wherever nothing changes, whatever the level, and
        the next part has only to weigh it; README.md of this system tells what that gains. Training
        sequences must then last longer than the memories, or nothing tells what comes later.
        """
        half = units // 2
        gates = self.weight_ih.data.unflatten(0, (4, units))  # a view: rows i, f, g, o
        recurrent = self.weight_hh.data.unflatten(0, (4, units))
        gates[2, half : 2 * half] = gates[2, :half]
        recurrent[2] = 0.0
        for gate in (0, 1, 3):  # open or closed by their biases, not by the level
            gates[gate] *= 0.1
            recurrent[gate] *= 0.1
        bias = self.bias.data.view(4, units)
        bias[0, half : 2 * half], bias[1, half : 2 * half], bias[3] = 2.0, -2.0, 1.0

    def forward(
        self, x: Tensor, state: States | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Go through T frames.

        Args:
            x: (C, T, N).
            state: where the frames before ended; None: zeros.
            mask: (U, N), m above; None: ones.

        Returns:
            h of every frame (U, T, N), and the last state.
        """
        units, num_pixels = self.weight_hh.shape[1], x.shape[2]
        h, c = state if state is not None else (x.new_zeros(units, num_pixels),) * 2
        weights = (self.weight_ih, self.weight_hh, self.peephole, self.bias)
        if fused.usable(x):
            out, cells = fused.lstm(x, h, c, mask, *weights)
        elif torch.is_grad_enabled():
            out, cells = _Sequence.apply(x, h, c, mask, *weights)
        else:
            out, cells, _, _ = _run(x, h, c, mask, *weights, keep=False)
        return out, (out[:, -1], cells[:, -1])


def _blocks(x: Tensor) -> Iterator[slice]:
    """Parts of the pixels; on a GPU all at once."""
    size = BLOCK if x.device.type == "cpu" else x.shape[2]
    return (slice(start, start + size) for start in range(0, x.shape[2], size))


def _run(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All steps: h, c, tanh(c) (U, T, N) and the gates (4U, T, N).

    Without `keep` there is only the last cell, (U, 1, N), and neither of the last two.
    """
    units, steps, num_pixels = weight_hh.shape[1], x.shape[1], x.shape[2]
    out = x.new_empty(units, steps, num_pixels)
    cells = x.new_empty(units, steps if keep else 1, num_pixels)
    squashed = torch.empty_like(cells) if keep else x.new_empty(0)
    gates = x.new_empty(4 * units, steps, num_pixels) if keep else x.new_empty(0)
    # tanh(v) = 2 sigma(2 v) - 1: one sigmoid for all gates, and far faster than torch's tanh
    scale = torch.ones_like(bias)
    scale[2 * units : 3 * units] = 2.0
    w, r = torch.cat([weight_ih, bias[:, None]], dim=1) * scale[:, None], weight_hh * scale[:, None]
    seen = torch.cat([x, torch.ones_like(x[:1])])  # the bias is one weight more
    p_i, p_f, p_o = peephole[:, :, None]
    for part in _blocks(x):
        h, c = h0[:, part], c0[:, part]
        scratch = x.new_empty(4 * units, h.shape[1])
        for t in range(steps):
            a = gates[:, t, part] if keep else scratch
            torch.mm(w, seen[:, t, part], out=a)
            a.addmm_(r, h if mask is None else h * mask[:, part])
            i, f, g, o = a.view(4, units, -1) if not keep else a.unflatten(0, (4, units))
            i.addcmul_(c, p_i)
            f.addcmul_(c, p_f)
            a[: 3 * units].sigmoid_()
            g.mul_(2).sub_(1)
            new = cells[:, t if keep else 0, part]
            c = torch.addcmul(f * c, i, g, out=new)
            o.addcmul_(c, p_o).sigmoid_()
            tanh = torch.mul(c, 2, out=squashed[:, t, part]) if keep else 2 * c
            tanh.sigmoid_().mul_(2).sub_(1)
            h = torch.mul(tanh, o, out=out[:, t, part])
    return out, cells, squashed, gates


class _Sequence(torch.autograd.Function):
    """The steps with their derivative written out: a third of the memory of recorded steps."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        mask: Tensor | None,
        weight_ih: Tensor,
        weight_hh: Tensor,
        peephole: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        out, cells, squashed, gates = _run(
            x, h0, c0, mask, weight_ih, weight_hh, peephole, bias, keep=True
        )
        ctx.save_for_backward(
            x, h0, c0, mask, weight_ih, weight_hh, peephole, out, cells, squashed, gates
        )
        return out, cells

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_cells: Tensor) -> tuple[Tensor | None, ...]:
        (x, h0, c0, mask, weight_ih, weight_hh, peephole, out, cells, squashed, gates) = (
            ctx.saved_tensors
        )
        units, steps = out.shape[:2]
        p_i, p_f, p_o = peephole[:, :, None]
        da = torch.empty_like(gates)
        grad_h0, grad_c0 = torch.empty_like(h0), torch.empty_like(c0)
        for part in _blocks(x):
            dh, dc = torch.zeros_like(h0[:, part]), torch.zeros_like(c0[:, part])
            for t in reversed(range(steps)):
                i, f, g, o = gates[:, t, part].unflatten(0, (4, units))
                tanh, before = squashed[:, t, part], cells[:, t - 1, part] if t else c0[:, part]
                d_i, d_f, d_g, d_o = da[:, t, part].unflatten(0, (4, units))
                dh += grad_out[:, t, part]
                dc += grad_cells[:, t, part]
                _sigmoid_backward(dh * tanh, o, grad_input=d_o)
                dc += _tanh_backward(dh.mul_(o), tanh)
                dc.addcmul_(d_o, p_o)
                _sigmoid_backward(dc * g, i, grad_input=d_i)
                _sigmoid_backward(dc * before, f, grad_input=d_f)
                _tanh_backward_out(dc * i, g, grad_input=d_g)
                dc.mul_(f).addcmul_(d_i, p_i).addcmul_(d_f, p_f)
                dh = weight_hh.t() @ da[:, t, part]
                if mask is not None:
                    dh.mul_(mask[:, part])
            grad_h0[:, part], grad_c0[:, part] = dh, dc
        grad_x, weights = sums(
            da, x, h0, c0, mask, weight_ih, out, cells, wants_x=ctx.needs_input_grad[0]
        )
        return grad_x, grad_h0, grad_c0, None, *weights


def sums(
    da: Tensor,
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    mask: Tensor | None,
    weight_ih: Tensor,
    out: Tensor,
    cells: Tensor,
    *,
    wants_x: bool,
) -> tuple[Tensor | None, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """From the gates' gradients da (4U, T, N): those of x, if wanted, and of the four weights."""
    units = len(out)
    seen = torch.cat([h0[:, None], out[:, :-1]], dim=1)  # h of the step before
    seen = seen if mask is None else seen * mask[:, None]
    before = torch.cat([c0[:, None], cells[:, :-1]], dim=1)
    flat = da.flatten(1)
    d_i, d_f, _, d_o = da.unflatten(0, (4, units))
    peepholes = [(d * c).sum(dim=(1, 2)) for d, c in ((d_i, before), (d_f, before), (d_o, cells))]
    return (weight_ih.t() @ flat).view_as(x) if wants_x else None, (
        flat @ x.flatten(1).t(),
        flat @ seen.flatten(1).t(),
        torch.stack(peepholes),
        flat.sum(dim=1),
    )
