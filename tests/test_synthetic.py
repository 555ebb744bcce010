"""The embedded corpus: what it says, who says it, and that it is the same every time."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cltmlib import corpora
from cltmlib.corpora import COLUMNS, common_voice, espeak, load_corpus, sentences, synthetic
from cltmlib.corpora.languages import families
from cltmlib.errors import InputError
from cltmlib.testing import break_clip, common_voice_folder, read_tsv, write_tsv

REAL_MINI = Path(__file__).parents[2] / "shared/corpora/real-mini"

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


@pytest.fixture(scope="module")
def shared(cache):
    """The same six people in two languages."""
    options = {**SMALL, "speakers_per_language": 6, "utterances_per_speaker": 1, "shared_speakers": True}
    return load_corpus("synthetic", languages=["de", "ja"], cache_dir=cache, **options).to_pandas()


def voices_drawn(monkeypatch, tmp_path, language, shared_speakers):
    """{speaker: (voice, [eSpeak variant of each utterance])}, with a tone in place of the speech."""
    drawn, variants = [], []
    draw_voice, make_variant = espeak.speaker_voice, espeak.variant_file

    class Tone:
        def __init__(self, folder, seed):
            pass

        def speak(self, text, voice, variant, rate_wpm):
            return np.sin(np.arange(4000) / 20).astype(np.float32)

    monkeypatch.setattr(espeak, "Espeak", Tone)
    monkeypatch.setattr(espeak, "speaker_voice", lambda *given: drawn.append(draw_voice(*given)) or drawn[-1])
    monkeypatch.setattr(espeak, "variant_file", lambda *given: variants.append(make_variant(*given)) or variants[-1])
    job = synthetic._job(language, 6, 3, 0, shared_speakers, sentences.TEMPLATES)
    espeak.speak_language({**job, "folder": str(tmp_path)})
    monkeypatch.undo()
    names = [speaker["name"] for speaker in job["speakers"]]
    return {name: (drawn[k], variants[3 * k : 3 * k + 3]) for k, name in enumerate(names)}


def test_shared_speakers_have_one_voice_in_every_language_but_other_moods(monkeypatch, tmp_path):
    de, ja = (voices_drawn(monkeypatch, tmp_path, language, True) for language in ("de", "ja"))
    assert list(de) == list(ja) and len(de) == 6
    for name in de:
        (voice, variants), (other_voice, other_variants) = de[name], ja[name]
        assert {k: np.ravel(v).tolist() for k, v in voice.items()} == {
            k: np.ravel(v).tolist() for k, v in other_voice.items()
        }
        assert not set(variants) & set(other_variants) and len(set(variants)) == 3
    assert len({voice["f0_hz"] for voice, _ in de.values()}) == 6


def test_ordinary_speakers_of_two_languages_have_different_voices(monkeypatch, tmp_path):
    drawn = [voices_drawn(monkeypatch, tmp_path, *of) for of in (("de", False), ("ja", False), ("de", True))]
    assert not set(drawn[0]) & set(drawn[1])
    pitches = [voice["f0_hz"] for voices in drawn for voice, _ in voices.values()]
    assert len(set(pitches)) == len(pitches) == 18


def test_shared_speakers_speak_every_language_and_are_all_in_the_test_split(shared):
    assert set(shared["split"]) == {"test"} and tuple(shared.columns) == COLUMNS
    by_speaker = shared.groupby("speaker")
    assert len(by_speaker) == 6 and (by_speaker["language"].nunique() == 2).all()
    assert by_speaker["gender"].nunique().max() == 1
    assert shared.drop_duplicates("speaker")["gender"].value_counts().to_dict() == {"female": 3, "male": 3}
    de, ja = (rows["sentence_id"].tolist() for _, rows in shared.groupby("language"))
    assert de == ja  # parallel, as in the ordinary corpus
    assert len(set(map(digest, shared["path"]))) == len(shared) == 12


def test_shared_and_ordinary_clips_have_no_id_file_or_speaker_in_common(corpus, shared):
    for column in ("utterance_id", "path", "speaker"):
        assert not set(corpus[column]) & set(shared[column])
    assert shared["utterance_id"].str.fullmatch(r"(de|ja)/shared-(de|ja)-[fm]\d{3}-\d{3}").all()
    assert not set(map(digest, corpus["path"])) & set(map(digest, shared["path"]))


def test_nobody_speaks_two_languages_in_the_ordinary_corpus(corpus):
    assert corpus.groupby("speaker")["language"].nunique().max() == 1


def test_shared_test_sentences_are_not_in_the_training_split_of_the_ordinary_corpus(corpus, shared):
    assert not set(shared["sentence_id"]) & set(corpus.loc[corpus["split"] == "train", "sentence_id"])


PARAMS = {
    "corpus": "synthetic", "corpus_dir": None, "corpus_seed": 3, "utterances_per_speaker": 1,
    "shared_languages": ("de", "ja"), "languages": ("de", "ja"),
}  # fmt: skip


@pytest.mark.parametrize(("speakers", "n_shared"), [(6, 6), (24, 6), (32, 8), (40, 10), (44, 10)])
def test_a_quarter_of_the_synthetic_speakers_speak_several_languages(monkeypatch, speakers, n_shared):
    asked = {}
    monkeypatch.setattr(corpora, "load_corpus", lambda name, **options: asked.update(options) or corpora.from_rows([]))
    assert corpora.shared_speakers({**PARAMS, "speakers_per_language": speakers}).empty
    assert asked == {
        "languages": ("de", "ja"), "speakers_per_language": n_shared, "utterances_per_speaker": 1, "seed": 3,
        "shared_speakers": True,
    }  # fmt: skip


def test_without_shared_languages_there_are_no_shared_speakers():
    table = corpora.shared_speakers({**PARAMS, "shared_languages": None, "speakers_per_language": 6})
    assert table.empty and tuple(table.columns) == COLUMNS


@pytest.fixture
def release(tmp_path):
    """Common Voice, where one person of the train split and one of the test split speak both languages."""
    root = common_voice_folder(tmp_path / "cv", ["da", "en"], n_speakers=3, n_clips=2, seconds=0.3)
    people = {}
    for split in ("train", "test"):
        table = read_tsv(root / "da" / f"{split}.tsv")
        people[split] = table["client_id"].iloc[0]
        other = read_tsv(root / "en" / f"{split}.tsv")
        other.loc[other["client_id"] == other["client_id"].iloc[0], "client_id"] = people[split]
        write_tsv(root / "en" / f"{split}.tsv", other)
    return root, people


def common_voice_params(root, **changes):
    return {"corpus": "common_voice", "corpus_dir": str(root), "languages": ["da", "en"]} | changes


def test_people_of_common_voice_who_speak_two_languages_are_found_by_their_id(release):
    root, people = release
    table = corpora.shared_speakers(common_voice_params(root, shared_languages=("da", "en"), languages=("de",)))
    assert set(table["speaker"]) == set(people.values()) and len(table) == 8
    assert table.groupby(["speaker", "language"]).size().tolist() == [2, 2, 2, 2]
    assert tuple(table.columns) == COLUMNS
    assert corpora.shared_speakers(common_voice_params(root, shared_languages=None)).empty


def test_a_corpus_without_some_speakers_keeps_all_else_and_what_was_dropped(release):
    root, people = release
    break_clip(next((root / "da/clips").iterdir()), "empty")
    corpus = corpora.from_params(common_voice_params(root))
    rest = corpora.without_speakers(corpus, people.values())
    before, after = corpus.to_pandas(), rest.to_pandas()
    kept = before[~before["speaker"].isin(people.values())].reset_index(drop=True)
    assert kept.equals(after) and len(after) < len(before)
    assert corpora.dropped(rest).equals(corpora.dropped(corpus)) and corpora.dropped(rest)["n"].sum() == 1
    assert corpora.shared_speakers(common_voice_params(root, shared_languages=("da", "en")))["speaker"].nunique() == 2
    assert corpora.without_speakers(corpus, ["nobody"]).to_pandas().equals(before)


def test_no_one_is_shared_where_nobody_speaks_two_languages(tmp_path):
    root = common_voice_folder(tmp_path / "cv", ["da", "en"], n_speakers=1, n_clips=1, seconds=0.3)
    table = corpora.shared_speakers(common_voice_params(root, shared_languages=("da", "en")))
    assert table.empty and tuple(table.columns) == COLUMNS
    corpus = common_voice.load(root, ["da", "en"])
    assert len(corpora.without_speakers(corpus, table["speaker"])) == len(corpus)


@pytest.mark.skipif(not REAL_MINI.is_dir(), reason="../shared/corpora/real-mini is absent")
def test_danish_and_english_share_seven_people_in_real_speech():
    params = common_voice_params(REAL_MINI, shared_languages=("da", "en"))
    table = corpora.shared_speakers(params)
    assert table["speaker"].nunique() == 7
    assert (table.groupby("speaker")["language"].nunique() == 2).all()
    corpus = corpora.from_params(params)
    rest = corpora.without_speakers(corpus, table["speaker"]).to_pandas()
    assert not set(rest["speaker"]) & set(table["speaker"]) and len(rest) + len(table) == len(corpus)
    assert (rest.groupby("speaker")["language"].nunique() == 1).all()


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
