"""Training on infinite speech: the loss computed exactly, beside the error mismatch, step by step.

With the distribution of speech known, ``F - H = D_KL(p_r(x) || q(x))``, and every checkpoint can be held against
Theorem 1's corollary ``Delta_q^2 <= D_q^2 <= beta D_KL``.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cltmlib.errors import InputError
from cltmlib.unsupervised.bound import conditioning, sharp_constant
from cltmlib.unsupervised.cases import circulant_model
from cltmlib.unsupervised.exact import enumerate_models, language_model_matrix
from cltmlib.unsupervised.ngram import NGram
from cltmlib.unsupervised.validation import PAPER_SIZE, stationary

_LEAST_SIGMA = 0.02  # of the full-rank language models here: well-conditioned ones, so that the bound can be seen
KINDS = {
    "full-rank bigram": "Condition 2 holds",
    "full-rank product": "Condition 2 holds; the loss is convex",
    "rank-2 product": "rank 2: a continuum of wrong models fits",
    "stationary bigram": "rank 1, but pairs and triples of symbols identify the labels",
    "circulant bigram": "rank 1 and symmetric: shifted labels fit as well",
    "i.i.d.": "rank 1 and no order at all",
}


def training_language_model(kind: str, generator: np.random.Generator) -> np.ndarray:
    """Draw the table of a language model of one of the ``KINDS``, at the paper's size: shape (3, 3, 3)."""
    n_labels, _, n_positions = PAPER_SIZE
    while True:
        start, transition = generator.dirichlet(np.ones(n_labels)), generator.dirichlet(np.ones(n_labels), n_labels)
        if kind == "full-rank bigram":
            table = NGram((start, transition)).table(n_positions)
        elif kind == "stationary bigram":
            return NGram((stationary(transition), transition)).table(n_positions)
        elif kind == "circulant bigram":
            return circulant_model(n_positions)
        else:
            rows = transition
            if kind == "i.i.d.":
                rows = np.tile(start, (n_positions, 1))
            elif kind == "rank-2 product":  # the last position's unigram is a mixture of the first two
                rows = np.stack([rows[0], rows[1], generator.uniform(0.2, 0.8) * (rows[0] - rows[1]) + rows[1]])
            table = np.einsum("a,b,c->abc", *rows)
        if not kind.startswith("full-rank") or conditioning(language_model_matrix(table)).sigma_min > _LEAST_SIGMA:
            return table


def speech_distribution(language_models: Tensor, emissions: Tensor) -> Tensor:
    """``q(x_1^N)`` of all symbol sequences, for many models at once, differentiable.

    Args:
        language_models: flattened tables, (P, K**N).
        emissions: (P, R, K, V).

    Returns:
        (P, R, V**N), symbol sequences in the order of ``numpy.ndindex``.
    """
    n_problems, n_starts, n_labels, _ = emissions.shape
    n_positions = round(np.log(language_models.shape[1]) / np.log(n_labels))
    found = language_models[:, None].expand(n_problems, n_starts, -1)
    for _ in range(n_positions):  # the first label's axis becomes the last symbol's
        found = (emissions.mT @ found.reshape(n_problems, n_starts, n_labels, -1)).mT.flatten(2)
    return found


