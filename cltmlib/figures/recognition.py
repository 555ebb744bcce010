"""Figures of the speech recognition studies: word error rates of systems, what training did, what was forgotten."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from cltmlib.figures.layout import Foot, place_in_inches, place_labels, require_columns, text_in, write_title
from cltmlib.figures.style import PAGE_IN, StudyFigure, style

_LOW, _OTHER, _WEIGHT = "#D55E00", "#0072B2", "#404040"


def systems_wer(rates: pd.DataFrame, columns: Sequence[str], title: str | None = None) -> StudyFigure:
    """Draw the word error rate of each system in rows, one panel per column of the table.

    Args:
        rates: rows = (system, seed), as `cltmlib.weighted_ce.error_rates` gives them; the first system is drawn as a
            dashed line through all rows.
        columns: which columns of ``rates``, such as a language and an average over languages.
        title: short title above the panels.

    Returns:
        A figure with a dot per seed, the mean as a bar and its standard error as a whisker.

    Raises:
        InputError: a column is missing or the table is empty.

    Example:
        >>> index = pd.MultiIndex.from_tuples([("original", 0), ("tuned", 0)], names=["system", "seed"])
        >>> figure = systems_wer(pd.DataFrame({"gl": [1.2, 0.4]}, index=index), ["gl"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['original', 'tuned']
    """
    require_columns(rates, columns, "word error rates")
    systems = list(dict.fromkeys(rates.index.get_level_values("system")))
    groups = rates.groupby("system", sort=False)[list(columns)]
    mean, error = groups.mean(), groups.sem(ddof=1)
    n_seeds = rates.index.get_level_values("seed").nunique()
    note = f"Dot: one of {n_seeds} seeds; bar: mean, whisker: ±1 standard error over seeds; dashed: {systems[0]}."
    with style():
        foot = Foot(PAGE_IN, note)
        left_in, gap_in, row_in = 0.25 + text_in(systems, 7), 0.25, 0.2
        panel_in = (PAGE_IN - left_in - 0.15 - gap_in * (len(columns) - 1)) / len(columns)
        height_in, bottom_in = row_in * len(systems), foot.height_in + 0.42
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + height_in + (0.4 if title else 0.15)))
        place = place_in_inches(figure)
        at = np.arange(len(systems))
        for k, column in enumerate(columns):
            axes = figure.add_axes(place(left_in + k * (panel_in + gap_in), bottom_in, panel_in, height_in))
            axes.axvline(mean[column].iloc[0], color="0.4", linewidth=0.8, linestyle="--", zorder=1)
            for y, system in zip(at, systems, strict=True):
                values = rates[column].xs(system, level="system")
                axes.plot(
                    values, np.full(len(values), y), "o", color=_OTHER, alpha=0.5, markersize=3, markeredgewidth=0
                )
            axes.errorbar(
                mean[column], at, xerr=error[column].fillna(0), fmt="|", color="black", markersize=9, elinewidth=0.9
            )
            axes.set(xlabel=f"WER, {column} (lower is better)", ylim=(len(systems) - 0.5, -0.5))
            axes.set_yticks(at, systems if k == 0 else [])
            axes.grid(axis="x", linewidth=0.3, color="0.85")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        foot.draw(figure)
        write_title(figure, title)
    return figure


def training_weights(steps: pd.DataFrame, low: str) -> StudyFigure:
    """Draw losses and weights over the optimiser steps, one panel per system.

    Args:
        steps: columns system, seed, step, low_loss, other_loss, weight, one row per step of a training; a loss is NaN
            where the batch has no such utterance.
        low: the low-resource language.

    Returns:
        A figure with the losses of the low-resource utterances and of the others (moving mean over a twentieth of the
        steps, mean over seeds) and, on an axis of its own, the weight.

    Raises:
        InputError: a column is missing or the table is empty.
    """
    require_columns(steps, ["system", "seed", "step", "low_loss", "other_loss", "weight"], "training steps")
    systems = list(dict.fromkeys(steps["system"]))
    n_columns = min(3, len(systems))
    n_rows = -(-len(systems) // n_columns)
    window = max(1, int(steps["step"].max() + 1) // 20)
    note = f"Losses: mean token loss of the utterances of a batch, moving mean over {window} steps, mean over seeds."
    keys = [
        Line2D([], [], color=_LOW, label=f"loss, {low}"),
        Line2D([], [], color=_OTHER, label="loss, other languages"),
        Line2D([], [], color=_WEIGHT, linestyle=":", label=f"weight of {low} (right axis)"),
    ]
    with style():
        foot = Foot(PAGE_IN, note, keys)
        left_in, right_in, gap_x, gap_y, height_in = 0.45, 0.45, 0.62, 0.3, 1.05
        panel_in = (PAGE_IN - left_in - right_in - gap_x * (n_columns - 1)) / n_columns
        bottom_in = foot.height_in + 0.4
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + n_rows * (height_in + gap_y)))
        place = place_in_inches(figure)
        highest = steps[["low_loss", "other_loss"]].max().max()
        for k, system in enumerate(systems):
            row, column = divmod(k, n_columns)
            rectangle = left_in + column * (panel_in + gap_x), bottom_in + (n_rows - 1 - row) * (height_in + gap_y)
            axes = figure.add_axes(place(*rectangle, panel_in, height_in))
            mean = steps[steps["system"] == system].groupby("step")[["low_loss", "other_loss", "weight"]].mean()
            smooth = mean.rolling(window, min_periods=1).mean()
            axes.plot(smooth.index, smooth["low_loss"], color=_LOW)
            if smooth["other_loss"].notna().any():
                axes.plot(smooth.index, smooth["other_loss"], color=_OTHER)
            right = axes.twinx()
            right.plot(mean.index, mean["weight"], color=_WEIGHT, linestyle=":", drawstyle="steps-post")
            axes.set(ylim=(0, 1.05 * highest))
            right.set(ylim=(0, 1.1 * max(2.0, mean["weight"].max())))
            right.tick_params(labelsize=6)
            axes.set_title(system, fontsize=7, pad=2)
            axes.tick_params(labelleft=column == 0, labelbottom=k + n_columns >= len(systems))
            axes.spines["top"].set_visible(False)
            right.spines["top"].set_visible(False)
        middle = (bottom_in + n_rows * (height_in + gap_y) / 2) / figure.get_figheight()
        figure.text(0.5, (foot.height_in + 0.08) / figure.get_figheight(), "optimiser step", ha="center")
        figure.text(0.06 / PAGE_IN, middle, "mean token loss", rotation=90, va="center")
        figure.text(1 - 0.12 / PAGE_IN, middle, f"weight of {low}", rotation=90, va="center")
        foot.draw(figure)
    return figure


def forgetting_map(rates: pd.DataFrame, low: str, others: str) -> StudyFigure:
    """Draw what each system gains in the low-resource language against what it loses in the others.

    Args:
        rates: rows = (system, seed); the first system is where all start.
        low: column of the low-resource language.
        others: column of the average over the other languages.

    Returns:
        A figure with one named mark per system: means over seeds and ±1 standard error.

    Raises:
        InputError: a column is missing or the table is empty.
    """
    require_columns(rates, [low, others], "word error rates")
    groups = rates.groupby("system", sort=False)[[low, others]]
    mean, error = groups.mean(), groups.sem(ddof=1).fillna(0)
    start, tuned = mean.iloc[0], mean.iloc[1:]
    note = (
        f"Mark: mean over seeds, whiskers: ±1 standard error. Dashed: the other languages under {mean.index[0]!r}, "
        f"whose WER of {low} is {start[low]:.2f}; above the line something was forgotten."
    )
    with style():
        foot = Foot(PAGE_IN, note)
        bottom_in, height_in = foot.height_in + 0.42, 3.0
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + height_in + 0.12))
        axes = figure.add_axes(place_in_inches(figure)(0.55, bottom_in, PAGE_IN - 0.7, height_in))
        axes.errorbar(
            tuned[low], tuned[others], error[others].iloc[1:], error[low].iloc[1:], fmt="o", color=_OTHER,
            ecolor="0.6", elinewidth=0.7, markersize=4,
        )  # fmt: skip
        axes.axhline(start[others], color="0.4", linewidth=0.8, linestyle="--")
        axes.margins(0.15)
        axes.set(xlabel=f"WER, {low} (lower is better)", ylabel="WER, high-resource languages (lower is better)")
        axes.spines[["top", "right"]].set_visible(False)
        marks = tuned[[low, others]].to_numpy()
        half = np.column_stack([error[low].iloc[1:], np.zeros(len(marks))])
        whiskers = [marks + share * half for share in (-1, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1)]
        place_labels(axes, marks, list(tuned.index), np.concatenate([marks, *whiskers]), centred=False)
        foot.draw(figure)
    return figure
