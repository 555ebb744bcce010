"""Pretraining of the stand-in Whisper: supervised transcription at toy size, on a narrow synthetic domain.

A small decoder finds the alignment late or never by itself, so the encoder also learns by CTC, whose output layer is
discarded afterwards.
"""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, ctc_loss
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
    set_seed,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from cltmlib import wer
from cltmlib.corpora import frame, load_corpus, sentences
from cltmlib.repeatable import flush_denormals
from cltmlib.whisper import IGNORED, Whisper, load_whisper

SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class Recipe:
    """All that decides the stand-in but its corpus."""

    n_steps: int = 2400
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    ctc_weight: float = 0.5
    dropout: float = 0.1
    masked_share: float = 0.08  # of frames and of mel bands, in spans of 10 (SpecAugment)
    width: int = 128
    n_encoder_layers: int = 3
    n_decoder_layers: int = 2
    window_s: int = 3
    hop_length: int = 320  # samples between mel frames: 20 ms, twice Whisper's, for half the time per step on a CPU
    n_positions: int = 64  # of the decoder: the prefix, and the bytes of the longest sentence
    seed: int = 0


def pretraining_corpus() -> dict:
    """Options of the synthetic corpus: the paper's five high-resource languages, by other speakers than the study's."""
    return {
        "languages": ["es", "pt", "fr", "de", "en"],
        "speakers_per_language": 120,
        "utterances_per_speaker": 20,
        "seed": 1000,
        "templates": list(sentences.COUNTS),
    }


def stand_in(recipe: Recipe) -> Whisper:
    """A Whisper of toy size with random weights: 80 mel bands, bytes as tokens, a language token per locale.

    Choice: bytes instead of learned merges, so that every language of the corpus can be written and none has shorter
    words than another by having been in the tokenizer's training text.
    """
    specials = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES)]
    specials += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    specials += ["<|notimestamps|>"]
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = WhisperTokenizer(
        vocab={token: k for k, token in enumerate([*characters, *specials])},
        merges=[],
        additional_special_tokens=specials[1:],
        pad_token="<|endoftext|>",
    )
    ids = dict(zip(specials, tokenizer.convert_tokens_to_ids(specials), strict=True))
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    torch.manual_seed(recipe.seed)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokenizer),
            d_model=recipe.width,
            encoder_layers=recipe.n_encoder_layers,
            decoder_layers=recipe.n_decoder_layers,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=4 * recipe.width,
            decoder_ffn_dim=4 * recipe.width,
            max_source_positions=recipe.window_s * SAMPLE_RATE_HZ // recipe.hop_length // 2,
            max_target_positions=recipe.n_positions,
            dropout=recipe.dropout,
            apply_spec_augment=True,
            mask_time_prob=recipe.masked_share,
            mask_feature_prob=recipe.masked_share,
            pad_token_id=end,
            bos_token_id=end,
            eos_token_id=end,
            decoder_start_token_id=start,
        )
    )
    model.generation_config = GenerationConfig(
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES},
        task_to_id={task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        max_length=recipe.n_positions,
    )
    extractor = WhisperFeatureExtractor(
        feature_size=80,
        sampling_rate=SAMPLE_RATE_HZ,
        hop_length=recipe.hop_length,
        n_fft=400,
        chunk_length=recipe.window_s,
    )
    return Whisper("random:stand-in", model, extractor, tokenizer, "")


def ctc_targets(labels: Tensor, n_specials_from: int) -> tuple[Tensor, Tensor]:
    """The text of labels without the end token: (all targets in a row, length of each)."""
    text = (labels != IGNORED) & (labels < n_specials_from)
    return labels[text], text.sum(1)


