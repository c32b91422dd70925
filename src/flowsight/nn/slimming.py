"""A network with fewer kernels: chosen layers lose some, what follows loses the matching inputs.

Works on any of our convolutional networks: `channel_graph` finds what a kernel reaches, through
batch norms, skip branches, concatenations, shortcuts and flattening. The slim network is the same
code with smaller weights; kept weights are the original's, in their order.

Sources: halving as in the slimmed FCN-8s this system follows (which keeps the first half); Li et
al. 2017, "Pruning filters for efficient ConvNets" (`l1`); Molchanov et al. 2017, "Pruning
convolutional neural networks for resource efficient inference" (`taylor`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from flowsight.errors import InputError
from flowsight.nn.channel_graph import ChannelGraph, Group, is_depthwise

CHOICES = ("first", "random", "l1", "taylor")
Batch = tuple[Tensor, Tensor]
Scores = Mapping[str, Tensor]
"""Layer -> importance of each of its kernels, (C,)."""


@dataclass(frozen=True)
class Cut:
    """What stays of each layer; layers that keep all are not named."""

    kernels: dict[str, list[int]]
    """Layer -> kernels that stay, ascending; depthwise layers and batch norms by their channels."""
    inputs: dict[str, list[int]]
    """Layer -> input channels that stay, ascending."""


def slim(
    network: nn.Module,
    plan: Mapping[str, float],
    example: Tensor,
    *,
    choice: str = "first",
    seed: int = 0,
    scores: Scores | None = None,
) -> nn.Module:
    """A copy of the network in which the plan's layers have fewer kernels.

    Args:
        network: left as it was.
        plan: layer -> share of its kernels that stays, in (0, 1].
        example: an input its forward takes, for finding what follows what.
        choice: which kernels stay: `first`, `random`, `l1` (largest sum of absolute weights) or
            `taylor` (largest of `scores`).
        seed: for `random`.
        scores: for `taylor`, from `taylor_scores`.

    Returns:
        The slim network, in the same mode. It gives what the original gives when the inputs that
        the cut kernels reach are zeroed; this is checked on the example.

    Raises:
        InputError: unknown layer or choice, a share out of range, kernels that cannot be cut.
    """
    cut = plan_cut(network, plan, example, choice=choice, seed=seed, scores=scores)
    slimmed = apply(network, cut)
    _check_same(network, slimmed, cut, example)
    return slimmed


def plan_cut(
    network: nn.Module,
    plan: Mapping[str, float],
    example: Tensor,
    *,
    choice: str = "first",
    seed: int = 0,
    scores: Scores | None = None,
) -> Cut:
    """Which kernels and inputs stay. Args and Raises: as `slim`."""
    if choice not in CHOICES:
        raise InputError(f"expected a choice of {', '.join(CHOICES)}, got {choice!r}")
    for name, share in plan.items():
        if not 0 < share <= 1:
            raise InputError(f"expected a share of kernels in (0, 1] for {name}, got {share}")
    graph = ChannelGraph(network, example)
    lost: dict[str, set[int]] = {}
    dead: dict[str, set[int]] = {}
    for group in graph.groups(list(plan)):
        shares = {plan[name] for name in group.layers if name in plan}
        if len(shares) > 1:
            raise InputError(
                f"expected one share for {', '.join(n for n in group.layers if n in plan)}, whose "
                f"kernels meet and go together, got {', '.join(map(str, sorted(shares)))}"
            )
        ranked = _ranked(group, network, choice=choice, seed=seed, scores=scores)
        keep = num_kept(len(ranked), shares.pop())
        for part in ranked[keep:]:
            for target, found in ((lost, group.kernels[part]), (dead, group.slots[part])):
                for name, channels in found.items():
                    target.setdefault(name, set()).update(channels)
    return _cut(network, lost, dead)


def num_kept(count: int, share: float) -> int:
    """Kernels that stay of `count`: the nearest whole number (halves up), at least 1."""
    return max(1, int(share * count + 0.5))


def _ranked(
    group: Group, network: nn.Module, *, choice: str, seed: int, scores: Scores | None
) -> list[int]:
    """Components of a group, those that stay first; equal ones by their order."""
    count = len(group.kernels)
    if choice == "first":
        return list(range(count))
    if choice == "random":
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    known = kernel_norms(network, group.layers) if choice == "l1" else scores or {}
    missing = [name for name in group.layers if name not in known]
    if missing:
        raise InputError(f"expected scores of {', '.join(missing)} for choice 'taylor', got none")
    value = [
        sum(float(known[name][k]) for name, kernels in part.items() for k in kernels)
        for part in group.kernels
    ]
    return sorted(range(count), key=lambda part: -value[part])


def kernel_norms(network: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Sum of absolute weights of each kernel, (C,) float64 a layer."""
    norms = {}
    for name in names:
        part = network.get_submodule(name)
        kernels = part.get_parameter("weight").detach().double()
        norms[name] = kernels.transpose(0, _kernel_axis(part)).flatten(1).abs().sum(dim=1)
    return norms


