"""One style for all figures of the study, one colour and marker per family, and one way to save."""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

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
