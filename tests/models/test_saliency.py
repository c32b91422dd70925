"""The FCNs: torchvision's weights and numbers, the paper's table 1, and pixel under pixel."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import VGG16_Weights, squeezenet1_0, vgg16, vgg16_bn
from torchvision.models.vgg import make_layers

from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.systems.saliency import network as saliency
from flowsight.systems.saliency.network import upsampling, vgg

# table 1: width x height x channels x kernels; conv1_2's 3 channels there are a misprint of 64
TABLE_1 = {
    "conv1_1": (3, 3, 3, 64),
    "conv1_2": (3, 3, 64, 64),
    "conv2_1": (3, 3, 64, 128),
    "conv2_2": (3, 3, 128, 128),
    "conv3_1": (3, 3, 128, 256),
    "conv3_2": (3, 3, 256, 256),
    "conv3_3": (3, 3, 256, 256),
    "conv4_1": (3, 3, 256, 512),
    "conv4_2": (3, 3, 512, 512),
    "conv4_3": (3, 3, 512, 512),
    "conv5_1": (3, 3, 512, 512),
    "conv5_2": (3, 3, 512, 512),
    "conv5_3": (3, 3, 512, 512),
    "fc6": (7, 7, 512, 4096),
    "fc7": (1, 1, 4096, 4096),
}
SKIPS = {
    "vgg16": ("score_fr", "score_pool4", "score_pool3"),
    "squeezenet1_0": ("score_fr", "score_pool3", "score_pool2"),
}


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def lively(backbone: str, border: str, *, symmetric: bool = False) -> nn.Module:
    """A small network whose every path speaks; on request one that cannot tell left from right."""
    torch.manual_seed(3)
    network = saliency.build(backbone=backbone, width=2, border=border).eval()
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if symmetric:
                kernel = part.weight.data + part.weight.data.flip(-1)
                part.weight.data = (kernel + kernel.flip(-2)) / 2
    return network


def test_shapes_are_table_1s() -> None:
    with torch.device("meta"):
        network = saliency.build(backbone="vgg16")
    found = {name: network.get_submodule(name).weight.shape for name in TABLE_1}
    assert {n: (s[3], s[2], s[1], s[0]) for n, s in found.items()} == TABLE_1


def test_size_is_what_torchvision_publishes() -> None:
    """VGG-16 but for its last layer of 4096 x 1000, and the scores; the same arithmetic."""
    meta = VGG16_Weights.IMAGENET1K_V1.meta
    with torch.device("meta"):
        network = saliency.build(backbone="vgg16", border="same").eval()
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        scores = sum((c + 1) * 2 for c in (4096, 512, 256))
        assert trained == meta["num_params"] - 4097 * 1000 + scores
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network.forward_features(torch.empty(1, 3, 224, 224))
        wide = (7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000) / 1e9
        assert counter.get_total_flops() / 2e9 == pytest.approx(meta["_ops"] - wide, abs=2e-3)


def small_vgg(batch_norm: bool) -> nn.Sequential:
    """torchvision's VGG-16 of a sixteenth of the channels: its code for the layers, its names."""
    cfg = [c if c == "M" else c // 16 for c in (64, 64, "M", 128, 128, "M", *[256] * 3, "M",
                                                *[512] * 3, "M", *[512] * 3, "M")]  # fmt: skip
    wide = nn.Sequential(
        nn.Linear(32 * 49, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256), nn.ReLU(),
        nn.Dropout(), nn.Linear(256, 9),
    )  # fmt: skip
    parts = [("features", make_layers(cfg, batch_norm)), ("flat", nn.Flatten())]
    return nn.Sequential(OrderedDict([*parts, ("classifier", wide)])).eval()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_classifier_weights_become_convolutions(batch_norm: bool) -> None:
    """fc7 above the middle of a 224 px image is what the classifier computes of it."""
    torch.manual_seed(0)
    theirs = small_vgg(batch_norm)
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.weight, 0.5, 2)
    name = "vgg16_bn" if batch_norm else "vgg16"
    ours = saliency.build(
        backbone=name, width=4, border="same", pretrained=theirs.state_dict()
    ).eval()
    x = image(224, 224)
    with torch.inference_mode():
        wanted = theirs.classifier[:4](theirs.flat(theirs.features(x)))[0]
        got = ours.fc7(ours.fc6(ours.forward_features(x)[2]).relu())[0, :, 3, 3]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_torchvisions_names_and_shapes_fit(name: str) -> None:
    with torch.device("meta"):
        theirs = {"vgg16": vgg16, "vgg16_bn": vgg16_bn}[name]().state_dict()
        ours = saliency.build(backbone=name)
        renamed = vgg._renamed(theirs, ours)
    own = {k: v for k, v in ours.state_dict().items() if "score" not in k}
    assert checkpoint.differences(own, renamed) == ""


