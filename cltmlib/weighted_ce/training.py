"""Fine-tuning of Whisper on several languages of which one is low-resource (arXiv 2409.16954).

AdamW with linear warm-up and decay, gradient norm clipped to 1, no weight decay on biases and norms: as the authors'
trainer. Dev, not test, chooses the checkpoint; they choose it on test.
"""

import copy
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration, get_linear_schedule_with_warmup, set_seed

from cltmlib import sweep, wer
from cltmlib.augment import Augmentation, utterance_generator
from cltmlib.errors import InputError
from cltmlib.finetune import MAX_GRADIENT_NORM, autocast, gradient_scaler, resolve_device, update
from cltmlib.repeatable import flush_denormals, use_deterministic_kernels
from cltmlib.subsets.pool import shuffled
from cltmlib.sweep.plan import Training
from cltmlib.weighted_ce import weights
from cltmlib.weighted_ce.data import Speech
from cltmlib.weighted_ce.loss import batch_scale, group_losses, utterance_losses, weighted_cross_entropy
from cltmlib.weighted_ce.systems import FISHER_CLIPS, ORIGINAL, SYSTEMS, System, schedule
from cltmlib.whisper import Whisper, load_whisper

TASK = "weighted_ce"
VERSION = 2  # raised whenever the same configuration would give another result
MAX_TOKENS = 225  # of a transcript; the authors' code
EVALUATION_BATCH = 32


class Worker:
    """Plans and runs the trainings of the study; picklable, so that every process of a sweep loads its inputs once.

    Args:
        speech: from `cltmlib.weighted_ce.prepare`.
        params: of notebook 04.
        whisper: the original model.
    """

    def __init__(self, speech: Speech, params: Mapping, whisper: Whisper):
        self.device = resolve_device(params["device"])
        self._speech = speech
        self._params = {**params}
        self._where = (params["model"], whisper.revision)
        self._whisper: Whisper | None = whisper
        self._rows = speech.utterances[["language", "sentence"]].to_dict("index")
        self._fingerprint = whisper.fingerprint

    def plan(self) -> dict[tuple[str, int], Training]:
        """(system, seed) -> training; the original model is one, with the first seed."""
        first = self._params["seeds"][0]
        plan = {(ORIGINAL, first): self._training(ORIGINAL, None, first)}
        for name, system in SYSTEMS.items():
            for seed in self._params["seeds"]:
                plan[name, seed] = self._training(name, system, seed)
        return plan

    def _training(self, name: str, system: System | None, seed: int) -> Training:
        speech = self._speech
        tests = {f"test/{language}": ids for language, ids in speech.test.items()}
        if system is None:
            return sweep.plan_training(TASK, (), tests, 0, functools.partial(self._content, None, 0), name)
        tests |= {f"dev/{language}": ids for language, ids in speech.dev.items()}
        train = list(speech.train[seed][speech.low])
        for language in speech.languages:
            if language != speech.low:
                own = speech.train[seed][language]
                replayed = max(1, round(self._params["rehearsal_share"] * len(own)))
                n = {"all": len(own), "low": 0, "rehearsal": replayed}[system.data]
                train += shuffled(own, "rehearsal", seed)[:n]
        content = functools.partial(self._content, system, seed)
        return sweep.plan_training(TASK, train, tests, seed, content, f"{name} seed {seed}")

    def _content(self, system: System | None, seed: int, utterances: Sequence[str]) -> dict:
        """`Training.config`: all that decides the result, and nothing of what other systems need."""
        params = self._params
        config = {
            "version": VERSION,
            "limits": [MAX_GRADIENT_NORM, MAX_TOKENS],
            "normaliser": wer.NORMALISER,
            "model": self._fingerprint,
            "device": self.device,
            "precision": params["precision"] if self.device != "cpu" else "float32",
        }
        fisher = self._fisher_clips(seed) if system is not None and system.consolidated else []
        utterances = [*utterances, *fisher]
        rows = json.dumps([list(self._rows[u].values()) for u in utterances])
        config["audio"] = self._speech.store.digest(utterances)
        config["labels"] = hashlib.blake2b(rows.encode(), digest_size=8).hexdigest()
        if system is None:
            return config
        weight = schedule(system, params)
        config |= {
            "low": self._speech.low,
            "system": asdict(system),
            "weight": {"kind": type(weight).__name__, **{k: v for k, v in asdict(weight).items() if k[0] != "_"}},
            **{k: params[k] for k in ("learning_rate", "batch_size", "n_steps", "warmup_steps", "weight_decay")},
            "n_checkpoints": params["n_checkpoints"],
        }
        if system.augmented:
            config["augmentation"] = params["augmentation"]
            config["effects"] = asdict(Augmentation())
        if system.consolidated:
            config["ewc"], config["fisher"] = params["ewc_strength"], fisher
        return config

    def _fisher_clips(self, seed: int) -> list[str]:
        of_seed = self._speech.train[seed]
        high = [language for language in self._speech.languages if language != self._speech.low]
        return [u for language in high for u in shuffled(of_seed[language], "fisher", seed)[:FISHER_CLIPS]]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_whisper": None}  # each process loads its own copy

    def __call__(self, training: Training) -> dict:
        """Train and transcribe; see `run_training`."""
        used = [
            *training.train,
            *(u for ids in training.test.values() for u in ids),
            *training.config.get("fisher", ()),
        ]
        if self._speech.store.digest(used) != training.config["audio"]:
            raise InputError("Another run has changed the waveform store during this sweep; run again.")
        if self._whisper is None:
            self._whisper = _whisper(*self._where)
        return run_training(training, self._speech.store, self._rows, self._whisper)


