"""Pretraining of the stand-in encoder: HuBERT's masked prediction at toy size, on the synthetic corpus.

Units are k-means clusters of MFCC and, in a second iteration if the recipe asks for one, of the own hidden layer,
as in HuBERT (arXiv 2106.07447).
Run by ``cltm pretrain mini-hubert``; the result, its recipe and what it buys (``--compare``) are kept in
``cltmlib/models``.
"""

import copy
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
import torchaudio
from sklearn.cluster import MiniBatchKMeans
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from cltmlib import finetune, subsets, sweep
from cltmlib.corpora import load_corpus, sentences

HOP = 320  # samples between frames, as in mHuBERT-147: 20 ms at 16 kHz
SAMPLE_RATE_HZ = 16_000
COMPARED_N_SAMPLES = (4, 8, 16, 32)  # clips per class, on either side of the interval of the mini profile


@dataclass(frozen=True)
class Recipe:
    """All that decides the stand-in. Steps and units are per iteration: (MFCC, own features).

    Choice: no second iteration. Measured, it made a worse start for gender recognition (docs/notes.md).
    """

    n_steps: tuple[int, int] = (2500, 0)
    n_units: tuple[int, int] = (100, 200)
    feature_layer: int = 3  # hidden layer (1-based) that gives the second iteration's units
    learning_rate: float = 5e-4
    warmup_steps: int = 200
    batch_size: int = 16
    crop_seconds: float = 2.0
    n_masks: int = 5
    mask_frames: int = 10
    unmasked_weight: float = 0.5
    seed: int = 0


def stand_in_config() -> HubertConfig:
    """A 0.9 M parameter `HubertModel`: group norm as mHuBERT-147 has it, 50 frames per second, four layers.

    Choice: four convolutions with large early strides instead of seven, for half the time per step on a CPU.
    """
    return HubertConfig(
        vocab_size=32,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        conv_dim=(48, 96, 128, 128),
        conv_kernel=(20, 8, 4, 4),
        conv_stride=(10, 4, 4, 2),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=8,
        feat_extract_norm="group",
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        mask_time_prob=0.05,
    )


def mfcc_features(waveform: np.ndarray) -> np.ndarray:
    """13 MFCC with first and second differences, one row per encoder frame: (frame, 39)."""
    mfcc = _mfcc()(torch.from_numpy(normalise(waveform)))
    delta = torchaudio.functional.compute_deltas(mfcc)
    return torch.cat([mfcc, delta, torchaudio.functional.compute_deltas(delta)]).T.numpy()


_MFCC = []


def _mfcc():
    if not _MFCC:  # building the filter bank costs more than using it
        _MFCC.append(
            torchaudio.transforms.MFCC(
                SAMPLE_RATE_HZ,
                n_mfcc=13,
                melkwargs={"n_fft": 640, "hop_length": HOP, "n_mels": 40, "center": False},
            )
        )
    return _MFCC[0]


