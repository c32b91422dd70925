"""3D networks against torchvision's, attention against loops written from its equations."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import densenet121
from torchvision.models.video import R3D_18_Weights, r3d_18
from torchvision.models.video.resnet import (
    BasicBlock,
    BasicStem,
    Bottleneck,
    Conv3DSimple,
    VideoResNet,
)

from flowsight.errors import InputError
from flowsight.systems.residual3d import network as residual3d
from flowsight.systems.residual3d.network import attention, c3d, densenet, resnet

BOTH = attention.factory(channel=True, spatial=True)


def clip(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(network: nn.Module) -> nn.Module:
    """Norms with statistics and scales of their own, so that a swapped one shows."""
    generator = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            for values in (part.weight, part.bias, part.running_mean, part.running_var):
                assert values is not None
                values.data += 0.2 * torch.rand(values.shape, generator=generator)
    return network


def num_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def giga_macs(network: nn.Module, x: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(x)
    return counter.get_total_flops() / 2 / 1e9


# torchvision

PEERS = {
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
}


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_plain_networks_are_torchvisions(depth: int) -> None:
    kind, layers = PEERS[depth]
    theirs = (
        r3d_18(num_classes=7)
        if depth == 18
        else VideoResNet(kind, [Conv3DSimple] * 4, layers, BasicStem, num_classes=7)
    )
    shaken(theirs).eval()
    ours = resnet.build(depth=depth, num_classes=7).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = clip(2, 3, 5, 28, 36)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)


def test_gradients_are_torchvisions() -> None:
    theirs, ours = r3d_18(num_classes=4), resnet.build(depth=18, num_classes=4)
    ours.load_state_dict(theirs.state_dict())
    x, label = clip(3, 3, 4, 24, 24), torch.tensor([0, 3, 1])
    for network in (theirs, ours):
        F.cross_entropy(network(x), label).backward()
    grads = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, grads[name].grad, rtol=1e-4, atol=1e-5)


def test_size_is_what_torchvision_publishes() -> None:
    meta = R3D_18_Weights.KINETICS400_V1.meta
    with torch.device("meta"):
        network = resnet.build(depth=18, num_classes=400)
        assert num_parameters(network) == meta["num_params"]
        # the published number leaves out the last layer's 0.0002
        assert giga_macs(network, torch.empty(1, 3, 16, 112, 112)) == pytest.approx(
            meta["_ops"], abs=2e-3
        )


def test_dense_network_of_one_frame_is_torchvisions_densenet121() -> None:
    """On a single frame only the middle of a 3x3x3 kernel meets the picture."""
    theirs = shaken(densenet121(num_classes=5)).eval()
    ours = densenet.build(
        growth=32, num_classes=5, blocks=(6, 12, 24, 16), bottleneck=True, stem_channels=64
    ).eval()
    mine, yours = ours.state_dict(), theirs.state_dict()
    assert len(mine) == len(yours)
    for name, peer in zip(mine, yours, strict=True):
        wanted = yours[peer]
        if mine[name].ndim == 5:
            mine[name][:, :, mine[name].shape[2] // 2] = wanted
        else:
            mine[name].copy_(wanted)
    x = clip(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x[:, :, None]), theirs(x), rtol=1e-4, atol=1e-5)


# attention


def reference_channel(module: attention.ChannelAttention, x: Tensor) -> Tensor:
    """Mc(F) = sigma(W1 relu(W0 avg) + W1 relu(W0 max)), number by number."""
    w0, w1 = module.mlp[0].weight.detach(), module.mlp[2].weight.detach()
    weights = torch.zeros(x.shape[:2])
    for b in range(x.shape[0]):
        values = [sorted(x[b, c].flatten().tolist()) for c in range(x.shape[1])]
        total = [0.0] * x.shape[1]
        for pooled in ([math.fsum(v) / len(v) for v in values], [v[-1] for v in values]):
            hidden = [
                max(0.0, sum(float(w0[r, c]) * pooled[c] for c in range(len(pooled))))
                for r in range(w0.shape[0])
            ]
            for c in range(len(total)):
                total[c] += sum(float(w1[c, r]) * hidden[r] for r in range(len(hidden)))
        for c, value in enumerate(total):
            weights[b, c] = 1 / (1 + math.exp(-value))
    return weights


def reference_spatial(kernel: Tensor, x: Tensor) -> Tensor:
    """Ms(F) = sigma(f([mean over C; max over C])), place by place."""
    _, num_channels, *size = x.shape
    half = [side // 2 for side in kernel.shape[2:]]
    weights = torch.zeros(x.shape[0], *size)
    for b in range(x.shape[0]):
        pooled = [x[b].sum(dim=0) / num_channels, x[b].max(dim=0).values]
        for t, i, j in torch.cartesian_prod(*map(torch.arange, size)).tolist():
            total = 0.0
            for p, plane in enumerate(pooled):
                for dt, di, dj in torch.cartesian_prod(
                    *(torch.arange(-h, h + 1) for h in half)
                ).tolist():
                    place = (t + dt, i + di, j + dj)
                    if all(0 <= at < side for at, side in zip(place, size, strict=True)):
                        weight = kernel[0, p, dt + half[0], di + half[1], dj + half[2]]
                        total += float(weight) * float(plane[place])
            weights[b, t, i, j] = 1 / (1 + math.exp(-total))
    return weights


def test_channel_attention_is_the_papers() -> None:
    torch.manual_seed(0)
    module, x = attention.ChannelAttention(6, reduction=2), clip(2, 6, 3, 4, 5)
    weights = module.weights(x)
    assert weights.shape == (2, 6, 1, 1, 1)
    assert [layer.weight.shape for layer in (module.mlp[0], module.mlp[2])] == [(3, 6), (6, 3)]
    torch.testing.assert_close(weights.flatten(1), reference_channel(module, x))
    torch.testing.assert_close(module(x), x * weights)


@pytest.mark.parametrize(("kernel", "size"), [("7x7", (1, 7, 7)), ("7x7x7", (7, 7, 7))])
def test_spatial_attention_is_the_papers(kernel: str, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module, x = attention.SpatialAttention(kernel=kernel), clip(2, 3, 3, 4, 5)
    weights = module.weights(x)
    assert module.conv.weight.shape == (1, 2, *size) and module.conv.bias is None
    assert weights.shape == (2, 1, 3, 4, 5)
    torch.testing.assert_close(weights[:, 0], reference_spatial(module.conv.weight, x))
    torch.testing.assert_close(module(x), x * weights)


def test_frames_meet_only_in_the_kernel_over_time() -> None:
    x = clip(1, 4, 5, 8, 8)
    other = x.clone()
    other[:, :, 0] += 3
    for kernel, apart in (("7x7", True), ("7x7x7", False)):
        module = attention.SpatialAttention(kernel=kernel)
        same = torch.equal(module.weights(x)[:, :, 1:], module.weights(other)[:, :, 1:])
        assert same is apart


def test_switches_and_order() -> None:
    torch.manual_seed(0)
    x = clip(2, 8, 2, 7, 7)
    both = attention.build(8, reduction=4)
    assert [name for name, _ in both.named_children()] == ["channel", "spatial"]
    torch.testing.assert_close(both(x), both.spatial(both.channel(x)))
    turned = attention.build(8, reduction=4, order="spatial_first")
    turned.load_state_dict(both.state_dict())
    torch.testing.assert_close(turned(x), both.channel(both.spatial(x)))
    assert not torch.allclose(turned(x), both(x))
    assert [n for n, _ in attention.build(8, spatial=False).named_children()] == ["channel"]
    assert [n for n, _ in attention.build(8, channel=False).named_children()] == ["spatial"]
    assert attention.factory(channel=False, spatial=False) is None
    for wrong in ({"order": "sideways"}, {"kernel": "3x3"}, {"reduction": 0}):
        with pytest.raises(InputError, match="expected"):
            attention.build(8, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="neither"):
        attention.build(8, channel=False, spatial=False)


@pytest.mark.parametrize("depth", [18, 50])
def test_attention_stands_before_the_shortcut(depth: int) -> None:
    """With weights of zero in the attention, every gate is 1/2: 1/4 of the residual is added."""
    assert BOTH is not None
    network = resnet.build(depth=depth, num_classes=3, width=4, attention=BOTH).eval()
    block = network.get_submodule("layer2.0")
    for name, parameter in block.named_parameters():
        if name.startswith("attention."):
            parameter.data.zero_()
    x = clip(1, 4 if depth == 18 else 16, 4, 6, 6)
    convolved = x
    for name in ("conv1", "conv2", "conv3")[: 2 if depth == 18 else 3]:
        convolved = block.get_submodule(name)(convolved)
    wanted = (convolved / 4 + block.get_submodule("downsample")(x)).relu()
    torch.testing.assert_close(block(x), wanted)


def test_dense_layers_hand_on_what_they_got() -> None:
    network = densenet.build(growth=5, num_classes=3, blocks=(2, 2), attention=BOTH).eval()
    layer = network.get_submodule("block1.1")
    x = clip(1, 15, 2, 4, 4)
    out = layer(x)
    assert out.shape == (1, 20, 2, 4, 4) and torch.equal(out[:, :15], x)
    new = layer.get_submodule("composite")(x)
    torch.testing.assert_close(out[:, 15:], layer.get_submodule("attention")(new))


# sizes


def dense_parameters(growth: int, num_classes: int) -> int:
    """Counted by hand: stem, three blocks of twelve layers, transitions, norm, classifier."""
    channels = 2 * growth
    total = 3 * channels * 7**3 + 2 * channels
    for block in range(3):
        for _ in range(12):
            total += 2 * channels + 27 * channels * growth
            channels += growth
        if block < 2:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    return total + 2 * channels + (channels + 1) * num_classes


@pytest.mark.parametrize("growth", [12, 24])
def test_dense_sizes(growth: int) -> None:
    network = residual3d.build(backbone=f"densenet3d_{growth}", modality="rgb", num_classes=101)
    assert num_parameters(network) == dense_parameters(growth, 101)


def test_published_size_of_c3d() -> None:
    """The 78.4 million that papers quote for it on UCF-101."""
    with torch.device("meta"):
        network = residual3d.build(backbone="c3d", modality="rgb", num_classes=101)
    assert num_parameters(network) / 1e6 == pytest.approx(78.41, abs=0.005)


def test_attention_costs_what_its_equations_say() -> None:
    plain, attended = (
        resnet.build(depth=18, num_classes=5, attention=a, width=16) for a in (None, BOTH)
    )
    mlps = sum(2 * 2 * c * (c // 16) for c in (16, 32, 64, 128))
    assert num_parameters(attended) - num_parameters(plain) == mlps + 8 * 2 * 7**3


@pytest.mark.parametrize("backbone", residual3d.BACKBONES)
@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_every_network_takes_every_modality(backbone: str, modality: str) -> None:
    width = {} if backbone.startswith("densenet") else {"width": 4}
    attended = None if backbone.startswith("c3d") else BOTH
    network = residual3d.build(
        backbone=backbone, modality=modality, num_classes=6, attention=attended, **width
    )
    x = clip(2, residual3d.CHANNELS[modality], 8, 56, 56)
    features = network.forward_features(x)
    logits = network.forward_head(features)
    assert logits.shape == (2, 6)
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    network.eval()
    torch.testing.assert_close(network(x), network.forward_head(network.forward_features(x)))


def test_c3d_at_its_own_size() -> None:
    network = c3d.build(num_classes=4, width=2)
    assert network.forward_features(clip(1, 3, 16, 112, 112)).shape == (1, 16, 1, 4, 4)


def test_wrong_names_are_refused() -> None:
    for wrong in (
        {"backbone": "resnet3d_19"},
        {"modality": "sound"},
        {"backbone": "densenet3d_12", "width": 32},
        {"backbone": "c3d", "attention": BOTH},
    ):
        given = {"backbone": "resnet3d_18", "modality": "rgb", "num_classes": 3} | wrong
        with pytest.raises(InputError, match="expected"):
            residual3d.build(**given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="depth of 10, 18"):
        resnet.build(depth=19, num_classes=2)
    with pytest.raises(InputError, match="growth"):
        densenet.build(growth=0, num_classes=2)


def test_pretrained_weights() -> None:
    weights = r3d_18(num_classes=9).state_dict()
    for modality in ("rgb", "flow"):
        network = residual3d.build(
            backbone="resnet3d_18",
            modality=modality,
            num_classes=4,
            attention=BOTH,
            pretrained=weights,
        )
        state = network.state_dict()
        same = "layer3.1.conv2.0.weight"
        assert torch.equal(state[same], weights[same])
        assert state["fc.weight"].shape == (4, 512)
    mean = weights["stem.0.weight"].mean(dim=1)
    for channel in range(2):
        torch.testing.assert_close(state["stem.0.weight"][:, channel], mean)
    del weights["layer1.0.conv1.0.weight"]
    with pytest.raises(InputError, match=r"resnet3d_18, got 1 tensor missing \(layer1.0.conv1"):
        residual3d.build(backbone="resnet3d_18", modality="rgb", num_classes=4, pretrained=weights)


def test_levels_with_spatial_attention() -> None:
    network = residual3d.build(
        backbone="resnet3d_18", modality="rgb", num_classes=4, width=4, attention=BOTH
    )
    found = residual3d.spatial_attentions(network, "layer2")
    assert found == [network.get_submodule(f"layer2.{i}.attention.spatial") for i in range(2)]
    with pytest.raises(InputError, match=r"\(layer1, layer2, layer3, layer4\), got 'layer9'"):
        residual3d.spatial_attentions(network, "layer9")
    plain = residual3d.build(backbone="c3d", modality="rgb", num_classes=4, width=2)
    with pytest.raises(InputError, match="it has none"):
        residual3d.spatial_attentions(plain, "conv1a")


def test_learns_which_way_a_bar_moves() -> None:
    """A single frame does not tell: only a network that sees time can learn this."""
    torch.manual_seed(0)
    x = 0.3 * clip(32, 3, 6, 16, 16)
    y = torch.arange(32) % 2
    for i in range(32):
        start = i % 5
        for t in range(6):
            at = start + t if y[i] else start + 5 - t
            x[i, :, t, :, at : at + 3] += 2
    network = resnet.build(depth=10, num_classes=2, width=8, attention=BOTH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < 0.5 < losses[0]


def test_needs_torch_alone() -> None:
    script = "import sys, flowsight.systems.residual3d.network; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "torch" in loaded, done.stderr
    assert not loaded & {"dvc", "mlflow", "hydra", "lightning", "pandas", "airflow", "cv2"}


@pytest.mark.parametrize("backbone", ["resnet3d_18", "densenet3d_12"])
def test_attention_starts_undecided(backbone: str) -> None:
    """With the convolutions' own large weights its sigmoid would start at 0 or at 1."""
    torch.manual_seed(0)
    network = residual3d.build(backbone=backbone, modality="rgb", num_classes=3, attention=BOTH)
    levels = ("layer1", "layer2") if backbone.startswith("resnet") else ("block1", "block2")
    seen: list[Tensor] = []
    for level in levels:
        for module in residual3d.spatial_attentions(network, level):
            module.conv.register_forward_hook(lambda *call: seen.append(call[2].sigmoid()))
    network(clip(2, 3, 4, 32, 32))
    values = torch.cat([weights.flatten() for weights in seen])
    assert values.min() > 0.1 and values.max() < 0.9
