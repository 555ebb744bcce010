"""A training that computes nothing: importable by worker processes, and a driver to be killed as a program."""

import hashlib
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from cltmlib import sweep
from cltmlib.errors import InputError


def f1(*parts) -> float:
    """A number in [0, 1) that depends on all parts and uses every digit of a float."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) / 2**64


def train(training):
    """Return an F1 for each test language; obey what the config asks for."""
    config = training.config
    time.sleep(config.get("sleep_s", 0))
    if log := config.get("log"):  # one line per training that was carried out to its end
        with Path(log).open("a") as file:
            file.write(training.key + "\n")
    if config.get("fail") == training.label:
        raise InputError(f"The training {training.label} cannot be done: mend it.")
    if config.get("die") == training.label:
        os._exit(7)
    return {language: {"f1": f1(training.train, training.seed, language)} for language in training.test}


def threads(training):
    """Return how many threads torch would use."""
    import torch

    return {"threads": torch.get_num_threads(), "pid": os.getpid()}


def make_plan(languages, seeds, config=None, reverse=False):
    """A plan over two clips per language and set."""
    order = list(reversed(languages)) if reverse else list(languages)
    subsets = {
        seed: {
            i: SimpleNamespace(first=[f"{i}-{seed}-1", f"{i}-{seed}-2"], second=[f"{i}-{seed}-3", f"{i}-{seed}-4"])
            for i in order
        }
        for seed in seeds
    }
    tests = {i: [f"{i}-test-{n}" for n in range(3)] for i in order}
    return sweep.cltm_plan("dummy", subsets, tests, seeds, config or {})


def main(store, table, log, sleep_s):
    """Drive a whole sweep with two workers and write its table."""
    plan = make_plan(["de", "ca", "tr"], [0, 1], {"sleep_s": float(sleep_s), "log": log})
    with sweep.RunStore(store) as open_store:
        results = sweep.run(plan.trainings, train, open_store, n_workers=2)
    sweep.performance_table(plan, results, "f1").to_csv(table, index=False)


if __name__ == "__main__":
    import dummy_training  # the workers must find train() under this name, not under __main__

    try:
        dummy_training.main(*sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
