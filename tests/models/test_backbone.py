"""Backbones: names, layers, weights; torchvision is the reference."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from flowsight.errors import InputError
from flowsight.nn import backbone, checkpoint
from flowsight.nn.blocks import LAST_BLOCKS, last_blocks
from flowsight.systems.two_stream import network as two_stream


@pytest.mark.parametrize("name", backbone.TARGET_LAYERS)
def test_every_backbone_fits_two_stream(name: str) -> None:
    side = 299 if name == "inception_v3" else 128
    with torch.device("meta"):  # shapes only, no arithmetic
        network = two_stream.build(
            backbone=name, modality="flow", num_classes=7, stack_length=3, dropout=0.3
        )
        x = torch.zeros(2, 7, side, side)
        features = network.forward_features(x)
        logits = network.forward_head(features)
    assert features.ndim == 4 and logits.shape == (2, 7)
    drops = [part for part in network.modules() if isinstance(part, nn.Dropout)]
    assert drops and {part.p for part in drops} == {0.3}
    backbone.check_layers(network, [backbone.TARGET_LAYERS[name]])


@pytest.mark.parametrize("name", backbone.TARGET_LAYERS)
def test_default_target_layer_is_the_last_feature_map(name: str) -> None:
    side = 299 if name == "inception_v3" else 128
    shapes: list[torch.Size] = []
    with torch.device("meta"):
        network = two_stream.build(backbone=name, modality="rgb", num_classes=2)
        network.get_submodule(backbone.TARGET_LAYERS[name]).register_forward_hook(
            lambda module, args, output: shapes.append(output.shape)
        )
        last = network.forward_features(torch.zeros(1, 4, side, side)).shape
    assert shapes[0][1] == last[1]  # vgg's pooling follows its last convolution
    assert shapes[0][2] in (last[2], 2 * last[2])


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x1_0"])
def test_same_outputs_as_torchvision(name: str) -> None:
    torch.manual_seed(0)
    reference = getattr(torchvision.models, name)(num_classes=5).eval()
    ours = two_stream.build(
        backbone=name,
        modality="rgb",
        num_classes=5,
        map_channel=False,
        pretrained=reference.state_dict(),
    ).eval()
    x = torch.randn(2, 3, 64, 64)
    assert list(ours.state_dict()) == list(reference.state_dict())
    if name.startswith("squeezenet"):  # its ReLU on the logits is left out on purpose
        reference.classifier[2] = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x))


def test_densenet_keeps_torchvisions_hidden_relu_and_reads_old_files() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.densenet121(num_classes=3).eval()
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in reference.state_dict().items()
        if "num_batches" not in key
    }
    ours = two_stream.build(
        backbone="densenet121", modality="rgb", num_classes=3, map_channel=False, pretrained=old
    ).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x))


def test_inception_takes_imagenet_normalised_input() -> None:
    """Our folded weights without `transform_input` equal torchvision's with it, at full size."""
    torch.manual_seed(0)
    reference = torchvision.models.inception_v3(
        num_classes=4, transform_input=True, aux_logits=True, init_weights=False
    ).eval()
    assert any(key.startswith("AuxLogits") for key in reference.state_dict())
    ours = two_stream.build(
        backbone="inception_v3",
        modality="rgb",
        num_classes=4,
        map_channel=False,
        pretrained=reference.state_dict(),
    ).eval()
    x = torch.randn(2, 3, 299, 299)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-4, atol=1e-5)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"resnet18.*'resnet_18'"):
        backbone.create("resnet_18", num_classes=2)
    with pytest.raises(InputError, match="no ImageNet weights"):
        backbone.pretrained_state("tiny")


def test_unknown_layer_lists_the_blocks_that_exist() -> None:
    network = backbone.create("tiny", num_classes=2)
    with pytest.raises(InputError, match=r"'layer5'.*blocks: layer1, layer2, layer3, layer4$"):
        backbone.check_layers(network, ["layer5"])
    with torch.device("meta"):
        inception = backbone.create("inception_v3", num_classes=2, init_weights=False)
    with pytest.raises(InputError, match=r"'Mixed_8a'.*Conv2d_1a_3x3, .*Mixed_7b, Mixed_7c$") as no:
        backbone.check_layers(inception, ["Mixed_8a"])
    assert "\n" not in str(no.value) and "pool" not in str(no.value)
    with pytest.raises(InputError, match="at least one"):
        backbone.check_layers(network, [])


def test_weights_of_another_backbone_are_refused() -> None:
    with torch.device("meta"):
        other = torchvision.models.resnet34().state_dict()
    network = backbone.create("resnet18", num_classes=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError, match=r"weights of resnet18.*unknown \(layer1\.2\.conv1"):
        backbone.load_pretrained(network, other, name="resnet18")
    assert not checkpoint.differences(before, network.state_dict())
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in before.items())


def test_classifier_of_another_width_is_refused() -> None:
    network = backbone.create("resnet18", num_classes=2)
    state = {**network.state_dict(), "fc.weight": torch.zeros(1000, 2048)}
    with pytest.raises(InputError, match=r"fc\.weight: 1000x2048 for 2x512"):
        backbone.load_pretrained(network, state, name="resnet18")


def test_tiny_needs_no_torchvision() -> None:
    code = (
        "import sys; from flowsight.systems.two_stream import network as two_stream;"
        "two_stream.build(backbone='tiny', modality='rgb', num_classes=2);"
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("name", LAST_BLOCKS)
def test_last_blocks_are_blocks_with_feature_maps_in_order(name: str) -> None:
    network = backbone.create(name, num_classes=2, init_weights=False).eval()
    assert set(LAST_BLOCKS[name]) <= set(backbone.block_names(network))
    seen: list[tuple[str, int]] = []
    for block in LAST_BLOCKS[name]:
        network.get_submodule(block).register_forward_hook(
            lambda module, args, output, block=block: seen.append((block, output.ndim))
        )
    with torch.no_grad():
        network(torch.zeros(1, 3, 96, 96))
    assert seen == [(block, 4) for block in LAST_BLOCKS[name]]


def test_layers_by_their_place() -> None:
    assert last_blocks("inception_v3", [1]) == ["Mixed_7a"]
    assert last_blocks("inception_v3", [1, 2, 3]) == ["Mixed_7a", "Mixed_7b", "Mixed_7c"]
    with pytest.raises(ValueError, match=r"resnet18.*'resnet'"):
        last_blocks("resnet", [1])
    for places in ([0], [4], []):
        with pytest.raises(ValueError, match="1, 2 and 3"):
            last_blocks("tiny", places)
