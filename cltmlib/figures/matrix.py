"""The matrix heatmap and the self-gain bars: one row per language, languages in the order of their families."""

from collections.abc import Mapping
from itertools import groupby

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import blended_transform_factory

from cltmlib.errors import InputError
from cltmlib.figures.layout import place_in_inches, shift, text_in
from cltmlib.figures.style import COLUMN_IN, PAGE_IN, StudyFigure, family_order, family_style, style

COLOUR_LIMIT = 1.5  # the paper's scale, Section 4
_COLOUR_MAP = "RdBu"  # red = donor hurts, white = no effect, blue = donor helps; safe for colour-blind readers
_UNDEFINED = {"facecolor": "0.85", "edgecolor": "0.55", "hatch": "/////", "linewidth": 0}
_MAX_PRINTED, _MAX_PRINTED_ERRORS, _MAX_IN_COLUMN = 24, 16, 8  # languages


def heatmap(
    values: pd.DataFrame,
    families: Mapping[str, str],
    standard_error: pd.DataFrame | None = None,
    title: str | None = None,
    called: pd.DataFrame | None = None,
    false_discovery_rate: float = 0.05,
) -> StudyFigure:
    """Draw a CLTM as the paper's Figure 5: symmetric colours in [-1.5, 1.5], families framed on the diagonal.

    Up to 24 languages have their values printed in the cells, up to 16 with the standard error under them. Up to 8
    languages fit one column of print. Undefined cells (self-gain not positive) are grey and hatched. A dot marks the
    cells whose sign is called: in the corner where values are printed, else in the middle.

    Args:
        values: CLTM; rows = targets, columns = donors, the same languages.
        families: family of each language; languages are drawn in ``family_order``.
        standard_error: standard error of each cell, rows and columns as ``values``.
        title: short title above the matrix.
        called: +1 or -1 where the sign of the cell survived a false-discovery-rate correction, else 0 or missing; rows
            and columns as ``values``. Undefined cells have no sign and get no dot.
        false_discovery_rate: level of that correction, for the line that explains the dots.

    Raises:
        InputError: a language has no family, rows and columns are not the same languages, or ``called`` has other
            languages, another value, or a sign that is not the cell's.

    Example:
        >>> values = pd.DataFrame([[1.0, 0.5], [-0.5, 1.0]], index=["de", "tr"], columns=["de", "tr"])
        >>> figure = heatmap(values, {"de": "Indo-European (Germanic)", "tr": "Turkic"})
        >>> [text.get_text() for text in figure.axes[0].texts if text.get_gid() == "value"]
        ['1.00', '0.50', '-0.50', '1.00']
    """
    if set(values.index) != set(values.columns) or not len(values):
        raise InputError("A heatmap needs the same languages as rows (targets) and columns (donors).")
    order = family_order(list(values.index), families)
    n = len(order)
    matrix = np.ma.masked_invalid(values.loc[order, order].to_numpy(dtype=float))
    notes = ["Hatched: self-gain not positive, Eq. (2) undefined."] if matrix.mask.any() else []
    if called is not None:
        signs = _checked_signs(values, called).loc[order, order].to_numpy()
        notes.append(f"Dot: sign survives FDR {100 * false_discovery_rate:g} % over the matrix.")
    with style():
        width_in = COLUMN_IN if n <= _MAX_IN_COLUMN else PAGE_IN
        label_pt = 7 if n <= 16 else 6 if n <= 24 else 4.8
        blocks = _family_blocks(order, families, wrap=n <= 16)
        left_in = 0.34 + text_in(order, label_pt)
        right_in = 0.16 + text_in([line for *_, text in blocks for line in text.split("\n")], label_pt)
        cell_in = (width_in - left_in - right_in) / n
        upright = cell_in < text_in(order, label_pt) + 0.03
        top_in = (0.22 if title else 0.03) + 0.2 + (text_in(order, label_pt) if upright else 0.1) + 0.14
        bottom_in = 0.56 + (0.17 + 0.11 * (len(notes) - 1) if notes else 0)
        figure = StudyFigure(figsize=(width_in, top_in + n * cell_in + bottom_in))
        place = place_in_inches(figure)
        axes = figure.add_axes(place(left_in, bottom_in, n * cell_in, n * cell_in))

        edges = np.arange(n + 1)
        mesh = axes.pcolormesh(
            edges, edges, matrix, cmap=_COLOUR_MAP, norm=Normalize(-COLOUR_LIMIT, COLOUR_LIMIT),
            edgecolors="white", linewidth=0.4 if n <= 24 else 0.15,
        )  # fmt: skip
        axes.set(xlim=(0, n), ylim=(n, 0), xlabel="donor language j", ylabel="target language i")
        axes.xaxis.set_label_position("top")
        axes.xaxis.tick_top()
        axes.set_xticks(edges[:-1] + 0.5, order, fontsize=label_pt, rotation=90 if upright else 0)
        axes.set_yticks(edges[:-1] + 0.5, order, fontsize=label_pt)
        axes.tick_params(length=0, pad=9)
        axes.spines[:].set_visible(False)
        for row, column in np.argwhere(np.ma.getmaskarray(matrix)):
            axes.add_patch(Rectangle((column, row), 1, 1, **_UNDEFINED))
        _label_families(axes, blocks, families, label_pt, on_top=True)
        for start, stop, _, _ in blocks:
            axes.add_patch(
                Rectangle((start, start), stop - start, stop - start, fill=False, edgecolor="black",
                          linewidth=0.9 if n <= 24 else 0.6, clip_on=False, zorder=3)
            )  # fmt: skip
        if n <= _MAX_PRINTED:
            errors = None if standard_error is None or n > _MAX_PRINTED_ERRORS else standard_error.loc[order, order]
            _print_cells(axes, mesh.to_rgba(matrix), matrix, errors, cell_in)
        if called is not None:
            _mark_called(axes, mesh.to_rgba(matrix), signs, cell_in, in_corner=n <= _MAX_PRINTED)

        _colour_bar(figure, mesh, place(left_in, bottom_in - 0.2, n * cell_in, 0.09))
        for below, note in zip(reversed(range(len(notes))), notes, strict=True):
            y = (0.05 + 0.11 * below) / figure.get_figheight()
            figure.text(left_in / width_in, y, note, fontsize=6, gid="note")
        if title:
            figure.text(0.5, 1 - 0.08 / figure.get_figheight(), title, ha="center", va="top")
    return figure


