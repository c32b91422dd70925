"""Slimming: the paper's shapes, kept weights, and what the original gives without the cut ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.nn import slimming
from flowsight.nn.channel_graph import ChannelGraph
from flowsight.systems.residual3d import network as residual3d
from flowsight.systems.saliency import network as saliency
from flowsight.systems.saliency.network import vgg
from flowsight.systems.two_stream import network as two_stream

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
PLANS = {
    "a": (*vgg.CONVOLUTIONS, "fc6", "fc7"),
    "b": ("conv2_1", "conv2_2"),
    "c": ("conv3_1", "conv3_2", "conv3_3"),
    "d": ("conv4_1", "conv4_2", "conv4_3"),
    "e": ("conv5_1", "conv5_2", "conv5_3"),
    "f": ("fc6",),
    "g": ("fc7",),
    "h": ("fc6", "fc7"),
}
# table 2 as printed: width x height x channels x kernels of the layers that change
TABLE_2 = {
    "b": {"conv2_1": (3, 3, 64, 64), "conv2_2": (3, 3, 64, 64), "conv3_1": (3, 3, 64, 256)},
    "c": {
        "conv3_1": (3, 3, 128, 128),
        "conv3_2": (3, 3, 128, 128),
        "conv3_3": (3, 3, 128, 128),
        "conv4_1": (3, 3, 128, 512),
    },
    "d": {
        "conv4_1": (3, 3, 256, 256),
        "conv4_2": (3, 3, 256, 256),
        "conv4_3": (3, 3, 256, 256),
        "conv5_1": (3, 3, 256, 512),
    },
    "e": {
        "conv5_1": (3, 3, 512, 256),
        "conv5_2": (3, 3, 256, 256),
        "conv5_3": (3, 3, 256, 256),
        "fc6": (7, 7, 256, 4096),
    },
    "f": {"fc6": (7, 7, 512, 2048), "fc7": (1, 1, 2048, 4096)},
    "g": {"fc7": (1, 1, 4096, 2048)},
    "h": {"fc6": (7, 7, 512, 2048), "fc7": (1, 1, 2048, 2048)},
}
# what the table leaves out: the scores that read a halved layer
SCORES = {"c": {"score_pool3": 128}, "d": {"score_pool4": 256}, "g": {"score_fr": 2048},
          "h": {"score_fr": 2048}}  # fmt: skip
WIDTH = 4


def half(experiment: str) -> dict[str, float]:
    return dict.fromkeys(PLANS[experiment], 0.5)


def lively(network: nn.Module) -> nn.Module:
    """Every weight, bias and statistic speaks, so that a wrong one shows."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not name.startswith("upscore"):
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(noise.abs() + 0.5 if "running_var" in name else 0.2 * noise)
    return network.eval()


@pytest.fixture(scope="module")
def fcn() -> nn.Module:
    return lively(saliency.build(backbone="vgg16", width=WIDTH, border="same"))


@pytest.fixture(scope="module")
def fcn_bn() -> nn.Module:
    return lively(saliency.build(backbone="vgg16_bn", width=WIDTH, border="same"))


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """As the paper prints them, in channels of the full network."""
    scale = 64 // WIDTH
    found = {}
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d):
            kernels, channels, height, width = part.weight.shape
            assert (part.out_channels, part.in_channels) == (kernels, channels)
            full = channels if name == "conv1_1" else channels * scale
            found[name] = (width, height, full, kernels if "score" in name else kernels * scale)
    return found


@pytest.mark.parametrize("experiment", TABLE_2)
def test_shapes_are_table_2s(fcn: nn.Module, experiment: str) -> None:
    wanted = shapes(fcn) | TABLE_2[experiment]
    for name, channels in SCORES.get(experiment, {}).items():
        wanted[name] = (1, 1, channels, 2)
    assert shapes(slimming.slim(fcn, half(experiment), EXAMPLE)) == wanted


def test_experiment_a_halves_everything(fcn: nn.Module) -> None:
    full, slim = shapes(fcn), shapes(slimming.slim(fcn, half("a"), EXAMPLE))
    for name, (width, height, channels, kernels) in full.items():
        inputs = 3 if name == "conv1_1" else channels // 2
        outputs = 2 if "score" in name else kernels // 2
        assert slim[name] == (width, height, inputs, outputs), name


