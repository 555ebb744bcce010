"""Reader of LibriSpeech (Panayotov et al., ICASSP 2015; CC BY 4.0) in the layout of its archives.

``LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTT.flac`` with the transcripts of a chapter in
``SPEAKER-CHAPTER.trans.txt`` beside, and ``LibriSpeech/SPEAKERS.TXT``. All of it is English, mostly read books; a
speaker is in one part only. ``load_beside_common_voice`` makes it the English of a study whose other languages are from
Common Voice.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cltmlib.corpora import common_voice, from_rows
from cltmlib.corpora.languages import check_code
from cltmlib.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

LANGUAGE = "en"
PARTS = {
    "train": ("train-clean-100", "train-clean-360", "train-other-500"),
    "dev": ("dev-clean", "dev-other"),
    "test": ("test-clean", "test-other"),
}
_GENDER = {"F": "female", "M": "male"}
_REQUIRED = ("speaker", "gender", "sentence", "sentence_id")


def load(
    root: str | os.PathLike,
    languages: Sequence[str] = (LANGUAGE,),
    splits: Sequence[str] = ("train", "dev", "test"),
    required: Sequence[str] = (),
) -> "Dataset":
    """Read the parts of LibriSpeech that are unpacked.

    ``sentence`` is the transcript as it stands, in capitals without punctuation but for the apostrophe; ``sentence_id``
    is a hash of it. ``cltmlib.corpora.dropped(dataset)`` tells how many rows lack what ``required`` names. Clips are
    not decoded.

    Args:
        root: the folder LibriSpeech or the one above it.
        languages: "en" and nothing else.
        splits: train, dev, test, each of which is all its parts that are there, or names of parts ("train-clean-100").
        required: columns among speaker, gender, sentence, sentence_id that a row must have.

    Returns:
        Utterances with ``cltmlib.corpora.COLUMNS``, ``split`` being train, dev or test. ``speaker`` is the reader's
        number; ``gender`` is from SPEAKERS.TXT and null where that does not tell; ``duration_s`` is that of the header.

    Raises:
        InputError: the folder is not there or holds no part of a split, a transcript file, a line of one or a clip is
            missing, a header cannot be read, a speaker is listed twice or in two splits, or another language is wanted.
    """
    if foreign := [language for language in common_voice.names(languages, "languages") if language != LANGUAGE]:
        raise InputError(
            f"Language {check_code(foreign[0])!r} is not in LibriSpeech, which is all English ('en'); for more "
            "languages take corpus common_voice+librispeech."
        )
    for column in required:
        if column not in _REQUIRED:
            raise InputError(f"Required column {column!r} is not one of {', '.join(_REQUIRED)}.")
    folder = _corpus_folder(Path(root))
    parts = _parts(folder, common_voice.names(splits, "splits"))
    table = pd.DataFrame(
        [row for part, split in parts.items() for row in _utterances(folder / part, split)],
        columns=["utterance_id", "path", "language", "speaker", "sentence", "sentence_id", "split"],
    )
    if table.empty:
        raise InputError(f"No transcript is in {', '.join(parts)} of {folder}; unpack the archives anew.")
    _check_speakers(table, folder)
    genders = _genders(folder / "SPEAKERS.TXT", needed="gender" in required)
    table["gender"] = table["speaker"].map(genders).astype("str")
    table["duration_s"] = common_voice.header_durations_s(table["path"])
    if (broken := table["duration_s"].isna()).any():
        raise InputError(f"Clip {table.loc[broken, 'path'].iloc[0]} is not a readable FLAC file; get it again.")
    return _with_required(table, required, folder)


def load_beside_common_voice(
    root: str | os.PathLike,
    languages: Sequence[str],
    splits: Sequence[str] = ("train", "dev", "test"),
    required: Sequence[str] = ("speaker", "gender"),
) -> "Dataset":
    """English from LibriSpeech, all other languages from a release of Common Voice: the rows of both, English last.

    Args:
        root: a folder that holds both: ``root/LibriSpeech`` and either ``root/LANG`` or one release
            (``root/cv-corpus-22.0-2025-06-20/LANG``); links will do. An ``en`` of the release is not read.
        languages: locale codes.
        splits: among train, dev, test.
        required: as in ``common_voice.load``, for both.

    Raises:
        InputError: as the ``load`` of the two.
    """
    from datasets import concatenate_datasets

    languages = common_voice.names(languages, "languages")
    others = [language for language in languages if language != LANGUAGE]
    corpora = [common_voice.load(root, others, splits, required)] if others else []
    if LANGUAGE in languages:
        corpora.append(load(root, splits=splits, required=required))
    return concatenate_datasets(corpora)


def _corpus_folder(root: Path) -> Path:
    """The folder that holds the parts."""
    if not root.is_dir():
        raise InputError(f"Corpus folder {root} does not exist; give the folder LibriSpeech or the one above it.")
    known = [part for parts in PARTS.values() for part in parts]
    for folder in (root, root / "LibriSpeech"):
        if any((folder / part).is_dir() for part in known):
            return folder
    raise InputError(f"Corpus folder {root} holds no part of LibriSpeech; there should be some of {', '.join(known)}.")


def _parts(folder: Path, splits: Iterable[str]) -> dict[str, str]:
    """Part -> split, of the parts wanted that are there."""
    split_of = {part: split for split, parts in PARTS.items() for part in parts}
    found = {}
    for split in splits:
        if split not in PARTS and split not in split_of:
            raise InputError(f"Split {split!r} is not one of {', '.join([*PARTS, *split_of])}.")
        wanted = PARTS.get(split, (split,))
        present = [part for part in wanted if (folder / part).is_dir()]
        if not present:
            raise InputError(
                f"Split {split!r}: {folder} has no folder {' or '.join(wanted)}; unpack it or leave the split out."
            )
        found |= {part: split_of[part] for part in present}
    return found


def _utterances(part: Path, split: str) -> Iterable[tuple[str, str, str, str, str | None, str | None, str]]:
    """Rows of one part without gender and duration; every clip must have a line and every line a clip."""
    for chapter in sorted(path for speaker in _folders(part) for path in _folders(speaker)):
        clips = {path.stem for path in chapter.glob("[!.]*.flac")}
        file = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
        if not clips and not file.is_file():
            continue
        lines = _transcripts(file)
        if lacking := sorted(lines.keys() - clips):
            raise InputError(f"File {file} has a transcript of {lacking[0]}, but {lacking[0]}.flac is not beside it.")
        if lacking := sorted(clips - lines.keys()):
            raise InputError(f"Clip {chapter / lacking[0]}.flac has no line in {file.name}; get the transcripts again.")
        for name, text in lines.items():
            path = f"{chapter.absolute()}{os.sep}{name}.flac"
            sentence_id = hashlib.sha256(text.encode()).hexdigest() if text else None
            yield f"{LANGUAGE}/{name}", path, LANGUAGE, chapter.parent.name, text or None, sentence_id, split


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]


def _transcripts(file: Path) -> dict[str, str]:
    """Utterance -> its words."""
    lines: dict[str, str] = {}
    for line in _lines(file):
        name, _, text = line.partition(" ")
        if name in lines:
            raise InputError(f"File {file} has two transcripts of {name}; get it again.")
        lines[name] = text.strip()
    return lines


def _lines(file: Path) -> list[str]:
    """Lines of a text file but for empty ones."""
    try:
        return [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except FileNotFoundError:
        raise InputError(f"File {file} does not exist; unpack it from the archives of LibriSpeech.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"File {file} cannot be read as UTF-8 text ({error}); get it again.") from error


def _genders(file: Path, needed: bool) -> dict[str, str]:
    """Speaker -> gender, of those whose gender SPEAKERS.TXT tells; without the file none, unless it is needed."""
    if not needed and not file.is_file():
        return {}
    genders: dict[str, str | None] = {}
    for line in _lines(file):
        if line.startswith(";"):
            continue
        fields = [field.strip() for field in line.split("|", 4)]  # ID, SEX, SUBSET, MINUTES, NAME; a name may hold a |
        if len(fields) < 2:
            raise InputError(f"File {file}: the line {line!r} is not of the form 'ID | SEX | ...'; get the file again.")
        if fields[0] in genders:
            raise InputError(f"File {file} lists speaker {fields[0]} twice; keep one of the lines.")
        genders[fields[0]] = _GENDER.get(fields[1])
    return {speaker: gender for speaker, gender in genders.items() if gender}


def _check_speakers(table: pd.DataFrame, folder: Path) -> None:
    """Refuse a speaker of two splits, who would be tested on after having been trained on."""
    n_splits = table.groupby("speaker")["split"].nunique()
    if (n_splits > 1).any():
        speaker = n_splits.idxmax()
        splits = ", ".join(table.loc[table["speaker"] == speaker, "split"].unique())
        raise InputError(f"Speaker {speaker} is in several splits of {folder} ({splits}); unpack the archives anew.")


def _with_required(table: pd.DataFrame, required: Iterable[str], folder: Path) -> "Dataset":
    reason = pd.Series(None, index=table.index, dtype="object")
    for column in required:
        reason[table[column].isna() & reason.isna()] = f"no {column}"
    counts = pd.DataFrame({"split": table["split"], "reason": reason}).value_counts(sort=False)
    dropped = [(LANGUAGE, split, why, int(n)) for (split, why), n in counts.items()]
    if reason.notna().all():
        why = ", ".join(f"{split}: {reason} {n}" for _, split, reason, n in dropped)
        raise InputError(f"Language {LANGUAGE!r}: no row of {folder} can be used ({why}); omit it.")
    return from_rows(table[reason.isna()].reset_index(drop=True), dropped)
