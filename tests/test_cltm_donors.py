"""Donor choice: hand-computed tables, brute force over all sets, paired uncertainty, the winner's curse, bad input."""

import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from cltmlib.cltm import bootstrap_standard_error, choose_donors, cross_lingual_transfer_matrix, rank_donors
from cltmlib.errors import InputError

LANGUAGES = ["de", "nl", "tr", "uz", "fi", "hu"]


def performance_table(gains, base=0.5):
    """Table whose cross-gains are ``gains``, shape (target, donor, seed), the self-gains on the diagonal."""
    gains = np.asarray(gains, dtype=float)
    rows = []
    for i, j, seed in np.ndindex(gains.shape):
        rows.append((LANGUAGES[i], LANGUAGES[j], seed, base + gains[i, j, seed]))
        if i == j:
            rows.append((LANGUAGES[i], "", seed, base))
    return pd.DataFrame(rows, columns=["target", "donor", "seed", "performance"])


def random_gains(seed, n=4, n_seeds=4, noise=0.05):
    """Donors that help or harm by up to 0.3, own data that always helps."""
    generator = np.random.default_rng(seed)
    gains = generator.uniform(-0.3, 0.3, (n, n, 1)) + generator.normal(0, noise, (n, n, n_seeds))
    gains[np.arange(n), np.arange(n)] = 0.4 + generator.normal(0, noise, (n, n_seeds))
    return gains


def value(gains, donors):
    """The value of a set, term by term: each target takes its best donor, or none."""
    return sum(max([0.0, *(gains[i][j] for j in donors)]) for i in range(len(gains))) / len(gains)


# de: own data +0.4; nl +0.2 with both seeds; tr +0.5 and -0.3, on average 0.1.
TWO_SEEDS = performance_table(
    [
        [[0.4, 0.4], [0.2, 0.2], [0.5, -0.3]],
        [[0.1, 0.3], [0.4, 0.2], [0.0, 0.0]],
        [[0.0, 0.0], [0.0, 0.0], [0.2, 0.2]],
    ]
)


def test_ranking_matches_a_computation_by_hand():
    table = rank_donors(TWO_SEEDS, "de", n_resamples=20000)
    assert list(table.index) == ["nl", "tr"] and table.index.name == "donor"
    np.testing.assert_allclose(table["transfer"], [0.5, 0.25])
    np.testing.assert_allclose(table["cross_gain"], [0.2, 0.1])
    # nl gains the same with both seeds; tr has 0.5 and -0.3, so the standard error of its mean is 0.4.
    np.testing.assert_allclose(table["cross_gain_standard_error"], [0, 0.4], rtol=0.02, atol=1e-12)
    np.testing.assert_allclose(table["transfer_standard_error"], [0, 1.0], rtol=0.02, atol=1e-12)
    # One resample in four holds only the first seed, and only there tr beats nl.
    np.testing.assert_allclose(table["probability_best"], [0.75, 0.25], atol=0.015)
    assert table["rank_low"].tolist() == [1, 1] and table["rank_high"].tolist() == [2, 2]


def test_rank_interval_leaves_out_what_happens_in_fewer_resamples_than_the_tails():
    table = rank_donors(TWO_SEEDS, "de", n_resamples=4000, level=0.4)  # tails of 30 %, tr is best in 25 %
    assert table["rank_low"].tolist() == [1, 2] and table["rank_high"].tolist() == [1, 2]


def test_transfer_and_its_error_are_those_of_the_matrix_and_of_its_bootstrap():
    performance = performance_table(random_gains(1))
    table = rank_donors(performance, "tr", n_resamples=300, seed=5)
    expected = cross_lingual_transfer_matrix(performance).values.loc["tr"].drop("tr").sort_values(ascending=False)
    assert list(table.index) == list(expected.index)
    np.testing.assert_allclose(table["transfer"], expected)
    errors = bootstrap_standard_error(performance, 300, seed=5).standard_error.loc["tr"]
    np.testing.assert_allclose(table["transfer_standard_error"], errors[table.index])