def self_gain_bars(
    self_gain_by_seed: pd.DataFrame,
    families: Mapping[str, str],
    performance_name: str = "performance",
    title: str | None = None,
) -> StudyFigure:
    """Draw the self-gain of each language, Eq. (1): mean over seeds, one standard error, and every seed as a dot.

    Args:
        self_gain_by_seed: ``TransferMatrix.self_gain_by_seed``; rows = languages, columns = seeds.
        families: family of each language; languages are drawn in ``family_order``.
        performance_name: the metric, as in "macro-F1"; it stands on the axis.
        title: short title above the bars.

    Raises:
        InputError: a language has no family.

    Example:
        >>> gains = pd.DataFrame([[0.1, 0.3]], index=["de"], columns=[0, 1])
        >>> figure = self_gain_bars(gains, {"de": "Indo-European (Germanic)"}, "macro-F1")
        >>> [float(bar.get_width().round(3)) for bar in figure.axes[0].containers[0]]
        [0.2]
    """
    order = family_order(list(self_gain_by_seed.index), families)
    by_seed = self_gain_by_seed.loc[order]
    mean, error = by_seed.mean(axis=1), by_seed.sem(axis=1, ddof=1)
    n, n_seeds = by_seed.shape
    with style():
        label_pt = 7 if n <= 24 else 5
        row_in, width_in = (0.23, COLUMN_IN) if n <= 24 else (0.11, PAGE_IN)
        blocks = _family_blocks(order, families, wrap=n <= 24)
        left_in = 0.34 + text_in(order, label_pt)
        right_in = 0.16 + text_in([line for *_, text in blocks for line in text.split("\n")], label_pt)
        top_in, bottom_in = 0.3 if title else 0.08, 0.58
        figure = StudyFigure(figsize=(width_in, top_in + n * row_in + bottom_in))
        place = place_in_inches(figure)
        axes = figure.add_axes(place(left_in, bottom_in, width_in - left_in - right_in, n * row_in))
        y = np.arange(n) + 0.5
        colours = family_style(families)
        bars = axes.barh(y, mean, height=0.7, color=[colours[families[code]]["color"] for code in order], alpha=0.55)
        for bar, gain in zip(bars, mean, strict=True):
            if not gain > 0:
                bar.set(facecolor="0.85", edgecolor="0.55", hatch="/////", alpha=1)
        axes.plot(by_seed.to_numpy(), np.repeat(y[:, None], n_seeds, axis=1), ".", color="black", markersize=1.8,
                  alpha=0.5, gid="seeds")  # fmt: skip
        if n_seeds > 1:
            axes.errorbar(
                mean, y, xerr=error, fmt="none", ecolor="black", elinewidth=0.9, capsize=1.5 if n <= 24 else 0
            )
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set(ylim=(n, 0), xlabel=f"self-gain, {performance_name}(2N) \N{MINUS SIGN} {performance_name}(N)")
        axes.set_yticks(y, order, fontsize=label_pt)
        axes.tick_params(axis="y", length=0, pad=9)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.margins(x=0.03)
        _label_families(axes, blocks, families, label_pt, on_top=False)
        what = f"bar: mean of {n_seeds} seeds; line: \N{PLUS-MINUS SIGN}1 standard error; dots: seeds"
        what = what if n_seeds > 1 else "bar: one seed, so no standard error"
        figure.text(0.5, 0.05 / figure.get_figheight(), f"{what}; higher is better", ha="center", fontsize=6)
        if title:
            figure.text(0.5, 1 - 0.08 / figure.get_figheight(), title, ha="center", va="top")
    return figure


