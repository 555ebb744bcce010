"""The one fine-tuning loop of the classification tasks: what a worker of the sweep runs.

Paper, Section 3.2: AdamW, constant learning rate, no weight decay, gradient norm clipped, one epoch, mixed precision on
GPU, and the seed handed to initialisation, shuffling and batching.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import set_seed

from cltmlib import tasks
from cltmlib.audio import WaveformStore
from cltmlib.encoders import Encoder, PooledClassifier, collate, load_encoder
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
        params: with encoder, encoder_revision, device, precision, batch_size and learning_rate.
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
        self._labels = {
            row["utterance_id"]: module.label(row) for row in data.utterances.reset_index().to_dict("records")
        }
        self._config = {
            "task_version": module.VERSION,
            "encoder": self.encoder.fingerprint,
            "learning_rate": params["learning_rate"],
            "batch_size": params["batch_size"],
            "precision": params["precision"] if self.device != "cpu" else "float32",
            "device": self.device,  # results are repeatable on one kind of device only
        }

    def config(self, utterances: Sequence[str]) -> dict:
        """`Training.config` of a training over these clips: hyper-parameters, encoder, digests of audio and labels."""
        labels = "".join(str(self._labels[u]) + "," for u in utterances)
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
        return run_training(training, self._store, self._labels, self.encoder, self.device)


_encoder = functools.lru_cache(maxsize=1)(load_encoder)  # Ray unpickles the worker anew for every training


def run_training(
    training: Training, store: WaveformStore, labels: Mapping[str, int], encoder: Encoder, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Fine-tune one model on ``training.train`` and evaluate it on every language of ``training.test``.

    Args:
        training: clips, seed and ``config`` with learning_rate, batch_size and precision.
        store: waveforms of all its clips.
        labels: utterance id -> class index.
        encoder: where the fine-tuning starts.
        device: ``"cpu"`` or ``"cuda"``.

    Returns:
        {language: {metric: value}} with the task's metrics and ``n``, the number of test clips.

    Raises:
        InputError: the training diverged.
    """
    task = tasks.task(training.task)
    if device != "cpu":
        use_deterministic_kernels()
    set_seed(training.seed)  # python, numpy and torch: head, dropout, layer drop and masking all draw from them
    model = PooledClassifier(encoder.fresh_model(), len(task.CLASSES)).to(device).train()
    _train(model, training, store, labels, encoder, device)
    model.eval()
    results = {}
    for language, utterances in training.test.items():
        logits = predict(model, utterances, store, encoder, device, training.config["precision"])
        if not np.isfinite(logits).all():  # a NaN would be read as a class and become a data point
            raise InputError(
                f"Training {training.label!r} diverged: its predictions are not finite; lower learning_rate."
            )
        results[language] = {**task.metrics(logits, np.array([labels[u] for u in utterances])), "n": len(utterances)}
    return results


def _train(model, training: Training, store, labels, encoder: Encoder, device: str) -> None:
    config = training.config
    optimiser = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"], weight_decay=0.0)
    scaler = torch.amp.GradScaler(device, enabled=device != "cpu" and config["precision"] == "float16")
    order = torch.randperm(len(training.train), generator=torch.Generator().manual_seed(training.seed)).tolist()
    for begin in range(0, len(order), config["batch_size"]):
        chosen = [training.train[k] for k in order[begin : begin + config["batch_size"]]]
        batch = collate([store.waveform(u) for u in chosen], encoder.feature_extractor).to(device)
        target = torch.tensor([labels[u] for u in chosen], device=device)
        with _autocast(device, config["precision"]):
            loss = cross_entropy(model(batch).float(), target)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        scaler.step(optimiser)
        scaler.update()


def _autocast(device: str, precision: str):
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
    model: PooledClassifier,
    utterances: Sequence[str],
    store: WaveformStore,
    encoder: Encoder,
    device: str = "cpu",
    precision: str = "float32",
) -> np.ndarray:
    """Logits of clips, (clip, class), in the order given. Clips of similar length share a batch."""
    n_samples = [round(seconds * store.sample_rate_hz) for seconds in store.duration_s(utterances)]
    logits = [None] * len(utterances)
    for chosen in _batches_by_length(n_samples, EVALUATION_BATCH_SECONDS * store.sample_rate_hz):
        waveforms = [store.waveform(utterances[k]) for k in chosen]  # read here: a test set may not fit into memory
        batch = collate(waveforms, encoder.feature_extractor).to(device)
        with _autocast(device, precision):
            rows = model(batch).float().cpu().numpy()
        for k, row in zip(chosen, rows, strict=True):
            logits[k] = row
    return np.stack(logits)
