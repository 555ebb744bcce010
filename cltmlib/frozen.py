"""Features of an encoder that is not trained, kept in memory: computed once per clip as far as 1 GiB holds them."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import HubertModel

from cltmlib.audio import WaveformStore
from cltmlib.encoders import Batch, collate, encode
from cltmlib.errors import InputError

MOST_BYTES = 2**30  # of features that a process keeps; what is used least recently is computed anew
_kept: OrderedDict[tuple[str, str, str], Tensor] = OrderedDict()
_n_bytes = {"kept": 0}


class FrozenFeatures:
    """All hidden layers of one encoder, without its training noise (dropout, SpecAugment, layer drop).

    Every clip is encoded alone and kept in float16, so that its features depend on nothing but the clip and the
    weights (and on the kind of device). Trainings of one process share them.

    Args:
        encoder: its parameters are taken out of training.
    """

    def __init__(self, encoder: HubertModel):
        self._encoder = encoder.requires_grad_(False)
        weights = hashlib.blake2b(digest_size=16)
        for name, values in sorted(encoder.state_dict().items()):
            weights.update(name.encode() + values.detach().cpu().contiguous().numpy().tobytes())
        self._weights = weights.hexdigest()

    def batch(self, utterances: Sequence[str], store: WaveformStore, feature_extractor) -> Batch:
        """Clips as features: ``input_values`` is (batch, frame, layer, dim), ``n_samples`` the valid frames of each."""
        clips = [self._of(u, store, feature_extractor) for u in utterances]
        n_frames = torch.tensor([len(clip) for clip in clips])
        return Batch(pad_sequence([clip.float() for clip in clips], batch_first=True), n_frames)

    def _of(self, utterance: str, store: WaveformStore, feature_extractor) -> Tensor:
        key = (self._weights, str(self._encoder.device), store.digest([utterance]))
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
        clip = collate([store.waveform(utterance)], feature_extractor).to(self._encoder.device)
        self._encoder.eval()  # the training loop switches all of a model to training
        with torch.no_grad():
            output, _ = encode(self._encoder, clip, output_hidden_states=True)
        features = torch.stack(output.hidden_states, dim=2)[0].half().cpu()  # (frame, layer, dim)
        if not features.isfinite().all():
            raise InputError(
                f"Clip {utterance!r}: the encoder's features are not finite, or too large for float16, in which those "
                "of a frozen encoder are kept; leave the clip out, or set trained to all."
            )
        _kept[key] = features
        _n_bytes["kept"] += features.nbytes
        while len(_kept) > 1 and _n_bytes["kept"] > MOST_BYTES:
            _n_bytes["kept"] -= _kept.popitem(last=False)[1].nbytes
        return features

    def means(self, utterances: Sequence[str], store: WaveformStore, feature_extractor) -> np.ndarray:
        """Mean over the frames of each clip, (clip, layer, dim)."""
        return np.stack([self._of(u, store, feature_extractor).float().mean(0).numpy() for u in utterances])
