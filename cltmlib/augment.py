"""Augmentation of a waveform for speech recognition: time stretch, gain, pitch shift and noise.

Paper: weighted cross-entropy for low-resource speech recognition, arXiv:2409.16954. Its released code uses
audiomentations; the defaults are its settings, the effects are made with torchaudio.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from cltmlib.errors import InputError

# 32 ms windows every 8 ms at 16 kHz: wide enough to resolve the harmonics of a voice, short enough for its consonants.
_N_FFT, _HOP = 512, 128
_PITCH_TOLERANCE_CENTS = 1.0  # about a fifth of the smallest change that a listener hears
_LIMITS = {"stretch_rate": (0.5, 2.0), "gain_db": (-60.0, 60.0), "pitch_semitones": (-24.0, 24.0),
           "noise_amplitude": (0.0, 1.0)}  # fmt: skip


def utterance_generator(seed: int, utterance_id: str, copy: int = 0) -> np.random.Generator:
    """Random numbers of one augmented copy of one utterance, whatever the order in which utterances come.

    Args:
        seed: of the run.
        utterance_id: of the utterance.
        copy: number of the copy, such as the epoch when copies are made on the fly.

    Example:
        >>> first, again = (utterance_generator(7, "gl/1").random() for _ in range(2))
        >>> first == again, first == utterance_generator(7, "gl/1", copy=1).random()
        (True, False)
    """
    digest = hashlib.blake2b(f"{seed}\0{copy}\0{utterance_id}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


@dataclass(frozen=True)
class Augmentation:
    """Effects applied independently of each other, in the order of the attributes.

    With the defaults 0.8 * 0.9 * 0.8 * 0.8 = 46 % of the copies equal the original, as in the released code.
    Choice: noise is added at the rate of the waveform that is given. The released code adds it before resampling to
    16 kHz, which takes away the part above 8 kHz.

    Attributes:
        stretch_probability: of another tempo at the same pitch.
        stretch_rate: range of the tempo factor; above 1 is faster and shorter.
        gain_probability: of another loudness.
        gain_db: range of the gain; nothing is clipped, so samples may leave [-1, 1].
        pitch_probability: of another pitch at the same length.
        pitch_semitones: range of the shift; formants move along.
        noise_probability: of white Gaussian noise.
        noise_amplitude: range of its standard deviation; full scale is 1.

    Raises:
        InputError: a probability outside [0, 1]; a range upside down or beyond reason.

    Example:
        >>> loud = Augmentation(0, gain_probability=1, gain_db=(20, 20), pitch_probability=0, noise_probability=0)
        >>> loud(np.array([0.5, -0.25]), utterance_generator(0, "gl/1")).tolist()
        [5.0, -2.5]
    """

    stretch_probability: float = 0.2
    stretch_rate: tuple[float, float] = (0.9, 1.1)
    gain_probability: float = 0.1
    gain_db: tuple[float, float] = (-6.0, 6.0)
    pitch_probability: float = 0.2
    pitch_semitones: tuple[float, float] = (-4.0, 4.0)
    noise_probability: float = 0.2
    noise_amplitude: tuple[float, float] = (0.005, 0.015)

    def __post_init__(self) -> None:
        for name in ("stretch_probability", "gain_probability", "pitch_probability", "noise_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Augmentation {name} {getattr(self, name)} is not a probability: give 0 to 1.")
        for name, (least, most) in _LIMITS.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                limits = f"give the lower end first, within {least} to {most}"
                raise InputError(f"Augmentation {name} from {low} to {high}: {limits}.")

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augmented copy of a waveform.

        Args:
            waveform: float, shape (n_samples,), full scale 1; the windows suit 16 kHz.
            rng: see ``utterance_generator``.

        Returns:
            A new array, float32, shape (round(n_samples / rate),) where the tempo changes, else (n_samples,). A slower
            copy may exceed the longest clip that a model takes.

        Raises:
            InputError: the waveform is empty, not finite, or not one channel of floats.
        """
        waveform = _checked(waveform)
        # Always the same eight draws, before the noise: the length of the clip and the chance of one effect never
        # change what another effect does.
        stretched, gained, pitched, noisy = rng.random(4) < (
            self.stretch_probability, self.gain_probability, self.pitch_probability, self.noise_probability
        )  # fmt: skip
        rate, gain_db, semitones, amplitude = (
            rng.uniform(*ends) for ends in (self.stretch_rate, self.gain_db, self.pitch_semitones, self.noise_amplitude)
        )
        if stretched or pitched:
            waveform = _change_tempo_and_pitch(waveform, rate if stretched else 1.0, semitones if pitched else 0.0)
        if gained:
            waveform *= np.float32(10 ** (gain_db / 20))
        if noisy:
            waveform += np.float32(amplitude) * rng.standard_normal(len(waveform), dtype=np.float32)
        return waveform


