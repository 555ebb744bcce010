"""Which trainings a study needs: the unit of work, its key, and the plan of a transfer matrix."""

import functools
import hashlib
import itertools
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


Config = Mapping[str, Any] | Callable[[tuple[str, ...]], Mapping[str, Any]]


def plan_training(
    task: str, train: Sequence[str], tests: Mapping[str, Sequence[str]], seed: int, config: Config, label: str
) -> Training:
    """A training whose key does not depend on the order of clips and test sets.

    Args:
        task: name of the downstream task.
        train: utterance ids of the training set.
        tests: utterance ids of each test set.
        seed: of initialisation, shuffling and batching.
        config: the training's ``config``, or a function that makes it from all its utterance ids (to include a digest
            of their audio).
        label: the training in words.
    """
    train = tuple(sorted(train))
    tests = {name: _sorted(ids) for name, ids in sorted(tests.items())}
    content = config((*train, *(i for ids in tests.values() for i in ids))) if callable(config) else config
    return Training(task, train, tests, seed, content, label)


def _sorted(ids: Sequence[str]) -> tuple[str, ...]:
    """The ids as a sorted tuple: the same object where they are one, for thousands of trainings share a test set."""
    if isinstance(ids, tuple) and all(a <= b for a, b in itertools.pairwise(ids)):
        return ids
    return tuple(sorted(ids))


@dataclass(frozen=True)
class Point:
    """One point of a learning curve: ``language`` evaluated after ``training`` on ``n_samples`` of its own."""

    language: str
    n_samples: int
    seed: int
    training: Training


def curve_plan(
    task: str,
    sets: Mapping[int, Mapping[str, Mapping[int, Sequence[str]]]],
    test_sets: Mapping[str, Sequence[str]],
    config: Config,
) -> list[Point]:
    """Plan the learning curves of several languages (paper, Section 2.2).

    Args:
        task: name of the downstream task.
        sets: ``sets[seed][language][n]`` holds the ids of a D_i of n samples.
        test_sets: ids of the test set of each language.
        config: see `plan_training`.
    """
    return [
        Point(i, n, seed, plan_training(task, ids, {i: test_sets[i]}, seed, config, f"{i} N={n} seed {seed}"))
        for seed, of_seed in sets.items()
        for i, by_size in of_seed.items()
        for n, ids in by_size.items()
    ]


def curve_table(points: Iterable[Point], results: Mapping[str, Mapping], metric: str) -> "pd.DataFrame":
    """Columns language, n_samples, seed, performance: one row per point, as ``dynamic_interval`` takes it."""
    import pandas as pd

    rows = [(p.language, p.n_samples, p.seed, results[p.training.key][p.language][metric]) for p in points]
    return pd.DataFrame(rows, columns=["language", "n_samples", "seed", "performance"])


def cltm_plan(
    task: str,
    subsets: Mapping[int, Mapping[str, Subsets]],
    test_sets: Mapping[str, Sequence[str]],
    seeds: Iterable[int],
    config: Config,
) -> CltmPlan:
    """Plan the ``n + n + n(n-1)/2`` trainings per seed of a transfer matrix over n languages (paper, Eqs. 1 and 2).

    Args:
        task: name of the downstream task.
        subsets: ``subsets[seed][language]`` holds the ids of ``D_i`` (``first``) and ``D'_i`` (``second``); its
            languages, in their order, are those of the matrix.
        test_sets: ids of the test set of each language.
        seeds: the replications.
        config: see `plan_training`.

    Example:
        >>> from types import SimpleNamespace
        >>> sets = {i: SimpleNamespace(first=[f"{i}1"], second=[f"{i}2"]) for i in ("de", "ca")}
        >>> plan = cltm_plan("gender", {0: sets}, {"de": ["de3"], "ca": ["ca3"]}, [0], {"learning_rate": 1e-5})
        >>> [training.label for training in plan.trainings]
        ['de seed 0', "de+de' seed 0", 'de+ca seed 0', 'ca seed 0', "ca+ca' seed 0"]
    """
    tests = {language: tuple(sorted(ids)) for language, ids in test_sets.items()}  # shared: they may be large
    plan = functools.partial(plan_training, task, config=config)
    cells = []
    for seed in seeds:
        sets = subsets[seed]
        pairs: dict[frozenset[str], Training] = {}
        for i, own in sets.items():
            cells.append(Cell(i, "", seed, plan(own.first, {i: tests[i]}, seed, label=f"{i} seed {seed}")))
            for j, other in sets.items():
                if i == j:
                    both = plan([*own.first, *own.second], {i: tests[i]}, seed, label=f"{i}+{i}' seed {seed}")
                elif (pair := frozenset((i, j))) in pairs:
                    both = pairs[pair]
                else:
                    both = plan(
                        [*own.first, *other.first], {i: tests[i], j: tests[j]}, seed, label=f"{i}+{j} seed {seed}"
                    )
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