@pytest.mark.parametrize("n_seeds", [2, 3, 10])
def test_standard_error_of_a_cross_gain_is_that_of_a_paired_mean(n_seeds):
    gains = random_gains(2, n_seeds=n_seeds)
    table = rank_donors(performance_table(gains), "de", n_resamples=10000)
    expected = pd.DataFrame(gains[0], index=LANGUAGES[:4]).sem(axis=1, ddof=1)
    np.testing.assert_allclose(table["cross_gain_standard_error"], expected[table.index], rtol=0.04)


def test_probability_of_the_best_of_two_donors_is_the_normal_one_where_seeds_are_many():
    gains = random_gains(3, n=3, n_seeds=60)
    gains[0, 2] = gains[0, 1] + np.random.default_rng(0).normal(-0.01, 0.1, 60)
    difference = gains[0, 1] - gains[0, 2]
    expected = norm.cdf(difference.mean() / (difference.std(ddof=1) / math.sqrt(60)))
    actual = rank_donors(performance_table(gains), "de", n_resamples=5000).loc["nl", "probability_best"]
    assert 0.1 < expected < 0.95
    np.testing.assert_allclose(actual, expected, atol=0.03)


def test_noise_that_all_trainings_of_a_seed_share_adds_no_uncertainty():
    performance = performance_table(random_gains(4, noise=0))
    offset = performance["seed"].map({0: -0.1, 1: 0.0, 2: 0.02, 3: 0.08})
    table = rank_donors(performance.assign(performance=performance["performance"] + offset), "nl")
    np.testing.assert_allclose(table["cross_gain_standard_error"], 0, atol=1e-12)
    assert table["probability_best"].tolist() == [1, 0, 0]
    assert table["rank_low"].tolist() == table["rank_high"].tolist() == [1, 2, 3]


def test_equal_donors_share_the_wins_and_their_rank_interval_covers_the_tie():
    gains = random_gains(5)
    gains[0, 2] = gains[0, 1] + 3e-16  # another last digit than nl, as sums in another order give
    gains[0, 3] = gains[0, 1] - 0.05
    table = rank_donors(performance_table(gains), "de", n_resamples=200)
    assert table.loc[["nl", "tr"], "probability_best"].tolist() == [0.5, 0.5]
    assert table["rank_low"].tolist() == [1, 1, 3] and table["rank_high"].tolist() == [2, 2, 3]