def _checked(waveform: np.ndarray) -> np.ndarray:
    """The waveform as a new float32 array."""
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or not np.issubdtype(waveform.dtype, np.floating):
        kind = f"shape {waveform.shape} and type {waveform.dtype}"
        raise InputError(f"Waveform of {kind} cannot be augmented: give floats in [-1, 1] of shape (n_samples,).")
    if not len(waveform):
        raise InputError("Waveform without samples cannot be augmented; leave the clip out.")
    if n_wrong := np.count_nonzero(~np.isfinite(waveform)):
        raise InputError(f"Waveform has {n_wrong} samples that are not finite; leave the clip out.")
    return waveform.astype(np.float32)


def _change_tempo_and_pitch(waveform: np.ndarray, rate: float, semitones: float) -> np.ndarray:
    """Stretch by a phase vocoder, once for both effects, then resample back what makes the pitch.

    ``torchaudio.functional.pitch_shift`` resamples from int(16000 / factor) to 16000 Hz. Where the two have few common
    divisors its filter bank holds 10^8 taps: 6 s for +4 semitones of a 3 s clip, 20 s for -3.3 (16000 to 13223). The
    simplest ratio within a cent mostly takes 1 ms (14 ms at worst, for shifts of a few cents), the vocoder 7 ms.
    """
    import torch
    import torchaudio

    n_samples = max(1, round(len(waveform) / rate))
    up, down = _small_ratio(2.0 ** (semitones / 12))
    n_stretched = math.ceil(n_samples * up / down)
    window = torch.hann_window(_N_FFT)
    spectrum = torch.stft(  # zeros around the clip, not its reflection: a clip may be shorter than half a window
        torch.from_numpy(waveform), _N_FFT, _HOP, window=window, pad_mode="constant", return_complex=True
    )  # (frequency, frame)
    # The vocoder sums phases over frames in float32. Advances within one turn are the same phases but keep the sum
    # small: 44 dB less error than the customary linspace(0, pi * hop), which is at -35 dB after 30 s of a high tone.
    turns = torch.arange(_N_FFT // 2 + 1) * _HOP % _N_FFT / _N_FFT
    spectrum = torchaudio.functional.phase_vocoder(spectrum, rate * down / up, 2 * math.pi * turns[:, None])
    stretched = torch.istft(spectrum, _N_FFT, _HOP, window=window, length=n_stretched)
    # Choice: the level is put back, because a vocoder loses the phase relations between frequencies and with them
    # 2 to 5 dB of speech. Before resampling, which may rightly take away what is above 8 kHz.
    if power := float(stretched.square().mean()):
        stretched *= min(2.0, math.sqrt(float(np.square(waveform).mean()) / power))
    return torchaudio.functional.resample(stretched, up, down)[:n_samples].numpy()


def _small_ratio(factor: float) -> tuple[int, int]:
    """The fraction with the smallest denominator within a cent of ``factor``.

    Example:
        >>> _small_ratio(2 ** (4 / 12)), _small_ratio(2 ** (0.005 / 12))
        ((34, 27), (1, 1))
    """
    denominator = 1
    while True:  # ends below 1000 for shifts of up to two octaves
        numerator = max(1, round(factor * denominator))
        if abs(1200 * math.log2(numerator / denominator / factor)) <= _PITCH_TOLERANCE_CENTS:
            return numerator, denominator
        denominator += 1
