"""A plan found: which layers lose how many kernels, so that a network fits a time budget.

Greedy. Each round takes, of all layers, the next slice of the least important kernels that costs
the least loss (first-order, `slimming.taylor_scores`) per second saved, cuts it, and scores what is
left anew, for what a kernel is worth hangs on those that are gone. Seconds come from a layer's own
time, measured once, which shrinks with its kernels and with its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from flowsight.errors import InputError
from flowsight.nn import slimming
from flowsight.nn.channel_graph import ChannelGraph, Group, is_depthwise
from flowsight.nn.slimming import Scores


@dataclass(frozen=True, kw_only=True)
class Step:
    """One slice that was cut."""

    layers: tuple[str, ...]
    """Layers whose kernels went together."""
    kept: int
    """Kernels that are left of the first of them."""
    loss: float
    """First-order change of the loss, in the scores' unit."""
    seconds: float
    """Of the whole network afterwards, by the layers' times."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search ends with."""

    plan: dict[str, float]
    """Layer -> share of its kernels that stays, as `slimming.slim` takes it."""
    steps: tuple[Step, ...]
    network: nn.Module
    """Cut step by step; not trained on."""
    seconds: dict[str, float]
    """Layer -> its own time, as far as it follows from its kernels and inputs."""


def search(
    network: nn.Module,
    layers: Sequence[str],
    example: Tensor,
    *,
    seconds: Mapping[str, float],
    other_seconds: float,
    score: Callable[[nn.Module, Sequence[str]], Scores],
    budget: float,
    slice_share: float = 0.125,
    smallest_share: float = 0.125,
    original: nn.Module | None = None,
) -> Found:
    """Cut kernels until the network's time is at most the budget.

    Args:
        network: trained; left as it was.
        layers: those that may lose kernels.
        example: as for `slimming.slim`.
        seconds: layer -> its own time in the network; those that are not named take none.
        other_seconds: what cutting does not change.
        score: (network, layers) -> importance of each kernel in it, with those that go together.
        budget: seconds, of the layers and the others together.
        slice_share: share of a layer's original kernels cut at once.
        smallest_share: share that stays at least.
        original: the network that the plan's shares are of, where this one is what an earlier
            search found (with `Found.seconds`) and goes on; None: this one.

    Raises:
        InputError: the budget cannot be met, or a layer that cannot be cut.
    """
    counts = {name: _num_kernels(original or network, name) for name in layers}
    times, steps = dict(seconds), []
    while sum(times.values()) + other_seconds > budget:
        scores = score(network, layers)
        groups = ChannelGraph(network, example).groups(list(layers))
        options = [
            option
            for group in groups
            if (option := _slice(network, group, counts, scores, times, slice_share,
                                 smallest_share)) is not None
        ]  # fmt: skip
        if not options:
            raise InputError(
                f"expected a plan within {budget:.4g} s, got down to "
                f"{sum(times.values()) + other_seconds:.4g} s with every layer at its smallest; "
                "allow more time or smaller layers"
            )
        best = min(options, key=lambda option: option.price)
        network = slimming.slim(
            network, {best.layer: best.kept / best.count}, example, choice="taylor", scores=scores
        )
        times = best.times
        steps.append(
            Step(
                layers=best.layers,
                kept=best.kept,
                loss=best.loss,
                seconds=sum(times.values()) + other_seconds,
            )
        )
    plan = {
        name: kept / count
        for name, count in counts.items()
        if (kept := _num_kernels(network, name)) < count
    }
    return Found(plan=plan, steps=tuple(steps), network=network, seconds=times)


@dataclass(frozen=True, kw_only=True)
class _Option:
    """A slice that may be cut next."""

    layer: str
    layers: tuple[str, ...]
    count: int
    kept: int
    loss: float
    times: dict[str, float]
    price: float
    """Loss for each second saved."""


def _slice(
    network: nn.Module,
    group: Group,
    original: Mapping[str, int],
    scores: Scores,
    times: Mapping[str, float],
    slice_share: float,
    smallest_share: float,
) -> _Option | None:
    first = next(name for name in group.layers if name in original)
    count = len(group.kernels)
    size = max(1, round(slice_share * original[first]))
    if count - size < max(1, round(smallest_share * original[first])):
        return None
    # kernels that go together share one score (`taylor_scores`)
    values = [float(scores[name][kernels[0]]) for name, kernels in
              (next(iter(part.items())) for part in group.kernels)]  # fmt: skip
    order = sorted(range(count), key=lambda part: values[part])[:size]
    after = _times_without(network, group, order, times)
    saved = sum(times.values()) - sum(after.values())
    loss = sum(values[part] for part in order)
    return _Option(
        layer=first,
        layers=tuple(group.layers),
        count=count,
        kept=count - size,
        loss=loss,
        times=after,
        price=loss / saved if saved > 0 else float("inf"),
    )


def _times_without(
    network: nn.Module, group: Group, parts: Sequence[int], times: Mapping[str, float]
) -> dict[str, float]:
    """Layer times once these components are gone: as many kernels less, as many inputs less."""
    lost: dict[str, int] = {}
    dead: dict[str, int] = {}
    for part in parts:
        for target, found in ((lost, group.kernels[part]), (dead, group.slots[part])):
            for name, channels in found.items():
                target[name] = target.get(name, 0) + len(channels)
    after = dict(times)
    for name in times:
        part_of = network.get_submodule(name)
        if isinstance(part_of, _BatchNorm):
            after[name] *= 1 - dead.get(name, 0) / part_of.num_features
            continue
        kernels, inputs = part_of.get_parameter("weight").shape[:2]
        if is_depthwise(part_of):
            after[name] *= 1 - dead.get(name, 0) / kernels
            continue
        after[name] *= (1 - lost.get(name, 0) / kernels) * (1 - dead.get(name, 0) / inputs)
    return after


def _num_kernels(network: nn.Module, name: str) -> int:
    return len(network.get_submodule(name).get_parameter("weight"))
