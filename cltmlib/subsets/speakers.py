"""Sets of so many speakers in equal shares, for speaker verification."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cltmlib.corpora import GENDERS
from cltmlib.errors import InputError
from cltmlib.subsets.pool import Subsets, checked, clips_by_speaker, of_one_class, shuffled, train_clips
from cltmlib.subsets.trials import check_trials

Clips = Mapping[tuple[str, str], dict[str, list[str]]]  # (language, gender) -> speaker -> clips that may be drawn


@dataclass(frozen=True)
class BySpeaker:
    """Sets of speaker verification: so many clips of so many speakers, in equal shares.

    A D_i of N clips has ``ceil(speakers_per_sample * N)`` speakers (authors' code: 0.0125, so 13 at N = 1000), each
    with as many clips as the others or one more. The D_i of 2N is D_i + D'_i of N wherever the shares come out equal,
    the number of speakers is even and both genders have enough of them, so the learning curve and the matrix train the
    same models there.

    Choice: half of the speakers are women, or as many as there are for all sets alike, so that D_i and D'_i have the
    same mix of genders but for one person at most; the authors do not balance them. Without it, a language's few
    speakers may be nearly all of one gender, and D'_i may add none of the other, though trials of both are scored.

    Attributes:
        speakers_per_sample: share of speakers in the number of clips.
        max_test_samples: cap per gender of a test set; speakers with a single clip give way, and each of the others
            keeps at least two, for without pairs of clips there is no target trial.
    """

    speakers_per_sample: float = 0.0125
    max_test_samples: int | None = None
    class_column = "gender"

    def n_speakers(self, n_samples: int) -> int:
        """Number of speakers of a D_i of ``n_samples`` clips."""
        return math.ceil(round(self.speakers_per_sample * n_samples, 9))

    def subsets(self, table: pd.DataFrame, languages: Sequence[str], n_samples: int, seeds: Iterable[int]):
        """Seed -> language -> `Subsets`."""
        clips = train_clips(table, languages, GENDERS, "gender")
        self._check(clips, [n_samples], n_sets=2)
        need = self._clips_per_speaker(n_samples)
        return {
            seed: {
                language: Subsets(*self._parts(clips, language, n_samples, seed, need, n_sets=2))
                for language in languages
            }
            for seed in seeds
        }

    def curves(self, table: pd.DataFrame, languages: Sequence[str], sizes: Sequence[int], seeds: Iterable[int]):
        """Seed -> language -> N -> clips of a D_i of that size, of speakers who have enough for every size."""
        clips = train_clips(table, languages, GENDERS, "gender")
        self._check(clips, sizes, n_sets=1)
        need = max(map(self._clips_per_speaker, sizes))
        return {
            seed: {
                language: {n: self._parts(clips, language, n, seed, need, n_sets=1)[0] for n in sizes}
                for language in languages
            }
            for seed in seeds
        }

    def tests(self, table: pd.DataFrame, languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Language -> test clips, the same for all seeds.

        Raises:
            InputError: a language cannot give target and non-target trials of both genders.
        """
        table = table[table["split"] == "test"]
        result = {}
        for language in checked(languages):
            rows = of_one_class(table[table["language"] == language], GENDERS, "gender")
            check_trials(rows.to_dict("records"), language)
            names = []
            for gender in GENDERS:
                by_speaker = clips_by_speaker(rows[rows["gender"] == gender])
                names += self._capped({s: shuffled(clips, 0) for s, clips in by_speaker.items()}, language)
            result[language] = tuple(sorted(names))
        return result

    def _capped(self, by_speaker: Mapping[str, list[str]], language: str) -> list[str]:
        most = self.max_test_samples
        if most is None or sum(map(len, by_speaker.values())) <= most:
            return [name for names in by_speaker.values() for name in names]
        if most < 4:
            raise InputError(f"Parameter max_test_samples is {most}; two speakers of a gender need 4 clips or more.")
        order = sorted(shuffled(by_speaker, 0, language), key=lambda speaker: len(by_speaker[speaker]) < 2)
        order = order[: most // 2]
        rounds = sorted(
            (k // 2, rank, k, by_speaker[s][k]) for rank, s in enumerate(order) for k in range(len(by_speaker[s]))
        )
        return [name for *_, name in rounds[:most]]

    def _clips_per_speaker(self, n_samples: int) -> int:
        return math.ceil(n_samples / self.n_speakers(n_samples))

    def _parts(self, clips: Clips, language: str, n_samples: int, seed: int, need: int, n_sets: int):
        """``n_sets`` sets of ``n_samples`` clips, of different speakers with ``need`` clips or more."""
        n_speakers = self.n_speakers(n_samples)
        share, more = divmod(n_samples, n_speakers)
        orders = []
        for gender in GENDERS:
            by_speaker = clips[language, gender]
            able = [speaker for speaker, names in by_speaker.items() if len(names) >= need]
            orders.append([by_speaker[s] for s in shuffled(able, seed, language, gender)])
        women, men = orders
        n_men = min(n_speakers // 2, len(men) // n_sets)
        n_women = min(n_speakers - n_men, len(women) // n_sets)
        n_men = min(n_speakers - n_women, len(men) // n_sets)
        n_more = n_speakers - n_women - n_men  # one, where both genders have an odd number
        left = [*women[n_sets * n_women :], *men[n_sets * n_men :]]
        sets = []
        for k in range(n_sets):
            chosen = [*women[k * n_women : (k + 1) * n_women], *men[k * n_men : (k + 1) * n_men]]
            chosen += left[k * n_more : (k + 1) * n_more]
            parts = [shuffled(names, seed)[: share + (rank < more)] for rank, names in enumerate(chosen)]
            sets.append(tuple(sorted(name for part in parts for name in part)))
        return sets

    def _check(self, clips: Clips, sizes: Sequence[int], n_sets: int) -> None:
        if self.speakers_per_sample > 1:
            raise InputError(
                f"Parameter 'speakers_per_sample' is {self.speakers_per_sample:g}, but every speaker of a D has a clip "
                "in it: give at most 1."
            )
        for n_samples in sizes:
            if self.n_speakers(n_samples) < 2:
                raise InputError(
                    f"Parameters n_samples={n_samples} and speakers_per_sample={self.speakers_per_sample:g} put "
                    f"{self.n_speakers(n_samples)} speaker into D: raise one of them until there are two to tell apart."
                )
        sizes_of: dict[str, list[int]] = {}  # language -> clips of each speaker
        for (language, _), by_speaker in clips.items():
            sizes_of.setdefault(language, []).extend(map(len, by_speaker.values()))
        counts = {language: np.array(of, dtype=int) for language, of in sizes_of.items()}
        for language, of in counts.items():
            if not self._fits(of, sizes, n_sets):
                raise self._too_little(language, counts, sizes, n_sets)

    def _fits(self, counts: np.ndarray, sizes: Sequence[int], n_sets: int) -> bool:
        n_speakers, need = self.n_speakers(max(sizes)), max(map(self._clips_per_speaker, sizes))
        return n_speakers >= 2 and int((counts >= need).sum()) >= n_sets * n_speakers

    def _too_little(
        self, language: str, counts: Mapping[str, np.ndarray], sizes: Sequence[int], n_sets: int
    ) -> InputError:
        n_samples = max(sizes)

        def all_fit(n: int) -> bool:  # instead of the largest size, the smaller ones staying as they are
            return all(self._fits(of, [n, *(size for size in sizes if size < n)], n_sets) for of in counts.values())

        best = next((n for n in range(n_samples - 1, 1, -1) if all_fit(n)), 0)
        advice = f"n_samples={best} is the most that all the languages allow" if best else "leave this language out"
        n_speakers, need = self.n_speakers(n_samples), max(map(self._clips_per_speaker, sizes))
        sets = "D needs" if n_sets == 1 else "D and D' need"
        of = counts[language]
        return InputError(
            f"Language {language!r} has too little data for n_samples={n_samples}: its train split has {len(of)} "
            f"usable speakers with {of.sum()} clips, {(of >= need).sum()} of them with {need} or more, but {sets} "
            f"{n_sets * n_speakers} speakers with {need} clips each (speakers_per_sample="
            f"{self.speakers_per_sample:g}); {advice}."
        )
