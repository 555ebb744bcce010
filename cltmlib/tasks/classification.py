"""What the tasks that classify whole clips share: the pooled linear head, its loss, its predictions, its metrics."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import HubertModel

from cltmlib.encoders import Batch, encode, masked_mean
from cltmlib.sweep.plan import Training


class Classifier(nn.Module):
    """Encoder, masked mean pooling over time, one linear layer (paper, Section 3.2); no layer is frozen.

    Args:
        encoder: where the fine-tuning starts.
        classes: values of ``column``, in the order of the logits.
        column: what of a clip's row is to be told apart.
    """

    def __init__(self, encoder: HubertModel, classes: Sequence[str], column: str):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, len(classes))
        self.column = column
        self.index = {name: k for k, name in enumerate(classes)}

    def forward(self, batch: Batch) -> Tensor:
        """Logits, (batch, class)."""
        output, mask = encode(self.encoder, batch)
        return self.head(masked_mean(output.last_hidden_state, mask))

    def loss(self, batch: Batch, rows: Sequence[Mapping]) -> Tensor:
        """Cross-entropy, averaged over the clips."""
        target = torch.tensor([self.index[row[self.column]] for row in rows], device=batch.input_values.device)
        return cross_entropy(self(batch).float(), target)

    def predict(self, batch: Batch) -> Tensor:
        """Logits, (batch, class)."""
        return self(batch)


def evaluate(
    predict: Callable, training: Training, rows: Mapping[str, Mapping], classes: Sequence[str], column: str
) -> dict[str, dict[str, float]]:
    """`metrics` of every test set, and ``n``, its number of clips: a task's ``evaluate`` of these classes.

    Args:
        predict: gives one row of logits per clip, in the order of ``classes``.
        training: with the test sets.
        rows: utterance id -> the clip's row.
        classes, column: as in `Classifier`.
    """
    return {
        language: {
            **metrics(np.stack(predict(ids)), np.array([classes.index(rows[u][column]) for u in ids])),
            "n": len(ids),
        }
        for language, ids in training.test.items()
    }


def metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Macro-F1 (the paper's performance, chosen against class imbalance) and accuracy.

    Args:
        logits: (clip, class).
        labels: (clip,), which class it is.

    Example:
        >>> metrics(np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), np.array([0, 1, 1]))["f1_macro"]
        0.6666666666666666
    """
    predicted = logits.argmax(-1)
    classes = range(logits.shape[1])
    return {
        "f1_macro": float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0)),
        "accuracy": float(accuracy_score(labels, predicted)),
    }
