"""Speech encoder with a pooled linear head, batched so that padding changes nothing.

mHuBERT-147 normalises the output of its first convolution over *time* (group norm, one group per channel). In a padded
batch the padding enters those statistics and every frame of a short clip changes, by more than 1.0 in places. Here the
statistics are taken over the frames of the clip alone, and the attention mask does the rest.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import HubertModel

from cltmlib import checkpoints
from cltmlib.errors import InputError


class ValidGroupNorm(nn.GroupNorm):
    """One-group-per-channel normalisation over the valid frames of each clip.

    ``n_valid`` (batch,) is set for the duration of one forward pass; None means that every frame is valid.
    """

    n_valid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # x: (batch, channel, frame)
        if self.n_valid is None:
            return super().forward(x)
        valid = (torch.arange(x.shape[-1], device=x.device) < self.n_valid[:, None])[:, None].float()
        count = self.n_valid[:, None, None].float()
        x = x.float()  # statistics in float32 under autocast, as torch does for its own norms
        centred = x - (x * valid).sum(-1, keepdim=True) / count
        variance = (centred.square() * valid).sum(-1, keepdim=True) / count
        return centred * torch.rsqrt(variance + self.eps) * self.weight[:, None] + self.bias[:, None]


@dataclass(frozen=True)
class Encoder:
    """A speech encoder ready to be copied for each training.

    Attributes:
        name: as given to `load_encoder`, without the folders of this machine.
        model: `HubertModel` with padding-invariant batching.
        feature_extractor: says sampling rate and amplitude normalisation.
        fingerprint: identifies the weights; part of every training's key.
        revision: commit of a Hub repository, resolved; None for a folder.
        random_init: weights are drawn anew for every training.
    """

    name: str
    model: HubertModel
    feature_extractor: object
    fingerprint: str
    revision: str | None = None
    random_init: bool = False

    @property
    def sample_rate_hz(self) -> int:
        return self.feature_extractor.sampling_rate

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def fresh_model(self) -> HubertModel:
        """A copy for one training. Under ``random:`` it is initialised from torch's current seed."""
        if not self.random_init:
            return copy.deepcopy(self.model)
        return _padding_invariant(HubertModel(self.model.config))


def load_encoder(name: str, revision: str | None = None) -> Encoder:
    """Load a HuBERT encoder by the name of a stand-in, a local folder or a Hub repository.

    Args:
        name: ``"mini-hubert"``, a folder with ``config.json``, or e.g. ``"utter-project/mHuBERT-147"``. With the prefix
            ``random:`` the architecture alone is kept and every training draws its own initial weights.
        revision: commit of a Hub repository.

    Raises:
        InputError: it is not there, not a HuBERT, lacks feature extractor settings, or its weights are incomplete.
    """
    found = checkpoints.find(name, revision, "hubert")
    # The mask embedding serves SpecAugment alone; some published checkpoints come without it.
    model = found.weights(HubertModel, may_lack=["masked_spec_embed"])
    return Encoder(
        found.name,
        _padding_invariant(model),
        found.feature_extractor,
        found.fingerprint,
        found.revision,
        found.random_init,
    )


def _padding_invariant(model: HubertModel) -> HubertModel:
    norm = getattr(model.feature_extractor.conv_layers[0], "layer_norm", None)
    if isinstance(norm, nn.GroupNorm):
        if norm.num_groups != norm.num_channels:
            raise InputError("The encoder's first group norm mixes channels, which no published HuBERT does.")
        norm.__class__ = ValidGroupNorm  # keeps the parameters, their names and the state dict as they are
    return model


@dataclass(frozen=True)
class Batch:
    """Clips as the encoder takes them.

    Attributes:
        input_values: float32, (batch, sample), normalised per clip, zero-padded on the right.
        n_samples: int64, (batch,), the valid samples of each clip.
    """

    input_values: Tensor
    n_samples: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.input_values.to(device), self.n_samples.to(device))


def collate(waveforms: Sequence[np.ndarray], feature_extractor) -> Batch:
    """Normalise clips as the encoder's feature extractor says and pad them into one batch."""
    features = feature_extractor(
        list(waveforms),
        sampling_rate=feature_extractor.sampling_rate,
        padding=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return Batch(features["input_values"].float(), features["attention_mask"].sum(-1))


def encode(model: HubertModel, batch: Batch, **options) -> tuple[object, Tensor]:
    """Run the encoder so that each clip gets the output it has alone.

    Args:
        model: from `load_encoder`.
        batch: from `collate`.
        **options: for `HubertModel.forward`, such as ``output_hidden_states=True``.

    Returns:
        The model's output (``last_hidden_state``: (batch, frame, dim)) and the mask of valid frames, bool,
        (batch, frame). Frames outside the mask hold nothing of use.

    Raises:
        InputError: a clip is shorter than the encoder's receptive field.
    """
    n_frames = model._get_feat_extract_output_lengths(batch.n_samples)
    if int(n_frames.min()) < 1:
        raise InputError(
            f"A clip of {int(batch.n_samples.min())} samples is too short for the encoder; raise min_seconds."
        )
    total = int(n_frames.max())
    mask = torch.arange(total, device=batch.input_values.device) < n_frames[:, None]
    if bool((batch.n_samples == batch.input_values.shape[1]).all()):
        return model(batch.input_values, **options), mask  # nothing is padded: the plain path is exact
    attention_mask = torch.arange(batch.input_values.shape[1], device=mask.device) < batch.n_samples[:, None]
    first = model.feature_extractor.conv_layers[0]
    norm = getattr(first, "layer_norm", None)
    if isinstance(norm, ValidGroupNorm):
        (kernel,), (stride,) = first.conv.kernel_size, first.conv.stride
        norm.n_valid = (batch.n_samples - kernel) // stride + 1
    try:
        return model(batch.input_values, attention_mask=attention_mask.long(), **options), mask
    finally:
        if isinstance(norm, ValidGroupNorm):
            norm.n_valid = None


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid frames: (batch, frame, dim), (batch, frame) -> (batch, dim)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)