def taylor_scores(
    network: nn.Module,
    names: Iterable[str],
    example: Tensor,
    batches: Iterable[Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    """How much the loss would change, to first order, were a kernel's channel zero.

    The change is measured where cutting acts: at the inputs a kernel reaches, as |sum of input
    times its gradient| over places and layers, for each item by itself, averaged over items.
    Kernels that go together share the value.

    Args:
        network: measured in evaluation mode, left as it was.
        names: layers to score.
        example: as for `slim`.
        batches: (x, target), on the network's device.
        loss: of (output, target), the sum over the items of a batch.

    Returns:
        Layer -> (C,) float64, in units of the loss of an item; layers that `names` go together with
        are scored too.
    """
    groups = ChannelGraph(network, example).groups(list(names))
    layers = {n for g in groups for slots in g.slots for n in slots}
    reads = sorted(n for n in layers if not isinstance(network.get_submodule(n), _BatchNorm))
    totals, num_items = [torch.zeros(0) for _ in groups], 0
    for x, target in batches:
        products = _input_products(network, reads, x, target, loss)
        num_items += len(x)
        for i, group in enumerate(groups):
            change = [
                sum(products[n][:, s].sum(dim=1) for n, s in slots.items() if n in products)
                for slots in group.slots
            ]
            found = torch.stack([torch.as_tensor(c) for c in change]).abs().sum(dim=1)
            totals[i] = found if totals[i].numel() == 0 else totals[i] + found
    if num_items == 0:
        raise InputError("expected training data to score kernels on, got none")
    return {
        name: values
        for group, total in zip(groups, totals, strict=True)
        for name, values in _spread(group, total / num_items).items()
    }


def _spread(group: Group, values: Tensor) -> dict[str, Tensor]:
    """Values of components as values of each layer's kernels; shared where kernels go together."""
    found: dict[str, dict[int, float]] = {}
    for part, value in zip(group.kernels, values.tolist(), strict=True):
        for name, kernels in part.items():
            found.setdefault(name, {}).update(dict.fromkeys(kernels, value))
    return {
        name: torch.tensor([v[k] for k in sorted(v)], dtype=torch.float64)
        for name, v in found.items()
    }


def _input_products(
    network: nn.Module,
    names: list[str],
    x: Tensor,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    """Input times gradient of each layer, summed over places: (B, C) float64 on the CPU."""
    inputs: dict[str, Tensor] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            inputs[name] = given[0]

        return hook

    hooks = [network.get_submodule(n).register_forward_pre_hook(remember(n)) for n in names]
    mode = network.training
    try:
        value = loss(network.eval()(x), target)
        gradients = torch.autograd.grad(value, [inputs[n] for n in names])
    finally:
        network.train(mode)
        for hook in hooks:
            hook.remove()
    products = {}
    for name, gradient in zip(names, gradients, strict=True):
        each = (inputs[name].detach().double() * gradient.double()).cpu()
        axis = each.ndim - 1 if isinstance(network.get_submodule(name), nn.Linear) else 1
        places = [a for a in range(1, each.ndim) if a != axis]
        products[name] = each.sum(dim=places) if places else each
    return products


def _cut(network: nn.Module, lost: dict[str, set[int]], dead: dict[str, set[int]]) -> Cut:
    kernels, inputs = {}, {}
    for name, part in network.named_modules():
        # what hands channels on loses a kernel with each input
        passes = isinstance(part, _BatchNorm) or is_depthwise(part)
        gone = dead.get(name, set()) if passes else lost.get(name, set())
        if gone:
            kernels[name] = [c for c in range(_num_channels(part)) if c not in gone]
        if dead.get(name) and not passes:
            size = part.get_parameter("weight").shape[1 - _kernel_axis(part)]
            inputs[name] = [c for c in range(size) if c not in dead[name]]
    return Cut(kernels, inputs)


def _num_channels(part: nn.Module) -> int:
    if isinstance(part, _BatchNorm):
        return part.num_features
    return int(part.get_parameter("weight").shape[_kernel_axis(part)])


def _kernel_axis(part: nn.Module) -> int:
    return 1 if isinstance(part, _ConvTransposeNd) and part.groups == 1 else 0


def apply(network: nn.Module, cut: Cut) -> nn.Module:
    """A copy with only the weights that stay; on the same device, in the same mode."""
    slimmed = copy.deepcopy(network)
    for name, part in slimmed.named_modules():
        for table in (part._parameters, part._buffers):
            for key, tensor in table.items():
                if tensor is not None and tensor.ndim > 0:
                    kept = _kept(part, key, tensor.detach(), cut.kernels.get(name),
                                 cut.inputs.get(name))  # fmt: skip
                    table[key] = (
                        nn.Parameter(kept, requires_grad=tensor.requires_grad)
                        if isinstance(tensor, nn.Parameter)
                        else kept
                    )
        _set_sizes(part)
    return slimmed


def _kept(
    part: nn.Module, key: str, tensor: Tensor, kernels: list[int] | None, inputs: list[int] | None
) -> Tensor:
    axis = _kernel_axis(part) if key == "weight" else 0
    if kernels is not None:
        tensor = tensor.index_select(axis, torch.tensor(kernels, device=tensor.device))
    if inputs is not None and key == "weight":
        tensor = tensor.index_select(1 - axis, torch.tensor(inputs, device=tensor.device))
    return tensor


def _set_sizes(part: nn.Module) -> None:
    """The numbers that layers keep beside their weights."""
    if isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, _ConvNd):
        if is_depthwise(part):
            part.groups = part.in_channels = part.out_channels = len(part.weight)
        else:
            axis = _kernel_axis(part)
            part.out_channels = part.weight.shape[axis]
            part.in_channels = part.weight.shape[1 - axis] * part.groups
    elif isinstance(part, _BatchNorm):
        sizes = [t for t in (part.weight, part.running_mean) if t is not None]
        part.num_features = len(sizes[0]) if sizes else part.num_features


def reshape(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network the sizes of a slim one, in place, so that the state can be loaded.

    Names and kinds of tensors are not checked, `nn.checkpoint.restore` does that.

    Args:
        network: freshly built.
        state: state dict of a slim network of this kind.
    """
    for name, part in network.named_modules():
        for table in (part._parameters, part._buffers):
            for key, tensor in table.items():
                given = state.get(f"{name}.{key}" if name else key)
                if tensor is None or given is None or given.shape == tensor.shape:
                    continue
                empty = torch.empty(given.shape, dtype=tensor.dtype, device=tensor.device)
                table[key] = (
                    nn.Parameter(empty, requires_grad=tensor.requires_grad)
                    if isinstance(tensor, nn.Parameter)
                    else empty
                )
        _set_sizes(part)


def _check_same(network: nn.Module, slimmed: nn.Module, cut: Cut, example: Tensor) -> None:
    """The slim network against the original without the inputs that were cut."""

    def without(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        def hook(part: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = given[0]
            axis = x.ndim - 1 if isinstance(part, nn.Linear) else 1
            mask = torch.zeros(x.shape[axis], dtype=x.dtype, device=x.device)
            mask[cut.inputs[name]] = 1
            shape = [1] * x.ndim
            shape[axis] = -1
            return (x * mask.view(shape), *given[1:])

        return hook

    mode = network.training
    hooks = [network.get_submodule(n).register_forward_pre_hook(without(n)) for n in cut.inputs]
    try:
        with torch.no_grad():
            example = example.to(next(network.parameters()).device)
            wanted = network.eval()(example)
            try:
                got = slimmed.eval()(example)
            except RuntimeError as error:
                raise InputError(f"this network's code needs its kernels as they are: {error}; "
                                 "leave layers out of the plan") from None  # fmt: skip
    finally:
        network.train(mode)
        slimmed.train(mode)
        for hook in hooks:
            hook.remove()
    scale = float(wanted.abs().max())
    if wanted.shape != got.shape or float((wanted - got).abs().max()) > 1e-3 * scale:
        raise InputError(
            "expected the slim network to give what the original gives without the cut kernels, it "
            "does not: this network's code counts on its channels; leave layers out of the plan"
        )
