"""The matrices that the authors of arXiv:2603.08231 published, and their Table 1 beside what those matrices give.

The files in ``reference/`` are the values printed in the cells of the authors' heatmaps (Pol Buitrago Esteve,
cltm-framework, CC BY 4.0); ``reference/README.md`` has the attribution and how they were read.
"""

import math
from importlib.resources import files

import pandas as pd

from cltmlib.cltm.diagnostics import diagnostics
from cltmlib.errors import InputError

PUBLISHED_NAMES = ("gr_mhubert", "sv_mhubert", "sv_ecapa_tdnn", "sv_siamese", "sv_speechllm", "asr_mhubert")

# Section 4.4, over 10 seeds; the names are those of TransferMatrix.summary().
PUBLISHED_STABILITY = pd.DataFrame(
    {
        "gr_mhubert": [0.062, 0.075, 0.935, 0.304, 0.089],
        "sv_mhubert": [0.468, 0.545, 2.25, 0.037, 0.016],
    },
    index=["se_median", "se_mean", "rms", "self_gain_mean", "self_gain_std"],
)

_SMALL = 0.0025

_TASKS = {"Gender recognition": "gr_mhubert", "Speaker verification": "sv_mhubert"}

# Metric -> what the paper prints for the two tasks. RMS stands in Section 4.4, the rest in Table 1.
_PRINTED = {
    "rfd_1": ("0.162", "2.970"),
    "asym_rel": ("0.175", "1.084"),
    "prop_pos": ("99.97%", "8.93%"),
    "reciprocity_pos": ("99.93%", "16.91%"),
    "cos_rows": ("0.990", "0.615"),
    "intra_family_pos": ("4.98%", "41.68%"),
    "rms": ("0.935", "2.25"),
    "n_languages": ("44", "44"),
}

_NOTES = {
    "Gender recognition": {
        "n_languages": "The published gender-recognition matrix has 54 languages, not the 44 that Table 1 states; the "
        "other published values are those of all 54.",
        "rms": "The published cells give 0.934; their rounding does not explain the difference.",
        "intra_family_pos": "The published cells give 4.987%, which rounds to 4.99%; the paper's last digit seems cut "
        "off.",
    },
    "Speaker verification": {
        "prop_pos": "Counts the two cells printed 0.00 as positive, as 8.93% requires.",
        "reciprocity_pos": "The published value is ten times too large, a shifted decimal point of 1.691%: reciprocity "
        "cannot exceed prop_pos, here 8.93%.",
        "intra_family_pos": "Limit of two printed decimals: the shade of each cell narrows its value and gives "
        "41.66 +- 0.02%, which agrees with the paper.",
    },
}


def load_published(name: str) -> pd.DataFrame:
    """Load a published CLTM; rows = targets, columns = donors, in the order of the figure.

    Choice: ``0.00`` and ``-0.00`` are printed for numbers nearer to zero than 0.005, and their sign decides the
    counting diagnostics, so they are read as +0.0025 and -0.0025, the middle of what they can be.

    Args:
        name: one of ``PUBLISHED_NAMES``: task (gr, sv, asr) and system.

    Raises:
        InputError: there is no such matrix.

    Example:
        >>> load_published("asr_mhubert").loc["en", ["en", "be", "mhr"]].tolist()
        [1.0, 0.09, -0.0025]
    """
    if name not in PUBLISHED_NAMES:
        raise InputError(f"There is no published matrix {name!r}: choose one of {', '.join(PUBLISHED_NAMES)}.")
    text = _read(f"{name}.csv").set_index("target").rename_axis(columns="donor")
    return text.map(_read_cell)


def families() -> dict[str, str]:
    """Family of each of the 54 languages of the paper, by Common Voice locale code, as its authors map them.

    Indo-European branches are families of their own, Armenian is alone in "Indo-European" and Estonian,
    "Uralic (Finnic)", is apart from "Uralic": the intra-family share of Table 1 depends on it.

    Example:
        >>> families()["ca"]
        'Indo-European (Romance)'
    """
    table = _read("families.csv")
    return dict(zip(table["code"], table["family"], strict=True))


def table_1() -> pd.DataFrame:
    """Paper, Table 1 (and the RMS of Section 4.4) beside the same numbers recomputed from the published cells.

    Returns:
        Index (task, metric); columns ``published`` and ``recomputed``, text with the paper's number of digits, and
        ``note``, plain words where the two differ or need a reading.

    Example:
        >>> table_1().loc[("Gender recognition", "rfd_1"), ["published", "recomputed"]].tolist()
        ['0.162', '0.162']
    """
    rows = []
    for column, (task, name) in enumerate(_TASKS.items()):
        recomputed = diagnostics(load_published(name), families())
        recomputed["n_languages"] = recomputed.attrs["n_languages"]
        for metric, printed in _PRINTED.items():
            published = printed[column]
            note = _NOTES[task].get(metric, "")
            rows.append((task, metric, published, _format_like(published, recomputed[metric]), note))
    return pd.DataFrame(rows, columns=["task", "metric", "published", "recomputed", "note"]).set_index(
        ["task", "metric"]
    )


def _read(file_name: str) -> pd.DataFrame:
    """Read a file of ``reference/`` as text: pandas would take some codes for a missing value, and drop signs of 0."""
    with (files("cltmlib.cltm") / "reference" / file_name).open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def _read_cell(text: str) -> float:
    value = float(text)
    return math.copysign(_SMALL, value) if value == 0 else value


def _format_like(printed: str, value: float) -> str:
    """Write a value with the decimals, and the per cent sign, of a printed one."""
    decimals = len(printed.rstrip("%").partition(".")[2])
    return f"{100 * value:.{decimals}f}%" if printed.endswith("%") else f"{value:.{decimals}f}"
