"""Figures of the POTSA study: encoder space, how alike languages are to the model, transport plans, layer choices."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from cltmlib.errors import InputError
from cltmlib.figures.layout import Foot, place_in_inches, require_columns
from cltmlib.figures.style import PAGE_IN, StudyFigure, style

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#404040")
_MARKERS = "os^DvPX<>*"


def encoder_maps(points: pd.DataFrame, settings: str) -> StudyFigure:
    """Draw a projection of the encoder space by language, one panel per stage.

    Args:
        points: columns stage, language, x, y, as from `cltmlib.potsa.map_of`.
        settings: method, perplexity, seed and n of the projection.

    Raises:
        InputError: a column is missing, or the table is empty.

    Example:
        >>> points = pd.DataFrame({"stage": ["before", "after"], "language": "en", "x": 0.0, "y": 0.0})
        >>> [axes.get_title() for axes in encoder_maps(points, "t-SNE, perplexity 1, seed 0, n = 1").axes]
        ['before', 'after']
    """
    require_columns(points, ["stage", "language", "x", "y"], "projected points")
    stages, languages = (list(dict.fromkeys(points[column])) for column in ("stage", "language"))
    keys = [Line2D([], [], label=name, linestyle="none", **_look(k)) for k, name in enumerate(languages)]
    note = f"{settings}; each panel a projection of its own, whose axes have no unit. A mark is one clip's mean frame."
    with style():
        foot = Foot(PAGE_IN, note, keys)
        gap_in, bottom_in = 0.2, foot.height_in + 0.08
        panel_in = (PAGE_IN - 0.2 - gap_in * (len(stages) - 1)) / len(stages)
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + panel_in + 0.25))
        place = place_in_inches(figure)
        for k, stage in enumerate(stages):
            axes = figure.add_axes(place(0.1 + k * (panel_in + gap_in), bottom_in, panel_in, panel_in))
            for number, language in enumerate(languages):
                chosen = points[(points["stage"] == stage) & (points["language"] == language)]
                axes.plot(chosen["x"], chosen["y"], linestyle="none", alpha=0.7, gid=language, **_look(number))
            axes.set(xticks=[], yticks=[], title=stage)
        foot.draw(figure)
    return figure


def _look(number: int) -> dict:
    marker = _MARKERS[number % len(_MARKERS)]
    return {"color": _COLOURS[number % len(_COLOURS)], "marker": marker, "markersize": 3, "markeredgewidth": 0}


def recall_against_overlap(alignment: pd.DataFrame, systems: Sequence[str]) -> StudyFigure:
    """Draw Recall@1 against 1 - JSD of every two languages, joined from the first system to the second.

    Args:
        alignment: columns system, language_a, language_b, recall, overlap; rows of one block. Seeds are averaged.
        systems: two of them.

    Raises:
        InputError: a column is missing, the table is empty, or it lacks a system.
    """
    require_columns(alignment, ["system", "language_a", "language_b", "recall", "overlap"], "alignments")
    pairs = alignment.groupby(["system", "language_a", "language_b"], sort=False)[["overlap", "recall"]].mean()
    if missing := set(systems) - set(pairs.index.get_level_values("system")):
        raise InputError(f"The table of alignments has no system {missing.pop()!r}.")
    first, second = (pairs.xs(name, level="system") for name in systems)
    note = f"Mark: mean over seeds of two languages ({len(first)} pairs); line: the same two languages."
    keys = [
        Line2D([], [], label=systems[0], color="0.3", marker="o", markerfacecolor="none", linestyle="none"),
        Line2D([], [], label=systems[1], color=_COLOURS[0], marker="o", linestyle="none"),
    ]
    with style():
        foot = Foot(PAGE_IN, note, keys)
        bottom_in, height_in = foot.height_in + 0.42, 2.8
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + height_in + 0.15))
        axes = figure.add_axes(place_in_inches(figure)(0.55, bottom_in, PAGE_IN - 0.75, height_in))
        for pair in first.index:
            axes.plot(*np.array([first.loc[pair], second.loc[pair]]).T, color="0.75", linewidth=0.6, zorder=1)
        axes.plot(*first.to_numpy().T, "o", color="0.3", markerfacecolor="none", gid=systems[0])
        axes.plot(*second.to_numpy().T, "o", color=_COLOURS[0], gid=systems[1])
        for (one, other), (x, y) in second.iterrows():
            axes.annotate(f"{one}-{other}", (x, y), (3, 3), textcoords="offset points", fontsize=6, color="0.3")
        axes.margins(0.08)
        axes.set(xlabel="1 - JSD (higher: more alike)", ylabel="Recall@1 (higher is better)")
        axes.spines[["top", "right"]].set_visible(False)
        foot.draw(figure)
    return figure


def transport_plans(plans: Mapping[str, np.ndarray], languages: Sequence[str], sentence: str) -> StudyFigure:
    """Draw transport plans between the query tokens of two utterances, one panel per system.

    Args:
        plans: system -> plan, (query, query), rows summing to 1.
        languages: of the rows and of the columns.
        sentence: what was said, for the note.

    Example:
        >>> len(transport_plans({"baseline": np.eye(2), "POTSA": np.eye(2)}, ["en", "ja"], "two days").axes)
        3
    """
    if not plans:
        raise InputError("There is no transport plan to draw: give at least one system's.")
    n = len(plans)
    note = f"{sentence!r} in {languages[0]} and {languages[1]}; rows sum to 1; the same scale in all panels."
    highest = max(float(np.max(plan)) for plan in plans.values())
    with style():
        foot = Foot(PAGE_IN, note)
        left_in, gap_in, right_in, bottom_in = 0.5, 0.3, 0.75, foot.height_in + 0.42
        panel_in = min(2.4, (PAGE_IN - left_in - right_in - gap_in * (n - 1)) / n)
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + panel_in + 0.25))
        place = place_in_inches(figure)
        for k, (name, plan) in enumerate(plans.items()):
            axes = figure.add_axes(place(left_in + k * (panel_in + gap_in), bottom_in, panel_in, panel_in))
            image = axes.imshow(plan, cmap="Blues", vmin=0, vmax=highest, interpolation="nearest")
            axes.set(title=name, xlabel=f"query ({languages[1]})", xticks=[0, len(plan) - 1], yticks=[0, len(plan) - 1])
            if k == 0:
                axes.set_ylabel(f"query ({languages[0]})")
        at = left_in + n * (panel_in + gap_in) - gap_in + 0.12
        figure.colorbar(image, cax=figure.add_axes(place(at, bottom_in, 0.1, panel_in)), label="share of a row")
        foot.draw(figure)
    return figure


def layer_choices(choices: pd.DataFrame, n_windows: int = 10) -> StudyFigure:
    """Draw how often each block was aligned over the steps, one panel per system.

    Args:
        choices: columns system, seed, step, block, one row per aligned block of a step.
        n_windows: spans of equal length over which shares are taken.

    Raises:
        InputError: a column is missing or the table is empty.
    """
    require_columns(choices, ["system", "seed", "step", "block"], "layer choices")
    systems, blocks = list(dict.fromkeys(choices["system"])), sorted(set(choices["block"]))
    n_steps = int(choices["step"].max()) + 1
    width = max(1, -(-n_steps // n_windows))
    keys = [Line2D([], [], label=f"block {block}", **_look(k)) for k, block in enumerate(blocks)]
    note = f"Share of the aligned blocks in {width} steps, mean over {choices['seed'].nunique()} seeds."
    with style():
        foot = Foot(PAGE_IN, note, keys)
        left_in, gap_in, bottom_in, height_in = 0.5, 0.15, foot.height_in + 0.42, 1.5
        panel_in = (PAGE_IN - left_in - 0.1 - gap_in * (len(systems) - 1)) / len(systems)
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + height_in + 0.25))
        place = place_in_inches(figure)
        for k, system in enumerate(systems):
            axes = figure.add_axes(place(left_in + k * (panel_in + gap_in), bottom_in, panel_in, height_in))
            of_system = choices[choices["system"] == system]
            counts = of_system.groupby([of_system["step"] // width, "block"]).size().unstack(fill_value=0)
            shares = counts.div(counts.sum(axis=1), axis=0).reindex(columns=blocks)
            for number, block in enumerate(blocks):
                axes.plot((shares.index + 0.5) * width, shares[block], gid=f"block {block}", **_look(number))
            axes.set(ylim=(-0.03, 1.03), xlabel="step of stage 2")
            axes.set_title(system, fontsize=7, pad=2)
            axes.tick_params(labelleft=k == 0)
            if k == 0:
                axes.set_ylabel("share")
            axes.spines[["top", "right"]].set_visible(False)
        foot.draw(figure)
    return figure
