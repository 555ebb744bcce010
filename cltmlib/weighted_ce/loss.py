"""Cross-entropy in which utterances of one language count more (arXiv 2409.16954)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cltmlib.errors import InputError


def weighted_cross_entropy(logits: Tensor, labels: Tensor, sample_weights: Tensor, ignore_index: int = -100) -> Tensor:
    """Token loss averaged with each utterance's weight: ``sum(w * token loss) / sum(w * tokens)``.

    With equal weights it is torch's cross-entropy. Only the ratio of the weights matters, so a batch of one language
    has the same loss whatever its weight.

    Args:
        logits: (batch, position, token).
        labels: int64, (batch, position).
        sample_weights: (batch,), at least 0: 1 for high-resource languages, 1 or more for the low-resource one.
        ignore_index: label of positions that do not count.

    Returns:
        A scalar; NaN where no position counts, as torch has it.

    Raises:
        InputError: the shapes do not fit together.
    """
    losses, counted = _token_losses(logits, labels, ignore_index)
    if sample_weights.shape != labels.shape[:1]:
        raise InputError(
            f"sample_weights has shape {tuple(sample_weights.shape)}: give one weight for each of the "
            f"{len(labels)} utterances."
        )
    weights = sample_weights.to(losses.dtype)[:, None] * counted
    return (weights * losses).sum() / weights.sum()


def batch_scale(logits: Tensor, labels: Tensor, sample_weights: Tensor, ignore_index: int = -100) -> Tensor:
    """Cross-entropy of the batch times the mean weight of its utterances, as the authors' released code computes it.

    There the loss is already averaged when the weights come: batches rich in the low-resource language count more,
    but within a batch no utterance counts more than another. Arguments as `weighted_cross_entropy`.
    """
    plain = weighted_cross_entropy(logits, labels, torch.ones_like(sample_weights), ignore_index)
    return plain * sample_weights.to(plain.dtype).mean()


def utterance_losses(logits: Tensor, labels: Tensor, ignore_index: int = -100) -> Tensor:
    """Mean token loss of each utterance: (batch,); NaN where none of its positions counts. Arguments as above."""
    losses, counted = _token_losses(logits, labels, ignore_index)
    return losses.sum(1) / counted.sum(1)


def group_losses(losses: Tensor, is_low: Sequence[bool]) -> tuple[float | None, float | None]:
    """Mean of the utterances' losses of the low-resource language and of the others; None where the batch has none."""
    mask = torch.as_tensor(is_low, dtype=torch.bool, device=losses.device)
    groups = [losses.detach()[mask], losses.detach()[~mask]]
    return tuple(group.mean().item() if len(group) else None for group in groups)


def _token_losses(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Loss of each position in at least float32, 0 where it does not count; and where it counts: (batch, position)."""
    if logits.ndim != 3 or logits.shape[:2] != labels.shape:
        raise InputError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit: give (batch, position, token) "
            "and (batch, position)."
        )
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    losses = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=ignore_index
    )
    return losses.view_as(labels), labels != ignore_index
