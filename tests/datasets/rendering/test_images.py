"""Saliency pairs: MSRA10K's layout, and objects that stand out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flowsight.samples import images


def test_layout_is_msra10ks(tmp_path: Path) -> None:
    images.render(tmp_path, seed=1, num_images=6, shape=(80, 100))
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    expected = [f"Imgs/{100001 + index}.{kind}" for index in range(6) for kind in ("jpg", "png")]
    assert names == expected
    for path in tmp_path.glob("Imgs/*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert mask is not None and mask.shape == (80, 100)
        assert set(np.unique(mask)) == {0, 255}
        picture = cv2.imread(str(path.with_suffix(".jpg")), cv2.IMREAD_UNCHANGED)
        assert picture is not None and picture.shape == (80, 100, 3)


def test_objects_stand_out_and_vary() -> None:
    areas, counts = [], []
    for number in range(12):
        rng = np.random.default_rng([7, number])
        image, mask = images.render_pair(rng, (90, 120), number)
        areas.append(mask.mean())
        inside, outside = image[mask].astype(float), image[~mask].astype(float)
        assert np.linalg.norm(inside.mean(axis=0) - outside.mean(axis=0)) > 20
        counts.append(cv2.connectedComponents(mask.astype(np.uint8))[0] - 1)
    assert 0.02 < min(areas) < max(areas) < 0.6
    assert max(areas) > 2 * min(areas)
    assert counts.count(2) >= 1
