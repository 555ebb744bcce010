"""Makers of tiny data for tests and first tries."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from cltmlib.corpora import COLUMNS, GENDERS

PITCH_HZ = {"female": 210.0, "male": 120.0}
RELEASE_COLUMNS = (
    "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment"
).split()


def sine_utterance(
    seconds: float = 1.0, pitch_hz: float = 210.0, sample_rate_hz: int = 16000, seed: int = 0
) -> np.ndarray:
    """A harmonic tone with a little noise: float32, shape (n_samples,), peak below 0.5.

    Example:
        >>> sine_utterance(0.5).shape
        (8000,)
    """
    generator = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    tone = sum(np.sin(2 * np.pi * pitch_hz * harmonic * time_s) / harmonic for harmonic in (1, 2, 3))
    return (0.2 * tone + 0.01 * generator.uniform(-1, 1, len(time_s))).astype(np.float32)


def utterance_rows(
    languages: Sequence[str],
    n_speakers: int = 4,
    n_clips: int = 3,
    splits: Iterable[str] = ("train", "dev", "test"),
) -> pd.DataFrame:
    """Utterance rows without audio: ``n_speakers`` per language, split and gender, ``n_clips`` of each speaker."""
    rows = []
    for language in languages:
        for split in splits:
            for gender in GENDERS:
                for speaker in (f"{language}_{split}_{gender}{number}" for number in range(n_speakers)):
                    for clip in range(n_clips):
                        name = f"{language}/{speaker}_{clip}"
                        rows.append((name, f"{name}.wav", language, speaker, gender, "one", "s1", split, 1.0))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def common_voice_folder(
    root: str | PathLike,
    languages: Sequence[str] = ("de", "no"),
    n_speakers: int = 4,
    n_clips: int = 3,
    seconds: float = 1.0,
    suffix: str = ".wav",
) -> Path:
    """Write a small release in the layout of Common Voice 22, with tones for speech; a few milliseconds per clip.

    Args:
        root: folder to make.
        languages: locale codes.
        n_speakers: per language, split and gender.
        n_clips: per speaker.
        seconds: length of a clip.
        suffix: ".wav", ".flac", ".ogg" or ".mp3".

    Returns:
        ``root``.
    """
    import soundfile

    root = Path(root)
    new_labels = {"female": "female_feminine", "male": "male_masculine"}
    for language, rows in utterance_rows(languages, n_speakers, n_clips).groupby("language"):
        clips = root / language / "clips"
        clips.mkdir(parents=True)
        names = rows["utterance_id"].str.split("/").str[1] + suffix
        for seed, (name, gender) in enumerate(zip(names, rows["gender"], strict=True)):
            soundfile.write(clips / name, sine_utterance(seconds, PITCH_HZ[gender], seed=seed), 16000)
        table = pd.DataFrame("", index=rows.index, columns=RELEASE_COLUMNS)
        table["client_id"] = [hashlib.sha512(speaker.encode()).hexdigest() for speaker in rows["speaker"]]
        table["path"], table["locale"], table["gender"] = names, language, rows["gender"].map(new_labels)
        table["sentence"], table["up_votes"], table["down_votes"] = 'she said "yes', "2", "0"
        table["sentence_id"] = hashlib.sha256(b"yes").hexdigest()
        for split in ("train", "dev", "test", "validated"):
            part = table if split == "validated" else table[rows["split"] == split]
            write_tsv(root / language / f"{split}.tsv", part)
    return root


def write_tsv(path: str | PathLike, table: pd.DataFrame) -> None:
    """Write a table as Common Voice does: tabs, no quoting at all."""
    lines = ["\t".join(table.columns), *("\t".join(row) for row in table.itertuples(index=False, name=None))]
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_tsv(path: str | PathLike) -> pd.DataFrame:
    """Read what ``write_tsv`` wrote, every field as text."""
    header, *lines = Path(path).read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([line.split("\t") for line in lines], columns=header.split("\t"))


def break_clip(path: str | PathLike, kind: str) -> None:
    """Replace a clip by a broken one.

    Args:
        path: an existing clip; wav for the kinds "short", "silent" and "not finite".
        kind: "empty", "cut off", "corrupt", "short", "silent" or "not finite".
    """
    import soundfile

    path = Path(path)
    content = path.read_bytes()
    if kind in ("short", "silent", "not finite"):
        waveform = np.zeros(160 if kind == "short" else 16000, dtype=np.float32)
        waveform[:160] = {"short": 0.1, "silent": 0.0, "not finite": np.nan}[kind]
        soundfile.write(path, waveform, 16000, subtype="FLOAT")
        return
    path.write_bytes({"empty": b"", "cut off": content[: len(content) // 2], "corrupt": bytes(len(content))}[kind])


def fleurs_folder(
    root: str | PathLike,
    configs: Sequence[str] = ("en_us", "es_419"),
    n_sentences: int = 4,
    n_recordings: int = 2,
    seconds: float = 0.2,
    n_files: int = 1,
    layout: str = "folders",
) -> Path:
    """Write a small FLEURS in the format of the Parquet branch of ``google/fleurs``, with tones for speech.

    Args:
        root: folder to make.
        configs: FLEURS names of languages.
        n_sentences: per split; sentence ids go on from one split to the next and are the same in all languages.
        n_recordings: of each sentence, the first by a man, the second by a woman.
        seconds: length of a clip.
        n_files: Parquet files per split.
        layout: "folders" (``CONFIG/train/0000.parquet``) or "flat" (``CONFIG/fleurs-train-00000-of-00001.parquet``).

    Returns:
        ``root``.
    """
    import pyarrow
    from pyarrow import parquet

    audio = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    types = {
        "id": pyarrow.int32(), "num_samples": pyarrow.int32(), "path": pyarrow.string(), "audio": audio,
        "transcription": pyarrow.string(), "raw_transcription": pyarrow.string(), "gender": pyarrow.int64(),
        "lang_id": pyarrow.int64(), "language": pyarrow.string(), "lang_group_id": pyarrow.int64(),
    }  # fmt: skip
    root = Path(root)
    for config in configs:
        for order, split in enumerate(("train", "validation", "test")):
            rows = [
                _fleurs_row(config, split, order * n_sentences + sentence, recording, seconds)
                for sentence in range(n_sentences)
                for recording in range(n_recordings)
            ]
            for number in range(n_files):
                flat = f"fleurs-{split}-{number:05d}-of-{n_files:05d}"
                name = flat if layout == "flat" else f"{split}/{number:04d}"
                path = root / config / f"{name}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                part = rows[number * len(rows) // n_files : (number + 1) * len(rows) // n_files]
                parquet.write_table(pyarrow.Table.from_pylist(part, pyarrow.schema(types)), path, row_group_size=100)
    return root


def librispeech_folder(
    root: str | PathLike,
    parts: Sequence[str] = ("train-clean-100", "train-clean-360", "dev-clean", "test-clean", "test-other"),
    n_speakers: int = 2,
    n_clips: int = 2,
    seconds: float = 0.6,
) -> Path:
    """Write a small LibriSpeech in the layout of its archives, with tones for speech.

    Args:
        root: folder to make; the corpus is ``root/LibriSpeech``.
        parts: its folders.
        n_speakers: per part and gender; each reads one chapter.
        n_clips: per speaker.
        seconds: length of a clip.

    Returns:
        ``root/LibriSpeech``.
    """
    import soundfile

    root = Path(root) / "LibriSpeech"
    about = ["; Some pipe(|) separated metadata", ";ID  |SEX| SUBSET           |MINUTES| NAME"]
    for number in range(2 * n_speakers * len(parts)):
        part, gender = parts[number // (2 * n_speakers)], GENDERS[number % 2]
        speaker, chapter = str(14 + 26 * number), str(7000 + number)
        name = f"Reader {number} | {gender}"  # as that of speaker 60, "| CBW Simon", which holds a | too
        about.append(f"{speaker:<4} | {gender[0].upper()} | {part:<16} | {10.0 + number:.2f} | {name}")
        folder = root / part / speaker / chapter
        folder.mkdir(parents=True)
        lines = [f"{speaker}-{chapter}-{clip:04d} CHAPTER {number} IT WASN'T LINE {clip}" for clip in range(n_clips)]
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for clip, line in enumerate(lines):
            tone = sine_utterance(seconds, PITCH_HZ[gender], seed=100 * number + clip)
            soundfile.write(folder / f"{line.split()[0]}.flac", tone, 16000)
    (root / "SPEAKERS.TXT").write_text("\n".join(about) + "\n", encoding="utf-8")
    return root


def _fleurs_row(config: str, split: str, sentence: int, recording: int, seconds: float) -> dict:
    import soundfile

    gender = recording % 2
    tone = sine_utterance(seconds, PITCH_HZ[("male", "female")[gender]], seed=100 * sentence + recording)
    content = io.BytesIO()
    soundfile.write(content, tone, 16000, format="WAV", subtype="FLOAT")  # as FLEURS has it
    name = f"{10**18 + int.from_bytes(f'{config}{split}{sentence}{recording}'.encode()) % 10**18}.wav"
    return {
        "id": sentence, "num_samples": len(tone), "path": f"/elsewhere/{split}/{name}",
        "audio": {"bytes": content.getvalue(), "path": name}, "transcription": f"{config} sentence {sentence}",
        "raw_transcription": f"{config.title()}: sentence {sentence}.", "gender": gender, "lang_id": 0,
        "language": config, "lang_group_id": 0,
    }  # fmt: skip
