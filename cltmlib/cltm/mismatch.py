"""What a change of language costs a speaker verifier: the same people's trials within a language and across.

Where people speak several languages, a trial across languages differs from one within a language by the language alone;
what differs between speakers is seen beside it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cltmlib.cltm.matrix import _performance_cube
from cltmlib.errors import InputError
from cltmlib.subsets import draw_trials

_METRICS = ["auc", "eer", "target_score", "non_target_score"]


def score_trials(embeddings: np.ndarray, rows: Sequence[Mapping]) -> pd.DataFrame:
    """Score the trials within each language and across languages of people who speak several.

    Args:
        embeddings: (clip, dim).
        rows: speaker, gender and language of each clip.

    Returns:
        One row per trial: condition (``"within es"``, ..., ``"across languages"``), same_speaker, score, and the two
        speakers (``speaker``, ``other``).

    Raises:
        InputError: there are fewer than two languages, or no trials can be drawn, see `cltmlib.subsets.draw_trials`.
    """
    from cltmlib.tasks.speaker import cosine_scores  # here, for it loads torch, and matrices are computed without

    languages = sorted({row["language"] for row in rows})
    if len(languages) < 2:
        what = f"all clips are in {languages[0]!r}" if languages else "there are no clips"
        raise InputError(f"Trials across languages need two languages, but {what}.")
    parts = []
    for language in languages:
        own = [k for k, row in enumerate(rows) if row["language"] == language]
        trials = draw_trials([rows[k] for k in own], language)
        trials[["enrol", "test"]] = np.array(own)[trials[["enrol", "test"]]]
        parts.append(trials.assign(condition=f"within {language}"))
    across = draw_trials(rows, " and ".join(languages), across=True)
    trials = pd.concat([*parts, across.assign(condition="across languages")], ignore_index=True)
    speaker = np.array([row["speaker"] for row in rows])
    return trials.assign(
        score=cosine_scores(np.asarray(embeddings, dtype=float), trials),
        speaker=speaker[trials["enrol"]],
        other=speaker[trials["test"]],
    )[["condition", "same_speaker", "score", "speaker", "other"]]


def mismatch_table(trials: pd.DataFrame) -> pd.DataFrame:
    """How well trials are told apart in each condition, and how far scores shift.

    Args:
        trials: from `score_trials`, with columns ``model`` and ``seed`` added.

    Returns:
        Index model, condition. Columns: auc and eer, mean cosine of targets and of non-targets, all averaged over
        seeds; ``auc_standard_error`` over seeds; ``auc_speaker_sd``, the standard deviation over speakers of the AUC of
        a speaker's own targets against the non-targets it is in, averaged over seeds.
    """
    from sklearn.metrics import roc_auc_score

    from cltmlib.tasks.speaker import equal_error_rate

    columns = ["model", "condition", "seed", *_METRICS, "auc_speaker_sd"]
    rows = []
    for (model, condition, seed), part in trials.groupby(["model", "condition", "seed"], sort=False):
        target = part["same_speaker"]
        by_speaker = []
        for name in np.unique(part.loc[target, "speaker"]):
            own = part[(part["speaker"] == name) | (part["other"] == name)]
            if own["same_speaker"].nunique() == 2:
                by_speaker.append(roc_auc_score(own["same_speaker"], own["score"]))
        rows.append(
            {
                "model": model,
                "condition": condition,
                "seed": seed,
                **_separation(part),
                "eer": equal_error_rate(target, part["score"]),
                "auc_speaker_sd": np.std(by_speaker, ddof=1) if len(by_speaker) > 1 else np.nan,
            }
        )
    groups = pd.DataFrame(rows, columns=columns).groupby(["model", "condition"], sort=False)
    table = groups[[*_METRICS, "auc_speaker_sd"]].mean()
    table.insert(1, "auc_standard_error", groups["auc"].sem(ddof=1))
    return table


def language_cost(trials: pd.DataFrame) -> pd.DataFrame:
    """The loss from within a language to across, per model: paired over seeds, the within languages averaged.

    Args:
        trials: as for `mismatch_table`.

    Returns:
        Index model; columns auc_loss, target_shift and non_target_shift (within minus across), each followed by its
        standard error over seeds, and n_seeds.
    """
    names = {"auc": "auc_loss", "target_score": "target_shift", "non_target_score": "non_target_shift"}
    if trials.empty:
        columns = [column for loss in names.values() for column in (loss, f"{loss}_standard_error")]
        return pd.DataFrame(columns=[*columns, "n_seeds"], index=pd.Index([], name="model"))
    keys = ["model", "seed", "condition"]
    groups = trials.groupby(keys, sort=False)[["same_speaker", "score"]]
    by_condition = groups.apply(lambda part: pd.Series(_separation(part))).rename(columns=names)
    is_across = by_condition.index.get_level_values("condition") == "across languages"
    within = by_condition[~is_across].groupby(["model", "seed"], sort=False).mean()
    loss = (within - by_condition[is_across].droplevel("condition")).groupby("model", sort=False)
    table = loss.mean()
    for name, error in loss.sem(ddof=1).items():
        table.insert(table.columns.get_loc(name) + 1, f"{name}_standard_error", error)
    return table.assign(n_seeds=loss.size())


def _separation(part: pd.DataFrame) -> dict[str, float]:
    """AUC and mean scores of the trials of one model, condition and seed."""
    from sklearn.metrics import roc_auc_score

    target = part["same_speaker"]
    return {
        "auc": roc_auc_score(target, part["score"]),
        "target_score": part.loc[target, "score"].mean(),
        "non_target_score": part.loc[~target, "score"].mean(),
    }


def transfer_change(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Whether a change of the method, here subtracting each language's mean embedding, takes harm out of transfer.

    Gains are in units of the performance, so that no ratio is undefined. ``harm`` asks how much is lost in the cells
    that hurt: cells with a negative mean cross-gain over all seeds but one are judged on that one, so that cells that
    are negative by chance count for nothing in the mean, however noisy they are. ``relative_harm`` divides by the mean
    self-gain: a method that makes all gains smaller alike has not taken harm out of transfer.

    Args:
        before, after: performance tables of the same cells and seeds, see `cross_lingual_transfer_matrix`.

    Returns:
        Index: performance_alone, self_gain, cross_gain (means over languages), negative_share (of the mean
        cross-gains), harm, relative_harm. Columns before, after, change, and standard_error of the change, by the
        jackknife over seeds (NaN with fewer than three).

    Raises:
        InputError: the tables do not hold the same languages and seeds, or fewer than two seeds.
    """
    languages, seeds, cube = _performance_cube(before, None)
    if more := set(_performance_cube(after, None)[0]) - set(languages):
        raise InputError(f"Language {min(more)!r} is in the second performance table only: run both alike.")
    other = _performance_cube(after, languages)
    if other[1] != seeds:
        raise InputError(f"The two performance tables have different seeds, {seeds} and {other[1]}: run both alike.")
    if len(seeds) < 2:
        raise InputError("The harm of transfer is judged on seeds left out: run at least two seeds.")
    cubes = [cube, other[2]]  # (target, 1 + donor, seed)
    table = pd.DataFrame({name: _transfer(of) for name, of in zip(("before", "after"), cubes, strict=True)})
    table["change"] = table["after"] - table["before"]
    table["standard_error"] = np.nan
    n = len(seeds)
    if n > 2:
        left_out = [[_transfer(np.delete(of, k, axis=-1)) for of in cubes] for k in range(n)]
        changes = pd.DataFrame([after - before for before, after in left_out])
        table["standard_error"] = np.sqrt((n - 1) * changes.var(ddof=0))
    return table


def _transfer(cube: np.ndarray) -> pd.Series:
    """The numbers of one table, (target, 1 + donor, seed)."""
    n_seeds = cube.shape[-1]
    gains = cube[:, 1:] - cube[:, :1]
    own = np.eye(len(cube), dtype=bool)
    cross = gains[~own]  # (cell, seed)
    others = (cross.sum(axis=1, keepdims=True) - cross) / (n_seeds - 1)
    harm = -np.where(others < 0, cross, 0.0).mean()
    self_gain = gains[own].mean()
    return pd.Series(
        {
            "performance_alone": cube[:, 0].mean(),
            "self_gain": self_gain,
            "cross_gain": cross.mean(),
            "negative_share": (cross.mean(axis=1) < 0).mean(),
            "harm": harm,
            "relative_harm": harm / self_gain if self_gain > 0 else np.nan,
        }
    )
