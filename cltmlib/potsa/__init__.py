"""POTSA (arXiv 2511.09232): speech tokens of parallel utterances brought together across languages."""

from cltmlib.potsa.alignment import alignment_loss
from cltmlib.potsa.bias import LanguageBias
from cltmlib.potsa.data import ParallelSpeech, prepare
from cltmlib.potsa.llm import LanguageModel, load_llm
from cltmlib.potsa.pairs import ParallelPair, ParallelPairs, target_sentences
from cltmlib.potsa.results import (
    AVERAGE,
    alignment_summary,
    bleu,
    differences,
    encoder_space,
    in_words,
    language_alignment,
    layer_choices,
    map_of,
    scores,
    table_1,
    table_2,
    training_losses,
    translations,
)
from cltmlib.potsa.retrieval import jensen_shannon_divergence, recall_at_1
from cltmlib.potsa.scheduler import LayerScheduler
from cltmlib.potsa.speech_llm import SpeechLLM
from cltmlib.potsa.systems import BASELINE, FULL, SYSTEMS, System
from cltmlib.potsa.training import NO_BIAS, Worker, llm_dtype
from cltmlib.potsa.transport import cosine_cost, marginal_error, sinkhorn, squared_euclidean_cost

__all__ = [
    "AVERAGE",
    "BASELINE",
    "FULL",
    "NO_BIAS",
    "SYSTEMS",
    "LanguageBias",
    "LanguageModel",
    "LayerScheduler",
    "ParallelPair",
    "ParallelPairs",
    "ParallelSpeech",
    "SpeechLLM",
    "System",
    "Worker",
    "alignment_loss",
    "alignment_summary",
    "bleu",
    "cosine_cost",
    "differences",
    "encoder_space",
    "in_words",
    "jensen_shannon_divergence",
    "language_alignment",
    "layer_choices",
    "llm_dtype",
    "load_llm",
    "map_of",
    "marginal_error",
    "prepare",
    "recall_at_1",
    "scores",
    "sinkhorn",
    "squared_euclidean_cost",
    "table_1",
    "table_2",
    "target_sentences",
    "training_losses",
    "translations",
]
