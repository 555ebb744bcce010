"""Language-weighted cross-entropy for a low-resource language in Whisper (arXiv 2409.16954)."""

from cltmlib.weighted_ce.data import Speech, prepare
from cltmlib.weighted_ce.loss import batch_scale, group_losses, utterance_losses, weighted_cross_entropy
from cltmlib.weighted_ce.results import (
    AVERAGE,
    OTHERS,
    beside_the_paper,
    changes,
    checkpoints,
    error_counts,
    error_rates,
    forgetting,
    table,
    test_set_intervals,
    training_steps,
    weighting_effects,
    weighting_sentences,
)
from cltmlib.weighted_ce.systems import ORIGINAL, PLAIN, PUBLISHED, SYSTEMS, System, schedule
from cltmlib.weighted_ce.training import Worker
from cltmlib.weighted_ce.weights import ConstantWeight, LinearProgressiveWeight, LossRatioWeight

__all__ = [
    "AVERAGE",
    "ORIGINAL",
    "OTHERS",
    "PLAIN",
    "PUBLISHED",
    "SYSTEMS",
    "ConstantWeight",
    "LinearProgressiveWeight",
    "LossRatioWeight",
    "Speech",
    "System",
    "Worker",
    "batch_scale",
    "beside_the_paper",
    "changes",
    "checkpoints",
    "error_counts",
    "error_rates",
    "forgetting",
    "group_losses",
    "prepare",
    "schedule",
    "table",
    "test_set_intervals",
    "training_steps",
    "utterance_losses",
    "weighted_cross_entropy",
    "weighting_effects",
    "weighting_sentences",
]
