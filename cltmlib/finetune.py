"""The one fine-tuning loop of all tasks: what a worker of the sweep runs.

Paper, Section 3.2: AdamW, constant learning rate, no weight decay, gradient norm clipped, one epoch (as many as
``epochs`` says where a task has that option), mixed precision on GPU, and the seed handed to initialisation, shuffling
and batching.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from transformers import set_seed

from cltmlib import subsets, sweep, tasks
from cltmlib.audio import WaveformStore
from cltmlib.encoders import Encoder, collate, load_encoder
from cltmlib.errors import InputError
from cltmlib.repeatable import use_deterministic_kernels
from cltmlib.subsets import Prepared
from cltmlib.sweep.plan import Training

MAX_GRADIENT_NORM = 1.0  # paper, Section 3.2
EVALUATION_BATCH_SECONDS = 64.0  # padded audio in one evaluation batch: bounds its memory whatever the clips' lengths
_PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_device(device: str) -> str:
    """``"auto"`` is the GPU where there is one.

    Raises:
        InputError: ``cuda`` was asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but torch sees no NVIDIA GPU here; use device auto or cpu.")
    return device


class Worker:
    """Plans and runs the trainings of one task; picklable, so that every process of a sweep loads its inputs once.

    Args:
        task: name of the task.
        data: from `cltmlib.subsets.prepare`.
        params: with encoder, encoder_revision, device, precision, batch_size, learning_rate and the task's ``OPTIONS``.

    Raises:
        InputError: a clip or an option of the task is missing, or it does not fit the encoder.
    """

    def __init__(self, task: str, data: Prepared, params: Mapping):
        module = tasks.task(task)
        self.device = resolve_device(params["device"])
        self.encoder = _encoder(params["encoder"], params["encoder_revision"])
        self._where = (params["encoder"], self.encoder.revision)
        self._store = data.store
        if data.store.sample_rate_hz != self.encoder.sample_rate_hz:
            raise InputError(
                f"Encoder {params['encoder']!r} wants {self.encoder.sample_rate_hz} Hz, but the clips were decoded at "
                f"{data.store.sample_rate_hz} Hz; choose an encoder of that rate."
            )
        columns = ["language", *module.COLUMNS]
        self._rows = dict(zip(data.utterances.index, data.utterances[columns].to_dict("records"), strict=True))
        for utterance, row in self._rows.items():
            for column, value in row.items():
                if not isinstance(value, str):
                    raise InputError(f"Clip {utterance!r} has no {column}, which task {task!r} needs; leave it out.")
        config = {
            "task_version": module.VERSION,
            "encoder": self.encoder.fingerprint,
            "learning_rate": params["learning_rate"],
            "batch_size": params["batch_size"],
            "precision": params["precision"] if self.device != "cpu" else "float32",
            "device": self.device,  # results are repeatable on one kind of device only
        }
        for name in module.OPTIONS:
            if name in (*config, "audio", "labels"):
                raise InputError(f"Task {task!r} has an option {name!r}, which every training has: name it otherwise.")
            if name not in params:
                raise InputError(f"Task {task!r} wants parameter {name!r}, which is not given.")
        self._config = {**config, **{name: params[name] for name in module.OPTIONS}}

    def config(self, utterances: Sequence[str]) -> dict:
        """`Training.config` of a training over these clips: hyper-parameters, encoder, digests of audio and labels."""
        labels = json.dumps([list(self._rows[u].values()) for u in utterances])
        return {
            **self._config,
            "audio": self._store.digest(utterances),
            "labels": hashlib.blake2b(labels.encode(), digest_size=8).hexdigest(),
        }

    def __getstate__(self) -> dict:
        return {**self.__dict__, "encoder": None}  # each process loads its own copy

    def __call__(self, training: Training) -> dict[str, dict[str, float]]:
        """Train and evaluate: {language: metrics}."""
        utterances = [*training.train, *(u for test in training.test.values() for u in test)]
        if self._store.digest(utterances) != training.config["audio"]:
            raise InputError("Another run has changed the waveform store during this sweep; run again.")
        if self.encoder is None:
            self.encoder = _encoder(*self._where)
        return run_training(training, self._store, self._rows, self.encoder, self.device)


