"""One language of the synthetic corpus, spoken by eSpeak NG in a process of its own.

Run as ``python -m cltmlib.corpora.espeak JOB.json`` by `cltmlib.corpora.synthetic`; never imported into a notebook, so
that a crash of the C library takes only this process down. One process speaks one language in a fixed order: eSpeak
carries state from one utterance to the next, and only "fresh process, same order" gives the same bits.
"""

import ctypes
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, fftconvolve, firwin, lfilter, resample_poly, sosfilt

from cltmlib.corpora import sentences

ESPEAK_RATE_HZ = 22_050
SAMPLE_RATE_HZ = 16_000
_UP, _DOWN = 320, 441  # 22.05 kHz to 16 kHz
# Made once: the design takes longer than the filtering of one clip.
_ANTI_ALIAS = firwin(2 * 10 * _DOWN + 1, 0.95 / _DOWN, window=("kaiser", 5.0))
_LOW_PASS = butter(1, 1000, fs=SAMPLE_RATE_HZ, output="sos")
_SYNCHRONOUS, _DONT_EXIT, _UTF8, _RATE_PARAMETER = 2, 0x8000, 1, 1

# How hard the corpus is. Gender: separation against spread of the voices. Speakers: spread against jitter and channel.
# Without jitter and channel, speaker verification is solved by any feature (AUC 1.0). Chosen so that both tasks are
# neither at chance nor at the ceiling for the stand-in encoder and a few dozen clips (docs/notes.md).
GENDER_SEPARATION = 1.5
SPEAKER_SPREAD = 1.8
UTTERANCE_JITTER = 0.6
CHANNEL = 0.5


class Espeak:
    """eSpeak NG with a private voice folder, seeded.

    Two processes sharing a voice folder swap speakers without notice, and the library's initialisation is seeded by the
    clock, so both are set here.
    """

    def __init__(self, folder: Path, seed: int):
        import espeakng_loader

        source = Path(espeakng_loader.get_data_path())
        data = folder / "espeak-ng-data"
        (data / "voices" / "!v").mkdir(parents=True)
        for entry in source.iterdir():
            if entry.name != "voices":
                _link(entry, data / entry.name)
        self._variants = data / "voices" / "!v"
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._chunks: list[np.ndarray] = []
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

        def callback(samples, n_samples, _events):
            if n_samples > 0:
                self._chunks.append(np.ctypeslib.as_array(samples, shape=(n_samples,)).copy())
            return 0

        self._callback = callback_type(callback)  # kept: the library holds only a bare pointer to it
        rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(folder).encode(), _DONT_EXIT)
        if rate_hz != ESPEAK_RATE_HZ:
            raise RuntimeError(f"eSpeak NG did not start: espeak_Initialize returned {rate_hz}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, variant: str, rate_wpm: int) -> np.ndarray:
        """Speak ``text``; ``variant`` is the text of an eSpeak voice variant file. Returns float32 at 22.05 kHz."""
        name = "cltm"
        (self._variants / name).write_text(variant)
        if self._library.espeak_SetVoiceByName(f"{voice}+{name}".encode()) != 0:
            raise RuntimeError(f"eSpeak NG has no voice {voice!r}")
        self._library.espeak_SetParameter(_RATE_PARAMETER, rate_wpm, 0)
        self._chunks.clear()
        data = text.encode()
        status = self._library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, _UTF8, None, None)
        if status != 0 or not self._chunks:
            raise RuntimeError(f"eSpeak NG could not speak {text!r} with voice {voice!r} (status {status})")
        return np.concatenate(self._chunks).astype(np.float32) / 32768


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source, target)
    except OSError:  # Windows without the right to make links
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def speaker_voice(rng: np.random.Generator, gender: str) -> dict:
    """Draw one speaker: fundamental frequency, vocal-tract length, formants, source and habits.

    A smooth population model: every parameter of a speaker is log-normal or normal around its gender's mean, so genders
    overlap and no parameter gives the gender away (eSpeak's own f/m variants differ by constants).
    """
    sign = 1.0 if gender == "female" else -1.0
    separation, spread = sign * GENDER_SEPARATION, SPEAKER_SPREAD

    def z(size=None):
        return spread * rng.standard_normal(size)

    return {
        "f0_hz": 153 * np.exp(0.27 * separation + 0.14 * z()),
        "range": 1.42 + 0.10 * z(),
        "tract": 1.065 * np.exp(0.070 * separation + 0.035 * z()),
        "formant": 1 + 0.03 * z(9),
        "height": 90 - 5 * separation + rng.uniform(8, 15) * z(9),
        "width": 120 + 10 * separation + 15 * z(9),
        "tone": 35 * z(),
        "breath": max(0.0, 1 + 0.5 * separation + 4 * z()),
        "roughness": int(rng.integers(0, 5)),
        "flutter": max(0.0, 5 + 3 * z()),
        "consonants": 100 + 20 * z(),
        "rate_wpm": 165 * np.exp(0.10 * z()),
        "stress": 12 * z(),
        "microphone_db": 2 * z(),
    }


