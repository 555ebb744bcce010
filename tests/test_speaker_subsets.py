"""Sets of speaker verification: how many clips of how many speakers, apart from each other, and enough to test on."""

import math
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cltmlib.corpora import COLUMNS, common_voice
from cltmlib.errors import InputError
from cltmlib.subsets import BySpeaker, draw_trials, prepare
from cltmlib.testing import break_clip, common_voice_folder, utterance_rows

LANGUAGES = ["de", "no"]


def corpus_of(clips, test_clips=(3, 3), language="de"):
    """Rows from clips per speaker of the train split, {gender: [n, ...]}, and of test speakers of either gender."""
    rows = []
    for split, of_gender in (("train", clips), ("test", dict.fromkeys(("female", "male"), test_clips))):
        for gender, counts in of_gender.items():
            for number, n in enumerate(counts):
                speaker = f"{language}_{split}_{gender}{number}"
                for clip in range(n):
                    name = f"{language}/{speaker}_{clip}"
                    rows.append((name, name, language, speaker, gender, "", "", split, 1.0))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@st.composite
def corpora(draw):
    """Two languages, speakers with one to eight clips, some in both languages and some of the train split in test."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    most = draw(st.integers(1, 8))
    parts = []
    for language in LANGUAGES:
        clips = {gender: rng.integers(1, most + 1, rng.integers(1, 12)) for gender in ("female", "male")}
        part = corpus_of(clips, language=language)
        part["speaker"] = [
            speaker.replace(f"{language}_train", "any") if speaker[-1] in "29" and "train" in speaker else speaker
            for speaker in part["speaker"]
        ]
        seen = (part["split"] == "test") & part["speaker"].str.endswith("0")
        part.loc[seen, "speaker"] = part.loc[seen, "speaker"].str.replace("test", "train")
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


SHARES = st.sampled_from([0.0125, 0.1, 0.25, 0.3, 0.5, 1.0])


@pytest.mark.parametrize(
    ("share", "n_samples", "expected"),
    [(0.0125, 1000, 13), (0.0125, 2000, 25), (0.0125, 80, 1), (0.0125, 81, 2), (0.1, 30, 3), (0.3, 10, 3), (1.0, 7, 7)],
)
def test_number_of_speakers_is_the_share_of_the_clips_rounded_up(share, n_samples, expected):
    """0.1 * 30 and 0.3 * 10 are not quite whole in binary; rounding up must not make a fourth speaker of that."""
    assert BySpeaker(share).n_speakers(n_samples) == expected


def test_a_thousand_clips_are_of_13_speakers_as_in_the_authors_code():
    rows = corpus_of({"female": [90] * 14, "male": [90] * 14})
    speaker_of = rows.set_index("utterance_id")["speaker"]
    first, second = BySpeaker(0.0125).subsets(rows, ["de"], 1000, [0])[0]["de"]
    shares = [Counter(speaker_of[list(part)]) for part in (first, second)]
    for share in shares:
        assert sorted(share.values()) == [76] * 1 + [77] * 12  # 13 * 76 + 12 = 1000
    assert not set(shares[0]) & set(shares[1])


@settings(max_examples=40, deadline=None)
@given(rows=corpora(), share=SHARES, n_samples=st.integers(1, 24), seed=st.integers(0, 99))
def test_sets_have_the_size_asked_for_in_equal_shares_of_speakers_who_are_nowhere_else(rows, share, n_samples, seed):
    design = BySpeaker(share)
    try:
        subsets = design.subsets(rows, LANGUAGES, n_samples, [seed])[seed]
    except InputError:
        return  # below it is checked that this is right
    again = design.subsets(rows.sample(frac=1, random_state=seed), LANGUAGES, n_samples, [seed])[seed]
    assert subsets == again and list(subsets) == LANGUAGES
    table = rows.set_index("utterance_id")
    spoken_by = []
    for language in LANGUAGES:
        for names in subsets[language]:
            part = table.loc[list(names)]
            assert part.index.is_unique and list(names) == sorted(names) and len(names) == n_samples
            assert set(part["language"]) == {language} and set(part["split"]) == {"train"}
            shares = part.groupby("speaker").size()
            assert len(shares) == math.ceil(round(share * n_samples, 9)) and shares.max() - shares.min() <= 1
            spoken_by += list(shares.index)
    assert len(spoken_by) == len(set(spoken_by)), "a speaker is in two sets"
    assert not set(spoken_by) & set(rows.loc[rows["split"] == "test", "speaker"])


@settings(max_examples=25, deadline=None)
@given(rows=corpora(), share=SHARES, sizes=st.sets(st.integers(2, 24), min_size=1, max_size=3), curve=st.booleans())
def test_what_is_refused_says_which_number_works_and_it_does(rows, share, sizes, curve):
    """Of a learning curve it is the largest size, with the smaller ones as they are."""
    design = BySpeaker(share)
    sizes = sorted(sizes) if curve else [max(sizes)]

    def draw(sizes):
        if curve:
            return design.curves(rows, LANGUAGES, sizes, [0])
        return design.subsets(rows, LANGUAGES, sizes[-1], [0])

    def works(n):
        try:
            draw([*(size for size in sizes if size < n), n])
        except InputError:
            return False
        return True

    try:
        draw(sizes)
    except InputError as error:
        message = str(error)
        assert "\n" not in message and message.endswith(".")
        if design.n_speakers(sizes[0]) < 2:
            assert f"n_samples={sizes[0]} and speakers_per_sample={share:g}" in message
            return
        assert re.match(rf"Language '(de|no)' has too little data for n_samples={sizes[-1]}: ", message)
        able, needed = map(int, re.search(r"(\d+) of them with .* needs? (\d+) speakers", message).groups())
        assert able < needed
        found = re.search(r"n_samples=(\d+) is the most that all the languages allow", message)
        if found:
            best = int(found[1])
            assert best < sizes[-1] and works(best) and not any(map(works, range(best + 1, sizes[-1])))
        else:
            assert message.endswith("leave this language out.") and not any(map(works, range(2, sizes[-1])))


def test_too_little_data_names_the_language_what_it_has_and_what_would_do():
    rows = pd.concat(
        [utterance_rows(["de"], n_speakers=6, n_clips=4), corpus_of({"female": [4, 3], "male": [2]}, language="no")]
    )
    with pytest.raises(InputError) as caught:
        BySpeaker(0.5).subsets(rows, ["de", "no"], 8, [0])
    assert str(caught.value) == (
        "Language 'no' has too little data for n_samples=8: its train split has 3 usable speakers with 9 clips, 3 of "
        "them with 2 or more, but D and D' need 8 speakers with 2 clips each (speakers_per_sample=0.5); leave this "
        "language out."
    )
    with pytest.raises(InputError, match=r"but D needs 4 speakers .*; n_samples=6 is the most that all"):
        BySpeaker(0.5).curves(rows, ["de", "no"], [4, 8], [0])


@pytest.mark.parametrize(("share", "n_samples", "n_speakers"), [(0.0125, 8, 1), (0.1, 10, 1), (0.5, 0, 0)])
def test_too_few_speakers_to_tell_apart_are_said(share, n_samples, n_speakers):
    rows = utterance_rows(["de"], n_speakers=6, n_clips=6)
    for draw in (
        lambda design: design.subsets(rows, ["de"], n_samples, [0]),
        lambda design: design.curves(rows, ["de"], [n_samples], [0]),
    ):
        with pytest.raises(InputError, match=rf"speakers_per_sample={share:g} put {n_speakers} speaker into D: raise"):
            draw(BySpeaker(share))


def test_more_speakers_than_clips_are_refused():
    rows = utterance_rows(["de"], n_speakers=12, n_clips=6)
    with pytest.raises(InputError, match=r"speakers_per_sample.* is 1\.5"):
        BySpeaker(1.5).subsets(rows, ["de"], 6, [0])


@pytest.mark.parametrize(
    ("n_female", "n_male", "mix"),
    [
        (6, 9, {"female": 4, "male": 4}),
        (3, 9, {"female": 2, "male": 6}),
        (1, 9, {"male": 8}),
        (4, 4, {"female": 4, "male": 4}),
        (9, 2, {"female": 6, "male": 2}),
    ],
)  # fmt: skip
def test_both_sets_have_the_same_mix_of_genders_as_even_as_it_can_be(n_female, n_male, mix):
    rows = corpus_of({"female": [4] * n_female, "male": [4] * n_male})
    gender_of = rows.set_index("utterance_id")["gender"]
    for seed in range(10):
        for part in BySpeaker(0.5).subsets(rows, ["de"], 8, [seed])[seed]["de"]:
            assert gender_of[list(part)].value_counts().to_dict() == mix


def test_an_odd_number_of_each_gender_makes_a_difference_of_one_person_and_wastes_nobody():
    rows = corpus_of({"female": [4] * 3, "male": [4] * 3})
    first, second = BySpeaker(0.5).subsets(rows, ["de"], 6, [0])[0]["de"]
    gender_of = rows.set_index("utterance_id")["gender"]
    assert gender_of[list(first)].value_counts().to_dict() == {"female": 4, "male": 2}
    assert gender_of[list(second)].value_counts().to_dict() == {"female": 2, "male": 4}


def test_a_speaker_with_too_few_clips_for_the_largest_size_is_in_no_set_of_a_curve():
    """Else the larger set would have other speakers, and the curve would rise or fall with them."""
    rows = corpus_of({"female": [3, 3, 3, 4, 4, 4], "male": [3, 3, 3, 4, 4, 4]})  # shares of 3 and of 4
    for seed in range(10):
        curve = BySpeaker(0.26).curves(rows, ["de"], [8, 15], [seed])[seed]["de"]
        assert set(curve[8]) < set(curve[15])


@settings(max_examples=40, deadline=None)
@given(
    n_female=st.integers(0, 12), n_male=st.integers(0, 12), n_speakers=st.integers(2, 8), n_sets=st.sampled_from([1, 2])
)
def test_half_of_the_speakers_are_women_or_one_gender_has_no_more_for_every_set(n_female, n_male, n_speakers, n_sets):
    rows = corpus_of({"female": [2] * n_female, "male": [2] * n_male})
    design, n_samples = BySpeaker(0.5), 2 * n_speakers
    try:
        if n_sets == 2:
            sets = design.subsets(rows, ["de"], n_samples, [0])[0]["de"]
        else:
            sets = design.curves(rows, ["de"], [n_samples], [0])[0]["de"].values()
    except InputError:
        assert n_female + n_male < n_sets * n_speakers
        return
    table = rows.set_index("utterance_id")
    mixes = [Counter(table.loc[list(names)].drop_duplicates("speaker")["gender"]) for names in sets]
    n_women, n_men = mixes[0]["female"], mixes[0]["male"]
    assert n_women + n_men == n_speakers
    if n_female // n_sets + n_male // n_sets < n_speakers:  # only with an odd one of each gender are there enough
        assert n_sets == 2 and mixes[1] == Counter({"female": n_women - 1, "male": n_men + 1})
        return
    assert all(mix == mixes[0] for mix in mixes)
    if n_women - n_men not in (0, 1):
        assert (n_women == n_female // n_sets) if n_women < n_men else (n_men == n_male // n_sets)


def test_seeds_draw_other_speakers_and_other_clips_of_them():
    rows = utterance_rows(["de"], n_speakers=8, n_clips=9)
    speaker_of = rows.set_index("utterance_id")["speaker"]
    draws = BySpeaker(0.5).subsets(rows, ["de"], 8, range(10))
    firsts = [draws[seed]["de"].first for seed in range(10)]
    assert len(set(firsts)) == 10 and len({frozenset(speaker_of[list(names)]) for names in firsts}) > 5


@settings(max_examples=30, deadline=None)
@given(
    pairs=st.integers(1, 3), share=st.integers(1, 4), seed=st.integers(0, 99), spare=st.integers(0, 3),
    counts=st.lists(st.integers(0, 9), max_size=6),
)  # fmt: skip
def test_twice_the_clips_are_the_clips_of_both_sets_where_shares_and_genders_are_equal(
    pairs, share, seed, spare, counts
):
    """The training of the learning curve at 2N is the one of the matrix, D_i + D'_i."""
    n_samples, design = 2 * pairs * share, BySpeaker(1 / share)
    rows = corpus_of({"female": [share + spare] * 2 * pairs + counts, "male": [share] * 2 * pairs + counts[::-1]})
    first, second = design.subsets(rows, ["de"], n_samples, [seed])[seed]["de"]
    curve = design.curves(rows, ["de"], [n_samples, 2 * n_samples], [seed])[seed]["de"]
    assert curve[n_samples] == first
    assert curve[2 * n_samples] == tuple(sorted(first + second))
    assert not set(first) & set(second)


