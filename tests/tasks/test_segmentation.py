"""The loss on scored pixels against torch's own, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch

from flowsight.systems.background import loss


def test_only_scored_pixels_count() -> None:
    truth = torch.tensor([0, 50, 85, 170, 255, 255], dtype=torch.uint8).view(1, 1, 2, 3)
    logits = torch.tensor([-1.0, 2.0, 9.0, -9.0, 3.0, -0.5], requires_grad=True)
    scored = loss.score(logits.view(1, 1, 2, 3), truth)
    # -log of the probability given to the truth: background, background, moving, moving
    expected = sum(math.log1p(math.exp(v)) for v in (-1.0, 2.0, -3.0, 0.5))
    assert scored.loss.item() == pytest.approx(expected, rel=1e-6)
    assert (scored.pixels.item(), scored.tp.item(), scored.errors.item()) == (4, 1, 2)
    scored.loss.backward()
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [True, True, False, False, True, True]


def test_what_is_not_scored_may_be_infinite() -> None:
    truth = torch.tensor([85, 255], dtype=torch.uint8)
    scored = loss.score(torch.tensor([math.inf, 0.0]), truth)
    assert scored.loss.item() == pytest.approx(math.log(2))