_whisper = functools.lru_cache(maxsize=1)(load_whisper)


def run_training(training: Training, store, rows: Mapping[str, Mapping], whisper: Whisper) -> dict:
    """Fine-tune one model as ``training.config`` says and transcribe its test sets.

    Args:
        training: ``train`` clips, ``test`` sets named ``dev/<language>`` and ``test/<language>``; without training
            clips the model transcribes as it is.
        store: waveforms of all clips.
        rows: utterance id -> language and sentence.
        whisper: where the fine-tuning starts.

    Returns:
        ``hypotheses``: {language: transcripts of its test clips, in the order of ``training.test``}; ``steps``: per
        optimiser step the mean losses of the low-resource utterances and of the others (None where the batch has none)
        and the weight; ``checkpoints``: [step, mean dev WER]; ``chosen``: the step of the checkpoint used.

    Raises:
        InputError: the training diverged, or the low-resource language is not in it.
    """
    config = training.config
    flush_denormals()
    if config["device"] != "cpu":
        use_deterministic_kernels()
    set_seed(training.seed)
    model = whisper.fresh_model().to(config["device"])
    result: dict = {"steps": [], "checkpoints": [], "chosen": None}
    clips = Clips(store, rows, whisper, config["device"], config["precision"])
    if training.train:
        best, kept = None, None
        for step, record in fine_tune(model, training, clips):
            result["steps"].append(record)
            if not is_checkpoint(step, config["n_steps"], config["n_checkpoints"]):
                continue
            if not all(bool(p.isfinite().all()) for p in model.parameters()):
                raise _diverged(training, step)
            error_rate = mean_wer(model, clips, _of_split(training, "dev"))
            result["checkpoints"].append([step, round(error_rate, 6)])
            if best is None or error_rate < best:
                best, result["chosen"] = error_rate, step
                kept = copy.deepcopy(model.state_dict())
        model.load_state_dict(kept)
    result["hypotheses"] = {i: clips.transcribe(model, ids) for i, ids in _of_split(training, "test").items()}
    return result


def is_checkpoint(step: int, n_steps: int, n_checkpoints: int) -> bool:
    """Whether dev is looked at after ``step`` steps: ``n_checkpoints`` times in the second half, the last at the end.

    Choice: not earlier, for the linear progressive weight acts in the second half only; a checkpoint from before would
    be plain fine-tuning stopped early.

    Example:
        >>> [step for step in range(1, 11) if is_checkpoint(step, 10, 2)]
        [8, 10]
    """
    first = n_steps // 2
    share = n_checkpoints / (n_steps - first)
    return step > first and int((step - first) * share + 1e-9) > int((step - first - 1) * share + 1e-9)


def _of_split(training: Training, split: str) -> dict[str, tuple[str, ...]]:
    return {name.split("/")[1]: ids for name, ids in training.test.items() if name.startswith(f"{split}/")}


def fine_tune(
    model: WhisperForConditionalGeneration, training: Training, clips: "Clips"
) -> Iterator[tuple[int, list[float | None]]]:
    """Train ``model`` in place; after each step give how many were done and [low loss, other loss, weight]."""
    config = training.config
    low = config["low"]
    if low not in {clips.rows[u]["language"] for u in training.train}:
        raise InputError(f"The low-resource language {low!r} has no clip in training {training.label!r}: add some.")
    batches = _batches(training, clips)
    optimiser = _optimiser(model, config)
    warmup = get_linear_schedule_with_warmup(optimiser, config["warmup_steps"], config["n_steps"])
    scaler = gradient_scaler(config["device"], config["precision"])
    weight = _weight(config)
    mean = batch_scale if config["system"]["scales_batches"] else weighted_cross_entropy
    penalty = consolidation(model, clips, config["fisher"], config["ewc"]) if "ewc" in config else None
    for step, (waveforms, chosen) in zip(range(config["n_steps"]), batches, strict=False):
        model.train()
        logits, labels = clips.logits(model, waveforms, chosen)
        is_low = [clips.rows[u]["language"] == low for u in chosen]
        losses = group_losses(utterance_losses(logits.detach(), labels), is_low)
        if any(value is not None and not np.isfinite(value) for value in losses):
            raise _diverged(training, step)
        value = weight.weight(step, losses)
        loss = mean(logits, labels, torch.tensor([value if k else 1.0 for k in is_low], device=logits.device))
        if penalty is not None:
            loss = loss + penalty()
        update(model, loss, optimiser, scaler)
        warmup.step()
        yield step + 1, [None if v is None else round(v, 4) for v in (*losses, value)]


