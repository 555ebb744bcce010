import math
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cltmlib.corpora import COLUMNS, common_voice, from_rows
from cltmlib.errors import InputError
from cltmlib.subsets import ByClass, BySpeaker, draw_subsets, draw_trials, largest_n_samples, prepare, test_set
from cltmlib.testing import break_clip, common_voice_folder, utterance_rows

REAL_MINI = Path(__file__).parents[2] / "shared/corpora/real-mini"
LANGUAGES = ["de", "no", "ta"]


@st.composite
def corpora(draw):
    """Corpora with any number of clips per speaker, speakers shared by languages, and test speakers seen in train."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_speakers, most_clips = draw(st.integers(4, 10)), draw(st.integers(1, 6))
    rows = []
    for language in LANGUAGES:
        for split in ("train", "test"):
            for number in range(n_speakers * 2):
                shared = generator.random() < 0.15
                owner = "any" if shared else f"{language}_{split if generator.random() < 0.9 else 'train'}"
                for clip in range(generator.integers(1, most_clips + 1)):
                    gender = ("female", "male")[number % 2]
                    name = f"{language}/{split}_{number}_{clip}"
                    rows.append((name, name, language, f"{owner}_{number}", gender, "", "", split, 1.0))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@settings(max_examples=25, deadline=None)
@given(rows=corpora(), seed=st.integers(0, 1000), share=st.floats(0.01, 1))
def test_draws_are_balanced_and_speaker_disjoint(rows, seed, share):
    largest = largest_n_samples(rows, LANGUAGES)
    assume(largest >= 1)
    n_samples = max(1, round(share * largest))
    try:
        subsets = draw_subsets(rows, LANGUAGES, n_samples, seed)
    except InputError as error:  # the number may lack a suitable divisor, but then not the largest
        assert n_samples < largest and "n_samples=" in str(error)
        return
    assert subsets == draw_subsets(rows.sample(frac=1, random_state=seed), LANGUAGES, n_samples, seed)
    table = rows.set_index("utterance_id")
    spoken_by, shapes = [], set()
    for language in LANGUAGES:
        for names in subsets[language]:
            part = table.loc[list(names)]
            assert set(part["language"]) == {language} and set(part["split"]) == {"train"} and part.index.is_unique
            assert part["gender"].value_counts().to_dict() == {"female": n_samples, "male": n_samples}
            clips_of = part.groupby("speaker").size()
            shapes.add((len(clips_of), *set(clips_of)))
            spoken_by += list(clips_of.index)
    assert len(spoken_by) == len(set(spoken_by))  # no speaker in two subsets, whatever the language
    assert len(shapes) == 1  # the same number of speakers and of clips per speaker everywhere
    assert not set(spoken_by) & set(rows.loc[rows["split"] == "test", "speaker"])


@settings(max_examples=12, deadline=None)
@given(rows=corpora())
def test_one_more_than_the_largest_number_of_samples_fails(rows):
    largest = largest_n_samples(rows, LANGUAGES)
    if largest:
        draw_subsets(rows, LANGUAGES, largest, 0)
    for n_samples in range(largest + 1, largest + 4):
        with pytest.raises(InputError, match=r"Language '\w+' has too little data"):
            draw_subsets(rows, LANGUAGES, n_samples, 0)


def test_seeds_draw_different_subsets():
    rows = utterance_rows(["de"], n_speakers=20, n_clips=5)
    assert len({draw_subsets(rows, ["de"], 6, seed)["de"] for seed in range(10)}) == 10


def test_dataset_and_table_give_the_same_draw():
    rows = utterance_rows(LANGUAGES)
    assert draw_subsets(from_rows(rows), LANGUAGES, 2, 0) == draw_subsets(rows, LANGUAGES, 2, 0)


def test_adding_a_language_or_removing_a_clip_leaves_the_other_draws():
    rows = utterance_rows(LANGUAGES, n_speakers=12, n_clips=4)
    alone = draw_subsets(rows, ["de"], 8, 1, samples_per_speaker=2)["de"]
    assert draw_subsets(rows, LANGUAGES, 8, 1, samples_per_speaker=2)["de"] == alone
    gone = alone.first[3]
    rest = draw_subsets(rows[rows["utterance_id"] != gone], ["de"], 8, 1, samples_per_speaker=2)["de"]
    assert set(alone.first) - set(rest.first) == {gone} and rest.second == alone.second


def test_subset_of_a_larger_number_contains_that_of_a_smaller_one():
    rows = utterance_rows(["de"], n_speakers=12, n_clips=4)
    small, large = (draw_subsets(rows, ["de"], n, 1, samples_per_speaker=2)["de"] for n in (4, 12))
    assert set(small.first) < set(large.first) and set(small.second) < set(large.second)


def test_as_many_speakers_as_the_poorest_language_allows_are_used():
    rows = utterance_rows(["de", "no"], n_speakers=12, n_clips=6)
    few = rows["speaker"].str.extract(r"(\d+)$")[0].astype(int) < 4
    rows = rows[(rows["language"] == "de") | few]
    speaker_of = rows.set_index("utterance_id")["speaker"]
    for languages, n_speakers in [(["de"], 12), (["de", "no"], 4)]:
        first = draw_subsets(rows, languages, 6, 0)["de"].first
        assert len(set(speaker_of[list(first)])) == n_speakers


def test_shared_speaker_goes_to_the_language_with_fewest():
    rows = utterance_rows(["da", "en"], n_speakers=4, n_clips=1, splits=["train"])
    rows["speaker"] = rows["speaker"].str.replace("en_train_female0", "da_train_female0")
    rows = rows[rows["speaker"] != "da_train_female3"]
    subsets = draw_subsets(rows, ["da", "en"], 1, 0)
    speaker_of = rows.set_index("utterance_id")["speaker"]
    with pytest.raises(InputError, match=r"'da' .* 3 usable female"):
        draw_subsets(rows, ["da", "en"], 2, 0)
    used = [speaker_of[name] for pair in subsets.values() for part in pair for name in part]
    assert len(set(used)) == len(used) == 8


def test_speaker_with_two_classes_is_not_used():
    rows = utterance_rows(["de"], n_speakers=2, n_clips=2)
    rows.loc[0, "gender"] = "male"
    with pytest.raises(InputError, match="1 usable female"):
        draw_subsets(rows, ["de"], 1, 0)
    rows = utterance_rows(["de"], n_speakers=2, n_clips=2)
    test_rows = rows.index[rows["split"] == "test"]
    rows.loc[test_rows[0], "gender"] = "male"
    assert len(test_set(rows, ["de"])["de"]) == 6


def test_too_little_data_names_the_language_what_it_has_and_what_would_do():
    rows = utterance_rows(["de", "no"], n_speakers=6, n_clips=3)
    rows = rows[~((rows["speaker"].str.startswith("no_train_male")) & (rows["speaker"].str[-1] > "2"))]
    with pytest.raises(InputError) as caught:
        draw_subsets(rows, ["de", "no"], 9, 0)
    assert str(caught.value) == (
        "Language 'no' has too little data for n_samples=9: its train split has 3 usable male speakers with 9 clips, "
        "3 of them with 3 or more, but D and D' need 6 male speakers with 3 clips each; "
        "n_samples=3 is the most that all the languages allow."
    )
    with pytest.raises(InputError, match=r"'xx' .* 0 usable female speakers .* leave this language out"):
        draw_subsets(rows, ["de", "xx"], 9, 0)
    with pytest.raises(InputError, match="the second divides the first"):
        draw_subsets(rows, ["de"], 9, 0, samples_per_speaker=2)
    with pytest.raises(InputError, match="each once"):
        draw_subsets(rows, ["de", "de"], 1, 0)


def test_languages_that_suit_no_common_number_per_speaker_are_named():
    rows = utterance_rows(["de", "no"], n_speakers=12, n_clips=6, splits=["train"])
    number, clip = rows["speaker"].str.extract(r"(\d+)$")[0].astype(int), rows["utterance_id"].str[-1].astype(int)
    rows = rows[((rows["language"] == "de") & (clip == 0)) | ((rows["language"] == "no") & (number < 2))]
    assert [largest_n_samples(rows, [language]) for language in ("de", "no")] == [6, 6]
    with pytest.raises(InputError, match="n_samples=1 is the most"):
        draw_subsets(rows, ["de", "no"], 6, 0)


def test_test_set_is_capped_with_as_many_speakers_as_possible():
    rows = utterance_rows(["de"], n_speakers=4, n_clips=5)
    table = rows.set_index("utterance_id")
    assert len(test_set(rows, ["de"])["de"]) == 40
    for cap, n_speakers in [(3, 3), (4, 4), (6, 4)]:
        part = table.loc[list(test_set(rows, ["de"], cap)["de"])]
        assert part["gender"].value_counts().to_dict() == {"female": cap, "male": cap}
        assert set(part["split"]) == {"test"} and part["speaker"].nunique() == 2 * n_speakers
    assert test_set(rows, ["de"], 6) == test_set(rows, ["de"], 6) != test_set(rows, ["de"], 6, seed=1)


def test_test_set_without_a_class_is_refused():
    rows = utterance_rows(["de"])
    with pytest.raises(InputError, match="'de' has no test clip with gender 'male'"):
        test_set(rows[(rows["gender"] == "female") | (rows["split"] == "train")], ["de"])


def test_any_column_can_be_the_class():
    rows = utterance_rows(["de"]).assign(accent=lambda table: "accent " + table["speaker"].str[-1])
    classes = ["accent 0", "accent 3"]
    first = draw_subsets(rows, ["de"], 1, 0, classes=classes, class_column="accent")["de"].first
    assert sorted(rows.set_index("utterance_id").loc[list(first), "accent"]) == classes


def clips_per_speaker(rows, names):
    """{gender: Counter of clips per speaker} of some clips."""
    part = rows.set_index("utterance_id").loc[list(names)]
    return {gender: Counter(of.groupby("speaker").size()) for gender, of in part.groupby("gender")}


@settings(max_examples=25, deadline=None)
@given(rows=corpora(), seed=st.integers(0, 1000), sizes=st.sets(st.integers(1, 16), min_size=1, max_size=4))
def test_sets_of_a_learning_curve_are_nested_and_have_the_same_clips_per_speaker(rows, seed, sizes):
    sizes = sorted(sizes)
    try:
        curves = ByClass().curves(rows, LANGUAGES, sizes, [seed])[seed]
    except InputError:
        return  # below it is checked that this is right
    assert curves == ByClass().curves(rows.sample(frac=1, random_state=seed), LANGUAGES, sizes, [seed])[seed]
    test_speakers = set(rows.loc[rows["split"] == "test", "speaker"])
    speaker_of = rows.set_index("utterance_id")["speaker"]
    found = set()
    for language in LANGUAGES:
        sets = list(curves[language].items())
        assert [n for n, _ in sets] == sizes
        for (n, small), (m, large) in pairwise(sets):
            assert n < m and set(small) < set(large)
        for n, names in sets:
            shares = clips_per_speaker(rows, names)
            assert {sum(k * count for k, count in share.items()) for share in shares.values()} == {n}
            found |= {k for share in shares.values() for k in share}
            assert len(shares) == 2 and not set(speaker_of[list(names)]) & test_speakers
            assert all(name.startswith(f"{language}/train") for name in names)
    assert len(found) == 1, "the number of clips per speaker differs between sizes, languages or genders"


@settings(max_examples=25, deadline=None)
@given(
    rows=corpora(),
    sizes=st.sets(st.integers(1, 24), min_size=1, max_size=4),
    wanted=st.sampled_from([None, 1, 2, 3]),
)
def test_a_learning_curve_that_is_refused_says_which_largest_size_works_and_it_does(rows, sizes, wanted):
    sizes = sorted(size * (wanted or 1) for size in sizes)

    def works(sizes):
        try:
            ByClass(wanted).curves(rows, LANGUAGES, sizes, [0])
        except InputError:
            return False
        return True

    try:
        ByClass(wanted).curves(rows, LANGUAGES, sizes, [0])
    except InputError as error:
        message = str(error)
        assert re.match(rf"Language '(de|no|ta)' has too little data for n_samples={sizes[-1]}: ", message)
        assert ", but D needs " in message and "\n" not in message
        advice = re.search(r"n_samples=(\d+) is the most that all the languages allow", message)
        if advice:
            most = int(advice[1])
            kept = [size for size in sizes if size < most]
            assert most < sizes[-1] and works([*kept, most])
            larger = range(most + 1, sizes[-1] + 1)
            if len(sizes) > 1:  # clips per speaker divide all sizes; without some sizes more may be possible
                larger = [n for n in larger if math.gcd(*kept, n) == math.gcd(*sizes)]
            assert not any(works([*kept, n]) for n in larger)
        else:
            assert message.endswith("leave this language out.") and not works([wanted or 1])


def test_sizes_that_the_clips_per_speaker_do_not_divide_are_refused():
    rows = utterance_rows(["de"], n_speakers=12, n_clips=4)
    assert ByClass(2).curves(rows, ["de"], [2, 4, 6], [0])
    for sizes in ([2, 4, 5], [0, 4], []):
        with pytest.raises(InputError, match="do not fit"):
            ByClass(2).curves(rows, ["de"], sizes, [0])


def test_a_learning_curve_gives_way_to_fewer_speakers_at_every_size_alike():
    """16 clips need 8 speakers of 2 clips where only 8 are there, so 4 clips come from 2 speakers and not from 4."""
    rows = utterance_rows(["de"], n_speakers=8, n_clips=5)
    curves = ByClass().curves(rows, ["de"], [4, 8, 16], [0])[0]["de"]
    for n, names in curves.items():
        assert clips_per_speaker(rows, names) == {"female": {2: n // 2}, "male": {2: n // 2}}
    assert clips_per_speaker(rows, ByClass().curves(rows, ["de"], [4, 8], [0])[0]["de"][4])["male"] == {1: 4}


def test_preparing_several_sizes_gives_the_sets_of_the_learning_curve(tmp_path):
    root = common_voice_folder(tmp_path / "cv", ["de"], n_speakers=4, n_clips=2, seconds=0.6)
    corpus = common_voice.load(root, ["de"])
    design = ByClass(max_test_samples=3)
    data = prepare(corpus, ["de"], (1, 2, 4), [0, 1], tmp_path / "store", design)
    assert data.subsets == design.curves(corpus.to_pandas(), ["de"], (1, 2, 4), [0, 1])
    assert data.summary().loc["de"].to_dict() == {
        "D(1) clips": 2, "D(1) speakers": 2, "D(2) clips": 4, "D(2) speakers": 4, "D(4) clips": 8, "D(4) speakers": 8,
        "test clips": 6, "test speakers": 6,
    }  # fmt: skip
    pair = prepare(corpus, ["de"], 2, [0, 1], tmp_path / "store", design)
    assert pair.subsets[1] == draw_subsets(corpus, ["de"], 2, 1) and pair.tests == data.tests


def test_without_a_design_sets_are_by_class(tmp_path):
    root = common_voice_folder(tmp_path / "cv", ["de"], n_speakers=2, n_clips=1, seconds=0.6)
    corpus = common_voice.load(root, ["de"])
    data = prepare(corpus, ["de"], 1, [0], tmp_path / "store")
    assert data.subsets[0] == draw_subsets(corpus, ["de"], 1, 0) and data.tests == test_set(corpus, ["de"])


def test_preparing_replaces_broken_clips_and_keeps_every_set_whole(tmp_path):
    root = common_voice_folder(tmp_path / "cv", ["de", "no"], n_speakers=5, n_clips=3)
    corpus = common_voice.load(root, ["de", "no"])
    whole = prepare(corpus, ["de", "no"], 4, [0, 1], tmp_path / "whole", ByClass(2, 4))
    assert whole.skipped.empty
    drawn = [whole.subsets[0]["de"].first[0], whole.subsets[1]["no"].second[-1], whole.tests["de"][0]]
    paths = whole.utterances.loc[drawn, "path"]
    for path, kind in zip(paths, ["corrupt", "silent", "empty"], strict=True):
        break_clip(path, kind)
    for store_directory in ("new", "new", "whole"):  # a store that knows the broken clips already draws the same
        prepared = prepare(corpus, ["de", "no"], 4, [0, 1], tmp_path / store_directory, ByClass(2, 4))
        assert sorted(prepared.skipped["utterance_id"]) == sorted(drawn)
        used = {name for of in prepared.subsets.values() for pair in of.values() for part in pair for name in part}
        used.update(*prepared.tests.values())
        assert not used & set(drawn) and set(prepared.utterances.index) == used
        assert all(name in prepared.store for name in used)
        sizes = {len(part) for of in prepared.subsets.values() for pair in of.values() for part in pair}
        assert sizes == {8} and {len(names) for names in prepared.tests.values()} == {8}
        if store_directory == "new":
            expected = (prepared.subsets, prepared.tests)
    assert (prepared.subsets, prepared.tests) == expected


def test_too_many_broken_clips_are_said_to_be_the_reason(tmp_path):
    root = common_voice_folder(tmp_path / "cv", ["de"], n_speakers=2, n_clips=1)
    for path in (root / "de/clips").glob("de_train_male0*"):
        break_clip(path, "corrupt")
    corpus = common_voice.load(root, ["de"])
    with pytest.raises(InputError, match=r"too little data .* after leaving out 1 unusable .*de_train_male0_0.wav"):
        prepare(corpus, ["de"], 1, [0], tmp_path / "store")


@pytest.mark.skipif(not REAL_MINI.is_dir(), reason="../shared/corpora/real-mini is absent")
def test_real_speech_gives_balanced_subsets(tmp_path):
    languages = ["am", "de", "en", "ko", "pl", "th"]
    corpus = common_voice.load(REAL_MINI, languages)
    assert largest_n_samples(corpus, languages) == 10
    prepared = prepare(corpus, languages, 10, [0], tmp_path / "store", ByClass(max_test_samples=5), max_seconds=1.0)
    speakers = prepared.utterances["speaker"]
    for language in languages:
        first, second = prepared.subsets[0][language]
        assert len(first) == len(second) == 20
        assert not set(speakers[list(first)]) & set(speakers[list(second)])
    assert prepared.skipped.empty and prepared.store.duration_s(prepared.utterances.index).max() == 1.0


@pytest.mark.skipif(not REAL_MINI.is_dir(), reason="../shared/corpora/real-mini is absent")
def test_real_speech_gives_sets_of_speakers_and_trials(tmp_path):
    languages = ["am", "ko", "th"]  # those with three of each gender to train on and two to test on
    corpus = common_voice.load(REAL_MINI, languages)
    data = prepare(corpus, languages, 4, [0], tmp_path / "store", BySpeaker(0.5, 8), max_seconds=1.0)
    speakers = data.utterances["speaker"]
    for language in languages:
        first, second = (set(speakers[list(part)]) for part in data.subsets[0][language])
        assert len(first) == len(second) == 2 and not first & second
        assert not (first | second) & set(speakers[list(data.tests[language])])
        trials = draw_trials(data.utterances.loc[list(data.tests[language])].to_dict("records"), language)
        assert trials.groupby("gender")["same_speaker"].mean().to_dict() == {"female": 0.5, "male": 0.5}
