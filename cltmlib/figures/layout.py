"""Where things go on the page: widths of text, places in inches, the foot of a figure, labels that do not touch."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from scipy.optimize import isotonic_regression

from cltmlib.errors import InputError

_NOTE_PT, _LEGEND_PT, _LABEL_PT = 6, 6.5, 6.5
_NOTE_IN, _LEGEND_IN, _MARGIN_IN = 0.11, 0.14, 0.1
_HINTED = 1.04  # on a screen, glyphs are moved to whole pixels and a line gets longer than its outlines


def text_in(texts: Sequence[str], size_pt: float) -> float:
    """Width in inches of the widest text, from the outlines of the bundled font."""
    return max(_text_pt(text, size_pt) for text in texts) / 72


@cache
def _text_pt(text: str, size_pt: float) -> float:
    font = FontProperties(family="DejaVu Sans")
    return TextPath((0, 0), text, size=size_pt, prop=font).get_extents().width


def place_in_inches(figure: Figure) -> Callable[[float, float, float, float], tuple[float, float, float, float]]:
    """Rectangle in figure fractions from left, bottom, width, height in inches."""
    width, height = figure.get_size_inches()
    return lambda left, bottom, w, h: (left / width, bottom / height, w / width, h / height)


def shift(axes: Axes, x_pt: float, y_pt: float) -> matplotlib.transforms.Transform:
    return matplotlib.transforms.ScaledTranslation(x_pt / 72, y_pt / 72, axes.figure.dpi_scale_trans)


def wrapped(text: str, width_in: float, size_pt: float) -> list[str]:
    """Break a text at its spaces into lines of at most this width; a single word that is wider stays whole.

    Example:
        >>> wrapped("mean of 10 seeds", 0.6, 6)
        ['mean of 10', 'seeds']
    """
    lines = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_in([longer], size_pt) <= width_in:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def spread(centres: Sequence[float], sizes: Sequence[float], low: float, high: float) -> np.ndarray:
    """Move labels along a line so that they do not overlap, together as little as possible (least squares).

    Args:
        centres: where the labels would like to be.
        sizes: their lengths along the line, gaps included.
        low: lower end of the line; when the labels do not fit, they go beyond ``high``.
        high: upper end of the line.

    Returns:
        New centres, in the order given; no label passes another.

    Example:
        >>> spread([0.5, 0.5, 3.0], [1.0, 1.0, 1.0], 0.0, 4.0).tolist()
        [0.5, 1.5, 3.0]
    """
    order = np.argsort(centres, kind="stable")
    size = np.asarray(sizes, dtype=float)[order]
    # Less these offsets, labels that touch coincide: what is left is to make the centres rise, a known problem.
    offsets = np.concatenate([[0], np.cumsum((size[:-1] + size[1:]) / 2)])
    moved = isotonic_regression(np.asarray(centres, dtype=float)[order] - offsets).x
    first, last = low + size[0] / 2, high - size[-1] / 2 - offsets[-1]
    result = np.empty(len(order))
    result[order] = np.clip(moved, first, max(first, last)) + offsets
    return result


class Foot:
    """Legend and note at the foot of a figure: made before the figure, for it says how much height they take.

    Attributes:
        height_in: height of both, in inches, margins included.
    """

    def __init__(self, width_in: float, note: str, legend: Sequence[Line2D] = ()):
        self.lines = wrapped(note, (width_in - 2 * _MARGIN_IN) / _HINTED, _NOTE_PT)
        self.legend = list(legend)
        self.note_in = 0.06 + _NOTE_IN * len(self.lines)
        self.n_columns, n_rows = 1, 0
        if self.legend:
            entry_in = _HINTED * text_in([entry.get_label() for entry in self.legend], _LEGEND_PT) + 0.25
            self.n_columns = min(len(self.legend), max(1, int((width_in - 2 * _MARGIN_IN) / entry_in)))
            n_rows = math.ceil(len(self.legend) / self.n_columns)
        self.height_in = self.note_in + _LEGEND_IN * n_rows + (0.06 if n_rows else 0)

    def draw(self, figure: Figure) -> None:
        """Write the note at the bottom and the legend above it."""
        width, height = figure.get_size_inches()
        for below, line in zip(reversed(range(len(self.lines))), self.lines, strict=True):
            figure.text(_MARGIN_IN / width, (0.06 + _NOTE_IN * below) / height, line, fontsize=_NOTE_PT, gid="note")
        if self.legend:
            figure.legend(
                handles=self.legend, loc="lower left", bbox_to_anchor=(_MARGIN_IN / width, self.note_in / height),
                ncols=self.n_columns, fontsize=_LEGEND_PT, frameon=False, borderpad=0, borderaxespad=0,
                handlelength=1.2, handletextpad=0.5, columnspacing=1.0, labelspacing=0.35,
            )  # fmt: skip


def write_title(figure: Figure, title: str | None) -> None:
    """Write a title at the top, where 0.3 inches are left for it."""
    if title:
        figure.text(0.5, 1 - 0.08 / figure.get_figheight(), title, ha="center", va="top")


def place_labels(axes: Axes, anchors: np.ndarray, texts: Sequence[str], avoid: np.ndarray, centred: bool) -> None:
    """Label points of a scatter, off each other and off as many points as possible, with a thin line to the point.

    The first texts get the best places. The axes keep the limits that they have.

    Args:
        axes: where the points are drawn.
        anchors: the labelled points in data coordinates, shape (n_labels, 2).
        texts: one per anchor.
        avoid: all points drawn, in data coordinates, shape (n_points, 2).
        centred: whether a label may lie on its anchor, as the name of a cloud does.
    """
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # transData is not up to date before
    to_points = axes.transData + axes.figure.dpi_scale_trans.inverted() + matplotlib.transforms.Affine2D().scale(72)
    area = axes.bbox.transformed(axes.figure.dpi_scale_trans.inverted()).get_points() * 72
    marks, centres = to_points.transform(avoid), to_points.transform(anchors)  # (n, 2) in points
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    offsets = [(r * np.cos(angle), r * np.sin(angle)) for r in (8, 12, 17, 24, 32, 42, 56, 72) for angle in angles]
    taken = []  # (centre, half size) of the labels placed
    for text, centre, anchor in zip(texts, centres, anchors, strict=True):
        half = np.array([72 * text_in([text], _LABEL_PT) / 2 + 1.5, _LABEL_PT / 2 + 1.5])
        best = (math.inf, np.zeros(2))
        for offset in ([(0.0, 0.0)] if centred else []) + offsets:
            # Sideways a label is longer, so it starts where its near edge is as far as the circle says.
            where = centre + offset + half * np.sign(np.round(offset, 6)) * [1, 0]
            outside = ((where - half < area[0]) | (where + half > area[1])).any()
            covers = any((np.abs(where - other) < half + size).all() for other, size in taken)
            hidden = 0 if centred else (np.abs(marks - where) < half + 1.5).all(axis=1).sum()
            cost = 1e6 * outside + 1e4 * covers + 12 * hidden + np.hypot(*offset)
            if cost < best[0]:
                best = (cost, where)
        taken.append((best[1], half))
        moved = best[1] - centre
        leader = {"arrowstyle": "-", "linewidth": 0.4, "color": "0.3", "shrinkA": 0, "shrinkB": 1}
        axes.annotate(
            text, anchor, moved, textcoords="offset points", ha="center", va="center", fontsize=_LABEL_PT, zorder=6,
            gid="label", arrowprops=leader if np.hypot(*moved) > 1 else None,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )  # fmt: skip


def require_columns(table: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    """Refuse a table that is empty or lacks a column."""
    for column in columns:
        if column not in table.columns:
            raise InputError(f"The table of {what} has no column {column!r}: it needs {', '.join(columns)}.")
    if table.empty:
        raise InputError(f"The table of {what} is empty: there is nothing to draw.")
