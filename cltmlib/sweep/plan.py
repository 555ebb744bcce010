"""Which trainings a study needs: the unit of work, its key, and the plan of a transfer matrix."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Training:
    """One model trained on one training set with one seed, evaluated on one or more languages.

    Attributes:
        task: name of the downstream task.
        train: utterance ids of the training set, in the order the training starts from.
        test: utterance ids to evaluate on, by language.
        seed: seed of initialisation, shuffling and batching.
        config: everything else that decides the result, as plain JSON values: fingerprints of encoder and audio,
            hyper-parameters, version of the task's code.
        label: the training in words, for messages; not part of the key.
    """

    task: str
    train: tuple[str, ...]
    test: Mapping[str, tuple[str, ...]]
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    label: str = field(default="", compare=False)

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 of everything but the label, in hexadecimal; equal keys mean equal results."""
        test = {language: list(ids) for language, ids in self.test.items()}
        content = [self.task, list(self.train), test, self.seed, dict(self.config)]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


class Subsets(Protocol):
    """The two training sets of a language: ``D_i`` and ``D'_i``."""

    first: Sequence[str]
    second: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """One number the matrix is made of: ``target`` evaluated after ``training``.

    ``donor`` is "" for ``Perf_i(D_i)`` and the target itself for ``Perf_i(D_i + D'_i)``.
    """

    target: str
    donor: str
    seed: int
    training: Training


@dataclass(frozen=True)
class CltmPlan:
    """The cells of a transfer matrix in their canonical order: by seed, target, donor ("" first)."""

    cells: tuple[Cell, ...]

    @property
    def trainings(self) -> list[Training]:
        """Every training once: a pair is shared by the cells (i, j) and (j, i)."""
        return list({cell.training.key: cell.training for cell in self.cells}.values())


def cltm_plan(
    task: str,
    subsets: Mapping[int, Mapping[str, Subsets]],
    test_sets: Mapping[str, Sequence[str]],
    seeds: Iterable[int],
    config: Mapping[str, Any] | Callable[[tuple[str, ...]], Mapping[str, Any]],
) -> CltmPlan:
    """Plan the ``n + n + n(n-1)/2`` trainings per seed of a transfer matrix over n languages (paper, Eqs. 1 and 2).

    Args:
        task: name of the downstream task.
        subsets: ``subsets[seed][language]`` holds the ids of ``D_i`` (``first``) and ``D'_i`` (``second``); its
            languages, in their order, are those of the matrix.
        test_sets: ids of the test set of each language.
        seeds: the replications.
        config: the trainings' ``config``, or a function that makes it from all utterance ids of a training
            (to include a digest of their audio).

    Example:
        >>> from types import SimpleNamespace
        >>> sets = {i: SimpleNamespace(first=[f"{i}1"], second=[f"{i}2"]) for i in ("de", "ca")}
        >>> plan = cltm_plan("gender", {0: sets}, {"de": ["de3"], "ca": ["ca3"]}, [0], {"learning_rate": 1e-5})
        >>> [training.label for training in plan.trainings]
        ['de seed 0', "de+de' seed 0", 'de+ca seed 0', 'ca seed 0', "ca+ca' seed 0"]
    """

    all_tests = {language: tuple(sorted(ids)) for language, ids in test_sets.items()}  # shared: they may be large

    def training(seed: int, label: str, train: Sequence[str], languages: Sequence[str]) -> Training:
        train = tuple(sorted(train))
        test = {language: all_tests[language] for language in sorted(languages)}
        ids = train + tuple(i for tests in test.values() for i in tests)
        content = config(ids) if callable(config) else config
        return Training(task, train, test, seed, content, f"{label} seed {seed}")

    cells = []
    for seed in seeds:
        sets = subsets[seed]
        pairs: dict[frozenset[str], Training] = {}
        for i, own in sets.items():
            cells.append(Cell(i, "", seed, training(seed, i, own.first, [i])))
            for j, other in sets.items():
                if i == j:
                    both = training(seed, f"{i}+{i}'", [*own.first, *own.second], [i])
                elif (pair := frozenset((i, j))) in pairs:
                    both = pairs[pair]
                else:
                    both = training(seed, f"{i}+{j}", [*own.first, *other.first], [i, j])
                    pairs[pair] = both
                cells.append(Cell(i, j, seed, both))
    return CltmPlan(tuple(cells))


def performance_table(plan: CltmPlan, results: Mapping[str, Mapping], metric: str) -> "pd.DataFrame":
    """Collect ``results[key][language][metric]`` into the table that ``cross_lingual_transfer_matrix`` takes.

    Args:
        plan: the cells to fill.
        results: what the trainings returned, by key; for each evaluated language its metrics.
        metric: which metric, higher is better.

    Returns:
        Columns target, donor, seed, performance; one row per cell, in the plan's order.
    """
    import pandas as pd

    rows = [(c.target, c.donor, c.seed, results[c.training.key][c.target][metric]) for c in plan.cells]
    return pd.DataFrame(rows, columns=["target", "donor", "seed", "performance"])
