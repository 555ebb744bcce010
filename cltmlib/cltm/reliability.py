"""Reliability of a transfer matrix, beyond the paper: intervals and signs of its cells.

Paper: Buitrago et al., arXiv:2603.08231, Section 4.4, reports standard errors of the cells. With x_s and g_s the
cross-gain and the self-gain of Eq. (1) within seed s, a cell of Eq. (2) is mean(x) / mean(g).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from cltmlib.cltm.matrix import _is_positive, _performance_cube, _table
from cltmlib.errors import InputError

# Fewer seeds have so few distinct resamples that the bootstrap quantile is mostly infinite.
_MIN_BOOTSTRAP_SEEDS = 8


class ConfidenceIntervals(NamedTuple):
    """Ends of the confidence interval of every cell; an end that the seeds do not bound is infinite."""

    lower: pd.DataFrame
    """Rows = targets, columns = donors; -inf where nothing bounds the cell from below."""
    upper: pd.DataFrame
    """Likewise; +inf where nothing bounds the cell from above."""

    @property
    def unbounded_share(self) -> float:
        """Share of the defined off-diagonal cells with an infinite end; NaN where no cell is defined."""
        width = _off_diagonal(self.upper.to_numpy() - self.lower.to_numpy())
        defined = width[~np.isnan(width)]
        return float(np.isinf(defined).mean()) if defined.size else np.nan


class SignCalls(NamedTuple):
    """Which cells are surely positive or negative."""

    signs: pd.DataFrame
    """+1 or -1 where the sign is called, else 0; rows = targets, columns = donors."""
    p_values: pd.DataFrame
    """Of "this cell has no sign", before the correction; NaN on the diagonal, which is not tested."""


class SignStability(NamedTuple):
    """How the signs of a matrix hold when one seed is left out."""

    share: pd.DataFrame
    """Per cell, the share of leave-one-seed-out matrices with the sign of the full one; rows = targets."""
    stable_share: float
    """Share of the defined off-diagonal cells whose sign never changes; NaN where no cell is defined."""


def confidence_intervals(
    performance: pd.DataFrame,
    level: float = 0.95,
    languages: Sequence[str] | None = None,
    n_resamples: int | None = None,
    seed: int = 0,
) -> ConfidenceIntervals:
    """Confidence interval of every CLTM cell over seeds, paired within a seed (Fieller, 1954).

    A value r is inside where a t test over seeds does not reject ``mean(x - r g) = 0``. That asks for no positive
    denominator in every resample, and it is exact for normal differences. Where the self-gain is not significant
    at this level, the values inside are a half-line (then one end is infinite), everything (both are), or two
    half-lines, of which the one that holds the estimate is given: the other belongs to a negative self-gain.

    Choice: a percentile bootstrap over seeds covers the truth in 75, 80 and 90 % of the cells at 3, 4 and 10 seeds
    where it says 95 %: it resamples few values and knows no t quantile. Fieller's interval covers 95 % at each of
    them, infinite ends counted as they stand. With ``n_resamples`` the t quantile is replaced by that of the
    resampled ``|t|`` at the estimate (a bootstrap-t over seeds), for noise far from normal: from 8 seeds on it
    covers 96 to 97 % and is wider, so it is the check and not the rule.

    Args:
        performance: as for ``cross_lingual_transfer_matrix``, with at least two seeds.
        level: confidence level of each single cell, in (0, 1).
        languages: as for ``cross_lingual_transfer_matrix``.
        n_resamples: None for the t quantile, else the number of resamples of the bootstrap-t.
        seed: seed of the resampling.

    Returns:
        Lower and upper ends. A row that is NaN in the matrix is NaN here; the diagonal is 1 by definition.

    Raises:
        InputError: as ``cross_lingual_transfer_matrix``; a single seed; a level outside (0, 1); a bootstrap of fewer
            than 8 seeds or of no resample.

    Example:
        >>> rows = [("de", "", 0.5, 0.5), ("de", "de", 0.7, 0.7), ("de", "nl", 0.6, 0.62),
        ...         ("nl", "", 0.4, 0.4), ("nl", "nl", 0.8, 0.8), ("nl", "de", 0.3, 0.3)]
        >>> wide = pd.DataFrame(rows, columns=["target", "donor", 0, 1])
        >>> intervals = confidence_intervals(wide.melt(["target", "donor"], var_name="seed", value_name="performance"))
        >>> intervals.lower.round(2).to_numpy().tolist(), intervals.upper.round(2).to_numpy().tolist()
        ([[1.0, -0.09], [-0.25, 1.0]], [[1.0, 1.19], [-0.25, 1.0]])
    """
    _check_share(level, "level")
    languages, seeds, cube = _seed_cube(performance, languages)
    n, n_seeds = len(languages), len(seeds)
    diagonal = np.arange(n)
    cross = cube[:, 1:] - cube[:, :1]  # (target, donor, seed)
    own = cross[diagonal, diagonal][:, None]  # (target, 1, seed)
    gain = own.mean(axis=2)
    gain = np.where(_is_positive(gain, cube[:, :1].mean(axis=2)), gain, np.nan)
    estimate = cross.mean(axis=2) / gain
    residual = cross - estimate[..., None] * own  # mean 0 over seeds
    if n_resamples is None:
        quantile = np.full((n, n), stats.t.ppf((1 + level) / 2, n_seeds - 1))
    else:
        quantile = _bootstrap_quantile(residual, level, n_resamples, seed)
    donors = pd.Index(languages, name="donor")
    ends = []
    for offset in _fieller_offsets(residual, own, quantile):
        end = estimate + offset
        end[diagonal, diagonal] = np.where(np.isnan(gain[:, 0]), np.nan, 1.0)
        ends.append(_table(end, languages, donors))
    return ConfidenceIntervals(*ends)


def sign_calls(
    performance: pd.DataFrame, false_discovery_rate: float = 0.05, languages: Sequence[str] | None = None
) -> SignCalls:
    """Call the sign of a cell where it survives a false-discovery-rate correction over all off-diagonal cells.

    A cell has a sign where its cross-gain is not zero and its self-gain is positive. Both are t tests over seeds,
    paired within a seed, two-sided and one-sided; the p-value of the cell is the larger one (an intersection-union
    test), corrected by Benjamini and Hochberg (1995).

    Choice: without the test of the self-gain, rows whose true self-gain is not positive bring false signs: 10 to
    15 % in simulation. With it the rate is at most 5 %, though the cells of a row share Perf_i(D_i) and a training
    serves two cells, so the more cautious correction of Benjamini and Yekutieli is not needed. A row whose self-gain
    is not positive has p = 1, and so has a gain that is equal in every seed: the metric is too coarse for an error.

    Args:
        performance: as for ``cross_lingual_transfer_matrix``, with at least two seeds.
        false_discovery_rate: accepted expected share of wrong signs among the called ones, in (0, 1).
        languages: as for ``cross_lingual_transfer_matrix``.

    Returns:
        Signs (0 = not called; 0 on the diagonal) and uncorrected p-values.

    Raises:
        InputError: as ``cross_lingual_transfer_matrix``; a single seed; a rate outside (0, 1).

    Example:
        >>> rows = [("de", "", 0.5, 0.52), ("de", "de", 0.7, 0.7), ("de", "nl", 0.6, 0.61),
        ...         ("nl", "", 0.4, 0.4), ("nl", "nl", 0.8, 0.81), ("nl", "de", 0.5, 0.3)]
        >>> wide = pd.DataFrame(rows, columns=["target", "donor", 0, 1])
        >>> calls = sign_calls(wide.melt(["target", "donor"], var_name="seed", value_name="performance"), 0.1)
        >>> calls.signs.to_numpy().tolist(), calls.p_values.round(3).to_numpy().tolist()
        ([[0, 1], [0, 0]], [[nan, 0.033], [1.0, nan]])
    """
    _check_share(false_discovery_rate, "false_discovery_rate")
    languages, seeds, cube = _seed_cube(performance, languages)
    n, n_seeds = len(languages), len(seeds)
    cross = cube[:, 1:] - cube[:, :1]  # (target, donor, seed)
    base = cube[:, :1].mean(axis=2)
    mean, spread = cross.mean(axis=2), cross.std(axis=2, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / (spread / np.sqrt(n_seeds))
    testable = _is_positive(np.abs(mean), base) & _is_positive(spread, base)
    p_cross = np.where(testable, 2 * stats.t.sf(np.abs(t), n_seeds - 1), 1.0)
    p_self = np.where(testable & (mean > 0), stats.t.sf(t, n_seeds - 1), 1.0).diagonal()[:, None]
    p_values = np.maximum(p_cross, p_self)

    signs = np.zeros((n, n), dtype=int)
    off = ~np.eye(n, dtype=bool)
    called = stats.false_discovery_control(p_values[off], method="bh") <= false_discovery_rate
    signs[off] = np.where(called, np.sign(mean[off]), 0)
    donors = pd.Index(languages, name="donor")
    return SignCalls(_table(signs, languages, donors), _table(np.where(off, p_values, np.nan), languages, donors))


def sign_stability(performance: pd.DataFrame, languages: Sequence[str] | None = None) -> SignStability:
    """How often each cell keeps its sign when one seed is left out.

    Choice: a leave-one-out matrix in which the row is undefined counts as a change; on the diagonal the share is
    therefore how often the row is defined.

    Args:
        performance: as for ``cross_lingual_transfer_matrix``, with at least two seeds.
        languages: as for ``cross_lingual_transfer_matrix``.

    Returns:
        Share per cell (a row that is NaN in the matrix is NaN here) and the share of cells that never change.

    Raises:
        InputError: as ``cross_lingual_transfer_matrix``; a single seed.

    Example:
        >>> rows = [("de", "", 0.5, 0.5), ("de", "de", 0.7, 0.7), ("de", "nl", 0.6, 0.62),
        ...         ("nl", "", 0.4, 0.4), ("nl", "nl", 0.8, 0.8), ("nl", "de", 0.3, 0.45)]
        >>> wide = pd.DataFrame(rows, columns=["target", "donor", 0, 1])
        >>> stability = sign_stability(wide.melt(["target", "donor"], var_name="seed", value_name="performance"))
        >>> stability.share.to_numpy().tolist(), stability.stable_share
        ([[1.0, 1.0], [0.5, 1.0]], 0.5)
    """
    languages, seeds, cube = _seed_cube(performance, languages)
    full = _signs(cube.mean(axis=2))
    without = [_signs(np.delete(cube, s, axis=2).mean(axis=2)) for s in range(len(seeds))]
    share = np.where(np.isnan(full), np.nan, np.mean([signs == full for signs in without], axis=0))
    defined = _off_diagonal(share)[~np.isnan(_off_diagonal(share))]
    stable_share = float((defined == 1).mean()) if defined.size else np.nan
    return SignStability(_table(share, languages, pd.Index(languages, name="donor")), stable_share)


def _fieller_offsets(residual: np.ndarray, own: np.ndarray, quantile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Fieller's interval minus the estimate, each (target, donor), for a positive mean self-gain.

    ``residual`` (target, donor, seed) is the cross-gain less the estimate times the self-gain, so its mean is 0;
    ``own`` (target, 1, seed) is the self-gain. An offset e is inside where ``a e^2 - 2 b e + c <= 0`` with the
    numbers below; a > 0 says that the self-gain is significant.
    """
    n_seeds = residual.shape[2]
    gain = own.mean(axis=2)
    error = quantile**2 / n_seeds
    covariance = (residual * own).sum(axis=2) / (n_seeds - 1)
    with np.errstate(invalid="ignore"):  # no real root: everything is inside
        a = gain**2 - error * own.var(axis=2, ddof=1)
        b = -error * covariance
        c = -error * residual.var(axis=2, ddof=1)
        root = np.sqrt(b**2 - a * c)
    # The roots are c / (b +- root); an end is the one on its side of 0 that is next to 0. With a > 0 there is one on
    # either side, unless the residual is 0 in every seed; with a <= 0 a side without a root has no end.
    no_end = np.where(a > 0, 0.0, np.inf)
    lower = np.divide(c, b + root, out=-no_end, where=b + root > 0)
    upper = np.divide(c, b - root, out=no_end, where=b - root < 0)
    return lower, upper


