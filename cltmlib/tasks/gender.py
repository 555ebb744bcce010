"""Gender recognition (paper, Section 3.3): binary classification, judged by macro-F1."""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from cltmlib.tasks.classification import Classifier

VERSION = 1
PERFORMANCE, PERFORMANCE_NAME, CHANCE = "f1_macro", "macro-F1", 1 / 3  # chance: always the same answer
COLUMNS = ("gender",)
OPTIONS = ()
CLASSES = ("female", "male")


def model(encoder, rows, config) -> Classifier:
    """A linear layer over `CLASSES`."""
    return Classifier(encoder, CLASSES, "gender")


def evaluate(predict, training, rows) -> dict[str, dict[str, float]]:
    """`metrics` of every test set, and ``n``, its number of clips."""
    return {
        language: {
            **metrics(np.stack(predict(ids)), np.array([CLASSES.index(rows[u]["gender"]) for u in ids])),
            "n": len(ids),
        }
        for language, ids in training.test.items()
    }


def metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Macro-F1 (the paper's performance, chosen against class imbalance) and accuracy.

    Args:
        logits: (clip, 2).
        labels: (clip,), indices into `CLASSES`.

    Example:
        >>> metrics(np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), np.array([0, 1, 1]))["f1_macro"]
        0.6666666666666666
    """
    predicted = logits.argmax(-1)
    return {
        "f1_macro": float(f1_score(labels, predicted, labels=range(len(CLASSES)), average="macro", zero_division=0.0)),
        "accuracy": float(accuracy_score(labels, predicted)),
    }