def train_on_population(
    kinds: Sequence[str], n_problems: int, n_starts: int, n_steps: int, seed: int, learning_rate: float = 0.05
) -> pd.DataFrame:
    """Minimise the exact loss by Adam from random starts, and measure the errors on the way.

    Args:
        kinds: of language models, keys of ``KINDS``.
        n_problems: language models and emissions drawn for each kind.
        n_starts: random starts of each problem.
        n_steps: of Adam, cosine decay from ``learning_rate``.
        seed: of all draws.

    Returns:
        One row per kind, problem, start and checkpoint (step 0, then roughly doubling, to ``n_steps``): language_model,
        problem, start, step, kl, marginal_distance, joint_distance, error_mismatch, constant, kappa (NaN where P has
        not full rank), aligned_joint_distance (D_q after the best relabelling).
    """
    n_labels, n_symbols, _ = PAPER_SIZE
    if unknown := set(kinds) - set(KINDS):
        raise InputError(f"There is no kind of language model {min(unknown)!r}: choose among {', '.join(KINDS)}.")
    checkpoints = {0, n_steps, *(round(n_steps * 2.0**-k) for k in range(8))}
    rows = []
    for kind in kinds:
        generator = np.random.default_rng([seed, list(KINDS).index(kind)])
        tables = [training_language_model(kind, generator) for _ in range(n_problems)]
        emissions = generator.dirichlet(np.full(n_symbols, 0.3), (n_problems, n_labels))
        language_models = torch.from_numpy(np.stack([table.reshape(-1) for table in tables]))
        truth = speech_distribution(language_models, torch.from_numpy(emissions)[:, None])[:, 0]
        starts = generator.dirichlet(np.ones(n_symbols), (n_problems, n_starts, n_labels))
        logits = torch.from_numpy(starts).log().requires_grad_(True)
        optimiser = torch.optim.Adam([logits], lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
        for step in range(n_steps + 1):
            if step in checkpoints:
                models = torch.softmax(logits.detach(), -1).numpy()
                rows += _checkpoint(kind, step, tables, emissions, models)
            optimiser.zero_grad()
            found = speech_distribution(language_models, torch.softmax(logits, -1))
            loss = -(truth[:, None] * found.log()).sum(-1)  # F of each problem and start
            loss.sum().backward()
            optimiser.step()
            schedule.step()
    return pd.DataFrame(rows)


def _checkpoint(
    kind: str, step: int, tables: list[np.ndarray], emissions: np.ndarray, models: np.ndarray
) -> list[dict[str, float]]:
    rows = []
    for problem, (table, emission) in enumerate(zip(tables, emissions, strict=True)):
        matrix = language_model_matrix(table)
        found = conditioning(matrix)
        kappa = sharp_constant(matrix) if found.full_rank else np.nan
        for start, model in enumerate(models[problem]):
            exact = enumerate_models(table, emission, model)
            rows.append({
                "language_model": kind, "problem": problem, "start": start, "step": step, "kl": exact.kl,
                "marginal_distance": exact.marginal_distance, "joint_distance": exact.joint_distance,
                "error_mismatch": exact.error_mismatch, "bayes_error": exact.bayes_error,
                "constant": found.constant if found.full_rank else np.nan, "kappa": kappa,
                "aligned_joint_distance": _aligned(table, emission, model) if kind == "circulant bigram" else np.nan,
            })  # fmt: skip
    return rows


def _aligned(table: np.ndarray, emission: np.ndarray, model: np.ndarray) -> float:
    """D_q after the relabelling of the model that brings it nearest."""
    orders = itertools.permutations(range(len(emission)))
    return min(enumerate_models(table, emission, model[list(order)]).joint_distance for order in orders)


def population_summary(runs: pd.DataFrame, stuck_above: float = 1e-3) -> pd.DataFrame:
    """The end of training by language model: how many starts were stuck, and the errors of those that were not.

    Returns:
        Rows = language models; columns bayes_error, stuck (share of starts whose final D_KL is above ``stuck_above``
        nats), mismatch (mean Delta_q of starts that fit), best_kl and best_mismatch (largest D_KL and mean Delta_q of
        each problem's best start by loss), standard_error (of the latter, over problems), best_joint (mean D_q),
        bound_used (largest ``D_q^2 / (beta D_KL)`` over all checkpoints; NaN without full rank).
    """
    last = runs[runs["step"] == runs["step"].max()]
    best = last.loc[last.groupby(["language_model", "problem"], sort=False)["kl"].idxmin()]
    fits = last[last["kl"] <= stuck_above].groupby("language_model")["error_mismatch"]
    resolved = runs[runs["kl"] > 1e-14]  # below, rounding decides
    used = (resolved["joint_distance"] ** 2 / (2 * resolved["constant"] ** 2 * resolved["kl"])).groupby(
        resolved["language_model"]
    )
    groups, bests = last.groupby("language_model", sort=False), best.groupby("language_model", sort=False)
    table = pd.DataFrame({"bayes_error": groups["bayes_error"].mean()})
    table["stuck"] = groups["kl"].agg(lambda kl: (kl > stuck_above).mean())
    table["mismatch"] = fits.mean()
    table["best_kl"] = bests["kl"].max()
    table["best_mismatch"], table["standard_error"] = bests["error_mismatch"].mean(), bests["error_mismatch"].sem()
    table["best_joint"] = bests["joint_distance"].mean()
    table["bound_used"] = used.max()
    return table


def population_sentence(runs: pd.DataFrame, summary: pd.DataFrame) -> str:
    """What the end of training says: for each language model the error of the best start by loss, and the corollary."""
    parts = [f"{name} {row['best_mismatch']:.4f} ± {row['standard_error']:.4f}" for name, row in summary.iterrows()]
    used = summary["bound_used"].max()
    ended = f"Error mismatch of the best start by loss after {runs['step'].max()} steps: {'; '.join(parts)}. "
    if np.isnan(used):
        return ended + "No language model here has full rank, so there is no corollary to check."
    verdict = "holds at" if used <= 1 else "is VIOLATED at some of"
    return (
        f"{ended}The KL corollary {verdict} the checkpoints of the full-rank language models; at most {used:.2%} of it "
        "is used."
    )


def relabelling_sentence(runs: pd.DataFrame, stuck_above: float = 1e-3) -> str:
    """Whether the circulant bigram's wrong models are relabellings of the truth (Proposition B).

    Args:
        runs: from `train_on_population`.
        stuck_above: nats of D_KL up to which a run counts as fitted.
    """
    last = runs[(runs["step"] == runs["step"].max()) & (runs["language_model"] == "circulant bigram")]
    fits = last[last["kl"] <= stuck_above]
    if fits.empty:
        return f"Circulant bigram: none of {len(last)} runs fits the speech to within {stuck_above:g} nats."
    return (
        f"Circulant bigram, {len(fits)} of {len(last)} runs that fit the speech to within {stuck_above:g} nats: D_q "
        f"{fits['joint_distance'].median():.3f} in the median, {fits['aligned_joint_distance'].median():.3f} after the "
        "best relabelling of each."
    )