def normalise(waveform: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, as the feature extractor does it."""
    return ((waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)).astype(np.float32)


def layer_features(model: HubertModel, waveform: np.ndarray, layer: int) -> np.ndarray:
    """Hidden states of one layer for one clip: (frame, dim)."""
    with torch.inference_mode():
        output = model(torch.from_numpy(normalise(waveform))[None], output_hidden_states=True)
    return output.hidden_states[layer][0].numpy()


def units_of(waveforms: Sequence[np.ndarray], features, n_units: int, seed: int, n_fit_clips: int = 1500):
    """Cluster ``features(waveform)`` frames of all clips into ``n_units``. Returns one uint8/int16 array per clip."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(waveforms), min(n_fit_clips, len(waveforms)), replace=False)
    frames = np.concatenate([features(waveforms[k]) for k in chosen])
    mean, scale = frames.mean(0), frames.std(0) + 1e-6
    kmeans = MiniBatchKMeans(n_units, batch_size=4096, n_init=3, max_iter=50, random_state=seed)
    kmeans.fit((frames - mean) / scale)
    return [
        kmeans.predict((features(waveform) - mean) / scale).astype(np.int16)
        for waveform in tqdm(waveforms, desc="units", unit="clip", disable=None)
    ]


def masked_prediction(
    model: HubertModel,
    waveforms: Sequence[np.ndarray],
    units: Sequence[np.ndarray],
    n_units: int,
    recipe: Recipe,
    n_steps: int,
) -> list[dict]:
    """Train ``model`` in place to predict the units of masked frames. Returns the log, one row per 50 steps."""
    if not model.config.apply_spec_augment:
        raise ValueError(
            "this model's configuration switches masking off (apply_spec_augment): nothing would be masked"
        )
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    head = nn.Linear(model.config.hidden_size, n_units)
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / recipe.warmup_steps, (n_steps - step) / n_steps)
    )
    n_samples = int(recipe.crop_seconds * SAMPLE_RATE_HZ)
    n_frames = int(model._get_feat_extract_output_lengths(torch.tensor(n_samples)))
    counts = np.bincount(np.concatenate(units), minlength=n_units) + 1e-9
    share = counts / counts.sum()
    unigram_entropy = float(-(share * np.log(share)).sum())
    log, window, start = [], [], time.perf_counter()
    model.train()
    for step in tqdm(range(n_steps), desc=f"predicting {n_units} units", unit="step", disable=None):
        crops, targets, mask = _draw_batch(rng, waveforms, units, recipe, n_samples, n_frames)
        hidden = model(crops, mask_time_indices=mask).last_hidden_state  # (batch, frame, dim)
        logits = head(hidden)
        loss_masked = cross_entropy(logits[mask], targets[mask], ignore_index=-1)
        loss_unmasked = cross_entropy(logits[~mask], targets[~mask], ignore_index=-1)
        (loss_masked + recipe.unmasked_weight * loss_unmasked).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        correct = (logits[mask].argmax(-1) == targets[mask])[targets[mask] >= 0]
        window.append((loss_masked.item(), correct.float().mean().item()))
        if (step + 1) % 50 == 0 or step + 1 == n_steps:
            loss, accuracy = np.mean(window, axis=0)
            log.append(
                {
                    "n_units": n_units,
                    "step": step + 1,
                    "masked_loss": round(float(loss), 4),
                    "masked_accuracy": round(float(accuracy), 4),
                    "unigram_entropy": round(unigram_entropy, 4),
                    "majority": round(float(share.max()), 4),
                    "minutes": round((time.perf_counter() - start) / 60, 2),
                }
            )
            window.clear()
    model.eval()
    return log


