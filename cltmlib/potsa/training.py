"""Training of the speech LLM in two stages (arXiv 2511.09232, Section 3.1) and what is measured of it.

Stage 1: the first language alone, first its transcription, then its translation. It knows neither alignment nor other
languages, so the systems of a seed share it (two versions, with and without bias compensation). Stage 2: translation
from all languages, and the alignment of parallel pairs. AdamW with linear warm-up and decay, gradient norm clipped.
"""

import functools
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import get_linear_schedule_with_warmup, set_seed

from cltmlib import sweep
from cltmlib.errors import InputError
from cltmlib.finetune import autocast, gradient_scaler, resolve_device, update
from cltmlib.potsa.alignment import alignment_loss
from cltmlib.potsa.bias import LanguageBias
from cltmlib.potsa.data import ParallelSpeech
from cltmlib.potsa.llm import LanguageModel, load_llm
from cltmlib.potsa.pairs import ParallelPairs
from cltmlib.potsa.retrieval import jensen_shannon_divergence, recall_at_1
from cltmlib.potsa.speech_llm import SpeechLLM, Step
from cltmlib.potsa.systems import SYSTEMS, LayerChoice, System
from cltmlib.potsa.transport import cosine_cost, sinkhorn
from cltmlib.repeatable import flush_denormals, use_deterministic_kernels
from cltmlib.subsets.pool import shuffled
from cltmlib.sweep.plan import Training

TASK = "potsa"
VERSION = 3  # raised whenever the same configuration would give another result
MAX_TOKENS = 150  # of a translation; SLAM-LLM
EVALUATION_BATCH = 64
TOLERANCE = 1e-6  # of the marginals in training; a batch's gradient has more noise
PICTURE_EPSILON = 0.01  # of the plan that is drawn, the same for all systems
HISTOGRAM_SENTENCES = 40  # whose tokens make the histograms of the languages, one clip of each
NO_BIAS = ", no bias"  # after a zero-shot language: tested without an estimate of its bias
_SHAPE = ("n_queries", "n_blocks", "qformer_width", "qformer_heads")
_STAGE_1 = ("transcription_steps", "translation_steps", "stage_1_learning_rate")
_STAGE_2 = ("n_steps", "learning_rate")
_BOTH = ("warmup_steps", "batch_size")
_ALIGNED = ("alpha", "epsilon")
_SCHEDULED = ("rho", "beta", "tau")


class Worker:
    """Plans and runs the trainings of the study; picklable, so that every process of a sweep loads its inputs once.

    Args:
        speech: from `cltmlib.potsa.prepare`.
        params: of notebook 05.
        llm: the frozen language model.
        directory: where the models after stage 1 are kept.
    """

    def __init__(self, speech: ParallelSpeech, params: Mapping, llm: LanguageModel, directory: str | os.PathLike):
        self.device = resolve_device(params["device"])
        self._speech, self._params, self._directory = speech, {**params}, Path(directory)
        self._where = (params["llm"], llm.revision, llm_dtype(params))
        self._fingerprint = llm.fingerprint
        self._llm: LanguageModel | None = llm

    def plan(self) -> dict[tuple[str, int], Training]:
        """(system, seed) -> training."""
        return {
            (name, seed): self._training(name, system, seed)
            for name, system in SYSTEMS.items()
            for seed in self._params["seeds"]
        }

    def _training(self, name: str, system: System, seed: int) -> Training:
        speech = self._speech
        train = [u for language in speech.languages for u in speech.train[language]]
        config = functools.partial(self._content, system)
        return sweep.plan_training(TASK, train, speech.test, seed, config, f"{name} seed {seed}")

    def _content(self, system: System, utterances: Sequence[str]) -> dict:
        """`Training.config`: all that decides the result, and nothing of what other systems need."""
        speech, params = self._speech, self._params
        rows = speech.utterances.loc[list(utterances), ["language", "sentence", "sentence_id", "translation"]]
        config = {
            "version": VERSION,
            "encoded": speech.frames.digest,
            "labels": hashlib.blake2b(rows.to_json().encode(), digest_size=8).hexdigest(),
            "llm": self._fingerprint,
            "device": self.device,
            "precision": params["precision"] if self.device != "cpu" else "float32",
            "languages": list(speech.languages),
            "zero_shot": list(speech.zero_shot),
            "target": speech.target,
            "system": asdict(system),
            **{name: params[name] for name in (*_SHAPE, *_STAGE_1, *_STAGE_2, *_BOTH)},
        }
        if system.alignment:
            config |= {name: params[name] for name in _ALIGNED}
            if system.layers == "scheduled":
                config |= {name: params[name] for name in _SCHEDULED}
        return config

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_llm": None}  # each process loads its own copy

    def __call__(self, training: Training) -> dict:
        """Train and translate; see `run_training`."""
        if self._llm is None or self._llm.model.dtype != self._where[2]:
            self._llm = _language_model(*self._where)
        self._llm.model.to(self.device)
        return run_training(training, self._speech, self._llm, self._directory)


