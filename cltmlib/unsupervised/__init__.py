"""Sequence-level unsupervised training: when speech without transcripts and text without speech are enough.

Theory and loss of *Sequence-Level Unsupervised Training in Speech Recognition: A Theoretical Study* (Yang, Barkoczi,
Schlueter, Ney; arXiv 2603.02285). Theorem 1 follows its statement as reported in secondary sources; proofs, the sharper
constant, the counterexamples and all simulations are a reconstruction.
"""

from cltmlib.unsupervised.bound import Conditioning, classification_error_bound, conditioning, sharp_constant
from cltmlib.unsupervised.cases import counterexamples, product_counterexample, proposition_a, structures
from cltmlib.unsupervised.exact import Exact, Mismatch, enumerate_models, language_model_matrix, mismatch
from cltmlib.unsupervised.inequalities import INEQUALITIES
from cltmlib.unsupervised.loss import generative_scores, label_posteriors, posterior_scores, sequence_cross_entropy
from cltmlib.unsupervised.ngram import NGram, estimate_ngram, from_table
from cltmlib.unsupervised.phones import alphabet, phone_table, phones_of
from cltmlib.unsupervised.population import KINDS, population_summary, train_on_population
from cltmlib.unsupervised.report import objectives_sentence, speech_sentence, topline_sentence, validation_sentence
from cltmlib.unsupervised.simulation import (
    against_topline,
    compare_methods,
    compare_objectives,
    mean_and_error,
    objectives_summary,
    sample_sizes,
)
from cltmlib.unsupervised.training import expectation_maximisation
from cltmlib.unsupervised.validation import (
    conditioning_sweep,
    constants_by_size,
    tightness,
    validate_bound,
    violations,
)

__all__ = [
    "INEQUALITIES",
    "KINDS",
    "Conditioning",
    "Exact",
    "Mismatch",
    "NGram",
    "against_topline",
    "alphabet",
    "classification_error_bound",
    "compare_methods",
    "compare_objectives",
    "conditioning",
    "conditioning_sweep",
    "constants_by_size",
    "counterexamples",
    "enumerate_models",
    "estimate_ngram",
    "expectation_maximisation",
    "from_table",
    "generative_scores",
    "label_posteriors",
    "language_model_matrix",
    "mean_and_error",
    "mismatch",
    "objectives_sentence",
    "objectives_summary",
    "phone_table",
    "phones_of",
    "population_summary",
    "posterior_scores",
    "product_counterexample",
    "proposition_a",
    "sample_sizes",
    "sequence_cross_entropy",
    "sharp_constant",
    "speech_sentence",
    "structures",
    "tightness",
    "topline_sentence",
    "train_on_population",
    "validate_bound",
    "validation_sentence",
    "violations",
]
