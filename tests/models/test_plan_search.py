"""Searching a plan: within the budget, cheapest loss first, times that are the slim network's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from flowsight.errors import InputError
from flowsight.nn import cost, plan_search, slimming
from flowsight.systems.residual3d import network as residual3d
from flowsight.systems.saliency import network as saliency

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LAYERS = ("conv3_3", "conv4_2", "fc6", "fc7")


def network() -> nn.Module:
    torch.manual_seed(0)
    return saliency.build(backbone="vgg16", width=2, border="same").eval()


def layer_macs(net: nn.Module) -> dict[str, float]:
    """Multiply-adds of each layer, as if they were seconds."""
    found: dict[str, float] = {}

    def count(name: str) -> None:
        part = net.get_submodule(name)
        part.register_forward_hook(
            lambda p, given, out: found.__setitem__(
                name, float(out.shape[2] * out.shape[3] * p.weight.numel())
            )
        )

    names = [n for n, p in net.named_modules() if type(p) is nn.Conv2d]
    for name in names:
        count(name)
    net(EXAMPLE)
    for name in names:
        net.get_submodule(name)._forward_hooks.clear()
    return found


def worth(values: dict[str, float]) -> object:
    """Scores that are the same for all kernels of a layer, but rise with their number."""

    def score(net: nn.Module, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        return {
            name: values[name] * (1 + 1e-3 * torch.arange(len(net.get_submodule(name).weight)))
            for name in layers
        }

    return score


def search(values: dict[str, float], share: float, **options: object) -> plan_search.Found:
    net = network()
    seconds = layer_macs(net)
    return plan_search.search(
        net,
        LAYERS,
        EXAMPLE,
        seconds=seconds,
        other_seconds=0.0,
        score=worth(values),  # type: ignore[arg-type]
        budget=share * sum(seconds.values()),
        **options,  # type: ignore[arg-type]
    )


def test_the_cheapest_layer_goes_first_and_the_budget_is_kept() -> None:
    even = dict.fromkeys(LAYERS, 1.0)
    total = sum(layer_macs(network()).values())
    found = search(even | {"fc6": 1e-9}, 0.9, slice_share=0.125)
    assert set(found.plan) == {"fc6"}
    assert found.steps[-1].seconds <= 0.9 * total
    assert all(step.seconds > 0.9 * total for step in found.steps[:-1])
    assert [step.kept for step in found.steps] == [
        128 - 16 * (i + 1) for i in range(len(found.steps))
    ]
    assert found.plan["fc6"] == found.steps[-1].kept / 128


def test_times_are_those_of_the_slim_network() -> None:
    """With multiply-adds as seconds the arithmetic must be exact, skips and all."""
    found = search(dict(zip(LAYERS, (1.0, 1e-2, 3.0, 0.5), strict=True)), 0.6, slice_share=0.25)
    assert len(found.plan) > 1
    assert found.steps[-1].seconds == pytest.approx(sum(layer_macs(found.network).values()))
    # the plan alone gives a network of the same size
    slim = slimming.slim(network(), found.plan, EXAMPLE)
    assert {k: v.shape for k, v in slim.state_dict().items()} == {
        k: v.shape for k, v in found.network.state_dict().items()
    }
    assert cost.num_parameters(slim) < cost.num_parameters(network())


def test_a_search_goes_on_where_another_ended() -> None:
    values = dict(zip(LAYERS, (1.0, 1e-2, 3.0, 0.5), strict=True))
    whole = search(values, 0.6, slice_share=0.25)
    net = network()
    seconds = layer_macs(net)
    options = {"other_seconds": 0.0, "score": worth(values), "slice_share": 0.25}
    total = sum(seconds.values())
    half = plan_search.search(net, LAYERS, EXAMPLE, seconds=seconds, budget=0.8 * total, **options)  # type: ignore[arg-type]
    rest = plan_search.search(
        half.network, LAYERS, EXAMPLE, seconds=half.seconds, budget=0.6 * total, original=net,
        **options,
    )  # type: ignore[arg-type]  # fmt: skip
    assert rest.plan == whole.plan
    assert half.steps + rest.steps == whole.steps


def test_kernels_of_no_worth_go_before_any_other() -> None:
    net = network()
    seconds = layer_macs(net)

    def score(net: nn.Module, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        found = {n: torch.ones(len(net.get_submodule(n).weight)) for n in layers}
        found["conv4_2"][: len(found["conv4_2"]) // 2] = 0
        return found

    found = plan_search.search(
        net, LAYERS, EXAMPLE, seconds=seconds, other_seconds=1.0, score=score,
        budget=1.0 + sum(seconds.values()) * 0.999,
    )  # fmt: skip
    (step,) = found.steps
    assert (step.layers, step.kept, step.loss) == (("conv4_2",), 14, 0)
    assert torch.equal(
        found.network.conv4_2.weight, net.conv4_2.weight[[0, 1, 2, 3, 4, 5, *range(8, 16)]]
    ), "of equal ones the last go"


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(InputError, match="with every layer at its smallest"):
        search(dict.fromkeys(LAYERS, 1.0), 0.1, slice_share=0.5)


def test_kernels_that_meet_count_once() -> None:
    torch.manual_seed(0)
    net = residual3d.build(backbone="resnet3d_10", modality="rgb", num_classes=3, width=4).eval()
    clip = torch.randn(1, 3, 4, 16, 16)
    layers = ("layer2.0.conv2.0", "layer2.0.downsample.0")

    def score(net: nn.Module, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        return slimming.taylor_scores(
            net, layers, clip, [(clip, torch.tensor([0]))], nn.CrossEntropyLoss(reduction="sum")
        )

    found = plan_search.search(
        net, layers, clip, seconds=dict.fromkeys(layers, 1.0), other_seconds=0.0, score=score,
        budget=1.6, slice_share=0.25,
    )  # fmt: skip
    assert found.plan == dict.fromkeys(layers, 0.75)
    assert found.steps[0].seconds == 1.5
