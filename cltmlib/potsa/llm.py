"""The frozen language model of the speech LLM: Qwen2.5 or its small stand-in, with its tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2ForCausalLM

from cltmlib import checkpoints
from cltmlib.errors import InputError


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with what turns text into its inputs.

    Attributes:
        name: as given to `load_llm`, without the folders of this machine.
        model: in evaluation mode.
        tokenizer: text to tokens.
        fingerprint: identifies the weights; part of every training's key.
        revision: commit of a Hub repository, resolved; None for a folder.
    """

    name: str
    model: Qwen2ForCausalLM
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    revision: str | None = None

    def prompt(self, language: str) -> list[int]:
        """Tokens that ask for a language: its tag, ``<|zh|>`` for ``"zh-CN"``, as in SLAM-LLM."""
        return self.tokens(tag(language))

    def tokens(self, text: str) -> list[int]:
        """Ids of a text's tokens, without an end token."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def texts(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """What answers say, tags and end tokens left out."""
        return [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]


def tag(language: str) -> str:
    """Tag of a Common Voice locale.

    Example:
        >>> tag("zh-CN")
        '<|zh|>'
    """
    return f"<|{language.split('-')[0]}|>"


def load_llm(name: str, revision: str | None = None, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Load a Qwen2 model by the name of a stand-in, a local folder or a Hub repository.

    Args:
        name: ``"mini-qwen"``, a folder, or e.g. ``"Qwen/Qwen2.5-7B"``.
        revision: commit of a Hub repository.
        dtype: of its weights; float32 of the 7 B parameters are 30 GB.

    Raises:
        InputError: it is not there, no Qwen2 model, incomplete, or asked for with random weights.
    """
    found = checkpoints.find(name, revision, "qwen2", hears=False)
    if found.random_init:
        raise InputError(f"Model {found.name!r}: a frozen language model with random weights writes nothing; drop it.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.where, **found.options)
    except (OSError, ValueError) as error:
        raise InputError(f"Model {found.name!r} has no tokenizer beside its config.json: download it again.") from error
    tied = ["lm_head.weight"] if found.config.tie_word_embeddings else []
    model = found.weights(Qwen2ForCausalLM, tied, dtype).eval().requires_grad_(False)
    return LanguageModel(found.name, model, tokenizer, found.fingerprint, found.revision)
