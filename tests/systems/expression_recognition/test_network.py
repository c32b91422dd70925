"""Networks: sizes as published, torchvision's answers, frozen convolutions."""

from __future__ import annotations

import pytest
import torch
import torchvision

from flowsight.errors import InputError
from flowsight.nn import cost, gradcam
from flowsight.systems.expression_recognition import network


def test_sizes() -> None:
    with torch.device("meta"):
        vgg = network.build(backbone="vgg16", num_classes=7)
        assert cost.num_parameters(vgg) == 134_289_223  # VGG16 with 7 outputs
        assert cost.multiply_adds(vgg, torch.empty(1, 3, 224, 224)) == pytest.approx(
            15.47e9, rel=1e-3
        )
    tiny = network.build(backbone="tiny", num_classes=8)
    # convolutions of 16, 16, 32, 32, 64, 64 without bias, their batch norms, linear 2304-128-8
    convs = 9 * (16 + 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    assert cost.num_parameters(tiny) == convs + 2 * 224 + 2305 * 128 + 129 * 8
    assert cost.multiply_adds(tiny, torch.zeros(1, 1, 48, 48)) == 21_861_376
    fer = network.build(backbone="vgg_fer", num_classes=7, width=4)
    assert fer.forward_features(torch.zeros(1, 1, 40, 40)).shape == (1, 32, 2, 2)


@pytest.mark.parametrize("backbone", ["tiny", "vgg_fer", "squeezenet1_0"])
def test_forward_is_features_then_head_and_explains(backbone: str) -> None:
    torch.manual_seed(0)
    width = None if backbone == "squeezenet1_0" else 4
    made = network.build(backbone=backbone, num_classes=8, width=width).eval()
    x = torch.randn(2, made.in_channels, 56, 56)
    logits = made(x)
    assert logits.shape == (2, 8)
    assert torch.equal(logits, made.forward_head(made.forward_features(x)))
    maps = gradcam.grad_cam(
        made, x, torch.tensor([1, 2]), [network.target_layer(backbone)], size=(56, 56)
    )
    assert maps.shape == (2, 56, 56) and 0 <= maps.min() <= maps.max() <= 1


def test_torchvisions_weights_give_torchvisions_answers() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.squeezenet1_0(weights=None, num_classes=1000).eval()
    ours = network.build(
        backbone="squeezenet1_0", num_classes=1000, pretrained=theirs.state_dict()
    ).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))
    other = network.build(backbone="squeezenet1_0", num_classes=7, pretrained=theirs.state_dict())
    assert torch.equal(other.eval().forward_features(x), theirs.features(x))
    with pytest.raises(InputError, match="expected pretrained weights of tiny"):
        network.build(backbone="tiny", num_classes=7, pretrained=theirs.state_dict())


def test_frozen_convolutions_stay() -> None:
    made = network.build(backbone="tiny", num_classes=8, width=4)
    made.freeze()
    before = {k: v.clone() for k, v in made.features.state_dict().items()}
    made.train()
    made(torch.randn(4, 1, 48, 48)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in made.features.state_dict().items())
    assert all(p.grad is None for p in made.features.parameters())
    assert all(p.grad is not None for p in made.classifier.parameters())


def test_unknown_backbone() -> None:
    with pytest.raises(InputError, match="expected a backbone of vgg16"):
        network.build(backbone="resnet18", num_classes=7)
