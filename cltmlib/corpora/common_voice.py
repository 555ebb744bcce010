"""Reader of a Common Voice release folder: ``LANG/{train,dev,test,validated}.tsv``, ``LANG/clips/``.

Written for release 22 and tolerant of older ones: ``male``/``female`` beside ``male_masculine``/``female_feminine``, no
``sentence_id`` column, no ``clip_durations.tsv``. Any folder in this layout is a corpus.
"""

import csv
import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cltmlib.corpora import from_rows
from cltmlib.corpora.languages import check_code
from cltmlib.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "dev", "test", "validated")
_GENDER = {"female": "female", "female_feminine": "female", "male": "male", "male_masculine": "male"}
_TSV_COLUMN = {"speaker": "client_id", "gender": "gender", "sentence": "sentence", "sentence_id": "sentence_id"}


def load(
    root: str | os.PathLike,
    languages: Sequence[str],
    splits: Sequence[str] = ("train", "dev", "test"),
    required: Sequence[str] = ("speaker", "gender"),
) -> "Dataset":
    """Read locales of a Common Voice release, keeping the rows that have the metadata asked for.

    ``cltmlib.corpora.dropped(dataset)`` tells how many rows were left out and why: "malformed row", "duplicate clip"
    (also of an earlier split), "no speaker" and so on for each column of ``required``, "speaker with two genders",
    "clip file missing", "clip file empty"; the first reason that applies counts. Clips are not decoded here.

    Args:
        root: the release folder, or a folder that holds exactly one (``root/cv-corpus-22.0-2025-06-20/LANG``).
        languages: locale codes.
        splits: TSV files to read, in this order; "validated" adds the rows that no earlier split has.
        required: columns among speaker, gender, sentence, sentence_id that a row must have.

    Returns:
        Utterances with ``cltmlib.corpora.COLUMNS``. ``duration_s`` comes from ``clip_durations.tsv``, else from the
        header of the clip; it is null where the header cannot be read.

    Raises:
        InputError: a folder, locale, split or needed column is missing, or no row of a language is left.
    """
    languages, splits = names(languages, "languages"), names(splits, "splits")
    for split in splits:
        if split not in SPLITS:
            raise InputError(f"Split {split!r} is not one of {', '.join(SPLITS)}.")
    for column in required:
        if column not in _TSV_COLUMN:
            raise InputError(f"Required column {column!r} is not one of {', '.join(_TSV_COLUMN)}.")
    release, locales = _release_folder(Path(root))
    for language in languages:
        if check_code(language) not in locales:
            raise InputError(f"Language {language!r} is not in {release}; there are {', '.join(locales)}.")
    tables, dropped = [], []
    for language in languages:
        table, dropped_here = _load_language(release / language, language, splits, required)
        if table.empty:
            why = ", ".join(f"{split}: {reason} {n}" for _, split, reason, n in dropped_here) or "there are none"
            raise InputError(f"Language {language!r}: no row of {release / language} can be used ({why}); omit it.")
        tables.append(table)
        dropped += dropped_here
    return from_rows(pd.concat(tables, ignore_index=True), dropped)


def locales(root: str | os.PathLike) -> list[str]:
    """Locale codes that a release folder holds.

    Raises:
        InputError: the folder does not exist or holds no locale.
    """
    return _release_folder(Path(root))[1]


def names(values: Sequence[str], what: str) -> list[str]:
    """``values`` as a list; one text is a list of one.

    Raises:
        InputError: there are none, or one twice; ``what`` names the parameter.
    """
    values = [values] if isinstance(values, str) else list(values)
    if not values or len(set(values)) < len(values):
        raise InputError(f"Parameter {what} is {values}: give at least one, and each once.")
    return values


def _release_folder(root: Path) -> tuple[Path, list[str]]:
    """The folder that holds the locale folders, and their names."""
    if not root.is_dir():
        raise InputError(f"Corpus folder {root} does not exist; give the folder of a Common Voice release.")
    if any((root / f"{split}.tsv").exists() for split in SPLITS):
        raise InputError(f"Corpus folder {root} is that of one locale; give the folder above it.")
    if found := _locale_folders(root):
        return root, found
    releases = {folder: found for folder in _folders(root) if (found := _locale_folders(folder))}
    if len(releases) == 1:
        return next(iter(releases.items()))
    if releases:
        raise InputError(f"Corpus folder {root} holds several releases; give one of {', '.join(map(str, releases))}.")
    raise InputError(f"Corpus folder {root} holds no locale folder with a train.tsv; give the folder of a release.")


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def _locale_folders(root: Path) -> list[str]:
    return [path.name for path in _folders(root) if any((path / f"{split}.tsv").exists() for split in SPLITS)]


