"""Adam against torch's own class."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from flowsight.adam import Adam


def steps(optimizer: Adam | torch.optim.Optimizer, parameter: nn.Parameter, count: int) -> None:
    for k in range(count):
        optimizer.zero_grad()
        ((parameter - k) ** 3).sum().backward()
        optimizer.step()


def test_steps_are_torchs_also_when_it_goes_on() -> None:
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    own, other = Adam([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1, foreach=False)
    steps(own, ours, 3)
    resumed = Adam([ours], lr=0.3)
    resumed.load_state_dict(own.state_dict())
    resumed.lr = 0.05
    steps(resumed, ours, 4)
    steps(other, theirs, 3)
    other.param_groups[0]["lr"] = 0.05
    steps(other, theirs, 4)
    assert torch.equal(ours, theirs) and not torch.equal(ours, start)


@pytest.mark.slow
def test_it_does_not_load_the_compiler() -> None:
    script = (
        "import sys, torch; from flowsight.adam import Adam; p = torch.nn.Parameter(torch.ones(2));"
        "a = Adam([p], lr=0.1); (p ** 2).sum().backward(); a.step();"
        "assert 'torch._dynamo' not in sys.modules and float(p.max()) < 1"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
