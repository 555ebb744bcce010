"""Learning curves with their dynamic interval: the paper's Figures 1 and 2, and a panel per language."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cltmlib.errors import InputError
from cltmlib.figures.interval import interval_note, n_samples_axis, name_regions, shade_interval
from cltmlib.figures.layout import Foot, place_in_inches, require_columns, shift, spread, text_in, write_title
from cltmlib.figures.style import COLUMN_IN, PAGE_IN, StudyFigure, family_order, family_style, style

if TYPE_CHECKING:
    from cltmlib.cltm.interval import DynamicInterval

_MAX_LABELLED, _MAX_IN_COLUMN = 12, 6  # languages
_LINESTYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))  # of the members of one family
_MEAN = {"color": "0.15", "linewidth": 2.2, "zorder": 3}
_CHANCE = {"color": "0.35", "linewidth": 0.6, "linestyle": (0, (1, 1.5)), "gid": "chance"}
_LABEL_PT = 6.5


def learning_curves(
    curves: pd.DataFrame,
    interval: "DynamicInterval",
    families: Mapping[str, str],
    performance_name: str,
    chance: float | None = None,
    title: str | None = None,
) -> StudyFigure:
    """Draw performance against the number of training samples, as the paper's Figures 1 and 2, all languages in one.

    Each language is a line in the colour and marker of its family, the mean over languages a thick dark one, drawn
    where all languages were measured. Up to 12 languages are named at the end of their line and have error bars; up to
    6 fit one column of print.

    Args:
        curves: columns language, n_samples, seed, performance (higher is better), one row per training.
        interval: of these curves; its regions are named and its [N, 2N] marked.
        families: family of each language.
        performance_name: the metric, as in "macro-F1"; it stands on the axis.
        chance: performance of guessing.
        title: short title above the axes.

    Raises:
        InputError: a language has no family; a column is missing, the table is empty, a row is there twice, or a
            performance is not a finite number.

    Example:
        >>> from cltmlib.cltm.interval import dynamic_interval
        >>> rows = [("de", 8, 0, 0.5), ("de", 8, 1, 0.5), ("de", 16, 0, 0.6), ("de", 16, 1, 0.7)]
        >>> curves = pd.DataFrame(rows, columns=["language", "n_samples", "seed", "performance"])
        >>> figure = learning_curves(curves, dynamic_interval(curves), {"de": "Germanic"}, "macro-F1", chance=0.5)
        >>> [line.get_ydata().round(2).tolist() for line in figure.axes[0].lines if line.get_gid() == "de"]
        [[0.5, 0.65]]
    """
    mean, error, what = _points(curves)
    order = family_order(list(mean.index), families)
    overall, overall_error = _overall(curves, mean)
    labelled = len(order) <= _MAX_LABELLED
    width_in, height_in = (COLUMN_IN, 2.1) if len(order) <= _MAX_IN_COLUMN else (PAGE_IN, 2.8)
    bars = ", bars: ±1 standard error" if labelled and error.notna().any(axis=None) else ""
    band = ", band: ±1 standard error over seeds" if overall_error.notna().any() else ""
    note = f"{_count(order)}; thin: a language, {what}{bars}; thick: mean over languages{band}; "
    with style():
        styles = family_style({language: families[language] for language in order})
        foot = Foot(width_in, note + interval_note(interval), _family_keys(styles))
        left_in, right_in = 0.56, 0.34 + text_in([*(order if labelled else ()), "chance"], _LABEL_PT)
        bottom_in, top_in = foot.height_in + 0.46, 0.46 if title else 0.24
        figure = StudyFigure(figsize=(width_in, bottom_in + height_in + top_in))
        axes = figure.add_axes(place_in_inches(figure)(left_in, bottom_in, width_in - left_in - right_in, height_in))
        n_samples_axis(axes, list(mean.columns), {interval.n: "N", interval.two_n: "2N"})
        name_regions(axes, shade_interval(axes, list(mean.columns), interval))
        axes.set(xlabel="training samples (log scale)", ylabel=f"{performance_name}, higher is better")

        ends = []  # (name, last N, performance there, look) of the lines to be named
        for language in order:
            family = families[language]
            rank = [other for other in order if families[other] == family].index(language)
            y = mean.loc[language].dropna()
            if labelled:
                line = {**styles[family], "linestyle": _LINESTYLES[rank % len(_LINESTYLES)], "markersize": 3}
                half = error.loc[language, y.index].to_numpy()
                axes.errorbar(y.index.to_numpy(), y.to_numpy(), half, elinewidth=0.7, **line).lines[0].set_gid(language)
                ends.append((language, y.index[-1], y.iloc[-1], styles[family]))
            else:
                thin = {**styles[family], "linewidth": 0.5, "alpha": 0.6, "markersize": 3, "markevery": [-1]}
                axes.plot(y.index, y, gid=language, **thin)
        if len(overall):
            axes.fill_between(overall.index, overall - overall_error, overall + overall_error, color=_MEAN["color"],
                              alpha=0.25, linewidth=0, zorder=_MEAN["zorder"])  # fmt: skip
            axes.plot(overall.index, overall, gid="mean", **_MEAN)
            ends.append(("mean", overall.index[-1], overall.iloc[-1], {"color": _MEAN["color"]}))
        if chance is not None:
            axes.axhline(chance, **_CHANCE)
            ends.append(("chance", axes.get_xlim()[1], chance, {"color": _CHANCE["color"]}))
        _name_ends(axes, ends)
        foot.draw(figure)
        write_title(figure, title)
    return figure


def learning_curves_by_language(
    curves: pd.DataFrame,
    interval: "DynamicInterval",
    families: Mapping[str, str],
    performance_name: str,
    chance: float | None = None,
    title: str | None = None,
) -> StudyFigure:
    """Draw each language's learning curve in a panel of its own, with its gain from N to 2N as a step and a number.

    The gain is the mean over seeds of Perf(2N) - Perf(N), over the seeds that have both; its standard error, printed
    where there is room, is paired within a seed.

    Args:
        curves: as for ``learning_curves``.
        interval: of these curves; its regions are shaded and its [N, 2N] marked.
        families: family of each language; panels are in ``family_order``.
        performance_name: the metric, as in "macro-F1"; it stands on the axis.
        chance: performance of guessing.
        title: short title above the panels.

    Raises:
        InputError: as ``learning_curves``.

    Example:
        >>> from cltmlib.cltm.interval import dynamic_interval
        >>> rows = [("de", 8, 0, 0.5), ("de", 8, 1, 0.5), ("de", 16, 0, 0.6), ("de", 16, 1, 0.7)]
        >>> curves = pd.DataFrame(rows, columns=["language", "n_samples", "seed", "performance"])
        >>> figure = learning_curves_by_language(curves, dynamic_interval(curves), {"de": "Germanic"}, "macro-F1")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['de', 'gain +0.15 ±0.05']
    """
    mean, error, what = _points(curves)
    order = family_order(list(mean.index), families)
    gain, gain_error = _gains(curves, interval)
    n_columns = min(len(order), 4 if len(order) <= 12 else 6 if len(order) <= 36 else 7)
    n_rows = -(-len(order) // n_columns)
    width_in = COLUMN_IN if n_columns <= 2 else PAGE_IN
    # The first and the last tick label of neighbours stand out of their panels, towards each other.
    first_in, last_in = (text_in([str(n)], _LABEL_PT) / 2 for n in (mean.columns[0], mean.columns[-1]))
    left_in, right_in, gap_in = 0.52, max(0.1, last_in), first_in + last_in + 0.04
    panel_in = (width_in - left_in - right_in + gap_in) / n_columns - gap_in
    label = f"{performance_name}, higher is better"
    # One or two rows may be lower than the label beside them is long.
    height_in = max(min(0.72 * panel_in, 1.5), (text_in([label], 8) + 0.2 - 0.24 * (n_rows - 1)) / n_rows)
    band = ", band: ±1 standard error" if error.notna().any(axis=None) else ""
    note = f"{_count(order)}; line: {what}{band}; number: gain Perf(2N) \N{MINUS SIGN} Perf(N)"
    note += ", ± its standard error; " if panel_in > 1.3 and gain_error.notna().any() else "; "
    note += "dotted: chance; " if chance is not None else ""
    with style():
        styles = family_style({language: families[language] for language in order})
        foot = Foot(width_in, note + interval_note(interval), _family_keys(styles))
        bottom_in, top_in = foot.height_in + 0.48, 0.48 if title else 0.24
        row_in = height_in + 0.24
        figure = StudyFigure(figsize=(width_in, bottom_in + n_rows * row_in - 0.24 + top_in))
        place = place_in_inches(figure)
        limits = _limits([mean, mean - error, mean + error], chance)
        for k, language in enumerate(order):
            row, column = divmod(k, n_columns)
            panel = left_in + column * (panel_in + gap_in), bottom_in + (n_rows - 1 - row) * row_in
            axes = figure.add_axes(place(*panel, panel_in, height_in), ylim=limits)
            n_samples_axis(axes, list(mean.columns), {interval.n: "N", interval.two_n: "2N"})
            shade_interval(axes, list(mean.columns), interval)
            y, look = mean.loc[language].dropna(), styles[families[language]]
            half = error.loc[language, y.index]
            axes.fill_between(y.index, y - half, y + half, color=look["color"], alpha=0.3, linewidth=0)
            axes.plot(y.index, y, markersize=2.5, gid=language, **look)
            if chance is not None:
                axes.axhline(chance, **_CHANCE)
            _head_panel(axes, language, look)
            if language in gain.index:
                ends = [interval.n, interval.two_n]
                axes.plot(np.take(ends, [0, 1, 1]), y[ends].iloc[[0, 0, 1]], color="black", linewidth=1.1, gid="step")
                _write_gain(axes, gain[language], gain_error[language], panel_in)
            axes.tick_params(labelleft=column == 0, labelbottom=k + n_columns >= len(order))
            axes.spines[["top", "right"]].set_visible(False)
        edges_in = left_in, width_in - right_in, bottom_in, bottom_in + n_rows * row_in - 0.24
        _label_panels(figure, edges_in, foot.height_in, label)
        foot.draw(figure)
        write_title(figure, title)
    return figure


def _points(curves: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Mean and standard error over seeds, rows = languages, columns = N; and what the mean is, in words."""
    require_columns(curves, ["language", "n_samples", "seed", "performance"], "learning curves")
    keys = ["language", "n_samples", "seed"]
    for wrong, why in (
        (~np.isfinite(curves["performance"].astype(float)), "is not a finite number: train it again"),
        (curves.duplicated(keys), "is there twice: keep one row"),
    ):
        if wrong.any():
            language, n_samples, seed = curves.loc[wrong, keys].iloc[0]
            raise InputError(f"The performance of language {language!r}, n_samples {n_samples}, seed {seed} {why}.")
    groups = curves.groupby(["language", "n_samples"])["performance"]
    languages = list(dict.fromkeys(curves["language"]))
    mean, error = (table.unstack().loc[languages] for table in (groups.mean(), groups.sem(ddof=1)))
    least, most = groups.size().min(), groups.size().max()
    seeds = f"mean of {most} seeds" if least == most else f"mean of {least} to {most} seeds"
    return mean, error, seeds if most > 1 else "one seed, so no standard error"