_language_model = functools.lru_cache(maxsize=1)(load_llm)


def llm_dtype(params: Mapping) -> torch.dtype:
    """Type of the frozen model's weights: ``precision`` on a GPU, where float32 would not fit, and float32 on a CPU."""
    return torch.float32 if resolve_device(params["device"]) == "cpu" else getattr(torch, params["precision"])


def run_training(training: Training, speech: ParallelSpeech, llm: LanguageModel, directory: str | os.PathLike) -> dict:
    """Train one speech LLM as ``training.config`` says and translate the test sets.

    Args:
        training: from `Worker.plan`.
        speech: encoder outputs and texts.
        llm: frozen.
        directory: where models after stage 1 are kept and found.

    Returns:
        ``steps``: per step of stage 2 the loss of the translations, the alignment loss (None without) and the aligned
        layers; ``translations``: {language: test translations, in the order of ``training.test``}, zero-shot
        languages also under their name and `NO_BIAS`; ``alignment``, ``spread`` and ``transport``: see
        `measure_alignment`.

    Raises:
        InputError: the training diverged.
    """
    config = training.config
    flush_denormals()
    if config["device"] != "cpu":
        use_deterministic_kernels()
    bias = speech.bias if config["system"]["compensated"] else None
    clips = Clips(speech, llm, bias, config)
    model = first_stage(training, clips, directory)
    steps = list(second_stage(model, training, clips))
    model.eval()
    sets = {language: training.test[language] for language in (*config["languages"], *config["zero_shot"])}
    translations = {language: clips.translate(model, ids) for language, ids in sets.items()}
    if bias is not None:
        unknown = Clips(speech, llm, _without(bias, config["zero_shot"]), config)
        translations |= {f"{i}{NO_BIAS}": unknown.translate(model, sets[i]) for i in config["zero_shot"]}
    return {"steps": steps, "translations": translations, **measure_alignment(model, clips, sets, config)}


def _without(bias: LanguageBias, languages: Sequence[str]) -> LanguageBias:
    """The same estimates but those of some languages, which are left as they are."""
    other = LanguageBias(unknown="keep")
    other.totals = {k: v for k, v in bias.totals.items() if k not in languages}
    other.n_utterances = bias.n_utterances
    return other