def _family_blocks(order: list[str], families: Mapping[str, str], wrap: bool) -> list[tuple[int, int, str, str]]:
    """Runs of one family: (first, last + 1, family, its label)."""
    blocks, start = [], 0
    for family, members in groupby(order, key=lambda language: families[language]):
        stop = start + len(list(members))
        blocks.append((start, stop, family, family.replace(" (", "\n(") if wrap else family))
        start = stop
    return blocks


def _label_families(
    axes: Axes, blocks: list[tuple[int, int, str, str]], families: Mapping[str, str], label_pt: float, on_top: bool
) -> None:
    """Write each family beside its rows and mark each language between its name and its row (and column)."""
    styles = family_style(families)
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    above = blended_transform_factory(axes.transData, axes.transAxes)
    size = min(label_pt * 0.6, 4)
    for start, stop, family, text in blocks:
        centres = np.arange(start, stop) + 0.5
        marker = {**styles[family], "linestyle": "none", "markersize": size, "markeredgewidth": 0, "clip_on": False}
        axes.plot(np.zeros(stop - start), centres, transform=beside + shift(axes, -4.5, 0), **marker)
        if on_top:
            axes.plot(centres, np.ones(stop - start), transform=above + shift(axes, 0, 4.5), **marker)
        axes.plot([1, 1], [start + 0.12, stop - 0.12], transform=beside + shift(axes, 4, 0), clip_on=False,
                  color=styles[family]["color"], linewidth=1.2, solid_capstyle="butt")  # fmt: skip
        axes.text(1, (start + stop) / 2, text, transform=beside + shift(axes, 7, 0), va="center", fontsize=label_pt,
                  linespacing=1.0, gid="family")  # fmt: skip


