"""Downstream tasks: each module says what a training learns from a clip and how the trained model is judged.

A task is a module with

- ``VERSION``: raised whenever the same training would give another result; part of every training's key;
- ``PERFORMANCE``: the metric that the transfer matrix uses, higher is better; ``PERFORMANCE_NAME``: the same in words;
  ``CHANCE``: what it is worth without learning;
- ``COLUMNS``: what it reads of a clip's row besides the audio; these values are part of the key too;
- ``OPTIONS``: names of the parameters that it alone reads, in a training's ``config``;
- ``model(encoder, rows, config)``: a module with ``loss(batch, rows)`` for a batch of training clips and their rows,
  and ``predict(batch)``, one row of numbers per clip; it may have ``parameter_groups(config)``, for learning rates of
  their own, and ``frozen_features`` (`cltmlib.frozen`), which batches hold in place of waveforms;
- ``evaluate(predict, training, rows)``: {test set: metrics}, where ``predict(utterance_ids)`` gives one prediction per
  clip and ``rows[utterance_id]`` its row.
"""

from importlib import import_module
from types import ModuleType

from cltmlib.errors import InputError

NAMES = ("gender", "speaker", "recognition")


def task(name: str) -> ModuleType:
    """The task module called ``name``.

    Raises:
        InputError: there is no such task.
    """
    if name not in NAMES:
        raise InputError(f"There is no task {name!r}; choose among {', '.join(NAMES)}.")
    return import_module(f"cltmlib.tasks.{name}")
