"""Outputs of the frozen speech encoder, computed once and kept on disk for all trainings."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cltmlib.audio import WaveformStore
from cltmlib.errors import InputError
from cltmlib.finetune import autocast
from cltmlib.repeatable import flush_denormals
from cltmlib.whisper import Whisper

_VERSION = 1  # raised when the same clips would give other frames
_BATCH = 16
_FRAMES, _LENGTHS = "frames.npy", "lengths.json"


class EncodedFrames:
    """Encoder output of clips by utterance id: the valid frames alone, float16, read from disk as they are needed.

    Pickling carries the folder's name only.

    Args:
        folder: from `encode`.

    Attributes:
        width: of a frame.
        digest: of encoder and audio.
    """

    def __init__(self, folder: Path):
        self.folder, self.digest = folder, folder.name
        lengths = json.loads((folder / _LENGTHS).read_text())
        ends = np.cumsum(list(lengths.values()))
        self._range = {u: (int(end - n), int(end)) for (u, n), end in zip(lengths.items(), ends, strict=True)}
        self._map: np.ndarray | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_map": None}

    @property
    def width(self) -> int:
        return self._frames.shape[1]

    @property
    def _frames(self) -> np.ndarray:
        if self._map is None:
            self._map = np.load(self.folder / _FRAMES, mmap_mode="r")
        return self._map

    def batch(self, utterances: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Frames padded with 0 to the longest clip, float32 (clip, frame, width), and valid frames of each (clip,)."""
        ranges = [self._range[u] for u in utterances]
        lengths = torch.tensor([end - start for start, end in ranges])
        hidden = torch.zeros(len(ranges), int(lengths.max()), self.width)
        for row, (start, end) in zip(hidden, ranges, strict=True):
            row[: end - start] = torch.from_numpy(self._frames[start:end].astype(np.float32))
        return hidden, lengths


def n_valid_frames(whisper: Whisper, n_samples: int) -> int:
    """Encoder frames that hear some of the clip; the others hear the silence that fills the window."""
    return max(1, -(-n_samples // (2 * whisper.feature_extractor.hop_length)))


@torch.no_grad()
def encode(
    whisper: Whisper,
    store: WaveformStore,
    utterances: Sequence[str],
    directory: str | os.PathLike,
    device: str = "cpu",
    precision: str = "float32",
) -> EncodedFrames:
    """Encode clips, or find them encoded in ``directory``, which gets one folder per encoder and set of clips.

    Args:
        whisper: its encoder.
        store: waveforms.
        utterances: which clips.
        directory: FLEURS in Whisper large-v3 takes about 1.5 MB a clip.
        device, precision: of the encoder; see `cltmlib.finetune.autocast`.

    Raises:
        InputError: a frame is not finite, or the folder cannot be written.
    """
    utterances = sorted(utterances)
    content = [_VERSION, whisper.fingerprint, device.split(":")[0], precision, utterances, store.digest(utterances)]
    folder = Path(directory) / hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
    if folder.is_dir():
        return EncodedFrames(folder)
    lengths = {u: n_valid_frames(whisper, len(store.waveform(u))) for u in utterances}
    encoder = whisper.model.get_encoder().to(device)
    flush_denormals()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=folder.name + ".", suffix=".partial", dir=folder.parent))
        try:
            shape = sum(lengths.values()), whisper.model.config.d_model
            frames = np.lib.format.open_memmap(partial / _FRAMES, "w+", np.float16, shape)
            at = 0
            for start in tqdm(range(0, len(utterances), _BATCH), desc="encoding", unit="batch", disable=None):
                chosen = utterances[start : start + _BATCH]
                features = whisper.features([store.waveform(u) for u in chosen], device).to(device)
                with autocast(device, precision):
                    hidden = encoder(features).last_hidden_state.float().cpu()
                for u, output in zip(chosen, hidden.half(), strict=True):
                    if not output[: lengths[u]].isfinite().all():
                        raise InputError(
                            f"The encoder's output for clip {u!r} is not finite in float16: check its audio."
                        )
                    frames[at : at + lengths[u]] = output[: lengths[u]].numpy()
                    at += lengths[u]
            frames.flush()
            (partial / _LENGTHS).write_text(json.dumps(lengths))
            partial.chmod(0o755)  # mkdtemp gives 0o700; other users of a cluster share the folder
            if not folder.is_dir():
                os.replace(partial, folder)
        finally:
            encoder.to("cpu")  # the language model needs the GPU's memory
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"Encoder outputs could not be written to {folder.parent}: {error.strerror}; free some space or choose "
            "another output_dir."
        ) from error
    return EncodedFrames(folder)
