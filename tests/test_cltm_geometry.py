"""Centroid distances and transfer: scipy and naive loops as oracles, a simulated null, the paper's pairs, bad input."""

import itertools
import string
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import pearsonr, spearmanr

from cltmlib.cltm import (
    centroid_distances,
    distance_and_transfer,
    distance_transfer_correlation,
    geometry,
    load_published,
    project,
    table_2,
)
from cltmlib.errors import InputError


def frame(matrix, languages=string.ascii_letters):
    languages = list(languages)[: len(matrix)]
    return pd.DataFrame(matrix, index=languages, columns=languages, dtype=float)


def random_distances(generator, n):
    """Distances of points in five dimensions, some languages far from all others: language effects."""
    points = generator.normal(size=(n, 5)) * generator.lognormal(0, 1, (n, 1))
    return frame(cdist(points, points))


def random_transfer(generator, n):
    """A matrix of target effects, donor effects and noise, without any relation to a distance."""
    values = generator.normal(size=(n, 1)) + generator.normal(size=(1, n)) + 0.5 * generator.normal(size=(n, n))
    np.fill_diagonal(values, 1)
    return frame(values)


def planted_transfer(distances, noise, generator):
    """Less transfer the further apart, and a language effect on top."""
    n = len(distances)
    return frame(1 - distances.to_numpy() / distances.to_numpy().max() + noise * generator.normal(size=(n, n)))


