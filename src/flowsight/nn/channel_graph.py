"""Which kernels of a network end up where: found by running it, whatever its code looks like.

A *producer* is a convolution or linear layer, its output channels are its kernels. A *slot* is one
input channel of a layer. Cutting a kernel means to cut every slot it reaches, and where kernels of
several layers meet in one slot (a shortcut's sum, a gate's product) they can only go together.

What reaches what is seen by sending a mark through: layers are replaced by ones that compute
nothing but give plain numbers, and one producer's chosen channels are NaN, which survives
activations, poolings, sums, products, concatenations and reshapes, and stays in its channel. With
the bits of the channel's number as the choice, and their complements, 2 log2(C) runs tell for each
slot which kernel reaches it; a slot that sees a bit both set and not set mixes kernels (a mean over
channels), so none of them can go without changing the rest. Depthwise convolutions and batch norm
hand channels on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from flowsight.errors import InputError

OUTPUT = "the network's output"
UNREACHED, MIXED = -1, -2


@dataclass(frozen=True)
class Group:
    """Kernels that go together, in the order of the first layer's."""

    kernels: tuple[dict[str, list[int]], ...]
    """For each component: layer -> its kernels."""
    slots: tuple[dict[str, list[int]], ...]
    """For each component: layer -> the input channels it reaches; batch norms included."""

    @property
    def layers(self) -> list[str]:
        """Layers with kernels in here."""
        return list(dict.fromkeys(name for part in self.kernels for name in part))


@dataclass(eq=False)
class ChannelGraph:
    """The producers of a network and the slots they reach.

    Args:
        network: looked at in evaluation mode; left as it was.
        example: an input of any values that its forward takes; small is fast.
    """

    network: nn.Module
    example: Tensor
    _reach: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _touched: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    _shapes: dict[tuple[str, torch.Size], torch.Size] = field(default_factory=dict)

    def __post_init__(self) -> None:
        modules = dict(self.network.named_modules())
        self.layers = {name: part for name, part in modules.items() if _is_layer(part)}
        self.producers = [n for n, part in self.layers.items() if _is_producer(part)]

    def groups(self, names: list[str]) -> list[Group]:
        """The groups that hold the kernels of these layers.

        Raises:
            InputError: no such layer, kernels that are the network's output, or that are mixed.
        """
        for name in names:
            if name not in self.producers:
                raise InputError(
                    f"expected a convolution or linear layer of the network to slim, got {name!r}; "
                    f"it has {', '.join(self.producers)}"
                )
        members = self._connected(names)
        return [_group(self, layers) for layers in _joined(self, members)]

    def reach(self, name: str) -> dict[str, Tensor]:
        """Slots that a producer's kernels reach.

        Returns:
            Layer (or `OUTPUT`) -> for each input channel the kernel that reaches it, `UNREACHED`
            or `MIXED`; only layers that are reached.
        """
        if name not in self._reach:
            self._reach[name] = self._decode(name)
        return self._reach[name]

    def _decode(self, name: str) -> dict[str, Tensor]:
        count = _num_kernels(self.layers[name])
        kernels, bits = torch.arange(count), max(1, (count - 1).bit_length())
        choices = [(kernels >> bit) & 1 == 1 for bit in range(bits)]
        runs = [(self._run(name, chosen), self._run(name, ~chosen)) for chosen in choices]
        found = {}
        for layer in runs[0][0]:
            ones = torch.stack([one[layer] for one, _ in runs])  # (bits, slots)
            zeros = torch.stack([zero[layer] for _, zero in runs])
            ids = (ones.long() << torch.arange(bits)[:, None]).sum(dim=0)
            ids[(ones & zeros).any(dim=0)] = MIXED
            ids[~(ones | zeros).any(dim=0)] = UNREACHED
            if (ids != UNREACHED).any():
                found[layer] = ids
        return found

    def _connected(self, names: list[str]) -> list[str]:
        """The named producers and all whose kernels meet theirs somewhere."""
        members, todo = list(names), list(names)
        while todo:
            slots = {(layer, i) for layer, ids in self.reach(todo.pop()).items()
                     for i in torch.nonzero(ids != UNREACHED).flatten().tolist()}  # fmt: skip
            for other in self.producers:
                if other not in members and not slots.isdisjoint(self._slots_of(other)):
                    members.append(other)
                    todo.append(other)
        return members

    def _slots_of(self, name: str) -> set[tuple[str, int]]:
        if name not in self._touched:
            part = self.layers[name]
            hit = self._run(name, torch.ones(_num_kernels(part), dtype=torch.bool))
            self._touched[name] = {
                (layer, i)
                for layer, marks in hit.items()
                for i in torch.nonzero(marks).flatten().tolist()
            }
        return self._touched[name]

    def _run(self, name: str, marked: Tensor) -> dict[str, Tensor]:
        """Layer -> which of its input channels are NaN when these kernels' channels are."""
        mark = _Mark(name, marked)
        with torch.no_grad(), _replaced(self.layers, mark, self._shapes), _evaluating(self.network):
            result = self.network(self.example)
        mark.seen[OUTPUT] = result.isnan().transpose(0, 1).flatten(1).any(dim=1)
        return mark.seen


def _is_layer(part: nn.Module) -> bool:
    has_parameters = next(part.parameters(recurse=False), None) is not None
    return has_parameters or isinstance(part, _BatchNorm)  # also one without scale and shift


