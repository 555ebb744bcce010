"""What a language adds to every frame of its encoder output (arXiv 2511.09232, Section 2.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cltmlib.errors import InputError


class LanguageBias:
    """Mean encoder output of each language, to be subtracted from every frame in training and inference.

    Paper, Eq. (1): ``b_x`` is the mean over utterances of the temporal mean of the encoder output. Estimate it on the
    training split; audio without transcripts is enough.

    Choice: the temporal mean is over the valid frames of each utterance. An encoder pads to 30 s, and padding would
    make the bias depend on the lengths of the clips.

    Args:
        unknown: for a language without an estimate, ``transform`` raises ("error") or leaves it as it is ("keep").

    Attributes:
        totals: per language, sum of the temporal means, float64, shape (dim,).
        n_utterances: per language, the number of utterances summed.

    Example:
        >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> LanguageBias().fit(hidden, torch.tensor([2]), ["de"]).transform(hidden, ["de"]).flatten().tolist()
        [-1.0, 1.0, 7.0]
    """

    def __init__(self, unknown: str = "error"):
        if unknown not in ("error", "keep"):
            raise InputError(f"Parameter unknown is {unknown!r}: give 'error' or 'keep'.")
        self.unknown = unknown
        self.totals: dict[str, Tensor] = {}
        self.n_utterances: dict[str, int] = {}

    def fit(self, hidden: Tensor, lengths: Tensor, languages: Sequence[str]) -> "LanguageBias":
        """Estimate anew from these utterances alone; arguments as of ``partial_fit``."""
        self.totals, self.n_utterances = {}, {}
        return self.partial_fit(hidden, lengths, languages)

    def partial_fit(self, hidden: Tensor, lengths: Tensor, languages: Sequence[str]) -> "LanguageBias":
        """Add a batch of utterances; batches in any sizes give the same estimate, up to rounding.

        Args:
            hidden: encoder output, float, shape (utterance, frame, dim).
            lengths: number of valid frames of each utterance, at least 1, shape (utterance,).
            languages: language of each utterance.

        Returns:
            This object.

        Raises:
            InputError: numbers of utterances or widths differ, a length is not between 1 and the number of frames, or a
                valid frame is not finite.
        """
        lengths = torch.as_tensor(lengths, device=hidden.device)
        if hidden.ndim != 3 or not len(hidden) == len(lengths) == len(languages):
            raise InputError(
                f"Encoder output of shape {tuple(hidden.shape)} with {len(lengths)} lengths and {len(languages)} "
                "languages: give (utterance, frame, dim) and one of each per utterance."
            )
        outside = (lengths < 1) | (lengths > hidden.shape[1])
        if outside.any():
            k = int(outside.int().argmax())
            raise InputError(f"Utterance {k} has {int(lengths[k])} of {hidden.shape[1]} frames: leave it out.")
        valid = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]  # (utterance, frame)
        means = hidden.detach().masked_fill(~valid[:, :, None], 0).double().sum(1) / lengths[:, None]
        wrong = ~means.isfinite().all(1)
        if wrong.any():
            k = int(wrong.int().argmax())
            raise InputError(f"Encoder output of utterance {k} ({languages[k]!r}) is not finite: check its audio.")
        for mean, language in zip(means.cpu(), languages, strict=True):
            total = self.totals.get(language, torch.zeros_like(mean))
            if len(total) != len(mean):
                raise InputError(f"Encoder output has {len(mean)} dimensions here and had {len(total)} before.")
            self.totals[language] = total + mean
            self.n_utterances[language] = self.n_utterances.get(language, 0) + 1
        return self

    def bias(self, language: str) -> Tensor:
        """Estimate of one language, float64, shape (dim,).

        Raises:
            InputError: there is none.
        """
        if language not in self.totals:
            raise InputError(
                f"Language {language!r} has no bias; there are {', '.join(map(repr, self.totals)) or 'none'}: estimate "
                "it from training audio of the language, or leave such languages as they are with unknown='keep'."
            )
        return self.totals[language] / self.n_utterances[language]

    def transform(self, hidden: Tensor, languages: Sequence[str]) -> Tensor:
        """Subtract from every frame the bias of its language: Eq. (2), padding included.

        Args:
            hidden: encoder output, float, shape (utterance, frame, dim).
            languages: language of each utterance.

        Returns:
            The same shape and type.

        Raises:
            InputError: a language has no estimate (unless they are kept), or numbers of utterances or widths differ.
        """
        if len(languages) != len(hidden):
            raise InputError(f"There are {len(hidden)} utterances but {len(languages)} languages: give one for each.")
        zero = torch.zeros(hidden.shape[2], dtype=torch.float64)
        keep = self.unknown == "keep"
        biases = [zero if keep and language not in self.totals else self.bias(language) for language in languages]
        if any(len(bias) != hidden.shape[2] for bias in biases):
            raise InputError(f"Encoder output has {hidden.shape[2]} dimensions, the bias another number of them.")
        return hidden - torch.stack(biases)[:, None].to(hidden) if biases else hidden
