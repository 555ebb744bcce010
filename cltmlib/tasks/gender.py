"""Gender recognition (paper, Section 3.3): binary classification, judged by macro-F1."""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from cltmlib.errors import InputError

VERSION = 1  # raised whenever the same training would give another result; part of every training's key
PERFORMANCE = "f1_macro"
CLASSES = ("female", "male")


def label(row: dict) -> int:
    """Index of the row's gender in `CLASSES`.

    Raises:
        InputError: the row has no gender label.
    """
    if row["gender"] not in CLASSES:
        raise InputError(
            f"Utterance {row['utterance_id']!r} has gender {row['gender']!r}; keep only female and male ones."
        )
    return CLASSES.index(row["gender"])


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
