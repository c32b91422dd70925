"""Two streams: widened first convolutions, head and features, partial batch norm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from flowsight.errors import InputError
from flowsight.nn import backbone, checkpoint
from flowsight.systems.two_stream import network as two_stream


@pytest.mark.parametrize(
    ("modality", "stack_length", "map_channel", "channels"),
    [("rgb", 5, True, 4), ("rgb", 1, False, 3), ("flow", 5, True, 11), ("flow", 10, False, 20)],
)
def test_input_channels(modality: str, stack_length: int, map_channel: bool, channels: int) -> None:
    network = two_stream.build(
        backbone="tiny",
        modality=modality,
        num_classes=3,
        stack_length=stack_length,
        map_channel=map_channel,
    )
    assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 3)
    with pytest.raises(RuntimeError):
        network(torch.zeros(2, channels + 1, 32, 32))


def test_forward_is_head_of_features() -> None:
    network = two_stream.build(backbone="tiny", modality="rgb", num_classes=3).eval()
    x = torch.randn(2, 4, 40, 48)
    features = network.forward_features(x)
    assert features.shape == (2, 96, 5, 6)
    torch.testing.assert_close(network.forward_head(features), network(x), rtol=0, atol=0)


def test_input_kernels_exact() -> None:
    kernels = torch.tensor([[1.0, 2.0, 6.0], [0.0, -3.0, 0.0]]).view(2, 3, 1, 1)
    rgb = two_stream.input_kernels(kernels, "rgb", 4)
    assert rgb.flatten(1).tolist() == [[1.0, 2.0, 6.0, 3.0], [0.0, -3.0, 0.0, -1.0]]
    flow = two_stream.input_kernels(kernels, "flow", 5)
    assert flow.flatten(1).tolist() == [[3.0] * 5, [-1.0] * 5]


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18"])
def test_without_map_kernel_logits_are_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    reference = getattr(torchvision.models, name)(num_classes=6).eval()
    ours = two_stream.build(
        backbone=name, modality="rgb", num_classes=6, pretrained=reference.state_dict()
    ).eval()
    conv = ours.get_submodule(backbone.first_convolution(ours))
    assert isinstance(conv, nn.Conv2d)
    conv.weight.data[:, 3] = 0
    if name == "squeezenet1_0":  # its ReLU on the logits is left out on purpose
        reference.classifier[2] = nn.Identity()
    x = torch.randn(2, 4, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x[:, :3]))


def test_squeezenet_logits_can_be_negative() -> None:
    """torchvision's ReLU behind the last convolution is left out."""
    torch.manual_seed(0)
    network = two_stream.build(backbone="squeezenet1_0", modality="rgb", num_classes=6).eval()
    with torch.no_grad():
        assert (network(torch.randn(2, 4, 64, 64)) < 0).any()


def test_flow_starts_as_grey_picture_network() -> None:
    """Every channel has the mean kernel, so 2m + 1 equal channels act like one, 2m + 1 times."""
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(num_classes=6)
    ours = two_stream.build(
        backbone="resnet18",
        modality="flow",
        num_classes=6,
        stack_length=4,
        pretrained=reference.state_dict(),
    )
    x = torch.randn(1, 1, 32, 32)
    expected = F.conv2d(9 * x, reference.conv1.weight.mean(1, keepdim=True), stride=2, padding=3)
    torch.testing.assert_close(ours.get_submodule("conv1")(x.repeat(1, 9, 1, 1)), expected)


def test_imagenet_squeezenet(shared_data: Path) -> None:
    """Real weights: a map of 0.1 hardly moves the features, and a gradient reaches its kernel."""
    state = checkpoint.load(shared_data / "weights" / "squeezenet1_0_imagenet.pth")
    network = two_stream.build(
        backbone="squeezenet1_0", modality="rgb", num_classes=10, pretrained=state
    )
    torch.testing.assert_close(
        network.get_submodule("features.0").get_parameter("weight")[:, :3],
        state["features.0.weight"],
        rtol=0,
        atol=0,
    )
    smooth = F.interpolate(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), 112)
    features = {
        value: network.forward_features(
            torch.cat([smooth, torch.full_like(smooth[:, :1], value)], 1)
        )
        for value in (0.0, 0.1)
    }
    change = (features[0.1] - features[0.0]).norm() / features[0.0].norm()
    assert change < 0.05
    network.forward_head(features[0.1]).logsumexp(1).sum().backward()
    gradient = network.get_submodule("features.0").get_parameter("weight").grad
    assert gradient is not None and gradient[:, 3].abs().sum() > 0
    wrong = {**state, "features.13.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r"squeezenet1_0.*features\.13"):
        two_stream.build(backbone="squeezenet1_0", modality="rgb", num_classes=10, pretrained=wrong)


def test_classifier_of_other_classes_is_dropped() -> None:
    torch.manual_seed(0)
    reference = backbone.create("tiny", num_classes=1000)
    ours = two_stream.build(
        backbone="tiny", modality="rgb", num_classes=4, pretrained=reference.state_dict()
    )
    assert ours.get_submodule("fc").get_parameter("weight").shape == (4, 96)
    same = two_stream.build(
        backbone="tiny", modality="rgb", num_classes=1000, pretrained=reference.state_dict()
    )
    torch.testing.assert_close(same.state_dict()["fc.weight"], reference.state_dict()["fc.weight"])


def test_untrained_channels_differ() -> None:
    network = two_stream.build(backbone="tiny", modality="flow", num_classes=2, stack_length=2)
    kernels = network.get_submodule("layer1.conv1").get_parameter("weight")
    assert kernels.shape == (16, 5, 3, 3)
    assert not torch.allclose(kernels[:, 0], kernels[:, 1])


def test_partial_batch_norm() -> None:
    network = two_stream.build(backbone="tiny", modality="flow", num_classes=2, stack_length=1)
    network.train()
    assert two_stream.freeze_batch_norm(network) == 5
    before = {k: v.clone() for k, v in network.state_dict().items() if "running_mean" in k}
    network(torch.randn(4, 3, 32, 32)).sum().backward()
    moved = [k for k, v in before.items() if not torch.equal(v, network.state_dict()[k])]
    assert moved == ["layer1.bn1.running_mean"]
    assert network.get_submodule("layer2.bn1").get_parameter("weight").grad is None
    assert two_stream.freeze_batch_norm(network, keep_first=False) == 6


def test_wrong_values() -> None:
    with pytest.raises(InputError, match="'depth'"):
        two_stream.build(backbone="tiny", modality="depth", num_classes=2)
    with pytest.raises(InputError, match="stack_length"):
        two_stream.build(backbone="tiny", modality="flow", num_classes=2, stack_length=0)
    with pytest.raises(InputError, match="class"):
        two_stream.build(backbone="tiny", modality="rgb", num_classes=0)
