"""Exact enumeration for small alphabets: joint probabilities, Bayes errors, and every quantity of the proof.

Labels are ``0 .. K-1``, acoustic symbols ``0 .. V-1``, sequences have ``N`` positions. A language model is its whole
table ``p(c_1, ..., c_N)``, an array of shape ``(K,) * N``; an emission is a matrix ``O[c, x] = p(x | c)`` of shape
(K, V). Distances are sums of absolute differences, so between distributions they lie in [0, 2].
"""

import functools
from dataclasses import dataclass

import numpy as np

from cltmlib.errors import InputError
from cltmlib.unsupervised.bound import SUM_TOLERANCE

_MAX_CELLS = 50_000_000  # of a joint table: 400 MB


@dataclass(frozen=True)
class Mismatch:
    """How far a model's joint is from the true one, and what deciding by it costs. From `mismatch`.

    Attributes:
        joint_distance: D_q, the sum over label and symbol sequences of ``|p_r - q|``.
        marginal_distance: L, the same over symbol sequences alone.
        kl: D_KL(p_r || q) over symbol sequences, nats.
        bayes_error: string error of the best decision, under p_r.
        error_mismatch: Delta_q, string error of deciding by q less ``bayes_error``; never negative.
        trimmed: the joint distance over the two strings that matter for each x, where the decisions differ.
        symbol_bayes_error: error per position of the best decision per position.
        symbol_mismatch: Delta_q of symbols: what deciding each position by q adds to it.
        position_joint_distance: ``sum |p_r,n(c, x_1^N) - q_n(c, x_1^N)|`` of each position n, shape (N,).
    """

    joint_distance: float
    marginal_distance: float
    kl: float
    bayes_error: float
    error_mismatch: float
    trimmed: float
    symbol_bayes_error: float
    symbol_mismatch: float
    position_joint_distance: np.ndarray


@dataclass(frozen=True)
class Exact(Mismatch):
    """`Mismatch` of two models that both factorise over positions (Condition 1), with what the proof needs besides.

    Attributes:
        matrix: P, the language-model matrix, (N, K).
        weights: w, the expected count of each label in a sequence, (K,); sums to N.
        emission_distance: delta_c, ``sum_x |O[c, x] - Q[c, x]|``, (K,).
        position_distance: m_n, ``sum_x |p_r,n(x) - q_n(x)|``, (N,).
    """

    matrix: np.ndarray
    weights: np.ndarray
    emission_distance: np.ndarray
    position_distance: np.ndarray


def language_model_matrix(language_model: np.ndarray) -> np.ndarray:
    """The matrix P of Condition 2: ``P[n, c] = p_n(c)``, the unigram of each position.

    Args:
        language_model: table of all label sequences, shape ``(K,) * N``.

    Returns:
        float64, (N, K); rows sum to one.

    Raises:
        InputError: the table is not a distribution.

    Example:
        >>> language_model_matrix(np.array([[0.4, 0.3], [0.2, 0.1]])).round(3).tolist()
        [[0.7, 0.3], [0.6, 0.4]]
    """
    table = check_language_model(language_model)
    positions = range(table.ndim)
    return np.stack([table.sum(axis=tuple(other for other in positions if other != n)) for n in positions])


def string_emission(emission: np.ndarray, n_positions: int) -> np.ndarray:
    """``prod_n O[c_n, x_n]`` for all sequences: the N-fold Kronecker power of O, shape (K**N, V**N).

    Rows and columns are in the order of ``numpy.ndindex``, the order of a language model's flattened table.
    """
    n_cells = (emission.shape[0] * emission.shape[1]) ** n_positions
    if n_cells > _MAX_CELLS:
        raise InputError(
            f"Enumerating {n_positions} positions of {emission.shape[0]} labels and {emission.shape[1]} symbols takes "
            f"{n_cells:.1e} numbers: choose smaller ones (at most {_MAX_CELLS:.0e})."
        )
    return functools.reduce(_kronecker, [emission] * n_positions)


