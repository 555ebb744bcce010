"""The dynamic interval: how [N, 2N] and its regions stand on an axis of training sizes, and the curve that chose it."""

from collections.abc import Mapping
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from matplotlib.transforms import blended_transform_factory

from cltmlib.errors import InputError
from cltmlib.figures.layout import Foot, place_in_inches, shift, spread, text_in, write_title
from cltmlib.figures.style import COLUMN_IN, StudyFigure, style

if TYPE_CHECKING:
    from cltmlib.cltm.interval import DynamicInterval

_CHOSEN = "#F0E442"  # the yellow of Okabe and Ito, which is no family's
_REGION_PT, _TICK_PT = 6.5, 6.5


def interval_curve(interval: "DynamicInterval", title: str | None = None) -> StudyFigure:
    """Draw how the interval was chosen: CI_min by N, its median over languages, the smoothed curve and the threshold 1.

    Choice: the axis ends a little above the highest median, at most at three times what the smoothed curve and the
    threshold need; what lies higher is a triangle at the upper edge.

    Args:
        interval: what ``cltm.dynamic_interval`` returned.
        title: short title above the axes.

    Raises:
        InputError: the interval has no scores.

    Example:
        >>> from cltmlib.cltm.interval import dynamic_interval
        >>> rows = [("de", 8, 0, 0.5), ("de", 8, 1, 0.5), ("de", 16, 0, 0.6), ("de", 16, 1, 0.7)]
        >>> curves = pd.DataFrame(rows, columns=["language", "n_samples", "seed", "performance"])
        >>> figure = interval_curve(dynamic_interval(curves))
        >>> [line.get_ydata().round(2).tolist() for line in figure.axes[0].lines if line.get_gid() == "median"]
        [[2.31]]
    """
    scores, median = interval.scores, interval.median.astype(float)
    if not scores.size:
        raise InputError("The interval has no scores: there is nothing to draw.")
    kept = median[~median.index.isin(interval.outliers)]
    enough = max(1.0, *(series[np.isfinite(series)].max() for series in (kept, interval.smoothed)))
    top = 1.15 * min(3 * enough, max(enough, median[np.isfinite(median)].max()))
    counts = scores.notna().sum()
    n = f"{len(scores)}" if (counts == len(scores)).all() else f"{counts.min()} to {counts.max()}"
    note = f"n = {n} languages at each N. CI_min is the gain from N to 2N over the smallest gain that counts; "
    note += f"N = {interval.n}, at the maximum of the smoothed medians, is "
    note += "chosen (yellow)." if interval.is_valid else "the best (yellow), but not valid."
    note += " Triangles: above the axis." if (scores > top).any(axis=None) else ""
    black = {"color": "black", "linestyle": "none", "marker": "o", "markersize": 4.5}
    looks = {
        "score": {"color": "0.55", "linestyle": "none", "marker": ".", "markersize": 4, "alpha": 0.7},
        "median": black,
        "outlier": {**black, "markerfacecolor": "white", "zorder": 4},
        "smoothed": {"color": "#0072B2", "linewidth": 1.4},
        "threshold": {"color": "black", "linewidth": 0.6, "linestyle": (0, (4, 2))},
    }
    names = {"score": "a language", "median": "median over languages", "outlier": "outlier, set aside",
             "smoothed": "smoothed medians", "threshold": "threshold: valid above"}  # fmt: skip
    shown = [key for key in looks if key != "outlier" or interval.outliers]
    with style():
        foot = Foot(COLUMN_IN, note, [Line2D([], [], label=names[key], **looks[key]) for key in shown])
        bottom_in, height_in, top_in = foot.height_in + 0.48, 2.0, 0.3 if title else 0.1
        figure = StudyFigure(figsize=(COLUMN_IN, bottom_in + height_in + top_in))
        axes = figure.add_axes(place_in_inches(figure)(0.52, bottom_in, COLUMN_IN - 0.64, height_in))
        lowest = min(0.0, np.nanmin(scores.to_numpy(dtype=float)))
        axes.set(ylim=(lowest - 0.04 * top, top), ylabel="CI_min (no unit), higher is better")
        axes.set_xlabel("N, training samples (log scale)")
        n_samples_axis(axes, [int(n) for n in median.index], {interval.n: "N"})
        axes.axvline(interval.n, color=_CHOSEN, linewidth=4, alpha=0.8, zorder=0.5, gid="chosen")
        axes.axhline(1, gid="threshold", **looks["threshold"])
        for _, row in scores.iterrows():
            _plot_capped(axes, row.dropna(), top, gid="score", **looks["score"])
        axes.plot(interval.smoothed.index, interval.smoothed, gid="smoothed", **looks["smoothed"])
        _plot_capped(axes, kept, top, gid="median", **looks["median"])
        _plot_capped(axes, median[interval.outliers], top, gid="outlier", **looks["outlier"])
        foot.draw(figure)
        write_title(figure, title)
    return figure


