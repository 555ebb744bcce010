"""Which clips a training sees: balanced, speaker-disjoint D_i and D'_i, and the test set of every language.

Choice: the order of speakers and of clips is that of a hash of (seed, identifier), not of a generator's stream, so a
draw depends on no library version. With the same samples per speaker (and no speaker of two languages), adding a
language or removing a broken clip leaves the other choices as they were, and the D_i of a smaller N lies inside that of
a larger one.
"""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from cltmlib.audio import WaveformStore, pack
from cltmlib.corpora import COLUMNS, GENDERS, frame
from cltmlib.corpora.languages import check_code
from cltmlib.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


class Subsets(NamedTuple):
    """Utterance ids of D_i (``first``) and D'_i (``second``) of one language, each sorted."""

    first: tuple[str, ...]
    second: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """All that the trainings of a study read.

    Attributes:
        store: waveforms of every clip below.
        subsets: seed -> language -> D_i and D'_i.
        tests: language -> utterance ids of its test set.
        utterances: rows of the clips above, indexed by utterance_id.
        skipped: clips that were drawn, found unusable and replaced: utterance_id, path, language, reason.
    """

    store: WaveformStore
    subsets: dict[int, dict[str, Subsets]]
    tests: dict[str, tuple[str, ...]]
    utterances: pd.DataFrame
    skipped: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Size of the sets, equal in all languages but for the test set: one row per language."""
        first = next(iter(self.subsets.values()))
        rows = {}
        for language, (own, other) in first.items():
            speakers = self.utterances["speaker"]
            rows[language] = {
                "clips in D": len(own),
                "speakers in D": speakers[list(own)].nunique(),
                "clips in D'": len(other),
                "speakers in D'": speakers[list(other)].nunique(),
                "test clips": len(self.tests[language]),
                "test speakers": speakers[list(self.tests[language])].nunique(),
            }
        return pd.DataFrame.from_dict(rows, orient="index")


def draw_subsets(
    utterances: "Dataset | pd.DataFrame",
    languages: Sequence[str],
    n_samples: int,
    seed: int,
    classes: Sequence[str] = GENDERS,
    class_column: str = "gender",
    samples_per_speaker: int | None = None,
    split: str = "train",
    test_split: str = "test",
) -> dict[str, Subsets]:
    """Draw D_i and D'_i of every language.

    Each holds ``n_samples`` clips of each class (paper: [N, 2N] = [60, 120] is N = 60 clips per class in D_i), from
    ``n_samples / samples_per_speaker`` speakers per class, ``samples_per_speaker`` from each: the same two numbers in
    all languages. No speaker is in two of all these subsets. Speakers of more than one class are not used, nor those
    who also occur in the test split of any chosen language. A speaker of several chosen languages goes to the one that
    has fewest speakers of that class.

    Args:
        utterances: corpus rows.
        languages: codes; the result has their order.
        n_samples: clips per class in D_i, and again in D'_i.
        seed: of the draw.
        classes: values of ``class_column`` to balance; a class belongs to a speaker.
        class_column: column of the classes.
        samples_per_speaker: a divisor of ``n_samples``; None takes the smallest that every language can serve, which
            means as many speakers as possible.
        split: where to draw from.
        test_split: whose speakers are left out.

    Raises:
        InputError: a language has too little data. The message says what it has, what is needed and which
            ``n_samples`` would work.
    """
    clips = _train_clips(_table(utterances, class_column), languages, classes, class_column, split, test_split)
    k = _samples_per_speaker(clips, n_samples, samples_per_speaker, split)
    return _draw(clips, languages, classes, n_samples, k, seed)


def largest_n_samples(
    utterances: "Dataset | pd.DataFrame",
    languages: Sequence[str],
    classes: Sequence[str] = GENDERS,
    class_column: str = "gender",
    samples_per_speaker: int | None = None,
    split: str = "train",
    test_split: str = "test",
) -> int:
    """The largest ``n_samples`` for which ``draw_subsets`` succeeds; 0 if there is none."""
    table = _table(utterances, class_column)
    return _largest(_train_clips(table, languages, classes, class_column, split, test_split), samples_per_speaker)


def test_set(
    utterances: "Dataset | pd.DataFrame",
    languages: Sequence[str],
    max_samples_per_class: int | None = None,
    seed: int = 0,
    classes: Sequence[str] = GENDERS,
    class_column: str = "gender",
    split: str = "test",
) -> dict[str, tuple[str, ...]]:
    """Utterance ids to test each language on: all labelled clips of its test split.

    Args:
        utterances, languages, classes, class_column, split: as in ``draw_subsets``.
        max_samples_per_class: cap; takes one clip of every speaker, then a second, and so on.
        seed: of the choice under the cap.

    Raises:
        InputError: a language has no test clip of a class.
    """
    if max_samples_per_class is not None and max_samples_per_class < 1:
        raise InputError(f"Parameter max_samples_per_class is {max_samples_per_class}; give 1 or more, null for all.")
    table = _table(utterances, class_column)
    table = table[table["split"] == split]
    result = {}
    for language in _checked(languages):
        rows = _of_one_class(table[table["language"] == language], classes, class_column)
        names = []
        for label in classes:
            by_speaker = _clips_by_speaker(rows[rows[class_column] == label])
            if not by_speaker:
                raise InputError(
                    f"Language {language!r} has no {split} clip with {class_column} {label!r}; leave it out."
                )
            rounds = [
                (rank, order, name)
                for order, speaker in enumerate(_shuffled(by_speaker, seed, language, label))
                for rank, name in enumerate(_shuffled(by_speaker[speaker], seed))
            ]
            names += [name for _, _, name in sorted(rounds)[:max_samples_per_class]]
        result[language] = tuple(sorted(names))
    return result


test_set.__test__ = False  # its name must not make pytest collect it


def prepare(
    utterances: "Dataset | pd.DataFrame",
    languages: Sequence[str],
    n_samples: int,
    seeds: Sequence[int],
    store_directory: str | PathLike,
    *,
    classes: Sequence[str] = GENDERS,
    class_column: str = "gender",
    samples_per_speaker: int | None = None,
    split: str = "train",
    test_split: str = "test",
    max_test_samples: int | None = None,
    **pack_options,
) -> Prepared:
    """Draw the subsets of all seeds and the test sets, and decode exactly the clips they need.

    A clip that cannot be used is taken out of the corpus and the draw is repeated, until every clip drawn is in the
    store: a broken clip neither enters a training nor makes a set smaller than the others (but an uncapped test set
    loses it).

    Args:
        utterances, languages, n_samples, classes, class_column, samples_per_speaker, split: see ``draw_subsets``.
        seeds: one draw each.
        store_directory: see ``cltmlib.audio.pack``, which also takes ``pack_options`` (max_seconds, n_workers, ...).
        test_split: where the test sets come from.
        max_test_samples: cap per class of a test set, see ``test_set``; the test sets are the same for all seeds.

    Raises:
        InputError: as ``draw_subsets``, ``test_set`` and ``pack``.
    """
    table = _table(utterances, class_column)
    table = table[table["language"].isin(_checked(languages))]
    skipped = pd.DataFrame(columns=["utterance_id", "path", "language", "reason"])
    while True:
        try:
            clips = _train_clips(table, languages, classes, class_column, split, test_split)
            k = _samples_per_speaker(clips, n_samples, samples_per_speaker, split)
            tests = test_set(table, languages, max_test_samples, 0, classes, class_column, test_split)
        except InputError as error:
            if skipped.empty:
                raise
            broken = skipped.iloc[0]
            raise InputError(
                f"{error} This is after leaving out {len(skipped)} unusable clips, such as {broken['path']} "
                f"({broken['reason']})."
            ) from error
        subsets = {seed: _draw(clips, languages, classes, n_samples, k, seed) for seed in seeds}
        drawn = {name for of_seed in subsets.values() for pair in of_seed.values() for part in pair for name in part}
        drawn.update(*tests.values())
        needed = table[table["utterance_id"].isin(drawn)]
        store = pack(needed, store_directory, **pack_options)
        # Only clips drawn now count, not all that an older store knows: the result must not depend on what ran before.
        unusable = store.skipped[store.skipped["utterance_id"].isin(drawn)]
        if unusable.empty:
            is_table = isinstance(utterances, pd.DataFrame)
            rows = utterances.loc[needed.index] if is_table else utterances.select(needed.index)
            rows = frame(rows, dict.fromkeys([*COLUMNS, class_column]))
            return Prepared(store, subsets, tests, rows.set_index("utterance_id"), skipped.reset_index(drop=True))
        skipped = pd.concat([skipped, unusable])
        table = table[~table["utterance_id"].isin(unusable["utterance_id"])]


def _checked(languages: Sequence[str]) -> list[str]:
    codes = [check_code(code) for code in languages]
    if not codes or len(set(codes)) < len(codes):
        raise InputError(f"Parameter languages is {codes}: give at least one code, and each once.")
    return codes


def _table(utterances: "Dataset | pd.DataFrame", class_column: str) -> pd.DataFrame:
    """The columns that draws and decoding read: a million sentences need not be in memory."""
    columns = ["utterance_id", "path", "language", "speaker", "split", "duration_s", class_column]
    return frame(utterances, dict.fromkeys(columns))


def _draw(
    clips: Mapping[tuple[str, str], dict[str, list[str]]],
    languages: Sequence[str],
    classes: Sequence[str],
    n_samples: int,
    samples_per_speaker: int,
    seed: int,
) -> dict[str, Subsets]:
    result = {}
    for language in languages:
        halves: tuple[list[str], list[str]] = ([], [])
        for label in classes:
            by_speaker = clips[language, label]
            able = [speaker for speaker, names in by_speaker.items() if len(names) >= samples_per_speaker]
            speakers = _shuffled(able, seed, language, label)[: 2 * n_samples // samples_per_speaker]
            for rank, speaker in enumerate(speakers):  # alternating, so that a larger N only adds to both halves
                halves[rank % 2].extend(_shuffled(by_speaker[speaker], seed)[:samples_per_speaker])
        result[language] = Subsets(*(tuple(sorted(names)) for names in halves))
    return result


def _train_clips(
    table: pd.DataFrame,
    languages: Sequence[str],
    classes: Sequence[str],
    class_column: str,
    split: str,
    test_split: str,
) -> dict[tuple[str, str], dict[str, list[str]]]:
    """(language, class) -> speaker -> utterance ids that may be drawn; each speaker is under one language."""
    table = table[table["language"].isin(_checked(languages))]
    tested = table.loc[table["split"] == test_split, "speaker"]
    table = table[(table["split"] == split) & ~table["speaker"].isin(tested)]
    table = _of_one_class(table, classes, class_column)
    n_speakers = table.groupby(["language", class_column])["speaker"].nunique()
    homes = table[["speaker", "language", class_column]].drop_duplicates()
    homes = homes.join(n_speakers.rename("n_speakers"), on=["language", class_column])
    homes = homes.sort_values(["n_speakers", "language"]).drop_duplicates("speaker").set_index("speaker")["language"]
    table = table[table["language"] == table["speaker"].map(homes)]
    return {
        (language, label): _clips_by_speaker(table[(table["language"] == language) & (table[class_column] == label)])
        for language in languages
        for label in classes
    }


def _of_one_class(table: pd.DataFrame, classes: Sequence[str], class_column: str) -> pd.DataFrame:
    """Rows with a speaker and a wanted class, without speakers that have several classes."""
    table = table[table["speaker"].notna() & table[class_column].notna()]
    n_classes = table.groupby("speaker")[class_column].nunique()
    mixed = n_classes.index[n_classes > 1]
    return table[table[class_column].isin(list(classes)) & ~table["speaker"].isin(mixed)]


def _clips_by_speaker(table: pd.DataFrame) -> dict[str, list[str]]:
    return {speaker: names.tolist() for speaker, names in table.groupby("speaker")["utterance_id"]}


def _shuffled(names: Iterable[str], *key: Hashable) -> list[str]:
    """The names in an order decided by ``key`` alone; removing a name leaves the order of the others."""
    prefix = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=16).digest()
    return sorted(names, key=lambda name: (hashlib.blake2b(prefix + name.encode(), digest_size=16).digest(), name))


def _n_able(by_speaker: Mapping[str, list[str]], k: int) -> int:
    return sum(len(names) >= k for names in by_speaker.values())


def _samples_per_speaker(
    clips: Mapping[tuple[str, str], dict[str, list[str]]], n_samples: int, wanted: int | None, split: str
) -> int:
    """The smallest divisor k of ``n_samples`` with 2 n_samples / k able speakers everywhere."""
    if n_samples < 1 or (wanted is not None and (wanted < 1 or n_samples % wanted)):
        raise InputError(
            f"Parameters n_samples={n_samples} and samples_per_speaker={wanted} do not fit: "
            "both are at least 1 and the second divides the first."
        )
    divisors = [wanted] if wanted else [k for k in range(1, n_samples + 1) if n_samples % k == 0]

    def lacking(k: int) -> list[tuple[str, str]]:
        return [key for key, speakers in clips.items() if _n_able(speakers, k) < 2 * n_samples // k]

    for k in divisors:
        if not lacking(k):
            return k
    alone = {key: _largest({key: speakers}, wanted, n_samples) for key, speakers in clips.items()}
    worst = min(alone, key=alone.__getitem__)
    if alone[worst] < n_samples:  # too little whatever k: show the k that it comes nearest to
        k = max(divisors, key=lambda k: k * _n_able(clips[worst], k))
    else:  # each language can, but not with the same k: name one that stands against what suits most
        k = min(divisors, key=lambda k: len(lacking(k)))
        worst = lacking(k)[0]
    language, label = worst
    speakers = clips[worst]
    best = _largest(clips, wanted, n_samples)
    advice = f"n_samples={best} is the most that all the languages allow" if best else "leave this language out"
    raise InputError(
        f"Language {language!r} has too little data for n_samples={n_samples}: its {split} split has {len(speakers)} "
        f"usable {label} speakers with {sum(map(len, speakers.values()))} clips, {_n_able(speakers, k)} of them with "
        f"{k} or more, but D and D' need {2 * n_samples // k} {label} speakers with {k} clips each; {advice}."
    )


def _largest(
    clips: Mapping[tuple[str, str], dict[str, list[str]]], wanted: int | None, at_most: int | None = None
) -> int:
    """The largest feasible number of samples per class; with k clips per speaker, k times half the able speakers."""
    most = max((len(names) for speakers in clips.values() for names in speakers.values()), default=0)
    largest = 0
    for k in [wanted] if wanted else range(1, most + 1):
        n_speakers = min(_n_able(speakers, k) for speakers in clips.values()) // 2
        if at_most is not None:
            n_speakers = min(n_speakers, at_most // k)
        largest = max(largest, k * n_speakers)
    return largest
