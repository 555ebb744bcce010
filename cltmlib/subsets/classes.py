"""Sets balanced over classes, for gender recognition and other classifications of clips."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from cltmlib.corpora import GENDERS
from cltmlib.errors import InputError
from cltmlib.subsets.pool import Subsets, checked, clips_by_speaker, narrow_table, of_one_class, shuffled, train_clips

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class ByClass:
    """So many clips of each gender, or of another class that belongs to a speaker; see `draw_subsets` and `test_set`.

    Attributes:
        samples_per_speaker: as in `draw_subsets`.
        max_test_samples: cap per class of a test set.
        classes, class_column: what is balanced.
    """

    samples_per_speaker: int | None = None
    max_test_samples: int | None = None
    classes: Sequence[str] = GENDERS
    class_column: str = "gender"

    def subsets(self, table: pd.DataFrame, languages: Sequence[str], n_samples: int, seeds: Iterable[int]):
        """Seed -> language -> `Subsets`."""
        clips = train_clips(table, languages, self.classes, self.class_column)
        k = _samples_per_speaker(clips, [n_samples], self.samples_per_speaker)
        return {seed: _draw(clips, languages, self.classes, n_samples, k, seed) for seed in seeds}

    def curves(self, table: pd.DataFrame, languages: Sequence[str], sizes: Sequence[int], seeds: Iterable[int]):
        """Seed -> language -> N -> clips of a D_i of that size; the smaller lie inside the larger.

        All sizes have the same number of clips per speaker, so that a curve shows the number of clips alone.
        """
        clips = train_clips(table, languages, self.classes, self.class_column)
        k = _samples_per_speaker(clips, sizes, self.samples_per_speaker, n_sets=1)
        result: dict[int, dict[str, dict[int, tuple[str, ...]]]] = {}
        for seed in seeds:
            result[seed] = {}
            for language in languages:
                parts = [_parts(clips[language, label], k, seed, language, label) for label in self.classes]
                result[seed][language] = {
                    n: tuple(sorted(name for of_class in parts for part in of_class[: n // k] for name in part))
                    for n in sizes
                }
        return result

    def tests(self, table: pd.DataFrame, languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Language -> test clips, the same for all seeds."""
        return test_set(table, languages, self.max_test_samples, 0, self.classes, self.class_column)


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
    clips = train_clips(narrow_table(utterances, class_column), languages, classes, class_column, split, test_split)
    k = _samples_per_speaker(clips, [n_samples], samples_per_speaker, split)
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
    table = narrow_table(utterances, class_column)
    clips = train_clips(table, languages, classes, class_column, split, test_split)
    return _largest(clips, [samples_per_speaker] if samples_per_speaker else None)


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
    table = narrow_table(utterances, class_column)
    table = table[table["split"] == split]
    result = {}
    for language in checked(languages):
        rows = of_one_class(table[table["language"] == language], classes, class_column)
        names = []
        for label in classes:
            by_speaker = clips_by_speaker(rows[rows[class_column] == label])
            if not by_speaker:
                raise InputError(
                    f"Language {language!r} has no {split} clip with {class_column} {label!r}; leave it out."
                )
            rounds = [
                (rank, order, name)
                for order, speaker in enumerate(shuffled(by_speaker, seed, language, label))
                for rank, name in enumerate(shuffled(by_speaker[speaker], seed))
            ]
            names += [name for _, _, name in sorted(rounds)[:max_samples_per_class]]
        result[language] = tuple(sorted(names))
    return result


test_set.__test__ = False  # its name must not make pytest collect it


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
            parts = _parts(clips[language, label], samples_per_speaker, seed, language, label)
            for rank, part in enumerate(parts[: 2 * n_samples // samples_per_speaker]):
                halves[rank % 2].extend(part)  # alternating, so that a larger N only adds to both halves
        result[language] = Subsets(*(tuple(sorted(names)) for names in halves))
    return result


def _parts(by_speaker: Mapping[str, list[str]], samples_per_speaker: int, seed: int, *key: str) -> list[list[str]]:
    """The clips to take from each able speaker, speakers in the order of the seed."""
    able = [speaker for speaker, names in by_speaker.items() if len(names) >= samples_per_speaker]
    return [shuffled(by_speaker[s], seed)[:samples_per_speaker] for s in shuffled(able, seed, *key)]


def _samples_per_speaker(
    clips: Mapping[tuple[str, str], dict[str, list[str]]],
    sizes: Sequence[int],
    wanted: int | None,
    split: str = "train",
    n_sets: int = 2,
) -> int:
    """The smallest k that divides all ``sizes`` and gives ``n_sets`` sets of the largest enough speakers everywhere."""
    n_samples, common = max(sizes, default=0), math.gcd(*sizes)
    if min(sizes, default=0) < 1 and wanted is None:
        raise InputError(f"Parameter n_samples={', '.join(map(str, sizes))}: give sizes of at least 1.")
    if min(sizes, default=0) < 1 or (wanted is not None and (wanted < 1 or common % wanted)):
        raise InputError(
            f"Parameters n_samples={', '.join(map(str, sizes))} and samples_per_speaker={wanted} do not fit: "
            "both are at least 1 and the second divides the first."
        )
    divisors = [wanted] if wanted else [k for k in range(1, common + 1) if common % k == 0]

    def lacking(k: int) -> list[tuple[str, str]]:
        return [key for key, speakers in clips.items() if _n_able(speakers, k) < n_sets * n_samples // k]

    for k in divisors:
        if not lacking(k):
            return k
    # A single size may be changed to suit any k; among several, the others stay, so k must still divide them.
    among = divisors if wanted or len(sizes) > 1 else None
    alone = {key: _largest({key: speakers}, among, n_samples, n_sets) for key, speakers in clips.items()}
    worst = min(alone, key=alone.__getitem__)
    if alone[worst] < n_samples:  # too little whatever k: show the k that it comes nearest to
        k = max(divisors, key=lambda k: k * _n_able(clips[worst], k))
    else:  # each language can, but not with the same k: name one that stands against what suits most
        k = min(divisors, key=lambda k: len(lacking(k)))
        worst = lacking(k)[0]
    language, label = worst
    speakers = clips[worst]
    best = _largest(clips, among, n_samples, n_sets)
    advice = f"n_samples={best} is the most that all the languages allow" if best else "leave this language out"
    raise InputError(
        f"Language {language!r} has too little data for n_samples={n_samples}: its {split} split has {len(speakers)} "
        f"usable {label} speakers with {sum(map(len, speakers.values()))} clips, {_n_able(speakers, k)} of them with "
        f"{k} or more, but {_SETS[n_sets]} {n_sets * n_samples // k} {label} speakers with {k} clips each; {advice}."
    )


_SETS = {1: "D needs", 2: "D and D' need"}


def _largest(
    clips: Mapping[tuple[str, str], dict[str, list[str]]],
    among: Sequence[int] | None,
    at_most: int | None = None,
    n_sets: int = 2,
) -> int:
    """The largest feasible number of samples per class; with k clips per speaker, k times the able speakers per set."""
    most = max((len(names) for speakers in clips.values() for names in speakers.values()), default=0)
    largest = 0
    for k in among or range(1, most + 1):
        n_speakers = min(_n_able(speakers, k) for speakers in clips.values()) // n_sets
        if at_most is not None:
            n_speakers = min(n_speakers, at_most // k)
        largest = max(largest, k * n_speakers)
    return largest


def _n_able(by_speaker: Mapping[str, list[str]], k: int) -> int:
    return sum(len(names) >= k for names in by_speaker.values())
