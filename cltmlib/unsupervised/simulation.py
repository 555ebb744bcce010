"""Training on finite, unpaired samples: symbol error of every method against the supervised topline.

Labels, speech and text are drawn; the text that gives the language model and the speech share no sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cltmlib.errors import InputError
from cltmlib.unsupervised import training
from cltmlib.unsupervised.bound import conditioning
from cltmlib.unsupervised.ngram import NGram, draw, estimate_ngram
from cltmlib.unsupervised.validation import stationary

N_LABELS, N_SYMBOLS, N_POSITIONS = 6, 12, 10
N_TEST = 1000
CONFUSION = 0.3  # share of the speech that says nothing about the label's own symbols
N_SHORT, N_SUBSET = 20, 500  # iterations and sequences of the search over starts
KINDS = ("full-rank bigram", "stationary bigram", "circulant bigram", "i.i.d.")


@dataclass(frozen=True)
class Problem:
    """A language model, an emission, unpaired speech and text, and a labelled test set.

    Attributes:
        language_model: the true one.
        emission: O, (K, V).
        symbols, labels: speech for training, int64 (S, N), and its labels, which only the topline sees.
        text: label sequences of other sentences, int64 (n_text, N).
        test_symbols, test_labels: (n_test, N).
    """

    language_model: NGram
    emission: Tensor
    symbols: Tensor
    labels: Tensor
    text: np.ndarray
    test_symbols: Tensor
    test_labels: Tensor

    def language_model_of(self, n_text: int) -> NGram:
        """The bigram of the first sentences of the text."""
        return estimate_ngram(self.text[:n_text], len(self.emission))

    def error(self, emission: Tensor, language_model: NGram) -> float:
        """Symbol error on the test set."""
        return training.symbol_error(emission, language_model, self.test_symbols, self.test_labels)


def draw_problem(kind: str, n_speech: int, n_text: int, seed: int) -> Problem:
    """Draw a problem with a language model of one of the ``KINDS``.

    Transitions have Dirichlet(1/2) rows. ``full-rank bigram``: with a start of its own, drawn until P has full column
    rank in floating point; ``stationary bigram``: starts as it goes on, rank 1; ``circulant bigram``: uniform start,
    each row of the transitions the one before moved on by one, rank 1 and symmetric; ``i.i.d.``: no order. Each label
    has two symbols of its own, which it sounds as except for a share ``CONFUSION``.
    """
    if kind not in KINDS:
        raise InputError(f"There is no kind of language model {kind!r}: choose one of {', '.join(KINDS)}.")
    generator = np.random.default_rng([seed, KINDS.index(kind)])
    language_model = _language_model(kind, generator)
    own = np.zeros((N_LABELS, N_SYMBOLS))
    for label, symbols in enumerate(generator.permutation(N_SYMBOLS).reshape(N_LABELS, -1)):
        own[label, symbols] = generator.dirichlet(np.ones(len(symbols)))
    anything = generator.dirichlet(np.ones(N_SYMBOLS), N_LABELS)
    emission = (1 - CONFUSION) * own + CONFUSION * anything
    labels = language_model.sample(n_speech, N_POSITIONS, generator)
    test_labels = language_model.sample(N_TEST, N_POSITIONS, generator)
    return Problem(
        language_model=language_model,
        emission=torch.from_numpy(emission),
        symbols=_speak(labels, emission, generator),
        labels=torch.from_numpy(labels),
        text=language_model.sample(n_text, N_POSITIONS, generator),
        test_symbols=_speak(test_labels, emission, generator),
        test_labels=torch.from_numpy(test_labels),
    )


def compare_methods(
    kinds: Sequence[str], seeds: Sequence[int], n_speech: int, n_text: int, n_iterations: int, n_starts: int
) -> pd.DataFrame:
    """Symbol error of unsupervised training, its topline and its floors, for several language models.

    Methods: ``true`` (true emission and language model), ``supervised`` (paired counts on the same speech, language
    model from the text: the topline), ``EM flat`` (flat start), ``EM best`` (flat and random starts, best by loss, no
    labels), ``least squares`` (positional unigrams alone), ``no speech`` (the language model alone).

    Returns:
        One row per language model, seed and method: symbol_error, loss (training loss, nats per sequence), and the
        rank and sigma_min of the true P.
    """
    rows = []
    for kind in kinds:
        for seed in seeds:
            problem = draw_problem(kind, n_speech, n_text, seed)
            found = conditioning(problem.language_model.matrix(N_POSITIONS))
            for method, (emission, language_model) in _methods(problem, n_text, n_iterations, n_starts, seed).items():
                rows.append({
                    "language_model": kind, "seed": seed, "method": method, "rank": found.rank,
                    "sigma_min": found.sigma_min, "symbol_error": problem.error(emission, language_model),
                    "loss": training.cross_entropy(emission, language_model, problem.symbols),
                })  # fmt: skip
    return pd.DataFrame(rows)


def _methods(problem: Problem, n_text: int, n_iterations: int, n_starts: int, seed: int) -> dict:
    """Emission and language model of each method."""
    generator = np.random.default_rng([seed, 1])
    language_model = problem.language_model_of(n_text)
    flat = training.flat_start(N_LABELS, N_SYMBOLS, generator)
    starts = torch.cat([flat, training.random_starts(n_starts, N_LABELS, N_SYMBOLS, generator)])
    from_flat = training.expectation_maximisation(problem.symbols, language_model, flat, n_iterations)
    best = training.best_of_starts(
        from_flat, problem.symbols, language_model, starts, n_iterations, n_short=N_SHORT, n_subset=N_SUBSET
    )
    matrix = language_model.matrix(N_POSITIONS)
    emissions = {
        "supervised": training.supervised_emission(problem.symbols, problem.labels, N_LABELS, N_SYMBOLS),
        "EM flat": from_flat.best,
        "EM best": best.best,
        "least squares": training.least_squares(problem.symbols, matrix, N_SYMBOLS),
        "no speech": torch.full((N_LABELS, N_SYMBOLS), 1 / N_SYMBOLS, dtype=torch.float64),
    }
    return {"true": (problem.emission, problem.language_model)} | {
        name: (emission, language_model) for name, emission in emissions.items()
    }


def sample_sizes(
    text_sizes: Sequence[int], speech_sizes: Sequence[int], seeds: Sequence[int], n_iterations: int
) -> pd.DataFrame:
    """How much text and how much speech it takes, on the full-rank bigram: EM from a flat start against its topline.

    One is varied while the other has its largest size.

    Returns:
        One row per varied (``text`` or ``speech``), size, seed and method (``EM flat``, ``supervised``): symbol_error.
    """
    if not (text_sizes and speech_sizes):
        raise InputError("Parameters 'text_sizes' and 'speech_sizes' must each hold at least one size.")
    largest = {"text": max(text_sizes), "speech": max(speech_sizes)}
    rows = []
    for seed in seeds:
        problem = draw_problem(KINDS[0], largest["speech"], largest["text"], seed)
        flat = training.flat_start(N_LABELS, N_SYMBOLS, np.random.default_rng([seed, 2]))
        for varied, sizes in (("text", text_sizes), ("speech", speech_sizes)):
            for size in sizes:
                n_text, n_speech = (size if varied == what else largest[what] for what in ("text", "speech"))
                language_model = problem.language_model_of(n_text)
                symbols, labels = problem.symbols[:n_speech], problem.labels[:n_speech]
                emissions = {
                    "EM flat": training.expectation_maximisation(symbols, language_model, flat, n_iterations).best,
                    "supervised": training.supervised_emission(symbols, labels, N_LABELS, N_SYMBOLS),
                }
                for method, emission in emissions.items():
                    error = problem.error(emission, language_model)
                    rows.append((varied, size, seed, method, error))
    return pd.DataFrame(rows, columns=["varied", "size", "seed", "method", "symbol_error"])


def compare_objectives(
    seeds: Sequence[int], n_speech: int, n_text: int, n_iterations: int, n_steps: int, n_starts: int
) -> pd.DataFrame:
    """The sequence-level cross-entropy against an adversarial objective, same speech, text and decoding.

    Full-rank bigram. Both train from ``n_starts`` random starts (the adversarial one: initialisations). Its generator
    is decoded alone, and with the language model (``q(x | c)`` by Bayes' rule), as the others are.

    Returns:
        One row per seed, start and method (``cross-entropy``, ``adversarial``, ``adversarial + LM``): symbol_error,
        loss (the sequence-level cross-entropy on the training speech, by which a start can be chosen without labels)
        and the topline of the seed.
    """
    from cltmlib.unsupervised.adversarial import emission_of, seed_of, train_adversarially

    problems = [draw_problem(KINDS[0], n_speech, n_text, seed) for seed in seeds]
    runs = [problem for problem in problems for _ in range(n_starts)]
    speech = torch.stack([problem.symbols for problem in runs])
    text = torch.stack([torch.from_numpy(problem.text) for problem in runs])
    own_seeds = [seed_of(seed, start) for seed in seeds for start in range(n_starts)]
    generated = iter(train_adversarially(speech, text, N_LABELS, N_SYMBOLS, n_steps, own_seeds))
    rows = []
    for seed, problem in zip(seeds, problems, strict=True):
        language_model = problem.language_model_of(n_text)
        supervised = training.supervised_emission(problem.symbols, problem.labels, N_LABELS, N_SYMBOLS)
        topline = problem.error(supervised, language_model)
        starts = training.random_starts(n_starts, N_LABELS, N_SYMBOLS, np.random.default_rng([seed, 3]))
        trained = training.expectation_maximisation(problem.symbols, language_model, starts, n_iterations)
        for start in range(n_starts):
            posteriors = next(generated)
            emission = emission_of(posteriors, problem.symbols)
            loss = training.cross_entropy(emission, language_model, problem.symbols)
            alone = float((posteriors.argmax(-1)[problem.test_symbols] != problem.test_labels).double().mean())
            found = {
                "cross-entropy": (problem.error(trained.emissions[start], language_model), trained.losses[-1, start]),
                "adversarial": (alone, loss),
                "adversarial + LM": (problem.error(emission, language_model), loss),
            }
            rows += [(seed, start, method, *values, topline) for method, values in found.items()]
    return pd.DataFrame(rows, columns=["seed", "start", "method", "symbol_error", "loss", "topline"])


def objectives_summary(objectives: pd.DataFrame) -> pd.DataFrame:
    """Adversarial training and the sequence-level cross-entropy beside the topline, means and errors over seeds.

    Returns:
        Rows = methods; columns all_starts and its standard_error (mean over the starts of a seed, then over seeds),
        best_start and its standard_error (the start of each seed with the lowest loss), topline.
    """
    seeds = ["method", "seed"]
    best = objectives.loc[objectives.groupby(seeds, sort=False)["loss"].idxmin()].set_index(seeds)["symbol_error"]
    mean = objectives.groupby(seeds, sort=False)["symbol_error"].mean()
    table = pd.DataFrame()
    for name, values in (("all_starts", mean), ("best_start", best)):
        groups = values.groupby("method", sort=False)
        table[name], table[f"{name}_standard_error"] = groups.mean(), groups.sem()
    table["topline"] = objectives.groupby("seed")["topline"].first().mean()
    return table


def mean_and_error(table: pd.DataFrame, by: Sequence[str], value: str = "symbol_error") -> pd.DataFrame:
    """Mean over seeds and its standard error; rows = groups, columns mean, standard_error, n."""
    groups = table.groupby(list(by), sort=False)[value]
    return pd.DataFrame({"mean": groups.mean(), "standard_error": groups.sem(), "n": groups.size()})


def against_topline(methods: pd.DataFrame, method: str = "EM best") -> pd.DataFrame:
    """Symbol error of a method less that of the supervised topline, paired by seed, in points.

    Returns:
        Rows = language models; excess (points), standard_error (over seeds), largest, rank (of P, the mean over seeds).
    """
    wide = methods.pivot_table(index=["language_model", "seed"], columns="method", values="symbol_error", sort=False)
    excess = (100 * (wide[method] - wide["supervised"])).groupby("language_model", sort=False)
    rank = methods.groupby("language_model", sort=False)["rank"].mean()
    return pd.DataFrame(
        {"excess": excess.mean(), "standard_error": excess.sem(), "largest": excess.max(), "rank": rank}
    )


def _language_model(kind: str, generator: np.random.Generator) -> NGram:
    row = generator.dirichlet(np.full(N_LABELS, 0.5))
    if kind == "circulant bigram":
        transition = np.stack([np.roll(row, k) for k in range(N_LABELS)])
        return NGram((np.full(N_LABELS, 1 / N_LABELS), transition))
    if kind == "i.i.d.":
        return NGram((row, np.tile(row, (N_LABELS, 1))))
    while True:
        transition = generator.dirichlet(np.full(N_LABELS, 0.5), N_LABELS)
        start = stationary(transition) if kind == "stationary bigram" else generator.dirichlet(np.ones(N_LABELS))
        language_model = NGram((start, transition))
        if kind == "stationary bigram" or conditioning(language_model.matrix(N_POSITIONS)).full_rank:
            return language_model


def _speak(labels: np.ndarray, emission: np.ndarray, generator: np.random.Generator) -> Tensor:
    return torch.from_numpy(draw(emission[labels.reshape(-1)], generator).reshape(labels.shape))
