"""What goes wrong without each condition: small models with the same speech and a large error, computed exactly.

The paper discusses the necessity of its conditions (Section 4); these cases are a reconstruction (spec, Section 5).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cltmlib.errors import InputError
from cltmlib.unsupervised.bound import conditioning
from cltmlib.unsupervised.exact import Mismatch, enumerate_models, language_model_matrix, mismatch, string_emission
from cltmlib.unsupervised.ngram import NGram

CIRCULANT = np.array([[0.6, 0.3, 0.1], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6]])  # each row the one before, shifted


def structures() -> pd.DataFrame:
    """What symbols depend on where Condition 1 holds and where it fails: columns panel, cause, effect ("c1", "x1")."""
    text, own = [("c1", "c2"), ("c2", "c3")], [("c1", "x1"), ("c2", "x2"), ("c3", "x3")]
    panels = {
        "Condition 1 holds": [],
        "fails: coarticulation": [("c1", "x2"), ("c2", "x3")],
        "fails: a shared speaker": [("x1", "x2"), ("x2", "x3")],
    }
    rows = [(panel, *edge) for panel, more in panels.items() for edge in (*text, *own, *more)]
    return pd.DataFrame(rows, columns=["panel", "cause", "effect"])


def circulant_model(n_positions: int = 3) -> np.ndarray:
    """A bigram that does not change when all labels move on by one: uniform start, circulant transitions."""
    return NGram((np.full(3, 1 / 3), CIRCULANT)).table(n_positions)


def average_matrix() -> np.ndarray:
    """A language-model matrix of rank 2, (3, 3): at each position label 2 is the average of labels 0 and 1."""
    a = np.array([1, 2, 3]) / 6
    return np.stack([a, 2 / 3 - a, np.full(3, 1 / 3)], axis=1)


def counterexamples() -> pd.DataFrame:
    """Pairs of a truth and a wrong model with the same distribution of speech (L = 0).

    Returns:
        One row per case: condition (the one that fails), what (in words), n_positions, rank, n_labels,
        marginal_distance (L), joint_distance (D_q), bayes_error, model_error (of strings), symbol_mismatch.
    """
    shift = np.roll(np.eye(3), 1, axis=1)  # q(x | c): label c sounds as the truth's label c + 1
    noisy = 0.9 * np.eye(3) + 0.1 / 3
    third = np.einsum("a,b,c->abc", *average_matrix())
    two_symbols = np.array([[1, 0], [1, 0], [0, 1]]), np.array([[0.5, 0.5], [0.5, 0.5], [1, 0]])
    full_rank = np.array([[0.4, 0.3], [0.2, 0.1]])
    other_full_rank = np.array([[0.5, 0.2], [0.1, 0.2]])
    circulant = circulant_model()
    clean_shift, noisy_shift = (enumerate_models(circulant, o, shift @ o) for o in (np.eye(3), noisy))
    cases = [
        ("2: rank", "labels shifted by one; clean speech", circulant, clean_shift),
        ("2: rank", "labels shifted by one; noisy speech", circulant, noisy_shift),
        ("2: rank", "one label is the average of two others", third, enumerate_models(third, *two_symbols)),
        ("1: structure of q", "q(x_1^N | c_1^N) = p_r(x_1^N), whatever the labels", full_rank, _ignorant(full_rank)),
        ("1: structure of p_r", "speech of 01 and 11 exchanged", other_full_rank, _exchanged(other_full_rank)),
    ]  # fmt: skip
    return pd.DataFrame([_row(*case) for case in cases])


def product_counterexample(matrix: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Proposition A (reconstruction): for a P of deficient rank without zero columns, a wrong model of the same speech.

    The language model is the product of P's rows; with ``P v = 0`` and ``sum_x u_x = 0``, ``Q = O + t v u`` gives the
    same positional distributions, and so the same speech. A label that never occurs (a column of zeros) may sound as
    it likes without any model being wrong, so such a P proves nothing.

    Args:
        matrix: P, (N, K), rank below K.
        generator: of O and u.

    Returns:
        The language model's table, O and Q, for `enumerate_models`.

    Raises:
        InputError: P has full column rank, or a label that never occurs.
    """
    found = conditioning(matrix)
    if found.full_rank:
        raise InputError(f"The matrix has full column rank {found.rank}: Theorem 1 holds, there is no counterexample.")
    if (empty := np.asarray(matrix).sum(0) == 0).any():
        raise InputError(f"Label {int(empty.argmax())} has probability zero at every position: leave it out of P.")
    n_labels, n_symbols = matrix.shape[1], 3
    null = np.linalg.svd(matrix)[2][-1]
    table = np.ones(())
    for row in matrix:
        table = table[..., None] * row
    emission = 0.5 * generator.dirichlet(np.ones(n_symbols), n_labels) + 0.5 / n_symbols
    tilt = generator.normal(size=n_symbols)
    direction = np.outer(null, tilt - tilt.mean())
    negative = direction < 0
    furthest = (emission[negative] / -direction[negative]).min()
    return table, emission, np.maximum(emission + 0.9 * furthest * direction, 0)


def proposition_a(matrices: Mapping[str, np.ndarray], seed: int = 0) -> pd.DataFrame:
    """`product_counterexample` of several P, rows = their names: marginal_distance (L) and joint_distance (D_q)."""
    generator = np.random.default_rng(seed)
    rows = {}
    for name, matrix in matrices.items():
        exact = enumerate_models(*product_counterexample(matrix, generator))
        rows[name] = {"marginal_distance": exact.marginal_distance, "joint_distance": exact.joint_distance}
    return pd.DataFrame.from_dict(rows, orient="index")


def _ignorant(language_model: np.ndarray) -> Mismatch:
    """Clean speech, and a q(x_1^N | c_1^N) that is p_r(x_1^N) for every c_1^N: no table per position can be that."""
    prior = language_model.reshape(-1, 1)
    return mismatch(prior * np.eye(len(prior)), prior * prior.T, language_model.shape[0])


def _exchanged(language_model: np.ndarray) -> Mismatch:
    """Clean speech but for the sequences 01 and 11, whose speech is exchanged; q is clean and factorises."""
    prior, clean = language_model.reshape(-1, 1), string_emission(np.eye(2), 2)
    return mismatch(prior * clean[:, [0, 3, 2, 1]], prior * clean, 2)


def _row(condition: str, what: str, language_model: np.ndarray, found: Mismatch) -> dict:
    rank = conditioning(language_model_matrix(language_model))
    return {
        "condition": condition, "what": what, "n_positions": rank.n_positions, "n_labels": rank.n_labels,
        "rank": rank.rank, "marginal_distance": found.marginal_distance, "joint_distance": found.joint_distance,
        "bayes_error": found.bayes_error, "model_error": found.bayes_error + found.error_mismatch,
        "symbol_mismatch": found.symbol_mismatch,
    }  # fmt: skip