DISTANCES = frame([[0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])
VALUES = frame([[1, 0.8, 0.6, -0.2], [0.4, 1, -0.5, -1], [0.2, -0.1, 1, 0.3], [0, -2, 0.1, 1]])


def test_centroid_distances_match_scipy_on_centroids_by_group():
    generator = np.random.default_rng(0)
    embeddings, languages = generator.normal(size=(60, 8)), generator.choice(["tr", "de", "uz"], 60)
    table = centroid_distances(embeddings.astype(np.float32), list(languages))
    order = list(dict.fromkeys(languages))
    centroids = [embeddings[languages == language].mean(axis=0) for language in order]
    np.testing.assert_allclose(table, cdist(centroids, centroids), rtol=1e-5, atol=1e-7)
    assert list(table.index) == list(table.columns) == order


@given(seed=st.integers(0, 10**6), shift=st.floats(-5, 5))
@settings(max_examples=20, deadline=None)
def test_distances_are_symmetric_and_unmoved_by_translation_rotation_and_order(seed, shift):
    generator = np.random.default_rng(seed)
    embeddings, languages = generator.normal(size=(12, 4)), np.array(list("abcabcabcabc"))
    table = centroid_distances(embeddings, languages)
    assert (table.to_numpy() == table.to_numpy().T).all() and (np.diagonal(table) == 0).all()
    rotation = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    np.testing.assert_allclose(centroid_distances(embeddings @ rotation + shift, languages), table, rtol=1e-9)
    order = generator.permutation(12)
    shuffled = centroid_distances(embeddings[order], languages[order])
    pd.testing.assert_frame_equal(shuffled.loc[table.index, table.index], table)


def test_identical_embeddings_are_at_distance_zero():
    assert (centroid_distances(np.ones((4, 3)), list("aabb")).to_numpy() == 0).all()


def test_each_pair_stands_once_with_its_distance_and_both_directions():
    table = distance_and_transfer(DISTANCES, VALUES)
    assert table[["language_a", "language_b"]].agg("".join, axis=1).tolist() == ["ab", "ac", "ad", "bc", "bd", "cd"]
    assert table["distance"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["transfer_a_from_b"].tolist() == [0.8, 0.6, -0.2, -0.5, -1, 0.3]  # the row of a, the target
    assert table["transfer_b_from_a"].tolist() == [0.4, 0.2, 0, -0.1, -2, 0.1]
    np.testing.assert_allclose(table["transfer_mean"], [0.6, 0.4, -0.1, -0.3, -1.5, 0.2])


def test_distances_in_another_order_are_matched_by_language():
    order = list("dbca")
    for call in (distance_and_transfer, table_2):
        pd.testing.assert_frame_equal(call(DISTANCES.loc[order, order], VALUES), call(DISTANCES, VALUES))


def test_undefined_row_leaves_one_direction_and_no_mean():
    values = VALUES.copy()
    values.loc["b"] = np.nan
    table = distance_and_transfer(DISTANCES, values).set_index(["language_a", "language_b"])
    assert table["transfer_mean"].isna().to_dict() == {pair: "b" in pair for pair in table.index}
    assert table.loc[("a", "b"), "transfer_a_from_b"] == 0.8 and np.isnan(table.loc[("a", "b"), "transfer_b_from_a"])


@pytest.mark.parametrize("step", [1, -1], ids=["order of the figure", "reversed"])
def test_table_2_puts_the_papers_pairs_beside_the_published_matrix(step):
    values = load_published("sv_mhubert").iloc[::step, ::step]
    positions = np.arange(44.0)
    distances = frame(np.abs(positions[:, None] - positions), values.index)
    table = table_2(distances, values)
    assert list(zip(table["language_a"], table["language_b"], strict=True)) == [
        ("ru", "be"), ("kmr", "ckb"), ("de", "pt"), ("gl", "ckb")
    ]  # fmt: skip
    assert table["paper_distance"].tolist() == [1.37, 1.53, 2.06, 2.39]
    np.testing.assert_array_equal(table["paper_a_from_b"], table["transfer_a_from_b"])
    # The published figure has -1.02 where Table 2 prints -1.13.
    np.testing.assert_array_equal(table["paper_b_from_a"][:3], table["transfer_b_from_a"][:3])
    assert (table["paper_b_from_a"][3], table["transfer_b_from_a"][3]) == (-1.13, -1.02)
    assert table["distance"].tolist() == [distances.loc[row.language_a, row.language_b] for row in table.itertuples()]


def test_table_2_without_the_papers_languages_shows_the_extreme_pairs():
    table = table_2(DISTANCES, VALUES)
    assert table[["language_a", "language_b"]].agg("".join, axis=1).tolist() == ["ab", "ac", "bc", "bd"]
    kept = list("abc")
    few = table_2(DISTANCES.loc[kept, kept], VALUES.loc[kept, kept])
    assert few[["language_a", "language_b"]].agg("".join, axis=1).tolist() == ["ab", "ac", "bc"]
    values = VALUES.copy()
    values.loc["b"] = np.nan
    assert "b" not in table_2(DISTANCES, values)[["language_a", "language_b"]].to_numpy()


def naive_mantel(distances, values, correlation):
    """Definition of the exact test: correlate by scipy, for every order of the languages, pair by pair."""
    languages = list(values.index)
    pairs = list(itertools.combinations(range(len(languages)), 2))
    transfer = [(values.iloc[i, j] + values.iloc[j, i]) / 2 for i, j in pairs]

    def statistic(order):
        return correlation([distances.iloc[order[i], order[j]] for i, j in pairs], transfer).statistic

    observed = statistic(range(len(languages)))
    permuted = np.array([statistic(order) for order in itertools.permutations(range(len(languages)))])
    return observed, np.mean(np.abs(permuted) >= abs(observed) - 1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_correlations_and_exact_p_values_match_a_naive_implementation(seed):
    generator = np.random.default_rng(seed)
    distances = random_distances(generator, 5)
    values = planted_transfer(distances, 0.3, generator)
    if seed == 2:
        values = values.round(1)  # ties
    found = distance_transfer_correlation(distances, values)
    np.testing.assert_allclose([found.spearman, found.spearman_p], naive_mantel(distances, values, spearmanr))
    np.testing.assert_allclose([found.pearson, found.pearson_p], naive_mantel(distances, values, pearsonr))
    assert (found.n_pairs, found.n_left_out, found.n_permutations, found.exact) == (10, 0, 120, True)


def test_random_permutations_approach_the_exact_p_value(monkeypatch):
    generator = np.random.default_rng(3)
    distances = random_distances(generator, 7)
    values = planted_transfer(distances, 0.5, generator)
    exact = distance_transfer_correlation(distances, values)
    monkeypatch.setattr(geometry, "_MAX_EXACT", 3)
    sampled = distance_transfer_correlation(distances, values, n_permutations=20000)
    assert exact.exact and not sampled.exact and 0.01 < exact.spearman_p < 0.9
    np.testing.assert_allclose(sampled.spearman_p, exact.spearman_p, atol=0.012)
    np.testing.assert_allclose(sampled.pearson_p, exact.pearson_p, atol=0.012)
    assert sampled.spearman == exact.spearman


def test_planted_relation_is_found_with_the_smallest_p_value_that_the_permutations_allow():
    generator = np.random.default_rng(4)
    distances = random_distances(generator, 12)
    found = distance_transfer_correlation(distances, planted_transfer(distances, 0.05, generator), n_permutations=99)
    assert found.spearman < -0.8 and found.pearson < -0.9
    assert found.spearman_p == found.pearson_p == 0.01  # (0 + 1) / (99 + 1)


def test_null_with_language_effects_is_rejected_as_often_as_stated_where_permuting_pairs_over_rejects():
    generator = np.random.default_rng(5)
    upper, n_tables, n_permutations = np.triu_indices(10, k=1), 400, 199
    mantel, naive = [], []
    for _ in range(n_tables):
        distances, values = random_distances(generator, 10), random_transfer(generator, 10)
        found = distance_transfer_correlation(distances, values, n_permutations, seed=int(generator.integers(2**31)))
        mantel.append(found.spearman_p)
        distance = distances.to_numpy()[upper].argsort().argsort()
        transfer = ((values + values.T) / 2).to_numpy()[upper].argsort().argsort()
        shuffled = generator.permuted(np.tile(distance, (n_permutations, 1)), axis=1)
        centred = transfer - transfer.mean()
        as_large = (np.abs(shuffled @ centred) >= abs(distance @ centred)).sum()
        naive.append((as_large + 1) / (n_permutations + 1))
    mantel, naive = np.array(mantel), np.array(naive)
    noise = 3 * np.sqrt(0.05 * 0.95 / n_tables)
    assert abs(np.mean(mantel <= 0.05) - 0.05) < noise
    assert abs(np.mean(mantel <= 0.5) - 0.5) < 3 * np.sqrt(0.25 / n_tables)
    assert np.mean(naive <= 0.05) > 0.05 + 3 * noise


def test_both_directions_of_a_pair_are_one_point():
    generator = np.random.default_rng(6)
    distances, values = random_distances(generator, 6), random_transfer(generator, 6)
    asymmetry = generator.normal(size=(6, 6))
    assert distance_transfer_correlation(distances, values).n_pairs == 15
    for other in (values.T, values + asymmetry - asymmetry.T):
        np.testing.assert_allclose(
            distance_transfer_correlation(distances, other), distance_transfer_correlation(distances, values)
        )


def test_rank_correlation_survives_a_stretched_distance_and_another_order_of_languages():
    generator = np.random.default_rng(7)
    distances = random_distances(generator, 6)
    values, order = planted_transfer(distances, 0.4, generator), list("fbdcae")
    first = distance_transfer_correlation(distances, values)
    stretched = distance_transfer_correlation(distances**3, values)
    assert stretched[:2] == first[:2] and stretched.pearson != first.pearson
    reordered = distance_transfer_correlation(distances, values.loc[order, order])
    np.testing.assert_allclose(reordered, first)


def test_languages_with_an_undefined_row_are_left_out_both_ways_counted_and_named():
    generator = np.random.default_rng(8)
    distances = random_distances(generator, 9)
    values = planted_transfer(distances, 0.3, generator)
    values.loc[["c", "g"]] = np.nan
    with pytest.warns(UserWarning, match=r"without a positive self-gain: c, g\.") as caught:
        found = distance_transfer_correlation(distances, values)
    assert len(caught) == 1 and caught[0].filename == __file__
    kept = list("abdefhi")
    alone = distance_transfer_correlation(distances.loc[kept, kept], values.loc[kept, kept])
    assert found._replace(n_left_out=0) == alone and (found.n_left_out, found.n_pairs) == (2, 21)


@pytest.mark.parametrize(
    ("distances", "values", "reason"),
    [
        (frame(np.zeros((4, 4))), VALUES, "all distances between the 4 languages are equal"),
        (DISTANCES, frame(np.full((4, 4), 0.7)), "all transfers between the 4 languages are equal"),
        (DISTANCES.iloc[:2, :2], VALUES.iloc[:2, :2], "it needs three languages with a positive self-gain"),
    ],
    ids=["identical embeddings", "agnostic transfer", "two languages"],
)
def test_undefined_correlation_is_nan_with_a_sentence_that_says_why(distances, values, reason):
    with pytest.warns(UserWarning, match=reason) as caught:
        found = distance_transfer_correlation(distances, values)
    assert len(caught) == 1 and np.isnan(found[:4]).all()


def test_permutations_repeat_with_their_seed():
    generator = np.random.default_rng(9)
    distances, values = random_distances(generator, 10), random_transfer(generator, 10)
    first = distance_transfer_correlation(distances, values, 999, seed=1)
    assert distance_transfer_correlation(distances, values, 999, seed=1) == first
    assert distance_transfer_correlation(distances, values, 999, seed=2).spearman_p != first.spearman_p


def test_44_languages_and_9999_permutations_take_seconds():
    generator = np.random.default_rng(10)
    distances, values = random_distances(generator, 44), random_transfer(generator, 44)
    start = time.process_time()
    assert distance_transfer_correlation(distances, values).n_permutations == 9999
    assert time.process_time() - start < 4  # 0.7 s on the machine this was written on


def test_projection_keeps_clusters_together_repeats_and_describes_itself():
    generator = np.random.default_rng(11)
    cluster = np.repeat(np.arange(3), 20)
    embeddings = 8 * np.eye(3, 16)[cluster] + generator.normal(size=(60, 16))
    table = project(embeddings, perplexity=10)
    apart = cdist(table, table) + np.where(np.eye(60), np.inf, 0)
    assert (cluster[apart.argmin(axis=1)] == cluster).all()
    assert list(table) == ["x", "y"] and table.attrs["settings"] == (
        "t-SNE of 60 embeddings, perplexity 10, started from PCA, seed 0"
    )
    pd.testing.assert_frame_equal(project(embeddings, perplexity=10), table, check_exact=True)


def test_seed_decides_the_projection_of_wide_embeddings():
    embeddings = np.random.default_rng(15).normal(size=(30, 600))  # wide: their PCA is a randomised one
    first = project(embeddings, seed=1)
    pd.testing.assert_frame_equal(project(embeddings, seed=1), first, check_exact=True)
    assert not project(embeddings, seed=2).equals(first)


def test_perplexity_is_cut_to_a_third_of_the_neighbours():
    embeddings = np.random.default_rng(12).normal(size=(13, 4))
    assert "perplexity 4," in project(embeddings).attrs["settings"]
    pd.testing.assert_frame_equal(project(embeddings), project(embeddings, perplexity=4), check_exact=True)


def test_projection_of_few_embeddings_is_their_pca():
    embeddings = np.random.default_rng(13).normal(size=(6, 4))
    table = project(embeddings)
    left, singular, _ = np.linalg.svd(embeddings - embeddings.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(table), np.abs(left[:, :2] * singular[:2]))
    share = (singular[:2] ** 2).sum() / (singular**2).sum()
    assert table.attrs["settings"] == f"PCA of 6 embeddings; the plane holds {share:.0%} of the variance"


GOOD = np.random.default_rng(14).normal(size=(4, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: centroid_distances(GOOD, list("abc")), ["4 embeddings", "3 languages"]),
        (lambda: centroid_distances(GOOD, list("aaaa")), ["at least two languages", "not 1 (a)"]),
        (lambda: centroid_distances(GOOD, ["a", "b", None, "a"]), ["Embedding 2", "no language"]),
        (lambda: centroid_distances(np.where(np.eye(4, 3) > 0, np.nan, GOOD), list("abab")), ["Embedding 0", "3 in"]),
        (lambda: centroid_distances(GOOD[0], list("abc")), ["(n, dim)", "(3,)"]),
        (lambda: centroid_distances(GOOD[:0], []), ["at least two languages", "not 0"]),
        (lambda: distance_and_transfer(DISTANCES.iloc[:3, :3], VALUES), ["'d'", "no centroid distance"]),
        (lambda: table_2(DISTANCES, VALUES.iloc[:3, :3]), ["'d'", "no transfer"]),
        (lambda: distance_and_transfer(DISTANCES, VALUES.iloc[:3]), ["transfer matrix", "same languages"]),
        (lambda: table_2(DISTANCES, VALUES.rename(index={"b": "a"}, columns={"b": "a"})), ["each once"]),
        (lambda: distance_and_transfer(DISTANCES.iloc[:3], VALUES), ["Distances", "same languages"]),
        (lambda: distance_and_transfer(DISTANCES.replace(6, np.nan), VALUES), ["'c'", "not a finite number"]),
        (lambda: distance_and_transfer(DISTANCES + frame(np.eye(4)), VALUES), ["diagonal of 0"]),
        (lambda: distance_and_transfer(DISTANCES + frame(np.eye(4, k=1)), VALUES), ["symmetric"]),
        (lambda: distance_transfer_correlation(DISTANCES, VALUES.replace(0.3, np.nan)), ["'c'", "'d'", "not a finite"]),
        (lambda: distance_transfer_correlation(DISTANCES, VALUES, n_permutations=0), ["n_permutations >= 1"]),
        (lambda: project(GOOD[:2]), ["3 or more embeddings", "2 of 3"]),
        (lambda: project(GOOD[:, :1]), ["2 or more dimensions", "4 of 1"]),
        (lambda: project(np.ones((20, 3))), ["All 20 embeddings", "same vector"]),
        (lambda: project(GOOD, perplexity=0), ["perplexity", "not 0"]),
        (lambda: project(GOOD * np.inf), ["Embedding 0", "not finite"]),
    ],
)
def test_bad_input_is_refused_in_one_sentence_that_names_it(call, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            call()
    assert all(word in str(caught.value) for word in words), str(caught.value)
