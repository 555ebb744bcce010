import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from cltmlib import audio
from cltmlib.audio import PackOptions, WaveformStore, decode, pack, trim_silence
from cltmlib.corpora import common_voice
from cltmlib.errors import InputError
from cltmlib.testing import break_clip, sine_utterance

REAL_MINI = Path(__file__).parents[2] / "shared/corpora/real-mini"
BROKEN = {
    "empty": "file empty", "cut off": "cut off", "corrupt": "corrupt or not audio", "short": "too short",
    "silent": "digital silence", "not finite": "not finite",
}  # fmt: skip


def clip_rows(folder, n=4, seconds=1.0, suffix=".wav"):
    """Write ``n`` different tones and return their rows."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(n):
        path = folder / f"{number}{suffix}"
        soundfile.write(path, sine_utterance(seconds, 100.0 + 20 * number, seed=number), 16000)
        rows.append({"utterance_id": f"de/{number}", "path": str(path), "language": "de", "duration_s": seconds})
    return pd.DataFrame(rows)


def content(store):
    return {name: store.waveform(name).tobytes() for name in sorted(store._index) if name in store}


def decoded_paths(monkeypatch):
    """List that grows with the name of every clip decoded from now on."""
    names, real = [], audio._decode
    monkeypatch.setattr(audio, "_decode", lambda path, rate: (names.append(Path(path).name), real(path, rate))[1])
    return names


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100, 48000])
def test_every_format_and_rate_decodes_to_the_same_tone(tmp_path, suffix, rate_hz):
    tone = sine_utterance(1.0, 200.0, rate_hz)
    soundfile.write(tmp_path / f"a{suffix}", np.stack([tone, tone], axis=1), rate_hz)
    waveform = decode(tmp_path / f"a{suffix}")
    assert waveform.dtype == np.float32 and waveform.shape == (16000,)
    expected = sine_utterance(1.0, 200.0, 16000)
    assert np.corrcoef(waveform[800:-800], expected[800:-800])[0, 1] > 0.99


def test_channels_are_averaged(tmp_path):
    tone = sine_utterance(0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, 0 * tone], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(decode(tmp_path / "a.wav"), tone / 2, atol=1e-7)


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "short"])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
def test_unusable_clip_is_refused_by_name(tmp_path, kind, suffix):
    path = Path(clip_rows(tmp_path, 1, suffix=suffix)["path"][0])
    if kind in ("silent", "not finite"):
        path = path.rename(path.with_suffix(".wav"))
    break_clip(path, kind)
    with pytest.raises(InputError, match=f"{path.name} cannot be used: ") as caught:
        decode(path)
    assert "\n" not in str(caught.value)


def test_missing_clip_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"a\.mp3 cannot be used: file missing"):
        decode(tmp_path / "a.mp3")


def test_wav_of_a_stream_without_a_known_length_is_accepted(tmp_path):
    path = Path(clip_rows(tmp_path, 1)["path"][0])
    content = bytearray(path.read_bytes())
    start = content.index(b"data") + 4
    content[start : start + 4] = content[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert decode(path).shape == (16000,)


@settings(max_examples=15, deadline=None)
@given(peak=st.floats(2e-5, 8.0), seed=st.integers(0, 99), seconds=st.floats(0.01, 0.2), offset=st.floats(-1.0, 1.0))
def test_stored_samples_are_within_the_documented_bound(tmp_path_factory, peak, seed, seconds, offset):
    folder = tmp_path_factory.mktemp("bound")
    wave = np.random.default_rng(seed).normal(size=round(16000 * seconds)) + offset
    wave = (wave * peak / np.abs(wave).max()).astype(np.float32)
    soundfile.write(folder / "a.wav", wave, 16000, subtype="FLOAT")
    rows = pd.DataFrame({"utterance_id": ["x"], "path": [str(folder / "a.wav")], "language": ["de"]})
    stored = pack(rows, folder / "store", min_seconds=0.0).waveform("x")
    assert np.abs(stored.astype(float) - wave).max() <= np.abs(wave).max() / 65000


def test_broken_clips_are_listed_with_their_reason_and_never_stored(tmp_path):
    rows = clip_rows(tmp_path / "clips", len(BROKEN) + 2)
    for kind, path in zip(BROKEN, rows["path"][1:], strict=False):
        break_clip(path, kind)
    os.unlink(rows["path"].iloc[-1])
    store = pack(rows.drop(columns="duration_s"), tmp_path / "store")
    assert len(store) == 1 and "de/0" in store and "de/1" not in store
    skipped = store.skipped.set_index("utterance_id")
    assert list(store.skipped.columns) == ["utterance_id", "path", "language", "reason"]
    for number, reason in enumerate([*BROKEN.values(), "file missing"], start=1):
        assert reason in skipped.loc[f"de/{number}", "reason"]
    with pytest.raises(InputError, match=r"'de/1' was skipped \(file empty\)"):
        store.waveform("de/1")
    with pytest.raises(InputError, match="'de/99' is not in"):
        store.digest(["de/99"])


def test_clip_much_shorter_than_the_corpus_says_is_skipped(tmp_path):
    store = pack(clip_rows(tmp_path / "clips", 2).assign(duration_s=[1.05, 2.0]), tmp_path / "store")
    assert store.skipped["reason"].tolist() == ["cut off: 1.00 s of 2.00 s"]


def test_second_pack_decodes_only_what_is_new(tmp_path, monkeypatch):
    rows = clip_rows(tmp_path / "clips", 5)
    break_clip(rows["path"][1], "corrupt")
    names = decoded_paths(monkeypatch)
    pack(rows[:3], tmp_path / "store")
    assert sorted(names) == ["0.wav", "1.wav", "2.wav"]
    store = pack(rows, tmp_path / "store")
    assert sorted(names[3:]) == ["3.wav", "4.wav"]
    assert len(pack(rows, tmp_path / "store")) == 4 and len(names) == 5
    assert content(store) == content(pack(rows, tmp_path / "at_once"))
    assert store.digest(["de/4", "de/0"]) == WaveformStore.open(tmp_path / "at_once").digest(["de/4", "de/0"])


def test_changed_or_repaired_clip_is_decoded_again(tmp_path):
    rows = clip_rows(tmp_path / "clips", 2)
    break_clip(rows["path"][1], "corrupt")
    before = pack(rows, tmp_path / "store").digest(["de/0"])
    soundfile.write(rows["path"][0], sine_utterance(0.75), 16000)
    soundfile.write(rows["path"][1], sine_utterance(1.0), 16000)
    after = pack(rows.drop(columns="duration_s"), tmp_path / "store")
    assert after.duration_s(["de/0", "de/1"]).tolist() == [0.75, 1.0] and after.skipped.empty
    assert before != after.digest(["de/0"])


def test_digest_tells_order_and_content(tmp_path):
    store = pack(clip_rows(tmp_path / "clips", 2), tmp_path / "store")
    assert store.digest(["de/0", "de/1"]) != store.digest(["de/1", "de/0"])
    assert store.digest(["de/0"]) != store.digest(["de/1"])


def test_options_that_change_samples_have_stores_of_their_own(tmp_path):
    rows = clip_rows(tmp_path / "clips", 1)
    whole = pack(rows, tmp_path / "store")
    cropped = pack(rows, tmp_path / "store", max_seconds=0.6)
    slow = pack(rows, tmp_path / "store", sample_rate_hz=8000)
    assert [store.duration_s(["de/0"])[0] for store in (whole, cropped, slow)] == [1.0, 0.6, 1.0]
    assert len({store.directory for store in (whole, cropped, slow)}) == 3
    assert np.abs(whole.waveform("de/0")[:9600] - cropped.waveform("de/0")).max() < 1e-4
    assert slow.waveform("de/0").shape == (8000,)
    assert WaveformStore.open(cropped.directory).options == PackOptions(max_seconds=0.6)
    with pytest.raises(InputError, match="holds 3 waveform stores"):
        WaveformStore.open(tmp_path / "store")
    with pytest.raises(InputError, match="max_seconds is below min_seconds"):
        pack(rows, tmp_path / "store", max_seconds=0.1)


def test_trimming_cuts_quiet_ends_and_keeps_pauses(tmp_path):
    silence, tone = np.zeros(3200, dtype=np.float32), sine_utterance(0.5)
    wave = np.concatenate([silence, tone, silence, tone, silence])
    assert len(trim_silence(wave, 16000, 40.0)) == len(wave) - 2 * 3200
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    rows = pd.DataFrame({"utterance_id": ["x"], "path": [str(tmp_path / "a.wav")], "language": ["de"]})
    assert pack(rows, tmp_path / "store", trim_db=40.0).duration_s(["x"]) == [1.2]


def test_pickled_store_is_small_and_reads_the_same(tmp_path):
    store = pack(clip_rows(tmp_path / "clips", 3), tmp_path / "store")
    expected = content(store)
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000 and content(pickle.loads(pickled)) == expected


def test_number_of_threads_does_not_change_the_store(tmp_path):
    rows = clip_rows(tmp_path / "clips", 6)
    assert content(pack(rows, tmp_path / "a", n_workers=1)) == content(pack(rows, tmp_path / "b", n_workers=4))


def test_killed_pack_leaves_whole_segments_and_is_continued(tmp_path):
    rows = clip_rows(tmp_path / "clips", 12)
    rows.to_json(tmp_path / "rows.json")
    script = textwrap.dedent(
        f"""
        import time, pandas as pd
        from cltmlib import audio
        audio._SEGMENT_BYTES = 60_000  # two clips
        real = audio._decode
        audio._decode = lambda path, rate: (time.sleep(0.05), real(path, rate))[1]
        audio.pack(pd.read_json({str(tmp_path / "rows.json")!r}), {str(tmp_path / "store")!r}, n_workers=1)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[1])
    deadline = time.time() + 60
    while not list(tmp_path.glob("store/*/000002")) and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    n_before = len(WaveformStore.open(tmp_path / "store"))
    assert 4 <= n_before < 12
    store = pack(rows, tmp_path / "store")
    assert len(store) == 12 and content(store) == content(pack(rows, tmp_path / "uninterrupted"))


