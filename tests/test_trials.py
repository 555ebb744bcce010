"""Trials of speaker verification: what every draw promises, whoever the speakers are."""

from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cltmlib.errors import InputError
from cltmlib.subsets import draw_trials
from cltmlib.subsets.trials import MAX_TARGETS_PER_SPEAKER


def rows_of(n_clips, languages=("de",), shuffle=None):
    """Rows of clips from {speaker: clips of each language}, a speaker's name beginning with f or m."""
    rows = [
        {"speaker": speaker, "gender": {"f": "female", "m": "male"}[speaker[0]], "language": language}
        for speaker, n in n_clips.items()
        for language in languages
        for _ in range(n)
    ]
    if shuffle is not None:
        rows = [rows[k] for k in np.random.default_rng(shuffle).permutation(len(rows))]
    return rows


def random_rows(seed):
    """Two to eight speakers of each gender with one to nine clips, one with more than one; interleaved."""
    rng = np.random.default_rng(seed)
    n_clips = {}
    for gender in "fm":
        clips = rng.integers(1, 10, rng.integers(2, 9))
        clips[0] += 1
        n_clips.update({f"{gender}{k}": int(n) for k, n in enumerate(clips)})
    return rows_of(n_clips, shuffle=seed)


def assert_promises(trials, rows, across=False):
    """Everything that holds of any draw. Returns the number of targets of each speaker."""
    assert list(trials.columns) == ["enrol", "test", "same_speaker", "gender"] and trials["same_speaker"].dtype == bool
    pairs = [tuple(sorted(pair)) for pair in trials[["enrol", "test"]].itertuples(index=False)]
    assert len(set(pairs)) == len(pairs), "a pair occurs twice, in one order or the other"
    assert (trials["enrol"] < trials["test"]).all(), "an utterance is paired with itself, or the order is not kept"
    targets = Counter()
    for trial in trials.itertuples():
        one, two = rows[trial.enrol], rows[trial.test]
        assert one["gender"] == two["gender"] == trial.gender
        assert (one["speaker"] == two["speaker"]) == trial.same_speaker
        assert not across or one["language"] != two["language"]
        targets[one["speaker"]] += trial.same_speaker
    assert max(targets.values()) <= MAX_TARGETS_PER_SPEAKER == 200
    for gender in ("female", "male"):
        same = trials.loc[trials["gender"] == gender, "same_speaker"]
        assert same.sum() == (~same).sum() > 0
    return targets