def test_squeezenet_keeps_its_weights() -> None:
    theirs = squeezenet1_0().eval()
    ours = saliency.build(
        backbone="squeezenet1_0", width=8, border="same", pretrained=theirs.state_dict()
    ).eval()
    x = image(67, 83)
    theirs.features[0].padding = (3, 3)
    with torch.inference_mode():
        torch.testing.assert_close(ours.forward_features(x)[2], theirs.features(x))


def test_weights_of_another_network_are_refused() -> None:
    for backbone in ("vgg16", "squeezenet1_0"):
        with pytest.raises(InputError, match="expected the weights of torchvision's"):
            saliency.build(
                backbone=backbone, width=2, border="same", pretrained={"fc.weight": torch.ones(2)}
            )


CASES = [("vgg16", "published"), ("vgg16", "same"), ("squeezenet1_0", "same")]


@pytest.mark.parametrize(("backbone", "border"), CASES)
def test_any_size_comes_out_as_it_went_in(backbone: str, border: str) -> None:
    network = lively(backbone, border)
    sizes = ((1, 1), (5, 37), (31, 64), (33, 15), (40, 70))
    with torch.inference_mode():
        for height, width in sizes:
            assert network(image(height, width)).shape == (1, 2, height, width)


@pytest.mark.parametrize(("backbone", "border"), CASES)
@pytest.mark.parametrize("branch", [0, 1, 2])
def test_each_branch_lies_pixel_under_pixel(backbone: str, border: str, branch: int) -> None:
    """A network without left and right, of a size whose poolings have none: a mirrored image must
    give the mirrored map, which a crop that is one pixel off does not."""
    side = {"published": 58, "same": 64}[border] if backbone == "vgg16" else 61
    network = lively(backbone, border, symmetric=True).double()
    for i, name in enumerate(SKIPS[backbone]):
        if i != branch:
            nn.init.zeros_(network.get_submodule(name).weight)
    x = image(side, side).double()
    with torch.inference_mode():
        one, other = network(x), network(x.flip(-1, -2)).flip(-1, -2)
    assert one.std() > 1e-3
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("backbone", "border"), CASES)
def test_a_shift_of_the_image_shifts_the_map(backbone: str, border: str) -> None:
    """By the coarsest stride, away from the borders."""
    network = lively(backbone, border).double()
    step, far = (32, 96) if backbone == "vgg16" else (16, 96)
    side = 2 * far + step + 64
    x = torch.zeros(1, 3, side, side, dtype=torch.double)
    patch = image(40, 40).double()
    moved = x.clone()
    x[:, :, far : far + 40, far : far + 40] = patch
    moved[:, :, far + step : far + step + 40, far : far + 40] = patch
    with torch.inference_mode():
        one, other = network(x), network(moved)
    inner = slice(far - 30, far + 70)
    below = slice(far - 30 + step, far + 70 + step)
    assert one[:, :, inner, inner].std() > 1e-3
    torch.testing.assert_close(one[:, :, inner, inner], other[:, :, below, inner])


@pytest.mark.parametrize(("size", "factor"), [(4, 2), (16, 8), (3, 2), (7, 4)])
def test_deconvolution_interpolates(size: int, factor: int) -> None:
    """A ramp stays a ramp, `factor` times as flat, at the place that the kernel's middle has."""
    up = upsampling.Upsample(1, size, factor, extend=False)
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    row = up(ramp)[0, 0, up.weight.shape[-1], size : -size or None]
    index = torch.arange(len(row)) + size
    torch.testing.assert_close(row, (index - (size - 1) / 2) / factor)


def test_scores_are_nothing_at_first_and_learn() -> None:
    torch.manual_seed(0)
    network = saliency.build(backbone="vgg16_bn", width=4, border="same", dropout=0.0)
    x = torch.zeros(2, 3, 32, 48)
    x[:, :, 8:24, 16:32] = 1.0
    target = (x[:, 0] > 0).long()
    assert not network(x).any()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    kernel = upsampling.bilinear_kernel(16, 8)
    assert torch.equal(network.upscore8.weight, kernel.expand(2, 1, 16, 16)), "fixed, not trained"


def test_names_are_checked() -> None:
    with pytest.raises(InputError, match="vgg16, vgg16_bn, squeezenet1_0"):
        saliency.build(backbone="vgg19")
    with pytest.raises(InputError, match=r"network\.border"):
        saliency.build(backbone="vgg16", width=1, border="none")
    with pytest.raises(InputError, match="'same' for squeezenet1_0"):
        saliency.build(backbone="squeezenet1_0")
