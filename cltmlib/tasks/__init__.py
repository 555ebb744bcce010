"""Downstream tasks: each module says what a clip's label is and how a prediction is judged.

A task is a module with ``VERSION``, ``PERFORMANCE`` (the key of `metrics` that the transfer matrix uses, higher is
better), ``CLASSES``, ``label(row)`` and ``metrics(logits, labels)``.
"""

from importlib import import_module
from types import ModuleType

from cltmlib.errors import InputError

NAMES = ("gender",)


def task(name: str) -> ModuleType:
    """The task module called ``name``.

    Raises:
        InputError: there is no such task.
    """
    if name not in NAMES:
        raise InputError(f"There is no task {name!r}; choose among {', '.join(NAMES)}.")
    return import_module(f"cltmlib.tasks.{name}")
