"""The sequence-level cross-entropy of unsupervised training, by the forward algorithm.

The paper (arXiv 2603.02285, Section 3.3), for utterances ``x_s`` without transcripts and a language model from text:

    F = - 1/S sum_s log sum_{c_1^N} p_LM(c_1^N) prod_n q(x_{s,n} | c_n).

``F`` less the entropy of the data is D_KL(p_r(x) || q(x)), so minimising it minimises the bound of Theorem 1.
"""

import math

import torch
from torch import Tensor

from cltmlib.errors import InputError
from cltmlib.unsupervised.ngram import NGram

_SAFE = math.log(1e-300)  # products of factors above it do not underflow in float64


def generative_scores(logits: Tensor, symbols: Tensor, mask: Tensor | None = None) -> Tensor:
    """``log q(x_n | c)`` for every label c, of a table of emissions.

    Args:
        logits: (K, V); ``q(x | c)`` is the softmax of row c. Log-probabilities are logits of themselves.
        symbols: acoustic symbols, int64, (batch, N).
        mask: true at positions that belong to the sequence, (batch, N).

    Returns:
        Scores for `sequence_cross_entropy`, (batch, N, K).

    Raises:
        InputError: a symbol is none of the V.
    """
    if symbols.is_floating_point() or symbols.dim() != 2 or (mask is not None and mask.shape != symbols.shape):
        raise InputError(
            f"The symbols are {symbols.dtype} of shape {tuple(symbols.shape)}: they must be whole numbers, (batch, N), "
            "and the mask of the same shape."
        )
    valid = symbols if mask is None else symbols[mask]
    unseen = valid[(valid < 0) | (valid >= logits.shape[-1])]
    if len(unseen):
        raise InputError(
            f"The speech holds the unseen symbol {int(unseen[0])}: the emission has {logits.shape[-1]}, 0 to "
            f"{logits.shape[-1] - 1}; give it more symbols or map this one to one of them."
        )
    symbols = symbols if mask is None else symbols.masked_fill(~mask, 0)
    return torch.log_softmax(logits, -1).T[symbols]


def posterior_scores(log_posteriors: Tensor, mask: Tensor | None = None) -> Tensor:
    """``log q(c | x_n) - log q(c)`` of a neural classifier: ``log q(x_n | c)`` up to ``log q(x_n)``, which is constant.

    Choice: the prior is the model's own, the mean of its posteriors over the batch, with the gradient through it. Only
    then ``sum_x q(x | c) = 1``; with a fixed prior or none the loss is no cross-entropy and favours a model that
    predicts one label everywhere (measured, spec 8.4).

    Args:
        log_posteriors: log-softmax over labels, (batch, N, K).
        mask: true at positions that belong to the sequence, (batch, N).

    Returns:
        Scores for `sequence_cross_entropy`, (batch, N, K).

    Raises:
        InputError: the posteriors of a position do not sum to one.
    """
    valid = log_posteriors if mask is None else log_posteriors[mask]
    valid = valid.reshape(-1, log_posteriors.shape[-1])
    if not len(valid):
        raise InputError("There is no position to take the prior from: all sequences are empty.")
    sums = valid.detach().exp().sum(-1)
    tolerance = 1e-8 if valid.dtype == torch.float64 else 1e-3
    if not ((sums - 1).abs() < tolerance).all():
        raise InputError(
            f"Posteriors of a position sum to {float(sums[(sums - 1).abs().argmax()]):.6g}, not to one: hand over "
            "log_softmax of the classifier's output."
        )
    log_prior = torch.logsumexp(valid, 0) - math.log(len(valid))
    return log_posteriors - log_prior


