"""Theorem 1: the language-model matrix, its conditioning, and the bound on the classification error.

The paper (arXiv 2603.02285): if speech is generated position by position (Condition 1) and the matrix P of the
language model's position-dependent unigrams has full column rank (Condition 2), then

    Delta_q <= D_q <= N^2 |P^+|_1 L,     L = sum over x_1^N of |p_r(x_1^N) - q(x_1^N)|,

and by Pinsker ``Delta_q^2 <= beta D_KL`` with ``beta = 2 N^4 |P^+|_1^2``. The statement follows secondary sources; the
proof, D_q's definition, ``|A|_1`` as the induced norm (largest absolute column sum) and the sharper constant are a
reconstruction.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from cltmlib.errors import InputError

RANK_TOLERANCE = 1e-12  # a singular value of P below it, relative to the largest, counts as zero
SUM_TOLERANCE = 1e-8  # how far the sum of a distribution may be from one
_MAX_SUBSETS = 20_000


@dataclass(frozen=True)
class Conditioning:
    """What decides whether, and how strongly, Theorem 1 binds. From `conditioning`.

    Attributes:
        n_positions, n_labels: shape of P.
        rank: of P: singular values above ``RANK_TOLERANCE`` times the largest.
        sigma_min: its K-th singular value; 0 where N < K.
        inverse_norm: |P^+|_1; infinite where the rank is below K.
        constant: N^2 |P^+|_1, the factor of Theorem 1.
        beta: 2 N^4 |P^+|_1^2, the factor of its KL corollary.
    """

    n_positions: int
    n_labels: int
    rank: int
    sigma_min: float
    inverse_norm: float

    @property
    def full_rank(self) -> bool:
        """Condition 2."""
        return self.rank == self.n_labels

    @property
    def constant(self) -> float:
        return self.n_positions**2 * self.inverse_norm

    @property
    def beta(self) -> float:
        return 2 * self.constant**2


def conditioning(matrix: np.ndarray) -> Conditioning:
    """Rank and conditioning of a language-model matrix P, (N, K), rows p_n(c).

    Raises:
        InputError: P is no matrix whose rows are distributions.

    Example:
        >>> conditioning(np.array([[0.9, 0.1], [0.5, 0.5]])).constant.__round__(6)
        10.0
        >>> conditioning(np.array([[0.5, 0.5], [0.5, 0.5]])).full_rank
        False
    """
    matrix = _check_matrix(matrix)
    n_positions, n_labels = matrix.shape
    singular = np.linalg.svd(matrix, compute_uv=False)
    rank = int((singular > RANK_TOLERANCE * singular[0]).sum())
    sigma_min = float(singular[n_labels - 1]) if n_positions >= n_labels else 0.0
    norm = float(np.abs(np.linalg.pinv(matrix, rcond=RANK_TOLERANCE)).sum(0).max()) if rank == n_labels else math.inf
    return Conditioning(n_positions, n_labels, rank, sigma_min, norm)


def sharp_constant(matrix: np.ndarray) -> float:
    """The best constant that the proof allows: ``kappa* = sum_c w_c rho_c``, with ``D_q <= kappa* L``.

    ``rho_c = min |g|_1 over all g with g P = e_c``: any left inverse of P serves in step 3, row by row the shortest.
    Our extension, not the paper's (reconstruction, Section 3.2). An optimum uses at most K rows of P, so small cases
    are solved exactly by trying all sets of K rows; larger ones by a linear program.

    Raises:
        InputError: P has not full column rank.

    Example:
        >>> round(sharp_constant(np.array([[0.9, 0.1], [0.5, 0.5]])), 6)
        4.2
    """
    matrix = _full_rank(matrix)
    n_positions, n_labels = matrix.shape
    if math.comb(n_positions, n_labels) <= _MAX_SUBSETS:
        rows = matrix[np.array(list(itertools.combinations(range(n_positions), n_labels)))]  # (subset, K, K)
        # A subset of dependent rows has no inverse; a nearly dependent one has a long one, which the minimum ignores.
        # Some subset's least singular value reaches P's over sqrt(K (N - K) + 1) (Hong and Pan, 1992): never none.
        least = RANK_TOLERANCE * np.linalg.norm(matrix, 2) / math.sqrt(n_labels * (n_positions - n_labels) + 1)
        usable = np.linalg.svd(rows, compute_uv=False)[:, -1] > 0.5 * least
        shortest = np.abs(np.linalg.inv(rows[usable])).sum(-1).min(0)  # (K,)
    else:
        shortest = np.array([_shortest_by_program(matrix, label) for label in range(n_labels)])
    return float(matrix.sum(0) @ shortest)


def classification_error_bound(matrix: np.ndarray, marginal_distance: float, sharp: bool = False) -> float:
    """Theorem 1: what the error mismatch Delta_q, and D_q, cannot exceed.

    ``N^2 |P^+|_1 L``; above 1 it says nothing about Delta_q, above 2 nothing about D_q.

    Args:
        matrix: P, the language model's unigram at each position, (N, K).
        marginal_distance: L, between the distributions of symbol sequences; in [0, 2]. From a KL divergence in nats,
            Pinsker gives ``sqrt(2 * kl)``.
        sharp: with the constant kappa* of `sharp_constant` (our extension) in place of ``N^2 |P^+|_1``.

    Raises:
        InputError: P has not full column rank (Condition 2), is no language-model matrix, or L is negative.

    Example:
        >>> round(classification_error_bound(np.array([[0.9, 0.1], [0.5, 0.5]]), 0.01), 6)
        0.1
    """
    if not (math.isfinite(marginal_distance) and marginal_distance >= 0):
        raise InputError(f"marginal_distance is {marginal_distance}: it must be a number of at least 0.")
    factor = sharp_constant(matrix) if sharp else conditioning(_full_rank(matrix)).constant
    return factor * marginal_distance


def _shortest_by_program(matrix: np.ndarray, label: int) -> float:
    from scipy.optimize import linprog

    both = np.concatenate([matrix, -matrix])  # g = positive part - negative part
    wanted = np.eye(matrix.shape[1])[label]
    found = linprog(np.ones(len(both)), A_eq=both.T, b_eq=wanted, method="highs")
    if not found.success:
        raise InputError(f"The shortest left inverse was not found ({found.message}): P is too badly conditioned.")
    return float(found.fun)


def _full_rank(matrix: np.ndarray) -> np.ndarray:
    matrix = _check_matrix(matrix)
    found = conditioning(matrix)
    if not found.full_rank:
        shape = f"{found.n_positions} positions x {found.n_labels} labels"
        raise InputError(
            f"The language-model matrix ({shape}) has rank {found.rank}, not {found.n_labels}: Condition 2 fails and "
            "there is no bound; use a language model whose position-dependent unigrams are linearly independent, with "
            "at least as many positions as labels."
        )
    return matrix


def _check_matrix(matrix: np.ndarray) -> np.ndarray:
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim != 2 or not matrix.size:
        raise InputError(f"A language-model matrix has shape {matrix.shape}: give a row of K labels for each position.")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise InputError("A language-model matrix has an entry that is no probability: all must lie between 0 and 1.")
    wrong = np.abs(matrix.sum(1) - 1) > SUM_TOLERANCE
    if wrong.any():
        n = int(wrong.argmax())
        raise InputError(
            f"Row {n} of the language-model matrix sums to {matrix[n].sum():.10g}, not to one: divide it by its sum."
        )
    return matrix
