"""Training emissions from unpaired data: EM on the sequence-level loss, and the supervised topline.

An emission here is a table q(x | c), (K, V); several starts are trained side by side, (R, K, V). The language model is
fixed: it comes from text.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cltmlib.errors import InputError
from cltmlib.unsupervised.loss import generative_scores, label_posteriors, posterior_scores, sequence_cross_entropy
from cltmlib.unsupervised.ngram import NGram

_MAX_CELLS = 2e6  # positions times labels of one batch of EM
_SMOOTHING = 1e-3  # pseudo-count in the M-step, so that no entry is locked at zero


@dataclass(frozen=True)
class Trained:
    """What `expectation_maximisation` found.

    Attributes:
        emissions: float64, (R, K, V), one per start.
        losses: nats per sequence before each iteration and after the last, (n_iterations + 1, R).
    """

    emissions: Tensor
    losses: np.ndarray

    @property
    def best(self) -> Tensor:
        """The emission with the lowest training loss, (K, V): a choice that needs no labels."""
        return self.emissions[int(np.argmin(self.losses[-1]))]

    @property
    def each(self) -> list["Trained"]:
        """The starts one by one."""
        return [Trained(self.emissions[[k]], self.losses[:, [k]]) for k in range(len(self.emissions))]


def expectation_maximisation(
    symbols: Tensor, language_model: NGram, starts: Tensor, n_iterations: int, mask: Tensor | None = None
) -> Trained:
    """Minimise the sequence-level cross-entropy over tables q(x | c) by EM, which never raises it and has no step size.

    Expected counts are ``sum p(c_n = c | x_1^N)``, minus the gradient of the loss with respect to ``log q(x_n | c)``.

    Args:
        symbols: acoustic symbols, int64, (S, N).
        language_model: over K labels, from text.
        starts: emissions to start from, (R, K, V).
        n_iterations: of all starts.
        mask: as in `sequence_cross_entropy`.

    Raises:
        InputError: as `sequence_cross_entropy`.
    """
    emissions, losses = starts.double(), []
    n_symbols = emissions.shape[-1]
    if not n_iterations >= 1 or emissions.dim() != 3:
        raise InputError(f"EM needs starts of shape (R, K, V), not {tuple(emissions.shape)}, and an iteration or more.")
    generative_scores(emissions[0], symbols, mask)  # refuses unseen symbols
    valid = torch.ones_like(symbols, dtype=torch.bool) if mask is None else mask
    hot = torch.nn.functional.one_hot(symbols.masked_fill(~valid, 0), n_symbols).double()
    hot = (hot * valid[:, :, None]).reshape(-1, n_symbols)  # (S N, V)
    at_once = max(1, int(_MAX_CELLS // (symbols.numel() * emissions.shape[1])))  # starts that fit into one batch
    for _ in range(n_iterations):
        steps = [_em_step(some, symbols, language_model, hot, mask) for some in emissions.split(at_once)]
        emissions, found = (torch.cat(part) for part in zip(*steps, strict=True))
        losses.append(found.tolist())
    losses.append([cross_entropy(emission, language_model, symbols, mask) for emission in emissions])
    return Trained(emissions, np.array(losses))


def _em_step(
    emissions: Tensor, symbols: Tensor, language_model: NGram, hot: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One iteration of several starts in one batch: new emissions (R, K, V), and the losses of the old ones (R,)."""
    n_starts, n_labels, _ = emissions.shape
    scores = torch.cat([generative_scores(emission.log(), symbols, mask) for emission in emissions])
    masks = None if mask is None else mask.repeat(n_starts, 1)
    posteriors, losses = label_posteriors(scores, language_model, masks)
    counts = posteriors.reshape(n_starts, -1, n_labels).mT @ hot + _SMOOTHING
    return counts / counts.sum(-1, keepdim=True), losses.reshape(n_starts, -1).mean(1)


