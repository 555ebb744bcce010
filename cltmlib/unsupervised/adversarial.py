"""An adversarial objective for comparison: a generator of label sequences against a discriminator that knows text.

As in wav2vec-U (arXiv 2105.11084), at the size of the simulation: the generator is a table q(c | x) whose soft label
sequences the discriminator, two convolutions over time, tries to tell from one-hot text. Non-saturating loss, gradient
penalty, Adam with betas (0.5, 0.98). All runs are trained side by side: R problems and initialisations at once.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, one_hot, pad, softplus

BATCH, HIDDEN = 64, 32
GENERATOR_RATE, DISCRIMINATOR_RATE = 1e-1, 5e-3  # chosen on other seeds than those reported (docs/notes.md)
GRADIENT_PENALTY = 1.5  # wav2vec-U searches 1.5 to 2


def train_adversarially(
    symbols: Tensor, text: Tensor, n_labels: int, n_symbols: int, n_steps: int, seeds: Sequence[int]
) -> Tensor:
    """Train generators q(c | x) against discriminators, one of each for each run.

    Args:
        symbols: speech of each run, int64, (R, S, N).
        text: its label sequences, int64, (R, n_text, N); unpaired.
        n_labels: K.
        n_symbols: V.
        n_steps: of generator and discriminator each, in turn.
        seeds: of each run's initialisation and batches; a run draws the same numbers whatever runs beside it.

    Returns:
        q(c | x) of each run, float64, (R, V, K).
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if len(generators) != len(symbols):
        raise ValueError(f"{len(generators)} seeds for {len(symbols)} runs: give one for each")
    n_positions = symbols.shape[2]
    logits = _each(generators, lambda generator: torch.randn(n_symbols, n_labels, generator=generator))
    logits.requires_grad_(True)
    weights = _weights(generators, n_labels, n_positions)
    optimisers = [
        torch.optim.Adam(weights, DISCRIMINATOR_RATE, betas=(0.5, 0.98)),
        torch.optim.Adam([logits], GENERATOR_RATE, betas=(0.5, 0.98)),
    ]
    for step in range(2 * n_steps):
        x = one_hot(_batch(symbols, generators), n_symbols).float().flatten(1, 2)
        fake = (x @ torch.softmax(logits, -1)).unflatten(1, (BATCH, n_positions))  # (R, batch, N, K)
        if step % 2:
            loss = softplus(-_discriminate(weights, fake)).mean(1)
        else:
            real = one_hot(_batch(text, generators), n_labels).float()
            loss = _discriminator_loss(weights, real, fake.detach(), generators)
        optimisers[step % 2].zero_grad()
        loss.sum().backward()
        optimisers[step % 2].step()
    return torch.softmax(logits.detach().double(), -1)


def emission_of(posteriors: Tensor, symbols: Tensor) -> Tensor:
    """``q(x | c)`` of a generator q(c | x), (V, K) -> (K, V), by Bayes' rule with the speech's own unigram."""
    unigram = torch.bincount(symbols.reshape(-1), minlength=len(posteriors)).double() + 1e-3
    joint = posteriors.T * unigram + 1e-6
    return joint / joint.sum(1, keepdim=True)


def _each(generators: Sequence[torch.Generator], drawn: Callable[[torch.Generator], Tensor]) -> Tensor:
    """What ``drawn`` gives with each run's generator, stacked: (R, ...)."""
    return torch.stack([drawn(generator) for generator in generators])


def _batch(sequences: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Random sequences of each run: (R, batch, N)."""
    chosen = _each(generators, lambda generator: torch.randint(sequences.shape[1], (BATCH,), generator=generator))
    return sequences[torch.arange(len(sequences))[:, None], chosen]


def _weights(generators: Sequence[torch.Generator], n_labels: int, n_positions: int) -> list[Tensor]:
    """Of the discriminators: two convolutions of width 3 and a linear layer, each with its bias."""
    weights = []
    for n_in, n_out in ((3 * n_labels, HIDDEN), (3 * HIDDEN, HIDDEN), (n_positions * HIDDEN, 1)):
        drawn = _each(generators, lambda generator, size=(n_in, n_out): torch.randn(size, generator=generator))
        weights.append((drawn * n_in**-0.5).requires_grad_(True))
        weights.append(torch.zeros(len(generators), 1, n_out, requires_grad=True))
    return weights


def _discriminate(weights: list[Tensor], sequences: Tensor) -> Tensor:
    """Label sequences (R, batch, N, K) -> how much each looks like text, (R, batch)."""
    hidden = sequences
    for weight, bias in (weights[:2], weights[2:4]):
        around = pad(hidden, (0, 0, 1, 1))
        windows = torch.cat([around[:, :, :-2], hidden, around[:, :, 2:]], -1)  # each position and its neighbours
        hidden = leaky_relu(windows.flatten(1, 2) @ weight + bias, 0.2).unflatten(1, windows.shape[1:3])
    return (hidden.flatten(2) @ weights[4] + weights[5])[:, :, 0]


def _discriminator_loss(
    weights: list[Tensor], real: Tensor, fake: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    loss = (softplus(-_discriminate(weights, real)) + softplus(_discriminate(weights, fake))).mean(1)
    share = _each(generators, lambda generator: torch.rand(real.shape[1], 1, 1, generator=generator))
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(_discriminate(weights, between).sum(), between, create_graph=True)
    return loss + GRADIENT_PENALTY * (slope.flatten(2).norm(dim=2) - 1).square().mean(1)


def seed_of(*parts: int) -> int:
    """One seed of several whole numbers."""
    return int(np.random.default_rng(parts).integers(2**31))
