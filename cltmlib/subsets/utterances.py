"""Sets of so many utterances, for tasks that need no label of the speaker, such as speech recognition."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from cltmlib.errors import InputError
from cltmlib.subsets.classes import ByClass, _n_able, _parts, _samples_per_speaker
from cltmlib.subsets.pool import Subsets, train_clips

_ONLY = ("train",)  # the one class: `train_clips` has the clips of this split alone


@dataclass(frozen=True)
class ByUtterance:
    """Sets of N clips of as many speakers as the data allow, equally many clips of each.

    It is `ByClass` with the split as the only class: no speaker is in two of a language's D_i, D'_i and test set.

    Attributes:
        samples_per_speaker: a divisor of every size; None takes the smallest that all languages can serve together.
        max_test_samples: cap of a test set; takes one clip of every speaker, then a second, and so on.
        most: language -> its largest set; its curve has no larger size. Other languages have all sizes.
    """

    samples_per_speaker: int | None = None
    max_test_samples: int | None = None
    most: Mapping[str, int] = field(default_factory=dict)
    class_column = "split"

    def subsets(self, table: pd.DataFrame, languages: Sequence[str], n_samples: int, seeds: Iterable[int]):
        """Seed -> language -> `Subsets`."""
        return ByClass(self.samples_per_speaker, None, _ONLY, "split").subsets(table, languages, n_samples, seeds)

    def curves(self, table: pd.DataFrame, languages: Sequence[str], sizes: Sequence[int], seeds: Iterable[int]):
        """Seed -> language -> N -> clips of a set of that size; the smaller lie inside the larger.

        What the set of 2N has beyond that of N is of other speakers: see `halves`.

        Raises:
            InputError: a language has too little data for its sizes.
        """
        clips = train_clips(table, languages, _ONLY, "split")
        sizes_of = {i: tuple(n for n in sizes if n <= self.most.get(i, n)) for i in languages}
        groups = [
            ({key: of for key, of in clips.items() if sizes_of[key[0]] == own}, own)
            for own in dict.fromkeys(sizes_of.values())
        ]
        k = _common_samples_per_speaker(groups, self.samples_per_speaker)
        parts = {(seed, i): _parts(clips[i, _ONLY[0]], k, seed, i, _ONLY[0]) for seed in seeds for i in languages}
        return {
            seed: {
                i: {n: tuple(sorted(u for part in parts[seed, i][: n // k] for u in part)) for n in sizes_of[i]}
                for i in languages
            }
            for seed in seeds
        }

    def tests(self, table: pd.DataFrame, languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Language -> test clips, the same for all seeds."""
        return ByClass(None, self.max_test_samples, ("test",), "split").tests(table, languages)


def _common_samples_per_speaker(groups: Sequence[tuple[Mapping, Sequence[int]]], wanted: int | None) -> int:
    """The smallest k that divides all sizes and that every group, clips of some languages and their sizes, can serve.

    Raises:
        InputError: a group has too little data: for any k, or for those that the sizes of all groups allow.
    """
    if wanted:
        for of, own in groups:
            _samples_per_speaker(of, own, wanted, n_sets=1)
        return wanted
    for of, own in groups:
        _samples_per_speaker(of, own, None, n_sets=1)  # names a language that has too little whatever k
    common = math.gcd(*(n for _, own in groups for n in own))
    failing = {}
    for k in (k for k in range(1, common + 1) if common % k == 0):
        failing[k] = [
            (*key, max(own), _n_able(by_speaker, k))
            for of, own in groups
            for key, by_speaker in of.items()
            if _n_able(by_speaker, k) < max(own) // k
        ]
        if not failing[k]:
            return k
    k = min(failing, key=lambda k: len(failing[k]))
    language, split, n, n_able = failing[k][0]
    raise InputError(
        f"Language {language!r} has too little data for a set of {n} clips with as many clips of each speaker as in "
        f"the other languages, of all numbers that divide the sizes: with {k} it needs {n // k} speakers, and {n_able} "
        f"of its {split} split have so many. Give smaller sizes, or leave this language out."
    )


def halves(
    sets: Mapping[int, Mapping[str, Mapping[int, Sequence[str]]]], n_samples: int
) -> dict[int, dict[str, Subsets]]:
    """D_i and D'_i of N clips from nested sets of N and 2N: the smaller one, and what the larger has beyond it.

    Args:
        sets: seed -> language -> size -> clips, from `ByUtterance.curves`.
        n_samples: N.

    Raises:
        InputError: a language has no set of N or of 2N.

    Example:
        >>> halves({0: {"de": {1: ("de/a",), 2: ("de/a", "de/b")}}}, 1)[0]["de"]
        Subsets(first=('de/a',), second=('de/b',))
    """
    result: dict[int, dict[str, Subsets]] = {}
    for seed, of_seed in sets.items():
        result[seed] = {}
        for language, by_size in of_seed.items():
            for n in (n_samples, 2 * n_samples):
                if n not in by_size:
                    raise InputError(
                        f"Language {language!r} has no set of {n} clips: its sizes are {list(by_size)}, and a matrix "
                        f"at N = {n_samples} needs N and 2N."
                    )
            first = by_size[n_samples]
            result[seed][language] = Subsets(first, tuple(sorted(set(by_size[2 * n_samples]) - set(first))))
    return result