def sequence_cross_entropy(
    scores: Tensor, language_model: NGram, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The loss F: ``- log sum over label sequences of p_LM(c) prod_n exp(scores[n, c_n])``, in nats per sequence.

    Cost N K^m for an m-gram: with N = 500 and K = 50 on one core, 4 times a matrix product of the same operation count
    in batches of 64 (8 with the gradient), 10 in batches of 16; a single sequence is bound by the overhead of calls.
    Choice: computed in float64 whatever the input, on its device.

    The fast path carries probabilities that are normalised at every step and sums the logarithms of the norms. Where
    it cannot be shown that no number underflowed, sequences are computed again with log-sum-exp throughout.

    Args:
        scores: ``log q(x_n | c)`` for every label, up to a constant per position, (batch, N, K), from
            `generative_scores` or `posterior_scores`. ``-inf`` rules a label out.
        language_model: over the same K labels.
        mask: true at positions that belong to the sequence, (batch, N); each row is true first, then false. What
            stands in masked positions does not matter.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.

    Returns:
        The loss, a scalar, or (batch,) under ``"none"``; differentiable with respect to ``scores``.

    Raises:
        InputError: shapes do not fit, a sequence is empty, a score is NaN or +inf, or a sequence is impossible under
            the model.

    Example:
        >>> model = NGram(([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]]))
        >>> emission = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
        >>> scores = generative_scores(emission.log(), torch.tensor([[0, 0]]))
        >>> round(float(sequence_cross_entropy(scores, model)), 6)
        1.042705
    """
    if reduction not in ("mean", "sum", "none"):
        raise InputError(f"reduction is {reduction!r}: choose mean, sum or none.")
    scores, lengths = _checked(scores, language_model, mask)
    log_probability, safe = _forward_scaled(scores, language_model, lengths)
    if not safe.all():
        exact = _forward_log(scores[~safe], language_model, lengths[~safe])
        log_probability = log_probability.masked_scatter(~safe, exact)
    impossible = torch.isneginf(log_probability.detach())
    if impossible.any():
        raise InputError(
            f"Sequence {int(impossible.nonzero()[0, 0])} of the batch has probability zero under the model: smooth "
            "the language model or the emission, or leave the sequence out."
        )
    if reduction == "none":
        return -log_probability
    return -(log_probability.mean() if reduction == "mean" else log_probability.sum())


def label_posteriors(scores: Tensor, language_model: NGram, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``p(c_n = c | x_1^N)`` of every position, and each sequence's loss.

    The posterior is the derivative of ``log q(x_1^N)`` with respect to the score of c at n (Fisher's identity): what
    forward-backward computes, for any order of the language model.

    Args:
        scores, language_model, mask: as in `sequence_cross_entropy`.

    Returns:
        Posteriors, float64, (batch, N, K), zero at masked positions; losses, (batch,).
    """
    with torch.enable_grad():
        leaf = scores.detach().double().requires_grad_(True)
        losses = sequence_cross_entropy(leaf, language_model, mask, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return -gradient, losses.detach()


def _forward_scaled(scores: Tensor, language_model: NGram, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability per sequence, and whether it is shown to be free of underflow, (batch,) each."""
    highest = scores.detach().amax(-1)  # (batch, N)
    if torch.isnan(highest).any() or torch.isposinf(highest).any():
        raise InputError("A score is NaN or +inf: scores are logarithms of probabilities, finite or -inf.")
    highest = highest.clamp_min(-1e300)  # where all labels are ruled out
    relative = scores - highest[:, :, None]
    ends = {int(length) for length in lengths.unique()}
    alpha, norms, alphas = None, [], []
    end_sum = scores.new_ones(len(scores))
    for n, emission in enumerate(relative.exp().unbind(1)):  # (batch, K); indexing instead would cost N^2 backwards
        new = _advance(alpha, language_model, n, emission)
        # The norm is a constant to the gradient, which flows through the sum at the end: half the steps backwards.
        norm = new.detach().sum(-1, keepdim=True).clamp_min(1e-300)  # 0 where impossible: then it is not called safe
        alpha = new / norm
        norms.append(norm)
        alphas.append(alpha.detach())
        if n + 1 in ends:
            end_sum = torch.where(lengths == n + 1, alpha.sum(-1), end_sum)
    # Ended sequences ran on, but what comes after their end does not enter the sum.
    norms = torch.cat(norms, 1)  # (batch, N)
    valid = torch.arange(norms.shape[1], device=scores.device) < lengths[:, None]
    log_probability = ((norms.log() + highest) * valid).sum(1) + end_sum.clamp_min(1e-300).log()
    return log_probability, _safe(relative.detach(), norms, alphas, language_model)


def _safe(relative: Tensor, norms: Tensor, alphas: list[Tensor], language_model: NGram) -> Tensor:
    """Whether no product of the forward recursion fell below 1e-300, for each sequence; (batch,).

    Where nothing is zero, a forward probability is at least the least table entry times the least emission, once per
    label of its state. Where that does not suffice, the forward probabilities themselves are looked at.
    """
    least_table = math.log(min(float(_least_positive(table.reshape(-1))) for table in language_model.tables))
    least_score = relative.amin((1, 2))
    if all(bool((table > 0).all()) for table in language_model.tables):
        known = max(2, language_model.order) * (least_table + least_score) > _SAFE
        if known.all():
            return known
    least_score = relative.masked_fill(torch.isneginf(relative), 0).amin((1, 2))
    least_alpha = torch.stack([_least_positive(alpha) for alpha in alphas]).amin(0)
    return (least_alpha.log() + least_table + least_score > _SAFE) & (norms > 1e-300).all(1)


def _advance(alpha: Tensor | None, language_model: NGram, n: int, emission: Tensor) -> Tensor:
    """One step: forward probabilities of the states (the last labels), (batch, states) -> (batch, new states)."""
    n_labels, table = language_model.n_labels, language_model.next_label(n).to(emission.device)
    if n == 0:
        return table * emission
    if language_model.order == 1:
        return alpha.sum(-1, keepdim=True) * table * emission
    if n < language_model.order - 1:  # histories still grow: no sum
        return ((alpha[:, :, None] * table.reshape(-1, n_labels)) * emission[:, None, :]).flatten(1)
    if language_model.order == 2:
        return (alpha @ table) * emission
    older = table.reshape(n_labels, -1, n_labels)  # (oldest label, the others, next)
    summed = torch.einsum("boh,ohk->bhk", alpha.reshape(len(alpha), n_labels, -1), older)
    return (summed * emission[:, None, :]).flatten(1)


def _forward_log(scores: Tensor, language_model: NGram, lengths: Tensor) -> Tensor:
    """Log-probability per sequence with log-sum-exp at every step: slower, and safe for any finite score."""
    n_labels, alpha, total = language_model.n_labels, None, scores.new_zeros(len(scores))
    logs = [table.log().to(scores.device) for table in language_model.tables]
    for n in range(scores.shape[1]):
        table, score = logs[min(n, language_model.order - 1)], scores[:, n]
        if n == 0:
            new = table + score
        elif language_model.order == 1:
            new = _log_sum(alpha, -1)[:, None] + table + score
        elif n < language_model.order - 1:
            new = (alpha[:, :, None] + table.reshape(-1, n_labels) + score[:, None, :]).flatten(1)
        else:
            older = alpha.reshape(len(alpha), n_labels, -1, 1) + table.reshape(n_labels, -1, n_labels)
            new = (_log_sum(older, 1) + score[:, None, :]).flatten(1)
        alpha, ends = new, lengths == n + 1
        if ends.any():
            total = torch.where(ends, _log_sum(alpha, -1), total)
    return total


def _log_sum(values: Tensor, dim: int) -> Tensor:
    """Log-sum-exp whose gradient is zero, not NaN, where everything is -inf."""
    dead = torch.isneginf(values).all(dim, keepdim=True)
    total = torch.logsumexp(values.masked_fill(dead, 0), dim)
    return total.masked_fill(dead.squeeze(dim), -math.inf)


def _least_positive(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, math.inf).amin(-1)


def _checked(scores: Tensor, language_model: NGram, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores in float64 with masked positions at zero, and lengths (batch,)."""
    if scores.dim() != 3 or scores.shape[-1] != language_model.n_labels:
        raise InputError(
            f"Scores have shape {tuple(scores.shape)}: they must be (batch, N, K) with the {language_model.n_labels} "
            "labels of the language model."
        )
    if not scores.shape[0] or not scores.shape[1]:
        raise InputError("There is no sequence to score, or all are empty: give at least one position.")
    if mask is None:
        lengths = torch.full((len(scores),), scores.shape[1], device=scores.device)
    else:
        if mask.shape != scores.shape[:2] or mask.dtype != torch.bool:
            raise InputError(
                f"The mask is {mask.dtype} of shape {tuple(mask.shape)}: it must be bool {tuple(scores.shape[:2])}."
            )
        lengths = mask.sum(1)
        if not lengths.all():
            raise InputError(f"Sequence {int((lengths == 0).nonzero()[0, 0])} of the batch is empty: leave it out.")
        if not (mask == (torch.arange(scores.shape[1], device=mask.device) < lengths[:, None])).all():
            raise InputError("The mask has a hole: in each row it must be true first, then false.")
        scores = scores.masked_fill(~mask[:, :, None], 0)
    return scores.double(), lengths
