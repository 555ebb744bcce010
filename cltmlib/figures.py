"""Figures of the study: one style, one way to save, the matrix heatmap and the self-gain bars.

A function takes tables and returns a Figure at printed size; ``save_figure`` writes it beside the numbers it draws.
Nothing here touches pyplot or the reader's matplotlib settings.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from matplotlib.transforms import blended_transform_factory

from cltmlib.errors import InputError

COLUMN_IN, PAGE_IN = 3.3, 6.9  # printed width of one column and of two

STYLE = {
    "font.family": "DejaVu Sans",  # the font that matplotlib brings along
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "hatch.linewidth": 0.5,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: text stays text for reviewers and for search
    "ps.fonttype": 42,
}

COLOUR_LIMIT = 1.5  # the paper's scale, Section 4
_COLOUR_MAP = "RdBu"  # red = donor hurts, white = no effect, blue = donor helps; safe for colour-blind readers
_UNDEFINED = {"facecolor": "0.85", "edgecolor": "0.55", "hatch": "/////", "linewidth": 0}
_MAX_PRINTED, _MAX_PRINTED_ERRORS, _MAX_IN_COLUMN = 24, 16, 8  # languages

# Okabe and Ito, without the yellow that is invisible on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#404040")
_MARKERS, _OTHER_MARKERS = "os^DvP", "X<>*ph"
# Position decides colour and marker, so new families go to the end.
_FAMILIES = (
    "Indo-European (Germanic)", "Indo-European (Romance)", "Indo-European (Slavic)", "Turkic",
    "Indo-European (Indo-Aryan)", "Indo-European (Iranian)", "Uralic",
    "Sino-Tibetan", "Niger-Congo", "Afro-Asiatic (Semitic)", "Dravidian",
    "Austronesian", "Indo-European (Celtic)", "Indo-European (Baltic)",
    "Uralic (Finnic)", "Kartvelian", "Indo-European", "Constructed", "Language isolate", "Austroasiatic", "Koreanic",
    "Japonic", "Kra-Dai", "Mongolic", "Afro-Asiatic (Berber)", "Northwest Caucasian", "Indo-European (Hellenic)",
    "Indo-European (Albanian)",
    "Afro-Asiatic (Chadic)", "Afro-Asiatic (Cushitic)", "Creole", "Nilotic", "Northeast Caucasian", "Quechuan",
    "Tupian",
    "Uto-Aztecan",
)  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the study, whatever the reader's matplotlibrc says; afterwards all is as before."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


class StudyFigure(Figure):
    """A matplotlib Figure that a notebook shows without pyplot; make it and draw on it inside ``style()``."""

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        with style():
            buffer = BytesIO()
            self.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
        return buffer.getvalue()


def family_style(families: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Colour and marker of each family, the same in every figure of the study.

    Choice: a family outside the built-in table gets a pair from a hash of its name, with markers of its own; two such
    families may share a pair.

    Args:
        families: family of each language.

    Returns:
        ``{family: {"color": ..., "marker": ...}}``, ready as keyword arguments of ``Axes.plot``.

    Example:
        >>> family_style({"de": "Indo-European (Germanic)"})
        {'Indo-European (Germanic)': {'color': '#0072B2', 'marker': 'o'}}
    """
    n = len(_COLOURS)
    styles = {}
    for family in sorted(set(families.values())):
        if family in _FAMILIES:
            position, markers = _FAMILIES.index(family), _MARKERS
        else:
            position, markers = zlib.crc32(family.encode()) % (n * len(_OTHER_MARKERS)), _OTHER_MARKERS
        styles[family] = {"color": _COLOURS[position % n], "marker": markers[position // n]}
    return styles


def family_order(languages: Sequence[str], families: Mapping[str, str]) -> list[str]:
    """Order languages by family name, keeping the given order inside a family: the order of all figures.

    Raises:
        InputError: a language has no family.

    Example:
        >>> family_order(["tr", "de", "uz"], {"tr": "Turkic", "uz": "Turkic", "de": "Germanic"})
        ['de', 'tr', 'uz']
    """
    for language in languages:
        if language not in families:
            raise InputError(f"Language {language!r} has no family: add it to the family table.")
    return sorted(languages, key=lambda language: families[language])


def heatmap(
    values: pd.DataFrame,
    families: Mapping[str, str],
    standard_error: pd.DataFrame | None = None,
    title: str | None = None,
) -> StudyFigure:
    """Draw a CLTM as the paper's Figure 5: symmetric colours in [-1.5, 1.5], families framed on the diagonal.

    Up to 24 languages have their values printed in the cells, up to 16 with the standard error under them. Up to 8
    languages fit one column of print. Undefined cells (self-gain not positive) are grey and hatched.

    Args:
        values: CLTM; rows = targets, columns = donors, the same languages.
        families: family of each language; languages are drawn in ``family_order``.
        standard_error: standard error of each cell, rows and columns as ``values``.
        title: short title above the matrix.

    Raises:
        InputError: a language has no family, or rows and columns are not the same languages.

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
    with style():
        width_in = COLUMN_IN if n <= _MAX_IN_COLUMN else PAGE_IN
        label_pt = 7 if n <= 16 else 6 if n <= 24 else 4.8
        blocks = _family_blocks(order, families, wrap=n <= 16)
        left_in = 0.34 + _text_in(order, label_pt)
        right_in = 0.16 + _text_in([line for *_, text in blocks for line in text.split("\n")], label_pt)
        cell_in = (width_in - left_in - right_in) / n
        upright = cell_in < _text_in(order, label_pt) + 0.03
        top_in = (0.22 if title else 0.03) + 0.2 + (_text_in(order, label_pt) if upright else 0.1) + 0.14
        bottom_in = 0.56 + (0.17 if matrix.mask.any() else 0)
        figure = StudyFigure(figsize=(width_in, top_in + n * cell_in + bottom_in))
        place = _place_in_inches(figure)
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

        _colour_bar(figure, mesh, place(left_in, bottom_in - 0.2, n * cell_in, 0.09))
        if matrix.mask.any():
            note = "Hatched: self-gain not positive, Eq. (2) undefined."
            figure.text(left_in / width_in, 0.05 / figure.get_figheight(), note, fontsize=6, gid="note")
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
        left_in = 0.34 + _text_in(order, label_pt)
        right_in = 0.16 + _text_in([line for *_, text in blocks for line in text.split("\n")], label_pt)
        top_in, bottom_in = 0.3 if title else 0.08, 0.58
        figure = StudyFigure(figsize=(width_in, top_in + n * row_in + bottom_in))
        place = _place_in_inches(figure)
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


def save_figure(
    figure: Figure, table: pd.DataFrame | pd.Series, directory: str | os.PathLike, name: str, run_id: str
) -> dict[str, Path]:
    """Write a figure as PDF and PNG, and what it draws as CSV; the same figure gives the same bytes.

    Files are written under a temporary name and renamed when all three are complete. The run id stands in the PDF
    keywords and in the PNG text field "run_id"; no file holds a time.

    Args:
        figure: the figure, saved at its own size.
        table: the numbers that it draws.
        directory: folder to write to, made where missing.
        name: file name without extension.
        run_id: identifier of the run that made the numbers.

    Returns:
        The three paths, by extension: "csv", "pdf", "png".

    Raises:
        InputError: ``name`` is not a plain file name, or the folder cannot be written (full disk, no permission).
    """
    if name in {"", ".."} or Path(name).name != name:
        raise InputError(f"Figure name {name!r} is not a plain file name: give the folder as directory instead.")
    directory = Path(directory)
    writers: dict[str, Callable[[Path], None]] = {
        "csv": lambda path: table.to_csv(path, lineterminator="\n", encoding="utf-8"),
        "pdf": lambda path: figure.savefig(
            path, format="pdf", metadata={"Title": name, "Keywords": run_id, "CreationDate": None}
        ),
        "png": lambda path: figure.savefig(
            path, format="png", metadata={"Title": name, "run_id": run_id, "Software": None}
        ),
    }
    temporary = {kind: directory / f".{name}.{kind}.{os.getpid()}.tmp" for kind in writers}
    final = {kind: directory / f"{name}.{kind}" for kind in writers}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with style():
            for kind, write in writers.items():
                write(temporary[kind])
        for kind in writers:
            os.replace(temporary[kind], final[kind])
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"Figure {name!r} could not be written to {directory} ({reason}): check the folder and its free space."
        ) from error
    finally:
        for path in temporary.values():
            try:
                path.unlink(missing_ok=True)
            except OSError:
                pass
    return final


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
        axes.plot(np.zeros(stop - start), centres, transform=beside + _shift(axes, -4.5, 0), **marker)
        if on_top:
            axes.plot(centres, np.ones(stop - start), transform=above + _shift(axes, 0, 4.5), **marker)
        axes.plot([1, 1], [start + 0.12, stop - 0.12], transform=beside + _shift(axes, 4, 0), clip_on=False,
                  color=styles[family]["color"], linewidth=1.2, solid_capstyle="butt")  # fmt: skip
        axes.text(1, (start + stop) / 2, text, transform=beside + _shift(axes, 7, 0), va="center", fontsize=label_pt,
                  linespacing=1.0, gid="family")  # fmt: skip


def _print_cells(
    axes: Axes, colours: np.ndarray, matrix: np.ma.MaskedArray, errors: pd.DataFrame | None, cell_in: float
) -> None:
    """Print values, and errors under them, in the ink that stands out from the cell's colour."""
    texts = [f"{value:.2f}" for value in matrix.compressed()]
    size = min(7.0, 0.86 * cell_in / max(_text_in([text], 1) for text in texts)) if texts else 7.0
    for (row, column), value in np.ndenumerate(matrix):
        if matrix.mask.any() and matrix.mask[row, column]:
            continue
        luminance = colours[row, column, :3] ** 2.2 @ (0.2126, 0.7152, 0.0722)
        ink = {"color": "white" if luminance < 0.18 else "black", "ha": "center"}  # equal contrast at 0.18
        error = np.nan if errors is None else errors.iloc[row, column]
        shown = np.isfinite(error) and row != column
        axes.text(column + 0.5, row + (0.38 if shown else 0.5), f"{value:.2f}", va="center_baseline", fontsize=size,
                  gid="value", **ink)  # fmt: skip
        if shown:
            axes.text(column + 0.5, row + 0.74, f"\N{PLUS-MINUS SIGN}{error:.2f}", va="center_baseline",
                      fontsize=0.72 * size, gid="standard_error", **ink)  # fmt: skip


def _colour_bar(figure: Figure, mesh: matplotlib.collections.QuadMesh, place: tuple[float, ...]) -> None:
    """Add the colour bar under the matrix, labelled with what is better."""
    bar = figure.colorbar(mesh, cax=figure.add_axes(place), orientation="horizontal", extend="both", extendfrac=0.03)
    bar.set_ticks([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])
    bar.ax.tick_params(labelsize=6, length=2, pad=1.5)
    bar.outline.set_linewidth(0.5)
    bar.set_label("CLTM[i, j], higher is better (<0 hurts, 1 = own data)", fontsize=6.5, labelpad=2)


def _text_in(texts: Sequence[str], size_pt: float) -> float:
    """Width in inches of the widest text, from the outlines of the bundled font."""
    font = FontProperties(family="DejaVu Sans")
    return max(TextPath((0, 0), text, size=size_pt, prop=font).get_extents().width for text in texts) / 72


def _place_in_inches(figure: Figure) -> Callable[[float, float, float, float], tuple[float, float, float, float]]:
    """Rectangle in figure fractions from left, bottom, width, height in inches."""
    width, height = figure.get_size_inches()
    return lambda left, bottom, w, h: (left / width, bottom / height, w / width, h / height)


def _shift(axes: Axes, x_pt: float, y_pt: float) -> matplotlib.transforms.Transform:
    return matplotlib.transforms.ScaledTranslation(x_pt / 72, y_pt / 72, axes.figure.dpi_scale_trans)