def n_samples_axis(axes: Axes, n_samples: list[int], names: Mapping[int, str]) -> None:
    """Log axis with a tick at every measured N, some with a name under them; crowded numbers are left out."""
    low, high = n_samples[0], n_samples[-1]
    margin = (high / low) ** 0.04 if high > low else 2
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    inches = axes.get_position().width * axes.figure.get_figwidth() / np.log(high * margin**2 / low)
    half_in = {n: text_in([str(n)], _TICK_PT) / 2 + 0.03 for n in n_samples}
    shown: list[int] = []
    for n in sorted(n_samples, key=lambda n: (n not in names, n not in (low, high))):
        if all(inches * abs(np.log(n / other)) > half_in[n] + half_in[other] for other in shown):
            shown.append(n)
    labels = [f"{n}\n{names.get(n, '')}".rstrip() if n in shown else "" for n in n_samples]
    axes.set_xticks(n_samples, labels, fontsize=_TICK_PT, linespacing=1.1)
    axes.xaxis.set_minor_locator(NullLocator())


def shade_interval(axes: Axes, n_samples: list[int], interval: "DynamicInterval") -> list[tuple[str, float, float]]:
    """Shade the regions lightly and [N, 2N] strongly; the axis of training sizes must have its limits.

    Returns:
        Name, start and end of each region, from left to right.
    """
    regions = []
    for name, members in groupby(n_samples, key=interval.region):
        members = list(members)
        regions.append([name, members[0], members[-1]])
    # The dynamic region includes its ends, so its neighbours begin there.
    for left, right in pairwise(regions):
        if left[0] == "dynamic":
            right[1] = left[2]
        elif right[0] == "dynamic":
            left[2] = right[1]
    regions[0][1], regions[-1][2] = axes.get_xlim()
    for name, start, end in regions:
        if name in ("under-trained", "saturated"):
            axes.axvspan(start, end, facecolor="0.93", linewidth=0, zorder=0, gid=name)
    line = {"color": "0.3", "linewidth": 0.6, "linestyle": "-" if interval.is_valid else (0, (4, 2)), "zorder": 0.6}
    if interval.is_valid:
        axes.axvspan(interval.n, interval.two_n, facecolor=_CHOSEN, alpha=0.5, linewidth=0, zorder=0.5, gid="chosen")
    for n in (interval.n, interval.two_n):
        axes.axvline(n, gid="chosen", **line)
    return [tuple(region) for region in regions]


def name_regions(axes: Axes, regions: list[tuple[str, float, float]]) -> None:
    """Write the names of the regions above the axes, each as near to its middle as the others let it."""
    width_in = axes.get_position().width * axes.figure.get_figwidth()
    low, high = np.log(axes.get_xlim())
    middles = [width_in * ((np.log(start) + np.log(end)) / 2 - low) / (high - low) for _, start, end in regions]
    sizes = [text_in([name], _REGION_PT) + 0.08 for name, *_ in regions]
    for (name, *_), middle in zip(regions, spread(middles, sizes, 0, width_in), strict=True):
        axes.text(middle / width_in, 1, name, transform=axes.transAxes + shift(axes, 0, 3), ha="center",
                  fontsize=_REGION_PT, gid="region")  # fmt: skip


def interval_note(interval: "DynamicInterval") -> str:
    """What the marks of ``shade_interval`` mean."""
    ends = f"[N, 2N] = [{interval.n}, {interval.two_n}]".replace(" ", "\N{NO-BREAK SPACE}")
    return f"yellow: the chosen {ends}." if interval.is_valid else f"dashed: the best interval, {ends}, is not valid."


def _plot_capped(axes: Axes, values: pd.Series, top: float, **look: object) -> None:
    """Plot points by N; those above the axis become triangles at its upper edge."""
    inside = values[values <= top]
    axes.plot(inside.index, inside, **look)
    above = values[values > top]
    edge = blended_transform_factory(axes.transData, axes.transAxes) + shift(axes, 0, -3)
    if len(above):
        axes.plot(above.index, np.ones(len(above)), transform=edge, **{**look, "marker": "^", "markersize": 4,
                  "gid": "above"})  # fmt: skip