def test_the_published_border_is_slimmed_the_same_way(fcn: nn.Module) -> None:
    published = saliency.build(backbone="vgg16", width=WIDTH).eval()
    published.load_state_dict(fcn.state_dict())
    one = slimming.slim(published, half("f"), EXAMPLE[:, :, :1, :1])
    other = slimming.slim(fcn, half("f"), EXAMPLE)
    assert all(torch.equal(one.state_dict()[k], v) for k, v in other.state_dict().items())


@pytest.mark.parametrize(
    ("experiment", "choice", "batch_norm"),
    [("a", "first", False), ("a", "random", True), ("c", "l1", False), ("h", "random", False)],
)
def test_zeroed_kernels_make_no_difference(
    fcn: nn.Module, fcn_bn: nn.Module, experiment: str, choice: str, batch_norm: bool
) -> None:
    """The original whose cut kernels give nothing, and the slim network: the same scores."""
    x = torch.randn(1, 3, 13, 38, generator=torch.Generator().manual_seed(5)).double()
    network = fcn_bn if batch_norm else fcn
    cut = slimming.plan_cut(network, half(experiment), EXAMPLE, choice=choice, seed=3)
    slim = slimming.slim(network, half(experiment), EXAMPLE, choice=choice, seed=3)
    zeroed = slimming.apply(network, slimming.Cut({}, {}))  # a copy
    for name, kept in cut.kernels.items():
        part = zeroed.get_submodule(name)
        gone = [k for k in range(len(part.weight)) if k not in kept]
        part.weight.data[gone] = 0
        part.bias.data[gone] = 0
    with torch.inference_mode():
        wanted, got = zeroed.double()(x), slim.double()(x)
    assert wanted.std() > 0
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_kept_weights_are_the_originals(fcn_bn: nn.Module) -> None:
    plan = {"conv3_3": 0.25, "fc6": 0.5}
    cut = slimming.plan_cut(fcn_bn, plan, EXAMPLE, choice="l1")
    slim = slimming.slim(fcn_bn, plan, EXAMPLE, choice="l1")
    kernels, wide = cut.kernels["conv3_3"], cut.kernels["fc6"]
    assert (len(kernels), len(wide)) == (4, 128)
    assert cut.inputs == {"conv4_1": kernels, "score_pool3": kernels, "fc7": wide}
    own, new = fcn_bn.state_dict(), slim.state_dict()
    wanted = dict(own)
    for name in ("conv3_3", "bn3_3", "fc6"):
        kept = wide if name == "fc6" else kernels
        for key in own:
            if key.startswith(f"{name}.") and own[key].ndim:
                wanted[key] = own[key][kept]
    for name in ("conv4_1", "score_pool3", "fc7"):
        wanted[f"{name}.weight"] = own[f"{name}.weight"][:, wide if name == "fc7" else kernels]
    assert all(torch.equal(new[key], wanted[key]) for key in own)
    assert slim.bn3_3.num_features == 4


def test_choices() -> None:
    network = lively(saliency.build(backbone="vgg16", width=2, border="same"))
    strength = torch.tensor([3.0, 1.0, 4.0, 2.0])
    network.conv2_1.weight.data = torch.ones_like(network.conv2_1.weight) * strength.view(
        4, 1, 1, 1
    )
    plan = {"conv2_1": 0.5}

    def kept(choice: str, **options: object) -> list[int]:
        found = slimming.plan_cut(network, plan, EXAMPLE, choice=choice, **options)
        return found.kernels["conv2_1"]

    assert kept("first") == [0, 1]
    assert kept("l1") == [0, 2]
    assert kept("taylor", scores={"conv2_1": torch.tensor([1.0, 9.0, 2.0, 7.0])}) == [1, 3]
    draws = {tuple(kept("random", seed=seed)) for seed in range(12)}
    assert len(draws) > 3 and all(a < b for a, b in draws)
    assert kept("random", seed=4) == kept("random", seed=4)
    assert slimming.num_kept(5, 0.5) == 3 and slimming.num_kept(3, 0.01) == 1


def test_all_kernels_kept_is_the_same_network(fcn: nn.Module) -> None:
    slim = slimming.slim(fcn, {"fc6": 1.0}, EXAMPLE)
    assert all(torch.equal(slim.state_dict()[k], v) for k, v in fcn.state_dict().items())
    assert slim is not fcn and slim.fc6.weight.data_ptr() != fcn.fc6.weight.data_ptr()


