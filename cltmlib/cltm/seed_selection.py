"""What choosing seeds by their outcome does to a transfer matrix.

The released scripts of arXiv:2603.08231 drop seeds by their outcome (github.com/Pol-Buitrago/cltm-framework,
scripts/matrix/HuBERT/*/mean_seeds.py). Nothing in this study is filtered so; here is what it would change.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cltmlib.cltm.matrix import _is_positive, _performance_cube
from cltmlib.cltm.reliability import _off_diagonal
from cltmlib.errors import InputError

# The rule of the released scripts, from the speaker and gender scripts of the HuBERT encoder.
_MAX_ALONE_SHARE = 0.8  # 0.85 in the scripts of the other encoders
_MAX_OWN_DROPPED = 9
_REFERENCE_QUANTILE = 0.925


def select_seeds_by_outcome(performance: pd.DataFrame, languages: Sequence[str] | None = None) -> pd.DataFrame:
    """Drop runs by their result, as the released aggregation scripts do.

    Per target i: runs of Perf_i(D_i) above the mean of Perf_i(D_i + D'_i) are dropped from the best one on, at most
    80 % of them; then, while the mean of Perf_i(D_i + D'_i) is below the 92.5 % quantile of all runs of
    Perf_i(D_i + D_j), its worst run is dropped, at most 9 and never the last. Both steps raise the self-gain, so the
    result is for comparison and never for a claim.

    Choice: the rule of the scripts of HuBERT, the paper's encoder. Their comment says 50 %, their code 0.8; the
    gender script further excludes two languages by name, which is left to ``languages``. Whether the paper's numbers
    come from these scripts as released is not known.

    Args:
        performance: as for ``cross_lingual_transfer_matrix``.
        languages: as for ``cross_lingual_transfer_matrix``.

    Returns:
        The rows of ``performance`` that are kept, as they were. Cells then differ in their seeds, so
        ``cross_lingual_transfer_matrix`` refuses the table: see ``seed_selection_effect``.

    Raises:
        InputError: as ``cross_lingual_transfer_matrix``.

    Example:
        >>> rows = [("de", "", 0.5, 0.9), ("de", "de", 0.7, 0.6), ("de", "nl", 0.6, 0.6),
        ...         ("nl", "", 0.4, 0.4), ("nl", "nl", 0.8, 0.9), ("nl", "de", 0.3, 0.3)]
        >>> wide = pd.DataFrame(rows, columns=["target", "donor", 0, 1])
        >>> performance = wide.melt(["target", "donor"], var_name="seed", value_name="performance")
        >>> performance.drop(select_seeds_by_outcome(performance).index).to_numpy().tolist()
        [['de', '', 1, 0.9]]
    """
    languages, seeds, cube = _performance_cube(performance, languages)
    kept = _kept_runs(cube)
    donors = performance["donor"].astype(object).where(performance["donor"].notna(), "")
    target = pd.Index(languages).get_indexer(performance["target"])
    donor = pd.Index(["", *languages]).get_indexer(donors)
    seed = pd.Index(seeds).get_indexer(performance["seed"])
    return performance[kept[target, donor, seed] & (target >= 0) & (donor >= 0)]


def seed_selection_effect(performance: pd.DataFrame, languages: Sequence[str] | None = None) -> pd.DataFrame:
    """The matrix from all seeds beside the one from the seeds that ``select_seeds_by_outcome`` keeps.

    Args:
        performance: as for ``cross_lingual_transfer_matrix``; any number of seeds.
        languages: as for ``cross_lingual_transfer_matrix``.

    Returns:
        Columns "all seeds" and "selected seeds"; index self_gain_mean and positive_self_gain_share (over all
        languages), n_undefined (languages without a positive self-gain), prop_pos, rms and rfd_1 as in
        ``diagnostics`` and cell_median (off-diagonal), of the defined languages, n_dropped (runs).

    Raises:
        InputError: as ``cross_lingual_transfer_matrix``.

    Example:
        >>> rows = [("de", "", 0.5, 0.9), ("de", "de", 0.7, 0.6), ("de", "nl", 0.6, 0.6),
        ...         ("nl", "", 0.4, 0.4), ("nl", "nl", 0.8, 0.9), ("nl", "de", 0.3, 0.3)]
        >>> wide = pd.DataFrame(rows, columns=["target", "donor", 0, 1])
        >>> effect = seed_selection_effect(wide.melt(["target", "donor"], var_name="seed", value_name="performance"))
        >>> effect.loc[["self_gain_mean", "n_undefined", "n_dropped"]].round(3).to_numpy().tolist()
        [[0.2, 0.3], [1.0, 0.0], [0.0, 1.0]]
    """
    return _selection_effect(_performance_cube(performance, languages)[2])


def seed_selection_on_null_data(
    n_languages: int, n_seeds: int, noise: float = 0.02, n_tables: int = 200, seed: int = 0
) -> pd.DataFrame:
    """What ``seed_selection_effect`` finds where no training data help any language.

    Every run of every training is drawn independently from one normal distribution, so all true gains are 0.
    Even without selection prop_pos is 2/3 here, not 1/2: a row is kept where Perf_i(D_i) came out low, and the same
    Perf_i(D_i) is subtracted in all its cells.

    Choice: rms and rfd_1 are left out; over self-gains around 0 they have no mean to average.

    Args:
        n_languages: languages per table, at least 2.
        n_seeds: seeds per training, at least 2.
        noise: standard deviation of a run, in units of performance; self_gain_mean is proportional to it.
        n_tables: number of simulated tables, at least 2.
        seed: seed of the simulation.

    Returns:
        Index as ``seed_selection_effect`` without rms and rfd_1; columns "all seeds" and "selected seeds" (means over
        tables) and "all seeds SE" and "selected seeds SE" (their standard errors).

    Raises:
        InputError: a number is too small.

    Example:
        >>> null = seed_selection_on_null_data(n_languages=10, n_seeds=10, n_tables=20)
        >>> null.loc["positive_self_gain_share", ["all seeds", "selected seeds"]].round(2).tolist()
        [0.46, 1.0]
    """
    for name, value in {"n_languages": n_languages, "n_seeds": n_seeds, "n_tables": n_tables}.items():
        if value < 2:
            raise InputError(f"Null data need {name} >= 2, not {value}.")
    if not noise > 0:
        raise InputError(f"Null data need noise > 0, not {noise}.")
    generator = np.random.default_rng(seed)
    shape = (n_languages, 1 + n_languages, n_seeds)
    effects = [_selection_effect(generator.normal(0.5, noise, shape)) for _ in range(n_tables)]
    tables = pd.concat(effects, keys=range(n_tables)).drop(index=["rms", "rfd_1"], level=1)
    groups = tables.groupby(level=1, sort=False)
    return groups.mean().join(groups.sem().add_suffix(" SE"))


def _selection_effect(cube: np.ndarray) -> pd.DataFrame:
    """``seed_selection_effect`` of performances of shape (target, 1 + donor, seed)."""
    kept = _kept_runs(cube)
    selected_mean = (cube * kept).sum(axis=2) / kept.sum(axis=2)
    return pd.DataFrame(
        {
            "all seeds": _outline(cube.mean(axis=2), 0),
            "selected seeds": _outline(selected_mean, (~kept).sum()),
        }
    )


def _outline(mean: np.ndarray, n_dropped: int) -> dict[str, float]:
    """The numbers of one matrix that ``seed_selection_effect`` compares; mean performances (target, 1 + donor)."""
    cross = mean[:, 1:] - mean[:, :1]
    gain = cross.diagonal()
    defined = _is_positive(gain, mean[:, 0])
    cells = cross[np.ix_(defined, defined)] / gain[defined][:, None]
    off = _off_diagonal(cells)
    # As `diagnostics` has them; its checks and tables would take most of the time of a simulation.
    return {
        "self_gain_mean": gain.mean(),
        "positive_self_gain_share": defined.mean(),
        "n_undefined": (~defined).sum(),
        "prop_pos": (off > 0).mean() if off.size else np.nan,
        "rms": np.sqrt(np.mean(cells**2)) if off.size else np.nan,
        "rfd_1": np.sqrt(np.mean((cells - 1) ** 2)) if off.size else np.nan,
        "cell_median": np.median(off) if off.size else np.nan,
        "n_dropped": n_dropped,
    }


def _kept_runs(cube: np.ndarray) -> np.ndarray:
    """Runs that the authors' rule keeps, bool, shape (target, 1 + donor, seed) as ``cube``."""
    n, _, n_seeds = cube.shape
    diagonal = np.arange(n)
    alone, own = cube[:, 0], cube[diagonal, 1 + diagonal]  # (target, seed)
    kept = np.ones(cube.shape, dtype=bool)
    kept[:, 0] = alone <= own.mean(axis=1, keepdims=True)
    kept[:, 0] |= _ranks(-alone) >= int(_MAX_ALONE_SHARE * n_seeds)
    if n > 1:
        reference = np.quantile(_off_diagonal(cube[:, 1:]).reshape(n, -1), _REFERENCE_QUANTILE, axis=1)
        # Mean of the runs left when the k worst are dropped, (target, k); it grows with k.
        left = np.cumsum(np.sort(own)[:, ::-1], axis=1)[:, ::-1] / np.arange(n_seeds, 0, -1)
        n_dropped = (left[:, : min(_MAX_OWN_DROPPED, n_seeds - 1)] < reference[:, None]).sum(axis=1)
        kept[diagonal, 1 + diagonal] = _ranks(own) >= n_dropped[:, None]
    return kept


def _ranks(runs: np.ndarray) -> np.ndarray:
    """Rank of each run within its row, 0 = smallest; of equal runs the first seed comes first."""
    return np.argsort(np.argsort(runs, axis=1, kind="stable"), axis=1)
