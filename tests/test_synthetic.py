"""The embedded corpus: what it says, who says it, and that it is the same every time."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cltmlib.corpora import COLUMNS, load_corpus, sentences, synthetic
from cltmlib.corpora.languages import families
from cltmlib.errors import InputError

SMALL = {"speakers_per_language": 8, "utterances_per_speaker": 2, "seed": 3}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture(scope="module")
def corpus(cache):
    return load_corpus("synthetic", languages=["de", "ja"], cache_dir=cache, **SMALL).to_pandas()


def digest(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def plans(n, seed=0):
    rng = np.random.default_rng(seed)
    return [sentences.draw_plan(rng) for _ in range(n)]


def test_at_least_sixteen_languages_of_six_families_are_spoken():
    assert len(sentences.VOICES) >= 16
    assert len(set(families(sentences.VOICES).values())) >= 6


@pytest.mark.parametrize("language", sorted(sentences.VOICES))
def test_sentences_hold_words_only(language):
    """No digits, no raw CLDR ids ("5 duration-minute"), no unfilled pattern, in the script of the language."""
    for plan in plans(60):
        text = sentences.realise(plan, language)
        assert not re.search(r"\d|duration|length-|mass-|[{}()_\u00ad\u200f]", text), text
        if language in ("ar", "bn", "el", "fa", "hi", "hy-AM", "ja", "ka", "ko", "ky", "ru", "ta", "uk", "zh-CN"):
            assert not re.search("[A-Za-z]", text), text


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("de", "Pakistan, dreihunderteinundsechzig Zentimeter"),
        ("es", "Pakistán, trescientos sesenta y uno centímetros"),
        ("ja", "パキスタン、三百六十一センチメートル"),
        ("zh-CN", "巴基斯坦，三百六十一厘米"),
        ("ru", "Пакистан, триста шестьдесят один сантиметр"),
        ("ky", "Пакистан, үч жүз алтымыш бир сантиметр"),
    ],
)
def test_a_plan_is_the_same_sentence_in_every_language(language, expected):
    assert sentences.realise(("measure", "PK", 361, "length-centimeter"), language) == expected


def test_text_does_not_depend_on_which_locales_were_used_before():
    """Babel's stand-alone month names do; a fresh process per language must agree with this one."""
    several = plans(25, seed=1)
    here = {
        language: [sentences.realise(plan, language) for plan in several] for language in ("ja", "ka", "ru", "zh-CN")
    }
    for language, texts in here.items():
        loop = f"for plan in {several!r}:\n print(ascii(realise(plan, {language!r})))"
        code = f"from cltmlib.corpora.sentences import realise\n{loop}"
        fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert fresh.splitlines() == [ascii(text) for text in texts]


def test_rows_have_the_columns_of_every_corpus_and_clips_are_16_khz_mono(corpus):
    assert tuple(corpus.columns) == COLUMNS
    assert corpus["utterance_id"].is_unique
    for row in corpus.sample(4, random_state=0).itertuples():
        info = soundfile.info(row.path)
        assert (info.samplerate, info.channels) == (16_000, 1)
        assert info.frames / 16_000 == pytest.approx(row.duration_s)


def test_every_language_has_the_same_balanced_speakers_split_by_speaker(corpus):
    for language, rows in corpus.groupby("language"):
        speakers = rows.drop_duplicates("speaker")
        assert len(speakers) == 8 and set(speakers["speaker"].str.startswith(f"{language}-")) == {True}
        assert speakers.groupby(["split", "gender"]).size().to_dict() == {
            ("dev", "female"): 1, ("dev", "male"): 1, ("test", "female"): 1, ("test", "male"): 1,
            ("train", "female"): 2, ("train", "male"): 2,
        }  # fmt: skip
    assert corpus.groupby("speaker")["split"].nunique().max() == 1


def test_sentences_are_parallel_across_languages_and_unseen_in_test(corpus):
    parallel = [rows["sentence_id"].tolist() for _, rows in corpus.groupby("language")]
    assert parallel[0] == parallel[1]
    by_split = corpus.groupby("split")["sentence_id"].agg(set)
    assert not by_split["train"] & by_split["test"] and not by_split["train"] & by_split["dev"]


def test_the_same_seed_gives_the_same_bytes_whatever_else_is_made(corpus, tmp_path):
    again = load_corpus("synthetic", languages=["sw", "de"], cache_dir=tmp_path, **SMALL).to_pandas()
    first, second = (rows[rows["language"] == "de"] for rows in (corpus, again))
    assert first["utterance_id"].tolist() == second["utterance_id"].tolist()
    assert [digest(p) for p in first["path"]] == [digest(p) for p in second["path"]]


def test_another_seed_gives_other_speakers_and_sentences(corpus, cache):
    other = load_corpus("synthetic", languages=["de"], cache_dir=cache, **{**SMALL, "seed": 4}).to_pandas()
    first = corpus[corpus["language"] == "de"]
    assert not set(map(digest, first["path"])) & set(map(digest, other["path"]))
    assert first["sentence"].tolist() != other["sentence"].tolist()


def test_a_second_load_speaks_nothing_again(corpus, cache, monkeypatch):
    monkeypatch.setattr(synthetic, "_run_worker", None)
    again = load_corpus("synthetic", languages=["de", "ja"], cache_dir=cache, **SMALL)
    assert again.to_pandas().equals(corpus)


def test_a_crash_of_the_speech_library_names_the_language_and_leaves_no_half_corpus(tmp_path, monkeypatch):
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(synthetic.sys, "executable", str(crash))
    with pytest.raises(InputError, match=r"'de'.*exit code -11"):
        load_corpus("synthetic", languages=["de"], cache_dir=tmp_path / "cache", **SMALL)
    assert [p.name for p in (tmp_path / "cache").iterdir() if not p.name.endswith(".lock")] == []


def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
    def full(job, folder, update):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "_run_worker", full)
    with pytest.raises(InputError, match="No space left on device; free some space"):
        load_corpus("synthetic", languages=["de"], cache_dir=tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": ["xx"]}, "does not speak 'xx'"),
        ({"speakers_per_language": 7}, "even number of at least 6, not 7"),
        ({"speakers_per_language": 4}, "not 4"),
        ({"utterances_per_speaker": 0}, "at least 1, not 0"),
    ],
)
def test_bad_options_are_named(change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load_corpus("synthetic", **{"languages": ["de"], **SMALL, "cache_dir": tmp_path, **change})
