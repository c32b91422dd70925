"""Names of the backbones' last blocks: the layers that attention maps usually come from.

Loads no torch, so `conf/` may ask for a layer by its place before any network is built.
"""

from __future__ import annotations

LAST_BLOCKS: dict[str, tuple[str, str, str]] = {
    "tiny": ("layer2", "layer3", "layer4"),
    "densenet121": ("features.denseblock3", "features.denseblock4", "features.norm5"),
    "efficientnet_b0": ("features.6", "features.7", "features.8"),
    "googlenet": ("inception4e", "inception5a", "inception5b"),
    "inception_v3": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    "mobilenet_v2": ("features.16", "features.17", "features.18"),
    "mobilenet_v3_large": ("features.14", "features.15", "features.16"),
    "mobilenet_v3_small": ("features.10", "features.11", "features.12"),
    "resnet18": ("layer2", "layer3", "layer4"),
    "resnet34": ("layer2", "layer3", "layer4"),
    "resnet50": ("layer2", "layer3", "layer4"),
    "shufflenet_v2_x1_0": ("stage3", "stage4", "conv5"),
    "squeezenet1_0": ("features.9", "features.10", "features.12"),
    "squeezenet1_1": ("features.10", "features.11", "features.12"),
    "vgg11": ("features.9", "features.14", "features.19"),
    "vgg11_bn": ("features.13", "features.20", "features.27"),
    "vgg16": ("features.15", "features.22", "features.29"),
    "vgg16_bn": ("features.22", "features.32", "features.42"),
}
"""Backbone -> its last three convolutional blocks, in the order of the network."""


def last_blocks(backbone: str, places: list[int]) -> list[str]:
    """Layers by their place among the last three: 1, 2 and 3 are Inception's 7a, 7b and 7c.

    Raises:
        ValueError: an unknown backbone, or a place that is not 1, 2 or 3.
    """
    if backbone not in LAST_BLOCKS:
        raise ValueError(f"expected a backbone of {', '.join(LAST_BLOCKS)}, got {backbone!r}")
    if not places or not set(places) <= {1, 2, 3}:
        raise ValueError(f"expected places among the last blocks, of 1, 2 and 3, got {places}")
    return [LAST_BLOCKS[backbone][place - 1] for place in places]