def _load_language(
    folder: Path, language: str, splits: Iterable[str], required: Iterable[str]
) -> tuple[pd.DataFrame, list[tuple[str, str, str, int]]]:
    clips = folder / "clips"
    if not clips.is_dir():
        raise InputError(f"Language {language!r}: folder {clips} does not exist; unpack the clips there.")
    parts, dropped = [], []
    for split in splits:
        table, n_malformed = _read_tsv(folder / f"{split}.tsv", ["client_id", "path", *map(_TSV_COLUMN.get, required)])
        parts.append(_utterances(table, language, split))
        if n_malformed:
            dropped.append((language, split, "malformed row", n_malformed))
    table = pd.concat(parts, ignore_index=True)

    # One pass over the folder, so that clips which are not there cost no look-up each.
    entries = {entry.name: entry for entry in os.scandir(clips)}
    reason = pd.Series(None, index=table.index, dtype="object")

    def drop(mask: pd.Series, why: str) -> None:
        reason[mask & reason.isna()] = why

    drop(table["utterance_id"].duplicated(), "duplicate clip")
    for column in required:
        drop(table[column].isna(), f"no {column}")
    if "gender" in required:
        n_genders = table[reason.isna()].groupby("speaker")["gender"].nunique()
        drop(table["speaker"].isin(n_genders.index[n_genders > 1]), "speaker with two genders")
    drop(~table["clip"].isin(entries), "clip file missing")
    usable = table.loc[reason.isna(), "clip"]
    drop(table["clip"].isin({clip for clip in usable if not entries[clip].stat().st_size}), "clip file empty")

    counts = pd.DataFrame({"split": table["split"], "reason": reason}).value_counts(sort=False)
    dropped += [(language, split, why, int(n)) for (split, why), n in counts.items()]
    table = table[reason.isna()].reset_index(drop=True)
    table["path"] = f"{clips}{os.sep}" + table["clip"]
    table["duration_s"] = _durations_s(folder, table)
    return table.drop(columns="clip"), dropped


def _read_tsv(path: Path, needed: Iterable[str]) -> tuple[pd.DataFrame, int]:
    """Table of strings with null for empty fields, and the number of rows with too many fields."""
    if not path.is_file():
        raise InputError(f"File {path} does not exist; get it from the release or leave this split out.")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # QUOTE_NONE: sentences contain single quotation marks; with quoting on, one of them swallows the next rows.
            table = pd.read_csv(
                path, sep="\t", dtype=str, quoting=csv.QUOTE_NONE, keep_default_na=False, na_values=[""],
                index_col=False, encoding="utf-8-sig", on_bad_lines="warn", low_memory=False,
            )  # fmt: skip
    except (ValueError, OSError) as error:  # a ParserError, EmptyDataError and UnicodeDecodeError are ValueErrors
        raise InputError(f"File {path} is not a table of tab-separated UTF-8 text ({error}); get it again.") from error
    for column in dict.fromkeys(needed):
        if column not in table.columns and column != "sentence_id":
            raise InputError(f"File {path} has no column {column!r}, but it is needed; it has {', '.join(table)}.")
    n_malformed = sum(len(re.findall(r"Skipping line \d+", str(warning.message))) for warning in caught)
    return table, n_malformed


def _utterances(table: pd.DataFrame, language: str, split: str) -> pd.DataFrame:
    """Utterance columns of one TSV, with ``clip`` (file name) in place of ``path`` and ``duration_s``."""
    absent = pd.Series(None, index=table.index, dtype="str")
    clip = table["path"].fillna("")
    sentence = table.get("sentence", absent)
    sentence_id = table.get("sentence_id", absent).copy()
    lacking = sentence_id.isna() & sentence.notna()  # older releases have none: equal sentences get equal ids
    hashes = {text: hashlib.sha256(text.encode()).hexdigest() for text in sentence[lacking].unique()}
    sentence_id[lacking] = sentence[lacking].map(hashes).astype("str")
    return pd.DataFrame(
        {
            "utterance_id": f"{language}/" + clip.str.replace(r"\.\w+$", "", regex=True),
            "clip": clip,
            "language": language,
            "speaker": table["client_id"],
            "gender": table.get("gender", absent).map(_GENDER).astype("str"),
            "sentence": sentence,
            "sentence_id": sentence_id,
            "split": split,
        }
    )


def _durations_s(folder: Path, table: pd.DataFrame) -> np.ndarray:
    """Seconds of every row, from ``clip_durations.tsv`` or else from the header of the clip; NaN if unreadable."""
    seconds = pd.Series(np.nan, index=table.index)
    path = folder / "clip_durations.tsv"
    if path.is_file():
        durations, _ = _read_tsv(path, ["clip", "duration[ms]"])
        by_clip = pd.to_numeric(durations.drop_duplicates("clip").set_index("clip")["duration[ms]"], errors="coerce")
        seconds = table["clip"].map(by_clip) / 1000
        seconds[seconds <= 0] = np.nan
    unknown = seconds.index[seconds.isna()]
    seconds[unknown] = header_durations_s(table.loc[unknown, "path"])
    return seconds.to_numpy(dtype="float64")


def header_durations_s(paths: Iterable[str]) -> list[float]:
    """Seconds of clips by their headers; NaN where a header cannot be read."""
    with ThreadPoolExecutor() as pool:  # soundfile releases the GIL
        return list(pool.map(_header_duration_s, paths))


def _header_duration_s(path: str) -> float:
    import soundfile

    try:
        header = soundfile.info(path)
    except soundfile.LibsndfileError:
        return float("nan")
    return header.frames / header.samplerate if header.frames > 0 else float("nan")
