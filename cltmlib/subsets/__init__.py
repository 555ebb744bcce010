"""Which clips a training sees: speaker-disjoint D_i and D'_i, sets of learning curves, test sets, trials."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import pandas as pd

from cltmlib.audio import WaveformStore, pack
from cltmlib.corpora import COLUMNS, frame
from cltmlib.errors import InputError
from cltmlib.subsets.classes import ByClass, draw_subsets, largest_n_samples, test_set
from cltmlib.subsets.pool import Subsets, checked, narrow_table
from cltmlib.subsets.speakers import BySpeaker
from cltmlib.subsets.trials import draw_trials
from cltmlib.subsets.utterances import ByUtterance, halves

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "ByClass",
    "BySpeaker",
    "ByUtterance",
    "Prepared",
    "Subsets",
    "draw_subsets",
    "draw_trials",
    "halves",
    "largest_n_samples",
    "prepare",
    "test_set",
]


@dataclass(frozen=True)
class Prepared:
    """All that the trainings of a study read.

    Attributes:
        store: waveforms of every clip below.
        subsets: seed -> language -> D_i and D'_i, or the sets of a learning curve by size.
        tests: language -> utterance ids of its test set.
        utterances: rows of the clips above, indexed by utterance_id.
        skipped: clips that were found unusable, those drawn replaced: utterance_id, path, language, reason.
    """

    store: WaveformStore
    subsets: dict[int, dict[str, Subsets]]
    tests: dict[str, tuple[str, ...]]
    utterances: pd.DataFrame
    skipped: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Clips and speakers of the first seed's sets and of the test set: one row per language."""
        rows = {}
        for language, parts in next(iter(self.subsets.values())).items():
            sets = (
                {f"D({n})": ids for n, ids in parts.items()}
                if isinstance(parts, Mapping)
                else dict(zip(("D", "D'"), parts, strict=True))
            )
            rows[language] = {}
            for name, ids in {**sets, "test": self.tests[language]}.items():
                rows[language][f"{name} clips"] = len(ids)
                rows[language][f"{name} speakers"] = self.utterances.loc[list(ids), "speaker"].nunique()
        table = pd.DataFrame.from_dict(rows, orient="index")
        return table[sorted(table, key=lambda name: name.startswith("test"))]  # after sets that the first may not have


def prepare(
    utterances: "Dataset | pd.DataFrame",
    languages: Sequence[str],
    n_samples: int | Sequence[int],
    seeds: Sequence[int],
    store_directory: str | PathLike,
    design: ByClass | BySpeaker | ByUtterance | None = None,
    also: pd.DataFrame | None = None,
    **pack_options,
) -> Prepared:
    """Draw the training sets of all seeds and the test sets, and decode exactly the clips they need.

    A clip that cannot be used is taken out of the corpus and the draw is repeated, until every clip drawn is in the
    store: a broken clip neither enters a training nor makes a set smaller than the others (but an uncapped test set
    loses it).

    Args:
        utterances: corpus rows.
        languages: codes; results have their order.
        n_samples: N, for D_i and D'_i of that size; or several, for the nested D_i of a learning curve.
        seeds: one draw each.
        store_directory: see ``cltmlib.audio.pack``, which also takes ``pack_options`` (max_seconds, n_workers, ...).
        design: how sets are made up; None is ``ByClass()``.
        also: further rows to decode, for tests of the caller's own; unusable ones are left out.

    Raises:
        InputError: as the design's methods and ``pack``.
    """
    design = design or ByClass()
    table = narrow_table(utterances, design.class_column)
    table = table[table["language"].isin(checked(languages))]
    skipped = pd.DataFrame(columns=["utterance_id", "path", "language", "reason"])
    draw = design.subsets if isinstance(n_samples, int) else design.curves
    while True:
        try:
            subsets = draw(table, languages, n_samples, seeds)
            tests = design.tests(table, languages)
        except InputError as error:
            if skipped.empty:
                raise
            broken = skipped.iloc[0]
            raise InputError(
                f"{error} This is after leaving out {len(skipped)} unusable clips, such as {broken['path']} "
                f"({broken['reason']})."
            ) from error
        drawn = {name for of_seed in subsets.values() for parts in of_seed.values() for name in _names(parts)}
        drawn.update(*tests.values())
        needed = table[table["utterance_id"].isin(drawn)]
        store = pack(needed, store_directory, **pack_options)
        # Only clips drawn now count, not all that an older store knows: the result must not depend on what ran before.
        unusable = store.skipped[store.skipped["utterance_id"].isin(drawn)]
        if unusable.empty:
            is_table = isinstance(utterances, pd.DataFrame)
            rows = utterances.loc[needed.index] if is_table else utterances.select(needed.index)
            rows = frame(rows, dict.fromkeys([*COLUMNS, design.class_column]))
            if also is not None and len(also):
                store = pack(also, store_directory, **pack_options)
                unusable = store.skipped[store.skipped["utterance_id"].isin(also["utterance_id"])]
                skipped = pd.concat([skipped, unusable]).drop_duplicates("utterance_id")
                new = ~also["utterance_id"].isin([*unusable["utterance_id"], *rows["utterance_id"]])
                rows = pd.concat([rows, also[new]])
            return Prepared(store, subsets, tests, rows.set_index("utterance_id"), skipped.reset_index(drop=True))
        skipped = pd.concat([skipped, unusable])
        table = table[~table["utterance_id"].isin(unusable["utterance_id"])]


def _names(parts: Subsets | Mapping[int, tuple[str, ...]]) -> Iterable[str]:
    return (name for part in (parts.values() if isinstance(parts, Mapping) else parts) for name in part)
