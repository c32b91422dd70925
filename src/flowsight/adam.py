"""Adam by torch's own function, without the class around it.

`torch.optim.Adam` loads all of torch's compiler when it is made, which takes seconds of every
training; the function that it calls for its arithmetic does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """Kingma and Ba 2015, with the usual rates of decay 0.9 and 0.999.

    Args:
        parameters: what is trained; each must have a gradient at each step.
        lr: learning rate; may be set anew before any step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters, self.lr = list(parameters), lr
        self._steps = [torch.zeros(()) for _ in self.parameters]
        self._means = [torch.zeros_like(p) for p in self.parameters]
        self._squares = [torch.zeros_like(p) for p in self.parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters along their gradients."""
        adam(
            self.parameters,  # type: ignore[arg-type]
            [p.grad for p in self.parameters if p.grad is not None],
            self._means,
            self._squares,
            [],
            self._steps,
            foreach=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.lr,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state_dict(self) -> dict[str, list[Tensor]]:
        """What a training needs to go on."""
        return {"steps": self._steps, "means": self._means, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, on whatever device it was."""
        for own, saved in (
            (self._steps, state["steps"]),
            (self._means, state["means"]),
            (self._squares, state["squares"]),
        ):
            for tensor, value in zip(own, saved, strict=True):
                tensor.copy_(value)
