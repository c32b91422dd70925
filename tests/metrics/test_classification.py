"""Classification metrics against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as reference

from flowsight.metrics import classification


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """(scores (60, 7), labels (60,)), every class present."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(60, 7)), np.arange(60) % 7


def test_softmax_sums_to_one_and_survives_large_logits() -> None:
    probs = classification.softmax([[1000.0, 1000.0], [0.0, -1000.0]])
    assert probs.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert probs.dtype == np.float64


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_equals_scikit_learn(drawn: tuple[np.ndarray, np.ndarray], k: int) -> None:
    scores, labels = drawn
    expected = reference.top_k_accuracy_score(labels, scores, k=k, labels=np.arange(7))
    assert classification.top_k_accuracy(scores, labels, k) == pytest.approx(expected)


def test_top_5_of_three_classes_is_one() -> None:
    assert classification.top_k_accuracy([[0.2, 0.5, 0.3]], [0], 5) == 1.0


def test_ties_go_to_the_lower_index() -> None:
    scores = [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    assert classification.label_ranks(scores, [0, 1, 2]).tolist() == [0, 1, 2]
    assert classification.predicted_classes(scores).tolist() == [0, 0, 0]
    assert classification.top_k_accuracy(scores, [0, 1, 2]) == pytest.approx(1 / 3)


def test_rank_zero_means_predicted() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (200, 4)).astype(float)
    labels = np.arange(200) % 4
    best = classification.predicted_classes(scores)
    assert ((classification.label_ranks(scores, labels) == 0) == (best == labels)).all()


def test_confusion_and_mean_class_equal_scikit_learn(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, labels = drawn
    best = classification.predicted_classes(scores)
    counts = classification.confusion_matrix(labels, best, 7)
    assert (counts == reference.confusion_matrix(labels, best, labels=np.arange(7))).all()
    expected = reference.balanced_accuracy_score(labels, best)
    assert classification.mean_class_accuracy(labels, best, 7) == pytest.approx(expected)


def test_mean_class_leaves_out_classes_without_items() -> None:
    # class 0: 1 of 1, class 1: 1 of 3, class 2: no item
    assert classification.mean_class_accuracy([0, 1, 1, 1], [0, 1, 2, 0], 3) == pytest.approx(2 / 3)


def test_log_loss_equals_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    probs, labels = classification.softmax(drawn[0]), drawn[1]
    expected = reference.log_loss(labels, probs, labels=np.arange(7))
    assert classification.log_loss(probs, labels) == pytest.approx(expected)
    assert np.isfinite(classification.log_loss([[1.0, 0.0]], [1]))


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_and_recalls_are_scikit_learns(seed: int) -> None:
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, 6, 40), rng.integers(0, 6, 40)
    labels[labels == 5] = 0  # a class that is only mistaken for
    assert classification.macro_f1(labels, predicted, 7) == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    recalls = classification.class_recalls(labels, predicted, 7)
    assert np.isnan(recalls[5:]).all()
    expected = metrics.recall_score(labels, predicted, labels=range(5), average=None)
    np.testing.assert_allclose(recalls[:5], expected)


def test_macro_f1_by_hand() -> None:
    # class 0: TP 1, FP 1, FN 1 -> 1/2; class 1: TP 1, FP 1, FN 1 -> 1/2; class 2: TP 1 -> 1
    assert classification.macro_f1([0, 0, 1, 1, 2], [0, 1, 0, 1, 2], 4) == pytest.approx(2 / 3)
