"""The bound on random models: thousands of pairs (p_r, q), each inequality of the proof, and how tight it is.

How the paper draws its pairs is not known to us; the draws here are ours. Besides arbitrary pairs they hold those that
a bound must fear: models near the truth, models with permuted labels, and models that differ from the truth in the
direction that the language model sees least.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cltmlib.errors import InputError
from cltmlib.unsupervised.bound import Conditioning, conditioning
from cltmlib.unsupervised.exact import Exact, enumerate_models, language_model_matrix
from cltmlib.unsupervised.inequalities import INEQUALITIES, constants
from cltmlib.unsupervised.ngram import NGram

LANGUAGE_MODELS = ("table", "product", "markov", "sparse")
MODELS = ("independent", "near", "permuted", "null direction")
PAPER_SIZE = (3, 4, 3)  # K, V, N of the paper's simulation
SIZES = {  # (K, V, N): share of the instances
    PAPER_SIZE: 0.30, (2, 2, 2): 0.12, (2, 3, 4): 0.12, (2, 2, 6): 0.10, (2, 5, 3): 0.12, (3, 3, 3): 0.12,
    (3, 3, 4): 0.08, (3, 4, 5): 0.006, (4, 5, 4): 0.01, (4, 4, 5): 0.004,
}  # fmt: skip
_LEAST_SIGMA = 1e-6  # of the models on which the bound is checked: below, rounding decides
_LEAST_SIGMA_OF_SWEEP = 1e-9  # of the conditioning sweep, which goes nearer to deficient ranks
_MAX_REFUSED = 1000  # draws in a row without a model that can be used, before the request is called impossible
ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE = 1e-10, 1e-9  # within which an inequality counts as kept


def draw_language_model(kind: str, n_labels: int, n_positions: int, generator: np.random.Generator) -> np.ndarray:
    """Draw the table of a language model, ``(K,) * N``, of one of the kinds of ``LANGUAGE_MODELS``.

    Dirichlet concentrations are log-uniform in [0.03, 5]. ``table``: any distribution over sequences; ``product``:
    independent positions, each with its own unigram; ``markov``: a bigram with a start of its own; ``sparse``: a few
    sequences only.
    """
    concentration = _log_uniform(0.03, 5, generator)
    n_sequences = n_labels**n_positions
    if kind == "table":
        return _dirichlet(concentration, n_sequences, generator).reshape((n_labels,) * n_positions)
    if kind == "product":
        table = np.ones(())
        for _ in range(n_positions):
            table = table[..., None] * _dirichlet(concentration, n_labels, generator)
        return table
    if kind == "markov":
        rows = [_dirichlet(concentration, n_labels, generator) for _ in range(n_labels + 1)]
        return NGram((rows[0], rows[1:])).table(n_positions)
    if kind == "sparse":
        n_used = int(generator.integers(n_labels, 3 * n_labels + 1))
        table = np.zeros(n_sequences)
        chosen = generator.choice(n_sequences, min(n_used, n_sequences), replace=False)
        table[chosen] = _dirichlet(1.0, len(chosen), generator)
        return table.reshape((n_labels,) * n_positions)
    raise InputError(f"There is no kind of language model {kind!r}: choose one of {', '.join(LANGUAGE_MODELS)}.")


def draw_emission(n_labels: int, n_symbols: int, generator: np.random.Generator) -> np.ndarray:
    """Draw an emission table, (K, V): Dirichlet rows, concentration log-uniform in [0.1, 5]."""
    concentration = _log_uniform(0.1, 5, generator)
    return np.stack([_dirichlet(concentration, n_symbols, generator) for _ in range(n_labels)])


def draw_model(kind: str, emission: np.ndarray, matrix: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw the model's emission Q for a true O, of one of the kinds of ``MODELS``.

    ``independent``; ``near``: ``(1 - e) O + e R``, e log-uniform in [1e-6, 1]; ``permuted``: rows of O in another
    order, with such noise; ``null direction``: ``O + t v u`` with v the last right singular vector of P and u random
    with sum zero, as far as it stays a table.
    """
    n_labels, n_symbols = emission.shape
    other = draw_emission(n_labels, n_symbols, generator)
    if kind == "independent":
        return other
    if kind in ("near", "permuted"):
        base = emission if kind == "near" else emission[generator.permutation(n_labels)]
        share = _log_uniform(1e-6, 1, generator)
        return (1 - share) * base + share * other
    if kind == "null direction":
        direction = np.outer(np.linalg.svd(matrix)[2][-1], _zero_sum(n_symbols, generator))
        negative = direction < 0
        furthest = (emission[negative] / -direction[negative]).min()
        moved = np.maximum(emission + generator.uniform(0.05, 1) * furthest * direction, 0)
        return moved / moved.sum(1, keepdims=True)
    raise InputError(f"There is no kind of model {kind!r}: choose one of {', '.join(MODELS)}.")


