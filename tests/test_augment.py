import math
import time

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from cltmlib.augment import Augmentation, _small_ratio, utterance_generator
from cltmlib.errors import InputError
from cltmlib.testing import sine_utterance

RATE_HZ = 16000
EFFECTS = ("stretch", "gain", "pitch", "noise")


def only(*effects, **ranges):
    """An augmentation that always applies these effects and no other."""
    chances = {f"{name}_probability": float(name in effects) for name in EFFECTS}
    return Augmentation(**chances, **ranges)


def sine(frequency_hz, n_samples=2 * RATE_HZ):
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(n_samples) / RATE_HZ)


def generator(seed=0):
    return utterance_generator(seed, "gl/1")


def peak_hz(waveform):
    """Frequency of the strongest partial, to about 0.02 Hz; the ends, where windows are cut, are left out."""
    middle = waveform[1000:-1000].astype(float)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 2**20))
    return spectrum.argmax() * RATE_HZ / 2**20


def test_same_seed_and_utterance_give_the_same_copy_in_any_order():
    augment = Augmentation()
    clips = {f"gl/{number}": sine_utterance(0.3, 100.0 + number, seed=number) for number in range(12)}

    def copies(names):
        return {name: augment(clips[name], utterance_generator(7, name)).tobytes() for name in names}

    assert copies(clips) == copies(reversed(clips)) == {name: copies([name])[name] for name in clips}


def test_generators_differ_by_seed_utterance_and_copy():
    keys = [(seed, name, copy) for seed in (0, 1, 11) for name in ("1", "11", "gl/1") for copy in (0, 1, 11)]
    assert len({utterance_generator(*key).random() for key in keys}) == len(keys)


def test_zero_probabilities_return_a_copy_of_the_waveform():
    waveform = sine_utterance(0.2)
    result = only()(waveform, generator())
    assert result.dtype == np.float32 and not np.shares_memory(result, waveform)
    np.testing.assert_array_equal(result, waveform)


@pytest.mark.parametrize("effects", [(name,) for name in EFFECTS] + [EFFECTS])
def test_input_is_left_alone_and_may_be_read_only(effects):
    waveform = sine_utterance(0.2)
    before = waveform.copy()
    waveform.setflags(write=False)
    result = only(*effects)(waveform, generator())
    assert result.dtype == np.float32 and result.ndim == 1 and np.isfinite(result).all()
    np.testing.assert_array_equal(waveform, before)


@pytest.mark.parametrize("semitones", [-4.0, -3.3, -1.0, -0.03, 0.0, 0.845, 2.0, 4.0])
@pytest.mark.parametrize("frequency_hz", [150.0, 440.0, 3000.0])
def test_pitch_moves_by_the_semitones_and_length_and_level_stay(semitones, frequency_hz):
    waveform = sine(frequency_hz)
    result = only("pitch", pitch_semitones=(semitones, semitones))(waveform, generator())
    assert result.shape == waveform.shape
    cents = 1200 * math.log2(peak_hz(result) / frequency_hz)
    assert abs(cents - 100 * semitones) < 1.5
    assert 20 * math.log10(result[4000:-4000].std() / waveform.std()) == pytest.approx(0, abs=0.5)


def test_pitch_shift_that_would_fold_over_half_the_rate_is_filtered_out():
    result = only("pitch", pitch_semitones=(4, 4))(sine(7500.0), generator())  # would be at 9449 Hz
    assert result[4000:-4000].std() < 0.1 * sine(7500.0).std()


@pytest.mark.parametrize("rate", [0.9, 0.937, 1.0, 1.1])
@pytest.mark.parametrize("frequency_hz", [150.0, 440.0, 6000.0])
def test_stretch_changes_the_length_by_the_rate_and_keeps_pitch_and_level(rate, frequency_hz):
    waveform = sine(frequency_hz)
    result = only("stretch", stretch_rate=(rate, rate))(waveform, generator())
    assert len(result) == round(len(waveform) / rate)
    assert abs(1200 * math.log2(peak_hz(result) / frequency_hz)) < 0.5
    assert 20 * math.log10(result[4000:-4000].std() / waveform.std()) == pytest.approx(0, abs=0.5)


