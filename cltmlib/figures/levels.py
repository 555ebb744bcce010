"""Gains at several amounts of data, and the tasks of the study side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cltmlib.figures.interval import n_samples_axis
from cltmlib.figures.layout import Foot, place_in_inches, require_columns, text_in, write_title
from cltmlib.figures.style import PAGE_IN, StudyFigure, style

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#404040", "#882255")
_LINES, _MARKERS = ("-", "--", ":", "-."), "os^D"  # for pairs beyond the colours
_SOURCES = {"ours": {"marker": "o", "color": "#0072B2"}, "published": {"marker": "D", "color": "#D55E00"}}


def resource_gains(
    gains: pd.DataFrame, low: Sequence[str], high: Sequence[str], performance_name: str, title: str | None = None
) -> StudyFigure:
    """Draw what low-resource languages gain from ever more of a donor's clips, and high-resource ones from theirs.

    Left: a low-resource target has N clips and its high-resource donor more and more. Right: a high-resource target
    itself has more and more, its low-resource donor N.

    Args:
        gains: from `cltmlib.resource_levels.gain_table`.
        low, high: languages of either kind.
        performance_name: the metric, as in "1 - WER"; it stands on the axis.
        title: short title above the panels.

    Returns:
        A figure with one line per pair, mean over seeds and +-1 standard error; a line's gid is "target from donor".

    Raises:
        InputError: a column is missing, or there is no gain between a low- and a high-resource language.
    """
    panels = _panels(gains, low, high)
    helped = panels["low-resource targets"][0]
    pairs = sorted({(i, j) for i, j in zip(helped["target"], helped["donor"], strict=True)})
    looks = {pair: _look(k) for k, pair in enumerate(pairs)}
    keys = [Line2D([], [], label=f"{i} and {j}", markersize=3, **look) for (i, j), look in looks.items()]
    n_seeds = gains["seed"].nunique()
    note = f"Line: a low- and a high-resource language; mean of {n_seeds} seeds, bar: ±1 standard error over seeds; "
    note += "above 0 the donor's clips help. Each point of one panel is the same training as that of the other."
    with style():
        foot = Foot(PAGE_IN, note, keys)
        gap_in, left_in, height_in, bottom_in = 0.3, 0.78, 1.9, foot.height_in + 0.46
        panel_in = (PAGE_IN - left_in - gap_in - 0.15) / 2
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + height_in + (0.55 if title else 0.3)))
        place, shared = place_in_inches(figure), None
        for k, (name, (table, size, label)) in enumerate(panels.items()):
            rectangle = place(left_in + k * (panel_in + gap_in), bottom_in, panel_in, height_in)
            shared = axes = figure.add_axes(rectangle, sharey=shared)
            n_samples_axis(axes, sorted(table[size].unique()), {})
            _draw_gains(axes, table, size, looks)
            axes.set(xlabel=label)
            axes.set_title(name, fontsize=7, pad=3)
            axes.tick_params(labelleft=k == 0)
            axes.spines[["top", "right"]].set_visible(False)
        figure.axes[0].set(ylabel=f"gain in {performance_name}")
        foot.draw(figure)
        write_title(figure, title)
    return figure


def _panels(gains: pd.DataFrame, low: Sequence[str], high: Sequence[str]) -> dict[str, tuple[pd.DataFrame, str, str]]:
    """Title of a panel -> its gains, the column along its axis, the label of that."""
    require_columns(gains, ["target", "donor", "own", "given", "seed", "gain"], "gains")
    n = gains["own"].min()
    rich = gains[gains["target"].isin(low) & gains["donor"].isin(high) & (gains["own"] == n)]
    poor = gains[gains["target"].isin(high) & gains["donor"].isin(low) & (gains["given"] == n)]
    require_columns(rich, ["gain"], "gains between low- and high-resource languages")
    return {
        "low-resource targets": (rich, "given", f"clips of the high-resource donor (target: {n})"),
        "high-resource targets": (poor, "own", f"own clips of the high-resource target (donor: {n})"),
    }


def _look(k: int) -> dict[str, str]:
    """Colour, line and marker of the k-th pair; no two of the first 128 look the same."""
    n, m = len(_COLOURS), len(_LINES)
    marker = _MARKERS[k // (n * m) % len(_MARKERS)]
    return {"color": _COLOURS[k % n], "linestyle": _LINES[k // n % m], "marker": marker}


def _draw_gains(axes: Axes, table: pd.DataFrame, size: str, looks: Mapping[tuple[str, str], Mapping]) -> None:
    """One line per pair over the sizes of a column; ``looks`` are by (low, high) language."""
    axes.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    for (target, donor), of_pair in table.groupby(["target", "donor"]):
        look = looks[(target, donor) if (target, donor) in looks else (donor, target)]
        points = of_pair.groupby(size)["gain"].agg(["mean", "sem"])
        axes.errorbar(
            points.index, points["mean"], points["sem"].fillna(0), markersize=3, elinewidth=0.7,
            gid=f"{target} from {donor}", **look,
        )  # fmt: skip


def tasks_side_by_side(diagnostics: pd.DataFrame, labels: Mapping[str, str], title: str | None = None) -> StudyFigure:
    """Draw diagnostics of the transfer matrices of several tasks, ours and the published ones, one panel each.

    Args:
        diagnostics: index (task, source), source "ours" or "published"; columns as in ``labels``. NaN is not drawn.
        labels: column -> what its axis says.
        title: short title above the panels.

    Returns:
        A figure with one row per task, the first on top; a mark's gid is "task source".

    Raises:
        InputError: a column is missing or the table is empty.
    """
    require_columns(diagnostics, list(labels), "diagnostics")
    tasks = list(dict.fromkeys(diagnostics.index.get_level_values(0)))
    missing = [t for t in tasks if (t, "ours") not in diagnostics.index or diagnostics.loc[(t, "ours")].isna().all()]
    note = "Published: recomputed from the authors' cells. Ours: other speech and another encoder, see the text."
    note += f" Not run here, or without a positive self-gain: {', '.join(missing)}." if missing else ""
    keys = [Line2D([], [], linestyle="none", label=source, **look) for source, look in _SOURCES.items()]
    with style():
        foot = Foot(PAGE_IN, note, keys)
        left_in, gap_in, bottom_in = 0.2 + text_in(tasks, 7), 0.26, foot.height_in + 0.46
        height_in = 0.26 * len(tasks)
        panel_in = (PAGE_IN - left_in - 0.15 - gap_in * (len(labels) - 1)) / len(labels)
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + height_in + (0.4 if title else 0.12)))
        place = place_in_inches(figure)
        for k, (column, label) in enumerate(labels.items()):
            axes = figure.add_axes(place(left_in + k * (panel_in + gap_in), bottom_in, panel_in, height_in))
            _draw_marks(axes, diagnostics[column].dropna(), tasks)
            axes.set(xlabel=label)
            axes.set_yticks(np.arange(len(tasks)), tasks if k == 0 else [""] * len(tasks), fontsize=7)
        foot.draw(figure)
        write_title(figure, title)
    return figure


def _draw_marks(axes: Axes, values: pd.Series, tasks: Sequence[str]) -> None:
    """One mark per task and source, the first task on top; the axis holds 0 and 1."""
    for (task, source), value in values.items():
        y = tasks.index(task) + (0.13 if source == "published" else -0.13)
        look = {**_SOURCES[source], "markerfacecolor": "none" if source == "published" else None}
        axes.plot(value, y, linestyle="none", markersize=4.5, gid=f"{task} {source}", **look)
    low, high = axes.get_xlim()
    axes.set(ylim=(len(tasks) - 0.5, -0.5), xlim=(min(0, low), 1.06 * max(1, high)))
    axes.grid(axis="x", linewidth=0.3, color="0.85")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