def _draw_batch(rng, waveforms, units, recipe: Recipe, n_samples: int, n_frames: int):
    """Random crops that start on a frame, their units (-1 beyond the clip) and their masks."""
    crops = np.zeros((recipe.batch_size, n_samples), np.float32)
    targets = np.full((recipe.batch_size, n_frames), -1)
    mask = np.zeros((recipe.batch_size, n_frames), bool)
    for row, clip in enumerate(rng.integers(len(waveforms), size=recipe.batch_size)):
        waveform = waveforms[clip]
        first = int(rng.integers(max(0, len(waveform) - n_samples) // HOP + 1))
        crop = normalise(waveform[first * HOP : first * HOP + n_samples].astype(np.float32))
        crops[row, : len(crop)] = crop
        labels = units[clip][first : first + n_frames]
        labels = labels[: max(1, (len(crop) - 640) // HOP)]
        targets[row, : len(labels)] = labels
        for begin in rng.integers(n_frames - recipe.mask_frames + 1, size=recipe.n_masks):
            mask[row, begin : begin + recipe.mask_frames] = True
    return torch.from_numpy(crops), torch.from_numpy(targets), torch.from_numpy(mask)


def pretraining_corpus() -> dict:
    """Options of the synthetic corpus that the stand-in learns from: every language, no speaker of the study.

    Its seed is not one that the notebooks use, so speakers, sentences and channels are others.
    """
    return {
        "languages": sorted(sentences.VOICES),
        "speakers_per_language": 40,
        "utterances_per_speaker": 10,
        "seed": 1000,
    }


def make_stand_in(folder: Path, recipe: Recipe, corpus: dict | None = None) -> list[dict]:
    """Speak the pretraining corpus and pretrain on it; about 20 minutes on one core. Returns the log."""
    corpus = corpus or pretraining_corpus()
    paths = load_corpus("synthetic", **corpus)["path"]
    waveforms = [soundfile.read(path, dtype="int16")[0] for path in paths]  # 1.4 GB for 12.5 hours
    return pretrain(waveforms, folder, recipe, corpus)


def what_it_buys(params: Mapping, encoders: Sequence[str], n_samples: Sequence[int]) -> pd.DataFrame:
    """Learning curves of gender recognition from several encoders, otherwise under the same parameters.

    Args:
        params: of notebook ``02_gr_cltm``; corpus, languages, seeds and hyper-parameters are used.
        encoders: such as ``("mini-hubert", "random:mini-hubert")``.
        n_samples: values of N, clips per class.

    Returns:
        One row per encoder and N: mean macro-F1 over languages and seeds, and its standard error over seeds.
    """
    from cltmlib import corpora

    corpus = corpora.from_params(params)
    tables = []
    with tempfile.TemporaryDirectory() as folder, sweep.RunStore(Path(folder) / "runs.sqlite") as store:
        data = subsets.prepare(
            corpus, params["languages"], tuple(n_samples), params["seeds"], Path(folder) / "waveforms",
            subsets.ByClass(params["samples_per_speaker"], params["max_test_samples"]),
            min_seconds=params["min_seconds"], max_seconds=params["max_seconds"],
        )  # fmt: skip
        for encoder in encoders:
            worker = finetune.Worker("gender", data, {**params, "encoder": encoder})
            points = sweep.curve_plan("gender", data.subsets, data.tests, worker.config)
            trainings = [point.training for point in points]
            results = sweep.run(trainings, worker, store, device=worker.device, n_workers=params["n_workers"])
            tables.append(sweep.curve_table(points, results, "f1_macro").assign(encoder=encoder))
    table = pd.concat(tables)
    by_seed = table.groupby(["encoder", "n_samples", "seed"], sort=False)["performance"].mean()
    curve = by_seed.groupby(["encoder", "n_samples"], sort=False).agg(["mean", "sem"])
    return curve.rename(columns={"mean": "f1_macro", "sem": "standard_error"}).reset_index()


def pretrain(waveforms: Sequence[np.ndarray], folder: Path, recipe: Recipe, corpus: dict) -> list[dict]:
    """Run both iterations and save the model, its recipe and its log under ``folder`` (float16 weights).

    Args:
        waveforms: int16 or float32 clips at 16 kHz.
        folder: written as `HubertModel.from_pretrained` reads it.
        recipe: numbers of the training.
        corpus: parameters of the corpus, kept with the recipe.
    """
    torch.manual_seed(recipe.seed)
    model = HubertModel(stand_in_config())
    units = units_of(waveforms, mfcc_features, recipe.n_units[0], recipe.seed)
    log = masked_prediction(model, waveforms, units, recipe.n_units[0], recipe, recipe.n_steps[0])
    if recipe.n_steps[1]:
        units = units_of(
            waveforms, lambda x: layer_features(model, x, recipe.feature_layer), recipe.n_units[1], recipe.seed
        )
        log += masked_prediction(model, waveforms, units, recipe.n_units[1], recipe, recipe.n_steps[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:  # never half a model under the stand-in's name
        _save(model, Path(partial), recipe, corpus, log)
        for path in Path(partial).iterdir():
            os.replace(path, folder / path.name)
    return log


def _save(model: HubertModel, folder: Path, recipe: Recipe, corpus: dict, log: list[dict]) -> None:
    saved = HubertModel(copy.deepcopy(model.config))  # shared, the line below would switch off the model's masking
    saved.load_state_dict(model.state_dict())
    saved.config.apply_spec_augment = False  # fine-tuning sees a few hundred clips: masking them would only add noise
    saved.half().save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=SAMPLE_RATE_HZ, padding_value=0.0, do_normalize=True, return_attention_mask=True
    )
    extractor.save_pretrained(folder)
    (folder / "recipe.json").write_text(
        json.dumps({"recipe": asdict(recipe), "corpus": corpus, "log": log}, indent=1) + "\n"
    )