def test_target_without_a_positive_self_gain_keeps_its_ranking_and_loses_its_transfer():
    gains = random_gains(6)
    before = rank_donors(performance_table(gains), "nl")
    gains[1, 1] = -0.1
    with pytest.warns(UserWarning, match=r"'nl' is not positive \(-0.1\), so its transfer is undefined") as caught:
        table = rank_donors(performance_table(gains), "nl")
    assert len(caught) == 1 and caught[0].filename == __file__
    assert table[["transfer", "transfer_standard_error"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(table.iloc[:, 2:], before.iloc[:, 2:], check_exact=True)


def test_self_gain_that_is_not_clearly_positive_leaves_no_standard_error_and_is_named():
    gains = random_gains(6)
    gains[1, 1] = [0.4, -0.05, -0.05, -0.05]
    with pytest.warns(UserWarning, match="'nl' is not clearly positive .* has no standard error"):
        table = rank_donors(performance_table(gains), "nl")
    assert table["transfer"].notna().all() and table["transfer_standard_error"].isna().all()


def test_another_target_without_a_self_gain_disturbs_neither_ranking_nor_choice():
    gains = random_gains(6)
    gains[1, 1] = -0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rank_donors(performance_table(gains), "de")["transfer"].notna().all()
        chosen = choose_donors(performance_table(gains), share=1.0)
    assert not any("nl" in row.serves for row in chosen.itertuples() if row.donor == "nl")


def test_a_single_seed_ranks_and_chooses_without_uncertainty():
    performance = TWO_SEEDS[TWO_SEEDS["seed"] == 1]
    ranked, chosen = rank_donors(performance, "de"), choose_donors(performance)
    assert ranked["cross_gain"].round(6).to_dict() == {"nl": 0.2, "tr": -0.3}
    assert ranked.drop(columns=["transfer", "cross_gain"]).isna().all(axis=None)
    about_seeds = ["standard_error", "cross_validated_gain", "chosen_share", "chosen_so_far_share"]
    assert chosen[about_seeds].isna().all(axis=None)
    assert chosen.drop(columns=about_seeds).notna().all(axis=None)


def test_order_of_rows_changes_nothing_and_the_seed_of_the_resampling_does():
    performance = performance_table(random_gains(7))
    shuffled = performance.sample(frac=1, random_state=1)
    for make in (lambda table, **options: rank_donors(table, "de", 50, **options), choose_donors):
        first = make(performance)
        pd.testing.assert_frame_equal(first, make(shuffled, languages=LANGUAGES[:4]), check_exact=True)
        assert not first.equals(make(performance, seed=1))


def test_choice_matches_a_computation_by_hand():
    table = choose_donors(TWO_SEEDS, share=1.0, n_resamples=20000)
    # Mean gains: de [.4 .2 .1], nl [.2 .3 0], tr [0 0 .2]; the sets {de}, {de, tr}, {de, tr, nl} give .6, .8, .9 / 3.
    assert table["donor"].tolist() == ["de", "tr", "nl"] and table.index.tolist() == [1, 2, 3]
    np.testing.assert_allclose(table["mean_gain"], [0.2, 0.8 / 3, 0.3])
    np.testing.assert_allclose(table["increase"], [0.2, 0.2 / 3, 0.1 / 3])
    np.testing.assert_allclose(table["share_of_own"], [2 / 3, 8 / 9, 1])
    np.testing.assert_allclose(table["share_of_all"], [2 / 3, 8 / 9, 1])
    assert table["serves"].tolist() == ["de", "tr", "nl"]
    # {de}: 0.5 / 3 and 0.7 / 3 with the two seeds, so the standard error of the mean is 0.1 / 3.
    np.testing.assert_allclose(table.loc[1, "standard_error"], 0.1 / 3, rtol=0.02)


def test_left_out_seed_judges_a_choice_it_had_no_part_in_by_hand():
    table = choose_donors(TWO_SEEDS, n_donors=2)
    # Chosen on seed 0 (de .4 .2 .5, nl .1 .4 0, tr 0 0 .2): tr, for de and tr: on seed 1 (-0.3 + 0.2) / 3.
    # Chosen on seed 1 (de .4 .2 -.3, nl .3 .2 0, tr 0 0 .2): de, for de and nl: on seed 0 (0.4 + 0.1) / 3.
    np.testing.assert_allclose(table.loc[1, "cross_validated_gain"], (-0.1 + 0.5) / 6)
    # Seed 0 adds nl, for nl: 0.2 more on seed 1. Seed 1 adds tr, for tr: 0.2 more on seed 0.
    np.testing.assert_allclose(table.loc[2, "cross_validated_gain"], (0.1 + 0.7) / 6)


def test_cross_validated_gain_agrees_with_loops():
    gains = random_gains(8, n=5, noise=0.2)
    expected = np.zeros(3)
    for left_out in range(4):
        others = np.delete(gains, left_out, axis=2).mean(axis=2)
        chosen = []
        for step in range(3):
            chosen.append(max(range(5), key=lambda j: value(others, [*chosen, j])))
            for i in range(5):
                best = max(chosen, key=lambda j: others[i, j])
                expected[step] += gains[i, best, left_out] / 20 if others[i, best] > 0 else 0
    actual = choose_donors(performance_table(gains), n_donors=3)["cross_validated_gain"]
    np.testing.assert_allclose(actual, expected)


@given(seed=st.integers(0, 10**6), own=st.sampled_from([0.4, 0.1, -0.2]))
@settings(max_examples=25, deadline=None)
def test_greedy_set_reaches_the_guaranteed_share_of_the_best_set_of_its_size(seed, own):
    gains = random_gains(seed, n=6, n_seeds=1)
    gains[np.arange(6), np.arange(6)] += own - 0.4
    table = choose_donors(performance_table(gains), n_donors=6)
    for step in table.index:
        donors = [LANGUAGES.index(donor) for donor in table["donor"][:step]]
        best = max(value(gains[..., 0], chosen) for chosen in itertools.combinations(range(6), step))
        np.testing.assert_allclose(table.loc[step, "mean_gain"], value(gains[..., 0], donors))
        assert (1 - 1 / math.e) * best - 1e-12 <= table.loc[step, "mean_gain"] <= best + 1e-12
        if step == 1:
            np.testing.assert_allclose(table.loc[step, "mean_gain"], best)
    everything = value(gains[..., 0], range(6))
    np.testing.assert_allclose(table["mean_gain"].iloc[-1], everything)


def test_greedy_can_miss_the_best_set_as_the_docstring_warns():
    gains = np.zeros((4, 4, 1))
    gains[:2, 0] = gains[2:, 1] = 0.3  # de and nl serve two targets each, together all four
    gains[[0, 2], 2], gains[[1, 3], 2] = 0.3, 0.02  # tr serves two and a bit of the others: it comes first
    table = choose_donors(performance_table(gains), n_donors=2)
    assert table["donor"].tolist() == ["tr", "de"]
    np.testing.assert_allclose(table["mean_gain"].iloc[-1], (0.3 * 3 + 0.02) / 4)
    np.testing.assert_allclose(value(gains[..., 0], [0, 1]), 0.3)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.95, 1.0])
