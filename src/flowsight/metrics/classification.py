"""Classification metrics over arrays of scores.

N items, K classes. Equal scores are ordered by class index (the lower index wins), so that every
number is the same on every machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def softmax(logits: npt.ArrayLike) -> Floats:
    """Class probabilities.

    Args:
        logits: (N, K) real numbers.

    Returns:
        (N, K) float64, rows sum to 1.
    """
    probs: Floats = special.softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    return probs


def predicted_classes(scores: npt.ArrayLike) -> Ints:
    """Best class of each item; among equal scores the lowest index.

    Args:
        scores: (N, K), higher is better.

    Returns:
        (N,) int64.
    """
    return np.argmax(np.asarray(scores), axis=1).astype(np.int64)


def label_ranks(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Ints:
    """Place of the true class among all classes, 0 is first.

    Args:
        scores: (N, K), higher is better.
        labels: (N,) class indices.

    Returns:
        (N,) int64 in 0..K-1; a class with an equal score and a lower index stands before.
    """
    table, truth = np.asarray(scores), np.asarray(labels, dtype=np.int64)
    own = table[np.arange(len(truth)), truth][:, None]
    before = np.arange(table.shape[1]) < truth[:, None]
    ahead = (table > own) | ((table == own) & before)
    return ahead.sum(axis=1).astype(np.int64)


def top_k_accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike, k: int = 1) -> float:
    """Share of items whose true class is among the k best; 1.0 where K <= k.

    Args:
        scores: (N, K), N >= 1.
        labels: (N,) class indices.
        k: at least 1.
    """
    return float(np.mean(label_ranks(scores, labels) < k))


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, num_classes: int) -> Ints:
    """Counts of (true, predicted) pairs.

    Args:
        labels: (N,) true class indices.
        predicted: (N,) predicted class indices.
        num_classes: K.

    Returns:
        (K, K) int64, rows are true classes, columns predicted ones.
    """
    pairs = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_class_accuracy(labels: npt.ArrayLike, predicted: npt.ArrayLike, num_classes: int) -> float:
    """Accuracy of each class that has items, averaged: every class weighs the same."""
    counts = confusion_matrix(labels, predicted, num_classes)
    items = counts.sum(axis=1)
    return float(np.mean(np.diag(counts)[items > 0] / items[items > 0]))


def log_loss(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean negative log probability of the true class, in nats.

    Args:
        probs: (N, K) in [0, 1]; values below the smallest normal float32 count as that.
        labels: (N,) class indices.
    """
    table, truth = np.asarray(probs, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    own = table[np.arange(len(truth)), truth]
    return float(-np.mean(np.log(np.maximum(own, np.finfo(np.float32).tiny))))


def class_recalls(labels: npt.ArrayLike, predicted: npt.ArrayLike, num_classes: int) -> Floats:
    """Share of each class's items that are called so.

    Returns:
        (K,) float64 in [0, 1]; NaN for a class without items.
    """
    counts = confusion_matrix(labels, predicted, num_classes)
    items = counts.sum(axis=1)
    return np.where(items > 0, np.diag(counts) / np.maximum(items, 1), np.nan)


def macro_f1(labels: npt.ArrayLike, predicted: npt.ArrayLike, num_classes: int) -> float:
    """F1 of each class, averaged: every class weighs the same, however rare.

    F1 = 2 TP / (2 TP + FP + FN); a class that is neither there nor predicted is left out, one that
    is only missed or only mistaken for counts 0 (as scikit-learn has it by default).

    Args:
        labels: (N,) true class indices, N >= 1.
        predicted: (N,) predicted class indices.
        num_classes: K.
    """
    counts = confusion_matrix(labels, predicted, num_classes)
    sums = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.mean(2 * np.diag(counts)[sums > 0] / sums[sums > 0]))