def test_full_disk_is_one_sentence_and_keeps_finished_segments(tmp_path, monkeypatch):
    rows = clip_rows(tmp_path / "clips", 6)
    expected = content(pack(rows[:2], tmp_path / "store"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # a write past this fails as on a full disk
    try:
        with pytest.raises(InputError, match="disk is full") as caught:
            pack(rows, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("store/*/tmp-*"))
    assert content(WaveformStore.open(tmp_path / "store")) == expected
    assert len(pack(rows, tmp_path / "store")) == 6


def test_two_packs_at_the_same_time_give_a_whole_store(tmp_path, monkeypatch):
    rows = clip_rows(tmp_path / "clips", 4)
    real, done = audio._publish, []

    def publish(temporary, directory):
        if not done:  # another process finishes its segment just before ours
            done.append(True)
            pack(rows[2:], tmp_path / "store")
        real(temporary, directory)

    monkeypatch.setattr(audio, "_publish", publish)
    store = pack(rows[:3], tmp_path / "store")
    assert len(store) == 4 and sorted(path.name for path in store.directory.glob("0*")) == ["000001", "000002"]


@pytest.mark.skipif(not REAL_MINI.is_dir(), reason="../shared/corpora/real-mini is absent")
def test_real_mp3_clips_all_decode_to_the_length_of_their_header(tmp_path):
    rows = common_voice.load(REAL_MINI, ["ru", "th"], ["dev"]).to_pandas()
    store = pack(rows, tmp_path / "store")
    assert store.skipped.empty and len(store) == len(rows)
    np.testing.assert_allclose(store.duration_s(rows["utterance_id"]), rows["duration_s"], atol=0.01)