def test_learning_curves_are_nested_where_shares_are_equal():
    rows = utterance_rows(LANGUAGES, n_speakers=20, n_clips=6)
    curves = BySpeaker(0.25).curves(rows, LANGUAGES, [8, 16, 32, 64, 128], [0, 1])
    speaker_of = rows.set_index("utterance_id")["speaker"]
    for seed in (0, 1):
        for language in LANGUAGES:
            sets = list(curves[seed][language].items())
            for (n, small), (_, large) in pairwise(sets):
                assert len(small) == n and set(small) < set(large)
                assert set(Counter(speaker_of[list(large)]).values()) == {4}
    assert curves[0]["de"] != curves[1]["de"]


# --- Test sets


@st.composite
def test_rows(draw):
    counts = {
        gender: draw(st.lists(st.integers(1, 9), min_size=2, max_size=9).filter(lambda c: max(c) > 1))
        for gender in ("female", "male")
    }
    rows = [
        (f"de/{gender}{number}_{clip}", "", "de", f"{gender}{number}", gender, "", "", "test", 1.0)
        for gender, clips in counts.items()
        for number, n in enumerate(clips)
        for clip in range(n)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


test_rows.__test__ = False


@settings(max_examples=50, deadline=None)
@given(rows=test_rows(), most=st.integers(4, 40))
def test_a_capped_test_set_keeps_pairs_of_clips_of_as_many_speakers_as_it_can(rows, most):
    design = BySpeaker(max_test_samples=most)
    names = design.tests(rows, ["de"])["de"]
    assert names == design.tests(rows.sample(frac=1, random_state=1), ["de"])["de"]
    table = rows.set_index("utterance_id")
    part = table.loc[list(names)]
    assert part.index.is_unique
    for gender in ("female", "male"):
        all_of = table[table["gender"] == gender].groupby("speaker").size()
        kept = part[part["gender"] == gender].groupby("speaker").size()
        assert kept.sum() <= most
        if all_of.sum() <= most:
            assert kept.equals(all_of)
            continue
        assert (kept[all_of[kept.index] > 1] > 1).all(), "a speaker who has two clips kept one"
        with_two = int((all_of > 1).sum())
        assert (kept > 1).sum() == min(with_two, most // 2)
        if with_two >= most // 2:
            assert (kept > 1).all(), "a single clip took the place of two"
    draw_trials(part.to_dict("records"), "de")


def test_a_capped_test_set_is_balanced_by_gender_and_spreads_over_speakers():
    rows = utterance_rows(["de"], n_speakers=5, n_clips=6, splits=["test"])
    table = rows.set_index("utterance_id")
    for most, per_speaker in [(4, {2: 2}), (10, {2: 5}), (12, {2: 4, 4: 1}), (20, {4: 5}), (29, {6: 4, 5: 1})]:
        part = table.loc[list(BySpeaker(max_test_samples=most).tests(rows, ["de"])["de"])]
        for _, of_gender in part.groupby("gender"):
            assert len(of_gender) == most
            assert Counter(of_gender.groupby("speaker").size()) == per_speaker
    assert len(BySpeaker(max_test_samples=30).tests(rows, ["de"])["de"]) == 60
    assert len(BySpeaker().tests(rows, ["de"])["de"]) == 60


def test_single_clips_give_way_in_a_capped_test_set():
    rows = corpus_of({}, test_clips=(1, 1, 1, 3, 3, 1))
    names = BySpeaker(max_test_samples=4).tests(rows, ["de"])["de"]
    speakers = rows.set_index("utterance_id").loc[list(names), "speaker"]
    assert {speaker[-1] for speaker in speakers} == {"3", "4"} and len(names) == 8


def test_a_cap_too_small_for_trials_is_refused():
    rows = utterance_rows(["de"], n_speakers=3, n_clips=3)
    for most in (1, 2, 3):
        with pytest.raises(InputError, match=f"max_test_samples is {most}; two speakers of a gender need 4 clips"):
            BySpeaker(max_test_samples=most).tests(rows, ["de"])


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (lambda rows: rows["gender"] == "male", "'no' has 0 male speakers to test on"),
        (lambda rows: rows["gender"] == "female", "'no' has 0 female speakers to test on"),
        (lambda rows: rows["speaker"].str[-1] != "0", "'no' has 1 female speaker to test on"),
        (lambda rows: ~rows["utterance_id"].str.endswith("_0"), "'no' has 4 female speakers, none of whom has two"),
        (lambda rows: rows["speaker"].notna(), "'no' has 0 female speakers to test on"),
    ],
)
def test_a_test_split_without_trials_is_refused_by_language(drop, message):
    rows = utterance_rows(["de", "no"], n_speakers=4, n_clips=3)
    rows = rows[~((rows["language"] == "no") & (rows["split"] == "test") & drop(rows))]
    design = BySpeaker(0.5)
    assert design.subsets(rows, ["de", "no"], 4, [0]) and design.tests(rows, ["de"])
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        design.tests(rows, ["de", "no"])
    assert str(caught.value).endswith("leave this language out.")