def _overall(curves: pd.DataFrame, mean: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Mean over languages at the N that all have, and its standard error over the seeds that all have.

    Languages share their seeds, so their errors are not independent: each seed's mean over languages is one number.
    """
    everywhere = mean.columns[mean.notna().all()]
    by_seed = curves.groupby(["seed", "n_samples"])["performance"].agg(["mean", "size"])
    complete = by_seed["mean"][by_seed["size"] == len(mean)].unstack().reindex(columns=everywhere)
    return mean[everywhere].mean(), complete.sem(ddof=1)


def _gains(curves: pd.DataFrame, interval: "DynamicInterval") -> tuple[pd.Series, pd.Series]:
    """Gain from N to 2N of the languages that have both, and its standard error, paired within a seed."""
    wide = curves.set_index(["language", "seed", "n_samples"])["performance"].unstack()
    wide = wide.reindex(columns=[interval.n, interval.two_n])
    gains = (wide[interval.two_n] - wide[interval.n]).dropna().groupby("language")
    return gains.mean(), gains.sem(ddof=1)


def _count(languages: list[str]) -> str:
    return f"n = {len(languages)} language{'s' if len(languages) > 1 else ''}"


def _family_keys(styles: Mapping[str, Mapping[str, str]]) -> list[Line2D]:
    return [Line2D([], [], label=family, linewidth=0.9, **look) for family, look in styles.items()]


def _limits(tables: list[pd.DataFrame], chance: float | None) -> tuple[float, float]:
    """Limits of an axis shared by all panels."""
    values = np.concatenate([table.to_numpy().ravel() for table in tables] + [[] if chance is None else [chance]])
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


def _name_ends(axes: Axes, ends: list[tuple[str, float, float, dict[str, str]]]) -> None:
    """Name lines right of the axes, beside the marker of their family, each joined to where its line ends."""
    height_pt = 72 * axes.get_position().height * axes.figure.get_figheight()
    low, high = axes.get_ylim()
    wanted = [height_pt * (y - low) / (high - low) for _, _, y, _ in ends]
    beside = axes.transAxes + shift(axes, 12, 0)
    for (name, n, y, look), at_pt in zip(ends, spread(wanted, [8.2] * len(ends), -4, height_pt + 4), strict=True):
        at = at_pt / height_pt
        axes.text(1, at, name, transform=beside + shift(axes, 4, 0), va="center_baseline", fontsize=_LABEL_PT,
                  weight="bold" if name == "mean" else "normal", gid="end")  # fmt: skip
        leader = {"arrowstyle": "-", "linewidth": 0.4, "color": "0.4", "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (n, y), (1, at), textcoords=beside, annotation_clip=False, arrowprops=leader)
        axes.plot(1, at, transform=beside, clip_on=False, linestyle="none", markersize=3.5, markeredgewidth=0, **look)


def _head_panel(axes: Axes, language: str, look: Mapping[str, str]) -> None:
    axes.text(0, 1, language, transform=axes.transAxes + shift(axes, 7, 3), fontsize=7, gid="language")
    axes.plot(0, 1, transform=axes.transAxes + shift(axes, 2.5, 5.4), clip_on=False, linestyle="none", markersize=4,
              markeredgewidth=0, **look)  # fmt: skip


def _write_gain(axes: Axes, gain: float, error: float, panel_in: float) -> None:
    """Write the gain over the right end of the panel, in as many words as it is wide."""
    text = f"gain {gain:+.2f}" if panel_in > 0.95 else f"{gain:+.2f}"
    text += f" ±{error:.2f}" if panel_in > 1.3 and np.isfinite(error) else ""
    axes.text(1, 1, text, transform=axes.transAxes + shift(axes, 0, 3), ha="right", fontsize=_LABEL_PT, gid="gain")


def _label_panels(
    figure: StudyFigure, edges_in: tuple[float, float, float, float], foot_in: float, y_label: str
) -> None:
    """Label the axes that the panels share, in the middle of all."""
    width, height = figure.get_size_inches()
    left, right, bottom, top = edges_in
    across, up = (left + right) / 2 / width, (bottom + top) / 2 / height
    figure.text(across, (foot_in + 0.06) / height, "training samples (log scale)", ha="center")
    figure.text(0.12 / width, up, y_label, rotation=90, ha="center", va="center")