def variant_file(voice: dict, rng: np.random.Generator) -> tuple[str, int]:
    """eSpeak variant of one utterance: the speaker's voice with the utterance's jitter. Returns text and rate."""
    jitter = UTTERANCE_JITTER

    def z(size=None):
        return jitter * rng.standard_normal(size)

    f0 = voice["f0_hz"] * np.exp(0.055 * z())
    top = f0 * voice["range"] * np.exp(0.06 * z())
    tract = voice["tract"] * np.exp(0.01 * z())
    formants = voice["formant"] * (1 + 0.008 * z(9))
    heights = np.clip(voice["height"] + 6 * z(9), 20, 200)
    lines = ["language variant", f"pitch {f0:.0f} {max(top, f0 + 10):.0f}"]
    for k in range(9):
        scale = 1 + (tract * formants[k] - 1) * (0.5 if k == 0 else 1.0)
        lines.append(f"formant {k} {100 * scale:.0f} {heights[k]:.0f} {np.clip(voice['width'][k], 50, 250):.0f}")
    tone = np.clip(voice["tone"], -80, 80)
    lines += [
        f"tone 600 {170 - tone:.0f} 1200 135 2000 {110 + tone:.0f}",
        f"breath {voice['breath']:.0f}",
        f"roughness {voice['roughness']}",
        f"flutter {voice['flutter']:.0f}",
        f"consonants {np.clip(voice['consonants'], 40, 160):.0f}",
        "stressAdd " + " ".join(["0"] * 6 + [f"{voice['stress']:.0f}"] * 2),
    ]
    return "\n".join(lines) + "\n", round(float(np.clip(voice["rate_wpm"] * np.exp(0.08 * z()), 90, 320)))


def channel(samples: np.ndarray, voice: dict, rng: np.random.Generator) -> np.ndarray:
    """A recording: microphone slope, room and noise, at `SAMPLE_RATE_HZ`. All scalars are drawn before any noise."""
    slope_db = voice["microphone_db"] + 4 * CHANNEL * rng.standard_normal()
    reverberation_s = 0.05 + 0.3 * CHANNEL * rng.random()
    direct_db = rng.uniform(6, 18) + 6 * (1 - CHANNEL)
    snr_db = rng.uniform(18, 36) + 10 * (1 - CHANNEL)
    noise_colour = rng.uniform(0.0, 0.95)
    level_db = -6 + 6 * (2 * rng.random() - 1)
    edges_s = rng.uniform(0.05, 0.25, size=2)

    x = resample_poly(samples, _UP, _DOWN, window=_ANTI_ALIAS).astype(np.float64)
    x = np.pad(x, [round(edge * SAMPLE_RATE_HZ) for edge in edges_s])
    low = sosfilt(_LOW_PASS, x)
    x = low + 10 ** (slope_db / 20) * (x - low)
    t = np.arange(round(reverberation_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(len(t)) * np.exp(-6.91 * t / reverberation_s)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2) + 1e-12)
    x = x + fftconvolve(x, tail)[: len(x)]
    noise = lfilter([1.0], [1.0, -noise_colour], rng.standard_normal(len(x)))
    noise *= np.sqrt(np.mean(x**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    x = x + noise
    return (x * 10 ** (level_db / 20) / np.max(np.abs(x))).clip(-1, 1).astype(np.float32)


def speak_language(job: dict) -> None:
    """Speak every utterance of ``job``, printing one line per clip: its number of samples.

    ``job``: language, seed, folder (of the clips), speakers (each: name, gender, voice_seed, seed, utterances with file
    and plan).
    """
    language = job["language"]
    voice = sentences.voice(language).espeak
    with tempfile.TemporaryDirectory(prefix="cltm") as private:
        espeak = Espeak(Path(private), job["seed"])
        for speaker in job["speakers"]:
            person = speaker_voice(np.random.default_rng(speaker["voice_seed"]), speaker["gender"])
            rng = np.random.default_rng(speaker["seed"])
            for utterance in speaker["utterances"]:
                variant, rate_wpm = variant_file(person, rng)
                text = sentences.realise(tuple(utterance["plan"]), language)
                clean = espeak.speak(sentences.spoken(text, language), voice, variant, rate_wpm)
                # A generator of its own: the length of the speech must not decide the next utterance's draws.
                samples = channel(clean, person, np.random.default_rng(rng.integers(2**63)))
                soundfile.write(Path(job["folder"]) / utterance["file"], samples, SAMPLE_RATE_HZ, subtype="PCM_16")
                print(json.dumps({"file": utterance["file"], "n_samples": len(samples), "sentence": text}), flush=True)


if __name__ == "__main__":
    speak_language(json.loads(Path(sys.argv[1]).read_text()))