def test_rows_without_speaker_or_gender_are_neither_drawn_nor_tested():
    rows = utterance_rows(["de"], n_speakers=4, n_clips=4)
    rows.loc[rows["speaker"].str.endswith("0"), "speaker"] = None
    rows.loc[rows["speaker"].str.endswith("1", na=False), "gender"] = None
    table = rows.set_index("utterance_id")
    design = BySpeaker(0.5)
    drawn = [name for part in design.subsets(rows, ["de"], 4, [0])[0]["de"] for name in part]
    for names in (drawn, design.tests(rows, ["de"])["de"]):
        assert table.loc[list(names), ["speaker", "gender"]].notna().all(axis=None)
    with pytest.raises(InputError, match=r"2 usable|4 usable"):
        design.subsets(rows, ["de"], 8, [0])


# --- Preparing


def test_preparing_a_learning_curve_decodes_its_clips_and_replaces_broken_ones(tmp_path):
    root = common_voice_folder(tmp_path / "cv", ["de"], n_speakers=4, n_clips=3, seconds=0.6)
    corpus = common_voice.load(root, ["de"])
    design = BySpeaker(0.5, max_test_samples=6)
    whole = prepare(corpus, ["de"], (4, 8), [0, 1], tmp_path / "whole", design)
    assert [len(whole.subsets[0]["de"][n]) for n in (4, 8)] == [4, 8] and len(whole.tests["de"]) == 12
    broken = [whole.subsets[0]["de"][4][0], whole.tests["de"][0]]
    for path in whole.utterances.loc[broken, "path"]:
        break_clip(path, "silent")
    data = prepare(corpus, ["de"], (4, 8), [0, 1], tmp_path / "new", design)
    assert sorted(data.skipped["utterance_id"]) == sorted(broken)
    used = {name for of in data.subsets.values() for names in of["de"].values() for name in names}
    used.update(data.tests["de"])
    assert not used & set(broken) and set(data.utterances.index) == used
    assert all(name in data.store for name in used)
    assert {len(data.subsets[seed]["de"][8]) for seed in (0, 1)} == {8} and len(data.tests["de"]) == 12
    assert data.summary().loc["de"].to_dict() == {
        "D(4) clips": 4, "D(4) speakers": 2, "D(8) clips": 8, "D(8) speakers": 4, "test clips": 12, "test speakers": 6,
    }  # fmt: skip


def test_rows_of_the_callers_own_are_decoded_too_and_unusable_ones_left_out(tmp_path):
    root = common_voice_folder(tmp_path / "cv", ["de", "no"], n_speakers=3, n_clips=3, seconds=0.6)
    corpus = common_voice.load(root, ["de", "no"])
    also = corpus.to_pandas().query("language == 'no' and split == 'test'")
    break_clip(also["path"].iloc[2], "corrupt")
    data = prepare(corpus, ["de"], 4, [0], tmp_path / "store", BySpeaker(0.5), also=also)
    assert data.skipped["utterance_id"].tolist() == [also["utterance_id"].iloc[2]]
    names = also["utterance_id"].drop(also.index[2])
    assert set(names) <= set(data.utterances.index) and also["utterance_id"].iloc[2] not in data.utterances.index
    assert all(name in data.store for name in names) and data.utterances.index.is_unique
    assert list(data.tests) == ["de"] and data.utterances.loc[list(names), "speaker"].notna().all()
    alone = prepare(corpus, ["de"], 4, [0], tmp_path / "store", BySpeaker(0.5))
    assert alone.subsets == data.subsets and alone.tests == data.tests and alone.skipped.empty
