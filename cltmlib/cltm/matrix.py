"""The Cross-Lingual Transfer Matrix of a table of performances, with its standard errors.

Paper: Buitrago et al., "Quantifying Cross-Lingual Transfer in Paralinguistic Speech Tasks", arXiv:2603.08231.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from cltmlib.cltm.diagnostics import defined_languages
from cltmlib.errors import InputError

_COLUMNS = ["target", "donor", "seed", "performance"]

# Means over seeds that are equal on paper differ by a few units in the last place; dividing by such dust would
# give cells of 1e15. A self-gain below this share of the performance is zero.
_ROUNDING = 16 * np.finfo(float).eps

# A row whose self-gain is not positive in more than this share of the resamples has no bootstrap error.
_MAX_UNDEFINED_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class TransferMatrix:
    """A CLTM with its uncertainty; every table keeps one order of languages.

    Attributes:
        values: CLTM[i, j], Eq. (2); rows = targets i, columns = donors j; diagonal 1; a row is NaN where the
            self-gain is not positive.
        standard_error: standard error of each cell by the delta method; NaN with a single seed.
        self_gain: mean over seeds of Perf_i(D_i + D'_i) - Perf_i(D_i), per language, positive or not.
        self_gain_standard_error: its standard error, differences paired within a seed; NaN with a single seed.
        self_gain_by_seed: the same differences before averaging; rows = languages, columns = seeds.
    """

    values: pd.DataFrame
    standard_error: pd.DataFrame
    self_gain: pd.Series
    self_gain_standard_error: pd.Series
    self_gain_by_seed: pd.DataFrame

    @property
    def n_seeds(self) -> int:
        """How many seeds the means are over."""
        return self.self_gain_by_seed.shape[1]

    def summary(self) -> pd.Series:
        """Stability of the matrix, as Section 4.4 reports it.

        ``rms = ||C||_F / n``; ``se_median`` and ``se_mean`` are over the off-diagonal cells. These three use the
        languages with a positive self-gain, as rows and as columns; the self-gain entries use all languages.

        Choice: ``self_gain_std``, the paper's "0.304 +- 0.089", is read as the standard deviation over languages
        (ddof = 1); the paper does not say. ``self_gain_mean_se`` is over seeds, of each seed's mean over languages:
        languages share their seeds, so their errors are not independent.

        Returns:
            Series with index se_median, se_mean, rms, self_gain_mean, self_gain_std, self_gain_mean_se,
            n_languages, n_undefined (languages whose row is NaN), n_seeds.
        """
        kept = defined_languages(self.values)
        off_diagonal = ~np.eye(len(kept), dtype=bool)
        errors = self.standard_error.loc[kept, kept].to_numpy()[off_diagonal]
        cells = self.values.loc[kept, kept].to_numpy()
        return pd.Series(
            {
                "se_median": float(np.median(errors)) if errors.size else np.nan,
                "se_mean": float(errors.mean()) if errors.size else np.nan,
                "rms": float(np.sqrt(np.mean(cells**2))) if cells.size else np.nan,
                "self_gain_mean": self.self_gain.mean(),
                "self_gain_std": self.self_gain.std(ddof=1),
                "self_gain_mean_se": self.self_gain_by_seed.mean(axis=0).sem(ddof=1),
                "n_languages": len(self.values),
                "n_undefined": len(self.values) - len(kept),
                "n_seeds": self.n_seeds,
            }
        )


class BootstrapStandardError(NamedTuple):
    """Bootstrap standard errors, and how often the ratio they describe did not exist."""

    standard_error: pd.DataFrame
    """Rows = targets, columns = donors."""
    undefined_share: pd.Series
    """Per target, the share of resamples whose self-gain was not positive."""


def cross_lingual_transfer_matrix(performance: pd.DataFrame, languages: Sequence[str] | None = None) -> TransferMatrix:
    """Compute the CLTM of a complete table of performances.

    Paper, Eq. (1), (2): ``CLTM[i, j] = (Perf_i(D_i + D_j) - Perf_i(D_i)) / (Perf_i(D_i + D'_i) - Perf_i(D_i))``
    where every Perf is a mean over seeds. With ``a``, ``b``, ``c`` the means of Perf_i(D_i + D_j), Perf_i(D_i) and
    Perf_i(D_i + D'_i), ``d = c - b`` and ``r = (a - b) / d``, the delta method gives the squared standard error
    ``Var(a) / d^2 + r^2 Var(c) / d^2 + (r - 1)^2 Var(b) / d^2``; Var is the variance of a mean (ddof = 1).

    Choice: the three means are taken as independent, though they share their seeds;
    ``bootstrap_standard_error`` keeps the pairing. The diagonal is 1 by definition, so its standard error is 0.

    Args:
        performance: columns target, donor, seed, performance (higher is better). donor "" (or missing, as a CSV
            file gives it back) is Perf_i(D_i), donor == target is Perf_i(D_i + D'_i).
        languages: languages of the matrix, in this order; default: all targets, as they first appear.

    Returns:
        The matrix. A row whose self-gain is not positive is NaN, with a warning that names the language.

    Raises:
        InputError: a column, a cell or a seed is missing, a row is there twice, or a performance is not finite.

    Example:
        >>> rows = [("de", "", 0.5), ("de", "de", 0.7), ("de", "nl", 0.6),
        ...         ("nl", "", 0.4), ("nl", "nl", 0.8), ("nl", "de", 0.3)]
        >>> performance = pd.DataFrame(rows, columns=["target", "donor", "performance"]).assign(seed=0)
        >>> cross_lingual_transfer_matrix(performance).values.round(2).to_numpy().tolist()
        [[1.0, 0.5], [-0.25, 1.0]]
    """
    languages, seeds, cube = _performance_cube(performance, languages)
    n, n_seeds = len(languages), len(seeds)
    diagonal = np.arange(n)
    mean = cube.mean(axis=2)
    variance = cube.var(axis=2, ddof=1) / n_seeds if n_seeds > 1 else np.full_like(mean, np.nan)
    gain = mean[diagonal, 1 + diagonal] - mean[:, 0]
    positive = _is_positive(gain, mean[:, 0])
    _warn_of_undefined_rows(languages, gain, positive)

    d = np.where(positive, gain, np.nan)[:, None]  # (target, 1)
    values = (mean[:, 1:] - mean[:, :1]) / d  # (target, donor)
    values[diagonal, diagonal] = np.where(positive, 1.0, np.nan)
    squared = variance[:, 1:] + values**2 * variance[diagonal, 1 + diagonal][:, None]
    standard_error = np.sqrt(squared + (values - 1) ** 2 * variance[:, :1]) / d
    if n_seeds > 1:
        standard_error[diagonal, diagonal] = np.where(positive, 0.0, np.nan)

    by_seed = _table(cube[diagonal, 1 + diagonal] - cube[:, 0], languages, pd.Index(seeds, name="seed"))
    donors = pd.Index(languages, name="donor")
    return TransferMatrix(
        values=_table(values, languages, donors),
        standard_error=_table(standard_error, languages, donors),
        self_gain=pd.Series(gain, index=by_seed.index, name="self_gain"),
        self_gain_standard_error=by_seed.sem(axis=1, ddof=1).rename("self_gain_standard_error"),
        self_gain_by_seed=by_seed,
    )


def bootstrap_standard_error(
    performance: pd.DataFrame, n_resamples: int = 1000, seed: int = 0, languages: Sequence[str] | None = None
) -> BootstrapStandardError:
    """Standard error of each CLTM cell by resampling the seeds.

    A resample draws seeds with replacement, the same ones for every training, so whatever the conditions share
    through a seed stays paired; it then recomputes Eq. (2). The error is the standard deviation over resamples
    times ``sqrt(n_seeds / (n_seeds - 1))``: resampling n values shrinks a variance by (n - 1) / n, much with 3 seeds.

    Choice: a resample whose self-gain is not positive has no CLTM row and is left out of that row, which makes the
    error too small; so the share of such resamples is returned beside it, and a row where it exceeds 5 % (the
    self-gain is then not clearly positive) is NaN, with a warning that names the language. A row that is NaN in the
    matrix is NaN here.

    Args:
        performance: as for ``cross_lingual_transfer_matrix``; with a single seed every error is NaN.
        n_resamples: number of bootstrap resamples, at least 2.
        seed: seed of the resampling.
        languages: as for ``cross_lingual_transfer_matrix``.

    Returns:
        The standard errors and, per target, the share of resamples without a positive self-gain.

    Raises:
        InputError: as ``cross_lingual_transfer_matrix``; fewer than two resamples.

    Example:
        >>> rows = [("de", "", 0.5), ("de", "de", 0.7), ("de", "nl", 0.6),
        ...         ("nl", "", 0.4), ("nl", "nl", 0.8), ("nl", "de", 0.3)]
        >>> one = pd.DataFrame(rows, columns=["target", "donor", "performance"])
        >>> performance = pd.concat([one.assign(seed=0), one.assign(seed=1)])
        >>> float(bootstrap_standard_error(performance, n_resamples=10).standard_error.to_numpy().max())
        0.0
    """
    languages, seeds, cube = _performance_cube(performance, languages)
    n_seeds = len(seeds)
    if n_resamples < 2:
        raise InputError(f"The seed bootstrap needs n_resamples >= 2, not {n_resamples}.")
    if n_seeds < 2:
        unknown = np.full((len(languages), len(languages)), np.nan)
        table = _table(unknown, languages, pd.Index(languages, name="donor"))
        return BootstrapStandardError(table, pd.Series(np.nan, index=table.index, name="undefined_share"))
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples) / n_seeds

    standard_error = np.full((len(languages), len(languages)), np.nan)
    undefined_share = np.empty(len(languages))
    for i, row in enumerate(cube):  # row: (1 + donor, seed)
        mean = weights @ row.T  # (resample, 1 + donor)
        gain = mean[:, 1 + i] - mean[:, 0]
        positive = _is_positive(gain, mean[:, 0])
        undefined_share[i] = 1 - positive.mean()
        observed = row[1 + i].mean() - row[0].mean()
        if undefined_share[i] > _MAX_UNDEFINED_SHARE or not _is_positive(observed, row[0].mean()):
            continue
        ratios = (mean[positive, 1:] - mean[positive, :1]) / gain[positive, None]
        standard_error[i] = ratios.std(axis=0, ddof=1) * np.sqrt(n_seeds / (n_seeds - 1))
        standard_error[i, i] = 0.0

    unclear = [f"{language} ({share:.0%})" for language, share in zip(languages, undefined_share, strict=True)
               if share > _MAX_UNDEFINED_SHARE]  # fmt: skip
    if unclear:
        warnings.warn(
            f"Self-gain not clearly positive (share of resamples where it is not): {', '.join(unclear)}; "
            "these rows have no bootstrap standard error.",
            stacklevel=2,
        )
    table = _table(standard_error, languages, pd.Index(languages, name="donor"))
    return BootstrapStandardError(table, pd.Series(undefined_share, index=table.index, name="undefined_share"))


def _is_positive(gain: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Whether a self-gain is positive beyond floating-point rounding of the performances it comes from."""
    return gain > _ROUNDING * (np.abs(base) + np.abs(base + gain))


def _warn_of_undefined_rows(languages: list[str], gain: np.ndarray, positive: np.ndarray) -> None:
    undefined = [f"{languages[i]} ({gain[i]:.4g})" for i in np.flatnonzero(~positive)]
    if undefined:
        warnings.warn(
            f"Self-gain not positive: {', '.join(undefined)}; Eq. (2) is undefined there, these rows are NaN.",
            stacklevel=3,
        )


def _table(array: np.ndarray, languages: list[str], columns: pd.Index) -> pd.DataFrame:
    return pd.DataFrame(array, index=pd.Index(languages, name="target"), columns=columns)


def _performance_cube(performance: pd.DataFrame, languages: Sequence[str] | None) -> tuple[list[str], list, np.ndarray]:
    """Check the table and return languages, sorted seeds and performances, shape (target, 1 + donor, seed).

    Donor 0 is no donor, Perf_i(D_i). Seeds are sorted, so the order of the rows changes no result.
    """
    for column in _COLUMNS:
        if column not in performance.columns:
            raise InputError(f"The performance table has no column {column!r}: it needs {', '.join(_COLUMNS)}.")
    table = performance[_COLUMNS].astype({"target": object, "donor": object}).reset_index(drop=True)
    table["donor"] = table["donor"].where(table["donor"].notna(), "")
    for column in ("target", "seed"):
        if table[column].isna().any():
            raise InputError(f"Row {int(table[column].isna().argmax())} of the performance table has no {column}.")

    targets = list(dict.fromkeys(table["target"]))
    if languages is None:
        languages = targets
        strangers = [donor for donor in dict.fromkeys(table["donor"]) if donor not in {"", *targets}]
        if strangers:
            raise InputError(
                f"Donor {strangers[0]!r} is never a target: train it alone too, or leave it out with languages=[...]."
            )
    languages = list(languages)
    if not languages:
        raise InputError("The performance table is empty: run the sweep first.")
    if len(set(languages)) < len(languages):
        raise InputError(f"A language is listed twice in {languages}: list each once.")
    table = table[table["target"].isin(languages) & table["donor"].isin(["", *languages])]

    table["performance"] = pd.to_numeric(table["performance"], errors="coerce").astype(float)
    wrong = ~np.isfinite(table["performance"])
    if wrong.any():
        raise InputError(f"The performance of {_name(*table[wrong].iloc[0])} is not a finite number: train it again.")
    twice = table.duplicated(["target", "donor", "seed"])
    if twice.any():
        raise InputError(f"The performance of {_name(*table[twice].iloc[0])} is in the table twice: keep one row.")

    cells = pd.MultiIndex.from_product([languages, ["", *languages]], names=["target", "donor"])
    wide = table.set_index(["target", "donor", "seed"])["performance"].unstack("seed").reindex(cells)
    seeds = list(wide.columns)
    absent = np.argwhere(wide.isna().to_numpy())
    if len(absent):
        cell, column = absent[0]
        target, donor = cells[cell]
        raise InputError(
            f"There is no performance of {_name(target, donor, seeds[column] if seeds else None)} "
            f"({len(absent) or 1} missing in all): every cell needs the same seeds, so finish the sweep first."
        )
    if not seeds:
        raise InputError(f"There is no performance of {_name(languages[0], '', None)}: run the sweep first.")
    return languages, seeds, wide.to_numpy().reshape(len(languages), 1 + len(languages), len(seeds))


def _name(target: str, donor: str, seed: object, _: object = None) -> str:
    """One cell in words: ``target 'de', donor 'nl', seed 3``."""
    return f"target {target!r}, donor {donor or 'none'!r}" + ("" if seed is None else f", seed {seed}")