def validate_bound(n_instances: int, seed: int, sizes: dict[tuple[int, int, int], float] = SIZES) -> pd.DataFrame:
    """Draw random models and compute both sides of every inequality of the proof, exactly.

    Language models whose matrix has ``sigma_min`` below 1e-6 are drawn again (Condition 2 fails for them, or cannot be
    told from failing).

    Args:
        n_instances: how many.
        seed: of all draws.
        sizes: (K, V, N) and the share of the instances each gets.

    Returns:
        One row per instance: n_labels, n_symbols, n_positions, language_model, model, sigma_min, constant, kappa, the
        distances and errors of `Exact`, and for every inequality ``NAME_left`` and ``NAME_right``.
    """
    if n_instances < 1:
        raise InputError(f"n_instances is {n_instances}: it must be at least 1.")
    for n_labels, n_symbols, n_positions in sizes:
        if not 1 < n_labels <= n_positions or n_symbols < 2:
            raise InputError(
                f"Size (K, V, N) = {(n_labels, n_symbols, n_positions)}: the bound needs at least two labels and two "
                "symbols, and at least as many positions as labels (Condition 2)."
            )
    generator = np.random.default_rng(seed)
    shares = np.array(list(sizes.values()))
    drawn = generator.choice(len(sizes), n_instances, p=shares / shares.sum())
    rows = []
    for which in np.sort(drawn):
        n_labels, n_symbols, n_positions = list(sizes)[which]
        language_model, kind = _identifiable(n_labels, n_positions, generator)
        emission, model_kind = draw_emission(n_labels, n_symbols, generator), str(generator.choice(MODELS))
        matrix = language_model_matrix(language_model)
        if model_kind == "null direction":
            emission = _interior(emission)
        exact = enumerate_models(language_model, emission, draw_model(model_kind, emission, matrix, generator))
        sizes_of_it = {"n_labels": n_labels, "n_symbols": n_symbols, "n_positions": n_positions}
        rows.append({**sizes_of_it, "language_model": kind, "model": model_kind, **_measured(exact)})
    return pd.DataFrame(rows)


