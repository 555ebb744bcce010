"""The Cross-Lingual Transfer Matrix (CLTM, arXiv:2603.08231): the matrix, its errors, its diagnostics."""

from cltmlib.cltm.diagnostics import diagnostics
from cltmlib.cltm.donors import choose_donors, rank_donors
from cltmlib.cltm.geometry import (
    DistanceTransferCorrelation,
    centroid_distances,
    distance_and_transfer,
    distance_transfer_correlation,
    project,
    table_2,
)
from cltmlib.cltm.interval import DynamicInterval, chosen_n_samples, dynamic_interval, save_chosen
from cltmlib.cltm.matrix import (
    BootstrapStandardError,
    TransferMatrix,
    bootstrap_standard_error,
    cross_lingual_transfer_matrix,
)
from cltmlib.cltm.mismatch import language_cost, mismatch_table, score_trials, transfer_change
from cltmlib.cltm.published import PUBLISHED_NAMES, PUBLISHED_STABILITY, families, load_published, table_1
from cltmlib.cltm.reliability import (
    ConfidenceIntervals,
    SignCalls,
    SignStability,
    confidence_intervals,
    sign_calls,
    sign_stability,
)
from cltmlib.cltm.report import (
    beside_the_paper,
    change_sentence,
    correlation_sentence,
    mismatch_sentence,
    self_gain_sentence,
    stability_table,
    tasks_table,
)
from cltmlib.cltm.seed_selection import (
    seed_selection_effect,
    seed_selection_on_null_data,
    select_seeds_by_outcome,
)
from cltmlib.cltm.similarity import CorrelationInterval, cka_matrix, correlation_interval, layer_similarity, linear_cka

__all__ = [
    "PUBLISHED_NAMES",
    "PUBLISHED_STABILITY",
    "BootstrapStandardError",
    "ConfidenceIntervals",
    "CorrelationInterval",
    "DistanceTransferCorrelation",
    "DynamicInterval",
    "SignCalls",
    "SignStability",
    "TransferMatrix",
    "beside_the_paper",
    "bootstrap_standard_error",
    "centroid_distances",
    "change_sentence",
    "choose_donors",
    "chosen_n_samples",
    "cka_matrix",
    "confidence_intervals",
    "correlation_interval",
    "correlation_sentence",
    "cross_lingual_transfer_matrix",
    "diagnostics",
    "distance_and_transfer",
    "distance_transfer_correlation",
    "dynamic_interval",
    "families",
    "language_cost",
    "layer_similarity",
    "linear_cka",
    "load_published",
    "mismatch_sentence",
    "mismatch_table",
    "project",
    "rank_donors",
    "save_chosen",
    "score_trials",
    "seed_selection_effect",
    "seed_selection_on_null_data",
    "select_seeds_by_outcome",
    "self_gain_sentence",
    "sign_calls",
    "sign_stability",
    "stability_table",
    "table_1",
    "table_2",
    "tasks_table",
    "transfer_change",
]
