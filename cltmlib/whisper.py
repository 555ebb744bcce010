"""Whisper: features, tokens and greedy transcription, for the real checkpoints and the small stand-in alike."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from cltmlib import checkpoints
from cltmlib.errors import InputError

IGNORED = -100  # label of positions that no loss counts, as torch and transformers have it
_CODES = {"nb": "no", "jv": "jw", "fil": "tl"}  # where Whisper's code is not the first part of Common Voice's


@dataclass(frozen=True)
class Whisper:
    """A Whisper model with what turns speech and text into its inputs.

    Attributes:
        name: as given to `load_whisper`, without the folders of this machine.
        model: in evaluation mode, float32.
        feature_extractor: log-mel spectrograms of a fixed window (30 s in the published models).
        tokenizer: text to tokens.
        fingerprint: identifies the weights; part of every training's key.
        revision: commit of a Hub repository, resolved; None for a folder.
        random_init: weights are drawn anew for every training.
    """

    name: str
    model: WhisperForConditionalGeneration
    feature_extractor: object
    tokenizer: WhisperTokenizer
    fingerprint: str
    revision: str | None = None
    random_init: bool = False

    @property
    def sample_rate_hz(self) -> int:
        return self.feature_extractor.sampling_rate

    @property
    def max_seconds(self) -> float:
        """Length of the model's window: longer clips do not fit."""
        return self.feature_extractor.chunk_length

    @property
    def max_tokens(self) -> int:
        """Text tokens that fit into the decoder, beside the prefix and the end token."""
        return self.model.config.max_target_positions - len(self._prefix("en")) - 1

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def fresh_model(self) -> WhisperForConditionalGeneration:
        """A copy for one training. Under ``random:`` it is initialised from torch's current seed."""
        if not self.random_init:
            return copy.deepcopy(self.model)
        model = WhisperForConditionalGeneration(self.model.config)
        model.generation_config = copy.deepcopy(self.model.generation_config)
        return model.eval()

    def language_token(self, language: str) -> int:
        """Id of the token of a Common Voice locale.

        Raises:
            InputError: the tokenizer has none.
        """
        return self.tokenizer.convert_tokens_to_ids(f"<|{self.language_code(language)}|>")

    def language_code(self, language: str) -> str:
        """Whisper's own code of a Common Voice locale: ``"zh"`` for ``"zh-CN"``.

        Raises:
            InputError: the tokenizer has no token for it.
        """
        code = language.split("-")[0]
        code = _CODES.get(code, code)
        if not _has_token(self.tokenizer, f"<|{code}|>"):
            known = ", ".join(sorted(c for c in LANGUAGES if _has_token(self.tokenizer, f"<|{c}|>")))
            raise InputError(
                f"Model {self.name!r} has no token for language {language!r}; choose languages among {known}."
            )
        return code

    def _prefix(self, language: str) -> list[int]:
        ids = self.tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"])
        return [ids[0], self.language_token(language), *ids[1:]]

    def features(self, waveforms: Sequence[np.ndarray], device: str = "cpu") -> Tensor:
        """Log-mel spectrograms of clips, each padded to the window: float32, (batch, mel, frame).

        Raises:
            InputError: a clip is longer than the window; it would be cut without notice.
        """
        window = self.feature_extractor.n_samples
        if too_long := [len(w) for w in waveforms if len(w) > window]:
            raise InputError(
                f"A clip of {max(too_long) / self.sample_rate_hz:.1f} s is longer than the {self.max_seconds:g} s that "
                f"model {self.name!r} hears: leave it out or cut it, and its transcript, into parts."
            )
        return self.feature_extractor(
            list(waveforms), sampling_rate=self.sample_rate_hz, return_tensors="pt", device=device
        ).input_features

    def targets(self, sentences: Sequence[str], languages: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Decoder inputs and labels, int64, both (batch, position).

        Inputs are start, language, task and "no timestamps" tokens, then the text; labels are the text and the end
        token at the positions that predict them, `IGNORED` elsewhere. Choice: what is given in decoding, the prefix,
        is not trained.

        Raises:
            InputError: a transcript is empty or has more tokens than the decoder has positions, or the tokenizer lacks
                a language.
        """
        rows = []
        for sentence, language in zip(sentences, languages, strict=True):
            text = self.tokenizer(sentence.strip(), add_special_tokens=False).input_ids
            if not text:
                raise InputError(f"A transcript of language {language!r} is empty: leave its clip out of the corpus.")
            if len(text) > self.max_tokens:
                raise InputError(
                    f"The transcript {sentence[:40]!r}... of language {language!r} has {len(text)} tokens, but model "
                    f"{self.name!r} holds {self.max_tokens}: leave its clip out of the corpus."
                )
            rows.append((self._prefix(language), text))
        end = self.tokenizer.eos_token_id
        length = max(len(prefix) + len(text) for prefix, text in rows)
        inputs = torch.full((len(rows), length), end)
        labels = torch.full((len(rows), length), IGNORED)
        for row, (prefix, text) in enumerate(rows):
            n = len(prefix) + len(text)
            inputs[row, :n] = torch.tensor(prefix + text)
            labels[row, len(prefix) - 1 : n] = torch.tensor([*text, end])
        return inputs, labels

    @torch.no_grad()
    def transcribe(
        self, model: WhisperForConditionalGeneration, features: Tensor, languages: Sequence[str], max_tokens: int
    ) -> list[str]:
        """Greedy transcripts, the language of each clip given.

        Args:
            model: from `fresh_model`, perhaps trained since.
            features: (batch, mel, frame).
            languages: Common Voice locale of each clip.
            max_tokens: at which to stop; a model that loops does so for ever.
        """
        model.eval()
        with checkpoints.quiet_transformers():  # Whisper's own generate sets off warnings of the generic one
            tokens = model.generate(
                features,
                language=[self.language_code(language) for language in languages],
                task="transcribe",
                max_new_tokens=min(max_tokens, self.max_tokens),
                num_beams=1,
                do_sample=False,
            )
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def _has_token(tokenizer: WhisperTokenizer, token: str) -> bool:
    return tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id)


def load_whisper(name: str, revision: str | None = None) -> Whisper:
    """Load a Whisper model by the name of a stand-in, a local folder or a Hub repository.

    Args:
        name: ``"mini-whisper"``, a folder, or e.g. ``"openai/whisper-small"``. With the prefix ``random:`` the
            architecture alone is used, and no weights are needed.
        revision: commit of a Hub repository.

    Raises:
        InputError: it is not there, not a multilingual Whisper, or incomplete.
    """
    found = checkpoints.find(name, revision, "whisper")
    try:
        tokenizer = WhisperTokenizer.from_pretrained(found.where, **found.options)
        if not _has_token(tokenizer, "<|transcribe|>"):  # transformers makes an empty one where there is none
            raise ValueError("no task tokens")
    except (OSError, ValueError) as error:
        raise InputError(
            f"Model {found.name!r} has no multilingual Whisper tokenizer beside its config.json: download it again, or "
            "name a model without '.en'."
        ) from error
    if found.random_init:
        model = WhisperForConditionalGeneration(found.config)
        model.generation_config = GenerationConfig.from_pretrained(found.where, **found.options)
    else:
        model = found.weights(WhisperForConditionalGeneration, may_lack=["proj_out.weight"])  # tied to the embedding
    if not getattr(model.generation_config, "lang_to_id", None):
        raise InputError(f"Model {found.name!r} is not multilingual: name a Whisper without '.en'.")
    # As the authors' code (2409.16954) nothing is suppressed but, since none are asked for, timestamps, after which
    # transformers would look for further segments; what the model may not begin with stays as it was published.
    timestamps = range(model.generation_config.no_timestamps_token_id + 1, model.config.vocab_size)
    model.generation_config.update(suppress_tokens=list(timestamps) or None, forced_decoder_ids=None)
    return Whisper(
        found.name, model.eval(), found.feature_extractor, tokenizer, found.fingerprint, found.revision,
        found.random_init,
    )  # fmt: skip