def train_from_starts(
    symbols: Tensor,
    language_model: NGram,
    starts: Tensor,
    n_iterations: int,
    mask: Tensor | None = None,
    n_short: int | None = None,
    n_subset: int | None = None,
) -> Trained:
    """EM from several starts: briefly from all on a part of the data, then on all data from the best by loss.

    Args:
        symbols, language_model, starts, mask: as in `expectation_maximisation`.
        n_iterations: of the best start.
        n_short: of every start; by default a quarter of ``n_iterations``.
        n_subset: sequences that the short training uses; None for all.
    """
    part = slice(None, n_subset)
    short = expectation_maximisation(
        symbols[part],
        language_model,
        starts,
        n_short or max(1, n_iterations // 4),
        None if mask is None else mask[part],
    )
    return expectation_maximisation(symbols, language_model, short.best[None], n_iterations, mask)


def best_of_starts(
    finished: Trained,
    symbols: Tensor,
    language_model: NGram,
    starts: Tensor,
    n_iterations: int,
    mask: Tensor | None = None,
    n_short: int | None = None,
    n_subset: int | None = None,
) -> Trained:
    """The better by loss of a finished run and of `train_from_starts` with these arguments; no labels are used."""
    searched = train_from_starts(symbols, language_model, starts, n_iterations, mask, n_short, n_subset)
    return min((finished, searched), key=lambda trained: trained.losses[-1].min())


def train_posteriors(
    symbols: Tensor, language_model: NGram, n_symbols: int, n_starts: int, n_steps: int, seed: int
) -> tuple[Tensor, np.ndarray]:
    """Minimise the loss over classifiers q(c | x), logits of a table, by Adam from random starts.

    The neural form of the loss at its smallest: `posterior_scores` divides by the model's own prior.

    Args:
        symbols: int64, (S, N).
        language_model: over K labels, from text.
        n_symbols: V.
        n_starts: R, trained side by side.
        n_steps: of Adam on all of the speech, cosine decay from 0.1.
        seed: of the starts.

    Returns:
        q(c | x), float64 (R, V, K); the loss of each start before its last step, nats per sequence, less the constant
        ``- log q(x)`` of the speech's own unigram, (R,).
    """
    n_labels = language_model.n_labels
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n_starts, n_symbols, n_labels, generator=generator, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    for _ in range(n_steps):
        log_posteriors = torch.log_softmax(logits, -1)[:, symbols]  # (R, S, N, K)
        scores = torch.cat([posterior_scores(of_start) for of_start in log_posteriors])  # each start its own prior
        losses = sequence_cross_entropy(scores, language_model, reduction="none").reshape(n_starts, -1).mean(1)
        optimiser.zero_grad()
        losses.sum().backward()
        optimiser.step()
        schedule.step()
    return torch.softmax(logits.detach(), -1), losses.detach().numpy()


def flat_start(n_labels: int, n_symbols: int, generator: np.random.Generator, jitter: float = 1e-3) -> Tensor:
    """Every label sounds alike, up to a jitter: (1, K, V).

    From here the first EM step gives ``W^-1 P^T P O``, the true table blurred by a matrix that is invertible where
    Condition 2 holds; for a P of rank 1 it gives every label the same row, up to the jitter and the estimation noise of
    speech and language model, which later steps amplify: the labelling they reach is chance (reconstruction, 6.5).
    """
    rows = 1 + jitter * generator.uniform(-1, 1, (1, n_labels, n_symbols))
    return torch.from_numpy(rows / rows.sum(-1, keepdims=True))


def random_starts(n_starts: int, n_labels: int, n_symbols: int, generator: np.random.Generator) -> Tensor:
    """Rows uniform on the simplex: (R, K, V)."""
    return torch.from_numpy(generator.dirichlet(np.ones(n_symbols), (n_starts, n_labels)))


def least_squares(symbols: Tensor, matrix: np.ndarray, n_symbols: int) -> Tensor:
    """The emission from positional unigrams alone: ``P^+`` times the unigram of the speech at each position, (K, V).

    Step 3 of the proof as an estimator: exact for infinite speech, and blown up by 1 / sigma_min for finite. Rows are
    projected on the simplex.
    """
    observed = torch.nn.functional.one_hot(symbols, n_symbols).double().mean(0).numpy()  # (N, V)
    return torch.from_numpy(np.stack([_on_simplex(row) for row in np.linalg.pinv(matrix) @ observed]))


def supervised_emission(symbols: Tensor, labels: Tensor, n_labels: int, n_symbols: int) -> Tensor:
    """The topline: relative frequencies of paired labels and symbols, (K, V), as smoothed as EM's."""
    counts = torch.zeros(n_labels * n_symbols, dtype=torch.float64)
    pairs = (labels * n_symbols + symbols).reshape(-1)
    counts.index_add_(0, pairs, torch.ones(len(pairs), dtype=torch.float64))
    counts = counts.reshape(n_labels, n_symbols) + _SMOOTHING
    return counts / counts.sum(1, keepdim=True)


def cross_entropy(emission: Tensor, language_model: NGram, symbols: Tensor, mask: Tensor | None = None) -> float:
    """The sequence-level cross-entropy of an emission table, nats per sequence."""
    return float(sequence_cross_entropy(generative_scores(emission.log(), symbols, mask), language_model, mask))


def decode(emission: Tensor, language_model: NGram, symbols: Tensor, mask: Tensor | None = None) -> Tensor:
    """The most probable label at each position, given the whole sequence: int64, (S, N)."""
    return label_posteriors(generative_scores(emission.log(), symbols, mask), language_model, mask)[0].argmax(-1)


def symbol_error(emission: Tensor, language_model: NGram, symbols: Tensor, labels: Tensor) -> float:
    """Share of positions that `decode` gets wrong."""
    return float((decode(emission, language_model, symbols) != labels).double().mean())


def _on_simplex(values: np.ndarray) -> np.ndarray:
    """The nearest distribution (Euclidean), kept off zero by a millionth."""
    ordered = np.sort(values)[::-1]
    excess = (ordered.cumsum() - 1) / np.arange(1, len(values) + 1)
    projected = np.maximum(values - excess[ordered > excess][-1], 0) + 1e-6
    return projected / projected.sum()
