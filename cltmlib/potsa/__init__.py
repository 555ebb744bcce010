"""POTSA (arXiv 2511.09232): speech tokens of parallel utterances brought together across languages."""

from cltmlib.potsa.alignment import alignment_loss
from cltmlib.potsa.bias import LanguageBias
from cltmlib.potsa.pairs import ParallelPair, ParallelPairs, target_sentences
from cltmlib.potsa.retrieval import jensen_shannon_divergence, recall_at_1
from cltmlib.potsa.scheduler import LayerScheduler
from cltmlib.potsa.transport import cosine_cost, marginal_error, sinkhorn, squared_euclidean_cost

__all__ = [
    "LanguageBias",
    "LayerScheduler",
    "ParallelPair",
    "ParallelPairs",
    "alignment_loss",
    "cosine_cost",
    "jensen_shannon_divergence",
    "marginal_error",
    "recall_at_1",
    "sinkhorn",
    "squared_euclidean_cost",
    "target_sentences",
]
