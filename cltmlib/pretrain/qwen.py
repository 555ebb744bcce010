"""Pretraining of the stand-in language model: short texts of the narrow synthetic domain, in English and Chinese.

A text is a sentence, the tag of a language and the sentence in that language, in all four combinations of English and
Chinese: ``forty-seven kilometers<|zh|>四十七公里``. So the frozen model can write sentences of the domain, and what
stands before the tag decides which, as a real language model can be asked to translate. Sentences of the train split
alone: it has read no sentence of dev or test.
"""

import itertools
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import pre_tokenizers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer, set_seed

from cltmlib.corpora import sentences
from cltmlib.potsa.llm import LanguageModel, load_llm, tag
from cltmlib.potsa.speech_llm import IGNORED
from cltmlib.repeatable import flush_denormals, pin_instruction_set

END = "<|endoftext|>"


@dataclass(frozen=True)
class Recipe:
    """All that decides the stand-in."""

    languages: tuple[str, ...] = ("en", "zh-CN")
    n_steps: int = 3000
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    width: int = 128
    n_layers: int = 2
    n_heads: int = 4
    vocabulary: int = 400  # tags, bytes and merges
    seed: int = 0


def domain(split: str) -> list[sentences.Plan]:
    """Every plan of the narrow domain that belongs to a split.

    Example:
        >>> len(domain("train")) + len(domain("dev")) + len(domain("test"))
        1274
    """
    plans = itertools.product(("count",), range(2, 100), sentences.inventory()["unit"])
    return [plan for plan in plans if sentences.plan_split(plan) == split]


def documents(plans: Sequence[sentences.Plan], languages: Sequence[str]) -> list[tuple[str, str]]:
    """(text before the answer, answer) for every plan and every two languages, equal ones too."""
    return [
        (sentences.realise(plan, source) + tag(target), sentences.realise(plan, target))
        for plan in plans
        for source in languages
        for target in languages
    ]


def stand_in(recipe: Recipe, texts: Sequence[str]) -> LanguageModel:
    """A Qwen2 of toy size with random weights; byte-level merges learned from the texts, one token per tag."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab={END: 0, **{c: k + 1 for k, c in enumerate(characters)}}, merges=[])
    tags = [tag(language) for language in recipe.languages]
    tokenizer = tokenizer.train_new_from_iterator([texts], recipe.vocabulary, new_special_tokens=tags)
    end = tokenizer.convert_tokens_to_ids(END)
    torch.manual_seed(recipe.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.width,
            intermediate_size=3 * recipe.width,
            num_hidden_layers=recipe.n_layers,
            num_attention_heads=recipe.n_heads,
            num_key_value_heads=recipe.n_heads,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end)
    return LanguageModel("random:stand-in", model, tokenizer, "")


def train(llm: LanguageModel, texts: Sequence[tuple[str, str]], recipe: Recipe) -> list[dict]:
    """Train ``llm.model`` in place on the next token of every text. Returns the log, one row per 100 steps."""
    model, end = llm.model, llm.model.config.eos_token_id
    flush_denormals()
    set_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    rows = [[*llm.tokens(before + answer), end] for before, answer in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [end] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows])
    optimiser = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / recipe.warmup_steps, (recipe.n_steps - step) / recipe.n_steps)
    )
    log, window, start = [], [], time.perf_counter()
    order = np.empty(0, int)
    model.train()
    for step in tqdm(range(recipe.n_steps), desc="reading", unit="step", disable=None):
        if len(order) < recipe.batch_size:
            order = np.concatenate([order, rng.permutation(len(rows))])
        batch, order = torch.from_numpy(order[: recipe.batch_size]), order[recipe.batch_size :]
        logits = model(input_ids=ids[batch], use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.transpose(1, 2), labels[batch, 1:], ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        window.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == recipe.n_steps:
            minutes = round((time.perf_counter() - start) / 60, 2)
            log.append({"step": step + 1, "loss": round(float(np.mean(window)), 4), "minutes": minutes})
            window.clear()
    model.eval()
    return log


@torch.no_grad()
def exact_answers(llm: LanguageModel, texts: Sequence[tuple[str, str]]) -> float:
    """Share of the texts whose answer the model writes exactly, given what stands before it."""
    right = 0
    for before, answer in texts:
        ids = torch.tensor([llm.tokens(before)])
        written = llm.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
        right += llm.texts(written[:, ids.shape[1] :].tolist())[0] == answer
    return right / len(texts)


def make_stand_in(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Train and save under ``folder`` (float16 weights). Returns the share of exact answers on the dev split.

    About two minutes on one core.
    """
    pin_instruction_set()
    texts = documents(domain("train"), recipe.languages)
    llm = stand_in(recipe, [before + answer for before, answer in texts])
    log = train(llm, texts, recipe)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:  # never half a model under the stand-in's name
        llm.model.half().save_pretrained(partial)
        llm.tokenizer.save_pretrained(partial)
        saved = load_llm(partial)
        exact = {}
        for source, target in itertools.product(recipe.languages, repeat=2):
            unseen = [
                (sentences.realise(plan, source) + tag(target), sentences.realise(plan, target))
                for plan in domain("dev")
            ]
            exact[f"{source} to {target}"] = round(exact_answers(saved, unseen), 4)
        record = {"recipe": asdict(recipe), "exact_answers": exact, "n_texts": len(texts), "log": log}
        (Path(partial) / "recipe.json").write_text(json.dumps(record, indent=1) + "\n")
        folder.mkdir(exist_ok=True)
        for path in Path(partial).iterdir():
            os.replace(path, folder / path.name)
    return exact