class LearningCurve(NamedTuple):
    """What `learning_curves` measured of one task.

    Attributes:
        curves: columns language, n_samples, seed, performance.
        data: the sets it was measured on.
        device: where it was trained.
    """

    curves: pd.DataFrame
    data: Prepared
    device: str

    def means(self) -> pd.DataFrame:
        """Mean performance over seeds; rows = languages, columns = numbers of samples."""
        groups = self.curves.groupby(["language", "n_samples"], sort=False)
        return groups["performance"].mean().unstack("n_samples")

    def sets(self) -> str:
        """Clips and speakers of the sets, as text."""
        return self.data.summary().T.to_string()


def learning_curves(corpus, params: Mapping, store_file: str | PathLike) -> dict[str, LearningCurve]:
    """Measure the learning curves of the tasks (paper, Section 2.2) and keep every training in the run store.

    Args:
        corpus: utterances.
        params: of notebook 01; a task is left out where its list of sizes, ``<task>_n_samples``, is empty.
        store_file: the run store; decoded clips lie beside it.

    Returns:
        Task -> its curves.
    """
    designs = {
        "gender": subsets.ByClass(params["samples_per_speaker"], params["max_test_samples"]),
        "speaker": subsets.BySpeaker(params["speakers_per_sample"], params["max_test_samples"]),
    }
    trim_db = {"gender": None, "speaker": params["trim_db"]}
    measured = {}
    for task, design in designs.items():
        sizes = params[f"{task}_n_samples"]
        if not sizes:
            continue
        data = subsets.prepare(
            corpus, params["languages"], sizes, params["seeds"], Path(store_file).parent / "waveforms", design,
            min_seconds=params["min_seconds"], max_seconds=params["max_seconds"], trim_db=trim_db[task],
        )  # fmt: skip
        own = {name: params.get(f"{task}_{name}") or params[name] for name in ("batch_size", "learning_rate")}
        worker = Worker(task, data, {**params, **own})
        points = sweep.curve_plan(task, data.subsets, data.tests, worker.config)
        with sweep.RunStore(store_file) as store:
            trainings = [point.training for point in points]
            results = sweep.run(trainings, worker, store, params["executor"], params["n_workers"], worker.device)
        curves = sweep.curve_table(points, results, tasks.task(task).PERFORMANCE)
        measured[task] = LearningCurve(curves, data, worker.device)
    return measured


_encoder = functools.lru_cache(maxsize=1)(load_encoder)  # Ray unpickles the worker anew for every training


def run_training(
    training: Training, store: WaveformStore, rows: Mapping[str, Mapping], encoder: Encoder, device: str = "cpu"
) -> dict[str, dict]:
    """Fine-tune one model on ``training.train`` and evaluate it on every test set of ``training.test``.

    Args:
        training: clips, seed and ``config`` with learning_rate, batch_size, precision and the task's options.
        store: waveforms of all its clips.
        rows: utterance id -> language and the task's ``COLUMNS`` of the clip.
        encoder: where the fine-tuning starts.
        device: ``"cpu"`` or ``"cuda"``.

    Returns:
        {test set: {metric: value}} as the task's ``evaluate`` gives it.

    Raises:
        InputError: the training diverged.
    """
    task = tasks.task(training.task)
    if device != "cpu":
        use_deterministic_kernels()
    set_seed(training.seed)  # python, numpy and torch: head, dropout, layer drop and masking all draw from them
    model = task.model(encoder.fresh_model(), [rows[u] for u in training.train], training.config).to(device).train()
    _train(model, training, store, rows, encoder, device)
    model.eval()

    def predictions(utterances: Sequence[str]) -> list[np.ndarray]:
        predicted = predict(model, utterances, store, encoder, device, training.config["precision"])
        if not all(np.isfinite(row).all() for row in predicted):  # NaN would be read as a class: a false data point
            raise InputError(
                f"Training {training.label!r} diverged: its predictions are not finite; lower learning_rate."
            )
        return predicted

    return task.evaluate(predictions, training, rows)


