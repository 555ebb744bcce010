"""What the tasks that classify whole clips share: the pooled linear head, its loss, its predictions."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import HubertModel

from cltmlib.encoders import Batch, encode, masked_mean


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
