"""Speech recognition: the encoder and a small convolutional head learn characters by CTC; judged by word errors.

The head is a learnt mean of the encoder's layers, two convolutions over time and a linear layer over blank and
vocabulary. Where ``trained`` is "head", the encoder is frozen and its features are computed once, as far as memory
for them goes (`cltmlib.frozen`).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss, gelu

from cltmlib import ctc, wer
from cltmlib.encoders import Batch, encode
from cltmlib.errors import InputError
from cltmlib.frozen import FrozenFeatures

# Raised (the first entry) whenever the same training would give another result; the rest decides results too: how text
# is normalised, in training and in scoring, and how the search with an n-gram goes.
VERSION = [1, wer.NORMALISER, [ctc.BEAM_WIDTH, ctc.LEAST_PROBABILITY, ctc.LM_WEIGHT, ctc.SYMBOL_BONUS]]
PERFORMANCE, PERFORMANCE_NAME, CHANCE = "accuracy", "1 \N{MINUS SIGN} WER", 0.0  # chance: recognising nothing
COLUMNS = ("sentence",)
OPTIONS = ("vocabulary", "epochs", "trained", "head_learning_rate", "ngram_order")
WIDTH, KERNEL, DROPOUT = 128, 5, 0.2
_NEVER = -1e4  # log-probability; finite, for predictions that are not finite mean that the training diverged


def vocabulary(sentences: Sequence[str]) -> str:
    """All characters of the transcripts after `cltmlib.wer.normalise_text`, sorted; the space is one of them.

    Args:
        sentences: training transcripts of all languages of a plan; those of a test set must not be among them.

    Raises:
        InputError: nothing is left of the transcripts.

    Example:
        >>> vocabulary(["Dos dies!", "Sis"])
        ' deios'
    """
    characters = "".join(sorted(set("".join(map(wer.normalise_text, sentences)))))
    if not characters.strip():
        raise InputError(f"The {len(sentences)} training transcripts hold no letter after normalisation.")
    return characters


class Recogniser(nn.Module):
    """Encoder, learnt mean of its layers, two convolutions, one linear layer over blank and characters.

    Args:
        encoder: where the training starts.
        characters: from `vocabulary`; symbol 0 of the output is the blank.
        frozen: whether the head alone is trained.
    """

    def __init__(self, encoder, characters: str, frozen: bool):
        super().__init__()
        self.encoder, self.characters = encoder, characters
        self.index = {character: k for k, character in enumerate(characters, start=1)}
        if frozen:
            self.frozen_features = FrozenFeatures(encoder)
        dim = encoder.config.hidden_size
        self.layers = nn.Parameter(torch.zeros(encoder.config.num_hidden_layers + 1))
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(DROPOUT)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(n, WIDTH, KERNEL, padding=KERNEL // 2) for n in (dim, WIDTH)
        )  # fmt: skip
        self.head = nn.Linear(WIDTH, 1 + len(characters))

    def parameter_groups(self, config: Mapping) -> list[dict]:
        """The encoder at ``learning_rate``, all else at ``head_learning_rate``."""
        encoder = [p for p in self.encoder.parameters() if p.requires_grad]
        head = [p for name, p in self.named_parameters() if not name.startswith("encoder.")]
        groups = [{"params": head, "lr": config["head_learning_rate"]}]
        return [*groups, {"params": encoder}] if encoder else groups

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probabilities, float32, (batch, frame, symbol), and the valid frames of each clip, (batch,)."""
        if hasattr(self, "frozen_features"):
            hidden, n_frames = batch.input_values, batch.n_samples  # (batch, frame, layer, dim)
        else:
            output, mask = encode(self.encoder, batch, output_hidden_states=True)
            hidden, n_frames = torch.stack(output.hidden_states, dim=2), mask.sum(-1)
        valid = (torch.arange(hidden.shape[1], device=hidden.device) < n_frames[:, None])[:, None]
        mean = torch.einsum("btld,l->btd", hidden, self.layers.softmax(0).to(hidden.dtype))
        x = self.dropout(self.norm(mean)).transpose(1, 2)  # (batch, dim, frame)
        for convolution in self.convolutions:
            x = gelu(convolution(x * valid))  # a clip is followed by zeros, whatever it is padded with
        return self.head(self.dropout(x.transpose(1, 2))).float().log_softmax(-1), n_frames

    def loss(self, batch: Batch, rows: Sequence[Mapping]) -> Tensor:
        """CTC loss over the length of the transcript, averaged over the clips.

        Choice: a transcript that needs more symbols than its clip has frames has no path and adds nothing. Computed on
        the CPU, since the gradient of the CUDA version is not repeatable, and handed back on the model's device, where
        the loss of float16 is scaled.
        """
        log_probs, n_frames = self(batch)
        targets = [torch.tensor(self.symbols(row["sentence"]), dtype=torch.long) for row in rows]
        lengths = torch.tensor([len(target) for target in targets])
        on_cpu = log_probs.cpu().transpose(0, 1)  # (frame, batch, symbol)
        loss = ctc_loss(on_cpu, torch.cat(targets), n_frames.cpu(), lengths, zero_infinity=True)
        return loss.to(log_probs.device)

    def symbols(self, sentence: str) -> list[int]:
        """The characters of a normalised transcript that the vocabulary has."""
        return [self.index[c] for c in wer.normalise_text(sentence) if c in self.index]

    def predict(self, batch: Batch) -> Tensor:
        """Log-probabilities, (batch, frame, symbol); certain blanks behind the end of a clip."""
        log_probs, n_frames = self(batch)
        beyond = torch.arange(log_probs.shape[1], device=log_probs.device) >= n_frames[:, None]
        blank = torch.full(log_probs.shape[-1:], _NEVER, device=log_probs.device)
        blank[0] = 0.0
        return torch.where(beyond[..., None], blank, log_probs).clamp(min=_NEVER)