def _train(model, training: Training, store, rows, encoder: Encoder, device: str) -> None:
    config = training.config
    groups = model.parameter_groups(config) if hasattr(model, "parameter_groups") else model.parameters()
    optimiser = torch.optim.AdamW(groups, config["learning_rate"], weight_decay=0.0, fused=True)
    scaler = gradient_scaler(device, config["precision"])
    generator = torch.Generator().manual_seed(training.seed)
    for _ in range(config.get("epochs", 1)):
        order = torch.randperm(len(training.train), generator=generator).tolist()
        for begin in range(0, len(order), config["batch_size"]):
            chosen = [training.train[k] for k in order[begin : begin + config["batch_size"]]]
            batch = _inputs(model, chosen, store, encoder, device)
            with autocast(device, config["precision"]):
                loss = model.loss(batch, [rows[u] for u in chosen])
            update(model, loss, optimiser, scaler)


def _inputs(model: torch.nn.Module, utterances: Sequence[str], store: WaveformStore, encoder: Encoder, device: str):
    """The clips as a batch of waveforms; of features for a model that has ``frozen_features``."""
    if hasattr(model, "frozen_features"):
        return model.frozen_features.batch(utterances, store, encoder.feature_extractor).to(device)
    return collate([store.waveform(u) for u in utterances], encoder.feature_extractor).to(device)


def gradient_scaler(device: str, precision: str) -> torch.amp.GradScaler:
    """Loss scaling for float16 on a GPU; does nothing elsewhere."""
    return torch.amp.GradScaler(device, enabled=device != "cpu" and precision == "float16")


def update(model: torch.nn.Module, loss: torch.Tensor, optimiser: torch.optim.Optimizer, scaler) -> None:
    """One optimiser step on ``loss``, its gradient norm clipped to `MAX_GRADIENT_NORM`."""
    optimiser.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(optimiser)
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    scaler.step(optimiser)
    scaler.update()


def autocast(device: str, precision: str):
    """Mixed precision on a GPU (paper, Section 3.2: fp16); float32 on a CPU, where it would only be slower."""
    dtype = _PRECISIONS[precision]
    return torch.autocast(device, dtype=dtype) if dtype and device != "cpu" else nullcontext()


def _batches_by_length(n_samples: Sequence[int], most: float) -> list[list[int]]:
    """Indices of clips, shortest first, in batches of at most ``most`` padded samples (but at least one clip).

    Example:
        >>> _batches_by_length([5, 1, 2, 9], most=6)
        [[1, 2], [0], [3]]
    """
    batches: list[list[int]] = []
    for k in sorted(range(len(n_samples)), key=n_samples.__getitem__):
        if batches and (len(batches[-1]) + 1) * n_samples[k] <= most:
            batches[-1].append(k)
        else:
            batches.append([k])
    return batches


@torch.inference_mode()
def predict(
    model: torch.nn.Module,
    utterances: Sequence[str],
    store: WaveformStore,
    encoder: Encoder,
    device: str = "cpu",
    precision: str = "float32",
) -> list[np.ndarray]:
    """``model.predict`` of clips, one array per clip, in the order given. Clips of similar length share a batch."""
    n_samples = [round(seconds * store.sample_rate_hz) for seconds in store.duration_s(utterances)]
    predicted = [None] * len(utterances)
    for chosen in _batches_by_length(n_samples, EVALUATION_BATCH_SECONDS * store.sample_rate_hz):
        # Read here: a test set may not fit into memory.
        batch = _inputs(model, [utterances[k] for k in chosen], store, encoder, device)
        with autocast(device, precision):
            rows = model.predict(batch).float().cpu().numpy()
        for k, row in zip(chosen, rows, strict=True):
            predicted[k] = row
    return predicted
