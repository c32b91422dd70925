"""Grad-CAM: by hand, against captum, and without side effects."""

from __future__ import annotations

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.nn import gradcam
from flowsight.nn.gradcam import grad_cam
from flowsight.systems.two_stream import network as two_stream


def small(name: str, modality: str = "rgb") -> nn.Module:
    torch.manual_seed(3)
    network = two_stream.build(
        backbone=name, modality=modality, num_classes=5, stack_length=2, dropout=0.5
    )
    for part in network.modules():  # statistics as after training, or features vanish
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.mul_(0.5)
            part.bias.data.normal_(0, 0.1)
    return network.eval()


class Hand(nn.Module):
    """Features are the input; z_0 = sum of channel 0, z_1 = 2 mean(c0) - mean(c1)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        means = self.features(x).mean(dim=(2, 3))
        pixels = x.shape[2] * x.shape[3]
        return torch.stack([pixels * means[:, 0], 2 * means[:, 0] - means[:, 1]], dim=1)


def test_by_hand() -> None:
    x = torch.tensor([[[[1.0, -2.0], [0.0, 4.0]], [[2.0, 0.0], [-8.0, 0.0]]]])
    maps = grad_cam(Hand(), x.repeat(2, 1, 1, 1), torch.tensor([0, 1]), ["features"])
    # class 0: alpha = (1, 0), map = ReLU(L_0)
    assert maps[0].tolist() == [[0.25, 0.0], [0.0, 1.0]]
    # class 1: alpha = (2, -1) / 4, map = ReLU(2 L_0 - L_1) / 4 = (0, 0, 8, 8) / 4
    assert maps[1].tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_nothing_found_is_zero_not_nan() -> None:
    maps = grad_cam(Hand(), -torch.ones(1, 2, 3, 3), torch.tensor([0]), ["features"])
    assert maps.tolist() == torch.zeros(1, 3, 3).tolist()


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("tiny", "layer4", 48),
        ("tiny", "layer2", 48),
        ("resnet18", "layer4", 64),
        ("resnet18", "layer3.0.conv1", 64),
        ("squeezenet1_0", "features.12", 64),
        ("squeezenet1_0", "features.7", 64),
        ("inception_v3", "Mixed_7c", 96),
        ("inception_v3", "Mixed_6b", 96),
    ],
)
def test_against_captum(name: str, layer: str, side: int) -> None:
    network = small(name)
    x = torch.randn(3, 4, side, side + 16, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([4, 0, 2])
    reference = captum.attr.LayerGradCam(network, network.get_submodule(layer))
    expected = reference.attribute(x, classes, relu_attributions=True).detach()
    peak = expected.amax(dim=(1, 2, 3), keepdim=True)
    assert (peak > 0).any()
    expected = (expected / peak.clamp(min=1e-30))[:, 0]
    maps = grad_cam(network, x, classes, [layer])
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)
    if name == "tiny":
        large = grad_cam(network, x, classes, [layer], size=(side, side + 16))
        up = captum.attr.LayerAttribution.interpolate(
            expected[:, None], (side, side + 16), "bilinear"
        )
        torch.testing.assert_close(large, gradcam.normalise(up[:, 0]), rtol=1e-3, atol=1e-4)


def test_several_layers_are_the_mean_of_each_ones_normalised_map() -> None:
    network = small("tiny", "flow")
    x = torch.randn(2, 5, 40, 40)
    classes = torch.tensor([1, 3])
    found = gradcam.explain(network, x, classes, ["layer4", "layer2"])
    assert found.maps.shape == (2, 10, 10)
    raw = []
    for layer in ("layer2", "layer4"):
        reference = captum.attr.LayerGradCam(network, network.get_submodule(layer))
        one = reference.attribute(x, classes, relu_attributions=True).detach()
        large = F.interpolate(one, (10, 10), mode="bilinear")[:, 0]
        raw.append(large / large.amax((1, 2), keepdim=True))
    expected = (raw[0] + raw[1]) / 2
    expected = expected / expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(found.maps, expected, rtol=1e-3, atol=1e-4)


def test_batch_equals_loop() -> None:
    network = small("tiny")
    x = torch.randn(4, 4, 40, 40)
    classes = torch.tensor([0, 1, 1, 4])
    together = grad_cam(network, x, classes, ["layer3", "layer4"])
    one_by_one = [
        grad_cam(network, x[i : i + 1], classes[i : i + 1], ["layer3", "layer4"]) for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(one_by_one), rtol=1e-4, atol=1e-5)


def test_in_unit_range_and_reaches_one() -> None:
    maps = grad_cam(small("tiny"), torch.randn(6, 4, 40, 40), torch.arange(6) % 5, ["layer4"])
    assert maps.min() >= 0
    assert set(maps.amax((1, 2)).tolist()) <= {0.0, 1.0}


def test_in_place_relu_after_the_layer_does_not_matter() -> None:
    network = small("tiny")
    x, classes = torch.randn(2, 4, 40, 40), torch.tensor([0, 3])
    reference = captum.attr.LayerGradCam(network, network.get_submodule("layer4.bn2"))
    network.get_submodule("layer4.relu2").inplace = False  # captum cannot
    expected = reference.attribute(x, classes, relu_attributions=True).detach()[:, 0]
    expected = expected / expected.amax((1, 2), keepdim=True).clamp(min=1e-30)
    network.get_submodule("layer4.relu2").inplace = True
    maps = grad_cam(network, x, classes, ["layer4.bn2"])
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_leaves_no_trace(frozen: bool) -> None:
    network = small("tiny").train()
    network.get_submodule("layer1").eval()
    network.requires_grad_(not frozen)
    if not frozen:
        network(torch.randn(2, 4, 32, 32)).sum().backward()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    grads = {k: None if p.grad is None else p.grad.clone() for k, p in network.named_parameters()}
    modes = [part.training for part in network.modules()]
    x = torch.randn(2, 4, 32, 32, requires_grad=True)
    copy = x.detach().clone()
    with torch.no_grad():
        first = grad_cam(network, x, torch.tensor([0, 1]), ["layer4"])
    second = grad_cam(network, x, torch.tensor([0, 1]), ["layer4"])
    assert torch.equal(first, second) and not first.requires_grad  # eval mode: no dropout
    assert torch.equal(x.detach(), copy) and x.grad is None
    assert modes == [part.training for part in network.modules()]
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in state.items())
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad is not frozen
        before = grads[name]
        assert parameter.grad is None if before is None else torch.equal(parameter.grad, before)
    assert not any(part._forward_hooks for part in network.modules())


def test_explain_gives_logits_and_features_of_the_same_pass() -> None:
    network = small("tiny")
    x = torch.randn(2, 4, 32, 32)
    found = gradcam.explain(network, x, torch.tensor([0, 1]), ["layer4"])
    with torch.no_grad():
        torch.testing.assert_close(found.logits, network(x))
    (features,) = gradcam.layer_features(network, x, ["layer4"])
    torch.testing.assert_close(found.features[0], features)
    torch.testing.assert_close(features, network.forward_features(x))
    assert not features.requires_grad


def test_wrong_input() -> None:
    network, x = small("tiny"), torch.randn(2, 4, 32, 32)
    with pytest.raises(InputError, match="layer4"):
        grad_cam(network, x, torch.tensor([0, 1]), ["layer44"])
    with pytest.raises(InputError, match="convolutional"):
        grad_cam(network, x, torch.tensor([0, 1]), ["fc"])
    with pytest.raises(InputError, match="one class per input"):
        grad_cam(network, x, torch.tensor([0]), ["layer4"])
    with pytest.raises(InputError, match=r"0\.\.4"):
        grad_cam(network, x, torch.tensor([0, 5]), ["layer4"])
    assert not any(part._forward_hooks for part in network.modules())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_equals_cpu() -> None:
    network, x, classes = small("tiny"), torch.randn(4, 4, 64, 64), torch.tensor([0, 1, 2, 3])
    expected = grad_cam(network, x, classes, ["layer3", "layer4"])
    maps = grad_cam(network.cuda(), x.cuda(), classes.cuda(), ["layer3", "layer4"])
    torch.testing.assert_close(maps.cpu(), expected, rtol=1e-2, atol=1e-2)
