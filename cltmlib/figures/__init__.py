"""Figures of the study: one style, one way to save, one function per figure.

A function takes tables and returns a Figure at printed size; ``save_figure`` writes it beside the numbers it draws.
Nothing here touches pyplot or the reader's matplotlib settings.
"""

from cltmlib.figures.curves import learning_curves, learning_curves_by_language
from cltmlib.figures.embedding import distance_against_transfer, embedding_map, trial_scores
from cltmlib.figures.interval import interval_curve
from cltmlib.figures.levels import resource_gains, tasks_side_by_side
from cltmlib.figures.matrix import COLOUR_LIMIT, heatmap, self_gain_bars
from cltmlib.figures.potsa import encoder_maps, layer_choices, recall_against_overlap, transport_plans
from cltmlib.figures.recognition import forgetting_map, systems_wer, training_weights
from cltmlib.figures.style import (
    COLUMN_IN,
    PAGE_IN,
    STYLE,
    StudyFigure,
    family_order,
    family_style,
    save_figure,
    style,
)
from cltmlib.figures.unsupervised import (
    bound_scatter,
    conditioning_curves,
    conditions,
    method_dots,
    sample_size_curves,
    structure,
    training_curves,
)

__all__ = [
    "COLOUR_LIMIT",
    "COLUMN_IN",
    "PAGE_IN",
    "STYLE",
    "StudyFigure",
    "bound_scatter",
    "conditioning_curves",
    "conditions",
    "distance_against_transfer",
    "embedding_map",
    "encoder_maps",
    "family_order",
    "family_style",
    "forgetting_map",
    "heatmap",
    "interval_curve",
    "layer_choices",
    "learning_curves",
    "learning_curves_by_language",
    "method_dots",
    "recall_against_overlap",
    "resource_gains",
    "sample_size_curves",
    "save_figure",
    "self_gain_bars",
    "structure",
    "style",
    "systems_wer",
    "tasks_side_by_side",
    "training_curves",
    "training_weights",
    "transport_plans",
    "trial_scores",
]
