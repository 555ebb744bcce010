"""What all designs draw from: clips by language, class and speaker, in orders that a hash decides.

Choice: the order of speakers and of clips is that of a hash of (seed, identifier), not of a generator's stream, so a
draw depends on no library version. With the same samples per speaker (and no speaker of two languages), adding a
language or removing a broken clip leaves the other choices as they were, and the D_i of a smaller N lies inside that of
a larger one.
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from cltmlib.corpora import frame
from cltmlib.corpora.languages import check_code
from cltmlib.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


class Subsets(NamedTuple):
    """Utterance ids of D_i (``first``) and D'_i (``second``) of one language, each sorted."""

    first: tuple[str, ...]
    second: tuple[str, ...]


def checked(languages: Sequence[str]) -> list[str]:
    codes = [check_code(code) for code in languages]
    if not codes or len(set(codes)) < len(codes):
        raise InputError(f"Parameter languages is {codes}: give at least one code, and each once.")
    return codes


def narrow_table(utterances: "Dataset | pd.DataFrame", class_column: str) -> pd.DataFrame:
    """The columns that draws and decoding read: a million sentences need not be in memory."""
    columns = ["utterance_id", "path", "language", "speaker", "split", "duration_s", class_column]
    return frame(utterances, dict.fromkeys(columns))


def train_clips(
    table: pd.DataFrame,
    languages: Sequence[str],
    classes: Sequence[str],
    class_column: str,
    split: str = "train",
    test_split: str = "test",
) -> dict[tuple[str, str], dict[str, list[str]]]:
    """(language, class) -> speaker -> utterance ids that may be drawn; each speaker is under one language."""
    table = table[table["language"].isin(checked(languages))]
    tested = table.loc[table["split"] == test_split, "speaker"]
    table = table[(table["split"] == split) & ~table["speaker"].isin(tested)]
    table = of_one_class(table, classes, class_column)
    n_speakers = table.groupby(["language", class_column])["speaker"].nunique()
    homes = table[["speaker", "language", class_column]].drop_duplicates()
    homes = homes.join(n_speakers.rename("n_speakers"), on=["language", class_column])
    homes = homes.sort_values(["n_speakers", "language"]).drop_duplicates("speaker").set_index("speaker")["language"]
    table = table[table["language"] == table["speaker"].map(homes)]
    return {
        (language, label): clips_by_speaker(table[(table["language"] == language) & (table[class_column] == label)])
        for language in languages
        for label in classes
    }


def of_one_class(table: pd.DataFrame, classes: Sequence[str], class_column: str) -> pd.DataFrame:
    """Rows with a speaker and a wanted class, without speakers that have several classes."""
    table = table[table["speaker"].notna() & table[class_column].notna()]
    n_classes = table.groupby("speaker")[class_column].nunique()
    mixed = n_classes.index[n_classes > 1]
    return table[table[class_column].isin(list(classes)) & ~table["speaker"].isin(mixed)]


def clips_by_speaker(table: pd.DataFrame) -> dict[str, list[str]]:
    return {speaker: names.tolist() for speaker, names in table.groupby("speaker")["utterance_id"]}


def shuffled(names: Iterable[str], *key: Hashable) -> list[str]:
    """The names in an order decided by ``key`` alone; removing a name leaves the order of the others."""
    prefix = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=16).digest()
    return sorted(names, key=lambda name: (hashlib.blake2b(prefix + name.encode(), digest_size=16).digest(), name))
