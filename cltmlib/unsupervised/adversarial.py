"""An adversarial objective for comparison: a generator of label sequences against a discriminator that knows text.

As in wav2vec-U (arXiv 2105.11084), at the size of the simulation: the generator is a table q(c | x) whose soft label
sequences the discriminator, a small convolution over time, tries to tell from one-hot text. Non-saturating loss,
gradient penalty, Adam with betas (0.5, 0.98).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

BATCH = 128
HIDDEN = 32
GENERATOR_RATE, DISCRIMINATOR_RATE = 1e-2, 2e-3
GRADIENT_PENALTY = 1.5  # wav2vec-U's range is 1.5 to 2


def train_adversarially(
    symbols: Tensor, text: np.ndarray, n_labels: int, n_symbols: int, n_steps: int, seed: int | Sequence[int]
) -> Tensor:
    """Train a generator q(c | x) against a discriminator, from one initialisation.

    Args:
        symbols: speech, int64, (S, N).
        text: label sequences, int64, (n_text, N); unpaired.
        n_labels: K.
        n_symbols: V.
        n_steps: of generator and discriminator each, in turn.
        seed: of the initialisation and the batches.

    Returns:
        q(c | x), float64, (V, K).
    """
    draws = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(draws.integers(2**31)))
    logits = torch.randn(n_symbols, n_labels, generator=generator, requires_grad=True)
    discriminator = _discriminator(n_labels, symbols.shape[1], generator)
    optimisers = [
        torch.optim.Adam([logits], GENERATOR_RATE, betas=(0.5, 0.98)),
        torch.optim.Adam(discriminator.parameters(), DISCRIMINATOR_RATE, betas=(0.5, 0.98)),
    ]
    real_text = one_hot(torch.from_numpy(text), n_labels).float()
    for step in range(2 * n_steps):
        chosen = torch.randint(len(symbols), (BATCH,), generator=generator)
        fake = torch.softmax(logits, -1)[symbols[chosen]]  # (batch, N, K)
        if step % 2:
            loss = softplus(-discriminator(fake.mT)).mean()
        else:
            real = real_text[torch.randint(len(real_text), (BATCH,), generator=generator)]
            loss = _discriminator_loss(discriminator, real, fake.detach(), generator)
        optimiser = optimisers[0 if step % 2 else 1]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.softmax(logits.detach().double(), -1)


def emission_of(posteriors: Tensor, symbols: Tensor) -> Tensor:
    """``q(x | c)`` of a generator q(c | x), (V, K) -> (K, V), by Bayes' rule with the speech's own unigram."""
    unigram = torch.bincount(symbols.reshape(-1), minlength=len(posteriors)).double() + 1e-3
    joint = posteriors.T * unigram + 1e-6
    return joint / joint.sum(1, keepdim=True)


def _discriminator(n_labels: int, n_positions: int, generator: torch.Generator) -> nn.Module:
    network = nn.Sequential(
        nn.Conv1d(n_labels, HIDDEN, 3, padding=1), nn.LeakyReLU(0.2),
        nn.Conv1d(HIDDEN, HIDDEN, 3, padding=1), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.LazyLinear(1),
    )  # fmt: skip
    network(torch.zeros(1, n_labels, n_positions))
    with torch.no_grad():  # from the generator given, not from torch's own
        for parameter in network.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network


def _discriminator_loss(
    discriminator: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator
) -> Tensor:
    loss = softplus(-discriminator(real.mT)).mean() + softplus(discriminator(fake.mT)).mean()
    share = torch.rand(len(real), 1, 1, generator=generator)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(between.mT).sum(), between, create_graph=True)
    return loss + GRADIENT_PENALTY * (slope.flatten(1).norm(dim=1) - 1).square().mean()
