"""Pictures of maps and flow."""

from __future__ import annotations

import numpy as np

from flowsight.video import heat


def test_overlay_is_red_where_attention_is() -> None:
    image = np.full((8, 8, 3), 100, dtype=np.uint8)
    attention = np.zeros((2, 2), dtype=np.uint8)
    attention[0, 0] = 255
    mixed = heat.overlay(image, attention)
    assert mixed.shape == image.shape and (image == 100).all()
    assert mixed[0, 0, 0] > mixed[0, 0, 2] and mixed[7, 7, 2] > mixed[7, 7, 0]


def test_flow_picture() -> None:
    field = np.full((2, 4, 4), 128, dtype=np.uint8)
    field[0, 0, 0] = 228  # to the right: red
    field[0, 0, 1] = 28  # to the left: cyan
    picture = heat.flow_picture(field)
    assert picture[0, 0, 0] > 250 and picture[0, 0, 1:].max() < 15
    assert picture[0, 1, 0] < 15 and picture[0, 1, 1:].min() > 240
    assert picture[3, 3].min() > 225  # still: nearly white
