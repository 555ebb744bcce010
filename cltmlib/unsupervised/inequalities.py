"""Every inequality of the proof of Theorem 1, one function each: both sides, computed exactly.

Each takes an `Exact` and returns ``(left, right)``; the claim is ``left <= right``. The proof is a reconstruction
(the paper's own is not known to us); step numbers are those of the notebook.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

from cltmlib.unsupervised import bound
from cltmlib.unsupervised.exact import Exact

Sides = tuple[float, float]


@functools.lru_cache(maxsize=64)
def _constants(values: bytes, shape: tuple[int, int]) -> tuple[bound.Conditioning, float]:
    matrix = np.frombuffer(values).reshape(shape)
    return bound.conditioning(matrix), bound.sharp_constant(matrix)


def constants(exact: Exact) -> tuple[bound.Conditioning, float]:
    """Conditioning of P and kappa*, computed once for all inequalities of an instance."""
    return _constants(np.ascontiguousarray(exact.matrix).tobytes(), exact.matrix.shape)


def error_by_trimmed(e: Exact) -> Sides:
    """Step 1: Delta_q <= the joint distance over the two strings that compete, where the decisions differ."""
    return e.error_mismatch, e.trimmed


def trimmed_by_joint(e: Exact) -> Sides:
    """Step 1: the trimmed distance <= D_q."""
    return e.trimmed, e.joint_distance


def error_by_joint(e: Exact) -> Sides:
    """Step 1: Delta_q <= D_q."""
    return e.error_mismatch, e.joint_distance


def symbol_error_by_joint(e: Exact) -> Sides:
    """Step 1 per position: Delta_q of symbols <= D_q."""
    return e.symbol_mismatch, e.joint_distance


def position_joint_by_joint(e: Exact) -> Sides:
    """Step 1 per position: ``sum |p_r,n(c, x_1^N) - q_n(c, x_1^N)| <= D_q`` at the worst position."""
    return float(e.position_joint_distance.max()), e.joint_distance


def joint_by_emissions(e: Exact) -> Sides:
    """Step 2, hybrid argument: ``D_q <= sum_c w_c delta_c``."""
    return e.joint_distance, float(e.weights @ e.emission_distance)


def weights_by_length(e: Exact) -> Sides:
    """Step 2: ``sum_c w_c delta_c <= N sum_c delta_c``."""
    return float(e.weights @ e.emission_distance), float(len(e.matrix) * e.emission_distance.sum())


def emissions_by_positions(e: Exact) -> Sides:
    """Step 3, pseudo-inverse: ``sum_c delta_c <= |P^+|_1 sum_n m_n``."""
    return float(e.emission_distance.sum()), float(constants(e)[0].inverse_norm * e.position_distance.sum())


def position_by_marginal(e: Exact) -> Sides:
    """Step 4: ``m_n <= L`` at the worst position."""
    return float(e.position_distance.max()), e.marginal_distance


def positions_by_marginal(e: Exact) -> Sides:
    """Step 4: ``sum_n m_n <= N L``."""
    return float(e.position_distance.sum()), len(e.matrix) * e.marginal_distance


def marginal_by_joint(e: Exact) -> Sides:
    """Converse: ``L <= D_q``."""
    return e.marginal_distance, e.joint_distance


def theorem_1(e: Exact) -> Sides:
    """Theorem 1: ``D_q <= N^2 |P^+|_1 L``."""
    return e.joint_distance, constants(e)[0].constant * e.marginal_distance


def theorem_1_error(e: Exact) -> Sides:
    """Theorem 1: ``Delta_q <= N^2 |P^+|_1 L``."""
    return e.error_mismatch, constants(e)[0].constant * e.marginal_distance


def halved_constant(e: Exact) -> Sides:
    """Extension: ``D_q <= (N^2 |P^+|_1 + 1 / |P^+|_1) L / 2``."""
    found = constants(e)[0]
    return e.joint_distance, (found.constant + 1 / found.inverse_norm) * e.marginal_distance / 2


def sharp(e: Exact) -> Sides:
    """Extension: ``D_q <= kappa* L``."""
    return e.joint_distance, constants(e)[1] * e.marginal_distance


def sharp_error(e: Exact) -> Sides:
    """Extension: ``Delta_q <= kappa* L``."""
    return e.error_mismatch, constants(e)[1] * e.marginal_distance


def pinsker(e: Exact) -> Sides:
    """Pinsker: ``L <= sqrt(2 D_KL)``."""
    return e.marginal_distance, math.sqrt(2 * e.kl)


def joint_by_kl(e: Exact) -> Sides:
    """Corollary: ``D_q^2 <= beta D_KL``, ``beta = 2 N^4 |P^+|_1^2``."""
    return e.joint_distance**2, constants(e)[0].beta * e.kl


def error_by_kl(e: Exact) -> Sides:
    """Corollary: ``Delta_q^2 <= beta D_KL``."""
    return e.error_mismatch**2, constants(e)[0].beta * e.kl


INEQUALITIES: dict[str, Callable[[Exact], Sides]] = {
    function.__name__: function
    for function in (
        error_by_trimmed, trimmed_by_joint, error_by_joint, symbol_error_by_joint, position_joint_by_joint,
        joint_by_emissions, weights_by_length, emissions_by_positions, position_by_marginal, positions_by_marginal,
        marginal_by_joint, theorem_1, theorem_1_error, halved_constant, sharp, sharp_error, pinsker, joint_by_kl,
        error_by_kl,
    )
}  # fmt: skip
