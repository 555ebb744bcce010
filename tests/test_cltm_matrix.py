"""The transfer matrix and its standard errors: hand-computed values, properties, simulation, bad tables."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cltmlib.cltm import bootstrap_standard_error, cross_lingual_transfer_matrix
from cltmlib.errors import InputError

LANGUAGES = ["de", "nl", "tr"]


def performance_table(cube, languages=LANGUAGES, seeds=None):
    """Table from performances of shape (target, 1 + donor, seed); donor 0 is no donor."""
    seeds = range(np.shape(cube)[2]) if seeds is None else seeds
    rows = [
        (target, donor, seed, cube[i][j][s])
        for i, target in enumerate(languages)
        for j, donor in enumerate(["", *languages])
        for s, seed in enumerate(seeds)
    ]
    return pd.DataFrame(rows, columns=["target", "donor", "seed", "performance"])


def random_cube(seed, n=3, n_seeds=4, noise=0.02):
    """Performances around 0.5 alone, 0.7 with own data, in between with a donor."""
    generator = np.random.default_rng(seed)
    cube = 0.5 + generator.normal(0, noise, (n, n + 1, n_seeds))
    cube[:, 1:] += generator.uniform(-0.1, 0.2, (n, n, 1))
    cube[np.arange(n), 1 + np.arange(n)] += 0.3
    return cube


TWO_SEEDS = performance_table(
    [
        [[0.5, 0.6], [0.7, 0.8], [0.6, 0.7]],  # de: alone 0.55, own 0.75, with nl 0.65
        [[0.4, 0.4], [0.3, 0.3], [0.8, 0.6]],  # nl: alone 0.40, with de 0.30, own 0.70
    ],
    ["de", "nl"],
)


def test_values_and_self_gains_match_a_computation_by_hand():
    matrix = cross_lingual_transfer_matrix(TWO_SEEDS)
    np.testing.assert_allclose(matrix.values, [[1, 0.5], [-1 / 3, 1]])
    np.testing.assert_allclose(matrix.self_gain, [0.2, 0.3])
    np.testing.assert_allclose(matrix.self_gain_by_seed, [[0.2, 0.2], [0.4, 0.2]])
    # Paired over seeds: the German gain is 0.2 with both, the Dutch 0.4 and 0.2.
    np.testing.assert_allclose(matrix.self_gain_standard_error, [0, 0.1], atol=1e-15)
    assert list(matrix.values.index) == list(matrix.values.columns) == ["de", "nl"]
    assert (matrix.values.index.name, matrix.values.columns.name, matrix.n_seeds) == ("target", "donor", 2)


def test_standard_errors_match_the_delta_method_by_hand():
    errors = cross_lingual_transfer_matrix(TWO_SEEDS).standard_error
    # Two values v apart have variance v^2 / 2, their mean v^2 / 4. de: 0.0025 for a, b and c, d = 0.2, r = 0.5.
    np.testing.assert_allclose(errors.loc["de", "nl"], np.sqrt(0.0025 * (1 + 0.25 + 0.25)) / 0.2)
    # nl: only c varies, by 0.2: 0.01; d = 0.3, r = -1/3.
    np.testing.assert_allclose(errors.loc["nl", "de"], np.sqrt(0.01 / 9) / 0.3)
    assert errors.loc["de", "de"] == errors.loc["nl", "nl"] == 0


def test_summary_matches_a_computation_by_hand():
    matrix = cross_lingual_transfer_matrix(TWO_SEEDS)
    summary, off = matrix.summary(), [matrix.standard_error.loc["de", "nl"], matrix.standard_error.loc["nl", "de"]]
    np.testing.assert_allclose(summary["rms"], np.sqrt((1 + 1 + 0.25 + 1 / 9) / 4))
    np.testing.assert_allclose(summary[["se_median", "se_mean"]], np.mean(off))
    np.testing.assert_allclose(summary[["self_gain_mean", "self_gain_std"]], [0.25, 0.1 / np.sqrt(2)])
    # Per seed the mean gain is 0.3 and 0.2, so the standard error of their mean is 0.05.
    np.testing.assert_allclose(summary["self_gain_mean_se"], 0.05)
    assert summary[["n_languages", "n_undefined", "n_seeds"]].tolist() == [2, 0, 2]


def test_one_seed_gives_values_without_standard_errors():
    matrix = cross_lingual_transfer_matrix(TWO_SEEDS[TWO_SEEDS["seed"] == 0])
    assert matrix.values.notna().all(axis=None)
    assert matrix.standard_error.isna().all(axis=None) and matrix.self_gain_standard_error.isna().all()
    assert np.isnan(matrix.summary()["se_mean"])


@pytest.mark.parametrize("own", [0.5, 0.3], ids=["zero", "negative"])
def test_self_gain_that_is_not_positive_makes_a_nan_row_and_names_the_language(own):
    cube = random_cube(0)
    cube[1, 0], cube[1, 2] = 0.5, own
    with pytest.warns(UserWarning, match=r"not positive: nl \([-.0-9]+\); Eq") as caught:
        matrix = cross_lingual_transfer_matrix(performance_table(cube))
    assert caught[0].filename == __file__
    assert matrix.values.loc["nl"].isna().all() and matrix.standard_error.loc["nl"].isna().all()
    assert matrix.values.drop("nl").notna().all(axis=None)
    np.testing.assert_allclose(matrix.self_gain["nl"], own - 0.5, atol=1e-15)
    assert matrix.summary()["n_undefined"] == 1 and np.isfinite(matrix.summary()["se_mean"])


def test_self_gain_of_rounding_dust_is_not_positive():
    cube = random_cube(0, n_seeds=3)
    cube[0, 0], cube[0, 1] = [0.3, 0.2, 0.1], [0.1, 0.2, 0.3]
    assert cube[0, 1].mean() - cube[0, 0].mean() > 0  # 3e-17: the same numbers, added in another order
    with pytest.warns(UserWarning, match="not positive: de"):
        matrix = cross_lingual_transfer_matrix(performance_table(cube))
    assert matrix.values.loc["de"].isna().all()


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_order_of_rows_and_of_seeds_changes_nothing(seed):
    table = performance_table(random_cube(seed))
    shuffled = table.sample(frac=1, random_state=seed)
    first = cross_lingual_transfer_matrix(table, LANGUAGES)
    second = cross_lingual_transfer_matrix(shuffled, LANGUAGES)
    pd.testing.assert_frame_equal(first.values, second.values, check_exact=True)
    pd.testing.assert_frame_equal(first.standard_error, second.standard_error, check_exact=True)
    relabelled = table.assign(seed=3 - table["seed"])
    third = cross_lingual_transfer_matrix(relabelled)
    pd.testing.assert_frame_equal(first.values, third.values)
    pd.testing.assert_frame_equal(first.standard_error, third.standard_error)


@given(seed=st.integers(0, 10**6), shift=st.floats(-2, 2), scale=st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_shifting_or_scaling_the_metric_of_one_target_changes_no_cell(seed, shift, scale):
    cube = random_cube(seed)
    first = cross_lingual_transfer_matrix(performance_table(cube))
    cube[1] = shift + scale * cube[1]
    second = cross_lingual_transfer_matrix(performance_table(cube))
    np.testing.assert_allclose(second.values, first.values, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(second.standard_error, first.standard_error, rtol=1e-7, atol=1e-9)


@given(seed=st.integers(0, 10**6), order=st.permutations(LANGUAGES))
@settings(max_examples=20, deadline=None)
def test_permuting_the_languages_permutes_the_matrix(seed, order):
    table = performance_table(random_cube(seed))
    first, second = cross_lingual_transfer_matrix(table), cross_lingual_transfer_matrix(table, order)
    pd.testing.assert_frame_equal(second.values, first.values.loc[order, order], check_exact=True)
    pd.testing.assert_frame_equal(second.standard_error, first.standard_error.loc[order, order], check_exact=True)
    pd.testing.assert_series_equal(second.self_gain, first.self_gain[order])


def test_a_subset_of_languages_gives_the_submatrix():
    table = performance_table(random_cube(1))
    part = cross_lingual_transfer_matrix(table, ["tr", "de"]).values
    pd.testing.assert_frame_equal(part, cross_lingual_transfer_matrix(table).values.loc[["tr", "de"], ["tr", "de"]])


def test_delta_method_agrees_with_a_monte_carlo_simulation():
    generator = np.random.default_rng(3)
    means, deviation, n_seeds = np.array([[0.5, 0.8, 0.65], [0.4, 0.3, 0.7]]), 0.04, 10
    estimates, errors = [], []
    for _ in range(400):
        cube = means[:, :, None] + generator.normal(0, deviation, (2, 3, n_seeds))
        matrix = cross_lingual_transfer_matrix(performance_table(cube, ["de", "nl"]))
        estimates.append(matrix.values.to_numpy())
        errors.append(matrix.standard_error.to_numpy())
    spread = np.std(estimates, axis=0, ddof=1)
    np.testing.assert_allclose(np.mean(errors, axis=0), spread, rtol=0.12)


def test_bootstrap_agrees_with_the_delta_method_where_seeds_are_independent():
    table = performance_table(random_cube(5, n_seeds=40, noise=0.05))
    delta = cross_lingual_transfer_matrix(table).standard_error.to_numpy()
    boot = bootstrap_standard_error(table, n_resamples=2000, seed=1).standard_error.to_numpy()
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(boot[off], delta[off], rtol=0.35)
    np.testing.assert_allclose(boot[off].mean(), delta[off].mean(), rtol=0.12)
    assert (boot[~off] == 0).all()


def test_bootstrap_of_two_seeds_is_not_too_small():
    cube = random_cube(9, n_seeds=2, noise=0)
    cube[0, 2] += [0.0, 0.1]  # only Perf_de(D_de + D_nl) varies: the ratio is linear, so the two methods agree
    table = performance_table(cube)
    expected = cross_lingual_transfer_matrix(table).standard_error.loc["de", "nl"]
    actual = bootstrap_standard_error(table, 10000).standard_error.loc["de", "nl"]
    np.testing.assert_allclose(actual, expected, rtol=0.03)


def test_bootstrap_sees_noise_that_all_trainings_of_a_seed_share_and_the_delta_method_does_not():
    cube = random_cube(6, noise=0) + np.array([-0.1, 0.0, 0.02, 0.08])  # one offset per seed cancels in every gain
    table = performance_table(cube)
    np.testing.assert_allclose(bootstrap_standard_error(table, 200).standard_error, 0, atol=1e-12)
    off = ~np.eye(3, dtype=bool)
    assert (cross_lingual_transfer_matrix(table).standard_error.to_numpy()[off] > 0.05).all()


def test_bootstrap_is_repeatable_and_independent_of_row_order():
    table = performance_table(random_cube(7))
    first = bootstrap_standard_error(table, 50, seed=2)
    second = bootstrap_standard_error(table.sample(frac=1, random_state=0), 50, seed=2, languages=LANGUAGES)
    pd.testing.assert_frame_equal(first.standard_error, second.standard_error, check_exact=True)
    assert not first.standard_error.equals(bootstrap_standard_error(table, 50, seed=3).standard_error)


def test_bootstrap_reports_resamples_without_positive_self_gain_and_gives_no_error_for_that_row():
    cube = random_cube(8)
    cube[2, 0], cube[2, 3] = 0.5, [0.9, 0.45, 0.45, 0.45]  # mean gain 0.0625, three seeds of four negative
    with pytest.warns(UserWarning, match="tr"):
        errors, undefined_share = bootstrap_standard_error(performance_table(cube), 4000)
    # Without the first seed, (3/4)^4 of the resamples, the gain is -0.05; a single draw of it gives +0.0625.
    np.testing.assert_allclose(undefined_share, [0, 0, 0.75**4], atol=0.03)
    assert errors.loc["tr"].isna().all() and errors.drop("tr").notna().all(axis=None)


def test_missing_donor_read_back_from_csv_means_no_donor(tmp_path):
    TWO_SEEDS.to_csv(tmp_path / "performance.csv", index=False)
    read = pd.read_csv(tmp_path / "performance.csv")
    assert read["donor"].isna().any()
    pd.testing.assert_frame_equal(
        cross_lingual_transfer_matrix(read).values, cross_lingual_transfer_matrix(TWO_SEEDS).values
    )


def test_input_table_is_left_as_it_was():
    table = TWO_SEEDS.copy()
    cross_lingual_transfer_matrix(table)
    pd.testing.assert_frame_equal(table, TWO_SEEDS)


GOOD = performance_table(random_cube(2, n_seeds=2))


def without(target, donor, seed=None):
    """GOOD without one cell, or one seed of it."""
    rows = (GOOD["target"] == target) & (GOOD["donor"] == donor)
    return GOOD[~(rows if seed is None else rows & (GOOD["seed"] == seed))]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (GOOD.drop(columns="donor"), ["column 'donor'"]),
        (GOOD.iloc[:0], ["empty"]),
        (without("de", "tr"), ["target 'de'", "donor 'tr'", "seed 0"]),
        (without("de", "tr", 1), ["target 'de'", "donor 'tr'", "seed 1"]),
        (without("nl", ""), ["target 'nl'", "donor 'none'"]),
        (pd.concat([GOOD, GOOD.iloc[[3]]]), ["twice", "target 'de'", "donor 'de'", "seed 1"]),
        (GOOD.replace({"performance": {GOOD["performance"][4]: np.inf}}), ["target 'de'", "donor 'nl'", "seed 0"]),
        (GOOD.astype({"performance": object}).replace({GOOD["performance"][4]: "bad"}), ["donor 'nl'", "finite"]),
        (GOOD[GOOD["target"] != "tr"], ["'tr'", "never a target"]),
        (GOOD.assign(seed=np.nan), ["no seed"]),
    ],
)
def test_bad_tables_are_refused_in_one_sentence_that_names_the_cell(table, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            cross_lingual_transfer_matrix(table)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_unknown_and_repeated_languages_are_refused():
    with pytest.raises(InputError, match="xx"):
        cross_lingual_transfer_matrix(GOOD, ["de", "xx"])
    with pytest.raises(InputError, match="xx"):
        cross_lingual_transfer_matrix(GOOD, ["xx"])
    with pytest.raises(InputError, match="twice"):
        cross_lingual_transfer_matrix(GOOD, ["de", "de"])


def test_a_single_seed_has_no_bootstrap_error_and_a_single_resample_is_refused():
    alone = bootstrap_standard_error(GOOD[GOOD["seed"] == 0])
    assert alone.standard_error.isna().all().all() and alone.undefined_share.isna().all()
    with pytest.raises(InputError, match="n_resamples"):
        bootstrap_standard_error(GOOD, n_resamples=1)