def _print_cells(
    axes: Axes, colours: np.ndarray, matrix: np.ma.MaskedArray, errors: pd.DataFrame | None, cell_in: float
) -> None:
    """Print values, and errors under them, in the ink that stands out from the cell's colour."""
    texts = [f"{value:.2f}" for value in matrix.compressed()]
    size = min(7.0, 0.86 * cell_in / max(text_in([text], 1) for text in texts)) if texts else 7.0
    for (row, column), value in np.ndenumerate(matrix):
        if matrix.mask.any() and matrix.mask[row, column]:
            continue
        ink = {"color": _ink(colours[row, column]), "ha": "center"}
        error = np.nan if errors is None else errors.iloc[row, column]
        shown = np.isfinite(error) and row != column
        axes.text(column + 0.5, row + (0.38 if shown else 0.5), f"{value:.2f}", va="center_baseline", fontsize=size,
                  gid="value", **ink)  # fmt: skip
        if shown:
            axes.text(column + 0.5, row + 0.74, f"\N{PLUS-MINUS SIGN}{error:.2f}", va="center_baseline",
                      fontsize=0.72 * size, gid="standard_error", **ink)  # fmt: skip


def _checked_signs(values: pd.DataFrame, called: pd.DataFrame) -> pd.DataFrame:
    """The called signs of the defined cells, in the order of ``values``; missing is 0."""
    if set(called.index) != set(values.index) or set(called.columns) != set(values.columns):
        raise InputError("The called signs need the same languages, as rows and as columns, as the matrix.")
    signs = called.loc[values.index, values.columns].astype(float).fillna(0).where(values.notna(), 0)
    for (row, column), sign in np.ndenumerate(signs.to_numpy()):
        value = values.iloc[row, column]
        if sign not in (-1, 0, 1) or sign * value < 0:
            raise InputError(
                f"Target {values.index[row]!r}, donor {values.columns[column]!r} is called {sign:g} where the matrix "
                f"has {value:g}: give its sign, or 0 where it is not called."
            )
    return signs


def _mark_called(axes: Axes, colours: np.ndarray, signs: np.ndarray, cell_in: float, in_corner: bool) -> None:
    """Put a dot on every cell whose sign is called, clear of the printed value."""
    cell_pt = 72 * cell_in
    diameter_pt = np.clip(0.1 * cell_pt, 1.7, 3) if in_corner else 0.3 * cell_pt
    inset = (diameter_pt / 2 + 1.4) / cell_pt if in_corner else 0.5
    rows, columns = np.nonzero(signs)
    inks = [_ink(colours[row, column]) for row, column in zip(rows, columns, strict=True)]
    axes.scatter(columns + 1 - inset, rows + inset, s=diameter_pt**2, c=inks, linewidths=0, zorder=4, gid="called")


def _ink(colour: np.ndarray) -> str:
    """Black or white, whichever stands out from a cell's colour."""
    luminance = colour[:3] ** 2.2 @ (0.2126, 0.7152, 0.0722)
    return "white" if luminance < 0.18 else "black"  # equal contrast at 0.18


def _colour_bar(figure: Figure, mesh: matplotlib.collections.QuadMesh, place: tuple[float, ...]) -> None:
    """Add the colour bar under the matrix, labelled with what is better."""
    bar = figure.colorbar(mesh, cax=figure.add_axes(place), orientation="horizontal", extend="both", extendfrac=0.03)
    bar.set_ticks([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])
    bar.ax.tick_params(labelsize=6, length=2, pad=1.5)
    bar.outline.set_linewidth(0.5)
    bar.set_label("CLTM[i, j], higher is better (<0 hurts, 1 = own data)", fontsize=6.5, labelpad=2)