def train(whisper: Whisper, features: Tensor, texts: Sequence[str], languages: Sequence[str], recipe: Recipe):
    """Train ``whisper.model`` in place. Returns the log, one row per 50 steps.

    Args:
        whisper: from `stand_in`.
        features: (clip, mel, frame), float16.
        texts: transcript of each clip.
        languages: locale of each clip.
        recipe: numbers of the training.
    """
    model = whisper.model
    flush_denormals()
    set_seed(recipe.seed)  # the masks are drawn from numpy's own generator
    rng = np.random.default_rng(recipe.seed)
    n_bytes = whisper.tokenizer.eos_token_id
    head = nn.Linear(recipe.width, n_bytes + 1)  # the last is CTC's blank
    parameters = [*model.parameters(), *head.parameters()]
    parameters = [p for p in parameters if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / recipe.warmup_steps, (recipe.n_steps - step) / recipe.n_steps)
    )
    log, window, start = [], [], time.perf_counter()
    order = np.empty(0, int)
    model.train()
    for step in tqdm(range(recipe.n_steps), desc="transcribing", unit="step", disable=None):
        if len(order) < recipe.batch_size:
            order = np.concatenate([order, rng.permutation(len(texts))])
        batch, order = order[: recipe.batch_size], order[recipe.batch_size :]
        inputs, labels = whisper.targets([texts[k] for k in batch], [languages[k] for k in batch])
        output = model(features[batch].float(), decoder_input_ids=inputs)
        attention_loss = cross_entropy(output.logits.transpose(1, 2), labels, ignore_index=IGNORED)
        log_p = head(output.encoder_last_hidden_state).log_softmax(-1).transpose(0, 1)  # (frame, batch, byte)
        text, lengths = ctc_targets(labels, n_bytes)
        n_frames = torch.full_like(lengths, len(log_p))
        aligned = ctc_loss(log_p, text, n_frames, lengths, blank=n_bytes, zero_infinity=True)
        (attention_loss + recipe.ctc_weight * aligned).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        window.append((attention_loss.item(), aligned.item()))
        if (step + 1) % 50 == 0 or step + 1 == recipe.n_steps:
            loss, aligned_loss = np.mean(window, axis=0).round(4).tolist()
            minutes = round((time.perf_counter() - start) / 60, 2)
            log.append({"step": step + 1, "loss": loss, "ctc_loss": aligned_loss, "minutes": minutes})
            window.clear()
    model.eval()
    return log


def features_of(whisper: Whisper, paths: Sequence[str]) -> Tensor:
    """Log-mel spectrograms of clips, float16: (clip, mel, frame)."""
    chunks = [paths[k : k + 64] for k in range(0, len(paths), 64)]
    clips = (
        [soundfile.read(path, dtype="float32")[0] for path in chunk]
        for chunk in tqdm(chunks, desc="spectrograms", disable=None)
    )
    return torch.cat([whisper.features(chunk).half() for chunk in clips])


def word_error_rates(whisper: Whisper, table: pd.DataFrame) -> dict[str, float]:
    """WER per language of utterance rows (`cltmlib.corpora`)."""
    rates = {}
    for language, rows in table.groupby("language", sort=False):
        texts = []
        for start in range(0, len(rows), 64):
            part = rows.iloc[start : start + 64]
            features = features_of(whisper, part["path"].tolist()).float()
            texts += whisper.transcribe(whisper.model, features, [language] * len(part), whisper.max_tokens)
        rates[language] = round(wer.error_rate(wer.errors(rows["sentence"].tolist(), texts)), 4)
    return rates


def make_stand_in(folder: Path, recipe: Recipe, corpus: dict | None = None) -> dict[str, float]:
    """Speak the corpus, train, save under ``folder`` (float16 weights). Returns the WER on unseen sentences and people.

    Trains on the train split alone, so that no test sentence of the study is seen; about 20 minutes on one core.
    """
    corpus = corpus or pretraining_corpus()
    table = frame(load_corpus("synthetic", **corpus))
    table = table[table["duration_s"] <= recipe.window_s]
    seen, unseen = table[table["split"] == "train"], table[table["split"] == "dev"]
    whisper = stand_in(recipe)
    features = features_of(whisper, seen["path"].tolist())
    log = train(whisper, features, seen["sentence"].tolist(), seen["language"].tolist(), recipe)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:  # never half a model under the stand-in's name
        # Fine-tuning sees a few hundred clips for a hundred steps: as in the published models nothing is dropped there.
        whisper.model.config.update({"dropout": 0.0, "apply_spec_augment": False})
        whisper.model.half().save_pretrained(partial)
        whisper.feature_extractor.save_pretrained(partial)
        whisper.tokenizer.save_pretrained(partial)
        rates = word_error_rates(load_whisper(partial), unseen)
        record = {"recipe": asdict(recipe), "corpus": corpus, "wer": rates, "log": log}
        (Path(partial) / "recipe.json").write_text(json.dumps(record, indent=1) + "\n")
        folder.mkdir(exist_ok=True)
        for path in Path(partial).iterdir():
            os.replace(path, folder / path.name)
    return rates