def _bootstrap_quantile(residual: np.ndarray, level: float, n_resamples: int, seed: int) -> np.ndarray:
    """Quantile of ``|t|`` of the residuals, mean 0, over resampled seeds, shape (target, donor)."""
    n_seeds = residual.shape[2]
    if n_seeds < _MIN_BOOTSTRAP_SEEDS:
        raise InputError(
            f"The bootstrap-t needs at least {_MIN_BOOTSTRAP_SEEDS} seeds, not {n_seeds}: leave n_resamples out."
        )
    if n_resamples < 1:
        raise InputError(f"The bootstrap-t needs n_resamples >= 1, not {n_resamples}: it takes about 1000.")
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples) / n_seeds
    quantile = np.empty(residual.shape[:2])
    for i, row in enumerate(residual):  # row: (donor, seed)
        mean = weights @ row.T  # (resample, donor)
        variance = np.maximum(weights @ row.T**2 - mean**2, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(mean) * np.sqrt((n_seeds - 1) / variance)
        quantile[i] = np.quantile(np.where(mean == 0, 0.0, t), level, axis=0, method="higher")
    return quantile


def _signs(mean: np.ndarray) -> np.ndarray:
    """Signs of the CLTM of mean performances (target, 1 + donor); NaN in rows without a positive self-gain."""
    cross = mean[:, 1:] - mean[:, :1]
    signs = np.where(_is_positive(np.abs(cross), mean[:, :1]), np.sign(cross), 0.0)
    return np.where(signs.diagonal()[:, None] > 0, signs, np.nan)


def _seed_cube(performance: pd.DataFrame, languages: Sequence[str] | None) -> tuple[list[str], list, np.ndarray]:
    languages, seeds, cube = _performance_cube(performance, languages)
    if len(seeds) < 2:
        raise InputError(f"One seed ({seeds[0]!r}) shows no spread: train every cell with at least two seeds.")
    return languages, seeds, cube


def _check_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name} must lie between 0 and 1, both excluded, not {value}.")


def _off_diagonal(array: np.ndarray) -> np.ndarray:
    return array[~np.eye(len(array), dtype=bool)]