def test_choice_stops_at_the_first_set_that_reaches_the_share(share):
    performance = performance_table(random_gains(9, n=6))
    everything = choose_donors(performance, n_donors=6, n_resamples=20)
    table = choose_donors(performance, share=share, n_resamples=20)
    n = len(table)
    columns = [column for column in table if column != "serves"]
    pd.testing.assert_frame_equal(table[columns], everything[columns][:n])
    assert table["share_of_all"].iloc[-1] >= share - 1e-9
    assert (table["share_of_all"].iloc[:-1] < share).all()


def test_choice_ends_where_no_language_adds_anything():
    gains = np.full((3, 3, 2), 0.1)
    gains[:, 1] = 0.2
    table = choose_donors(performance_table(gains), n_donors=3)
    assert table["donor"].tolist() == ["nl"] and table["serves"].tolist() == ["de, nl, tr"]
    np.testing.assert_allclose(table["share_of_own"], 0.6 / 0.4)  # donors can do more than own data: 0.1, 0.2, 0.1


def test_rounding_dust_adds_no_language_and_serves_no_target():
    gains = np.full((3, 3, 1), -0.1)
    gains[:, 0, 0], gains[1, 1], gains[2, 0] = 0.1, 0.1 + 1e-16, 1e-17
    table = choose_donors(performance_table(gains, base=0.3), n_donors=3)
    assert table["donor"].tolist() == ["de"] and table["serves"].tolist() == ["de, nl"]


def test_of_donors_that_are_equal_but_for_the_last_digit_the_first_is_chosen():
    gains = np.full((3, 3, 2), -0.1)
    gains[:, 1], gains[:, 2] = 0.1, 0.1 + 3e-16
    table = choose_donors(performance_table(gains), n_resamples=20)
    assert table["donor"].tolist() == ["nl"] and table["chosen_share"].tolist() == [1.0]


def test_gain_has_no_share_of_own_data_where_own_data_helps_no_target():
    gains = np.full((2, 2, 2), -0.1)
    gains[0, 1] = 0.2
    table = choose_donors(performance_table(gains))
    assert table["mean_gain"].round(9).tolist() == [0.1] and table["share_of_own"].isna().all()


def test_every_target_that_gains_is_served_by_exactly_its_best_language_of_the_set():
    gains = random_gains(10, n=6, noise=0.0)
    gains[5, :, :] = -0.1  # nothing helps hu
    table = choose_donors(performance_table(gains), n_donors=3)
    donors = [LANGUAGES.index(donor) for donor in table["donor"]]
    for i, target in enumerate(LANGUAGES):
        serving = [row.donor for row in table.itertuples() if target in row.serves.split(", ")]
        best = max(donors, key=lambda j: gains[i, j, 0])
        assert serving == ([LANGUAGES[best]] if gains[i, best, 0] > 0 else [])


