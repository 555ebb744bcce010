"""Which parallel utterances train and test, with the encoder's output and the text to be written for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cltmlib.audio import pack
from cltmlib.corpora import frame
from cltmlib.errors import InputError
from cltmlib.finetune import resolve_device
from cltmlib.potsa.bias import LanguageBias
from cltmlib.potsa.frames import EncodedFrames, encode
from cltmlib.potsa.pairs import target_sentences
from cltmlib.subsets.pool import checked, shuffled
from cltmlib.whisper import Whisper

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class ParallelSpeech:
    """All that the trainings read.

    Attributes:
        frames: encoder output of all clips below.
        languages: trained; the first is that of stage 1 and the anchor.
        zero_shot: languages that are tested alone.
        target: language of the translations.
        train: language -> utterance ids; of the zero-shot languages only for their bias.
        test: language -> utterance ids; all languages say the same sentences.
        utterances: rows of these clips with a column ``translation``, indexed by utterance_id.
        bias: estimate of every language from its training clips.
        left_out: why clips were not used: language, split, reason, n.
    """

    frames: EncodedFrames
    languages: tuple[str, ...]
    zero_shot: tuple[str, ...]
    target: str
    train: dict[str, tuple[str, ...]]
    test: dict[str, tuple[str, ...]]
    utterances: pd.DataFrame
    bias: LanguageBias
    left_out: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Clips and sentences of training and test: one row per language."""
        rows = {}
        for language in (*self.languages, *self.zero_shot):
            rows[language] = {"role": "trained" if language in self.languages else "zero-shot"}
            for name, part in (("train", self.train), ("test", self.test)):
                clips = self.utterances.loc[list(part[language])]
                rows[language] |= {f"{name} clips": len(clips), f"{name} sentences": clips["sentence_id"].nunique()}
        return pd.DataFrame.from_dict(rows, orient="index")


def prepare(
    corpus: "Dataset | pd.DataFrame", params: Mapping, whisper: Whisper, directory: str | PathLike
) -> ParallelSpeech:
    """Choose the sentences, decode and encode their clips and estimate the languages' bias.

    A test sentence is one that every language says, zero-shot ones and the target among them; a training sentence needs
    only a text in the target language. Seeds draw no clips: all train on the same.

    Args:
        corpus: utterance rows of ``languages``, ``zero_shot_languages`` and ``target_language``.
        params: with these three, n_train_sentences and n_test_sentences (None: all), device, precision.
        whisper: its encoder, and what is too long for it.
        directory: for waveforms (see `cltmlib.audio.pack`) and encoder outputs.

    Raises:
        InputError: a language is named twice, lacks usable clips in its train split, or the languages share no test
            sentence.
    """
    trained, zero_shot = tuple(params["languages"]), tuple(params["zero_shot_languages"])
    target = params["target_language"]
    spoken = checked([*trained, *zero_shot, target])[:-1]
    table = frame(corpus)
    table = table[table["language"].isin([*spoken, target]) & table["split"].isin(["train", "test"])]
    texts = _translations(table, target)
    table = table[table["language"] != target].join(texts, on="utterance_id")
    reason = pd.Series(None, index=table.index, dtype=object)
    reason[table["duration_s"] > whisper.max_seconds] = "too long for the model"
    transcribed = (table["language"] == trained[0]) & (table["split"] == "train")  # stage 1 writes its transcripts
    reason[transcribed & _blank(table["sentence"])] = "no transcript"
    reason[table["translation"].isna()] = f"no sentence in {target}"
    left_out = [_counted(table, reason)]
    table = table[reason.isna()]
    table = _drawn(table, spoken, {"train": params["n_train_sentences"], "test": params["n_test_sentences"]})
    store = pack(table, Path(directory) / "waveforms", whisper.sample_rate_hz, min_seconds=0.1)
    present = [u for u in table["utterance_id"] if u in store]
    seconds = pd.Series(store.duration_s(present), index=present, dtype=float)
    usable = table["utterance_id"].isin(seconds.index[seconds <= whisper.max_seconds])
    left_out.append(_counted(table, usable.map({True: None, False: "clip unusable"})))
    table = _drawn(table[usable], spoken, {"train": None, "test": None})  # a broken clip may leave a sentence without
    utterances = table.set_index("utterance_id")
    device = resolve_device(params["device"])
    frames = encode(whisper, store, utterances.index, Path(directory) / "encoded", device, params["precision"])
    parts = {
        split: {
            language: tuple(
                sorted(utterances.index[(utterances["split"] == split) & (utterances["language"] == language)])
            )
            for language in spoken
        }
        for split in ("train", "test")
    }
    return ParallelSpeech(
        frames=frames,
        languages=trained,
        zero_shot=zero_shot,
        target=target,
        train=parts["train"],
        test=parts["test"],
        utterances=utterances,
        bias=estimate_bias(frames, parts["train"]),
        left_out=pd.concat(left_out, ignore_index=True),
    )


def estimate_bias(frames: EncodedFrames, train: Mapping[str, tuple[str, ...]], batch_size: int = 32) -> LanguageBias:
    """`LanguageBias` of every language from its training clips, in batches: Eq. (1)."""
    bias = LanguageBias()
    for language, ids in train.items():
        for start in range(0, len(ids), batch_size):
            hidden, lengths = frames.batch(ids[start : start + batch_size])
            bias.partial_fit(hidden, lengths, [language] * len(lengths))
    return bias


def _translations(table: pd.DataFrame, target: str) -> pd.Series:
    """Text in the target language by utterance id, for the utterances whose sentence has one."""
    table = table.assign(sentence=table["sentence"].where(~_blank(table["sentence"])))
    known = table.loc[(table["language"] == target) & table["sentence"].notna(), ["split", "sentence_id"]]
    has = pd.MultiIndex.from_frame(table[["split", "sentence_id"]]).isin(pd.MultiIndex.from_frame(known))
    if not has.any():
        raise InputError(f"The corpus has no text in the target language {target!r}: add it, or choose another.")
    return target_sentences(table[has], target).rename("translation")


def _drawn(table: pd.DataFrame, languages: list[str], n_sentences: Mapping[str, int | None]) -> pd.DataFrame:
    """Rows of the sentences drawn from each split, so many at most; in "test" of those that all languages say."""
    parts = []
    for split, n in n_sentences.items():
        rows = table[table["split"] == split]
        said = {language: set(rows.loc[rows["language"] == language, "sentence_id"]) for language in languages}
        for language, ids in said.items():
            if not ids:
                raise InputError(f"Language {language!r} has no usable clip in its {split} split: add some or omit it.")
        pool = set.intersection(*said.values()) if split == "test" else set.union(*said.values())
        if not pool:
            raise InputError(f"Languages {', '.join(languages)} share no sentence in the {split} split: omit some.")
        drawn = rows[rows["sentence_id"].isin(shuffled(pool, split)[:n])]
        if without := sorted(set(languages) - set(drawn["language"])):
            raise InputError(
                f"Parameter 'n_{split}_sentences' is {n}, which leaves {without[0]!r} without a clip: raise it."
            )
        parts.append(drawn)
    return pd.concat(parts)


def _blank(texts: pd.Series) -> pd.Series:
    return texts.isna() | (texts.str.strip() == "")


def _counted(rows: pd.DataFrame, reasons: pd.Series) -> pd.DataFrame:
    bad = rows.assign(reason=reasons)[reasons.notna().to_numpy()]
    return bad.groupby(["language", "split", "reason"], sort=False).size().rename("n").reset_index()