# other networks

CLIP = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def resnet3d(**attention: bool) -> nn.Module:
    blocks = residual3d.block_attention(reduction=2, kernel="7x7", **attention)
    return lively(
        residual3d.build(
            backbone="resnet3d_10",
            modality="rgb",
            num_classes=3,
            width=4,
            attention=blocks if any(attention.values()) else None,
        )
    )


def test_kernels_that_meet_in_a_shortcut_go_together() -> None:
    network = resnet3d(channel=False, spatial=False)
    (group,) = ChannelGraph(network, CLIP).groups(["layer2.0.conv2.0"])
    assert set(group.layers) == {"layer2.0.conv2.0", "layer2.0.downsample.0"}
    slim = slimming.slim(network, {"layer2.0.conv2.0": 0.5}, CLIP)
    assert slim.layer2[0].downsample[0].out_channels == slim.layer2[0].conv2[0].out_channels == 4
    assert slim.layer3[0].conv1[0].in_channels == 4
    with pytest.raises(InputError, match=r"one share for layer2.*0\.25, 0\.5"):
        slimming.slim(network, {"layer2.0.conv2.0": 0.5, "layer2.0.downsample.0": 0.25}, CLIP)


def test_a_gate_goes_with_the_channels_it_gates() -> None:
    slim = slimming.slim(resnet3d(channel=True, spatial=False), {"layer1.0.conv2.0": 0.5}, CLIP)
    gate = slim.layer1[0].attention.channel.mlp
    assert (gate[0].in_features, gate[2].out_features) == (2, 2)


def test_a_mean_over_channels_is_refused() -> None:
    network = resnet3d(channel=True, spatial=True)
    slimming.slim(network, {"layer1.0.conv1.0": 0.5}, CLIP)  # does not reach it
    with pytest.raises(InputError, match=r"mixed with one another before layer1\.0\.attention"):
        slimming.slim(network, {"layer1.0.conv2.0": 0.5}, CLIP)


@pytest.mark.parametrize(
    ("backbone", "layer", "reads"),
    [
        ("squeezenet1_0", "features.3.expand3x3", "features.4.squeeze"),  # concatenation
        ("mobilenet_v3_small", "features.3.block.0.0", "features.3.block.2.0"),  # depthwise
        ("resnet18", "layer2.0.conv1", "layer2.0.conv2"),
    ],
)
def test_streams_are_slimmed_too(backbone: str, layer: str, reads: str) -> None:
    torch.manual_seed(0)
    network = two_stream.build(backbone=backbone, modality="rgb", num_classes=3)
    x = torch.randn(1, 4, 64, 64)
    before = network.get_submodule(layer).weight.shape[0]
    inputs = network.get_submodule(reads).weight.shape[1]
    slim = slimming.slim(network, {layer: 0.5}, x, choice="l1")
    assert slim.get_submodule(layer).weight.shape[0] == before // 2
    assert slim.get_submodule(reads).weight.shape[1] == inputs - before // 2
    assert slim(x).shape == (1, 3)