def test_standard_error_of_a_clear_choice_is_that_of_its_paired_mean_gain():
    gains = np.random.default_rng(0).normal(-0.5, 0.01, (4, 4, 6))
    gains[:, 2] += 1.0  # tr serves everyone with every seed, so the value is an ordinary mean
    table = choose_donors(performance_table(gains), n_resamples=10000)
    assert table["donor"].tolist() == ["tr"] and table["chosen_share"].tolist() == [1.0]
    expected = gains[:, 2].mean(axis=0).std(ddof=1) / math.sqrt(6)
    np.testing.assert_allclose(table["standard_error"], expected, rtol=0.04)


def test_stability_counts_the_resamples_that_choose_the_same_language_here_or_before():
    gains = np.full((2, 2, 2), 0.0)
    gains[0, 0], gains[1, 1] = [0.3, 0.1], [0.1, 0.29]  # seed 0 is for de first, seed 1 for nl, together barely de
    table = choose_donors(performance_table(gains), share=1.0, n_resamples=20000)
    assert table["donor"].tolist() == ["de", "nl"]
    # de is first in the resamples of seed 0 alone and of both: 3 of 4.
    np.testing.assert_allclose(table["chosen_share"], [0.75, 0.75], atol=0.015)
    np.testing.assert_allclose(table["chosen_so_far_share"], [table["chosen_share"][1], 1.0])


def test_gain_of_pure_noise_is_positive_as_measured_and_zero_when_cross_validated():
    generator = np.random.default_rng(11)
    measured, honest = [], []
    for _ in range(150):
        table = choose_donors(performance_table(generator.normal(0, 0.1, (5, 5, 4))), n_donors=2, n_resamples=2)
        measured.append(table["mean_gain"].iloc[-1])
        honest.append(table["cross_validated_gain"].iloc[-1])
    assert min(measured) > 0 and np.mean(measured) > 0.03
    assert abs(np.mean(honest)) < 3 * np.std(honest) / math.sqrt(150) < 0.01


def test_scale_of_the_metric_scales_the_gains_and_leaves_shares_and_ranks():
    performance = performance_table(random_gains(12, noise=0.1))
    percent = performance.assign(performance=100 * performance["performance"])
    first, second = (choose_donors(table, n_donors=3) for table in (performance, percent))
    in_units = ["mean_gain", "standard_error", "cross_validated_gain", "increase"]
    pd.testing.assert_frame_equal(first.assign(**{name: 100 * first[name] for name in in_units}), second)
    first, second = (rank_donors(table, "de").drop(columns="cross_gain") for table in (performance, percent))
    pd.testing.assert_frame_equal(
        first.drop(columns="cross_gain_standard_error"), second.drop(columns="cross_gain_standard_error")
    )


def test_nothing_to_choose_is_an_empty_table_with_one_sentence():
    performance = performance_table(np.full((3, 3, 2), -0.1))
    with pytest.warns(UserWarning, match="No language raises the performance of any target") as caught:
        table = choose_donors(performance)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert table.empty and list(table) == list(choose_donors(TWO_SEEDS))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rank_donors(TWO_SEEDS, "xx"), ["'xx'", "de, nl, tr"]),
        (lambda: rank_donors(TWO_SEEDS, "de", languages=["de"]), ["'de'", "no donor"]),
        (lambda: rank_donors(TWO_SEEDS, "de", level=1.0), ["level=1.0"]),
        (lambda: rank_donors(TWO_SEEDS, "de", n_resamples=1), ["n_resamples >= 2"]),
        (lambda: rank_donors(TWO_SEEDS.iloc[1:], "de"), ["target 'de'", "finish the sweep"]),
        (lambda: choose_donors(TWO_SEEDS, n_donors=0), ["n_donors=0", "1 to 3"]),
        (lambda: choose_donors(TWO_SEEDS, n_donors=4), ["n_donors=4", "1 to 3"]),
        (lambda: choose_donors(TWO_SEEDS, share=95), ["share=95"]),
        (lambda: choose_donors(TWO_SEEDS, share=0), ["share=0"]),
        (lambda: choose_donors(TWO_SEEDS, n_resamples=1), ["n_resamples >= 2"]),
    ],
)
def test_bad_input_is_refused_in_one_sentence_that_names_it(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)