def _diverged(training: Training, step: int) -> InputError:
    return InputError(f"Training {training.label!r} diverged at step {step}: lower learning_rate or ewc_strength.")


def _weight(config: Mapping) -> weights.Weight:
    options = dict(config["weight"])
    return getattr(weights, options.pop("kind"))(**options)


def _optimiser(model: torch.nn.Module, config: Mapping) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices alone, as transformers' trainer has it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config["weight_decay"]},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, config["learning_rate"], fused=True)


def _batches(training: Training, clips: "Clips") -> Iterator[tuple[list[np.ndarray], list[str]]]:
    """Batches that mix languages at random, epoch after epoch, without end: waveforms and utterance ids."""
    config, low = training.config, training.config["low"]
    augments = config.get("augmentation")
    items = [(u, augments == "on_the_fly" and clips.rows[u]["language"] == low) for u in training.train]
    if augments == "copy":
        items += [(u, True) for u in training.train if clips.rows[u]["language"] == low]
    augmentation = Augmentation()
    generator = torch.Generator().manual_seed(training.seed)
    epoch, order = 0, []
    while True:
        while len(order) < config["batch_size"]:
            order += [(k, epoch) for k in torch.randperm(len(items), generator=generator).tolist()]
            epoch += 1
        batch, order = order[: config["batch_size"]], order[config["batch_size"] :]
        waveforms = []
        for k, of_epoch in batch:
            utterance, augmented = items[k]
            waveform = clips.store.waveform(utterance)
            if augmented:  # one copy stays the same in all epochs
                rng = utterance_generator(training.seed, utterance, 0 if augments == "copy" else of_epoch)
                changed = augmentation(waveform, rng)
                # Slowed down it may no longer fit the window; cutting it would leave a transcript that is too long.
                waveform = changed if len(changed) <= clips.whisper.feature_extractor.n_samples else waveform
            waveforms.append(waveform)
        yield waveforms, [items[k][0] for k, _ in batch]


class Clips:
    """Clips by utterance id, as a Whisper model takes and transcribes them."""

    def __init__(self, store, rows: Mapping[str, Mapping], whisper: Whisper, device: str, precision: str):
        self.store, self.rows, self.whisper = store, rows, whisper
        self._device, self._precision = device, precision

    def logits(self, model, waveforms: Sequence[np.ndarray], utterances: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Logits (batch, position, token) and labels (batch, position) of a teacher-forced pass."""
        rows = [self.rows[u] for u in utterances]
        inputs, labels = self.whisper.targets([r["sentence"] for r in rows], [r["language"] for r in rows])
        features = self.whisper.features(waveforms, self._device).to(self._device)
        with autocast(self._device, self._precision):
            logits = model(features, decoder_input_ids=inputs.to(self._device), use_cache=False).logits
        return logits, labels.to(self._device)

    def sentences(self, utterances: Sequence[str]) -> list[str]:
        """What was said."""
        return [self.rows[u]["sentence"] for u in utterances]

    def transcribe(self, model, utterances: Sequence[str]) -> list[str]:
        """Greedy transcripts, the language of each clip given."""
        texts = []
        for start in range(0, len(utterances), EVALUATION_BATCH):
            chosen = utterances[start : start + EVALUATION_BATCH]
            features = self.whisper.features([self.store.waveform(u) for u in chosen], self._device).to(self._device)
            languages = [self.rows[u]["language"] for u in chosen]
            with autocast(self._device, self._precision):
                texts += self.whisper.transcribe(model, features, languages, MAX_TOKENS)
        return texts


def mean_wer(model, clips: Clips, sets: Mapping[str, Sequence[str]]) -> float:
    """WER of each language's clips, averaged over languages: small test sets count as much as large ones."""
    utterances = [u for ids in sets.values() for u in ids]
    texts = dict(zip(utterances, clips.transcribe(model, utterances), strict=True))
    rates = [
        wer.error_rate(wer.errors(clips.sentences(ids), [texts[u] for u in ids], wer.error_unit(language)))
        for language, ids in sets.items()
    ]
    return float(np.mean(rates))


def consolidation(model, clips: Clips, utterances: Sequence[str], strength: float):
    """Elastic weight consolidation (arXiv 1612.00796, Eq. 3): a function that gives the present penalty.

    ``strength / 2 * sum of F (theta - theta_0)^2``, F the diagonal of the empirical Fisher information: the mean over
    these clips of the squared gradient of the transcript's log-likelihood under the original model.
    """
    model.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in trained]
    fisher = [torch.zeros_like(p) for p in trained]
    for utterance in utterances:
        logits, labels = clips.logits(model, [clips.store.waveform(utterance)], [utterance])
        n_tokens = (labels >= 0).sum()
        log_likelihood = -utterance_losses(logits, labels).sum() * n_tokens
        for total, gradient in zip(fisher, torch.autograd.grad(log_likelihood, trained), strict=True):
            total += gradient.square() / len(utterances)

    def penalty() -> Tensor:
        return strength / 2 * sum((f * (p - s).square()).sum() for f, p, s in zip(fisher, trained, start, strict=True))

    return penalty
