"""Which clips train, choose and test: as many per high-resource language as the low-resource one has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import pandas as pd

from cltmlib.audio import WaveformStore, pack
from cltmlib.corpora import frame
from cltmlib.errors import InputError
from cltmlib.subsets.pool import checked, shuffled
from cltmlib.wer import normalise_text
from cltmlib.whisper import Whisper

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Speech:
    """All that the trainings read.

    Attributes:
        store: waveforms.
        low: the low-resource language.
        train: seed -> language -> utterance ids.
        dev: language -> utterance ids, by which checkpoints are chosen.
        test: language -> utterance ids.
        utterances: rows of the clips above, indexed by utterance_id.
        left_out: why clips were not used: language, split, reason, n.
    """

    store: WaveformStore
    low: str
    train: dict[int, dict[str, tuple[str, ...]]]
    dev: dict[str, tuple[str, ...]]
    test: dict[str, tuple[str, ...]]
    utterances: pd.DataFrame
    left_out: pd.DataFrame

    @property
    def languages(self) -> list[str]:
        """High-resource languages, then the low-resource one."""
        return list(self.test)

    def summary(self) -> pd.DataFrame:
        """Clips, minutes and speakers of the first seed's training set and of the other two: one row per language."""
        first = next(iter(self.train.values()))
        rows = {}
        for language in self.languages:
            parts = {"train": first[language], "dev": self.dev[language], "test": self.test[language]}
            rows[language] = {}
            for name, ids in parts.items():
                clips = self.utterances.loc[list(ids)]
                rows[language][f"{name} clips"] = len(ids)
                rows[language][f"{name} speakers"] = clips["speaker"].nunique()
            rows[language]["train minutes"] = round(self.store.duration_s(first[language]).sum() / 60, 1)
        return pd.DataFrame.from_dict(rows, orient="index")


def prepare(
    corpus: "Dataset | pd.DataFrame", params: Mapping, whisper: Whisper, store_directory: str | PathLike
) -> Speech:
    """Draw training, dev and test clips and decode them.

    Of every split the low-resource language gives all its clips (at most ``n_train_clips``, ``n_dev_clips``,
    ``n_test_clips``) and every other language, at random, as many or what it has (authors' code). Each seed draws its
    own training clips; dev and test clips are the same for all.

    Args:
        corpus: utterance rows of ``languages`` and ``low_resource_language``.
        params: with these two, seeds, n_train_clips, n_dev_clips, n_test_clips (None: as the low-resource language).
        whisper: says what is too long, in seconds and in tokens.
        store_directory: see `cltmlib.audio.pack`.

    Raises:
        InputError: the low-resource language is among the others, the tokenizer lacks a language, or nothing usable
            is left of a split.
    """
    low = params["low_resource_language"]
    languages = checked([*params["languages"], low])
    for language in languages:
        whisper.language_code(language)
    table = frame(corpus)
    table, left_out = _usable(table[table["language"].isin(languages)], whisper)
    by_split = {
        split: {language: rows["utterance_id"].tolist() for language, rows in part.groupby("language")}
        for split, part in table.groupby("split")
    }
    for split in ("train", "dev", "test"):
        for language in languages:
            if not by_split.get(split, {}).get(language):
                raise InputError(
                    f"Language {language!r} has no usable clip in its {split} split: "
                    f"{_reasons(left_out, language, split)}."
                )
    n = {split: len(by_split[split][low]) for split in by_split}
    n = {split: min(most, params[f"n_{split}_clips"] or most) for split, most in n.items()}
    draw = {
        seed: {i: shuffled(by_split["train"][i], "train", seed)[: n["train"]] for i in languages}
        for seed in params["seeds"]
    }
    dev, test = ({i: shuffled(by_split[split][i], split)[: n[split]] for i in languages} for split in ("dev", "test"))
    drawn = {u for part in (*draw.values(), dev, test) for ids in part.values() for u in ids}
    rows = table[table["utterance_id"].isin(drawn)]
    store = pack(rows, store_directory, whisper.sample_rate_hz, min_seconds=0.1)
    present = [u for u in rows["utterance_id"] if u in store]
    seconds = dict(zip(present, store.duration_s(present), strict=True))
    usable = {u for u, length in seconds.items() if length <= whisper.max_seconds}
    broken = rows[~rows["utterance_id"].isin(usable)]
    reasons = broken["utterance_id"].map(lambda u: "too long for the model" if u in seconds else "clip unusable")
    left_out = pd.concat([left_out, _counted(broken, reasons)], ignore_index=True)

    def kept(part: Mapping[str, Sequence[str]], split: str) -> dict[str, tuple[str, ...]]:
        ids = {language: tuple(sorted(usable.intersection(names))) for language, names in part.items()}
        for language, names in ids.items():
            if not names:
                raise InputError(f"No {split} clip of language {language!r} could be used: look at its audio files.")
        return ids

    return Speech(
        store=store,
        low=low,
        train={seed: kept(part, "train") for seed, part in draw.items()},
        dev=kept(dev, "dev"),
        test=kept(test, "test"),
        utterances=rows[rows["utterance_id"].isin(usable)].set_index("utterance_id"),
        left_out=left_out,
    )


def _usable(table: pd.DataFrame, whisper: Whisper) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with words that fit the model, and a count of the others by reason."""
    sentence = table["sentence"].fillna("").str.strip()
    reason = pd.Series(None, index=table.index, dtype=object)
    # A byte is at most one token, so that few of a million sentences have to be tokenised.
    long = sentence[sentence.str.encode("utf-8").str.len() > whisper.max_tokens]
    n_tokens = long.map(lambda text: len(whisper.tokenizer(text, add_special_tokens=False).input_ids))
    reason[n_tokens.index[n_tokens > whisper.max_tokens]] = "transcript too long for the model"
    reason[table["duration_s"] > whisper.max_seconds] = "too long for the model"
    reason[sentence.map(normalise_text) == ""] = "no words in the transcript"
    bad = reason.notna()
    return table[~bad], _counted(table[bad], reason[bad])


def _counted(rows: pd.DataFrame, reasons: pd.Series) -> pd.DataFrame:
    counted = rows.assign(reason=reasons).groupby(["language", "split", "reason"], sort=False).size()
    return counted.rename("n").reset_index()


def _reasons(left_out: pd.DataFrame, language: str, split: str) -> str:
    rows = left_out[(left_out["language"] == language) & (left_out["split"] == split)]
    if rows.empty:
        return "the corpus has none, add some or choose another language"
    return "left out were " + ", ".join(f"{row.n} ({row.reason})" for row in rows.itertuples())