class Odd(nn.Module):
    """Code that counts on its channels, in ways that slimming must notice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(4 if kind == "chunk" else 8, 4, 1, groups=1 + (kind == "groups"))
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.kind == "chunk":
            x = x[:, :4]
        if self.kind == "mixed":
            x = x - x.mean(dim=1, keepdim=True)
        return self.last(self.second(x))


@pytest.mark.parametrize(
    ("kind", "message"),
    [("groups", "in groups"), ("mixed", "mixed"), ("chunk", "counts on|needs its kernels")],
)
def test_code_that_counts_channels_is_refused(kind: str, message: str) -> None:
    network = lively(Odd(kind))
    with pytest.raises(InputError, match=message):
        slimming.slim(network, {"first": 0.25}, torch.ones(1, 3, 2, 2), choice="l1")


def test_bad_plans_are_refused(fcn: nn.Module) -> None:
    for plan, message in (
        ({"conv9_1": 0.5}, r"got 'conv9_1'; it has conv1_1"),
        ({"pool": 0.5}, "expected a convolution"),
        ({"score_fr": 0.5}, "are the network's output"),
        ({"fc6": 0.0}, r"share of kernels in \(0, 1\] for fc6"),
    ):
        with pytest.raises(InputError, match=message):
            slimming.slim(fcn, plan, EXAMPLE)
    with pytest.raises(InputError, match="a choice of first, random"):
        slimming.slim(fcn, {"fc6": 0.5}, EXAMPLE, choice="last")
    with pytest.raises(InputError, match="scores of fc6"):
        slimming.slim(fcn, {"fc6": 0.5}, EXAMPLE, choice="taylor")


def test_looking_leaves_the_network_as_it_was(fcn: nn.Module) -> None:
    before = {key: tensor.clone() for key, tensor in fcn.state_dict().items()}
    fcn.train()
    slimming.slim(fcn, half("c"), EXAMPLE)
    assert fcn.training and all("forward" not in part.__dict__ for part in fcn.modules())
    assert all(torch.equal(fcn.state_dict()[key], tensor) for key, tensor in before.items())
    fcn.eval()


# Taylor importance


def test_taylor_is_the_change_of_a_linear_loss() -> None:
    """Behind fc7 the scores are linear in its channels: the first order is all there is."""
    torch.manual_seed(2)
    network = lively(saliency.build(backbone="vgg16", width=1, border="same")).double()
    x, weight = torch.randn(3, 3, 8, 8).double(), torch.randn(3, 2, 8, 8).double()

    def loss(scores: Tensor, target: Tensor) -> Tensor:
        return (scores * target).sum()

    example = EXAMPLE.double()
    batches = [(x[:2], weight[:2]), (x[2:], weight[2:])]
    scores = slimming.taylor_scores(network, ["fc7"], example, batches, loss)["fc7"]
    for kernel in (0, 17, 63):
        without = slimming.apply(network, slimming.Cut({}, {}))
        without.fc7.weight.data[kernel] = 0
        without.fc7.bias.data[kernel] = 0
        with torch.inference_mode():
            change = ((network(x) - without(x)) * weight).sum(dim=(1, 2, 3)).abs().mean()
        assert scores[kernel].item() == pytest.approx(change.item(), rel=1e-9, abs=1e-12)
    assert scores.max() > 0


def test_taylor_finds_the_kernels_that_matter() -> None:
    network = lively(saliency.build(backbone="vgg16_bn", width=2, border="same"))
    network.bn3_3.bias.data.fill_(2.0)  # all of them speak ...
    network.conv4_1.weight.data[:, [1, 3]] = 0  # ... but nobody listens to 1 and 3
    network.score_pool3.weight.data[:, [1, 3]] = 0
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = [(x, torch.zeros(2, 32, 32, dtype=torch.long))]

    def loss(scores: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(scores, target, reduction="sum")

    scores = slimming.taylor_scores(network, ["conv3_3"], EXAMPLE, batch, loss)
    assert torch.nonzero(scores["conv3_3"] == 0).flatten().tolist() == [1, 3]
    cut = slimming.plan_cut(network, {"conv3_3": 0.75}, EXAMPLE, choice="taylor", scores=scores)
    assert cut.kernels["conv3_3"] == [0, 2, 4, 5, 6, 7]


def test_taylor_of_kernels_that_go_together_is_one_value() -> None:
    network = resnet3d(channel=False, spatial=False)
    batch = [(CLIP, torch.tensor([1]))]
    loss = nn.CrossEntropyLoss(reduction="sum")
    scores = slimming.taylor_scores(network, ["layer2.0.conv2.0"], CLIP, batch, loss)
    assert torch.equal(scores["layer2.0.conv2.0"], scores["layer2.0.downsample.0"])
    with pytest.raises(InputError, match="training data"):
        slimming.taylor_scores(network, ["layer2.0.conv2.0"], CLIP, [], loss)


# states


def test_a_slim_state_goes_into_a_fresh_network(fcn_bn: nn.Module) -> None:
    slim = slimming.slim(fcn_bn, half("a"), EXAMPLE, choice="random")
    fresh = saliency.build(backbone="vgg16_bn", width=WIDTH, border="same").eval()
    slimming.reshape(fresh, slim.state_dict())
    fresh.load_state_dict(slim.state_dict())
    assert [str(part) for part in fresh.modules()] == [str(part) for part in slim.modules()]
    assert not fresh.upscore8.weight.requires_grad and fresh.fc6.weight.requires_grad
    with torch.inference_mode():
        assert torch.equal(fresh(EXAMPLE), slim(EXAMPLE))
