"""Late fusion and the choice of its weight."""

import numpy as np
import pytest

from flowsight.metrics import classification
from flowsight.metrics.fusion import choose_weight, fuse


def test_fuse_is_a_weighted_average() -> None:
    assert fuse([[0.8, 0.2]], [[0.4, 0.6]], 0.25)[0] == pytest.approx([0.5, 0.5])
    assert fuse([[0.8, 0.2]], [[0.4, 0.6]], 1.0).tolist() == [[0.8, 0.2]]
    with pytest.raises(ValueError, match="weight"):
        fuse([[1.0]], [[1.0]], 1.5)


def test_the_middle_of_the_best_weights_is_taken() -> None:
    # only the temporal stream knows: the weights 0, 0.1, ... 0.4 are right
    spatial, temporal = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    chosen = choose_weight(spatial, temporal, [1], 10)
    assert (chosen.value, chosen.source, chosen.num_clips) == (0.2, "validation", 1)


def test_confidence_does_not_decide() -> None:
    # both streams are always right, the spatial one surer
    assert choose_weight([[0.9, 0.1]], [[0.6, 0.4]], [0], 10).value == 0.5


def test_nearest_to_one_half_decides_last() -> None:
    same = [[0.7, 0.3]]
    assert choose_weight(same, same, [0], 20).value == 0.5
    # without 0.5 on the grid, 1/3 and 2/3 are as near: the lower one
    assert choose_weight(same, same, [0], 3).value == pytest.approx(1 / 3)


def test_no_validation_clips_is_one_half_and_says_so() -> None:
    chosen = choose_weight(np.zeros((0, 3)), np.zeros((0, 3)), [], 20)
    assert (chosen.value, chosen.source, chosen.num_clips) == (0.5, "default", 0)


def test_equals_a_plain_search() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(40) % 4
    first, second = (
        classification.softmax(rng.normal(size=(40, 4)) + s * np.eye(4)[labels]) for s in (1.0, 1.5)
    )
    rights = []
    for step in range(21):
        weight, right = step / 20, 0
        for a, b, label in zip(first, second, labels, strict=True):
            mixed = [weight * p + (1 - weight) * q for p, q in zip(a, b, strict=True)]
            right += mixed.index(max(mixed)) == label
        rights.append(right)
    best = [step for step in range(21) if rights[step] == max(rights)]
    chosen = choose_weight(first, second, labels, 20).value
    assert round(20 * chosen) in best
    assert (
        abs(20 * chosen - sum(best) / len(best))
        <= min(abs(step - sum(best) / len(best)) for step in best) + 1e-9
    )