def mismatch(true_joint: np.ndarray, model_joint: np.ndarray, n_labels: int) -> Mismatch:
    """Compare two joint tables of label and symbol sequences, whatever their structure.

    Ties of a decision go to the sequence that comes first.

    Args:
        true_joint: p_r(c_1^N, x_1^N), shape (K**N, number of symbol sequences).
        model_joint: q(c_1^N, x_1^N), the same shape.
        n_labels: K.

    Raises:
        InputError: a table does not sum to one, the shapes differ, or the rows are not K**N.

    Example:
        >>> found = mismatch(np.array([[0.6], [0.4]]), np.array([[0.4], [0.6]]), n_labels=2)
        >>> round(found.error_mismatch, 6), round(found.joint_distance, 6), found.marginal_distance
        (0.2, 0.4, 0.0)
    """
    true_joint, model_joint = (_check(np.asarray(t, dtype=float), "joint table") for t in (true_joint, model_joint))
    if true_joint.shape != model_joint.shape or true_joint.ndim != 2:
        raise InputError(f"The joint tables have shapes {true_joint.shape} and {model_joint.shape}: give two alike.")
    n_positions = round(np.log(len(true_joint)) / np.log(n_labels)) if n_labels > 1 else 1
    if n_labels**n_positions != len(true_joint):
        raise InputError(f"A joint table has {len(true_joint)} rows, no power of {n_labels} labels: correct n_labels.")
    return Mismatch(**_mismatch(true_joint, model_joint, true_joint - model_joint, n_labels, n_positions))


def enumerate_models(language_model: np.ndarray, emission: np.ndarray, model_emission: np.ndarray) -> Exact:
    """Enumerate p_r = LM * O and q = LM * Q and everything that Theorem 1 speaks of.

    Args:
        language_model: table of all label sequences, shape ``(K,) * N``.
        emission: O, rows p_r(x | c), (K, V).
        model_emission: Q, rows q(x | c), (K, V).

    Raises:
        InputError: a table is not a distribution, shapes do not fit, or the enumeration would not fit into memory.

    Example:
        >>> swapped = enumerate_models(np.full((2, 2), 0.25), np.eye(2), np.eye(2)[::-1])
        >>> swapped.marginal_distance, swapped.joint_distance, swapped.error_mismatch
        (0.0, 2.0, 1.0)
    """
    table = check_language_model(language_model)
    n_labels, n_positions = table.shape[0], table.ndim
    emission, model_emission = (check_emission(rows, n_labels) for rows in (emission, model_emission))
    if emission.shape != model_emission.shape:
        raise InputError(
            f"The emissions have {emission.shape[1]} and {model_emission.shape[1]} symbols: give both the same."
        )
    strings, model_strings = (string_emission(rows, n_positions) for rows in (emission, model_emission))
    prior = table.reshape(-1, 1)
    found = _mismatch(prior * strings, prior * model_strings, prior * (strings - model_strings), n_labels, n_positions)
    matrix, change = language_model_matrix(table), emission - model_emission
    return Exact(
        **found,
        matrix=matrix,
        weights=matrix.sum(0),
        emission_distance=np.abs(change).sum(1),
        position_distance=np.abs(matrix @ change).sum(1),
    )


def kl_divergence(true: np.ndarray, model: np.ndarray) -> float:
    """D_KL(true || model) of two distributions, accurate also where they nearly agree.

    ``sum p log(p/q)`` loses all digits when the result is near 1e-16. With ``r = (q - p) / p`` it is
    ``sum p (r - log(1 + r))``, whose terms are not negative; small ones by their series, large r by logarithms.

    Example:
        >>> float(f"{kl_divergence(np.array([0.5, 0.5]), np.array([0.5 + 1e-9, 0.5 - 1e-9])):.3g}")
        2e-18
    """
    return _kl(true, model - true)


