"""Sentences about results, made from the results."""

import numpy as np
import pandas as pd


def validation_sentence(violations: pd.DataFrame, instances: pd.DataFrame) -> str:
    """Whether any inequality was violated, and how much of the bound is used."""
    n_checks = int(violations["n"].sum())
    n_beyond, n_relative = (int(violations[name].sum()) for name in ("n_beyond", "n_beyond_relative"))
    worst = violations["max_violation"].fillna(np.inf).idxmax()
    ratios = instances["theorem_1_left"] / instances["theorem_1_right"]
    excess = violations["max_violation"].clip(lower=0).max(skipna=False)
    return (
        f"{len(instances)} random pairs, {n_checks} checks of {len(violations)} inequalities: {n_beyond} violations "
        f"beyond 1e-10 (the largest excess, of {worst}, is {excess:.0e}), {n_relative} beyond 1e-9 of the right side. "
        f"D_q is at most {ratios.max():.2f} and in the median {ratios.median():.3f} of the theorem's bound, which says "
        f"something (is below 2) in {(instances['theorem_1_right'] < 2).mean():.0%} of the pairs."
    )


def topline_sentence(against: pd.DataFrame, within: float = 2.0) -> str:
    """For each language model, whether unsupervised training comes within so many points of the topline."""
    parts = []
    for name, row in against.iterrows():
        verdict = "within" if row["excess"] <= within else "NOT within"
        parts.append(
            f"{name} (rank of P {row['rank']:g}): {row['excess']:+.2f} ± {row['standard_error']:.2f} points, "
            f"{verdict} {within:g} points in the mean, {row['largest']:+.2f} at most"
        )
    return "Symbol error of EM, best start by loss, less the supervised topline's. " + "; ".join(parts) + "."


def objectives_sentence(summary: pd.DataFrame) -> str:
    """How the adversarial objective compares."""
    em, gan = summary.loc["cross-entropy"], summary.loc["adversarial"]
    return (
        f"Best start by loss: cross-entropy {_pm(em, 'best_start')}, adversarial {_pm(gan, 'best_start')}, topline "
        f"{em['topline']:.3f}; mean over all starts: {_pm(em, 'all_starts')} and {_pm(gan, 'all_starts')}."
    )


def speech_sentence(rows: pd.DataFrame, facts: pd.DataFrame) -> str:
    """What unsupervised training reaches on speech, in phone error rate, and whether its loss is a criterion there.

    EM that starts at the supervised table lowers the loss on the speech it trains on whatever the data is; so losses
    are of held-out speech, and only the change in error beyond that of the redrawn speech speaks of Condition 1.
    """
    parts = []
    for task in ("segments", "units"):
        wide = rows[rows["task"] == task].pivot(index="seed", columns="method", values="phone_error_rate")
        held_out = rows[rows["task"] == task].pivot(index="seed", columns="method", values="held_out_loss")
        gap, room = wide["EM best"] - wide["supervised"], wide["chance"] - wide["supervised"]
        drift, loss = (table["EM from supervised"] - table["supervised"] for table in (wide, held_out))
        control, control_loss = (
            table["EM from supervised, redrawn"] - table["supervised, redrawn"] for table in (wide, held_out)
        )
        prefers = int(((loss < 0) & (drift > 0)).sum())
        dependence = f"{facts[f'dependence_{task}'].mean():.2f} nats"
        if task == "units":
            dependence += f" ({facts['dependence_units_floor'].mean():.2f} from the collapse of repetitions alone)"
        parts.append(
            f"{task}: unsupervised {_mean(wide['EM best'])}, topline {_mean(wide['supervised'])}, chance "
            f"{_mean(wide['chance'])}; {_way(gap.mean(), room.mean())}. "
            f"EM that starts at the supervised table changes the error by {_change(drift)} and the loss on held-out "
            f"speech by {_change(loss, 1)} nats per clip; on speech redrawn from that table, which keeps Condition 1, "
            f"by {_change(control)} and {_change(control_loss, 1)}. Beyond that control: {_change(drift - control)} in "
            f"error. The held-out loss prefers the table with more errors in {prefers} of {len(wide)} seeds. "
            f"Dependence of neighbouring symbols given their labels (0 under Condition 1): {dependence}"
        )
    full = int((facts["rank"] == facts["n_labels"]).sum())
    return (
        "Phone error rate on "
        + ".\nOn ".join(parts)
        + f".\nThe phone bigram's matrix P has full column rank, in floating point, in {full} of {len(facts)} seeds "
        f"(Condition 2; its smallest singular value is at most {facts['sigma_min'].max():.0e})."
    )


def _way(gap: float, room: float) -> str:
    """How far from chance to the topline, where there is such a way."""
    if not room > 0:
        return "the topline itself is no better than chance"
    if gap >= room:
        return "unsupervised training is no better than chance"
    return f"{1 - gap / room:.0%} of the way from chance to the topline"


def _pm(row: pd.Series, name: str) -> str:
    return f"{row[name]:.3f} ± {row[f'{name}_standard_error']:.3f}"


def _mean(values: pd.Series) -> str:
    return f"{values.mean():.3f} ± {values.sem():.3f}"


def _change(values: pd.Series, digits: int = 3) -> str:
    return f"{values.mean():+.{digits}f} ± {values.sem():.{digits}f}"
