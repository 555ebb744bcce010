"""Sets of so many utterances, for tasks that need no label of the speaker, such as speech recognition."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from cltmlib.errors import InputError
from cltmlib.subsets.classes import ByClass, _parts, _samples_per_speaker
from cltmlib.subsets.pool import Subsets, train_clips

_ONLY = ("train",)  # the one class: `train_clips` has the clips of this split alone


@dataclass(frozen=True)
class ByUtterance:
    """Sets of N clips of as many speakers as the data allow, equally many clips of each.

    It is `ByClass` with the split as the only class: no speaker is in two of a language's D_i, D'_i and test set.

    Attributes:
        samples_per_speaker: a divisor of every size; None takes the smallest that all languages can serve.
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
        k = self.samples_per_speaker or max(_samples_per_speaker(of, own, None, n_sets=1) for of, own in groups)
        for of, own in groups:  # what one group of languages wants need not suit another
            _samples_per_speaker(of, own, k, n_sets=1)
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