def _kl(true: np.ndarray, change: np.ndarray) -> float:
    inside = true > 0
    p, change_inside = true[inside], change[inside]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        r = change_inside / p
        # Where q is many times p, the ratio may overflow (p of 1e-320): the difference of logarithms does not.
        logs = np.where(r < 1e8, np.log1p(np.maximum(r, -1)), np.log(p + change_inside) - np.log(p))
        terms = np.where(np.abs(r) < 1e-4, p * r * r * (0.5 - r / 3 + r * r / 4), change_inside - p * logs)
    return float(terms.sum() + change[~inside].sum())  # where p is 0, q alone is left


def _mismatch(true: np.ndarray, model: np.ndarray, d: np.ndarray, n_labels: int, n_positions: int) -> dict:
    marginal, columns = d.sum(0), np.arange(true.shape[1])
    best, chosen = true.argmax(0), model.argmax(0)
    lost = true[best, columns] - true[chosen, columns]
    touched = np.abs(d[best, columns]) + np.abs(d[chosen, columns])
    symbol_error, symbol_lost, position_distance = 0.0, 0.0, np.empty(n_positions)
    for n in range(n_positions):  # p_n(c, x_1^N): (K, symbol sequences)
        shape = n_labels**n, n_labels, -1, len(columns)
        right, decided = (joint.reshape(shape).sum((0, 2)) for joint in (true, model))
        position_distance[n] = np.abs(d.reshape(shape).sum((0, 2))).sum()
        symbol_error += 1 - right.max(0).sum()
        symbol_lost += (right.max(0) - right[decided.argmax(0), columns]).sum()
    return {
        "joint_distance": float(np.abs(d).sum()),
        "marginal_distance": float(np.abs(marginal).sum()),
        "kl": _kl(true.sum(0), -marginal),
        "bayes_error": float(1 - true[best, columns].sum()),
        "error_mismatch": float(lost.sum()),
        "trimmed": float(touched[best != chosen].sum()),
        "symbol_bayes_error": float(symbol_error / n_positions),
        "symbol_mismatch": float(symbol_lost / n_positions),
        "position_joint_distance": position_distance,
    }


def check_language_model(language_model: np.ndarray) -> np.ndarray:
    """The table as float64, if it is a distribution over label sequences.

    Raises:
        InputError: it is empty, not of shape ``(K,) * N``, has negative or infinite entries, or does not sum to one.
    """
    table = np.asarray(language_model, dtype=float)
    if table.ndim < 1 or len(set(table.shape)) != 1 or not table.size:
        raise InputError(
            f"A language model's table has shape {table.shape}: give one axis of K labels for each position, N of them."
        )
    return _check(table, "language model")


def check_emission(emission: np.ndarray, n_labels: int | None = None) -> np.ndarray:
    """The matrix as float64, if its rows are distributions over symbols, one row for each label.

    Raises:
        InputError: naming the label whose row is wrong.
    """
    rows = np.asarray(emission, dtype=float)
    if rows.ndim != 2 or not rows.size:
        raise InputError(f"An emission has shape {rows.shape}: give a row p(x | c) for each label.")
    if n_labels is not None and len(rows) != n_labels:
        raise InputError(f"An emission has {len(rows)} rows, the language model {n_labels} labels: give one for each.")
    for label, row in enumerate(rows):
        _check(row, f"emission of label {label}")
    return rows


def _check(table: np.ndarray, what: str) -> np.ndarray:
    if not np.isfinite(table).all() or (table < 0).any():
        raise InputError(f"The {what} has a probability of {_first_wrong(table):g}: all must lie between 0 and 1.")
    if abs(table.sum() - 1) > SUM_TOLERANCE:
        raise InputError(f"The {what} sums to {table.sum():.10g}, not to one: divide it by its sum.")
    return table


def _kronecker(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``numpy.kron`` of two matrices, several times as fast for small ones."""
    return (a[:, None, :, None] * b[None, :, None, :]).reshape(len(a) * len(b), -1)


def _first_wrong(table: np.ndarray) -> float:
    return float(table[~np.isfinite(table) | (table < 0)].flat[0])
