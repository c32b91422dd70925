"""The fused recurrent parts: in Triton's interpreter, compiled for a GPU, and on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from flowsight.systems.background import network as background
from flowsight.systems.background.network import fused

needs_triton = pytest.mark.skipif(not fused.has_triton(), reason="needs triton")

# the steps of `lstm` and `gru` are the reference; tests/models/test_background.py compares these
# with loops over single numbers
COMPARED = """
import json
import torch
from flowsight.systems.background.network import fused, gru, lstm

fused.PIXELS = 16

def random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

def leaves(parts):
    return [None if p is None else p.clone().requires_grad_() for p in parts]

def worst(one, other, parts):
    found = 0.0
    for function, results in ((one, ours := []), (other, theirs := [])):
        given = leaves(parts)
        outputs = function(*given)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum((o * random(*o.shape, seed=5)).sum() for o in outputs)
        loss.backward()
        results += [*outputs, *(g.grad for g in given if g is not None and g.grad is not None)]
    assert len(ours) == len(theirs) > len(parts) - 1
    for a, b in zip(ours, theirs, strict=True):
        found = max(found, float((a - b).detach().abs().max() / b.detach().abs().max()))
    with torch.no_grad():
        first = [f(*parts) for f in (one, other)]
    last = [f[1][:, -1] if isinstance(f, tuple) else f for f in first]
    return max(found, float((last[0] - last[1]).abs().max()))

def of_lstm(masked):
    channels, units, steps, pixels = 3, 5, 4, 37
    shapes = [(channels, steps, pixels), (units, pixels), (units, pixels)]
    shapes += [(4 * units, channels), (4 * units, units), (3, units), (4 * units,)]
    parts = [0.5 * random(*shape, seed=i) for i, shape in enumerate(shapes)]
    mask = (random(units, pixels, seed=8) > -0.5) / 0.75 if masked else None

    def plain(x, h, c, *weights):
        if torch.is_grad_enabled():
            return lstm._Sequence.apply(x, h, c, mask, *weights)
        return lstm._run(x, h, c, mask, *weights, keep=False)[:2]

    def ours(x, h, c, *weights):
        return fused.lstm(x, h, c, mask, *weights)

    return worst(ours, plain, parts)

def of_gru(masked, maps, turned):
    units, height, width = 6, 7, 9
    projected = random(3 * units, maps, height, width, seed=1)
    parts = [projected, 0.5 * random(3 * units, units, seed=2), random(units, seed=3)]
    mask = (random(units, maps, seed=4) > -0.5) / 0.75 if masked else None
    order = (0, 3, 1, 2) if turned else (0, 2, 1, 3)
    cell = gru.FourWayGRU(2, units)

    def plain(projected, weight, bias):
        cell.weight_hh, cell.bias_hn = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
        swept = None
        if mask is not None:
            lines = projected.permute(order).shape[3]
            swept = mask[:, None, :, None].expand(-1, 2, -1, lines).flatten(1)
        x = projected.permute(order)
        if torch.is_grad_enabled():
            return gru._Sweep.apply(x, swept, weight, bias)
        return gru._from_steps(gru._run(x, swept, weight, bias, keep=False)[2][1:], x.shape[2:])

    def ours(projected, weight, bias):
        return fused.sweeps(projected.permute(order), mask, weight, bias)

    return worst(ours, plain, parts)

print(json.dumps({
    "lstm": of_lstm(False),
    "lstm with dropout": of_lstm(True),
    "along rows": of_gru(False, 2, True),
    "along rows, dropout": of_gru(True, 4, True),
    "along columns": of_gru(False, 4, False),
    "along columns, dropout": of_gru(True, 3, False),
}))
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from flowsight.systems.background.network import kernels

INTEGERS = dict.fromkeys(kernels.SIZES + kernels.LSTM_SIZES, "i32")

def compile_kernel(kernel, **constants):
    names = [parameter.name for parameter in kernel.params]
    types = {n: INTEGERS.get(n, "*fp32") for n in names if n not in constants}
    types |= dict.fromkeys(constants, "constexpr")
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, {name: types[name] for name in names}, values)
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert binary.asm["ptx"]

GRU = {"UNITS": 20, "PADDED": 32, "BLOCK": 16, "MASKED": True}
LSTM = {"UNITS": 30, "BLOCK": 1024, "MASKED": True}
compile_kernel(kernels.sweep_forward, **GRU)
compile_kernel(kernels.sweep_backward, **GRU)
compile_kernel(kernels.lstm_step, KEEP=True, **LSTM)
compile_kernel(kernels.lstm_step_backward, **LSTM)
"""


def run(script: str, **environment: str) -> str:
    """In a process of its own: Triton reads the environment when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@needs_triton
def test_values_and_gradients_are_those_of_the_steps():
    found = json.loads(run(COMPARED, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES=""))
    assert len(found) == 6
    assert max(found.values()) < 2e-5, found


@needs_triton
def test_the_kernels_compile_for_a_gpu():
    run(COMPILED, TRITON_INTERPRET="0")


def test_the_steps_are_used_on_a_cpu():
    assert not fused.usable(torch.zeros(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_gpu_gives_the_numbers_of_the_steps(dropout: float, monkeypatch: pytest.MonkeyPatch):
    """The paper's widths; the steps in float64 on the same GPU."""
    torch.manual_seed(0)
    network = background.build(dropout=dropout).cuda()
    frames = torch.randn(2, 1, 6, 40, 70, device="cuda")

    def outcome(network: Any, frames: torch.Tensor) -> list[torch.Tensor]:
        network.zero_grad()
        torch.manual_seed(1)  # the masks
        first, state = network(frames[:, :, :3])
        logits, _ = network(frames[:, :, 3:], state.detach())
        logits.square().mean().backward()
        return [first, logits, *(p.grad.clone() for p in network.parameters())]

    ours = outcome(network, frames)
    monkeypatch.setattr(fused, "usable", lambda x: False)
    if not dropout:  # float64 would draw other masks
        network, frames = network.double(), frames.double()
    reference = outcome(network, frames)
    for one, other in zip(ours, reference, strict=True):
        scale = other.abs().max()
        assert (one - other).abs().max() <= 2e-4 * scale
