"""Parallel utterances: the same sentence, of one split, in two languages (arXiv 2511.09232, Section 3.2)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from cltmlib.corpora import frame
from cltmlib.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

STRATEGIES = ("random", "anchor", "frozen_anchor")


class ParallelPair(NamedTuple):
    """Two utterances of one sentence; the source is the anchor where there is one."""

    source_id: str
    target_id: str
    source_language: str
    target_language: str
    sentence_id: str


class ParallelPairs:
    """Pairs of utterances that share a ``sentence_id`` within one split.

    Args:
        rows: utterances of a corpus.
        languages: languages to pair, at least two; with a strategy with an anchor, the anchor among them.
        split: only its utterances are paired.
        strategy: "random": two random languages; "anchor": the anchor and one random language; "frozen_anchor": the
            same, and ``freeze_source`` is True: pass it on to ``alignment_loss``.
        anchor: language of the anchor.
        incomplete: sentences that some language lacks raise ("error") or are paired among the languages that have them
            ("skip"). FLEURS has such sentences in its training split.

    Attributes:
        freeze_source: whether the source side of a pair is to get no gradient.

    Raises:
        InputError: a language has no utterance in the split or lacks a sentence, two languages share none, or an
            argument is unknown.
    """

    def __init__(
        self,
        rows: "Dataset | pd.DataFrame",
        languages: Sequence[str],
        split: str = "train",
        strategy: str = "random",
        anchor: str = "en",
        incomplete: str = "error",
    ):
        languages = list(languages)
        if strategy not in STRATEGIES or incomplete not in ("error", "skip"):
            raise InputError(f"Pairing strategy {strategy!r}, incomplete={incomplete!r}: there are {STRATEGIES}.")
        if len(set(languages)) < max(2, len(languages)) or (strategy != "random" and anchor not in languages):
            raise InputError(f"Languages {languages}: pairs need two or more, each once, and the anchor among them.")
        self.languages, self.split, self.anchor = languages, split, None if strategy == "random" else anchor
        self.freeze_source = strategy == "frozen_anchor"
        self._recordings = _recordings(rows, languages, split)
        sentences = {language: set(self._recordings[language]) for language in languages}
        if incomplete == "error":
            wanted = sorted(set().union(*sentences.values()))
            for language in languages:
                for sentence_id in wanted:
                    self._of(language, sentence_id)
        self._shared = {}  # (source language, target language) -> sentences, in a fixed order
        for source in [self.anchor] if self.anchor else languages:
            for target in languages:
                if source != target:
                    self._shared[source, target] = sorted(sentences[source] & sentences[target])
                    if not self._shared[source, target]:
                        raise InputError(
                            f"Languages {source!r} and {target!r} share no sentence in the {split} split: omit one."
                        )

    def sample(self, n_pairs: int, generator: np.random.Generator) -> list[ParallelPair]:
        """Draw pairs of two languages: sentences without repetition, a recording of each.

        One pair of languages for all: a step that is to mix languages draws its pairs one by one. Sources and targets
        are symmetric in the "random" strategy; of several recordings of a sentence one is drawn for each pair.

        Raises:
            InputError: the languages drawn share fewer than ``n_pairs`` sentences.
        """
        source, target = list(self._shared)[generator.integers(len(self._shared))]
        sentences = self._shared[source, target]
        if not 1 <= n_pairs <= len(sentences):
            raise InputError(
                f"Languages {source!r} and {target!r} share {len(sentences)} sentences in the {self.split} split, "
                f"which cannot make {n_pairs} pairs: change the number of pairs."
            )
        pairs = []
        for k in generator.choice(len(sentences), n_pairs, replace=False):
            names = (generator.choice(self._of(language, sentences[k])) for language in (source, target))
            pairs.append(ParallelPair(*map(str, names), source, target, sentences[k]))
        return pairs

    def _of(self, language: str, sentence_id: str) -> list[str]:
        recordings = self._recordings.get(language, {})
        if sentence_id not in recordings:
            raise InputError(
                f"Language {language!r} has no recording of sentence {sentence_id!r} in the {self.split} split: leave "
                "the sentence or the language out, or pass incomplete='skip'."
            )
        return recordings[sentence_id]


def target_sentences(rows: "Dataset | pd.DataFrame", language: str) -> pd.Series:
    """Text of the parallel sentence in ``language`` for every utterance: the reference of its translation.

    Choice: of texts that differ between recordings of one sentence, the first.

    Args:
        rows: utterances of a corpus, those of ``language`` among them.
        language: language of the translations.

    Returns:
        Sentences, index = utterance id, in the order of ``rows``.

    Raises:
        InputError: a sentence has no text in that language in its split.
    """
    table = frame(rows, ["utterance_id", "language", "sentence", "sentence_id", "split"])
    known = table[(table["language"] == language) & table["sentence"].notna()]
    texts = known.drop_duplicates(["split", "sentence_id"]).set_index(["split", "sentence_id"])["sentence"]
    keys = pd.MultiIndex.from_frame(table[["split", "sentence_id"]])
    missing = ~keys.isin(texts.index)
    if missing.any():
        row = table.iloc[int(missing.argmax())]
        raise InputError(
            f"Language {language!r} has no text of sentence {row['sentence_id']!r} in the {row['split']} split, which "
            f"utterance {row['utterance_id']!r} needs: leave the sentence out."
        )
    return pd.Series(texts.reindex(keys).to_numpy(), index=pd.Index(table["utterance_id"], name="utterance_id"))


def _recordings(rows: "Dataset | pd.DataFrame", languages: list[str], split: str) -> dict[str, dict[str, list[str]]]:
    """Language -> sentence id -> utterance ids, in the order of the rows."""
    table = frame(rows, ["utterance_id", "language", "sentence_id", "split"])
    table = table[(table["split"] == split) & table["sentence_id"].notna()]
    found: dict[str, dict[str, list[str]]] = {language: {} for language in languages}
    for row in table[table["language"].isin(languages)].itertuples():
        found[row.language].setdefault(row.sentence_id, []).append(row.utterance_id)
    for language, sentences in found.items():
        if not sentences:
            raise InputError(f"Language {language!r} has no sentence in the {split} split: leave it out.")
    return found