class Clips:
    """Clips by utterance id, as a speech LLM takes and translates them.

    Args:
        speech: encoder outputs and texts.
        llm: gives prompts and answers.
        bias: subtracted from the encoder's output; None: nothing is.
        config: of a training.
    """

    def __init__(self, speech: ParallelSpeech, llm: LanguageModel, bias: LanguageBias | None, config: Mapping):
        self.speech, self.llm, self._bias = speech, llm, bias
        self.device, self._precision, self._target = config["device"], config["precision"], config["target"]
        self._rows = speech.utterances[["language", "sentence", "translation"]].to_dict("index")
        self._tokens = functools.cache(llm.tokens)  # the same few sentences in every epoch

    def hidden(self, utterances: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encoder output, bias subtracted, (clip, frame, width), and valid frames (clip,)."""
        hidden, lengths = self.speech.frames.batch(utterances)
        if self._bias is not None:
            hidden = self._bias.transform(hidden, [self._rows[u]["language"] for u in utterances])
        return hidden.to(self.device), lengths.to(self.device)

    def step(self, model: SpeechLLM, utterances: Sequence[str], transcribe: bool = False) -> Step:
        """Mean cross-entropy of the translations' tokens, or the transcripts', and the query tokens."""
        rows = [self._rows[u] for u in utterances]
        prompts = [self.llm.prompt(row["language"] if transcribe else self._target) for row in rows]
        answers = [self._tokens(row["sentence" if transcribe else "translation"]) for row in rows]
        with autocast(self.device, self._precision):
            return model(*self.hidden(utterances), prompts, answers)

    def tokens(self, model: SpeechLLM, utterances: Sequence[str]) -> tuple[Tensor, ...]:
        """Query tokens after each block, each (clip, query, width)."""
        with autocast(self.device, self._precision):
            return model.encode(*self.hidden(utterances))[1]

    def translate(self, model: SpeechLLM, utterances: Sequence[str]) -> list[str]:
        """Greedy translations."""
        train = (u for language in self.speech.languages for u in self.speech.train[language])
        longest = max(len(self._tokens(self._rows[u]["translation"])) for u in train)
        texts = []
        for chosen in _chunks(utterances, EVALUATION_BATCH):
            prompts = [self.llm.prompt(self._target)] * len(chosen)
            with autocast(self.device, self._precision):
                answers = model.translate(*self.hidden(chosen), prompts, min(MAX_TOKENS, 2 * longest + 1))
            texts += self.llm.texts(answers)
        return texts


def _chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    return (items[start : start + size] for start in range(0, len(items), size))


def first_stage(training: Training, clips: Clips, directory: str | os.PathLike) -> SpeechLLM:
    """The model after stage 1, trained now or read from ``directory``: its file is named by what decides it."""
    config = training.config
    content = {k: config[k] for k in ("version", "encoded", "labels", "llm", "device", "precision", "target")}
    content |= {k: config[k] for k in (*_SHAPE, *_STAGE_1, *_BOTH)} | {"seed": training.seed}
    language, compensated = config["languages"][0], config["system"]["compensated"]
    utterances = [u for u in training.train if clips.speech.utterances.at[u, "language"] == language]
    text = json.dumps([content, compensated, utterances], sort_keys=True)
    path = Path(directory) / f"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.safetensors"
    set_seed(training.seed)
    names = dict(zip(_SHAPE, ("n_queries", "n_blocks", "width", "n_heads"), strict=True))
    shape = {argument: config[name] for name, argument in names.items()}
    model = SpeechLLM(clips.llm.model, clips.speech.frames.width, **shape).to(config["device"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):  # another process may be training the same
        if not path.is_file():
            for transcribe, name in ((True, "transcription_steps"), (False, "translation_steps")):
                batches = _batches(utterances, config["batch_size"], [training.seed, 1 + transcribe])
                optimise = Optimiser(model, config["stage_1_learning_rate"], config[name], config, training.label)
                for batch in itertools.islice(batches, config[name]):
                    model.train()
                    optimise(clips.step(model, batch, transcribe).loss)
            with tempfile.TemporaryDirectory(dir=path.parent) as partial:
                save_file(model.state_dict(), Path(partial) / path.name)
                os.replace(Path(partial) / path.name, path)
    model.load_state_dict(load_file(path))
    return model


def second_stage(model: SpeechLLM, training: Training, clips: Clips) -> Iterator[list]:
    """Train in place; after each step give [translation loss, alignment loss or None, aligned layers].

    A batch is made of parallel pairs, whatever the system: both utterances of each are translated and, with alignment,
    brought together. So systems with the same pairs differ in the alignment alone; an anchor is half of
    its batches. Choice: every pair of a batch draws its languages, so that a step translates from more than two.
    """
    config = training.config
    system = System(**config["system"])
    optimise = Optimiser(model, config["learning_rate"], config["n_steps"], config, training.label)
    rows = clips.speech.utterances.loc[list(training.train)].reset_index()
    pairs = ParallelPairs(rows, config["languages"], "train", system.pairs, config["languages"][0], incomplete="skip")
    drawing, scheduling = (np.random.default_rng([training.seed, k]) for k in (3, 4))
    choice = None
    if system.alignment:
        schedule = {name: config[name] for name in _SCHEDULED if name in config}
        choice = LayerChoice(system, config["n_blocks"], scheduling, **schedule)
    for _ in range(config["n_steps"]):
        model.train()
        drawn = [pairs.sample(1, drawing)[0] for _ in range(config["batch_size"] // 2)]
        step = clips.step(model, [pair.source_id for pair in drawn] + [pair.target_id for pair in drawn])
        if choice is None:
            yield [round(optimise(step.loss), 4), None, []]
            continue
        optimise.check(step.loss)  # before the alignment, which would blame the audio
        layers = choice.draw()
        sides = zip(*(tokens.chunk(2) for tokens in step.tokens), strict=True)
        distance = alignment_loss(
            *sides, layers=layers, kind=system.alignment, epsilon=config["epsilon"], freeze_source=pairs.freeze_source,
            tolerance=TOLERANCE,
        )  # fmt: skip
        optimise(step.loss + config["alpha"] * distance)
        choice.report(layers, step.loss.item())
        yield [round(step.loss.item(), 4), round(distance.item(), 6), layers]


class Optimiser:
    """AdamW with linear warm-up and decay and clipped gradients; called with a loss, takes one step."""

    def __init__(self, model: SpeechLLM, learning_rate: float, n_steps: int, config: Mapping, label: str):
        self._model, self._label = model, label
        self._adam = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.01, fused=True)
        self._schedule = get_linear_schedule_with_warmup(self._adam, config["warmup_steps"], n_steps)
        self._scaler = gradient_scaler(config["device"], config["precision"])

    def __call__(self, loss: Tensor) -> float:
        self.check(loss)
        update(self._model, loss, self._adam, self._scaler)
        self._schedule.step()
        return loss.item()

    def check(self, loss: Tensor) -> None:
        """Refuse a loss that is not finite."""
        if not loss.isfinite():
            raise InputError(f"Training {self._label!r} diverged: lower learning_rate or alpha.")


def _batches(utterances: Sequence[str], size: int, seed: Sequence[int]) -> Iterator[list[str]]:
    """Batches in random order, epoch after epoch, without end."""
    generator = np.random.default_rng(seed)
    order: list[int] = []
    while True:
        while len(order) < size:
            order += generator.permutation(len(utterances)).tolist()
        batch, order = order[:size], order[size:]
        yield [utterances[k] for k in batch]


@torch.no_grad()
def measure_alignment(model: SpeechLLM, clips: Clips, sets: Mapping[str, Sequence[str]], config: Mapping) -> dict:
    """How alike the trained languages' query tokens are on the test sentences.

    Returns:
        ``alignment``: per block and two languages [block, language, language, Recall@1, 1 - JSD], an utterance's vector
        being the mean of its tokens; ``spread``: per block the mean cosine distance between two tokens of an
        utterance, which falls where tokens collapse; ``transport``: the plan (query, query) of the first sentence in
        the first two languages, after the upper one of the lower half of the blocks.
    """
    tokens = {}  # language -> block -> (clip, query, width)
    for language in config["languages"]:
        parts = [clips.tokens(model, chosen) for chosen in _chunks(sets[language], EVALUATION_BATCH)]
        tokens[language] = [torch.cat(blocks).float().cpu() for blocks in zip(*parts, strict=True)]
    sentence_ids = clips.speech.utterances["sentence_id"]
    ids = {language: sentence_ids.loc[list(sets[language])].tolist() for language in tokens}
    alignment, spread = [], []
    for block in range(config["n_blocks"]):
        of_block = {language: blocks[block] for language, blocks in tokens.items()}
        alignment += [[block, *row] for row in compare_languages(of_block, ids)]
        together = torch.cat(list(of_block.values()))
        n_queries = together.shape[1]
        distances = cosine_cost(together, together).sum((1, 2)) / max(1, n_queries * (n_queries - 1))
        spread.append(round(distances.mean().item(), 4))
    one, other = config["languages"][:2]
    sentence, lower = sorted(set(ids[one]))[0], max(1, config["n_blocks"] // 2) - 1
    pair = [tokens[i][lower][ids[i].index(sentence)][None] for i in (one, other)]
    plan = sinkhorn(cosine_cost(*pair), PICTURE_EPSILON)[1][0]
    return {"alignment": alignment, "spread": spread, "transport": (plan * len(plan)).numpy().round(4).tolist()}


def compare_languages(tokens: Mapping[str, Tensor], ids: Mapping[str, Sequence[str]]) -> list[list]:
    """[language, language, Recall@1, 1 - JSD] of every two languages.

    Args:
        tokens: language -> (clip, token, width).
        ids: language -> sentence of each clip; some sentence is in all languages.
    """
    shared = shuffled(set.intersection(*map(set, ids.values())), "histogram")[:HISTOGRAM_SENTENCES]
    chosen = [of[[ids[language].index(s) for s in shared]] for language, of in tokens.items()]  # the same content
    flat = torch.cat([of.flatten(0, 1) for of in chosen]).numpy()
    names = [language for language in tokens for _ in range(len(flat) // len(tokens))]
    divergence = jensen_shannon_divergence(flat, names, min(64, len(flat) // 4))
    rows = []
    for one, other in itertools.combinations(tokens, 2):
        pooled = [tokens[language].mean(1).numpy() for language in (one, other)]
        recall = recall_at_1(*pooled, ids[one], ids[other]).mean
        rows.append([one, other, round(recall, 4), round(1 - float(divergence.loc[one, other]), 4)])
    return rows
