"""The tables and sentences that the notebooks show of a matrix, ours beside the paper's."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from cltmlib.cltm.diagnostics import diagnostics
from cltmlib.cltm.geometry import DistanceTransferCorrelation
from cltmlib.cltm.matrix import BootstrapStandardError, TransferMatrix
from cltmlib.cltm.published import PUBLISHED_STABILITY, families, load_published

DIAGNOSTIC_NAMES = {
    "rms": "RMS",
    "rfd_1": "RFD_1, Eq. (3): 0 is language-agnostic",
    "asym_rel": "Asym_rel, Eq. (4): 0 is symmetric",
    "prop_pos": "prop+: share of positive cells",
    "reciprocity_pos": "reciprocity+: share of pairs positive both ways",
    "cos_rows": "cos_rows, Eq. (5): 1 is equal donor profiles",
    "intra_family_pos": "intra-family+: share of positive mass inside families",
}
_TASKS = {"gender": "gr_mhubert", "speaker": "sv_mhubert", "recognition": "asr_mhubert"}
_STABILITY_NAMES = {
    "se_median": "median standard error of a cell",
    "se_mean": "mean standard error of a cell",
    "bootstrap_se_median": "median bootstrap standard error of a cell",
    "rms": "RMS of the cells",
    "self_gain_mean": "mean self-gain over languages",
    "self_gain_mean_se": "standard error of that mean over seeds",
    "self_gain_std": "standard deviation of the self-gain over languages",
    "n_languages": "languages",
    "n_undefined": "languages without a positive self-gain",
    "n_seeds": "seeds",
}


def beside_the_paper(ours: pd.Series, published: str) -> pd.DataFrame:
    """The seven diagnostics of our matrix beside those recomputed from a published one.

    Args:
        ours: from `diagnostics`.
        published: name of the published matrix, as in `load_published`.

    Returns:
        Index: what the number is; columns ``ours`` and ``published cells``.
    """
    theirs = diagnostics(load_published(published), families())
    table = pd.DataFrame({"ours": ours, "published cells": theirs}).loc[list(DIAGNOSTIC_NAMES)]
    return table.rename(index=DIAGNOSTIC_NAMES)


def tasks_table(ours: Mapping[str, pd.Series | str | PathLike]) -> pd.DataFrame:
    """Diagnostics of the three tasks' matrices, ours and the published ones.

    Args:
        ours: task (gender, speaker, recognition) -> result of `diagnostics`, or the ``diagnostics.csv`` that a notebook
            wrote, from `beside_the_paper`; a task whose file is not there has NaN.

    Returns:
        Index (task, source), source "ours" or "published"; columns as `diagnostics`.
    """
    rows = {}
    for task, published in _TASKS.items():
        found = ours.get(task, "")
        if not isinstance(found, pd.Series):
            table = pd.read_csv(found, index_col=0)["ours"] if Path(found).is_file() else pd.Series(dtype=float)
            found = table.rename({label: name for name, label in DIAGNOSTIC_NAMES.items()})
        rows[task, "ours"] = found.reindex(list(DIAGNOSTIC_NAMES))
        rows[task, "published"] = diagnostics(load_published(published), families())
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["task", "source"])


def stability_table(matrix: TransferMatrix, bootstrap: BootstrapStandardError, published: str) -> pd.DataFrame:
    """Section 4.4 for our matrix, beside the paper's numbers where it prints them."""
    ours = matrix.summary()
    cells = bootstrap.standard_error.to_numpy()
    off_diagonal = cells[~np.eye(len(cells), dtype=bool)]
    defined = off_diagonal[~np.isnan(off_diagonal)]
    ours["bootstrap_se_median"] = float(np.median(defined)) if defined.size else np.nan
    table = pd.DataFrame({"ours": ours, "paper": PUBLISHED_STABILITY[published]}).loc[list(_STABILITY_NAMES)]
    return table.rename(index=_STABILITY_NAMES)


def self_gain_sentence(matrix: TransferMatrix) -> str:
    """Whether the matrix stands on measurable self-gains, in one sentence.

    The ratio is the mean self-gain over its standard error over seeds; it needs at least two seeds.
    """
    summary, gain = matrix.summary(), matrix.self_gain
    undefined = [language for language in gain.index if matrix.values.loc[language].isna().any()]
    text = f"Self-gain is positive in {len(gain) - len(undefined)} of {len(gain)} languages"
    if undefined:
        text += f" (not in {', '.join(undefined)}, which have no row)"
    text += f"; its mean is {summary['self_gain_mean']:.3f}"
    error = summary["self_gain_mean_se"]
    if np.isfinite(error) and error > 0:
        text += (
            f", {summary['self_gain_mean'] / error:.1f} standard errors over {int(summary['n_seeds'])} seeds from zero"
        )
    return text + "."


def correlation_sentence(correlation: DistanceTransferCorrelation) -> str:
    """What the correlation of distance with transfer says, in one sentence."""
    if np.isnan(correlation.spearman):
        return "Distance and transfer: too few languages, or no differences, to correlate."
    p = f"p = {correlation.spearman_p:.3f}" if correlation.spearman_p >= 0.001 else "p < 0.001"
    how = "exact" if correlation.exact else f"{correlation.n_permutations} random"
    verdict = "distant languages transfer less" if correlation.spearman < 0 else "distant languages transfer more"
    if correlation.spearman_p > 0.05:
        verdict = "no relation beyond chance"
    text = (
        f"Spearman {correlation.spearman:.2f} over {correlation.n_pairs} pairs, {p} "
        f"({how} permutations of languages): {verdict}"
    )
    if correlation.n_left_out:
        one = correlation.n_left_out == 1
        text += (
            f"; {correlation.n_left_out} language{'' if one else 's'} without a row {'is' if one else 'are'} left out"
        )
    return text + "."


def change_sentence(change: pd.DataFrame) -> str:
    """Whether negative transfer shrinks, in one sentence: ``relative_harm`` against twice its standard error."""
    before, after, difference, error = change.loc["relative_harm", ["before", "after", "change", "standard_error"]]
    if not np.isfinite(error):
        return "With so few seeds, or without a self-gain, nothing can be said about negative transfer."
    size = (
        f"the harm of transfer, as a share of the mean self-gain, goes from {before:.3f} to {after:.3f} "
        f"({difference:+.3f} \N{PLUS-MINUS SIGN} {error:.3f})"
    )
    if abs(difference) <= 2 * error:
        return f"No change of negative transfer beyond two standard errors: {size}."
    return f"Negative transfer {'shrinks' if difference < 0 else 'grows'}: {size}."


def mismatch_sentence(cost: pd.DataFrame, mismatch: pd.DataFrame, model: str) -> str:
    """What hangs on the language and what on the speaker, in one sentence.

    Args:
        cost: from `language_cost`.
        mismatch: from `mismatch_table`.
        model: a row of ``cost``.
    """
    loss, error = cost.loc[model, ["auc_loss", "auc_loss_standard_error"]]
    spread = mismatch.loc[model, "auc_speaker_sd"].mean()
    size, verdict = f"{loss:.3f}", ""
    if np.isfinite(error):  # with one seed there is none
        size += f" \N{PLUS-MINUS SIGN} {error:.3f}"
        verdict = " (beyond two standard errors)" if abs(loss) > 2 * error else " (within two standard errors of zero)"
    return (
        f"Model of {model}: trials across languages lose {size} of AUC against those within a language{verdict}; "
        f"between speakers the AUC differs by {spread:.3f} (standard deviation)."
    )