def is_depthwise(part: nn.Module) -> bool:
    """Whether each kernel sees one channel only: such a layer hands channels on."""
    return (
        isinstance(part, _ConvNd)
        and part.groups == part.in_channels
        and part.out_channels == part.in_channels
        and part.groups > 1
    )


def _is_producer(part: nn.Module) -> bool:
    return isinstance(part, _ConvNd | nn.Linear) and not is_depthwise(part)


def _num_kernels(part: nn.Module) -> int:
    return int(part.out_channels if isinstance(part, _ConvNd) else part.out_features)  # type: ignore[arg-type]


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@dataclass(eq=False)
class _Mark:
    """What the stand-ins of a run share."""

    layer: str
    channels: Tensor
    seen: dict[str, Tensor] = field(default_factory=dict)
    """Layer -> which of its input channels are NaN."""


@contextmanager
def _replaced(
    layers: dict[str, nn.Module], mark: _Mark, shapes: dict[tuple[str, torch.Size], torch.Size]
) -> Iterator[None]:
    """Layers that record marks and give ones, with NaN in the marked channels of one of them."""
    try:
        for layer, part in layers.items():
            part.forward = partial(_stand_in, layer, part, mark, shapes)
        yield
    finally:
        for part in layers.values():
            del part.forward


def _stand_in(
    layer: str,
    part: nn.Module,
    mark: _Mark,
    shapes: dict[tuple[str, torch.Size], torch.Size],
    x: Tensor,
    *rest: object,
) -> Tensor:
    axis = x.ndim - 1 if isinstance(part, nn.Linear) else 1
    marks = x.isnan().transpose(0, axis).flatten(1).any(dim=1)
    before = mark.seen.get(layer)
    mark.seen[layer] = marks if before is None else marks | before
    if isinstance(part, _BatchNorm):
        return x
    if (layer, x.shape) not in shapes:  # computed once, for its shape; not by meta tensors,
        # whose first use loads 20 s of torch
        shapes[layer, x.shape] = type(part).forward(part, torch.ones_like(x), *rest).shape
    out = torch.ones(shapes[layer, x.shape], dtype=x.dtype)
    if not (is_depthwise(part) or _is_producer(part)):
        return out.fill_(torch.nan) if marks.any() else out
    own = marks if is_depthwise(part) else mark.channels if layer == mark.layer else None
    if own is not None:
        out.transpose(0, axis)[own] = torch.nan
    return out


def _joined(graph: ChannelGraph, members: list[str]) -> list[list[str]]:
    """Members in sets that share slots."""
    sets: list[tuple[list[str], set[tuple[str, int]]]] = []
    for name in members:
        slots = graph._slots_of(name)
        meeting = [one for one in sets if not one[1].isdisjoint(slots)]
        layers = [layer for one in meeting for layer in one[0]] + [name]
        merged = set(slots).union(*(one[1] for one in meeting))
        sets = [one for one in sets if one not in meeting] + [(layers, merged)]
    return [sorted(layers, key=members.index) for layers, _ in sets]


def _group(graph: ChannelGraph, layers: list[str]) -> Group:
    """Components of kernels, joined wherever they share a slot."""
    parent: dict[tuple[str, int], tuple[str, int]] = {}

    def find(atom: tuple[str, int]) -> tuple[str, int]:
        while parent.setdefault(atom, atom) != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    owner: dict[tuple[str, int], tuple[str, int]] = {}
    for name in layers:
        for kernel in range(_num_kernels(graph.layers[name])):
            find((name, kernel))
        for layer, ids in graph.reach(name).items():
            _check(name, layer, ids, graph)
            for slot, kernel in enumerate(ids.tolist()):
                if kernel >= 0:
                    atom = find((name, kernel))
                    parent[atom] = find(owner.setdefault((layer, slot), atom))
    parts: dict[tuple[str, int], tuple[dict[str, list[int]], dict[str, list[int]]]] = {}
    for name in layers:
        for kernel in range(_num_kernels(graph.layers[name])):
            kernels, _ = parts.setdefault(find((name, kernel)), ({}, {}))
            kernels.setdefault(name, []).append(kernel)
    for (layer, slot), atom in owner.items():
        parts[find(atom)][1].setdefault(layer, []).append(slot)
    found = list(parts.values())
    return Group(tuple(kernels for kernels, _ in found), tuple(slots for _, slots in found))


def _check(name: str, layer: str, ids: Tensor, graph: ChannelGraph) -> None:
    if layer == OUTPUT:
        raise InputError(f"the kernels of {name} are {OUTPUT} and cannot be cut; leave it out")
    part = graph.layers[layer]
    if (ids == MIXED).any():
        raise InputError(f"the kernels of {name} are mixed with one another before {layer} "
                         f"(a mean over channels); leave {name} out")  # fmt: skip
    known = isinstance(part, _BatchNorm | nn.Linear | _ConvTransposeNd) or (
        isinstance(part, _ConvNd) and (part.groups == 1 or is_depthwise(part))
    )
    if not known:
        raise InputError(
            f"the kernels of {name} reach {layer}, a {type(part).__name__} "
            f"{'in groups ' if isinstance(part, _ConvNd) else ''}whose inputs cannot be cut; leave "
            f"{name} out"
        )