def violations(instances: pd.DataFrame) -> pd.DataFrame:
    """Per inequality over all instances: how often and how far it was violated, and how tight it is.

    Returns:
        Rows = inequalities; columns step (of the proof), claim, n, n_beyond (instances where left is not at most right
        + 1e-10: a NaN counts as violated), n_beyond_relative (where it is not at most ``(1 + 1e-9) right + 1e-12``),
        max_violation (left less right, absolute; negative where it always held with room), max_ratio and median_ratio
        of left over right, where right > 1e-9.
    """
    rows = {}
    for name, function in INEQUALITIES.items():
        left, right = instances[f"{name}_left"], instances[f"{name}_right"]
        ratio = (left / right)[right > 1e-9]  # of smaller numbers rounding is all there is
        step, _, claim = function.__doc__.splitlines()[0].partition(": ")
        rows[name] = {
            "step": step,
            "claim": claim.rstrip(".").replace("`", ""),
            "n": len(left),
            "n_beyond": int((~(left - right <= ABSOLUTE_TOLERANCE)).sum()),
            "n_beyond_relative": int((~(left <= (1 + RELATIVE_TOLERANCE) * right + 1e-12)).sum()),
            "max_violation": (left - right).max(skipna=False),
            "max_ratio": ratio.max(),
            "median_ratio": ratio.median(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("inequality")


def tightness(instances: pd.DataFrame, by: str | Sequence[str]) -> pd.DataFrame:
    """Median constants, and how much of the bound is used, by size or kind.

    Returns:
        Rows = groups; n, median sigma_min, constant (``N^2 |P^+|_1``) and kappa, ``D_q / (constant L)`` and
        ``D_q / (kappa L)``, median and largest; ``informative``: share of instances whose bound on D_q is below 2.
    """
    groups = instances.assign(
        used=instances["theorem_1_left"] / instances["theorem_1_right"],
        used_sharp=instances["sharp_left"] / instances["sharp_right"],
        informative=instances["theorem_1_right"] < 2,
    )[instances["marginal_distance"] > 1e-12].groupby(by)
    return pd.DataFrame(
        {
            "n": groups.size(),
            "sigma_min": groups["sigma_min"].median(),
            "constant": groups["constant"].median(),
            "kappa": groups["kappa"].median(),
            "used_median": groups["used"].median(),
            "used_max": groups["used"].max(),
            "used_sharp_median": groups["used_sharp"].median(),
            "used_sharp_max": groups["used_sharp"].max(),
            "informative": groups["informative"].mean(),
        }
    )


def conditioning_sweep(variations: Sequence[float], n_draws: int, seed: int) -> pd.DataFrame:
    """Shrink what differs between positions, and compare the bound with what happens (reconstruction, Section 8.2).

    Product and Markov language models of the paper's size; variation 1 leaves them as drawn, near 0 all rows of P are
    nearly alike. Models lie in the direction that P sees least. Draws whose sigma_min is below 1e-9 are drawn again.

    Args:
        variations: each above 0 and at most 1.
        n_draws: of each kind and variation.
        seed: of all draws.

    Returns:
        One row per draw: language_model, variation, sigma_min, constant, kappa, joint_over_marginal (``D_q / L``).

    Raises:
        InputError: a variation so small that P has no full rank, where there is no bound, or out of range.
    """
    if n_draws < 1:
        raise InputError(f"n_draws is {n_draws}: it must be at least 1.")
    for variation in variations:
        if not 0 < variation <= 1:
            raise InputError(
                f"A variation of the sweep is {variation}: it must be above 0 (at 0 all positions are alike, P has "
                "rank 1 and there is no bound) and at most 1."
            )
    n_labels, n_symbols, n_positions = PAPER_SIZE
    rows = []
    for kind in ("product", "markov"):
        for variation in variations:
            generator = np.random.default_rng([seed, LANGUAGE_MODELS.index(kind)])  # the same draws for each variation
            n_found = n_refused = 0
            while n_found < n_draws:
                language_model = _flattened(kind, variation, n_labels, n_positions, generator)
                matrix = language_model_matrix(language_model)
                emission = _interior(draw_emission(n_labels, n_symbols, generator))
                model = draw_model("null direction", emission, matrix, generator)
                found = conditioning(matrix)
                if not found.full_rank or found.sigma_min < _LEAST_SIGMA_OF_SWEEP:
                    n_refused = _refused(n_refused, f"with variation {variation} of a {kind} language model")
                    continue
                n_found, n_refused = n_found + 1, 0
                exact = enumerate_models(language_model, emission, model)
                rows.append({
                    "language_model": kind, "variation": variation, "sigma_min": found.sigma_min,
                    "constant": found.constant, "kappa": constants(exact)[1],
                    "joint_over_marginal": exact.joint_distance / exact.marginal_distance,
                })  # fmt: skip
    return pd.DataFrame(rows)


def constants_by_size(
    n_labels: Sequence[int], lengths_per_label: Sequence[int], n_draws: int, seed: int
) -> pd.DataFrame:
    """How conditioning grows with alphabet and length: median constants of Markov and product language models.

    Returns:
        Rows = (language_model, n_labels, n_positions) with N = K times each of ``lengths_per_label``; median
        sigma_min, constant (``N^2 |P^+|_1``) and kappa over ``n_draws`` models with flat Dirichlet rows.
    """
    rows = []
    for kind in ("product", "markov"):
        for k in n_labels:
            for n_positions in (k * per_label for per_label in lengths_per_label):
                generator = np.random.default_rng([seed, k, n_positions])
                for _ in range(n_draws):
                    if kind == "product":
                        matrix = generator.dirichlet(np.ones(k), n_positions)
                    else:
                        tables = generator.dirichlet(np.ones(k)), generator.dirichlet(np.ones(k), k)
                        matrix = NGram(tables).matrix(n_positions)
                    found: Conditioning = conditioning(matrix)
                    rows.append((kind, k, n_positions, found.sigma_min, found.constant))
    columns = ["language_model", "n_labels", "n_positions", "sigma_min", "constant"]
    return pd.DataFrame(rows, columns=columns).groupby(columns[:3], sort=False).median()


def _measured(exact: Exact) -> dict[str, float]:
    found, kappa = constants(exact)
    row = {"sigma_min": found.sigma_min, "constant": found.constant, "kappa": kappa}
    for name in ("marginal_distance", "joint_distance", "kl", "bayes_error", "error_mismatch", "symbol_mismatch"):
        row[name] = getattr(exact, name)
    for name, inequality in INEQUALITIES.items():
        row[f"{name}_left"], row[f"{name}_right"] = inequality(exact)
    return row


def _identifiable(n_labels: int, n_positions: int, generator: np.random.Generator) -> tuple[np.ndarray, str]:
    n_refused = 0
    while True:
        kind = str(generator.choice(LANGUAGE_MODELS))
        language_model = draw_language_model(kind, n_labels, n_positions, generator)
        if conditioning(language_model_matrix(language_model)).sigma_min >= _LEAST_SIGMA:
            return language_model, kind
        n_refused = _refused(n_refused, f"with {n_labels} labels and {n_positions} positions")


def _refused(n_refused: int, what: str) -> int:
    """Count one more refused draw; raise where there were too many in a row."""
    if n_refused >= _MAX_REFUSED:
        raise InputError(f"Of {_MAX_REFUSED} language models {what} none has a matrix of full rank: choose others.")
    return n_refused + 1


def _flattened(
    kind: str, variation: float, n_labels: int, n_positions: int, generator: np.random.Generator
) -> np.ndarray:
    """A language model whose unigrams differ between positions ``variation`` times as much as drawn."""
    if kind == "product":
        rows = generator.dirichlet(np.ones(n_labels), n_positions)
        rows = variation * rows + (1 - variation) * rows.mean(0)
        table = np.ones(())
        for row in rows:
            table = table[..., None] * row
        return table
    start, transition = generator.dirichlet(np.ones(n_labels)), generator.dirichlet(np.ones(n_labels), n_labels)
    start = variation * start + (1 - variation) * stationary(transition)
    return NGram((start, transition)).table(n_positions)


def _interior(emission: np.ndarray) -> np.ndarray:
    """Away from zero, so that a model has room to differ in any direction."""
    return 0.9 * emission + 0.1 / emission.shape[1]


def stationary(transition: np.ndarray) -> np.ndarray:
    """The distribution that a transition matrix (K, K) leaves as it is.

    Example:
        >>> stationary(np.array([[0.9, 0.1], [0.3, 0.7]])).round(3).tolist()
        [0.75, 0.25]
    """
    equations = np.vstack([np.asarray(transition).T - np.eye(len(transition)), np.ones(len(transition))])
    found = np.linalg.lstsq(equations, np.eye(len(transition) + 1)[-1], rcond=None)[0]
    return np.maximum(found, 0) / np.maximum(found, 0).sum()


def _dirichlet(concentration: float, n: int, generator: np.random.Generator) -> np.ndarray:
    """A Dirichlet draw that survives small concentrations, where all gammas may underflow to zero."""
    log_gamma = np.log(generator.gamma(concentration + 1, size=n))
    logs = log_gamma + np.log(generator.uniform(1e-300, 1, size=n)) / concentration
    values = np.exp(logs - logs.max())
    return values / values.sum()


def _log_uniform(low: float, high: float, generator: np.random.Generator) -> float:
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _zero_sum(n: int, generator: np.random.Generator) -> np.ndarray:
    values = generator.normal(size=n)
    return values - values.mean()
