"""Downstream tasks: each module says what a training learns from a clip and how the trained model is judged.

A task is a module with

- ``VERSION``: raised whenever the same training would give another result; part of every training's key. A number, or
  a list of one and of constants that decide results;
- ``PERFORMANCE``: the metric that the transfer matrix uses, higher is better; ``PERFORMANCE_NAME``: the same in words;
  ``CHANCE``: what it is worth without learning;
- ``COLUMNS``: what it reads of a clip's row besides the audio; these values are part of the key too;
- ``OPTIONS``: names of the parameters that it alone reads, in a training's ``config``; none that every training has;
- ``model(encoder, rows, config)``: a module with ``loss(batch, rows)`` for a batch of training clips and their rows,
  and ``predict(batch)``, one row of numbers per clip; it may have ``parameter_groups(config)``, for learning rates of
  their own, and ``frozen_features`` (`cltmlib.frozen`), which batches hold in place of waveforms;
- ``evaluate(predict, training, rows)``: {test set: metrics}, where ``predict(utterance_ids)`` gives one prediction per
  clip and ``rows[utterance_id]`` its row.

Tasks of the library are called by their short names; a task of your own by its module's, such as "my_tasks.age" (the
README shows one), which every process of a sweep must be able to import.
"""

from importlib import import_module
from types import ModuleType

from cltmlib.errors import InputError

NAMES = ("gender", "speaker", "recognition")
_NEEDED = ("VERSION", "PERFORMANCE", "PERFORMANCE_NAME", "CHANCE", "COLUMNS", "OPTIONS", "model", "evaluate")


def task(name: str) -> ModuleType:
    """The task module called ``name``: one of ``NAMES``, or the dotted name of any module that can be imported.

    Raises:
        InputError: there is no such task, or the module lacks what a task needs.
    """
    if name in NAMES:
        return import_module(f"cltmlib.tasks.{name}")
    if "." not in name or not all(part.isidentifier() for part in name.split(".")):
        raise InputError(
            f"There is no task {name!r}; choose among {', '.join(NAMES)} or give a module of your own, such as "
            "'my_tasks.age'."
        )
    try:
        module = import_module(name)
    except ImportError as error:
        raise InputError(
            f"Task {name!r} cannot be imported ({error}): give the name of a module in the working folder or on "
            "PYTHONPATH."
        ) from error
    if missing := [needed for needed in _NEEDED if not hasattr(module, needed)]:
        raise InputError(f"Task {name!r} lacks {', '.join(missing)}: a task needs {', '.join(_NEEDED)}.")
    for names in ("COLUMNS", "OPTIONS"):
        if not isinstance(getattr(module, names), tuple):  # a text would be read letter by letter
            raise InputError(f"Task {name!r}: {names} is {getattr(module, names)!r}; make it a tuple of names.")
    return module
