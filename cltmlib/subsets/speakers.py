"""Sets of so many speakers in equal shares, for speaker verification."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
    so the learning curve and the matrix train the same models there.

    Choice: speakers alternate between the genders as long as both last; the authors do not balance them. Without it,
    a language's few speakers may be nearly all of one gender, and gender alone would tell many of them apart.

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
        n = self.n_speakers(n_samples)
        return {
            seed: {
                language: Subsets(*(self._part(clips, language, n_samples, seed, part * n) for part in (0, 1)))
                for language in languages
            }
            for seed in seeds
        }

    def curves(self, table: pd.DataFrame, languages: Sequence[str], sizes: Sequence[int], seeds: Iterable[int]):
        """Seed -> language -> N -> clips of a D_i of that size."""
        clips = train_clips(table, languages, GENDERS, "gender")
        self._check(clips, sizes, n_sets=1)
        return {
            seed: {language: {n: self._part(clips, language, n, seed, 0) for n in sizes} for language in languages}
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

    def _part(self, clips: Clips, language: str, n_samples: int, seed: int, skip: int) -> tuple[str, ...]:
        """``n_samples`` clips of the speakers after the first ``skip``."""
        n_speakers = self.n_speakers(n_samples)
        need = math.ceil(n_samples / n_speakers)
        order = []  # (rank within the gender, gender, clips): sorted, the genders alternate until one has no more
        for gender in GENDERS:
            by_speaker = clips[language, gender]
            able = [speaker for speaker, names in by_speaker.items() if len(names) >= need]
            order += [(rank, gender, by_speaker[s]) for rank, s in enumerate(shuffled(able, seed, language, gender))]
        chosen = [names for *_, names in sorted(order)[skip : skip + n_speakers]]
        share, more = divmod(n_samples, n_speakers)
        parts = [shuffled(names, seed)[: share + (k < more)] for k, names in enumerate(chosen)]
        return tuple(sorted(name for part in parts for name in part))

    def _check(self, clips: Clips, sizes: Sequence[int], n_sets: int) -> None:
        if self.speakers_per_sample > 1:
            raise InputError(
                f"Parameter 'speakers_per_sample' is {self.speakers_per_sample:g}, but every speaker of a D has a clip "
                "in it: give at most 1."
            )
        counts: dict[str, list[int]] = {}  # language -> clips of each speaker
        for (language, _), by_speaker in clips.items():
            counts.setdefault(language, []).extend(map(len, by_speaker.values()))
        for n_samples in sizes:
            if self.n_speakers(n_samples) < 2:
                raise InputError(
                    f"Parameters n_samples={n_samples} and speakers_per_sample={self.speakers_per_sample:g} put "
                    f"{self.n_speakers(n_samples)} speaker into D: raise one of them until there are two to tell apart."
                )
            for language, of in counts.items():
                if not self._fits(of, n_samples, n_sets):
                    raise self._too_little(language, counts, n_samples, n_sets)

    def _fits(self, counts: Sequence[int], n_samples: int, n_sets: int) -> bool:
        n_speakers = self.n_speakers(n_samples)
        need = math.ceil(n_samples / n_speakers)
        return n_speakers >= 2 and sum(k >= need for k in counts) >= n_sets * n_speakers

    def _too_little(
        self, language: str, counts: Mapping[str, Sequence[int]], n_samples: int, n_sets: int
    ) -> InputError:
        smaller = range(n_samples - 1, 1, -1)
        best = next((n for n in smaller if all(self._fits(of, n, n_sets) for of in counts.values())), 0)
        advice = f"n_samples={best} is the most that all the languages allow" if best else "leave this language out"
        n_speakers = self.n_speakers(n_samples)
        need = math.ceil(n_samples / n_speakers)
        sets = "D needs" if n_sets == 1 else "D and D' need"
        of = counts[language]
        return InputError(
            f"Language {language!r} has too little data for n_samples={n_samples}: its train split has {len(of)} "
            f"usable speakers with {sum(of)} clips, {sum(k >= need for k in of)} of them with {need} or more, but "
            f"{sets} {n_sets * n_speakers} speakers with {need} clips each (speakers_per_sample="
            f"{self.speakers_per_sample:g}); {advice}."
        )
