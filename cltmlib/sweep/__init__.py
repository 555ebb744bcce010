"""Sweeps: plan the trainings, run those that the store does not hold yet, keep every one that finishes.

    plan = cltm_plan("gender", subsets, test_sets, seeds, config)
    with RunStore(path) as store:
        results = run(plan.trainings, train, store)
    table = performance_table(plan, results, "f1")

A sweep that was killed is started again the same way: it repeats no finished training and gives the same table.
"""

import contextlib
from collections.abc import Callable, Iterable

from cltmlib.errors import InputError
from cltmlib.sweep.plan import (
    Cell,
    CltmPlan,
    Point,
    Training,
    cltm_plan,
    curve_plan,
    curve_table,
    performance_table,
    plan_training,
)
from cltmlib.sweep.store import RunStore

__all__ = [
    "Cell",
    "CltmPlan",
    "Point",
    "RunStore",
    "Training",
    "cltm_plan",
    "curve_plan",
    "curve_table",
    "performance_table",
    "plan_training",
    "run",
]


def run(
    trainings: Iterable[Training],
    train: Callable[[Training], dict],
    store: RunStore,
    executor: str = "local",
    n_workers: int | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, dict]:
    """Run the trainings that the store does not hold and return the results of all.

    Args:
        trainings: what to train; one with the same key as another is trained once.
        train: picklable function of an importable module; gives plain JSON values, and the same for the same training
            whatever ran before.
        store: open for writing; only this process writes to it, one transaction per finished training.
        executor: ``local`` (processes of this machine) or ``ray`` (a cluster).
        n_workers: trainings at a time; None means one per usable core, or one on a GPU (Ray: as many as fit).
        device: ``cpu`` or ``cuda``; only decides what ``n_workers=None`` means and what Ray reserves.
        progress: show a bar where somebody can watch it.

    Returns:
        Results by key, in the order of ``trainings``.

    Raises:
        InputError: a training, a worker or the store stopped the sweep; what is finished is in the store.
    """
    planned = {training.key: training for training in trainings}
    results = store.finished(planned)
    missing = [training for key, training in planned.items() if key not in results]

    from cltmlib.sweep.progress import Progress

    with Progress(len(results), len(planned), progress) as bar:
        if missing:
            with contextlib.closing(_outcomes(executor, missing, train, n_workers, device)) as finished:
                for training, result, seconds, started in finished:
                    results[training.key] = store.add(training, result, seconds, started)
                    bar.step()
    return {key: results[key] for key in planned}


def _outcomes(executor: str, missing: list[Training], train: Callable, n_workers: int | None, device: str):
    if executor == "ray":
        from cltmlib.sweep import ray

        return ray.outcomes(missing, train, n_workers, device)
    if executor == "local":
        from cltmlib.sweep import local

        return local.outcomes(missing, train, n_workers or (local.usable_cores() if device == "cpu" else 1))
    raise InputError(f"Unknown executor {executor!r}: choose local or ray.")
