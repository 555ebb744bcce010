"""Donor choice: which language's data to add for one target, and which languages to record for all of them.

The questions that arXiv:2603.08231 leaves to the reader of the matrix ("multilingual data selection", Section 5),
answered with the seeds' uncertainty from the same table of performances.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cltmlib.cltm.matrix import _is_positive, _performance_cube, bootstrap_standard_error
from cltmlib.errors import InputError

# Gains that are equal on paper differ by floating-point dust, which must decide no choice and no rank: differences
# below this share of the largest performance are ties.
_TIE = 1e-12


def rank_donors(
    performance: pd.DataFrame,
    target: str,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.9,
    languages: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Rank the donors of one target by transfer, with the uncertainty that the seeds leave.

    Seeds are resampled with replacement, the same ones for every training, as in ``bootstrap_standard_error``.

    Choice: donors are ranked by cross-gain, Eq. (1). It orders them as the CLTM row does, Eq. (2), and exists where
    the row does not: a target without a positive self-gain keeps its ranking, its transfer columns are NaN, and a
    warning says so.

    Choice: every resampled mean is moved away from the observed one by ``sqrt(n_seeds / (n_seeds - 1))``, since
    resampling few seeds spreads too little; the standard error of a cross-gain then is that of a paired mean. Donors
    within rounding share a win, and their rank interval covers the whole tie.

    The first row is the best of many noisy numbers, so its transfer is too high on average (winner's curse); look
    at ``probability_best`` and the rank interval before trusting it.

    Args:
        performance: as for ``cross_lingual_transfer_matrix``.
        target: the language to improve.
        n_resamples: number of bootstrap resamples, at least 2.
        seed: seed of the resampling.
        level: share of the resamples inside the rank interval, with equal tails.
        languages: target and donors to consider; default: all targets of the table.

    Returns:
        Index donor (without the target), best first; columns transfer (CLTM cell, 1 is as good as own data),
        transfer_standard_error, cross_gain and cross_gain_standard_error (units of the performance),
        probability_best (share of resamples, sums to 1), rank_low and rank_high (1 is best). With a single seed all
        but transfer and cross_gain are missing. ``attrs``: target, self_gain, n_seeds, n_resamples, level.

    Raises:
        InputError: as ``cross_lingual_transfer_matrix``; target unknown or alone; fewer than two resamples; level
            not between 0 and 1.

    Example:
        >>> rows = [("de", "", 0.50), ("de", "de", 0.75), ("de", "nl", 0.625), ("de", "tr", 0.4375),
        ...         ("nl", "", 0.5), ("nl", "nl", 0.8), ("nl", "de", 0.7), ("nl", "tr", 0.5),
        ...         ("tr", "", 0.5), ("tr", "tr", 0.9), ("tr", "de", 0.5), ("tr", "nl", 0.6)]
        >>> performance = pd.DataFrame(rows, columns=["target", "donor", "performance"]).assign(seed=0)
        >>> rank_donors(performance, "de")[["transfer", "cross_gain"]].to_dict("index")
        {'nl': {'transfer': 0.5, 'cross_gain': 0.125}, 'tr': {'transfer': -0.25, 'cross_gain': -0.0625}}
    """
    _check_resampling(n_resamples)
    if not 0 < level < 1:
        raise InputError(f"A rank interval cannot hold level={level} of the resamples: choose a level such as 0.9.")
    names, seeds, cube = _performance_cube(performance, languages)
    if target not in names:
        raise InputError(f"Target {target!r} is not in the performance table: choose one of {', '.join(names)}.")
    if len(names) < 2:
        raise InputError(f"Target {target!r} has no donor in the performance table: run the sweep on more languages.")
    i = names.index(target)
    donors = np.flatnonzero(np.arange(len(names)) != i)
    by_seed = _cross_gains(cube)[:, i]  # (seed, donor)
    gain, own = by_seed[:, donors].mean(axis=0), float(by_seed[:, i].mean())
    defined = bool(_is_positive(own, cube[i, 0].mean()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they list every language; the one below is about this target
        errors = bootstrap_standard_error(performance, n_resamples, seed, names).standard_error.loc[target]

    table = pd.DataFrame(
        {
            "transfer": gain / own if defined else np.nan,
            "transfer_standard_error": errors.to_numpy()[donors],
            "cross_gain": gain,
            **_rank_uncertainty(by_seed[:, donors], n_resamples, seed, level, _tie(cube)),
        },
        index=pd.Index([names[j] for j in donors], name="donor"),
    ).astype({"rank_low": "Int64", "rank_high": "Int64"})
    _warn_of_self_gain(target, own, defined, len(seeds) == 1 or table["transfer_standard_error"].notna().all())
    table = table.iloc[np.argsort(-_without_dust(gain, _tie(cube)), kind="stable")]
    table.attrs = {
        "target": target, "self_gain": own, "n_seeds": len(seeds), "n_resamples": n_resamples, "level": level,
    }  # fmt: skip
    return table


def choose_donors(
    performance: pd.DataFrame,
    n_donors: int | None = None,
    share: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    languages: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Choose the languages to record, one after the other, for the most gain over all targets.

    Choice: every target uses the one language of the recorded set S that helps it most, or none:
    ``value(S) = mean_i max(0, max_{j in S} cross_gain[i, j])``, Eq. (1), where a target's own language counts with
    its self-gain. Pairwise trainings do not say what several donors do together, so this is no forecast of a
    model trained on all of S. Gains are in units of the performance and every target weighs the same: no ratio is
    taken, so a target without a positive self-gain does no harm.

    The value is monotone and submodular, so each greedy set reaches at least ``1 - 1/e`` of the value of the best
    set of its size (Nemhauser, Wolsey and Fisher, 1978). It is also a maximum over noisy cells, so it is too high on
    average (winner's curse): ``cross_validated_gain`` leaves each seed out in turn, chooses the languages, and which
    target uses which, on the other seeds, and measures the gain on the one left out. It is the honest forecast, for
    a choice by one seed fewer; where it stops rising, further languages are chosen by noise. What all seeds share,
    such as one small test set, neither it nor the standard error can see.

    Args:
        performance: as for ``cross_lingual_transfer_matrix``.
        n_donors: how many languages to choose; default: the fewest that reach ``share``.
        share: share of the value of recording every language at which to stop; unused when ``n_donors`` is given.
        n_resamples: number of resamples of the seeds, as in ``rank_donors``, at least 2.
        seed: seed of the resampling.
        languages: targets and possible donors; default: all targets of the table.

    Returns:
        One row per language chosen; it ends early where no further language adds anything. Index step, from 1.
        Columns: donor; increase (of mean_gain by this donor); mean_gain (value of the set so far) and its
        standard_error over resamples of the seeds; cross_validated_gain; chosen_share and chosen_so_far_share (share of
        resamples that choose this donor at this very step, and at this step or before); share_of_own (mean_gain over
        the value if every target had its own data and nothing else; may exceed 1); share_of_all (over the value of
        all languages); serves (targets whose best language of the whole set this is; a target in no row gains from
        none). With a single seed the four columns about seeds are NaN. ``attrs``: n_seeds, n_resamples.

    Raises:
        InputError: as ``cross_lingual_transfer_matrix``; n_donors, share or n_resamples out of range.

    Example:
        >>> rows = [("de", "", 0.50), ("de", "de", 0.75), ("de", "nl", 0.625), ("de", "tr", 0.50),
        ...         ("nl", "", 0.50), ("nl", "nl", 0.75), ("nl", "de", 0.750), ("nl", "tr", 0.25),
        ...         ("tr", "", 0.50), ("tr", "tr", 0.75), ("tr", "de", 0.500), ("tr", "nl", 0.25)]
        >>> performance = pd.DataFrame(rows, columns=["target", "donor", "performance"]).assign(seed=0)
        >>> choose_donors(performance)[["donor", "share_of_own", "serves"]].round(3).to_numpy().tolist()
        [['de', 0.667, 'de, nl'], ['tr', 1.0, 'tr']]
    """
    _check_resampling(n_resamples)
    names, seeds, cube = _performance_cube(performance, languages)
    if n_donors is not None and not 1 <= n_donors <= len(names):
        raise InputError(f"n_donors={n_donors} cannot be chosen from {len(names)} languages: give 1 to {len(names)}.")
    if not 0 < share <= 1:
        raise InputError(f"share={share} of the gain of all languages cannot be asked for: give a share such as 0.95.")
    by_seed, tie = _cross_gains(cube), _tie(cube)  # (seed, target, donor)
    mean = by_seed.mean(axis=0)
    chosen = _greedy(mean[None], len(names), tie)[0]
    chosen = chosen[chosen >= 0]
    if not len(chosen):
        warnings.warn("No language raises the performance of any target: there is nothing to choose.", stacklevel=2)
    value = _values(mean, chosen)
    total = value.max(initial=0.0)
    chosen = chosen[: int((value < share * total - tie).sum()) + 1 if n_donors is None else n_donors]
    value = value[: len(chosen)]
    own = np.maximum(mean.diagonal(), 0).mean()
    served = _served(mean[None], chosen[None], tie)[0]
    table = pd.DataFrame(
        {
            "donor": [names[j] for j in chosen],
            "increase": np.diff(value, prepend=0.0),
            "mean_gain": value,
            **_choice_uncertainty(by_seed, chosen, n_resamples, seed, tie),
            "share_of_own": value / own if own > tie else np.nan,
            "share_of_all": value / total if total > 0 else np.nan,
            "serves": [", ".join(names[i] for i in np.flatnonzero(served == j)) for j in chosen],
        },
        index=pd.RangeIndex(1, len(chosen) + 1, name="step"),
    )
    table.attrs = {"n_seeds": len(seeds), "n_resamples": n_resamples}
    return table


def _cross_gains(cube: np.ndarray) -> np.ndarray:
    """Cross-gains of every seed, Eq. (1), shape (seed, target, donor); self-gains on the diagonal."""
    return np.moveaxis(cube[:, 1:] - cube[:, :1], 2, 0)


def _tie(cube: np.ndarray) -> float:
    """The difference below which two gains are equal, in units of the performance."""
    return _TIE * (np.abs(cube).max() or 1.0)


def _without_dust(gains: np.ndarray, tie: float) -> np.ndarray:
    """Gains in whole multiples of the tie: for comparing, where equal on paper must be equal."""
    return np.round(gains / tie)


def _resampled(by_seed: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Means of ``by_seed``, shape (seed, ...), over resampled seeds, spread as means of n_seeds draws are.

    The draws are those of ``bootstrap_standard_error``; the factor is the one it puts on its errors.
    """
    n_seeds = len(by_seed)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples) / n_seeds
    observed = by_seed.mean(axis=0)
    return observed + np.sqrt(n_seeds / (n_seeds - 1)) * np.tensordot(weights, by_seed - observed, 1)


def _rank_uncertainty(
    by_seed: np.ndarray, n_resamples: int, seed: int, level: float, tie: float
) -> dict[str, np.ndarray | float]:
    """The columns of ``rank_donors`` that need the cross-gains of several seeds, shape (seed, donor)."""
    if len(by_seed) < 2:
        return dict.fromkeys(["cross_gain_standard_error", "probability_best", "rank_low", "rank_high"], np.nan)
    resampled = _resampled(by_seed, n_resamples, seed)  # (resample, donor)
    losses = pd.DataFrame(-_without_dust(resampled, tie))
    first, last = (losses.rank(axis=1, method=method).to_numpy() for method in ("min", "max"))
    best = first == 1
    tail = (1 - level) / 2
    return {
        "cross_gain_standard_error": resampled.std(axis=0, ddof=1),
        "probability_best": (best / best.sum(axis=1, keepdims=True)).mean(axis=0),
        "rank_low": np.quantile(first, tail, axis=0, method="inverted_cdf"),
        "rank_high": np.quantile(last, 1 - tail, axis=0, method="inverted_cdf"),
    }


def _choice_uncertainty(
    by_seed: np.ndarray, chosen: np.ndarray, n_resamples: int, seed: int, tie: float
) -> dict[str, np.ndarray | float]:
    """The columns of ``choose_donors`` that need the cross-gains of several seeds, shape (seed, target, donor)."""
    if len(by_seed) < 2:
        return dict.fromkeys(["standard_error", "cross_validated_gain", "chosen_share", "chosen_so_far_share"], np.nan)
    resampled = _resampled(by_seed, n_resamples, seed)
    same = _greedy(resampled, len(chosen), tie)[:, :, None] == chosen  # (resample, its step, step of the table)
    return {
        "standard_error": _values(resampled, chosen).std(axis=0, ddof=1),
        "cross_validated_gain": _cross_validated(by_seed, len(chosen), tie),
        "chosen_share": same.mean(axis=0).diagonal(),
        "chosen_so_far_share": same.cumsum(axis=1).mean(axis=0).diagonal(),
    }


def _greedy(gains: np.ndarray, n_steps: int, tie: float) -> np.ndarray:
    """Greedy choices of many tables at once, shape (batch, step); -1 once no donor adds more than ``tie``.

    gains: shape (batch, target, donor). Of donors that add the same, the first in order is taken.
    """
    best = np.zeros(gains.shape[:2])  # (batch, target), what the set so far gives
    chosen = np.full((len(gains), n_steps), -1)
    for step in range(n_steps):
        added = np.maximum(gains - best[:, :, None], 0).mean(axis=1)  # (batch, donor)
        most = added.max(axis=1, keepdims=True)
        donor = (added >= most - tie).argmax(axis=1)
        chosen[:, step] = np.where(most[:, 0] > tie, donor, -1)
        # Where nothing is added any more, taking the donor's gains changes nothing beyond the tie.
        best = np.maximum(best, np.take_along_axis(gains, donor[:, None, None], axis=2)[:, :, 0])
    return chosen


def _values(gains: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Value of the first 1, 2, ... donors of ``chosen``, shape (..., step); gains: shape (..., target, donor)."""
    return np.maximum(np.maximum.accumulate(gains[..., chosen], axis=-1), 0).mean(axis=-2)


def _served(gains: np.ndarray, chosen: np.ndarray, tie: float) -> np.ndarray:
    """The donor that serves each target best, shape (batch, target); -1 where none of the chosen helps.

    gains: shape (batch, target, donor); chosen: shape (batch, step), -1 for no donor. Of equals the first chosen.
    """
    if not chosen.shape[1]:
        return np.full(gains.shape[:2], -1)
    offered = np.take_along_axis(gains, np.maximum(chosen, 0)[:, None, :], axis=2)  # (batch, target, step)
    offered = np.where(chosen[:, None, :] >= 0, offered, -np.inf)
    most = offered.max(axis=2)
    best = np.take_along_axis(chosen, (offered >= most[:, :, None] - tie).argmax(axis=2), axis=1)
    return np.where(most > tie, best, -1)


def _cross_validated(by_seed: np.ndarray, n_steps: int, tie: float) -> list[float]:
    """Gain on a seed left out of sets chosen and assigned on the other seeds, mean over seeds, for 1, 2, ... donors.

    by_seed: cross-gains, shape (seed, target, donor).
    """
    others = (by_seed.sum(axis=0) - by_seed) / (len(by_seed) - 1)
    chosen = _greedy(others, n_steps, tie)
    means = []
    for step in range(1, n_steps + 1):
        served = _served(others, chosen[:, :step], tie)
        gain = np.take_along_axis(by_seed, np.maximum(served, 0)[:, :, None], axis=2)[:, :, 0]
        means.append(float(np.where(served >= 0, gain, 0.0).mean()))
    return means


def _warn_of_self_gain(target: str, own: float, defined: bool, has_error: bool) -> None:
    if defined and has_error:
        return
    is_, has = ("not clearly positive", "has no standard error") if defined else ("not positive", "is undefined")
    warnings.warn(
        f"The self-gain of target {target!r} is {is_} ({own:.4g}), so its transfer {has}: read the cross-gains, "
        "which rank the donors all the same.",
        stacklevel=3,
    )


def _check_resampling(n_resamples: int) -> None:
    if n_resamples < 2:
        raise InputError(f"The seed bootstrap needs n_resamples >= 2, not {n_resamples}.")