def model(encoder, rows, config) -> Recogniser:
    """A recogniser of the characters in ``config["vocabulary"]``.

    Raises:
        InputError: a training transcript has a character that the vocabulary lacks.
    """
    for row in rows:
        if missing := set(wer.normalise_text(row["sentence"])) - set(config["vocabulary"]):
            raise InputError(
                f"The vocabulary has no {min(missing)!r}, which the {row['language']!r} training transcript "
                f"{row['sentence']!r} holds: make it from all training transcripts of the plan."
            )
    return Recogniser(encoder, config["vocabulary"], config["trained"] == "head")


def evaluate(predict, training, rows) -> dict[str, dict[str, float]]:
    """Error rates of every test set, see `error_rates`; with ``ngram_order`` also those of decoding with an n-gram.

    ``accuracy`` is 1 - WER of the best path and can be negative. The n-gram's rates are ``wer_ngram``, ``cer_ngram``.
    The n-gram is estimated from the transcripts of the training set, those of the tested language where it has any.
    """
    characters, order = training.config["vocabulary"], training.config["ngram_order"]
    results = {}
    for language, ids in training.test.items():
        references, predicted = [rows[u]["sentence"] for u in ids], predict(ids)
        rates = error_rates(references, _texts(map(ctc.greedy, predicted), characters), language)
        results[language] = {"accuracy": 1 - rates["wer"], **rates, "n": len(ids)}
        if order is not None:
            own = [rows[u] for u in training.train if rows[u]["language"] == language]
            model = _ngram([row["sentence"] for row in own or map(rows.get, training.train)], order, characters)
            found = (ctc.beam_search(p, least=ctc.LEAST_PROBABILITY, score=model.score) for p in predicted)
            rates = error_rates(references, _texts(found, characters), language)
            results[language].update({f"{name}_ngram": value for name, value in rates.items()})
    return results


def error_rates(references: Sequence[str], hypotheses: Sequence[str], language: str) -> dict[str, float]:
    """``wer``, over characters for languages written without spaces between words, and ``cer``; see `cltmlib.wer`.

    Example:
        >>> error_rates(["dos dies", ""], ["dos dia", "ah"], "ca")
        {'wer': 1.0, 'cer': 0.5714285714285714}
    """
    units = {"wer": wer.error_unit(language), "cer": "character"}
    return {name: wer.error_rate(wer.errors(references, hypotheses, unit)) for name, unit in units.items()}


def _texts(sequences, characters: str) -> list[str]:
    return ["".join(characters[symbol - 1] for symbol in sequence) for sequence in sequences]


def _ngram(sentences: Sequence[str], order: int, characters: str) -> ctc.NGram:
    index = {character: k for k, character in enumerate(characters, start=1)}
    texts = ([index[c] for c in wer.normalise_text(sentence)] for sentence in sentences)
    return ctc.NGram(texts, order, len(characters))