def test_stretch_moves_events_in_time_by_the_rate():
    waveform = np.zeros(2 * RATE_HZ)
    waveform[8000:12000] = sine(300.0, 4000)
    result = only("stretch", stretch_rate=(0.9, 0.9))(waveform, generator())
    loud = np.flatnonzero(np.abs(result) > 0.1)
    assert loud[0] == pytest.approx(8000 / 0.9, abs=256) and loud[-1] == pytest.approx(12000 / 0.9, abs=256)


def test_stretch_and_pitch_together_do_both():
    augment = only("stretch", "pitch", stretch_rate=(1.1, 1.1), pitch_semitones=(-3.0, -3.0))
    result = augment(sine(440.0), generator())
    assert len(result) == round(2 * RATE_HZ / 1.1)
    assert abs(1200 * math.log2(peak_hz(result) / 440.0) + 300) < 1.5


def test_phases_of_a_long_high_tone_are_those_of_double_precision():
    """The customary vocoder in float32 is 35 dB from this after half a minute."""
    waveform = torch.from_numpy(sine(6900.0, 30 * RATE_HZ))
    options = {"n_fft": 512, "hop_length": 128, "window": torch.hann_window(512, dtype=torch.float64)}
    spectrum = torch.stft(waveform, **options, pad_mode="constant", return_complex=True)
    advance = torch.linspace(0, math.pi * 128, 257, dtype=torch.float64)[:, None]
    stretched = torchaudio.functional.phase_vocoder(spectrum, 0.9, advance)
    expected = torch.istft(stretched, **options, length=round(len(waveform) / 0.9)).numpy()
    result = only("stretch", stretch_rate=(0.9, 0.9))(waveform.numpy(), generator()).astype(float)
    result *= expected.std() / result.std()
    end = slice(-3 * RATE_HZ, None)
    assert 20 * math.log10((result - expected)[end].std() / expected.std()) < -65


def voice_like(seconds=3.0):
    """Glottal pulses through a falling spectrum, with syllables: what a vocoder's lost phases make quieter."""
    rng = np.random.default_rng(0)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * time_s)) / RATE_HZ
    pulses = sum(np.cos(harmonic * phase) / harmonic for harmonic in range(1, 40))
    return 0.1 * (pulses + 0.05 * rng.normal(size=len(time_s))) * (1 + np.sin(2 * np.pi * 4 * time_s))


@pytest.mark.parametrize("options", [{"stretch_rate": (0.9, 0.9)}, {"stretch_rate": (1.1, 1.1)}])
def test_stretch_keeps_the_level_of_speech(options):
    waveform = voice_like()
    result = only("stretch", **options)(waveform, generator())
    assert 20 * math.log10(result.std() / waveform.std()) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("gain_db", [-6.0, 0.0, 2.5, 6.0])
def test_gain_is_exact_in_decibels_and_never_clips(gain_db):
    waveform = 0.9 * sine_utterance(0.5) / np.abs(sine_utterance(0.5)).max()
    result = only("gain", gain_db=(gain_db, gain_db))(waveform, generator())
    np.testing.assert_allclose(result, waveform * 10 ** (gain_db / 20), rtol=1e-6)


@pytest.mark.parametrize("amplitude", [0.005, 0.015])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_noise_is_white_gaussian_of_the_amplitude_whatever_the_level(amplitude, level):
    waveform = level * sine(200.0, 10 * RATE_HZ)
    noise = only("noise", noise_amplitude=(amplitude, amplitude))(waveform, generator()) - waveform
    n = len(noise)
    assert noise.std() == pytest.approx(amplitude, rel=4 / math.sqrt(2 * n)) and abs(noise.mean()) < 4e-2 * amplitude
    normal = noise / amplitude
    assert (normal**4).mean() == pytest.approx(3, abs=4 * math.sqrt(96 / n))  # a uniform noise has 1.8
    assert abs((normal[1:] * normal[:-1]).mean()) < 4 / math.sqrt(n)


def test_drawn_values_fill_their_ranges():
    tone = np.full(400, 0.1)
    gains_db = [20 * math.log10(only("gain")(tone, generator(seed))[0] / 0.1) for seed in range(400)]
    lengths = [len(only("stretch")(tone, generator(seed))) for seed in range(400)]
    assert -6 <= min(gains_db) < -5.8 and 5.8 < max(gains_db) <= 6 and abs(np.mean(gains_db)) < 4 * 12 / math.sqrt(4800)
    assert 364 <= min(lengths) <= 366 and 442 <= max(lengths) <= 444  # 400 / 1.1 and 400 / 0.9


