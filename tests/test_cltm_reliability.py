"""Intervals, sign calls and seed selection: by hand, against independent computations, and on tables of known truth."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from cltmlib.cltm import (
    confidence_intervals,
    cross_lingual_transfer_matrix,
    diagnostics,
    seed_selection_effect,
    seed_selection_on_null_data,
    select_seeds_by_outcome,
    sign_calls,
    sign_stability,
)
from cltmlib.errors import InputError


def performance_table(cube):
    """Table from performances of shape (target, 1 + donor, seed); donor 0 is no donor; languages a, b, c, ..."""
    n, _, n_seeds = np.shape(cube)
    names = [f"l{i:02}" for i in range(n)]
    rows = pd.MultiIndex.from_product([names, ["", *names], range(n_seeds)], names=["target", "donor", "seed"])
    return pd.Series(np.ravel(cube), rows, name="performance").reset_index()


def simulated_cube(generator, cross_gain, self_gain, n_seeds, noise=1.0):
    """Performances with these true gains, shape (target, donor) and (target,).

    Each run has its own noise, half of which it shares with the mirrored run (D_i + D_j is one training, evaluated on
    i and j); all runs of a target share a seed effect.
    """
    n = len(self_gain)
    run, pair = generator.normal(0, noise, (2, n, n, n_seeds))
    shared = np.where(np.tri(n, dtype=bool)[..., None], pair, pair.transpose(1, 0, 2))
    alone = generator.normal(0, noise, (n, 1, n_seeds))
    cube = np.concatenate([alone, np.sqrt(0.5) * (run + shared) + cross_gain[..., None]], axis=1)
    cube[np.arange(n), 1 + np.arange(n)] += (self_gain - cross_gain.diagonal())[:, None]
    return 50 + cube + generator.normal(0, noise, (n, 1, n_seeds))


def random_table(seed, n=4, n_seeds=4, noise=0.5):
    """A table with clear self-gains of 5 and cells around 0.3."""
    generator = np.random.default_rng(seed)
    return performance_table(
        simulated_cube(generator, generator.normal(1.5, 3, (n, n)), np.full(n, 5.0), n_seeds, noise)
    )


def gains(table):
    """Cross-gain of every cell within every seed, (target, donor, seed), by pivoting."""
    wide = table.pivot(index=["target", "donor"], columns="seed", values="performance")
    names = list(dict.fromkeys(table["target"]))
    return np.array([[wide.loc[i, j] - wide.loc[i, ""] for j in names] for i in names])


def off_diagonal(frame):
    return np.asarray(frame)[~np.eye(len(frame), dtype=bool)]


# A self-gain of 2 in both seeds, so the interval is that of a mean, halved.
CONSTANT_GAIN = performance_table([[[5, 6], [7, 8], [6.0, 7.2]], [[4, 4], [3, 3], [8, 6]]])


# Confidence intervals


def test_interval_with_a_constant_self_gain_is_the_t_interval_of_the_mean_cross_gain():
    lower, upper = confidence_intervals(CONSTANT_GAIN, level=0.9)
    expected = stats.t.interval(0.9, 1, loc=1.1, scale=0.1)  # cross-gains 1.0 and 1.2
    np.testing.assert_allclose([lower.loc["l00", "l01"], upper.loc["l00", "l01"]], np.array(expected) / 2)
    assert (np.diag(lower) == 1).all() and (np.diag(upper) == 1).all()
    assert (lower.index.name, lower.columns.name) == ("target", "donor")


def test_bounded_ends_are_where_the_paired_t_test_just_rejects():
    table, level = random_table(1, n_seeds=5), 0.95
    lower, upper = confidence_intervals(table, level)
    cross, estimate = gains(table), cross_lingual_transfer_matrix(table).values.to_numpy()
    for i, j in np.argwhere(~np.eye(4, dtype=bool)):

        def margin(r, i=i, j=j):
            return stats.ttest_1samp(cross[i, j] - r * cross[i, i], 0).pvalue - (1 - level)

        ends = brentq(margin, estimate[i, j] - 50, estimate[i, j]), brentq(margin, estimate[i, j], estimate[i, j] + 50)
        np.testing.assert_allclose([lower.iloc[i, j], upper.iloc[i, j]], ends, rtol=1e-8)


def test_interval_holds_exactly_what_the_test_accepts_around_the_estimate_also_where_it_is_unbounded():
    kinds = {"bounded": 0, "half-line": 0, "everything": 0}
    for seed in range(12):
        table = random_table(seed, n_seeds=3, noise=2.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimate = cross_lingual_transfer_matrix(table).values.to_numpy()
        lower, upper = map(np.asarray, confidence_intervals(table))
        cross = gains(table)
        for i, j in np.argwhere(~np.eye(4, dtype=bool) & ~np.isnan(estimate)):
            # From the estimate outwards, the last value that is accepted without a break.
            steps = np.geomspace(1e-3, 1e7, 400)
            inside = {}
            for side in (-1, 1):
                values = estimate[i, j] + side * steps
                p = stats.ttest_1samp(cross[i, j] - values[:, None] * cross[i, i], 0, axis=1).pvalue
                inside[side] = p > 0.05
                end = lower[i, j] if side < 0 else upper[i, j]
                assert np.isinf(end) == inside[side].all()
                if np.isfinite(end):
                    first = values[inside[side].argmin()]
                    assert abs(end - estimate[i, j]) <= abs(first - estimate[i, j])
            n_infinite = np.isinf([lower[i, j], upper[i, j]]).sum()
            kinds[["bounded", "half-line", "everything"][n_infinite]] += 1
    assert min(kinds.values()) > 5, kinds


def simulated_coverage(n_seeds, n_tables, interval, n=24, seed=0):
    """Share of off-diagonal cells whose true value is inside; true self-gains of 3 to 10 standard errors."""
    generator, covered = np.random.default_rng(seed), []
    for _ in range(n_tables):
        self_gain = generator.uniform(3, 10, n) * np.sqrt(2 / n_seeds)
        truth = generator.normal(0.3, 1.2, (n, n))
        cube = simulated_cube(generator, truth * self_gain[:, None], self_gain, n_seeds)
        lower, upper = map(np.asarray, interval(performance_table(cube)))
        inside = np.where(np.isnan(lower), np.nan, (lower <= truth) & (truth <= upper))
        covered.append(np.nanmean(off_diagonal(inside)))
    return np.mean(covered)


@pytest.mark.parametrize("n_seeds", [3, 4, 10])
def test_stated_intervals_cover_95_percent_within_2_points(n_seeds):
    assert abs(simulated_coverage(n_seeds, 15, confidence_intervals) - 0.95) < 0.02


def test_stated_intervals_cover_at_another_level():
    assert abs(simulated_coverage(4, 15, lambda table: confidence_intervals(table, 0.8)) - 0.8) < 0.02


def test_bootstrap_t_of_ten_seeds_covers_95_percent_within_2_points():
    covered = simulated_coverage(10, 12, lambda table: confidence_intervals(table, n_resamples=400))
    assert abs(covered - 0.95) < 0.02


@pytest.mark.parametrize(("n_seeds", "stated"), [(3, 0.75), (4, 0.80), (10, 0.90)])
def test_percentile_bootstrap_covers_as_little_as_the_docstring_says(n_seeds, stated):
    weights = np.random.default_rng(1).multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=1000) / n_seeds

    def percentile(table):
        cube = table["performance"].to_numpy().reshape(24, 25, n_seeds)
        cross = (cube[:, 1:] - cube[:, :1]) @ weights.T  # (target, donor, resample)
        own = cross[np.arange(24), np.arange(24)][:, None]
        return np.nanquantile(cross / np.where(own > 0, own, np.nan), [0.025, 0.975], axis=2)

    assert abs(simulated_coverage(n_seeds, 6, percentile) - stated) < 0.03


def test_bootstrap_t_is_close_to_the_t_interval_for_many_normal_seeds_and_repeatable():
    table = random_table(3, n_seeds=60)
    exact, boot = confidence_intervals(table), confidence_intervals(table, n_resamples=2000, seed=1)
    np.testing.assert_allclose(
        off_diagonal(boot.upper - boot.lower), off_diagonal(exact.upper - exact.lower), rtol=0.15
    )
    again = confidence_intervals(table.sample(frac=1, random_state=0), 0.95, sorted(set(table["target"])), 2000, seed=1)
    pd.testing.assert_frame_equal(boot.lower, again.lower, check_exact=True)
    assert not boot.lower.equals(confidence_intervals(table, n_resamples=2000, seed=2).lower)


def test_unbounded_share_counts_cells_with_an_infinite_end():
    generator = np.random.default_rng(0)
    cube = simulated_cube(generator, np.zeros((2, 2)), np.array([9.0, 9.0]), 3, noise=0.1)
    cube[1, 2] = cube[1, 0] + [2.9, -2.5, 0.2]  # mean 0.2, far from significant
    intervals = confidence_intervals(performance_table(cube))
    assert intervals.unbounded_share == 0.5
    assert np.isinf(intervals.lower.loc["l01", "l00"]) and np.isfinite(intervals.lower.loc["l00", "l01"])


def test_noise_that_all_runs_of_a_seed_share_leaves_no_width():
    cube = simulated_cube(np.random.default_rng(2), np.full((3, 3), 2.0), np.full(3, 4.0), 4, noise=0)
    lower, upper = confidence_intervals(performance_table(np.add(cube, [0.0, 3.0, -1.0, 0.5])))
    np.testing.assert_allclose(off_diagonal(lower), 0.5, atol=1e-9)
    np.testing.assert_allclose(off_diagonal(upper), 0.5, atol=1e-9)


# Sign calls


def test_p_values_are_the_larger_of_the_two_paired_t_tests():
    table = random_table(5, n_seeds=4, noise=2)
    cross = gains(table)
    p_cross = stats.ttest_1samp(cross, 0, axis=2).pvalue
    p_self = stats.ttest_1samp(cross[range(4), range(4)], 0, axis=1, alternative="greater").pvalue
    expected = np.maximum(p_cross, p_self[:, None])
    p_values = sign_calls(table).p_values
    np.testing.assert_allclose(off_diagonal(p_values), off_diagonal(expected))
    assert (off_diagonal(p_cross) > off_diagonal(p_self[:, None] + 0 * p_cross)).any()  # either test decides somewhere
    assert (off_diagonal(p_cross) < off_diagonal(p_self[:, None] + 0 * p_cross)).any()
    assert np.isnan(np.diag(p_values)).all()


def test_calls_are_the_step_up_rule_of_benjamini_and_hochberg():
    table = random_table(6, n_seeds=4, noise=1.5)
    calls, rate = sign_calls(table, 0.3), 0.3
    p = off_diagonal(calls.p_values)
    accepted = [k for k in range(1, len(p) + 1) if np.sort(p)[k - 1] <= rate * k / len(p)]
    expected = p <= np.sort(p)[max(accepted) - 1]
    assert 0 < expected.sum() < len(p)
    means = off_diagonal(gains(table).mean(axis=2))
    np.testing.assert_array_equal(off_diagonal(calls.signs), np.where(expected, np.sign(means), 0))
    assert (np.diag(calls.signs) == 0).all()


def false_discoveries(world, n_seeds, n_tables, n, seed=0):
    """Mean share of wrong signs among the called ones, for the function and for tests of the cross-gain alone."""
    generator, ours, cross_only = np.random.default_rng(seed), [], []
    for _ in range(n_tables):
        self_gain = generator.uniform(2.5, 7, n)
        cross_gain = np.zeros((n, n))
        if world != "no transfer":
            cross_gain = generator.normal(0, 3, (n, n)) * (generator.random((n, n)) < 0.5)
        if world == "languages without self-gain":
            self_gain[: n // 2] = generator.uniform(-1, 0, n // 2)
        cube = simulated_cube(generator, cross_gain, self_gain, n_seeds)
        truth = off_diagonal(np.where(self_gain[:, None] > 0, np.sign(cross_gain), 0))

        calls = off_diagonal(sign_calls(performance_table(cube)).signs)
        ours.append((calls[calls != 0] != truth[calls != 0]).mean() if calls.any() else 0.0)
        cross = cube[:, 1:] - cube[:, :1]
        tested = np.repeat(cross[range(n), range(n)].mean(axis=1) > 0, n - 1)
        p = np.where(tested, stats.ttest_1samp(off_diagonal(cross), 0, axis=1).pvalue, 1)
        called = stats.false_discovery_control(p) <= 0.05
        wrong = np.sign(off_diagonal(cross.mean(axis=2))) != truth
        cross_only.append(wrong[called].mean() if called.any() else 0.0)
    return np.mean(ours), np.mean(cross_only)


@pytest.mark.parametrize(
    ("world", "n_seeds", "n_tables", "n"),
    [
        ("no transfer", 4, 150, 6),
        ("no transfer", 10, 150, 6),
        ("half of the cells", 3, 50, 10),
        ("half of the cells", 4, 50, 10),
        ("half of the cells", 10, 50, 10),
        ("languages without self-gain", 4, 50, 10),
        ("languages without self-gain", 10, 50, 10),
    ],
)
def test_at_most_5_percent_of_the_called_signs_are_wrong(world, n_seeds, n_tables, n):
    ours, _ = false_discoveries(world, n_seeds, n_tables, n)
    # Without any transfer a table is all wrong or all right: its error of simulation is that of a coin with 5 %.
    assert ours <= 0.05 + (2 * np.sqrt(0.05 * 0.95 / n_tables) if world == "no transfer" else 0)


def test_without_the_test_of_the_self_gain_more_than_5_percent_would_be_wrong():
    ours, cross_only = false_discoveries("languages without self-gain", 10, 30, 10, seed=1)
    assert ours < 0.05 < 0.08 < cross_only


def test_clear_signs_are_called():
    generator = np.random.default_rng(0)
    cross_gain = np.where(np.tri(8, dtype=bool), 9.0, -9.0)
    calls = sign_calls(performance_table(simulated_cube(generator, cross_gain, np.full(8, 9.0), 10)))
    np.testing.assert_array_equal(off_diagonal(calls.signs), off_diagonal(np.sign(cross_gain)))


def test_gains_that_are_equal_in_every_seed_are_not_called():
    cube = np.empty((2, 3, 3))
    cube[:] = [0.1, 0.2, 0.4]
    cube[:, 1:] += 0.2  # every gain is 0.2 up to rounding
    cube[0, 1] += [0.3, 0.31, 0.32]  # l00: the self-gain is sure, the cross-gain has no error to test against
    cube[1, 1] += [0.3, 0.31, 0.32]  # l01: the other way round
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calls = sign_calls(performance_table(cube), 0.5)
    assert (off_diagonal(calls.p_values) == 1).all() and (calls.signs == 0).all(axis=None)


# Sign stability


def test_sign_stability_matches_matrices_computed_without_each_seed():
    table = random_table(8, n_seeds=5, noise=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = np.sign(cross_lingual_transfer_matrix(table).values)
        without = [np.sign(cross_lingual_transfer_matrix(table[table["seed"] != s]).values) for s in range(5)]
    expected = sum((signs == full).astype(float) for signs in without) / 5
    stability = sign_stability(table)
    pd.testing.assert_frame_equal(stability.share, expected.where(full.notna()))
    cells = off_diagonal(stability.share)
    assert 0 < np.nanmean(cells == 1) < 1
    np.testing.assert_allclose(stability.stable_share, (cells[~np.isnan(cells)] == 1).mean())


def test_a_cell_that_one_seed_carries_keeps_its_sign_in_the_other_matrices_only():
    cube = np.zeros((2, 3, 4))
    cube[[0, 1], [1, 2]] = 1.0
    cube[0, 2] = [5, -1, -1, -1]  # mean 0.5; -1 without the first seed
    cube[1, 1] = [-5, 1, 1, 1]
    stability = sign_stability(performance_table(cube))
    assert stability.share.to_numpy().tolist() == [[1, 0.75], [0.75, 1]] and stability.stable_share == 0


# Rows without a positive self-gain, row order, bad input


@pytest.mark.parametrize("self_gain", [0, -1])
def test_rows_without_a_positive_self_gain_are_nan_and_never_called(self_gain):
    table = random_table(4)
    own = (table["target"] == "l02") & (table["donor"].isin(["", "l02"]))
    table.loc[own, "performance"] = [50.0, 51, 52, 53, *np.add([53, 52, 51, 50], self_gain)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        intervals, calls, stability = confidence_intervals(table), sign_calls(table, 0.9), sign_stability(table)
    for frame in (intervals.lower, intervals.upper, stability.share):
        assert frame.loc["l02"].isna().all() and frame.drop("l02").notna().all(axis=None)
    assert (calls.signs.loc["l02"] == 0).all() and (calls.p_values.loc["l02"].drop("l02") == 1).all()
    assert np.isfinite(intervals.unbounded_share) and np.isfinite(stability.stable_share)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_order_of_rows_changes_nothing(seed):
    table = random_table(seed, n=3)
    shuffled, names = table.sample(frac=1, random_state=seed % 2**31), ["l00", "l01", "l02"]
    for function in (confidence_intervals, sign_calls, sign_stability):
        first, second = function(table, languages=names), function(shuffled, languages=names)
        for left, right in zip(first, second, strict=True):
            np.testing.assert_array_equal(left, right)
    kept = select_seeds_by_outcome(shuffled, languages=names).index
    assert set(kept) == set(select_seeds_by_outcome(table).index)
    pd.testing.assert_frame_equal(seed_selection_effect(table), seed_selection_effect(shuffled, languages=names))


def test_missing_donor_of_a_csv_file_means_no_donor():
    table = random_table(0)
    missing = table.replace({"donor": {"": np.nan}})
    pd.testing.assert_frame_equal(confidence_intervals(table).lower, confidence_intervals(missing).lower)
    assert list(select_seeds_by_outcome(table).index) == list(select_seeds_by_outcome(missing).index)


@pytest.mark.parametrize("function", [confidence_intervals, sign_calls, sign_stability])
def test_a_single_seed_is_refused_in_one_sentence(function):
    table = random_table(0)
    with pytest.raises(InputError, match=r"^One seed \(2\) shows no spread: train .* two seeds\.$"):
        function(table[table["seed"] == 2])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda table: confidence_intervals(table, 95), "level must lie between 0 and 1, both excluded, not 95"),
        (lambda table: sign_calls(table, 0), "false_discovery_rate must lie between 0 and 1"),
        (lambda table: confidence_intervals(table, n_resamples=1000), "at least 8 seeds, not 4: leave n_resamples out"),
        (lambda table: confidence_intervals(random_table(0, n_seeds=8), n_resamples=0), "n_resamples >= 1, not 0"),
        (lambda table: sign_calls(table.iloc[1:]), "no performance of target 'l00', donor 'none', seed 0"),
        (lambda table: select_seeds_by_outcome(table.iloc[:0]), "empty"),
        (lambda table: seed_selection_on_null_data(1, 4), "n_languages >= 2, not 1"),
        (lambda table: seed_selection_on_null_data(4, 4, noise=0), "noise > 0, not 0"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_parameter_or_cell(call, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        call(random_table(0))


# Seeds selected by their outcome


def test_the_runs_that_the_rule_drops_are_those_found_by_hand():
    table = performance_table(
        [
            # l00: own mean 6.0. Alone above it: 9 and 7. Quantile of the runs with l01 is 5.7: own stays.
            [[9, 1, 7, 6, 2], [6, 6, 6, 6, 6], [5, 5, 5, 6, 5]],
            # l01: own mean 3.0. Alone all above it: the best 4 of 5 go. Quantile 4.7, between 4 and 5: own loses 1,
            # 2 and 3 (means 3.5, 4, 4.5 are below) and then 4 (mean 5).
            [[9, 8, 7, 6, 5], [4, 4, 4, 4, 5], [1, 2, 3, 4, 5]],
        ]
    )
    kept = select_seeds_by_outcome(table)
    dropped = table.drop(kept.index)[["target", "donor", "seed"]].to_records(index=False).tolist()
    assert dropped == [
        *[("l00", "", 0), ("l00", "", 2)],
        *[("l01", "", 0), ("l01", "", 1), ("l01", "", 2), ("l01", "", 3)],
        *[("l01", "l01", 0), ("l01", "l01", 1), ("l01", "l01", 2), ("l01", "l01", 3)],
    ]
    effect = seed_selection_effect(table)
    np.testing.assert_allclose(effect.loc["self_gain_mean"], [((6 - 5) + (3 - 7)) / 2, ((6 - 3) + (5 - 5)) / 2])
    assert effect.loc["n_undefined"].tolist() == [1, 1] and effect.loc["n_dropped"].tolist() == [0, 10]


def test_at_most_nine_own_runs_are_dropped_and_never_the_last():
    for n_seeds, n_left in ((12, 3), (4, 1)):
        cube = np.zeros((2, 3, n_seeds))
        cube[0, 2] = 100.0  # no own run comes near
        cube[0, 1] = np.arange(n_seeds)
        kept = select_seeds_by_outcome(performance_table(cube))
        own = kept[(kept["target"] == "l00") & (kept["donor"] == "l00")]
        assert own["performance"].tolist() == list(range(n_seeds - n_left, n_seeds))


def kept_one_by_one(table):
    """The released rule, run by run."""
    table = table.copy()
    for target in set(table["target"]):
        rows = table[table["target"] == target]
        alone, own = rows[rows["donor"] == ""], rows[rows["donor"] == target]
        others = rows[~rows["donor"].isin(["", target])]["performance"]
        for k, index in enumerate(alone["performance"].sort_values(ascending=False).index):
            if alone["performance"][index] <= own["performance"].mean() or k == int(np.floor(0.8 * len(alone))):
                break
            table = table.drop(index)
        own = own["performance"].sort_values()
        for _ in range(9):
            if len(own) < 2 or own.mean() >= others.quantile(0.925):
                break
            table, own = table.drop(own.index[0]), own.iloc[1:]
    return set(table.index)


@given(seed=st.integers(0, 10**6), n_seeds=st.integers(1, 13), gain=st.sampled_from([0.0, 0.5, 2.0]))
@settings(max_examples=25, deadline=None)
def test_selection_agrees_with_the_rule_applied_run_by_run(seed, n_seeds, gain):
    cube = simulated_cube(np.random.default_rng(seed), np.full((3, 3), gain), np.full(3, gain), n_seeds)
    table = performance_table(cube)
    assert set(select_seeds_by_outcome(table).index) == kept_one_by_one(table)


def test_selection_keeps_rows_as_they_are_and_only_those_of_the_languages():
    table = random_table(3, noise=6).assign(note="x").sample(frac=1, random_state=0)
    before = table.copy()
    kept = select_seeds_by_outcome(table, ["l03", "l00"])
    pd.testing.assert_frame_equal(table, before)
    assert kept.index.tolist() == [index for index in table.index if index in set(kept.index)]
    assert list(kept.columns) == list(table.columns) and set(kept["target"]) == {"l00", "l03"}
    part = table[table["target"].isin(["l00", "l03"]) & table["donor"].isin(["", "l00", "l03"])]
    assert set(kept.index) == set(select_seeds_by_outcome(part).index)


@pytest.mark.parametrize("self_gain", [5.0, 0.0])
def test_effect_is_that_of_the_matrices_of_both_tables(self_gain):
    generator = np.random.default_rng(7)
    cube = simulated_cube(generator, generator.normal(1, 2, (5, 5)), np.full(5, self_gain), 6)
    table = performance_table(cube)
    selected = select_seeds_by_outcome(table)
    effect = seed_selection_effect(table)
    for column, rows in {"all seeds": table, "selected seeds": selected}.items():
        means = rows.groupby(["target", "donor"], sort=False)["performance"].mean().reset_index().assign(seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matrix = cross_lingual_transfer_matrix(means)
            numbers = diagnostics(matrix.values, dict.fromkeys(matrix.values.index, ""))
        np.testing.assert_allclose(
            effect.loc[["prop_pos", "rms", "rfd_1"], column], numbers[["prop_pos", "rms", "rfd_1"]]
        )
        np.testing.assert_allclose(effect.loc["self_gain_mean", column], matrix.self_gain.mean())
        kept = matrix.values.dropna().index
        np.testing.assert_allclose(
            effect.loc["cell_median", column], np.median(off_diagonal(matrix.values.loc[kept, kept]))
        )
        assert effect.loc["n_undefined", column] == matrix.values.isna().all(axis=1).sum()
        assert effect.loc["n_dropped", column] == len(table) - len(rows)


def test_on_data_without_any_gain_selection_makes_every_self_gain_positive():
    null = seed_selection_on_null_data(12, 10, noise=0.02, n_tables=60)
    error = null["all seeds SE"]
    assert abs(null.loc["self_gain_mean", "all seeds"]) < 3 * error["self_gain_mean"]
    assert abs(null.loc["positive_self_gain_share", "all seeds"] - 0.5) < 3 * error["positive_self_gain_share"]
    assert abs(null.loc["prop_pos", "all seeds"] - 2 / 3) < 3 * error["prop_pos"]
    selected = null["selected seeds"]
    assert selected["self_gain_mean"] > 0.03 and selected["positive_self_gain_share"] > 0.99
    assert selected["prop_pos"] > 0.9 and 0 < selected["n_dropped"] < 12 * (8 + 9)
    assert null.notna().all(axis=None)


def test_null_data_are_repeatable_and_scale_with_the_noise():
    first, again = (seed_selection_on_null_data(5, 4, 0.02, 5, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    tenfold = seed_selection_on_null_data(5, 4, 0.2, 5, seed=3)
    np.testing.assert_allclose(tenfold.loc["self_gain_mean"], 10 * first.loc["self_gain_mean"])
    np.testing.assert_allclose(tenfold.drop("self_gain_mean"), first.drop("self_gain_mean"))