@pytest.mark.parametrize("seed", range(100))
def test_every_draw_keeps_its_promises(seed):
    rows = random_rows(seed)
    trials = draw_trials(rows, "de", seed)
    assert_promises(trials, rows)
    pd.testing.assert_frame_equal(trials, draw_trials(rows, "de", seed))
    for gender in "fm":
        clips = list(Counter(row["speaker"] for row in rows if row["speaker"][0] == gender).values())
        of_gender = trials[trials["gender"].str[0] == gender]
        non_targets = sum(a * b for a, b in combinations(clips, 2))
        assert of_gender["same_speaker"].sum() == min(sum(n * (n - 1) // 2 for n in clips), non_targets)


def test_seeds_and_languages_draw_different_trials():
    rows = rows_of({f"{g}{k}": 5 for g in "fm" for k in range(8)})
    draws = [draw_trials(rows, "de", seed) for seed in range(20)] + [draw_trials(rows, "ca")]
    non_targets = {tuple(map(tuple, t.loc[~t["same_speaker"], ["enrol", "test"]].to_numpy())) for t in draws}
    assert len(non_targets) == 21


def test_a_speaker_gives_at_most_200_targets_and_other_seeds_take_others():
    rows = rows_of({"f0": 40, "f1": 30, "f2": 3, "m0": 21, "m1": 20})
    one, two = (draw_trials(rows, "de", seed) for seed in (0, 1))
    targets = assert_promises(one, rows)
    assert targets == {"f0": 200, "f1": 200, "f2": 3, "m0": 200, "m1": 190}
    chosen = [set(map(tuple, t.loc[t["same_speaker"], ["enrol", "test"]].to_numpy())) for t in (one, two)]
    assert chosen[0] != chosen[1]


def test_few_available_non_targets_cut_the_targets():
    rows = rows_of({"f0": 12, "f1": 1, "m0": 2, "m1": 2})
    trials = draw_trials(rows, "de")
    assert_promises(trials, rows)
    female = trials[trials["gender"] == "female"]
    assert female["same_speaker"].sum() == 12 and len(female) == 24  # 66 targets, but 12 pairs with the other speaker
    assert trials.loc[trials["gender"] == "male", "same_speaker"].sum() == 2  # 4 non-targets for 2 targets: none is cut


DOMINATED = {"f0": 60} | {f"f{k}": 6 for k in range(1, 13)} | {f"m{k}": 2 for k in range(3)}


def test_where_many_are_available_every_pair_of_speakers_is_about_equally_likely():
    """One speaker has ten times the clips of any other: counted by clips, pairs with her would be ten times as many."""
    rows = rows_of(DOMINATED, shuffle=0)
    n_draws, counts = 60, Counter()
    for seed in range(n_draws):
        trials = draw_trials(rows, "de", seed)
        assert_promises(trials, rows)
        others = trials[~trials["same_speaker"] & (trials["gender"] == "female")]
        assert len(others) == 200 + 12 * 15
        counts.update(
            tuple(sorted((rows[a]["speaker"], rows[b]["speaker"])))
            for a, b in zip(others["enrol"], others["test"], strict=True)
        )
    share = np.array([counts[pair] for pair in combinations(sorted(s for s in DOMINATED if s[0] == "f"), 2)])
    expected = n_draws * 380 / 78  # 292 of each of the 78 pairs, standard deviation about 17
    assert share.min() > 0.75 * expected and share.max() < 1.25 * expected
    hers = np.mean([n for pair, n in counts.items() if "f0" in pair])
    assert hers < 1.15 * expected


def test_every_clip_of_a_speaker_is_about_equally_likely_in_her_non_targets():
    rows = rows_of(DOMINATED, shuffle=0)
    used = Counter()
    for seed in range(60):
        trials = draw_trials(rows, "de", seed)
        used.update(trials.loc[~trials["same_speaker"], ["enrol", "test"]].to_numpy().ravel().tolist())
    for speaker in ("f0", "f5"):
        counts = np.array([used[k] for k, row in enumerate(rows) if row["speaker"] == speaker])
        expected = counts.mean()
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_clips_of_other_orders_give_as_many_trials():
    for shuffle in range(5):
        rows = rows_of(DOMINATED, shuffle=shuffle)
        assert draw_trials(rows, "de").groupby(["gender", "same_speaker"]).size().tolist() == [380, 380, 3, 3]


@pytest.mark.parametrize("seed", range(30))
def test_across_languages_only_pairs_of_two_languages_are_drawn(seed):
    rng = np.random.default_rng(seed)
    n_clips = {f"{gender}{k}": int(rng.integers(1, 5)) for gender in "fm" for k in range(rng.integers(2, 5))}
    rows = rows_of(n_clips, ("da", "en", "de")[: rng.integers(2, 4)], shuffle=seed)
    trials = draw_trials(rows, "several", seed, across=True)
    targets = assert_promises(trials, rows, across=True)
    n_languages = len({row["language"] for row in rows})
    available = {s: n * n * n_languages * (n_languages - 1) // 2 for s, n in n_clips.items()}
    assert all(targets[speaker] <= available[speaker] for speaker in n_clips)
    for gender in "fm":
        clips = [n for speaker, n in n_clips.items() if speaker[0] == gender]
        others = sum(a * b for a, b in combinations(clips, 2)) * n_languages * (n_languages - 1)
        own = sum(n for speaker, n in available.items() if speaker[0] == gender)
        assert trials["same_speaker"][trials["gender"].str[0] == gender].sum() == min(own, others)


def test_across_languages_a_speaker_of_one_language_serves_for_non_targets_only():
    rows = rows_of({"f0": 2, "m0": 2, "m1": 2}, ("da", "en")) + rows_of({"f1": 3}, ("da",))
    trials = draw_trials(rows, "da+en", across=True)
    targets = assert_promises(trials, rows, across=True)
    assert targets["f0"] == 4 and targets["f1"] == 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_both_ways_of_drawing_non_targets_keep_the_promises(data):
    """Listed where few are available, drawn where many are: the sizes here straddle the boundary."""
    n_clips = {}
    for gender in "fm":
        clips = data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=14).filter(lambda c: max(c) > 1))
        n_clips.update({f"{gender}{k}": n for k, n in enumerate(clips)})
    rows = rows_of(n_clips, shuffle=0)
    assert_promises(draw_trials(rows, "de", data.draw(st.integers(0, 9))), rows)


def test_both_ways_of_drawing_non_targets_are_reached(monkeypatch):
    """The tests above see both: 4 speakers of 6 clips are listed, 30 of 3 are not."""
    from cltmlib.subsets import trials as module

    for n_speakers, n_clips, listed in ((4, 6, True), (30, 3, False)):
        calls = []
        monkeypatch.setattr(module, "_allowed", lambda pairs, *rest, calls=calls: calls.append(len(pairs)) or pairs)
        draw_trials(rows_of({f"{g}{k}": n_clips for g in "fm" for k in range(n_speakers)}), "de")
        assert (max(calls) > n_clips * (n_clips - 1) / 2) == listed


@pytest.mark.parametrize(
    ("n_clips", "message"),
    [
        ({"f0": 5, "m0": 5, "m1": 5}, "Language 'xx' has 1 female speaker to test on: verification trials need two"),
        ({"f0": 5, "f1": 5, "m0": 5}, "Language 'xx' has 1 male speaker to test on"),
        ({"f0": 5, "f1": 5}, "Language 'xx' has 0 male speakers to test on"),
        ({"m0": 5, "m1": 5}, "Language 'xx' has 0 female speakers to test on"),
        ({}, "Language 'xx' has 0 female speakers to test on"),
        ({"f0": 1, "f1": 1, "f2": 1, "m0": 5, "m1": 5}, "'xx' has 3 female speakers, none of whom has two clips"),
        ({"f0": 1, "m0": 5, "m1": 5}, "'xx' has 1 female speaker, none of whom has two clips"),
    ],
)
def test_clips_that_allow_no_trials_are_refused_with_the_language_and_what_it_lacks(n_clips, message):
    with pytest.raises(InputError) as caught:
        draw_trials(rows_of(n_clips), "xx")
    assert message in str(caught.value) and str(caught.value).endswith("leave this language out.")
    assert "\n" not in str(caught.value)


def test_across_languages_somebody_must_speak_two():
    rows = rows_of({"f0": 3, "f1": 3, "m0": 3, "m1": 3})
    with pytest.raises(InputError, match=r"'da\+en' has 2 female speakers, none of whom speaks two of the languages"):
        draw_trials(rows, "da+en", across=True)
