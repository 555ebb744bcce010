"""The Cross-Lingual Transfer Matrix (CLTM, arXiv:2603.08231): the matrix, its errors, its diagnostics."""

from cltmlib.cltm.diagnostics import diagnostics
from cltmlib.cltm.matrix import (
    BootstrapStandardError,
    TransferMatrix,
    bootstrap_standard_error,
    cross_lingual_transfer_matrix,
)
from cltmlib.cltm.published import PUBLISHED_NAMES, PUBLISHED_STABILITY, families, load_published, table_1
from cltmlib.cltm.report import beside_the_paper, self_gain_sentence, stability_table

__all__ = [
    "PUBLISHED_NAMES",
    "PUBLISHED_STABILITY",
    "BootstrapStandardError",
    "TransferMatrix",
    "beside_the_paper",
    "bootstrap_standard_error",
    "cross_lingual_transfer_matrix",
    "diagnostics",
    "families",
    "load_published",
    "self_gain_sentence",
    "stability_table",
    "table_1",
]