def test_effects_come_as_often_as_their_probabilities_say():
    n = 2000
    tone = np.full(32, 0.1, dtype=np.float32)
    defaults = Augmentation()
    chances = {name: getattr(defaults, f"{name}_probability") for name in EFFECTS}
    assert chances == {"stretch": 0.2, "gain": 0.1, "pitch": 0.2, "noise": 0.2}
    untouched = sum(np.array_equal(defaults(tone, utterance_generator(0, str(i))), tone) for i in range(n))
    assert abs(untouched - 0.4608 * n) < 4 * math.sqrt(n * 0.4608 * 0.5392)
    for name, chance in chances.items():
        alone = Augmentation(**{f"{other}_probability": chance * (other == name) for other in EFFECTS})
        changed = sum(not np.array_equal(alone(tone, utterance_generator(0, str(i))), tone) for i in range(n))
        assert abs(changed - chance * n) < 4 * math.sqrt(n * chance * (1 - chance)), name


def test_chance_of_one_effect_does_not_change_what_another_does():
    waveform = sine_utterance(0.2)
    alone = only("gain")(waveform, generator())
    noisy = only("gain", "noise")(waveform, generator())
    assert 0.004 < (noisy - alone).std() < 0.016
    np.testing.assert_array_equal(only("gain")(waveform[:100], generator()), alone[:100])
    assert (only("stretch")(waveform, generator()).shape) == only(*EFFECTS)(waveform, generator()).shape


@settings(max_examples=60, deadline=None)
@given(
    n_samples=st.one_of(st.integers(1, 1100), st.integers(15900, 16100)),
    rate=st.floats(0.5, 2.0),
    semitones=st.floats(-24, 24),
)
def test_any_length_and_any_allowed_setting_give_finite_samples_of_the_right_number(n_samples, rate, semitones):
    augment = only(*EFFECTS, stretch_rate=(rate, rate), pitch_semitones=(semitones, semitones))
    result = augment(np.random.default_rng(0).uniform(-1, 1, n_samples), generator())
    assert result.shape == (max(1, round(n_samples / rate)),) and np.isfinite(result).all()
    assert np.abs(result).max() < 20


def test_silence_stays_silent_without_noise():
    result = only("stretch", "gain", "pitch")(np.zeros(5000), generator())
    assert not result.any() and len(result) != 5000


@settings(max_examples=200, deadline=None)
@given(semitones=st.floats(-24, 24))
def test_ratio_is_small_and_within_a_cent(semitones):
    factor = 2 ** (semitones / 12)
    up, down = _small_ratio(factor)
    assert abs(1200 * math.log2(up / down / factor)) <= 1 and max(up, down) < 1000 and math.gcd(up, down) == 1


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(0), "without samples"),
        (np.array([0.1, np.nan, np.inf]), "has 2 samples that are not finite"),
        (np.zeros((2, 100)), r"shape \(2, 100\)"),
        (np.zeros(100, dtype=np.int16), "type int16"),
    ],
)
@pytest.mark.parametrize("effects", [(), EFFECTS])
def test_unusable_waveform_is_refused_in_one_sentence(waveform, message, effects):
    with pytest.raises(InputError, match=message) as caught:
        only(*effects)(waveform, generator())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain_probability": 1.5}, "gain_probability 1.5 is not a probability"),
        ({"noise_probability": math.nan}, "noise_probability nan is not a probability"),
        ({"stretch_rate": (1.1, 0.9)}, "stretch_rate from 1.1 to 0.9: give the lower end first"),
        ({"stretch_rate": (90, 110)}, "within 0.5 to 2.0"),
        ({"pitch_semitones": (-400, 400)}, "pitch_semitones from -400 to 400"),
        ({"noise_amplitude": (-0.1, 0.1)}, "noise_amplitude from -0.1 to 0.1"),
        ({"gain_db": (0, math.nan)}, "gain_db from 0 to nan"),
    ],
)
def test_unreasonable_settings_are_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**options)


def test_three_seconds_are_augmented_in_milliseconds():
    """The ordinary resampling takes seconds for 3.37 semitones; processor time, so that a busy machine passes."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        augment = only(*EFFECTS, pitch_semitones=(3.37, 3.37))
        waveform = sine_utterance(3.0)
        augment(waveform, generator())
        start_s = time.process_time()
        for seed in range(5):
            augment(waveform, generator(seed))
        assert (time.process_time() - start_s) / 5 < 0.2
    finally:
        torch.set_num_threads(n_threads)
